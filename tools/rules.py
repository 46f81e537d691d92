"""The rules that every chapter keeps: python -m tools.rules chapters/NN-name.ipynb ...

Prints one line for each fault and exits with 1 if there is one. tests/test_notebooks.py and `make check` hold the
same rules; `rules_text` has those for what a chapter says, `rules_code` those for what it runs.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
from pathlib import Path

from dmlib.book import notebook
from tools import execute, reading, rules_code, rules_text
from tools.reading import Book

ROOT = execute.ROOT
MAX_BYTES = 260_000  # a long chapter is 250 kB of text; a figure left in it would be on top of that


def read(path: Path) -> Book:
    """A stored notebook."""
    return json.loads(path.read_text("utf8"))


def form(name: str, book: Book) -> list[str]:
    """It is its own normal form."""
    try:
        return [] if notebook.normalize(copy.deepcopy(book)) == book else ["not in normal form"]
    except ValueError as error:
        return [str(error)]


RULES = (form, *rules_text.RULES, *rules_code.RULES)


def syntax(n: int, text: str) -> list[str]:
    """What keeps a cell from being Python; the other rules read only what is."""
    try:
        ast.parse(text)
    except SyntaxError as error:
        return [f"cell {n}, line {error.lineno}, is not Python: {error.msg}"]
    return []


def faults(path: Path) -> list[str]:
    """What keeps a chapter from being one of this book, in words, one line each."""
    book = read(path)
    broken = [fault for n, cell in rules_code.code(book) for fault in syntax(n, "".join(cell["source"]))]
    found = broken or [fault for rule in RULES for fault in rule(path.stem, book)]
    if not form(path.stem, book):
        found += [fault.removeprefix(f"{path}: ") for fault in notebook.check(path)]
    found += [f"{path.stat().st_size:,} bytes; at most {MAX_BYTES:,}"] if path.stat().st_size > MAX_BYTES else []
    return [f"{path.stem}: {fault}" for fault in found]


def listing_faults(root: Path) -> list[str]:
    """Chapters that _toc.yml, the intro's table and README do not name alike, by title (up to a colon) too."""
    stems = {page.split("/")[-1] for page in execute.pages(root) if rules_text.numbered(page.split("/")[-1])}
    titles = {int(stem[:2]): stem for stem in stems}
    found = [
        f"chapters/{path.name} is not in _toc.yml"
        for path in sorted((root / "chapters").glob("[0-9][0-9]-*.ipynb"))
        if path.stem not in stems
    ]
    table = [line for line in (root / "chapters" / "intro.md").read_text("utf8").split("\n") if line.startswith("|")]
    links = re.findall(r"\{doc\}`(?:(\d+) )?([^`<>]*?)\s*<(\d\d-[\w-]+)>`", "\n".join(table))
    written = re.search(r"^Written so far:(.*(?:\n\S.*)*)", (root / "README.md").read_text("utf8"), re.M)
    listed = {int(n): title for n, title in re.findall(r"(\d+) \*([^*]+)\*", written[1] if written else "")}
    linked = {stem: title for _, title, stem in links}
    found += [f"the intro's table links {stem}, which is not in _toc.yml" for stem in sorted(linked.keys() - stems)]
    found += [f"the intro's table does not link {stem}" for stem in sorted(stems - linked.keys())]
    found += [f"README names chapter {n}, which is not in _toc.yml" for n in sorted(listed.keys() - titles.keys())]
    found += [f"README does not name {stem}" for n, stem in sorted(titles.items()) if n not in listed]
    for n, stem in sorted(titles.items()):
        title = "".join(read(root / "chapters" / f"{stem}.ipynb")["cells"][0]["source"]).split("\n")[0][2:]
        title = title.split(":")[0]
        for place, named in (("the intro's table", linked.get(stem)), ("README", listed.get(n))):
            found += [f"{place} calls {stem} {named!r}; its title is {title!r}"] if named not in (None, title) else []
    return found


def hour_faults(root: Path) -> list[str]:
    """Chapters whose hours in the intro's table of reading paths are not those that the chapter states."""
    lines = (root / "chapters" / "intro.md").read_text("utf8").split("\n")
    table = {m[1]: line for line in lines if "min" in line and (m := re.match(r"\|.*<(\d\d-[\w-]+)>`", line))}
    found = []
    for path in sorted((root / "chapters").glob("[0-9][0-9]-*.ipynb")):
        column = " | ".join(re.sub(r"^\D+", "", time) for time in reading.hours(read(path)).split(" · "))
        found += (
            []
            if table.get(path.stem, "").rstrip(" |").endswith(f"| {column}")
            else [f"the intro's table must give {path.stem}: {column}"]
        )
    return found


def main(paths: list[str]) -> int:
    """Print the faults of each chapter; return the exit status."""
    if not paths:
        print(__doc__)
        return 2
    found = [fault for path in map(Path, paths) for fault in faults(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
