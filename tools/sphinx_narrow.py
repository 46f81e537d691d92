"""What a page keeps on a phone: drawings large enough to read, which scroll, and code whose long lines wrap."""

from __future__ import annotations

import html
import re

DRAWING = re.compile(r'<img [^>]*?width="(\d+)"[^>]*?src="[./]*_images/[\w-]+\.svg"[^>]*>')
CODE = re.compile(r'(<div class="highlight"><pre>)(.*?)(</pre>)', re.DOTALL)
TAG = re.compile(r"<[^>]+>")
INDENT = re.compile(r"^((?:<span[^>]*>)*)( +)")
COLUMN = 34  # characters of code that a phone shows, about


def scrolling(body: str) -> str:
    """The body of a page with each drawing in a box of its own, which knows how wide it was drawn."""
    return DRAWING.sub(r'<span class="drawing" style="--drawn: \1px">\g<0></span>', body)


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
    if "body" in context:
        context["body"] = hanging(scrolling(context["body"]))


def setup(app):
    """Called by Sphinx when the extension is loaded."""
    app.connect("html-page-context", fit, priority=950)  # when sphinx_light has given each drawing its size
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
