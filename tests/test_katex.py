"""Every formula of the book is one that KaTeX reads: in VS Code and on hosts of notebooks it looks as on the pages."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from conftest import ROOT

from tools import formulas
from tools.formulas import Formula

SOURCES = sorted(path for path in (ROOT / "chapters").iterdir() if path.suffix in (".ipynb", ".md", ".csv"))


def test_every_formula_is_read(browser):
    found = [formula for path in SOURCES for formula in formulas.in_file(path)]
    assert len(found) > 1000
    assert formulas.faults(found, browser) == []


@pytest.mark.parametrize(
    "tex",
    [r"\E[x]", r"\KL{q}{p}", r"\frac{1}{2", r"\eqref{eq-a}", r"x \label{eq-a}", r"a_b_c", r"\begin{align} x", r"1 & 2"],
)
def test_what_katex_cannot_read_is_named_in_one_line(browser, tex):
    (fault,) = formulas.faults([Formula("01-a, cell 3", "x^2", True), Formula("01-a, cell 4", tex, True)], browser)
    assert fault.startswith(f"01-a, cell 4: {tex}: KaTeX parse error")
    assert "\n" not in fault


@pytest.mark.parametrize(
    "tex",
    [
        r"\mathbb{E}_{q}[x] \le D_{\mathrm{KL}}(q \,\Vert\, p)",
        r"\begin{aligned} a &= b \\ &= c \end{aligned}",
        r"\underbrace{x}_{\text{one}} \quad \bar\alpha_t",
    ],
)
def test_the_house_style_is_read(browser, tex):
    assert formulas.faults([Formula("01-a", tex, True)], browser) == []


def test_the_command_names_what_it_cannot_read(tmp_path, browser):
    path = tmp_path / "a.md"
    path.write_text("The bound $\\mathcal{L}$ and $\\E$.\n", "utf8")
    command = [sys.executable, "-m", "tools.formulas", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("a: \\E: KaTeX parse error: Undefined control sequence")
    assert done.stdout.count("\n") == 1


def test_without_a_browser_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(formulas.shutil, "which", lambda name: None)
    assert formulas.main(["a.md"]) == 0
    assert "no Chromium was found" in capsys.readouterr().err
    assert formulas.main([]) == 2


def test_formulas_are_found_where_they_stand():
    text = "\n".join(
        [
            r"The bound $\mathcal{L}$ is 5\$ or \$6, and `$HOME` is code; see $x$, $y_{1}$.",
            "$$",
            "a = b",
            "$$ (eq-a)",
            "```python",
            "cost = '$z$'",
            "```",
            "On one line: $$c = d$$ and",
            r"\begin{align}",
            "e &= f",
            r"\end{align}",
        ]
    )
    found = [(formula.tex, formula.display) for formula in formulas.in_text(text, "01-a")]
    align = "\\begin{align}\ne &= f\n\\end{align}"
    inline = [(r"\mathcal{L}", False), ("x", False), ("y_{1}", False)]
    assert found == [("a = b", True), ("c = d", True), (align, True), *inline]


def test_captions_and_tables_hold_formulas_too(tmp_path):
    figure = {"mystnb": {"figure": {"name": "fig-a", "caption": "The mean $m$."}}}
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["Text $x$."]},
        {"cell_type": "code", "metadata": figure, "source": ["price = '$y$'"]},
    ]
    (tmp_path / "01-a.ipynb").write_text(json.dumps({"cells": cells}), "utf8")
    (tmp_path / "notation.csv").write_text("symbol,meaning\nx_t,the state at $t$\n", "utf8")
    (tmp_path / "intro.md").write_text("# Title\n\nA map $z$.\n", "utf8")
    found = [formulas.in_file(tmp_path / name) for name in ("01-a.ipynb", "notation.csv", "intro.md")]
    assert found == [
        [Formula("01-a, cell 1", "x", False), Formula("01-a, cell 2", "m", False)],
        [Formula("notation.csv, line 2", "x_t", False), Formula("notation.csv, line 2", "t", False)],
        [Formula("intro", "z", False)],
    ]


def test_the_vendored_katex_is_the_one_that_was_fetched():
    for line in (formulas.KATEX.parent / "SHA256SUMS").read_text("utf8").splitlines():
        digest, name = line.split()
        assert hashlib.sha256((formulas.KATEX.parent / name).read_bytes()).hexdigest() == digest
