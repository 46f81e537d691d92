"""The ledger passes what is true, rejects what is not, and refuses what it cannot judge."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlib.book import verify
from dmlib.book.verify import CheckFailed, Ledger, NotComparable


@pytest.fixture
def ledger():
    return Ledger("03-elbo")


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def routes(ledger):
    return [check["route"] for check in ledger.report().data["checks"]]


def test_each_check_prints_one_stable_line(ledger, capsys):
    ledger.close("eq-posterior-mean", 1.0, 1.0, atol=1e-12, claim="closed form = conditioning the joint")
    ledger.bound("eq-gap", torch.zeros(3), torch.ones(3), slack=1e-12, claim="ELBO <= evidence")
    ledger.bound("eq-gap", 0.0, torch.ones(3), claim="KL is not negative")
    ledger.monte_carlo("eq-mc", normal(20_000), 0.0, claim="mean of noise = 0")
    wrong = lambda: ledger.close("eq-posterior-mean", 1.0, 1.1, atol=1e-12, claim="wrong")
    ledger.must_fail("eq-posterior-mean", wrong, claim="alpha in place of alpha_bar")
    assert capsys.readouterr().out.splitlines() == [
        "PASS eq-posterior-mean  closed form = conditioning the joint  [|diff| <= 1e-12]",
        "PASS eq-gap  ELBO <= evidence  [lower <= upper + 1e-12]",
        "PASS eq-gap  KL is not negative  [lower <= upper]",
        "PASS eq-mc  mean of noise = 0  [|z| <= 4.5, N = 20000]",
        "PASS eq-posterior-mean  rejected: alpha in place of alpha_bar  [must fail]",
    ]
    assert routes(ledger) == ["close", "bound", "bound", "monte_carlo", "must_fail"]


@settings(deadline=None)
@given(st.floats(1e-15, 1e3), st.floats(0, 2))
def test_close_draws_the_line_at_atol(atol, factor):
    ledger, expected = Ledger("a"), torch.zeros(2, 3, dtype=torch.float64)
    actual = expected.clone()
    actual[1, 2] = -factor * atol
    if abs(actual[1, 2].item()) <= atol:
        ledger.close("eq-a", actual, expected, atol=atol, claim="c")
    else:
        with pytest.raises(CheckFailed, match="eq-a: c: "):
            ledger.close("eq-a", actual, expected, atol=atol, claim="c")


def test_a_failure_names_the_label_the_claim_and_the_error(ledger):
    with pytest.raises(CheckFailed, match=r"eq-a: one is two: \|diff\| = 1; it must be: \|diff\| <= 0.5"):
        ledger.close("eq-a", 1, 2, atol=0.5, claim="one is two")
    with pytest.raises(CheckFailed, match=r"eq-a: c: lower - upper = 0.25; it must be: lower <= upper$"):
        ledger.bound("eq-a", 1.25, 1.0, claim="c")
    with pytest.raises(CheckFailed, match=r"eq-a: c: \|z\| = .*; it must be: \|z\| <= 4.5, N = 200"):
        ledger.monte_carlo("eq-a", normal(200), 5.0, claim="c")
    assert routes(ledger) == []


def test_signed_errors_do_not_cancel(ledger):
    with pytest.raises(CheckFailed):
        ledger.close("eq-a", torch.tensor([1.0, -1.0]), torch.zeros(2), atol=0.5, claim="c")
    with pytest.raises(CheckFailed):
        ledger.bound("eq-a", torch.tensor([1.0, -9.0]), torch.zeros(2), claim="c")


def test_numbers_of_every_kind_are_compared(ledger):
    gradient = torch.tensor([1.0, 2.0], requires_grad=True)
    ledger.close("eq-a", gradient, np.array([1.0, 2.0], dtype=np.float32), atol=0, claim="tensor and array")
    ledger.close("eq-a", [1, 2], torch.tensor([1, 2]), atol=0, claim="list and integers")
    ledger.close("eq-a", torch.tensor(3.0).half(), np.float64(3), atol=0.0, claim="half and scalar")
    ledger.close("eq-a", torch.tensor([True, False]), [1, 0], atol=0, claim="truth and numbers")
    with pytest.raises(ValueError, match="actual was str; it must be numbers"):
        ledger.close("eq-a", "one", 1, atol=0, claim="c")
    with pytest.raises(ValueError, match=r"the dtype of actual was torch.complex64; it must be real"):
        ledger.close("eq-a", torch.tensor(1j), 1.0, atol=0, claim="c")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_finite_never_passes(ledger, bad, place):
    x = torch.zeros(3)
    x[place] = bad
    draws = normal(200, 3)
    draws[7, place] = bad
    for fn in (
        lambda: ledger.close("eq-a", x, x, atol=1.0, claim="c"),
        lambda: ledger.close("eq-a", x, torch.zeros(3), atol=1.0, claim="c"),
        lambda: ledger.bound("eq-a", x, torch.full((3,), math.inf), claim="c"),
        lambda: ledger.bound("eq-a", torch.full((3,), -math.inf), x, claim="c"),
        lambda: ledger.bound("eq-a", -math.inf, 0.0, claim="c"),
        lambda: ledger.monte_carlo("eq-a", draws, torch.zeros(3), claim="c"),
        lambda: ledger.monte_carlo("eq-a", normal(200, 3), x, claim="c"),
    ):
        with pytest.raises(NotComparable, match=f"a side holds {bad}|a side holds -?inf; its numbers must be finite"):
            fn()
        with pytest.raises(NotComparable):
            ledger.must_fail("eq-a", fn, claim="a formula that gives no number is not shown to be wrong")
    assert routes(ledger) == []


def test_draws_too_large_for_a_standard_error_have_no_verdict(ledger):
    with pytest.raises(NotComparable):
        ledger.monte_carlo("eq-a", normal(200) * 1e200, 1.0, claim="c")


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (1,)), ((3,), ()), ((2, 3), (3,)), ((1,), ()), ((0,), (0,)), ((2, 0), (2, 0))]
)
def test_shapes_that_would_broadcast_or_are_empty_are_not_compared(ledger, a, b):
    x, y = torch.zeros(a), torch.zeros(b)
    for left, right in ((x, y), (y, x)):
        with pytest.raises(NotComparable):
            ledger.close("eq-a", left, right, atol=1.0, claim="c")
        with pytest.raises(NotComparable):
            ledger.bound("eq-a", left, right, claim="c")
    with pytest.raises(NotComparable):
        ledger.monte_carlo("eq-a", torch.zeros(200, *a), y.expand(b) if a != b else x, claim="c")


def test_bound_takes_a_number_on_either_side(ledger):
    ledger.bound("eq-a", 0, torch.tensor([0.0, 1.0]), claim="from below")
    ledger.bound("eq-a", np.array([0.0, 1.0]), 1.0, claim="from above")
    with pytest.raises(CheckFailed):
        ledger.bound("eq-a", 0.5, torch.tensor([0.0, 1.0]), claim="c")
    with pytest.raises(NotComparable):
        ledger.bound("eq-a", 0.5, torch.ones(0), claim="c")


def test_monte_carlo_uses_its_own_standard_error(ledger):
    draws, mean = normal(2500, 2), torch.tensor([0.0, 0.0])
    error = draws.std(0) / 50
    exact = draws.mean(0)
    ledger.monte_carlo("eq-a", draws, exact + 2.9 * error, z=3.0, claim="within")
    for sign in (1, -1):
        with pytest.raises(CheckFailed):
            ledger.monte_carlo("eq-a", draws, exact + sign * 3.1 * error * torch.tensor([0, 1]), z=3.0, claim="beyond")
    two = torch.tensor([0.0, 2.0], dtype=torch.float64).repeat(200)
    ledger.monte_carlo("eq-a", two, 1 + 3 * two.std() / 20, z=3.0, claim="at the line")
    ledger.monte_carlo("eq-a", draws * 1e-9, mean, claim="tiny numbers keep their own scale")
    with pytest.raises(CheckFailed):
        ledger.monte_carlo("eq-a", draws * 1e-15, mean + 1e-15, claim="tiny errors too")


def test_a_constant_sample_does_not_pass_vacuously(ledger):
    draws = normal(1000, 2)
    draws[:, 1] = 0.1
    ledger.monte_carlo("eq-a", draws, torch.tensor([0.0, 0.1], dtype=torch.float64), claim="equal")
    with pytest.raises(CheckFailed):
        ledger.monte_carlo("eq-a", draws, torch.tensor([0.0, 0.1 + 1e-11], dtype=torch.float64), claim="unequal")
    with pytest.raises(CheckFailed):
        ledger.monte_carlo("eq-a", torch.zeros(100), 1e-6, claim="unequal")


def test_too_few_draws_are_refused(ledger):
    with pytest.raises(ValueError, match="the number of draws was 99; it must be at least 100"):
        ledger.monte_carlo("eq-a", torch.randn(99), 0.0, claim="c")
    with pytest.raises(ValueError, match="the number of draws was 0; it must be at least 100"):
        ledger.monte_carlo("eq-a", 1.0, 1.0, claim="c")


def test_must_fail_fails_when_the_wrong_check_passes(ledger, capsys):
    right = lambda: ledger.close("eq-a", 1.0, 1.0, atol=0, claim="right")
    with pytest.raises(CheckFailed, match="eq-a: rejected: c: the wrong check passed"):
        ledger.must_fail("eq-a", right, claim="c")
    with pytest.raises(CheckFailed):
        ledger.must_fail("eq-a", lambda: None, claim="c")
    assert capsys.readouterr().out == ""
    assert routes(ledger) == []


def test_must_fail_records_and_prints_nothing_of_what_it_runs(ledger, capsys):
    ledger.close("eq-a", 1.0, 1.0, atol=0, claim="kept")

    def wrong():
        print("noise")
        ledger.close("eq-a", 2.0, 2.0, atol=0, claim="passes on the way")
        ledger.close("eq-a", 1.0, 2.0, atol=0, claim="kept")

    ledger.must_fail("eq-a", wrong, claim="c")
    assert capsys.readouterr().out.splitlines()[1:] == ["PASS eq-a  rejected: c  [must fail]"]
    assert [check["claim"] for check in ledger.report().data["checks"]] == ["kept", "rejected: c"]


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, AssertionError, KeyboardInterrupt])
def test_must_fail_counts_no_other_error(ledger, error):
    def broken():
        ledger.close("eq-a", 1.0, 1.0, atol=0, claim="c")
        raise error

    with pytest.raises(error):
        ledger.must_fail("eq-a", broken, claim="c")
    assert routes(ledger) == []


def test_must_fail_counts_no_mistake_of_shape(ledger):
    with pytest.raises(NotComparable):
        ledger.must_fail("eq-a", lambda: ledger.close("eq-a", torch.ones(2), 0.0, atol=0, claim="c"), claim="c")
    assert routes(ledger) == []


def test_a_check_that_runs_again_is_recorded_once_and_forgotten_when_it_fails(ledger):
    for _ in range(2):
        ledger.close("eq-a", 1.0, 1.0, atol=0, claim="c")
    assert routes(ledger) == ["close"]
    with pytest.raises(CheckFailed):
        ledger.close("eq-a", 1.0, 2.0, atol=0, claim="c")
    assert routes(ledger) == []
    ledger.close("eq-a", 1.0, 1.0, atol=0, claim="c")
    with pytest.raises(NotComparable):
        ledger.close("eq-a", 1.0, math.nan, atol=0, claim="c")
    assert routes(ledger) == []


def test_report_is_a_table_with_links_and_data(ledger, tmp_path):
    ledger.close("eq-a", 1.0, 1.0, atol=1e-12, claim="a < b & c")
    ledger.bound("eq-longer", 0.0, 1.0, claim="c")
    bundle = ledger.report()._repr_mimebundle_()
    data = bundle["application/vnd.dmlib.ledger+json"]
    first = {"label": "eq-a", "claim": "a < b & c", "route": "close", "bound": "|diff| <= 1e-12"}
    assert data["chapter"] == "03-elbo"
    assert data["checks"][0] == first
    assert len(data["checks"]) == 2
    assert 'href="#equation-eq-a">eq-a</a>' in bundle["text/html"]
    assert "a &lt; b &amp; c" in bundle["text/html"]
    assert bundle["text/plain"].splitlines() == [
        "label      claim      route  bound",
        "eq-a       a < b & c  close  |diff| <= 1e-12",
        "eq-longer  c          bound  lower <= upper",
    ]
    ledger.save(tmp_path / "ledger.json")
    assert json.loads((tmp_path / "ledger.json").read_text("utf8")) == data
    assert (tmp_path / "ledger.json").read_text("utf8").splitlines()[1] == ' "chapter": "03-elbo",'


def test_a_report_keeps_what_it_saw(ledger):
    ledger.close("eq-a", 1.0, 1.0, atol=0, claim="c")
    report = ledger.report()
    ledger.close("eq-b", 1.0, 1.0, atol=0, claim="c")
    assert len(report.data["checks"]) == 1


@settings(deadline=None)
@given(st.text(max_size=12).filter(lambda label: verify.re.fullmatch(r"eq-[a-z0-9]+(-[a-z0-9]+)*", label) is None))
def test_a_label_is_an_equations(label):
    with pytest.raises(ValueError, match=r"(?s)label was .*; it must be"):
        Ledger("a").close(label, 1, 1, atol=0, claim="c")


@pytest.mark.parametrize("label", ["eq-", "eq-A", "eq-a_b", "eq-a-", "fig-a", "claim-a", "eq-a b", "eq-a\n"])
def test_near_misses_of_a_label(ledger, label):
    for fn in (
        lambda: ledger.bound(label, 0, 1, claim="c"),
        lambda: ledger.monte_carlo(label, torch.zeros(100), 0.0, claim="c"),
        lambda: ledger.must_fail(label, lambda: None, claim="c"),
    ):
        with pytest.raises(ValueError, match="label was"):
            fn()


@pytest.mark.parametrize("claim", ["", " ", " c", "c\n", "two\nlines"])
def test_a_claim_is_one_line_of_words(ledger, claim):
    with pytest.raises(ValueError, match="claim was"):
        ledger.close("eq-a", 1, 1, atol=0, claim=claim)


@pytest.mark.parametrize("bad", [-1e-12, math.nan, math.inf])
def test_tolerances_are_finite_and_not_negative(ledger, bad):
    with pytest.raises(ValueError, match="atol was"):
        ledger.close("eq-a", 1, 1, atol=bad, claim="c")
    with pytest.raises(ValueError, match="slack was"):
        ledger.bound("eq-a", 0, 1, slack=bad, claim="c")
    with pytest.raises(ValueError, match="z was"):
        ledger.monte_carlo("eq-a", torch.zeros(100), 0.0, z=bad, claim="c")


@pytest.mark.parametrize("chapter", ["", "03 elbo", "../elbo", "03-Elbo"])
def test_a_chapter_has_a_name(chapter):
    with pytest.raises(ValueError, match="chapter was"):
        Ledger(chapter)


def test_a_rejection_that_runs_again_without_a_verdict_is_forgotten(ledger):
    ledger.must_fail("eq-a", lambda: ledger.close("eq-a", 1.0, 2.0, atol=0, claim="c"), claim="c")
    assert routes(ledger) == ["must_fail"]
    with pytest.raises(verify.NotComparable):
        ledger.must_fail("eq-a", lambda: ledger.close("eq-a", float("nan"), 2.0, atol=0, claim="c"), claim="c")
    assert routes(ledger) == []


def test_a_report_is_folded_and_says_how_many_checks_it_holds(ledger):
    ledger.close("eq-a", 1.0, 1.0, atol=0, claim="one")
    assert "<details><summary>The checks of this chapter, 1 in all</summary>" in ledger.report()._repr_html_()


@pytest.mark.parametrize("make", [int, torch.tensor, np.int64, lambda n: [n, 0], lambda n: torch.tensor([n, -n])])
def test_large_integers_are_compared_as_integers(ledger, make):
    for n in (2**53, 2**62, -(2**53) - 1):
        ledger.close("eq-a", make(n), make(n), atol=0, claim="same")
        ledger.close("eq-a", make(n), make(n + 1), atol=1, claim="near")
        with pytest.raises(CheckFailed, match="diff"):
            ledger.close("eq-a", make(n), make(n + 1), atol=0.5, claim="one more")
    ledger.bound("eq-a", 2**53, 2**53 + 1, claim="below")
    with pytest.raises(CheckFailed, match="lower"):
        ledger.bound("eq-a", 2**53 + 1, 2**53, claim="above")
    with pytest.raises(CheckFailed, match="diff"):
        ledger.close("eq-a", 2**53 + 1, float(2**53), atol=0, claim="an integer and a float")
    with pytest.raises(CheckFailed, match="diff"):
        ledger.close("eq-a", -(2**63), 2**63 - 1, atol=1, claim="the two ends")
    for edge in (4001 * 3**32, 4001 * 2**32, 4001 * 10**9):  # Where their two parts change together.
        ledger.close("eq-a", edge - 1, edge, atol=1, claim="one apart")
        with pytest.raises(CheckFailed, match="diff"):
            ledger.close("eq-a", edge - 1, edge, atol=0.5, claim="one apart")


def test_numbers_of_python_are_not_rounded(ledger):
    ledger.close("eq-a", 0.1, torch.tensor(0.1, dtype=torch.float64), atol=0, claim="a number")
    with pytest.raises(CheckFailed, match="diff"):
        ledger.close("eq-a", [16777217.0], [16777216.0], atol=0.5, claim="numbers that float32 does not tell apart")
