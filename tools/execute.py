"""Execute the chapters whose code, or whose part of dmlib, changed: python -m tools.execute [--list]

The outputs are kept in _build/executed, one file a chapter, under a key made of the chapter's code cells,
every module of dmlib that they reach, the data files of the rooms of these modules, and the pinned environment.
The scripts of figures that compute in the page do not count: outputs name them, and staging brings them.
"""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
KERNEL_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "DMLIB_STATIC": "1"}
CELL_TIMEOUT = 300


def pages(root: Path = ROOT) -> list[str]:
    """Every page of the table of contents, in order, without its suffix."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
    listed = [page["file"] for part in toc["parts"] for page in part["chapters"]]
    return [toc["root"], *listed]


def notebooks(root: Path = ROOT) -> list[Path]:
    """The pages that are notebooks."""
    return [path for page in pages(root) if (path := root / f"{page}.ipynb").exists()]


@functools.cache
def imported(source: str) -> frozenset[str]:
    """Names of the dmlib modules that a piece of Python imports, at any depth, packages included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if name.split(".")[0] == "dmlib")


def reached(source: str, root: Path) -> set[Path]:
    """The files of dmlib that a piece of Python reaches, through imports of imports."""
    files: set[Path] = set()
    waiting = set(imported(source))
    while waiting:
        parts = waiting.pop().split(".")
        paths = [root.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
        paths.append(root.joinpath(*parts).with_suffix(".py"))
        for path in paths:
            if path.exists() and path not in files:
                files.add(path)
                waiting |= imported(path.read_text("utf8"))
    return files


def code(path: Path) -> list[str]:
    """The sources of a notebook's code cells; raises RuntimeError where the file is no notebook."""
    try:
        cells = json.loads(path.read_text("utf8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeError(f"{path.name} is not the JSON of a notebook: {error!r}") from None


def key(path: Path, root: Path = ROOT) -> str:
    """A digest of all that a chapter's outputs depend on."""
    cells = code(path)
    modules = reached("\n".join(cells), root)
    rooms = {module.parent for module in modules} - {root / "dmlib"}
    data = [f for room in rooms for f in room.rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")]
    data = [f for f in data if "live" not in f.relative_to(root).parts]  # scripts of the pages
    digest = hashlib.sha256(json.dumps(cells).encode())
    for file in sorted({*modules, *data, root / "requirements.txt"}):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def kept(path: Path, root: Path = ROOT) -> Path:
    """Where the outputs of a chapter are kept."""
    return root / "_build" / "executed" / f"{path.stem}.json"


def is_fresh(path: Path, root: Path = ROOT) -> bool:
    """Whether the kept outputs are those of the chapter as it stands."""
    file = kept(path, root)
    return file.exists() and json.loads(file.read_text("utf8"))["key"] == key(path, root)


def keep(path: Path, outputs: list, seconds: float, root: Path = ROOT, digest: str | None = None) -> None:
    """Keep a chapter's outputs, one list a code cell, under a key, that of now unless given.

    The file appears whole or not at all.
    """
    file = kept(path, root)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(
        json.dumps({"key": digest or key(path, root), "seconds": round(seconds, 1), "outputs": outputs}), "utf8"
    )
    os.replace(partial, file)


def execute(path: Path, root: Path = ROOT) -> float:
    """Run a chapter in a fresh kernel and keep its outputs; returns the seconds it took."""
    import nbformat

    from dmlib.book import notebook

    start, digest = time.perf_counter(), key(path, root)  # of what runs, though it may be edited meanwhile
    book = nbformat.read(path, 4)
    notebook.run(book, path.stem, path.parent, timeout=CELL_TIMEOUT)
    seconds = time.perf_counter() - start
    gc.collect()  # A kernel's client that is collected while Python 3.11 parses a module breaks its parser.
    keep(path, [cell.outputs for cell in book.cells if cell.cell_type == "code"], seconds, root, digest)
    return seconds


def main() -> int:
    """Bring every chapter's outputs up to date, saying which and how long it took."""
    todo = notebooks()
    if sys.argv[1:] == ["--list"]:
        print(*(path.relative_to(ROOT) for path in todo))
        return 0
    for n, path in enumerate(todo, 1):
        label = f"[{n}/{len(todo)}] {path.relative_to(ROOT)}"
        try:
            if is_fresh(path):
                print(f"{label}  unchanged", flush=True)
                continue
            print(f"{label}  running ...", flush=True)
            print(f"{label}  {execute(path):.1f} s", flush=True)
        except RuntimeError as error:
            print(f"{error}; the book was not built", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
