"""Every chapter is in normal form and keeps the rules of the book; each rule is tested on a broken chapter.

The rules live in tools/rules.py and its two parts. The sound chapter is the template that new chapters start from.
"""

from __future__ import annotations

import ast
import copy
from pathlib import Path

import pytest

from dmlib.book import notebook
from tools import chapter, rules, rules_code, rules_text
from tools.rules import form, hour_faults, listing_faults
from tools.rules_code import (
    anchored,
    calm,
    checked,
    described,
    introduced,
    moving,
    narrow,
    plain_code,
    portable,
    short_code,
    solved,
)
from tools.rules_text import (
    detoured,
    ending,
    exercised,
    field_words,
    gated,
    opening,
    plain_formulas,
    repeated,
    short_main_line,
    written,
)

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
NAME = chapter.TEMPLATE_NAME
TEMPLATE = (ROOT / "chapters" / "_template.md").read_text("utf8")
PASSED = {
    "name": "stdout",
    "output_type": "stream",
    "text": ["PASS eq-continuous-time-split  one is one  [|diff| <= 0]\n"],
}
CHECK = "```{code-cell}\n:tags: [check]\n\n"
PLAIN = "```{code-cell}\n"


def sample(text: str = TEMPLATE, name: str = NAME) -> rules.Book:
    """A chapter from the text of a template, as if its checks had been recorded."""
    book = chapter.fill(text, name)
    for cell in book["cells"]:
        if "check" in cell["metadata"].get("tags", ()):
            cell["outputs"] = [PASSED]
    return notebook.normalize(book)


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_every_chapter(rule):
    assert [f"{path.stem}: {fault}" for path in CHAPTERS for fault in rule(path.stem, rules.read(path))] == []


def test_files_are_as_the_normal_form_writes_them():
    assert [fault for path in CHAPTERS for fault in notebook.check(path)] == []


def test_no_chapter_is_heavy():
    assert [path.name for path in CHAPTERS if path.stat().st_size > rules.MAX_BYTES] == []


def test_nothing_is_said_twice():
    assert repeated({path.stem: rules.read(path) for path in CHAPTERS}) == []


def test_intro_readme_and_contents_name_the_same_chapters():
    assert len(CHAPTERS) >= 1
    assert listing_faults(ROOT) == []


def test_the_template_keeps_every_rule():
    assert [fault for rule in rules.RULES for fault in rule(NAME, sample())] == []


def test_an_appendix_needs_no_chapters_form():
    appendix = {**sample(), "cells": [{"cell_type": "markdown", "metadata": {}, "source": ["# Toolbox"]}]}
    code = {"cell_type": "code", "metadata": {}, "source": ["x = 1"], "outputs": [], "execution_count": None}
    appendix["cells"].append(code)
    assert [fault for rule in rules.RULES for fault in rule("toolbox", appendix)] == []
    assert [fault for rule in rules.RULES for fault in rule("01-a", appendix)] != []


MAIN = "Which single number predicts such a time best?"
BUILD = "**Build** · •• · 15 minutes"
DETOUR = "## Detour: Absolute error (1 minute)"
POINTS = ":::{dropdown} Hint\nBoth follow from the first two moments.\n:::\n"
DRAW = TEMPLATE[TEMPLATE.index("widgets.explore(") : TEMPLATE.index('cut at {constant}")') + 19]
EXCESS = "numbers = torch.randn(100"


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (opening, "# Title of the chapter", "Title of the chapter"),
        (opening, "One sentence promises", "A sentence. One sentence promises"),
        (opening, ", and why.", ", and why"),
        (opening, ":tags: [setup, hide-input]", ":tags: [setup]"),
        (opening, "notebook.setup()\n", ""),
        (opening, f'verify.Ledger("{NAME}")', 'verify.Ledger("04-vae")'),
        (opening, f'notebook.place("{NAME}")', 'notebook.place("04-vae")'),
        (opening, f'\nnotebook.place("{NAME}")', f'\nnotebook.place("{NAME}")\ng = 1'),
        (opening, "**From** {doc}", "From {doc}"),
        (opening, "Main line 10 min", "Main line 20 min"),
        (opening, " · detours 10 min", ""),
        (ending, "## Summary", "## In short"),
        (ending, "## Further reading", "## Reading"),
        (ending, "**Next** comes", "Next comes"),
        (ending, "**Next** comes", "**Next** one.\n\n**Next** comes"),
        (short_main_line, MAIN, "word " * 3_300),
        (detoured, DETOUR, "## Detour: Absolute error"),
        (detoured, DETOUR, "#### Detour: Absolute error (1 minute)"),
        (detoured, DETOUR, "## Detour, absolute error (1 minute)"),
        (detoured, "## A program before a theory", DETOUR),
        (detoured, "**Next** comes", f"{DETOUR}\n\n**Next** comes"),
        (detoured, "::::{exercise} Two points", f"#{DETOUR}\n\n::::{{exercise}} Two points"),
        (exercised, "::::{exercise} Two points", "::::{exercise}"),
        (exercised, ":label: ex-template-points", ":label: points"),
        (exercised, "**Derive** · • · 10 minutes", "**Derive** · 10 minutes"),
        (exercised, "**Derive** · • · 10 minutes", "**Prove** · • · 10 minutes"),
        (exercised, "**Derive** · • · 10 minutes", "(Derive.)"),
        (exercised, POINTS, ""),
        (exercised, f"{POINTS}::::", f"{POINTS}:::"),
        (exercised, BUILD, "**Code** · •• · 15 minutes"),
        (exercised, ":::{solution-start} ex-template-points", ":::{solution-start} ex-template-lines"),
        (exercised, "::::{exercise} Two points", "::::{note} Two points"),
        (gated, ":::{solution-end}\n:::\n\n::::{exercise} A", "::::{exercise} A"),
        (gated, "## Exercises", ":::{solution} ex-template-points\nNine.\n:::\n\n## Exercises"),
        (written, MAIN, "After some algebra, it holds."),
        (written, MAIN, "This \u2014 of course \u2014 holds."),
        (written, MAIN, "This holds ({eq}`eq-template-split`)."),
        (field_words, MAIN, "The law of the time."),
        (field_words, MAIN, "The network guesses the mean."),
        (field_words, MAIN, "One step back is a bell on every rung."),
        (field_words, "This is the main result.", "A blind network is told nothing."),
        (plain_formulas, r"\mathbb{E}_{p}[x - \mu]", r"\E_{p}[x - \mu]"),
        (plain_formulas, MAIN, r"It is in $\R$."),
        (plain_formulas, MAIN, r"So is $\KL{q}{p}$."),
        (plain_formulas, "caption: Four", r"caption: $\Normal$ four"),
        (short_code, 'print(f"best', "x = 1\n" * 40 + 'print(f"best'),
        (short_code, EXCESS, "x = 1\n" * 11 + EXCESS),
        (short_code, "mu, c = x.mean(), 0.3", "mu, c = x.mean(), 0.3\n" * 30),
        (short_code, "fig, ax = plt", "x = 1\n" * 30 + "fig, ax = plt"),
        (short_code, EXCESS, f"x = {'1' * 72}\n{EXCESS}"),
        (plain_code, EXCESS, f"!pip install torch\n{EXCESS}"),
        (plain_code, EXCESS, f"%matplotlib inline\n{EXCESS}"),
        (plain_code, EXCESS, f"open('/home/me/x')\n{EXCESS}"),
        (
            introduced,
            "The loss does not fall to zero.\nWhat is left, and where does the walk end?",
            f"{PLAIN}x = 1\n```",
        ),
        (
            described,
            "  image:\n    alt: A histogram that falls",
            "  image:\n    alt: A line\nx: A histogram that falls",
        ),
        (
            described,
            ":tags: [program]",
            "---\nmystnb:\n  figure:\n    name: fig-a\n    caption: A.\ntags: [program]\n---",
        ),
        (described, DRAW, "widgets.explore(draw, constant=[1])"),
        (described, "    caption: The squared error of a constant is a parabola that stands on the variance.\n", ""),
        (checked, ":tags: [check]\n", ""),
        (checked, ":tags: [program]", ":tags: [check]"),
        (checked, "ledger.must_fail(", "ledger.close("),
        (checked, "ledger.report()", "print(ledger)"),
        (checked, 'claim="gradient descent ends at the mean"', 'claim="exercise: it ends at the mean"'),
        (checked, 'claim="gradient descent ends at the mean"', 'claim=f"self-test: {mu}"'),
        (narrow, ":tags: [check]\n", ":tags: [check]\n\n# wide: as if one check were\n"),
        (calm, ":tags: [program]", ":tags: [program, raises-exception]"),
        (anchored, "$$ (eq-template-split)", "$$ (eq-template-parts)"),
        (anchored, "$$ (eq-template-split)", "$$ (eq-template_split)"),
        (moving, DRAW, "print(draw)"),
        (moving, DRAW, f"{DRAW}\n" * 4),
        (solved, EXCESS, f"ledger.close('eq-a', 1, 1, atol=0, claim='one is one')\n{EXCESS}"),
        (solved, "excess = (numbers.mean() - 0.5) ** 2", "excess = (x.mean() - 0.5) ** 2"),
        (solved, "    constant = torch.zeros((), dtype=x.dtype, device=x.device)", "    constant = first_try(x)"),
        (portable, "dtype=x.dtype, device=x.device", "dtype=x.dtype"),
    ],
)
def test_a_broken_rule_is_found(rule, old, new):
    assert old in TEMPLATE
    assert rule(NAME, sample()) == []
    assert rule(NAME, sample(TEMPLATE.replace(old, new))) != []


@pytest.mark.parametrize(
    "words",
    [
        "The law of large numbers, the law of total variance and a lawn.",
        "See {doc}`slips`, `told` and [the page](law.html), $law$.",
        "Start at a guest's doorbell.",
    ],
)
def test_words_that_only_look_like_the_houses_are_fine(words):
    assert field_words(NAME, sample(TEMPLATE.replace(MAIN, words))) == []


def test_house_words_may_stand_outside_the_main_line():
    text = TEMPLATE.replace("No section of the main line needs this.", "A bell is told.")
    assert field_words(NAME, sample(text)) == []
    assert field_words("slips", sample(TEMPLATE.replace(MAIN, "A bell is told."))) == []


@pytest.mark.parametrize(
    ("code", "stray"),
    [
        ("def f(x):\n    return torch.zeros(3)", 1),
        ("def f(x_t, t):\n    return torch.randn(x_t.shape, generator=g) + torch.full((3,), t)", 2),
        ("def f(network, n):\n    return torch.arange(n)", 1),
        ("def f(a: Tensor):\n    return torch.tensor([1.0])", 1),
        ("def f(a):\n    return torch.linspace(0, 1, a.shape[0])", 1),
        ("def f(x):\n    return torch.zeros(3, device=x.device)", 0),
        ("def f(x):\n    return torch.zeros(3, **like)", 0),
        ("def f(x):\n    return torch.zeros_like(x) + torch.tensor(0.5)", 0),
        ("def f(n):\n    return torch.zeros(n, dtype=torch.float64)", 0),
        ("def f(x: float):\n    return torch.zeros(3)", 0),
        ("def f(ax, x):\n    return torch.linspace(-1, 1, 9)", 0),
        ("y = torch.zeros(3)", 0),
    ],
)
def test_a_helper_makes_tensors_where_its_arguments_are(code, stray):
    functions = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)]
    assert len([call for function in functions for call in rules_code.stray(function)]) == stray


def change(book: rules.Book, tag: str, **new) -> rules.Book:
    """The chapter with its first cell of this tag changed."""
    book = copy.deepcopy(book)
    next(cell for cell in book["cells"] if tag in cell["metadata"].get("tags", ())).update(new)
    return book


@pytest.mark.parametrize("printed", [[], [{**PASSED, "text": ["0.1\n"]}], [{**PASSED, "text": ["PASS eq-a\n"]}]])
def test_a_check_prints_passes_and_they_are_stored(printed):
    assert checked(NAME, change(sample(), "check", outputs=printed)) != []


def test_a_rejection_alone_is_no_check_of_an_equation():
    rejected = {**PASSED, "text": ["PASS eq-continuous-time-split  rejected: two  [must fail]\n"]}
    assert anchored(NAME, change(sample(), "check", outputs=[rejected])) != []


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
        lambda book: book["cells"][1].update(outputs=[PASSED]),
        lambda book: book["cells"][0].update(source="# Title"),
        lambda book: book["cells"].append({"cell_type": "markdown", "metadata": {}, "source": []}),
    ],
)
def test_another_form_is_found(break_it):
    book = sample()
    break_it(book)
    assert form(NAME, book) != []


def test_a_wide_tolerance_needs_a_reason():
    book = sample()
    (check,) = (cell for cell in book["cells"] if "check" in cell["metadata"].get("tags", []))
    check["outputs"][0]["text"] = ["PASS eq-template-split  a claim  [|diff| <= 1e+09]\n"]
    (fault,) = narrow(NAME, book)
    assert "a wide tolerance without a reason" in fault
    check["source"] = ["# wide: a test\n", *check["source"]]
    assert narrow(NAME, book) == []


def test_a_check_needs_its_count_and_its_tag():
    assert form(NAME, change(sample(), "check", execution_count=99)) != []
    assert form(NAME, change(sample(), "check", metadata={"tags": ["check"]})) != []


def test_a_repeated_line_is_found():
    line = "The evidence is the probability that a model gives to what was seen, whatever was hidden."
    short = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["# A\n", line[:40]]}]}
    once = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["# A\n", line]}]}
    twice = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": [line, "\n\n", line.upper()]}]}
    equation = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["$$\n", line, "\n$$ (eq-long)"]}]}
    assert repeated({"01-a": once, "02-b": short}) == []
    assert repeated({"01-a": once, "02-b": equation}) == []
    assert len(repeated({"01-a": once, "02-b": once})) == 2
    assert repeated({"01-a": twice}) != []


def house(tmp_path: Path, **changed: str) -> Path:
    """A book of two chapters whose three lists agree; the tests below break one of them."""
    files = {
        "toc": "root: chapters/intro\nparts:\n- chapters:\n  - file: chapters/03-elbo\n  - file: chapters/toolbox\n",
        "intro": "| {doc}`3 The bound <03-elbo>` | **ready** |\n| 4 The VAE | planned |\n",
        "readme": "# Book\n\nWritten so far: 3 *The bound*.\nThe others follow, 4 too.\n",
        "title": "# The bound",
    } | changed
    (tmp_path / "chapters").mkdir()
    (tmp_path / "_toc.yml").write_text(files["toc"], "utf8")
    (tmp_path / "README.md").write_text(files["readme"], "utf8")
    (tmp_path / "chapters" / "intro.md").write_text(files["intro"], "utf8")
    book = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": [files["title"]]}]}
    (tmp_path / "chapters" / "03-elbo.ipynb").write_text(rules.json.dumps(book), "utf8")
    return tmp_path


def test_lists_that_agree_have_no_faults(tmp_path):
    assert listing_faults(house(tmp_path)) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"toc": "root: chapters/intro\nparts: []\n"}, "03-elbo.ipynb is not in _toc.yml"),
        ({"intro": "| 3 The bound | planned |"}, "the intro's table does not link 03-elbo"),
        ({"intro": "| {doc}`3 The bound <03-elbo>` |\n| {doc}`4 The VAE <04-vae>` |"}, "links 04-vae, which is not"),
        ({"intro": "| {doc}`3 A bound <03-elbo>` |"}, "the intro's table calls 03-elbo 'A bound'"),
        ({"readme": "Written so far: 3 *The bound*, 4 *The VAE*."}, "README names chapter 4"),
        ({"readme": "Nothing is written."}, "README does not name 03-elbo"),
        ({"readme": "Written so far: 3 *A bound*."}, "README calls 03-elbo 'A bound'; its title is 'The bound'"),
        ({"title": "# The lower bound"}, "its title is 'The lower bound'"),
    ],
)
def test_a_list_that_differs_is_named(tmp_path, changed, words):
    assert words in "\n".join(listing_faults(house(tmp_path, **changed)))


def test_the_intro_gives_the_hours_that_the_chapters_state():
    assert hour_faults(ROOT) == []


@pytest.mark.parametrize("row", ["| 10 min |", "| 10 min | 10 min | 1 h |", "| 1 h | 1 h | 1 h 30 min |"])
def test_other_hours_are_found(tmp_path, row):
    intro = f"| {{doc}}`3 The bound <03-elbo>` | 1 min {row}\n"
    faults = hour_faults(house(tmp_path, intro=intro, title="# The bound\n" + "word " * 1000))
    assert (faults == []) == (row == "| 10 min |")


def test_every_rule_is_broken_above():
    """A new rule comes with a chapter that breaks it."""
    (broken,) = (mark for mark in test_a_broken_rule_is_found.pytestmark if mark.name == "parametrize")
    assert {case[0] for case in broken.args[1]} | {form} == {*rules_text.RULES, *rules_code.RULES, form}
