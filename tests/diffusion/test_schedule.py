"""Schedules against exact rational arithmetic and the formulas of the papers."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlib.diffusion import schedule
from dmlib.diffusion.schedule import NoiseSchedule

SCHEDULES = {
    "linear-1": schedule.linear(1),
    "linear-7": schedule.linear(7, 0.05, 0.6),
    "linear-1000": schedule.linear(1000),
    "cosine-1": schedule.cosine(1),
    "cosine-10": schedule.cosine(10),
    "cosine-1000": schedule.cosine(1000),
    "jumps": NoiseSchedule(torch.tensor([1.0, 1 - 1e-9, 0.7, 0.699, 1e-6, 1e-30], dtype=torch.float64)),
}
each_schedule = pytest.mark.parametrize("noise", SCHEDULES.values(), ids=SCHEDULES.keys())


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_near(actual: torch.Tensor, expected: list[Fraction]) -> None:
    """Equal to the exact rationals to 1e-12, relatively."""
    np.testing.assert_allclose(actual.numpy(), np.array([float(e) for e in expected]), rtol=1e-12, atol=0)


@each_schedule
def test_tables_are_those_of_exact_arithmetic(noise: NoiseSchedule) -> None:
    exact = [Fraction(a) for a in noise.alpha_bar.tolist()]
    steps = list(pairwise(exact))
    assert len(steps) == noise.T
    assert noise.alpha[0] == 1
    assert noise.beta[0] == 0
    assert noise.snr[0] == noise.log_snr[0] == math.inf
    assert_near(noise.alpha[1:], [after / before for before, after in steps])
    assert_near(noise.beta[1:], [1 - after / before for before, after in steps])
    assert_near(noise.snr[1:], [a / (1 - a) for a in exact[1:]])
    np.testing.assert_allclose(noise.log_snr[1:], np.log(noise.snr[1:].numpy()), rtol=0, atol=1e-12)
    for table in (noise.alpha, noise.beta, noise.snr, noise.log_snr):
        assert table.shape == (noise.T + 1,)
        assert table.dtype == torch.float64


def test_from_betas_is_the_exact_product() -> None:
    beta = torch.rand(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.1 + 1e-5
    exact = [Fraction(1)]
    for b in beta.tolist():
        exact.append(exact[-1] * (1 - Fraction(b)))
    noise = schedule.from_betas(beta)
    assert_near(noise.alpha_bar, exact)
    np.testing.assert_allclose(noise.beta[1:], beta, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("T", "first", "last"), [(1000, 1e-4, 0.02), (8, 0.1, 0.5), (3, 0.4, 0.1)])
def test_linear_is_evenly_spaced_from_end_to_end(T: int, first: float, last: float) -> None:
    expected = np.array([first + (last - first) * (t - 1) / (T - 1) for t in range(1, T + 1)])
    np.testing.assert_allclose(schedule.linear(T, first, last).beta[1:], expected, rtol=0, atol=1e-12)


def test_linear_defaults_are_those_of_the_paper() -> None:
    noise = schedule.linear(1000)
    np.testing.assert_allclose(noise.beta[[1, 1000]], [1e-4, 0.02], rtol=1e-11)
    product = math.fsum(math.log1p(-(1e-4 + 0.0199 * i / 999)) for i in range(1000))
    np.testing.assert_allclose(noise.alpha_bar[1000].log(), product, rtol=1e-12)


@pytest.mark.parametrize(("T", "s"), [(1000, 0.008), (50, 0.008), (20, 0.1), (10, 0.0)])
def test_cosine_is_the_squared_cosine_until_the_cap(T: int, s: float) -> None:
    noise = schedule.cosine(T, s)
    f = [math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2 for t in range(T)]
    np.testing.assert_allclose(noise.alpha_bar[:T], np.array(f) / f[0], rtol=1e-10)  # T rounded factors
    np.testing.assert_allclose(noise.beta[T], 0.999, rtol=1e-12)


def test_cosine_defaults_are_those_of_the_paper() -> None:
    assert torch.equal(schedule.cosine(20).alpha_bar, schedule.cosine(20, 0.008, 0.999).alpha_bar)


def test_cosine_caps_every_beta_at_max_beta() -> None:
    uncapped, capped = schedule.cosine(100), schedule.cosine(100, max_beta=0.3)
    expected = uncapped.beta[1:].clamp(max=0.3)
    assert (expected < 0.3).any()
    np.testing.assert_allclose(capped.beta[1:], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("event", [(), (3,), (1, 2, 2)])
def test_at_gathers_one_entry_an_example(dtype: torch.dtype, event: tuple[int, ...]) -> None:
    noise = SCHEDULES["linear-7"]
    times, like = [7, 0, 3, 3], torch.zeros(4, *event, dtype=dtype)
    entries = noise.at(noise.beta, torch.tensor(times), like)
    assert entries.shape == (4, *[1] * len(event))
    assert entries.dtype == dtype
    assert entries.flatten().tolist() == [noise.beta[t].to(dtype).item() for t in times]
    assert noise.at(noise.beta, torch.tensor(times), like, torch.float64).dtype == torch.float64


def test_a_schedule_is_frozen_and_keeps_its_tables() -> None:
    noise = schedule.linear(5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        noise.alpha_bar = f64(1, 0.5)
    assert noise.beta is noise.beta
    assert len({noise, noise, schedule.linear(5)}) == 2


@pytest.mark.parametrize(
    ("alpha_bar", "message"),
    [
        (torch.tensor([1.0, 0.5]), r"the dtype of alpha_bar was torch.float32; it must be torch.float64"),
        (torch.tensor([1, 0]), r"the dtype of alpha_bar was torch.int64; it must be torch.float64"),
        (f64(1.0), r"the length of alpha_bar was 1; it must be"),
        (f64(1.0, 0.5)[None], r"the shape of alpha_bar was \(1, 2\); it must be \(any\)"),
        (f64(0.9, 0.5), r"alpha_bar\[0\] was 0.9; it must be exactly 1"),
        (f64(1 - 1e-15, 0.5), r"alpha_bar\[0\] was 0.99\d*; it must be exactly 1"),
        (f64(1.0, 0.5, 0.5), r"a step of alpha_bar was 0.0; it must be negative"),
        (f64(1.0, 0.5, 0.6), r"a step of alpha_bar was 0.09\d*; it must be negative"),
        (f64(1.0, 1.0), r"a step of alpha_bar was 0.0; it must be negative"),
        (f64(1.0, 0.0, 0.0), r"a step of alpha_bar was 0.0; it must be negative"),
        (f64(1.0, 0.5, -0.1), r"alpha_bar was -0.1; it must be in \[0, 1\]"),
        (f64(1.0, math.nan), r"alpha_bar was nan; it must be finite"),
        (f64(1.0, -math.inf), r"alpha_bar was -inf; it must be finite"),
        (torch.empty(3, dtype=torch.float64, device="meta"), r"the device of alpha_bar was meta; it must be the CPU"),
    ],
)
def test_a_bad_alpha_bar_is_named(alpha_bar: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(alpha_bar)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedule.linear(0), "T was 0; it must be an integer, 1 or more"),
        (lambda: schedule.cosine(-3), "T was -3; it must be an integer, 1 or more"),
        (lambda: schedule.linear(10, 0.0, 0.02), r"beta was 0.0; it must be in \(0, 1\]"),
        (lambda: schedule.linear(10, 1e-4, 1.1), r"beta was 1.1; it must be in \(0, 1\]"),
        (lambda: schedule.linear(10, 1e-4, math.nan), r"beta was .*; it must be in \(0, 1\]"),
        (lambda: schedule.cosine(10, s=-0.1), "s was -0.1; it must be finite and at least 0"),
        (lambda: schedule.cosine(10, s=math.inf), "s was inf; it must be finite and at least 0"),
        (lambda: schedule.cosine(10, max_beta=0.0), r"max_beta was 0.0; it must be in \(0, 1\]"),
        (lambda: schedule.cosine(10, max_beta=1.1), r"max_beta was 1.1; it must be in \(0, 1\]"),
        (lambda: schedule.from_betas(torch.tensor([0.1])), "the dtype of beta was torch.float32; it must be"),
        (lambda: schedule.from_betas(f64(0.1)[None]), r"the shape of beta was \(1, 1\); it must be \(any\)"),
        (lambda: schedule.from_betas(f64(0.1, -0.1)), r"beta was -0.1; it must be in \(0, 1\]"),
        (lambda: schedule.from_betas(f64(0.1, 1.0, 0.1)), "beta was 1.0; it must be less than 1 before the last step"),
        (lambda: schedule.from_betas(f64()), "the length of alpha_bar was 1; it must be"),
        (lambda: schedule.from_betas(f64(*[0.999] * 200)), "a step of alpha_bar was 0.0; it must be"),
    ],
)
def test_a_bad_schedule_is_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("table", "t", "message"),
    [
        (f64(1, 2), torch.tensor([1, 2]), r"the shape of table was \(2,\); it must be \(8\)"),
        (None, torch.tensor([1, 8]), r"t was 8; it must be in 0..7"),
        (None, torch.tensor([1, -1]), r"t was -1; it must be in 0..7"),
        (None, torch.tensor([1.0, 2.0]), r"the dtype of t was torch.float32; it must be torch.int64"),
        (None, torch.tensor([1, 2], dtype=torch.int32), r"the dtype of t was torch.int32; it must be torch.int64"),
        (None, torch.tensor([1]), r"the shape of t was \(1,\); it must be \(2\)"),
        (None, torch.tensor(1), r"the shape of t was \(\); it must be \(2\)"),
        (None, torch.tensor([[1], [2]]), r"the shape of t was \(2, 1\); it must be \(2\)"),
        (None, torch.ones(2, dtype=torch.int64, device="meta"), r"the device of t was meta; it must be cpu"),
    ],
)
def test_a_bad_gather_is_named(table: torch.Tensor | None, t: torch.Tensor, message: str) -> None:
    noise = SCHEDULES["linear-7"]
    with pytest.raises(ValueError, match=message):
        noise.at(noise.beta if table is None else table, t, torch.zeros(2, 3))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(1e-9, 0.9), min_size=1, max_size=40), st.data())
def test_one_spoiled_entry_is_always_refused(betas: list[float], data: st.DataObject) -> None:
    good = schedule.from_betas(f64(*betas)).alpha_bar
    assert (good.diff() < 0).all()
    place = data.draw(st.integers(1, len(betas)))
    too_high = st.floats(min_value=good[place - 1].item(), allow_nan=False)
    bad = good.clone()
    bad[place] = data.draw(too_high | st.floats(max_value=0.0, exclude_max=True, allow_nan=False) | st.just(math.nan))
    with pytest.raises(ValueError, match="; it must be "):
        NoiseSchedule(bad)


def test_a_plain_dictionary_makes_a_schedule() -> None:
    made = schedule.build({"name": "linear", "T": 9, "beta_1": 0.01, "beta_T": 0.3})
    assert torch.equal(made.alpha_bar, schedule.linear(9, 0.01, 0.3).alpha_bar)
    assert torch.equal(schedule.build({"name": "cosine", "T": 5}).alpha_bar, schedule.cosine(5).alpha_bar)
    for name in ("quadratic", None):
        with pytest.raises(ValueError, match=rf"spec\['name'\] was {name!r}; it must be one of linear, cosine"):
            schedule.build({"name": name, "T": 5})
    with pytest.raises(ValueError, match=r"the keys of spec for 'cosine' were \['T', 'beta_1'\]; they must be among"):
        schedule.build({"name": "cosine", "T": 5, "beta_1": 0.1})
