"""What the book asks of Sphinx beyond its extensions.

1. A chapter's number is that of its file name, so that chapter 9 is 9 before chapter 8 is written.
2. Every page knows every numbered equation, so that hovering a reference shows it, from file:// too.
3. An equation's number is a link to it, to copy or to send.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles

assign_in_order = TocTreeCollectorWithStyles.assign_section_numbers


def file_number(docname: str) -> int | None:
    """9 for chapters/09-posterior-mean."""
    match = re.fullmatch(r"chapters/(\d\d)-.*", docname)
    return int(match[1]) if match else None


def assign_by_file_name(collector, env) -> list[str]:
    """Sphinx's section numbers, their first part replaced by the number in the file name."""
    before = env.toc_secnumbers
    assign_in_order(collector, env)
    for docname, sections in env.toc_secnumbers.items():
        chapter = file_number(docname)
        if chapter is not None:
            env.toc_secnumbers[docname] = {a: (chapter, *n[1:]) if n else n for a, n in sections.items()}
            for node in [env.titles[docname], *env.tocs[docname].findall(nodes.reference)]:
                if node.get("secnumber"):
                    node["secnumber"] = [chapter, *node["secnumber"][1:]]
    return [doc for doc, sections in env.toc_secnumbers.items() if sections != before.get(doc)]


def write_equations(app, exception) -> None:
    """Write every numbered equation to _static/equations.js, by the anchor its references point to."""
    if exception or app.builder.format != "html":
        return
    found = {}
    for docname in app.env.found_docs:
        for node in app.env.get_doctree(docname).findall(nodes.math_block):
            if node.get("label"):
                found[f"equation-{node['label']}"] = node.astext()
    script = f"window.EQUATIONS = {json.dumps(found, sort_keys=True)};\n"
    (Path(app.outdir) / "_static" / "equations.js").write_text(script, "utf8")


def link_numbers(app, pagename, templatename, context, doctree) -> None:
    """Make the number beside each equation a link to that equation."""
    number = r'<span class="eqno">(\([^<]*\))<a class="headerlink" href="([^"]*)"'
    linked = r'<span class="eqno"><a href="\2">\1</a><a class="headerlink" href="\2"'
    context["body"] = re.sub(number, linked, context.get("body", ""))


def setup(app):
    """Called by Sphinx when the extension is loaded."""
    TocTreeCollectorWithStyles.assign_section_numbers = assign_by_file_name
    app.connect("html-page-context", link_numbers)
    app.connect("build-finished", write_equations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
