"""Start a chapter, and judge one: what `make chapter` and `make check` run.

python -m tools.chapter new 14-continuous-time    make the chapter from chapters/_template.md
python -m tools.chapter check 14                  run and record it, then name what is against the rules
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from dmlib.book import map as road
from dmlib.book import notebook
from tools import reading, rules, rules_text

ROOT = rules.ROOT
TEMPLATE_NAME = "14-continuous-time"  # the name that chapters/_template.md uses in its own place
NEXT = """Next:
  1. Write: jupyter lab chapters, or as text (CONTRIBUTING.md says how).
  2. make check CHAPTER={number} runs it, stores what its checks print, and names what is against the rules.
  3. Add chapters/{name} to _toc.yml, to the table of chapters/intro.md and to README ("Written so far").
  4. Mark the rows of chapters/coverage.csv that it now carries; list definitions in chapters/definitions.csv."""


def fill(template: str, name: str) -> dict:
    """The template as a notebook in normal form, its labels made the chapter's own."""
    import jupytext

    text = template.replace(TEMPLATE_NAME, name).replace("-template-", f"-{name[3:]}-")
    return notebook.normalize(jupytext.reads(text, fmt="md:myst"))


def new(name: str, root: Path = ROOT) -> Path:
    """Write chapters/NAME.ipynb from the template; raises ValueError where that cannot be."""
    if not re.fullmatch(r"\d\d-[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"NAME was {name!r}; it must be two digits and words, like {TEMPLATE_NAME}")
    if name not in road.PLACES:
        raise ValueError(f"{name} has no place on the map; add it to PLACES in dmlib/book/map.py first")
    path = root / "chapters" / f"{name}.ipynb"
    taken = sorted(other.name for other in path.parent.glob(f"{name[:2]}-*.ipynb"))
    if taken:
        raise ValueError(f"the number {name[:2]} is taken by {taken[0]}")
    book = fill((root / "chapters" / "_template.md").read_text("utf8"), name)
    path.write_text(json.dumps(book), "utf8")
    notebook.main(["normalize", str(path)])
    return path


def find(chapter: str, root: Path = ROOT) -> Path:
    """The one notebook that a number, a name or a path means."""
    stem = Path(chapter).stem
    found = sorted(path for path in (root / "chapters").glob("*.ipynb") if stem in (path.stem, path.stem[:2]))
    if not stem or len(found) != 1:
        names = ", ".join(sorted(path.stem for path in (root / "chapters").glob("*.ipynb")))
        raise ValueError(f"CHAPTER was {chapter!r}; it must be a number or a name of: {names}")
    return found[0]


def judge(path: Path) -> list[str]:
    """Record a chapter and name what is against the rules, line by line."""
    print(f"{path.stem}: recorded in {notebook.record(path):.0f} s", flush=True)
    books = {other.stem: rules.read(other) for other in sorted(path.parent.glob("*.ipynb"))}
    twice = [fault for fault in rules_text.repeated(books) if fault.startswith(f"{path.stem}: ")]
    command = [sys.executable, "-m", "tools.formulas", str(path)]
    unread = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(unread.stderr, end="", file=sys.stderr)
    return [*rules.faults(path), *twice, *unread.stdout.splitlines()]


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit status."""
    command, name = [*arguments, "", ""][:2]
    try:
        if command == "new":
            path = new(name)
            print(f"{path.relative_to(ROOT)} was made from the template.")
            print(NEXT.format(name=name, number=name[:2]))
            return 0
        if command == "check":
            path = find(name)
            found = judge(path)
            print(*found, sep="\n", end="\n" if found else "")
            faults = "1 fault" if len(found) == 1 else f"{len(found)} faults"
            print(f"{path.stem}: {faults}. {reading.hours(rules.read(path))}")
            return 1 if found else 0
    except (ValueError, notebook.CellFailed) as error:
        print(error)
        return 1
    print(__doc__)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
