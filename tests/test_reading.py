"""How long a chapter takes: what counts as a word, an equation and a line of code, and in which part it stands."""

from __future__ import annotations

import json

import pytest

from tools import reading
from tools.reading import Count, count, duration, exercise_minutes, hours, pieces, words


def text(*lines: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": "\n".join(lines)}


def code(*lines: str, tags: tuple[str, ...] = ()) -> dict:
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": "\n".join(lines)}


EXERCISE = (
    *("::::{exercise} Two", ":label: ex-a", "", "**Derive** · •• · 25 minutes", "", "Three words here.", ""),
    *(":::{dropdown} Hint", "Look again.", ":::", "::::"),
)
BOOK = {
    "cells": [
        text("# The title", "", "One two three."),
        code("import torch", tags=("setup", "hide-input")),
        text("## Section", "Four five.", "$$", "a = b", "$$ (eq-a)", "Six."),
        code("x = 1", "", "y = 2"),
        code("ledger.close()", tags=("check",)),
        text("## Detour: More (2 minutes)", "Seven eight.", "### Deeper", "Nine.", "$$c = d$$"),
        code("z = 3"),
        text(
            "## Back on the way", "Ten.", *EXERCISE, "", ":::{solution-start} ex-a", ":class: dropdown", ":::", "Yes."
        ),
        code("w = 4"),
        text("No.", ":::{solution-end}", ":::", "Eleven."),
        text("## Summary", "- all of it", "## Further reading", "Much.", "**Next** more."),
    ]
}


def test_every_line_stands_in_its_part():
    lines = [(piece.part, piece.text) for piece in pieces(BOOK) if piece.kind == "line" and piece.text[0] not in "#*"]
    assert lines == [
        *[("main", line) for line in ("One two three.", "Four five.", "Six.")],
        *[("detour", line) for line in ("Seven eight.", "Nine.")],
        ("main", "Ten."),
        *[("exercise", line) for line in ("Three words here.", "Look again.")],
        *[("solution", line) for line in ("Yes.", "No.")],
        ("main", "Eleven."),
        *[("back", line) for line in ("- all of it", "Much.")],
    ]
    cells = {piece.text: piece.part for piece in pieces(BOOK) if piece.kind == "code"}
    assert (cells["x = 1\n\ny = 2"], cells["z = 3"], cells["w = 4"]) == ("main", "detour", "solution")


def test_parts_are_counted():
    assert count(BOOK, "main") == Count(words=2 + 3 + 1 + 3 + 4 + 2, equations=1, code=2)
    assert count(BOOK, "detour") == Count(words=4 + 2 + 1 + 1, equations=1, code=1)
    assert count(BOOK, "detour", "Detour: More (2 minutes)") == count(BOOK, "detour")
    assert Count(400, 3, 24).minutes == 2 + 6 + 2
    assert exercise_minutes(BOOK) == 25
    assert hours(BOOK) == "Main line 10 min · detours 10 min · exercises 30 min"
    assert hours({"cells": BOOK["cells"][:3]}) == "Main line 10 min"


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("Two words, $x + y$.", 2),
        ("See {eq}`eq-a` and {doc}`The bound <03-elbo>` of {cite}`Ho2020`.", 5),
        ("A [link to it](https://example.org/a/b) here.", 5),
        ("| a | b |", 2),
        ("- well-known; `code` counts", 3),
        ("- **$x$**:", 0),
    ],
)
def test_words(line, number):
    assert words(line) == number


@pytest.mark.parametrize(
    "displayed",
    [
        "$$\na\n$$",
        "$$\na\n$$ (eq-a)",
        "$$a$$",
        "\\begin{align}\na &= b \\\\\nc\n\\end{align}",
        "$$\\begin{aligned}a\\end{aligned}$$",
    ],
)
def test_an_equation_is_one_and_has_no_words(displayed):
    book = {"cells": [text("# T", "Before.", displayed, "After.")]}
    assert count(book, "main") == Count(words=3, equations=1, code=0)


def test_code_and_comments_are_not_prose():
    book = {
        "cells": [text("# T", "```sh", "# not a heading", "run it", "```", "<!-- a note", "of two lines -->", "% gone")]
    }
    assert count(book, "main") == Count(1, 0, 0)


@pytest.mark.parametrize("tag", ["check", "setup", "hide-input", "hide-cell", "remove-input"])
def test_folded_code_is_not_counted(tag):
    assert count({"cells": [text("# T"), code("x = 1", tags=(tag,))]}, "main").code == 0


@pytest.mark.parametrize(
    ("minutes", "said"),
    [(1, "10 min"), (14, "10 min"), (15, "20 min"), (58, "1 h"), (60, "1 h"), (94, "1 h 30 min"), (125, "2 h 10 min")],
)
def test_times_are_in_steps_of_ten(minutes, said):
    assert duration(minutes) == said


def test_the_report_ends_with_the_line_for_the_third_cell(tmp_path, capsys):
    path = tmp_path / "01-a.ipynb"
    path.write_text(json.dumps(BOOK), "utf8")
    assert reading.main([str(path)]) == 0
    said = capsys.readouterr().out
    assert said.strip().endswith(hours(BOOK))
    assert "Detour: More (2 minutes): 2 by count" in said
    assert reading.main([]) == 2
