"""What the book asks of Sphinx beyond its extensions.

1. A chapter's number is that of its file name, so that chapter 9 is 9 before chapter 8 is written.
2. Detours and solutions are folded, and the checks of a cell to one tick.
3. The map of the book takes the form that fits the page.
4. A link to what has moved to another page leads on there.
5. The rows of a wide table can be stacked on a phone.
6. A page without cells can show the first moving figure of a chapter.
7. Formulas are set by sphinx_math, pages made light by sphinx_light; sphinx_search and sphinx_bibliography say theirs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx_exercise.nodes import solution_node
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles

assign_in_order = TocTreeCollectorWithStyles.assign_section_numbers
WIDE_TABLE = 4  # columns from which on a table does not fit a phone
LABELS = ("equation-", "ex-", "fig-")  # how the ids begin that stand once in the whole book


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


def is_detour(section: nodes.section) -> bool:
    title = next(iter(section.children), None)
    return isinstance(title, nodes.title) and title.astext().startswith("Detour:")


def name_detours(app, doctree) -> None:
    """A detour's anchor is that of its title alone, whatever its minutes."""
    for section in doctree.findall(nodes.section):
        if is_detour(section):
            section["ids"] = [re.sub(r"^detour-|-\d+-minutes?$", "", name) for name in section["ids"]]


def fold(node: nodes.Element, kind: str, summary: list[nodes.Node], inside: list[nodes.Node]) -> None:
    """Put all that a node holds in a <details>."""
    opened, headed, closed = (
        nodes.raw("", html, format="html")
        for html in (f'<details class="fold {kind}"><summary>', "</summary>", "</details>")
    )
    node.children = []
    node.extend([opened, *summary, headed, *inside, closed])


def verdict(printed: str) -> str | None:
    """What the checks of a cell come to, "2 checks, 1 wrong form rejected"; None unless every line is a pass."""
    found = [re.match(r"PASS \S+  (rejected: )?", line) for line in printed.splitlines() if line]
    if not found or None in found:
        return None
    wrong = sum(match[1] is not None for match in found)
    counts = [(len(found) - wrong, "check", ""), (wrong, "wrong form", " rejected")]
    return ", ".join(f"{n} {name}{'s' * (n > 1)}{end}" for n, name, end in counts if n)


def fold_checks(cell: nodes.Element) -> None:
    """One tick for a check cell, its claims and its code behind it; a cell that printed anything else stays open."""
    parts = {n.get("nb_element"): n for n in cell.findall(nodes.container)}
    source, output = parts["cell_code_source"], parts.get("cell_code_output", nodes.container())
    found = verdict("\n".join(block.astext() for block in output.findall(nodes.literal_block)))
    if found:
        fold(cell, "checks", [nodes.Text(f"✓ {found}")], [output, source])


def name_cells(table: nodes.table) -> None:
    """Put the title of its column into each cell of a wide table, for a page so narrow that rows are stacked."""
    head, body = (next(iter(table.findall(part)), None) for part in (nodes.thead, nodes.tbody))
    titles = [cell.astext() for cell in head.findall(nodes.entry)] if head else []
    if len(titles) < WIDE_TABLE:
        return
    table["classes"].append("stacks")
    for row in body.findall(nodes.row):
        for title, cell in zip(titles[1:], row.children[1:]):
            if len(cell):
                cell[0].insert(0, nodes.inline("", f"{title}: ", classes=["column"]))


def dress_page(app, doctree, docname) -> None:
    """Fold what is not the main line of a page; where its picture stands, show the map that fits a phone too."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        if image["uri"] == "figures/map.svg":
            image.replace_self(
                nodes.raw("", (Path(app.srcdir) / "figures" / "map.html").read_text("utf8"), format="html")
            )
    for table in doctree.findall(nodes.table):
        name_cells(table)
    for section in list(doctree.findall(nodes.section)):
        if is_detour(section):
            fold(section, "detour", section[:1], section[1:])
    for cell in list(doctree.findall(nodes.container)):
        if "tag_check" in cell["classes"]:
            fold_checks(cell)
    for solution in list(doctree.findall(solution_node)):
        if "dropdown" in solution["classes"]:
            solution["classes"].remove("dropdown")  # a menu's name in the theme's style sheet
            for link in list(solution[0].findall(nodes.reference)):  # a summary is to be clicked, not to lead away
                link.replace_self(link.children)
            fold(solution, "solution", solution[:1], solution[1:])


class Moving(Directive):
    """The first figure of a chapter that moves: `:::{moving} 11-ddpm`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        path = Path(env.srcdir) / "chapters" / f"{self.arguments[0]}.ipynb"
        env.note_dependency(str(path))
        cells = json.loads(path.read_text("utf8"))["cells"]
        drawn = ["".join(out.get("data", {}).get("text/html", "")) for c in cells for out in c.get("outputs", ())]
        player = next((made for made in drawn if 'class="dm-player"' in made), None)
        if player is None:
            raise self.error(f"{path.name} has no figure that moves")
        return [nodes.raw("", f'<div class="cell_output">{player}</div>', format="html")]


def write_index(app, exception) -> None:
    """Write _static/index.js: the page of each label, and where sections have moved."""
    if exception or app.builder.format != "html":
        return
    trees = {docname: app.env.get_doctree(docname) for docname in sorted(app.env.found_docs)}
    ids = {page: {name for node in tree.findall(nodes.Element) for name in node["ids"]} for page, tree in trees.items()}
    labels = {name: page for page, names in ids.items() for name in names if name.startswith(LABELS)}
    moved = json.loads((Path(app.srcdir) / "_assets" / "moved.json").read_text("utf8"))
    index = {"LABELS": labels, "MOVED": moved}
    script = "".join(f"window.{name} = {json.dumps(value, sort_keys=True)};\n" for name, value in index.items())
    (Path(app.outdir) / "_static" / "index.js").write_text(script, "utf8")


def setup(app):
    """Called by Sphinx when the extension is loaded."""
    TocTreeCollectorWithStyles.assign_section_numbers = assign_by_file_name
    for extension in ("sphinx_math", "sphinx_light", "sphinx_narrow", "sphinx_search", "sphinx_bibliography"):
        app.setup_extension(extension)
    app.add_directive("moving", Moving)
    app.connect("doctree-read", name_detours, priority=100)  # before Sphinx collects the table of contents
    app.connect("doctree-resolved", dress_page)
    app.connect("build-finished", write_index)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
