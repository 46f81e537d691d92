"""The bibliography as a list: each entry under the label that the text cites it by, with links to it and back."""

from __future__ import annotations

import re

from docutils import nodes

ARXIV = re.compile(r"arXiv:([\w.-]+/\d{7}|\d{4}\.\d{4,5})")


def label(entry) -> str:
    """The label of a pybtex entry as the text cites it: "Ho et al., 2020"."""
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    last = [" ".join(map(str, [*p.rich_prelast_names, *p.rich_last_names])) for p in people]
    names = f"{last[0]} et al." if len(last) > 2 else " and ".join(last) or entry.fields.get("title", "")
    return f"{names}, {entry.fields['year']}"


def link_papers(node: nodes.Element) -> None:
    """Make the arXiv numbers within a node links."""
    for text in list(node.findall(nodes.Text)):
        parts, at = [], 0
        for found in ARXIV.finditer(text):
            link = nodes.reference("", found[0], refuri=f"https://arxiv.org/abs/{found[1]}", internal=False)
            parts += [nodes.Text(text[at : found.start()]), link]
            at = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[at:])])


def citing(app, key: str, docname: str) -> list[nodes.Node]:
    """Links to the pages that cite an entry."""
    refs = app.env.get_domain("cite").citation_refs
    pages = sorted({ref.docname for ref in refs if key in {target.key for target in ref.targets}} - {docname})
    inside: list[nodes.Node] = []
    for page in pages:
        number = app.env.titles[page].get("secnumber") or app.env.toc_secnumbers.get(page, {}).get("")
        text = ".".join(map(str, number)) if number else app.env.titles[page].astext()
        uri = app.builder.get_relative_uri(docname, page)
        inside += [nodes.Text(", " if inside else " Cited in "), nodes.reference("", text, refuri=uri, internal=True)]
    return [*inside, nodes.Text(".")] if inside else []


def entry(app, citation: nodes.citation, known: dict) -> nodes.list_item:
    """One entry of the list."""
    of = known[citation["ids"][0]]
    text = citation[1]
    link_papers(text)
    text.insert(0, [nodes.strong("", label(of.entry)), nodes.Text(". ")])
    text.extend(citing(app, of.key, citation["docname"]))
    return nodes.list_item("", text, ids=citation["ids"])


def list_entries(app, doctree, docname) -> None:
    """Make each bibliography of a page a list."""
    known = {citation.citation_id: citation for citation in app.env.get_domain("cite").citations}
    for holder in {c.parent for c in doctree.findall(nodes.citation) if c["ids"][0] in known}:
        entries = sorted((entry(app, c, known) for c in holder.children), key=lambda item: item.astext().lower())
        holder.replace_self(nodes.bullet_list("", *entries, classes=["citations"]))


def setup(app):
    """Called by Sphinx when the extension is loaded."""
    app.connect("doctree-resolved", list_entries, priority=50)  # before search collects what stands there
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
