"""Search that finds places: every section, numbered equation, figure and exercise, with the words that stand there.

The places are written to _static/places.js, which search.js reads: a script, so that it works from file:// too.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx_math import mathml

NUMBERED = {"displaymath": "Equation ({})", "figure": "Fig. {}", "exercise": "Exercise {}"}
UNREAD = (nodes.literal_block, nodes.raw, nodes.comment, nodes.system_message)
MADE = ("ledger", "notation", "benchmarks", "bibliography")  # pages that repeat what the chapters say
WEIGHTS = {"chapter": 3, "written": 2, "made": 1}


def is_titled(node: nodes.Node) -> bool:
    """Whether a node is a section of the page: exercises and solutions have sections within them without a title."""
    return isinstance(node, nodes.section) and isinstance(node[0], nodes.title)


def is_read(node: nodes.Node) -> bool:
    """Whether the words of a node belong to the section that it stands in."""
    return not (isinstance(node, UNREAD) or is_titled(node))


def words(node: nodes.Node) -> str:
    """What a reader sees of a node, formulas as their characters; without code and without subsections."""
    if isinstance(node, nodes.Text):
        return str(node)
    if isinstance(node, (nodes.math, nodes.math_block)):
        return f" {html.unescape(re.sub(r'<[^>]*>', '', mathml(node.astext())))} "
    if isinstance(node, nodes.image):
        return f" {node.get('alt', '')} "
    gap = "" if isinstance(node, nodes.inline) or isinstance(node.parent, nodes.TextElement) else " "
    return gap + "".join(words(child) for child in node.children if is_read(child)) + gap


def squeezed(text: str) -> str:
    """Text with one space for each gap, and none before punctuation."""
    return re.sub(r" (?=[.,;:)])", "", " ".join(text.split()))


def places(doctree: nodes.document, numbers: dict) -> Iterator[tuple[str, str, str]]:
    """Anchor, title and words of each section, then of each numbered thing, of a page."""
    for section in doctree.findall(is_titled):
        title, *rest = section.children
        text = " ".join(words(child) for child in rest if is_read(child))
        yield section["ids"][0], squeezed(words(title)), squeezed(text)
    marked = {name: node for node in doctree.findall(nodes.Element) for name in node["ids"]}
    for kind, title in NUMBERED.items():
        for anchor, number in numbers.get(kind, {}).items():
            yield anchor, title.format(".".join(map(str, number))), squeezed(words(marked[anchor]))[:300]


def kept(app, docname: str) -> Path:
    """Where the places of a page wait until all pages are written."""
    return Path(app.doctreedir) / f"{docname}.places.json"


def collect(app, doctree, docname) -> None:
    """Keep the places of a page."""
    found = list(places(doctree, app.env.toc_fignumbers.get(docname, {})))
    kept(app, docname).write_text(json.dumps(found), "utf8")


def kind(docname: str) -> str:
    """What a page is: a chapter, an appendix that was written, or one that was made."""
    name = docname.split("/")[-1]
    return "chapter" if name[:2].isdigit() else "made" if name in MADE else "written"


def write_places(app, exception) -> None:
    """Write _static/places.js: the title and the weight of each page, and its places."""
    if exception or app.builder.format != "html":
        return
    pages = [
        [
            docname,
            app.env.titles[docname].astext(),
            WEIGHTS[kind(docname)],
            json.loads(kept(app, docname).read_text("utf8")),
        ]
        for docname in sorted(app.env.found_docs)
    ]
    script = f"window.PLACES = {json.dumps(pages, ensure_ascii=False)};\n"
    (Path(app.outdir) / "_static" / "places.js").write_text(script, "utf8")


def setup(app):
    """Called by Sphinx when the extension is loaded."""
    app.connect("doctree-resolved", collect, priority=100)  # before a page is dressed
    app.connect("build-finished", write_places)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
