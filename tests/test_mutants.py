"""The mutator: it changes formulas and nothing else, and a kill is a kill."""

from __future__ import annotations

import ast
import sys

from tools import mutants

SOURCE = '''
def f(a: float = 2, b: float = 3) -> float:
    """Returns a + b, or -1."""
    require(a > 0, "a", a, "more than " + "0")
    if a < b:
        require(b > 1, "b", b, "more than 1")
        return -a * b.sqrt()
    return g(a, b) ** 2
'''


def test_every_formula_is_changed_and_nothing_else():
    done = list(mutants.mutants(SOURCE))
    assert sorted(words for _, words, _ in done) == [
        "2 becomes 3",
        "Lt becomes LtE",
        "Mult becomes Div",
        "Pow becomes Mult",
        "arguments of g swapped",
        "sign dropped",
        "sqrt becomes square",
    ]
    kept = '''def f(a: float=2, b: float=3) -> float:
    """Returns a + b, or -1."""
    require(a > 0, 'a', a, 'more than ' + '0')'''
    assert all(source.startswith(kept) for *_, source in done)
    assert len({source for *_, source in done} | {ast.unparse(ast.parse(SOURCE))}) == len(done) + 1


def test_the_changed_module_is_the_one_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [mutants.Changed("changed_here", tmp_path / "x.py", "X = 3"), *sys.meta_path])
    import changed_here

    assert changed_here.X == 3
    del sys.modules["changed_here"]


def test_the_record_names_the_survivors():
    path = mutants.execute.ROOT / "dmlib" / "probability" / "gaussian.py"
    fates = ["tests", "chapters", "survived", "tests"]
    text = mutants.record([(path, n, f"change {n}", fate) for n, fate in enumerate(fates)], 60.0)
    assert "4 single changes, 75.0% noticed (1 minutes)" in text
    assert "| dmlib/probability/gaussian.py | 2 | 1 | 1 |" in text
    assert "- `dmlib/probability/gaussian.py:2` change 2" in text


def test_a_record_of_some_modules_keeps_its_lines_of_the_others():
    here, there = (mutants.execute.ROOT / "dmlib" / "probability" / f"{name}.py" for name in ("gaussian", "elbo"))
    earlier = mutants.record([(here, 1, "old", "survived"), (there, 2, "other", "survived")], 60.0)
    text = mutants.record([(here, 3, "new", "tests"), (here, 4, "newer", "survived")], 60.0, earlier)
    assert "3 single changes, 33.3% noticed" in text
    assert "| dmlib/probability/gaussian.py | 1 | 0 | 1 |" in text
    assert "| dmlib/probability/elbo.py | 0 | 0 | 1 |" in text
    assert [word for word in ("old", "other", "newer") if word in text] == ["other", "newer"]
