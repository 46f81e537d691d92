"""The digits' splits, MNIST, and the shapes of the toys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlib import data, rng

TOYS = (data.two_moons, data.eight_gaussians, data.spiral, data.checkerboard)
each_toy = pytest.mark.parametrize("toy", TOYS)
N = 50_000


@each_toy
def test_toys_are_standardized(toy) -> None:
    x = toy(N, generator=rng.generator(0)).double()
    assert x.shape == (N, 2)
    assert (x.mean(0).abs() / x.std(0) * math.sqrt(N)).max() < 4.5
    square = (x**2).mean(1)
    assert abs(square.mean() - 1) / square.std() * math.sqrt(N) < 4.5


@each_toy
def test_toys_are_float32_of_their_generator_alone(toy) -> None:
    before = torch.get_rng_state()
    first, second = toy(5, generator=rng.generator(1)), toy(5, generator=rng.generator(1))
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    assert not torch.equal(first, toy(5, generator=rng.generator(2)))
    assert torch.equal(before, torch.get_rng_state())


@settings(deadline=None)
@given(st.sampled_from(TOYS), st.integers(max_value=0))
def test_toys_of_no_points_raise(toy, n: int) -> None:
    with pytest.raises(ValueError, match=r"n was .*; it must be an integer, 1 or more"):
        toy(n, generator=rng.generator(0))


def test_eight_gaussians_are_eight_equal_bells_on_a_circle() -> None:
    x = data.eight_gaussians(N, generator=rng.generator(0)).double()
    turn = torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi) * 8
    counts = torch.bincount(turn.round().long() % 8, minlength=8).double()
    assert ((counts - N / 8) ** 2 / (N / 8)).sum() < 36  # chi-squared, 7 degrees of freedom: p < 1e-5 beyond
    centers = torch.stack([x[turn.round().long() % 8 == k].mean(0) for k in range(8)])
    np.testing.assert_allclose(centers.norm(dim=1), 1 / 0.7106, atol=0.01)
    around = x - centers[turn.round().long() % 8]
    np.testing.assert_allclose(around.std(0), 0.07 / 0.7106, atol=0.002)


def test_checkerboard_fills_the_dark_squares_evenly() -> None:
    x = data.checkerboard(N, generator=rng.generator(0)).double()
    square = ((x / math.sqrt(3) + 1) * 2).floor().clamp(0, 3).long()
    counts = torch.bincount(4 * square[:, 0] + square[:, 1], minlength=16).reshape(4, 4).double()
    dark = (torch.arange(4).unsqueeze(1) + torch.arange(4)) % 2 == 0
    assert (counts[~dark] == 0).all()
    assert ((counts[dark] - N / 8) ** 2 / (N / 8)).sum() < 36
    assert x.abs().max() <= math.sqrt(3)


def test_spiral_winds_out_from_one_radius_to_three_times_it() -> None:
    x = data.spiral(N, generator=rng.generator(0)).double() * 6.796 + torch.tensor([2.0, 2 / (3 * math.pi)])
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    off = (radius - angle) / (2 * math.pi)
    across = (off - off.round()) * 2 * math.pi  # Radius equals angle up to whole turns, and noise.
    assert across.abs().max() < 5 * 0.3
    np.testing.assert_allclose(across.std(), 0.3, rtol=0.02)
    np.testing.assert_allclose(radius.quantile(torch.tensor([0.02, 0.98]).double()) / math.pi, [1.56, 4.44], atol=0.05)


def test_two_moons_are_two_half_circles() -> None:
    x = data.two_moons(5000, generator=rng.generator(0)).double() * 0.7122 + torch.tensor([0.5, 0.25])
    angle = torch.linspace(0, math.pi, 1000, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.tensor([1.0, 0.5]) - upper
    distances = torch.stack([torch.cdist(x, moon).amin(1) for moon in (upper, lower)])
    np.testing.assert_allclose((distances.amin(0) ** 2).mean().sqrt(), 0.1, atol=0.01)
    np.testing.assert_allclose((distances[0] < distances[1]).double().mean(), 0.5, atol=4.5 * 0.5 / math.sqrt(5000))
    np.testing.assert_allclose((x[:, 1] < 0.25).double().mean(), 0.5, atol=4.5 * 0.5 / math.sqrt(5000))
