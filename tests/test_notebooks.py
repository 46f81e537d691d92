"""Every chapter is in normal form and keeps the habits of the book; each habit's test is tested on a broken chapter."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmlib.book import notebook

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
MAX_BYTES = 260_000  # the longest chapter is 245 kB of text; a figure left in it would be on top of that
STOCK = (
    *("it can be shown", "it can be seen", "after some algebra", "it is easy to", "easy to see", "left as an exercise"),
    *("left to the reader", "it is well known", "needless to say", "it is worth noting", "it is important to note"),
    *("it should be noted", "obviously", "trivially", "delve", "dive into", "deep dive", "in this section, we will"),
    *(
        "state-of-the-art",
        "cutting-edge",
        "game-changing",
        "powerful framework",
        "in the realm of",
        "plays a crucial role",
    ),
)
Book = dict[str, Any]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def tags(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def code(book: Book) -> list[dict[str, Any]]:
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def numbered(name: str) -> bool:
    """Whether a notebook is a chapter proper, not an appendix."""
    return re.match(r"\d\d-", name) is not None


def calls(cell: dict[str, Any]) -> list[ast.Call]:
    """The calls of a cell, except those inside the functions that it defines."""
    found, waiting = [], [ast.parse(source(cell))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call):
            found.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return found


def called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def prose(book: Book) -> Iterator[str]:
    """Lines of running text: no code, no displayed equations, no directives."""
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            text = re.sub(r"^\$\$.*?^\$\$[^\n]*|^(```+).*?^\1", "", source(cell), flags=re.M | re.S)
            yield from (line.strip() for line in text.split("\n") if line.strip() and not line.lstrip().startswith(":"))


def form(name: str, book: Book) -> list[str]:
    """It is its own normal form."""
    try:
        return [] if notebook.normalize(copy.deepcopy(book)) == book else ["not in normal form"]
    except ValueError as error:
        return [str(error)]


def opening(name: str, book: Book) -> list[str]:
    """It opens with a title and a promise, then with its set-up cell."""
    first, second = book["cells"][0], code(book)[0]
    faults = [] if first["cell_type"] == "markdown" and source(first).startswith("# ") else ["no title"]
    if numbered(name):
        faults += [] if "verify" in source(first) else ["no list of what the reader verifies"]
        faults += [] if {"setup", "hide-input"} <= set(tags(second)) else ["the first code cell is not a set-up cell"]
    return faults


def short_code(name: str, book: Book) -> list[str]:
    """Its cells fit the page: 75 columns; 15 lines where they show, 30 where they are hidden."""
    faults = []
    for n, cell in enumerate(code(book), 1):
        lines = [line for line in source(cell).split("\n") if line.strip()]
        hidden = {"hide-input", "hide-cell", "remove-input", "colab-setup"} & set(tags(cell))
        limit = 30 if hidden else 15
        faults += [f"code cell {n} has {len(lines)} lines"] if len(lines) > limit else []
        faults += [f"code cell {n}: too long: {line}" for line in lines if len(line) > 75]
    return faults


def plain_code(name: str, book: Book) -> list[str]:
    """Its code is Python that runs anywhere: no magics, no shell, no paths of one machine."""
    faults = []
    for n, cell in enumerate(code(book), 1):
        if "colab-setup" not in tags(cell) and re.search(r"^\s*[!%]", source(cell), re.M):
            faults.append(f"code cell {n} has a magic")
    for cell in book["cells"]:
        faults += [
            f"a path of one machine: {p}"
            for p in re.findall(r"(?<![\w.])/(?:content|home|mnt|root|tmp|Users|usr|var)/\S*", source(cell))
        ]
    return faults


def introduced(name: str, book: Book) -> list[str]:
    """A text before each code cell says what to look for."""
    pairs = enumerate(zip(book["cells"], book["cells"][1:]), 2)
    return [
        f"cell {n} is code right after code"
        for n, (before, cell) in pairs
        if cell["cell_type"] == before["cell_type"] == "code" and "colab-setup" not in tags(before)
    ]


def described(name: str, book: Book) -> list[str]:
    """Every figure has words that say what it shows."""
    faults = []
    for n, cell in enumerate(code(book), 1):
        names = [called(call) for call in calls(cell)]
        draws = any(re.match(r"(plt|plotting)\.(?!close)", called) for called in names)
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        if draws and len(alt) <= 10:
            faults.append(f"code cell {n} draws a figure without alt text")
        if "mystnb" in cell["metadata"] and not alt:
            faults.append(f"code cell {n} has a figure's metadata without alt text")
        for call in calls(cell):
            if called(call) == "widgets.explore" and "alt" not in [word.arg for word in call.keywords]:
                faults.append(f"code cell {n} explores without alt text")
    return faults


def checked(name: str, book: Book) -> list[str]:
    """Its checks print passes and nothing else, the passes are stored, and one check must fail."""
    faults = []
    for n, cell in enumerate(code(book), 1):
        asks = any(re.match(r"ledger\.(close|bound|monte_carlo|must_fail)$", called(call)) for call in calls(cell))
        if asks != ("check" in tags(cell)):
            faults.append(f"code cell {n} runs checks but has no tag `check`, or has the tag but runs none")
        if "check" in tags(cell):
            lines = "".join(text for out in cell["outputs"] for text in out["text"]).splitlines()
            faults += [] if lines else [f"check cell {n} stores no output"]
            faults += [f"check cell {n} prints {line!r}" for line in lines if not re.match(r"PASS eq-\S+  .*\]$", line)]
    if numbered(name):
        text = "".join(source(cell) for cell in code(book))
        faults += [] if "ledger.must_fail(" in text else ["nothing must fail"]
        faults += (
            [] if "ledger.report()" in source(code(book)[-1]) else ["the last code cell is not the ledger's report"]
        )
    return faults


def moving(name: str, book: Book) -> list[str]:
    """A chapter has two or three figures that move."""
    count = sum(called(call) == "widgets.explore" for cell in code(book) for call in calls(cell))
    return [f"{count} moving figures"] if numbered(name) and not 2 <= count <= 3 else []


def exercised(name: str, book: Book) -> list[str]:
    """A chapter has six exercises or more, each with a solution."""
    text = "\n".join(source(cell) for cell in book["cells"] if cell["cell_type"] == "markdown")
    asked = re.findall(r"^:{3,}\{exercise(?:-start)?\}[^\n]*\n(?::\w+:[^\n]*\n)*?:label: (ex-\S+)", text, re.M)
    solved = re.findall(r"^:{3,}\{solution(?:-start)?\} (ex-\S+)", text, re.M)
    faults = [f"no solution of {label}" for label in asked if label not in solved]
    faults += [f"a solution of {label}, which is not asked" for label in solved if label not in asked]
    return faults + ([f"{len(asked)} exercises"] if numbered(name) and len(asked) < 6 else [])


def written(name: str, book: Book) -> list[str]:
    """Its prose has no stock phrases and no dashes for commas."""
    text = "\n".join(prose(book))
    faults = [f"the stock phrase {phrase!r}" for phrase in STOCK if re.search(rf"\b{phrase}", text, re.I)]
    return faults + [f"a dash in: {line}" for line in prose(book) if "\u2014" in line]


RULES = (form, opening, short_code, plain_code, introduced, described, checked, moving, exercised, written)


def repeated(books: dict[str, Book]) -> list[str]:
    """Long lines of prose that stand in the book twice."""
    lines = [(line.lower(), name) for name, book in books.items() for line in prose(book) if len(line) >= 60]
    count = Counter(line for line, _ in lines)
    return [f"{name}: {line}" for line, name in lines if count[line] > 1]


def read(path: Path) -> Book:
    return json.loads(path.read_text("utf8"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_chapter(rule):
    assert [f"{path.stem}: {fault}" for path in CHAPTERS for fault in rule(path.stem, read(path))] == []


def test_files_are_as_the_normal_form_writes_them():
    assert [fault for path in CHAPTERS for fault in notebook.check(path)] == []


def test_no_chapter_is_heavy():
    assert [path.name for path in CHAPTERS if path.stat().st_size > MAX_BYTES] == []


def test_nothing_is_said_twice():
    assert repeated({path.stem: read(path) for path in CHAPTERS}) == []


def test_every_chapter_is_in_the_table_of_contents():
    toc = (ROOT / "_toc.yml").read_text("utf8")
    assert len(CHAPTERS) >= 1
    assert [path.stem for path in CHAPTERS if f"chapters/{path.stem}" not in str(yaml.safe_load(toc))] == []


def text(*lines: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": "\n".join(lines)}


def program(*lines: str, tags: tuple[str, ...] = (), printed: str = "", **mystnb: Any) -> dict[str, Any]:
    outputs = [{"output_type": "stream", "name": "stdout", "text": printed}] if printed else []
    metadata = {"tags": list(tags), "mystnb": mystnb}
    return {"cell_type": "code", "metadata": metadata, "source": "\n".join(lines), "outputs": outputs}


def exercise(n: int) -> tuple[str, ...]:
    return (":::{exercise}", f":label: ex-{n}", "Why?", ":::", f":::{{solution}} ex-{n}", "Because.", ":::", "")


def sample() -> Book:
    """A small chapter that keeps every habit."""
    passed = "PASS eq-a  one is one  [|diff| <= 0]\n"
    explore = 'widgets.explore(draw, alt="a bell at {t}", t=range(3))'
    cells = [
        text("# Title", "In this chapter you verify that one is one."),
        program("ledger = verify.Ledger('01-a')", tags=("setup", "hide-input")),
        text("A check.", "$$", "1 = 1", "$$ (eq-a)"),
        program("ledger.close('eq-a', 1, 1, atol=0, claim='one is one')", tags=("check",), printed=passed),
        text("A wrong check."),
        program("ledger.must_fail('eq-a', wrong, claim='one is two')", tags=("check",), printed=passed),
        text("A figure."),
        program("plt.show()", tags=("hide-input",), image={"alt": "a line that rises"}),
        text("It moves."),
        program("def draw(ax, t):", "    plotting.curve(ax, t)", "", explore),
        text("So does this."),
        program(explore, tags=("hide-input",)),
        text(*(line for n in range(6) for line in exercise(n))),
        program("ledger.report()", tags=("hide-input",)),
    ]
    return notebook.normalize({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})


def put(book: Book, n: int, cell: dict[str, Any]) -> Book:
    """The chapter with another cell in place of its n-th, in normal form."""
    return notebook.normalize({**book, "cells": [*book["cells"][:n], cell, *book["cells"][n + 1 :]]})


def test_the_sample_keeps_every_habit():
    assert [fault for rule in RULES for fault in rule("01-a", sample())] == []


@pytest.mark.parametrize(
    ("rule", "n", "cell"),
    [
        (opening, 0, text("A title.", "You verify nothing.")),
        (opening, 0, text("# Title")),
        (opening, 1, program("ledger = verify.Ledger('01-a')", tags=("setup",))),
        (short_code, 3, program(*["x = 1"] * 16)),
        (short_code, 7, program(*["x = 1"] * 31, tags=("hide-input",))),
        (short_code, 3, program("x = " + "1" * 72)),
        (plain_code, 3, program("!pip install torch")),
        (plain_code, 3, program("%matplotlib inline")),
        (plain_code, 3, program("open('/home/me/x')")),
        (introduced, 2, program("x = 1")),
        (described, 7, program("plt.show()")),
        (described, 7, program("plotting.curve(ax, x, y, color=plotting.DATA)")),
        (described, 7, program("plt.show()", image={"alt": "a line"})),
        (described, 7, program("x = 1", figure={"name": "fig-a"})),
        (described, 11, program("widgets.explore(draw, t=range(3))")),
        (checked, 3, program("ledger.close('eq-a', 1, 1, atol=0, claim='one')")),
        (checked, 3, program("x = 1", tags=("check",), printed="PASS eq-a  one  [|diff| <= 0]")),
        (checked, 3, program("ledger.close('eq-a', 1, 1, atol=0, claim='one')", tags=("check",))),
        (checked, 3, program("ledger.close('eq-a', 1, 1, atol=0, claim='one')", tags=("check",), printed="0.1\n")),
        (checked, 5, text("No wrong check.")),
        (checked, 13, text("No report.")),
        (moving, 11, text("It does not move.")),
        (moving, 11, program(*["widgets.explore(draw, alt='a bell', t=[1])"] * 3)),
        (exercised, 12, text(*(line for n in range(5) for line in exercise(n)))),
        (exercised, 12, text(*(line for n in range(6) for line in exercise(n)[: 4 if n == 3 else 8]))),
        (exercised, 12, text(*(line for n in range(7) for line in exercise(n)[4 if n == 3 else 0 :]))),
        (written, 2, text("After some algebra, it holds.")),
        (written, 2, text("This \u2014 of course \u2014 holds.")),
    ],
)
def test_a_broken_habit_is_found(rule, n, cell):
    assert rule("01-a", put(sample(), n, cell)) != []


@pytest.mark.parametrize(
    "break_it",
    [
        lambda book: book["metadata"].update(language_info={}),
        lambda book: book.update(nbformat_minor=5),
        lambda book: book["cells"][0].update(id="a"),
        lambda book: book["cells"][1]["metadata"].update(collapsed=True),
        lambda book: book["cells"][1]["metadata"].update(tags=["hide-input", "setup"]),
        lambda book: book["cells"][1]["metadata"].update(tags=["invented"]),
        lambda book: book["cells"][1].update(execution_count=1),
        lambda book: book["cells"][3].update(execution_count=9),
        lambda book: book["cells"][3]["metadata"].update(tags=["check"]),
        lambda book: book["cells"][7].update(outputs=[{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]),
        lambda book: book["cells"][0].update(source="# Title"),
        lambda book: book["cells"].append({"cell_type": "markdown", "metadata": {}, "source": []}),
    ],
)
def test_another_form_is_found(break_it):
    book = sample()
    break_it(book)
    assert form("01-a", book) != []


def test_a_repeated_line_is_found():
    line = "The evidence is the probability that a model gives to what was seen, whatever was hidden."
    once, other = put(sample(), 2, text(line)), put(sample(), 2, text(line[:40]))
    assert repeated({"01-a": once, "02-b": other}) == []
    assert repeated({"01-a": once, "02-b": put(sample(), 4, text(line.upper()))}) != []
    assert repeated({"01-a": put(once, 4, text("Well.", line))}) != []
    equation = text("Here:", "$$", line, "$$ (eq-long)")
    assert repeated({"01-a": put(once, 4, equation)}) == []
