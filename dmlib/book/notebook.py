"""What a chapter's set-up cell calls, and the normal form in which chapters are stored.

python -m dmlib.book.notebook normalize FILE...   rewrite in normal form
python -m dmlib.book.notebook check FILE...       exit 1 and name what is not normal
python -m dmlib.book.notebook record FILE...      execute, and store the text of the check cells
"""

from __future__ import annotations

import inspect
import io
import itertools
import json
import os
import re
import sys
import textwrap
import time
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

from dmlib.book import figures, plotting
from dmlib.book import map as road
from dmlib.checks import require

__all__ = ["CELL_METADATA", "TAGS", "CellFailed", "check", "normalize", "place", "record", "run", "setup", "show"]

TAGS = (
    "setup",
    "colab-setup",
    "program",
    "check",
    "nbval-check-output",
    "hide-input",
    "hide-output",
    "hide-cell",
    "remove-input",
    "raises-exception",
    "slow",
    "gpu",
)
CELL_METADATA = ("mystnb", "nbgrader", "tags")
FIGURE_METADATA = {"figure": {"name", "caption"}, "image": {"alt"}}
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")
QUIET = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "DMLIB_STATIC": "1"}


def setup() -> None:
    """Set the style of figures, and one thread for torch: a chapter's tensors are small, a second thread would wait."""
    figures.as_svg()
    mpl.rcParams.update(plotting.STYLE)
    torch.set_num_threads(1)


def place(name: str) -> None:
    """Display the map of the book, lit where the chapter `name` stands."""
    from IPython.display import display

    display({"text/html": road.html(name), "text/plain": f"The map of the book: {road.words(name)}"}, raw=True)


def show(fn: Callable[..., Any]) -> None:
    """Display the source of a function or class as the library holds it."""
    from IPython.display import display

    source = textwrap.dedent(inspect.getsource(fn)).rstrip()
    fence = "````" if "```" in source else "```"
    display({"text/markdown": f"{fence}python\n{source}\n{fence}", "text/plain": source}, raw=True)


def normalize(book: dict[str, Any]) -> dict[str, Any]:
    """The normal form of a notebook (its JSON as a dictionary), with the outputs of check cells kept."""
    cells, ordinal = [], 0
    for place, cell in enumerate(book["cells"], start=1):
        source = "".join(cell["source"])
        source = _tidy_code(source) if cell["cell_type"] == "code" else _tidy_text(source)
        if not source:
            continue
        ordinal += cell["cell_type"] == "code"
        new = {
            "cell_type": cell["cell_type"],
            "metadata": _metadata(cell, place),
            "source": source.splitlines(keepends=True),
        }
        if cell["cell_type"] == "code":
            new["outputs"] = _text(cell) if "check" in new["metadata"].get("tags", ()) else []
            new["execution_count"] = ordinal if new["outputs"] else None
        cells.append(new)
    return {"cells": cells, "metadata": {"kernelspec": KERNELSPEC}, "nbformat": 4, "nbformat_minor": 4}


def _tidy_code(source: str) -> str:
    """The lines without blanks at their ends, but for those within a string; what is not Python stays as it is."""
    source = source.strip("\n")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return source
    if source.startswith("%%") or any(token.type == tokenize.ERRORTOKEN for token in tokens):
        return source
    inside = {row for token in tokens for row in range(token.start[0], token.end[0])}
    lines = enumerate(source.split("\n"), start=1)
    return "\n".join(line if row in inside else line.rstrip() for row, line in lines).strip("\n")


def _tidy_text(source: str) -> str:
    """The lines without blanks at their ends, but for two or more before a line of text: Markdown breaks there."""
    lines = itertools.pairwise([*source.split("\n"), ""])
    kept = [line if after.strip() and re.search(r"\S {2,}$", line) else line.rstrip() for line, after in lines]
    return "\n".join(kept).strip("\n")


def _metadata(cell: dict[str, Any], place: int) -> dict[str, Any]:
    """Tags from the closed list, in its order; figure names, captions and alt text; nbgrader's data."""
    require(not cell.get("attachments"), f"cell {place}", "one with attachments", "one without")
    found = {key: value for key, value in cell["metadata"].items() if key in CELL_METADATA and value}
    for part, fields in found.get("mystnb", {}).items():
        allowed = FIGURE_METADATA.get(part, set())
        ok = isinstance(fields, dict) and fields.keys() <= allowed
        require(ok, f"mystnb.{part} of cell {place}", fields, "figure with name and caption, or image with alt")
    tags = set(found.pop("tags", ()))
    tags |= {"nbval-check-output"} if "check" in tags else set()
    require(tags <= set(TAGS), f"the tags of cell {place}", sorted(tags - set(TAGS)), "among " + ", ".join(TAGS))
    return {**found, **({"tags": sorted(tags, key=TAGS.index)} if tags else {})}


def _text(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell printed, as one output; nothing else."""
    text = "".join("".join(out["text"]) for out in cell["outputs"] if out.get("name") == "stdout")
    return [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}] if text else []


def _dump(book: dict[str, Any]) -> str:
    return json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _normal(path: str | Path) -> dict[str, Any]:
    """The normal form of a stored notebook; raises ValueError, in one line, where the file holds none of format 4."""
    try:
        book = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        found = f"one of format {book['nbformat']}" if "nbformat" in book else "JSON of another kind"
        require(found == "one of format 4", "the notebook", found, "one of format 4")
        return normalize(book)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else f"its JSON is not that of a notebook: {error!r}"
        raise ValueError(f"{path}: {reason}") from None


def check(path: str | Path) -> list[str]:
    """What keeps a stored notebook from being in normal form, in words; empty if nothing does."""
    try:
        normal, text = _dump(_normal(path)), Path(path).read_text(encoding="utf-8")
    except (ValueError, OSError) as error:
        return [str(error)]
    pairs = enumerate(zip([*text.splitlines(), ""], [*normal.splitlines(), ""]), start=1)
    first = next((f"line {n} is {a.strip()!r}, normal is {b.strip()!r}" for n, (a, b) in pairs if a != b), "its end")
    return [] if text == normal else [f"{path}: not in normal form: {first}"]


class CellFailed(RuntimeError):
    """A cell that could not be run, named by chapter and number in one line."""


def run(book: Any, name: str, folder: Path, *, timeout: int = 600) -> None:
    """Execute a notebook of nbformat in place, in a quiet kernel of this Python; raise CellFailed where one fails."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(book, timeout=timeout, resources={"metadata": {"path": str(folder)}})
    client.km = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))  # No other one by that name.
    client.store_widget_state, client.extra_arguments = False, ["--log-level=ERROR"]
    started: list[int] = []
    client.on_cell_execute = lambda cell, cell_index: started.append(cell_index + 1)
    try:
        client.execute(env={**os.environ, **QUIET})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise CellFailed(f"{name}, cell {started[-1] if started else 1}{_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Where in a cell it failed and why, in one line."""
    said = ANSI.sub("", str(error))
    if not hasattr(error, "ename"):
        return f": {type(error).__name__}: {said.splitlines()[0] if said else 'the kernel ended'}"
    places = re.findall(r"Cell In\[\d+\], line (\d+)", said)
    value = ANSI.sub("", error.evalue).strip().split("\n")[0]
    return f"{f', line {places[0]}' if places else ''}: {error.ename}: {value}"


def record(path: str | Path) -> float:
    """Execute a notebook, store what its check cells print, and return the seconds it took."""
    import nbformat

    path, start = Path(path), time.perf_counter()
    book = _normal(path)
    live = nbformat.reads(_dump(book), as_version=4)
    run(live, path.stem, path.resolve().parent)
    for place, (cell, done) in enumerate(zip(book["cells"], live["cells"], strict=True), start=1):
        outputs = done.get("outputs", [])
        noise = ["".join(out["text"]) for out in outputs if out.get("name") == "stderr"]
        require(not noise, f"cell {place} of {path.name}", f"one that wrote to stderr: {noise}", "quiet")
        if "check" in cell["metadata"].get("tags", ()):
            ok = bool(outputs) and all(out.get("name") == "stdout" for out in outputs)
            kinds = [out["output_type"] for out in outputs]
            require(ok, f"check cell {place} of {path.name}", kinds, "one that only prints")
            cell["outputs"] = outputs
    path.write_text(_dump(normalize(book)), encoding="utf-8")
    return time.perf_counter() - start


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit status."""
    command, paths = (arguments or [""])[0], arguments[1:]
    if command not in ("normalize", "check", "record") or not paths:
        print(__doc__)
        return 2
    problems: list[str] = []
    for path in map(Path, paths):
        try:
            if command == "check":
                problems += check(path)
            elif command == "record":
                print(f"{path}: recorded in {record(path):.0f} s")
            else:
                path.write_text(_dump(_normal(path)), encoding="utf-8")
        except (CellFailed, ValueError, OSError) as error:
            problems.append(str(error))
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
