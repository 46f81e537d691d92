"""Build the pages from the kept outputs: python -m tools.pages

The sources are staged in _build/source, chapters with their outputs, the appendices made from their tables;
Jupyter Book reads them there and leaves the book in _build/html. Only files that differ are written, so that
Sphinx reads again only what changed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat

from dmlib.book import live
from dmlib.book import map as road
from dmlib.book.figures import NARROW_MIME
from tools import appendices, execute
from tools.sphinx_narrow import narrow_name

WEIGHTS = re.compile(r'(data-late="weights" data-key="(\w+)")>([^<]*)<')
COPIED = ["_config.yml", "_toc.yml", "references.bib"]


def write(path: Path, content: bytes) -> bool:
    """Write a file unless it holds this already; returns whether it did not."""
    if path.exists() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return True


def with_outputs(path: Path, outputs: list) -> bytes:
    """A chapter with these outputs, one list a code cell."""
    notebook = nbformat.read(path, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for n, (cell, kept) in enumerate(zip(cells, outputs, strict=True), 1):
        cell.outputs, cell.execution_count = [nbformat.from_dict(output) for output in kept], n
        for output in cell.outputs:
            for mime in (appendices.LEDGER_MIME, NARROW_MIME):
                output.get("data", {}).pop(mime, None)
    return nbformat.writes(notebook).encode()


def narrow_figures(outputs: list) -> dict[str, bytes]:
    """The forms for phones of a chapter's figures, by the paths that the pages look for."""
    data = [output.get("data", {}) for cell in outputs for output in cell]
    two = [(d["image/svg+xml"], d[NARROW_MIME]) for d in data if NARROW_MIME in d]
    return {narrow_name("".join(wide)): "".join(narrow).encode() for wide, narrow in two}


def late_weights(outputs: list) -> dict[str, bytes]:
    """The weights in a chapter's outputs, by the paths of the scripts that hold them; each output is left its name."""
    files = {}

    def move(match: re.Match[str]) -> str:
        files[f"_assets/live/{match[2]}.js"] = match[3].encode()
        return f'{match[1]} data-src="_static/live/{match[2]}.js"><'

    for data in (output.get("data", {}) for cell in outputs for output in cell):
        if "text/html" in data:
            data["text/html"] = WEIGHTS.sub(move, "".join(data["text/html"]))
    return files


def staged(root: Path) -> dict[str, bytes]:
    """Everything Jupyter Book is to read, by its path in the staged folder."""
    files = {name: (root / name).read_bytes() for name in COPIED}
    for folder in ("_assets", "figures"):
        shown = (f for f in (root / folder).rglob("*") if f.is_file() and f.suffix != ".safetensors")
        files |= {f.relative_to(root).as_posix(): f.read_bytes() for f in shown}
    files |= {f"_assets/live/{name}.js": live.script(name).encode() for name in live.modules()}
    files["figures/map.svg"] = road.svg("intro").encode()
    files["figures/map.html"] = road.html("intro").encode()
    for pattern, folder in (("sphinx_*.py", "_ext"), ("vendor/temml/*.js", "_ext"), ("templates/*", ".")):
        found = (root / "tools").glob(pattern)
        files |= {(Path(folder) / f.relative_to(root / "tools")).as_posix(): f.read_bytes() for f in found}
    files |= {f"chapters/{f.name}": f.read_bytes() for f in (root / "chapters").glob("[!_]*.md")}
    kept = {}
    for path in execute.notebooks(root):
        if not execute.is_fresh(path, root):
            raise SystemExit(f"{path.relative_to(root)} has not been executed as it stands; run make book.")
        kept[path.stem] = json.loads(execute.kept(path, root).read_text("utf8"))
        files |= late_weights(kept[path.stem]["outputs"])
        files[path.relative_to(root).as_posix()] = with_outputs(path, kept[path.stem]["outputs"])
        files |= narrow_figures(kept[path.stem]["outputs"])
    files |= {f"chapters/{name}.md": text.encode() for name, text in appendices.made(root, kept).items()}
    return files


def stage(root: Path) -> Path:
    """Bring the staged folder up to date: nothing missing, nothing left over.

    Sphinx does not notice a changed style sheet, script or setting: then it starts afresh.
    """
    source = root / "_build" / "source"
    files = staged(root)
    changed = [name for name, content in files.items() if write(source / name, content)]
    if not all(name.startswith(("chapters/", "narrow/", "_assets/live/")) for name in changed):
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
    for old in source.rglob("*"):
        if old.is_file() and old.relative_to(source).as_posix() not in files:
            old.unlink()
    return source


def main() -> int:
    """Stage and build; warnings are errors, and a failed build leaves no page behind."""
    root, start = execute.ROOT, time.perf_counter()
    source = stage(root)
    builder = Path(sys.executable).with_name("jupyter-book")
    command = [builder, "build", source, "--path-output", root, "-W", "-n", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True)
    index = root / "_build" / "html" / "index.html"
    missing = [page for page in execute.pages(root) if not (root / "_build" / "html" / f"{page}.html").exists()]
    if done.returncode or missing:
        print(done.stderr[-8000:] or done.stdout[-8000:], file=sys.stderr)
        print(f"The pages were not built; missing: {', '.join(missing) or 'none'}.", file=sys.stderr)
        shutil.rmtree(root / "_build" / "html", ignore_errors=True)
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
        return 1
    print(f"The book was built in {time.perf_counter() - start:.1f} s: open {index}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
