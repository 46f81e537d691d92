"""A page that opens at once: scripts after the text, and pictures as files that are read when they come into sight."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx_narrow import sides

UNUSED = {"design-tabs.js"}  # of extensions that bring a script for what the book has not
INLINE = re.compile(r'src="data:image/(\w+);base64,([^"]*)"')
DRAWN = re.compile(r'<img (?=[^>]*src="[./]*_images/([\w-]+\.svg)")')
WALK = re.compile(r',"complete"===document\.readyState\?O\(\):window\.addEventListener\("load",O\)')
QUIET = "/* without the walk over all code */\n"


def defer_scripts(scripts: list) -> list:
    """The files of a page's scripts, each to wait for the text, in the order that they have; no inline script."""
    kept = [script for script in scripts if script.filename and Path(script.filename).name not in UNUSED]
    for script in kept:
        script.attributes["defer"] = "defer"
    return kept


def picture_files(body: str, root: str, folder: Path) -> str:
    """The body of a page with its inline pictures written to files; `root` leads from the page to `folder`."""

    def write(match: re.Match[str]) -> str:
        content = base64.b64decode(match[2])
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{match[1]}"
        (folder / name).write_bytes(content)
        return f'loading="lazy" src="{root}{name}"'

    return INLINE.sub(write, body)


def sized(body: str, drawings: dict[str, Path]) -> str:
    """The body of a page with the size of each drawing, given by name, so that nothing moves when it arrives."""

    return DRAWN.sub(lambda match: '<img loading="lazy" ' + sides(drawings[match[1]].read_text("utf8")), body)


def lead(body: str, pagename: str, equations: dict[str, tuple[str, int]], uri: Callable[[str, str], str]) -> str:
    """The body of a page whose checks link equations as if all were its own: others are linked where they stand."""

    def home(match: re.Match[str]) -> str:
        page = equations.get(match[1], (pagename,))[0]
        return match[0] if page == pagename else f'href="{uri(pagename, page)}#equation-{match[1]}"'

    return re.sub(r'href="#equation-([\w-]+)"', home, body)


def lighten(app, pagename, templatename, context, doctree) -> None:
    """Make a page light: its scripts late, its pictures files, read when they come into sight."""
    context["script_files"] = defer_scripts(context.get("script_files", []))
    if "body" in context:
        folder = Path(app.outdir) / "_images"
        folder.mkdir(parents=True, exist_ok=True)
        body = picture_files(context["body"], context["pathto"]("_images/", resource=True), folder)
        body = body.replace(' aria-label="Toggle hidden content"', "")  # the summary says what it is
        drawings = {name: Path(app.srcdir) / path for path, name in app.builder.images.items()}
        equations = app.env.get_domain("math").equations
        context["body"] = lead(sized(body, drawings), pagename, equations, app.builder.get_relative_uri)
    about = next((p.astext() for p in doctree.findall(nodes.paragraph)), "") if doctree else ""
    context["metatags"] = f'<meta name="description" content="{html.escape(" ".join(about.split())[:300])}">'


def quiet_theme(app, exception) -> None:
    """Take from the theme's script its walk over all code, which lays out every closed fold; book.js does the same."""
    if exception or app.builder.format != "html":
        return
    path = Path(app.outdir) / "_static" / "scripts" / "pydata-sphinx-theme.js"
    script = path.read_text("utf8")
    if script.startswith(QUIET):  # Sphinx copies no script where no page has changed.
        return
    script, cut = WALK.subn("", script)
    if not cut and "main-content" in script:
        raise ExtensionError(
            "the script of the theme: without the walk over all code, it must be as sphinx_light knows it"
        )
    path.write_text(QUIET + script, "utf8")


def setup(app):
    """Called by Sphinx when the extension is loaded."""
    app.connect("build-finished", quiet_theme)
    app.connect("html-page-context", lighten, priority=900)  # when the theme and all extensions have added theirs
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
