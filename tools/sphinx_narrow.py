"""What a page shows on a phone: figures redrawn for it, or large enough to read, and code whose long lines wrap."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path

DRAWING = re.compile(r'<img [^>]*?width="(\d+)"[^>]*?src="([./]*_images/)([\w-]+\.svg)"[^>]*>')
CODE = re.compile(r'(<div class="highlight"><pre>)(.*?)(</pre>)', re.DOTALL)
SIZE = re.compile(r'<svg [^>]*width="([\d.]+)pt" height="([\d.]+)pt"')
PIXELS = 4 / 3  # of the page in a point
TAG = re.compile(r"<[^>]+>")
INDENT = re.compile(r"^((?:<span[^>]*>)*)( +)")
COLUMN = 34  # characters of code that a phone shows, about


def sides(drawing: str) -> str:
    """Width and height of a drawing, as a page says them."""
    found = SIZE.search(drawing[:1000])
    named = zip(("width", "height"), found.groups() if found else ())
    return "".join(f'{side}="{PIXELS * float(length):.0f}" ' for side, length in named)


def narrow_name(drawing: str) -> str:
    """The file, beside the sources, of a drawing's form for phones."""
    return f"narrow/{hashlib.sha256(''.join(drawing.split()).encode()).hexdigest()[:16]}.svg"


def fitting(body: str, narrow: Callable[[str], tuple[str, str] | None]) -> str:
    """The body of a page with each drawing in two forms, or in a box of its own that knows how wide it was drawn.

    `narrow` gives file and size of a drawing's form for phones, by the drawing's own name, or None.
    """

    def fit(match: re.Match[str]) -> str:
        found = narrow(match[3])
        if found is None:
            return f'<span class="drawing" style="--drawn: {match[1]}px">{match[0]}</span>'
        source = f'<source media="(max-width: 600px)" {found[1]}srcset="{match[2]}{found[0]}">'
        return f"<picture>{source}{match[0]}</picture>"

    return DRAWING.sub(fit, body)


def hanging(body: str) -> str:
    """The body of a page with each long line of code marked, and its indent, to which it is to hang."""

    def mark(line: str) -> str:
        text = html.unescape(TAG.sub("", line))
        if len(text) <= COLUMN:
            return line
        inner = INDENT.sub(r'\1<span class="indent">\2</span>', line)
        return f'<span class="long" style="--in: {len(text) - len(text.lstrip())}ch">{inner}</span>'

    return CODE.sub(lambda block: block[1] + "\n".join(map(mark, block[2].split("\n"))) + block[3], body)


def fit(app, pagename, templatename, context, doctree) -> None:
    """Prepare a page for narrow screens."""
    if "body" not in context:
        return
    source, images = Path(app.srcdir), Path(app.outdir) / "_images"
    drawings = {name: source / path for path, name in app.builder.images.items()}

    def narrow(name: str) -> tuple[str, str] | None:
        found = source / narrow_name(drawings[name].read_text("utf8"))
        if not found.exists():
            return None
        drawing = found.read_text("utf8")
        (images / found.name).write_text(drawing, "utf8")
        return found.name, sides(drawing)

    context["body"] = hanging(fitting(context["body"], narrow))


def setup(app):
    """Called by Sphinx when the extension is loaded."""
    app.connect("html-page-context", fit, priority=950)  # when sphinx_light has given each drawing its size
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
