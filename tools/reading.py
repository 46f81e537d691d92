"""How long a chapter takes to read: python -m tools.reading chapters/NN-name.ipynb ...

Words by 200 a minute, two minutes for a displayed equation, 12 lines of visible code a minute; an exercise takes
the minutes that it states. The last line printed for a chapter belongs into its third cell.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Book = dict[str, Any]
BACK = ("Summary", "Further reading")
FOLDED = {"check", "setup", "colab-setup", "remove-input"}
MINUTES = re.compile(r"·\s*(\d+) minutes?\s*$", re.M)
EQUATION = "\0"
SHOWN = re.compile(
    r"\$\$.*?\$\$(?: *\([\w-]+\))?|^\\begin\{(align|equation|gather)(\*?)\}.*?\\end\{\1\2\}", re.S | re.M
)


class Piece(NamedTuple):
    """A line of prose, a displayed equation or a code cell, and where it stands."""

    part: str  # main, detour, exercise, solution or back
    section: str  # the heading it stands under
    cell: int  # from 1, all cells counted
    kind: str  # line, equation or code
    text: str


class Count(NamedTuple):
    """What a part of a chapter holds."""

    words: int
    equations: int
    code: int

    @property
    def minutes(self) -> float:
        return self.words / 200 + 2 * self.equations + self.code / 12


def source(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def tags(cell: dict[str, Any]) -> set[str]:
    """The tags of a cell."""
    return set(cell["metadata"].get("tags", ()))


def visible(cell: dict[str, Any]) -> bool:
    """Whether a reader of the page sees the code of a cell without opening a fold."""
    return not (FOLDED & tags(cell) or any(tag.startswith("hide-") for tag in tags(cell)))


class Walk:
    """Reads a chapter line by line and knows in which part it is."""

    def __init__(self) -> None:
        self.level, self.part, self.section = 1, "main", ""
        self.fences: list[tuple[str, str]] = []
        self.gate: str | None = None

    def where(self) -> str:
        inside = {name for _, name in self.fences} | {self.gate}
        return next((part for part in ("solution", "exercise") if part in inside), self.part)

    def heading(self, level: int, title: str) -> None:
        """A heading opens a part, and closes one that stands no deeper."""
        if self.part != "main" and level > self.level:
            return
        self.section = title
        named = dict.fromkeys(BACK, "back") | {"Exercises": "exercise"}
        self.level, self.part = level, "detour" if title.startswith("Detour:") else named.get(title, "main")

    def fence(self, colons: str, name: str) -> None:
        """A colon fence opens or closes a directive; a gate stays open from its -start to its -end."""
        if name:
            base, _, edge = name.partition("-")
            self.fences.append((colons, base if not edge else name))
            self.gate = {"start": base, "end": None}.get(edge, self.gate)
        elif self.fences and self.fences[-1][0] == colons:
            self.fences.pop()


def pieces(book: Book) -> Iterator[Piece]:
    """The chapter in order, cut where its parts change."""
    walk = Walk()
    for n, cell in enumerate(book["cells"], 1):
        if cell["cell_type"] == "code":
            yield Piece(walk.where(), walk.section, n, "code", source(cell))
            continue
        if cell["cell_type"] != "markdown":
            continue
        text = re.sub(r"^ *(```+|~~~+).*?^ *\1", "", source(cell), flags=re.M | re.S)
        text = SHOWN.sub(lambda shown: f"\n{EQUATION}{shown[0].replace(chr(10), chr(13))}\n", text)
        for line in re.sub(r"<!--.*?-->|^% .*$", "", text, flags=re.S | re.M).split("\n"):
            if mark := re.match(r"(#+) +(.*)", line):
                walk.heading(len(mark[1]), mark[2].strip())
            if mark := re.match(r"\s*(:{3,})(?:\{([\w-]+)\})?", line):
                walk.fence(mark[1], mark[2] or "")
            elif line.startswith(EQUATION):
                yield Piece(walk.where(), walk.section, n, "equation", line[1:].replace("\r", "\n"))
            elif line.strip() and not re.match(r"\s*:[\w-]+:", line):
                yield Piece(walk.where(), walk.section, n, "line", line.strip())


def words(line: str) -> int:
    """Words of a line of prose; formulas, roles without a text of their own and addresses are none."""
    line = re.sub(r"\$[^$]+\$", " ", line)
    line = re.sub(r"\{\w+\}`([^`<]*)(?:<[^`]*>)?`", lambda role: role[1] if " " in role[1] else " ", line)
    line = re.sub(r"\]\([^)]*\)|\{[^}]*\}", " ", line)
    return sum(any(letter.isalnum() for letter in word) for word in line.split())


def count(book: Book, part: str, section: str | None = None) -> Count:
    """Words, displayed equations and visible lines of code of one part, or of one section of it."""
    found = [piece for piece in pieces(book) if piece.part == part and section in (None, piece.section)]
    shown = [piece.text for piece in found if piece.kind == "code" and visible(book["cells"][piece.cell - 1])]
    return Count(
        sum(words(piece.text) for piece in found if piece.kind == "line"),
        sum(piece.kind == "equation" for piece in found),
        sum(bool(line.strip()) for text in shown for line in text.split("\n")),
    )


def exercise_minutes(book: Book) -> int:
    """What the exercises say that they take, together."""
    said = [piece.text for piece in pieces(book) if piece.part == "exercise" and piece.kind == "line"]
    return sum(int(n) for n in MINUTES.findall("\n".join(said)))


def duration(minutes: float) -> str:
    """Minutes in steps of ten, at least ten: 1 h 30 min."""
    hours, rest = divmod(max(10, 10 * int(minutes / 10 + 0.5)), 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{rest} min"] * bool(rest))


def hours(book: Book) -> str:
    """The line that a chapter's third cell holds."""
    times = {"Main line": count(book, "main").minutes, "detours": count(book, "detour").minutes}
    times["exercises"] = exercise_minutes(book)
    return " · ".join(f"{name} {duration(time)}" for name, time in times.items() if time)


def report(path: Path) -> str:
    """The counts of a chapter as a table, its detours one by one, and the line of its hours."""
    book = json.loads(path.read_text("utf8"))
    lines = [str(path), f"  {'':10}{'words':>8}{'equations':>11}{'code lines':>12}{'minutes':>9}"]
    for name, part in (("main line", "main"), ("detours", "detour")):
        n = count(book, part)
        lines.append(f"  {name:10}{n.words:8,}{n.equations:11}{n.code:12}{n.minutes:9.0f}")
    lines.append(f"  {'exercises':10}{exercise_minutes(book):40}")
    sections = [piece.section for piece in pieces(book) if piece.part == "detour"]
    for section in dict.fromkeys(sections):
        lines.append(f"  {section}: {count(book, 'detour', section).minutes:.0f} by count")
    return "\n".join([*lines, hours(book), ""])


def main(paths: list[str]) -> int:
    """Print the report of each chapter."""
    if not paths:
        print(__doc__)
        return 2
    for path in paths:
        print(report(Path(path)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
