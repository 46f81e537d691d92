"""Formulas set as MathML when the pages are built: no script sets them, and text and formulas appear together.

Temml reads the TeX, in a JavaScript engine; each formula is set once, however often it stands in the book.
"""

from __future__ import annotations

import functools
import html
import json
import re
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from quickjs import Context, JSException
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number

TEMML = Path(__file__).parent / "vendor" / "temml" / "temml.min.js"
SET = """function set(tex, display) {  // as JSON: quickjs cannot hand over a text that JavaScript joined of parts
  return JSON.stringify(temml.renderToString(tex, {displayMode: display, throwOnError: true, wrap: "tex"}));
}"""
OPENED, CLOSED = set("([{⟨"), set(")]}⟩")
BREAKS = set("=≤≥<>≈∝∼≡→⟶⟹⟺↦+−")
OPENING, CLOSING = re.compile(r"\S*[(\[“‘/-]$"), re.compile(r"[.,;:!?)\]”’'/-]\S*|\w+")


@functools.cache
def engine() -> Context:
    """A JavaScript engine that has read Temml."""
    context = Context()
    context.eval(TEMML.read_text("utf8") + SET)
    return context


@functools.cache
def mathml(tex: str, display: bool = False) -> str:
    """A formula as a <math> element that carries its TeX, to be copied; ExtensionError where Temml cannot read it."""
    try:
        made = json.loads(engine().get("set")(tex, display))
    except JSException as error:
        reason = next(line for line in str(error).splitlines() if "ParseError" in line)
        raise ExtensionError(f"formula: {tex}: {reason.strip()}") from None
    made = breakable(made).replace(' style="display:block math;"', "", 1) if display else made
    return made.replace("<math", f'<math data-tex="{html.escape(tex)}"', 1)


def breakable(made: str) -> str:
    """A displayed formula in pieces, so that it can be broken before relations and sums where a page is narrow."""
    top = ElementTree.fromstring(made)
    for box in [top, *top.iter("mtd")]:
        row = box
        while len(row) == 1 and row[0].tag == "mrow":
            row = row[0]
        parts = list(row)
        starts = [n for n in range(1, len(parts)) if begins(parts, n)]
        if starts:
            for child in list(box):
                box.remove(child)
            for a, b in zip([0, *starts], [*starts, len(parts)]):
                ElementTree.SubElement(box, "mrow").extend(parts[a:b])
    return ElementTree.tostring(top, encoding="unicode", short_empty_elements=False)


def begins(parts: list[ElementTree.Element], n: int) -> bool:
    """Whether a line may begin at the n-th part: at a relation or sum of two sides, or after a wide space."""
    part, before = parts[n], parts[n - 1]
    signs = [part.text or "" for part in parts[:n] if part.tag == "mo"]
    depth = sum((sign in OPENED) - (sign in CLOSED) for sign in signs if sign)
    two_sided = before.tag != "mo" or before.text in CLOSED
    if part.tag == "mo" and part.text in BREAKS and two_sided and depth == 0:
        part.set("form", "infix")
        return True
    return before.tag == "mspace" and float(before.get("width", "0em").removesuffix("em")) >= 1


def visit_inline(translator, node: nodes.math) -> None:
    """A formula within a line."""
    translator.body.append(f'<span class="math notranslate nohighlight">{mathml(node.astext())}</span>')
    raise nodes.SkipNode


def visit_display(translator, node: nodes.math_block) -> None:
    """A formula in its own box, beside it its number, which is a link to it."""
    number = ""
    if node["number"]:
        href, text = f"#{node['ids'][0]}", f"({get_node_equation_number(translator, node)})"
        number = (
            f'<span class="eqno"><a href="{href}">{text}</a>'
            f'<a class="headerlink" href="{href}" title="Link to this equation">#</a></span>'
        )
    start = translator.starttag(node, "div", CLASS="math notranslate nohighlight")
    translator.body.append(f'{start}<div class="formula">{mathml(node.astext(), True)}</div>{number}</div>\n')
    raise nodes.SkipNode


def keep_together(app, doctree, docname) -> None:
    """No line ends between a formula and the bracket before it or the punctuation behind it."""
    for formula in list(doctree.findall(nodes.math)):
        parent, before, after = formula.parent, [], []
        if not isinstance(parent, nodes.TextElement):
            continue
        at = parent.index(formula)
        left = parent[at - 1] if at and isinstance(parent[at - 1], nodes.Text) else ""
        right = parent[at + 1] if at + 1 < len(parent) and isinstance(parent[at + 1], nodes.Text) else ""
        if found := OPENING.search(left):
            before = [nodes.Text(found[0])]
            parent[at - 1] = nodes.Text(left[: found.start()])
        if found := CLOSING.match(right):
            after = [nodes.Text(found[0])]
            parent[at + 1] = nodes.Text(right[found.end() :])
        if before or after:
            parent[at] = nodes.inline("", "", *before, formula, *after, classes=["together"])


def write_equations(app, exception) -> None:
    """Write _static/equations.js, every numbered equation by its anchor: read when one is first asked for."""
    if exception or app.builder.format != "html":
        return
    trees = [app.env.get_doctree(docname) for docname in sorted(app.env.found_docs)]
    blocks = [node for tree in trees for node in tree.findall(nodes.math_block) if node.get("label")]
    equations = {f"equation-{node['label']}": mathml(node.astext(), True) for node in blocks}
    script = f"window.EQUATIONS = {json.dumps(equations, sort_keys=True, ensure_ascii=False)};\n"
    (Path(app.outdir) / "_static" / "equations.js").write_text(script, "utf8")


def setup(app):
    """Called by Sphinx when the extension is loaded."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    app.connect("doctree-resolved", keep_together)
    app.connect("build-finished", write_equations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
