"""Distances between samples against closed forms, brute force, SciPy and scikit-learn."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from dmlib import metrics, rng

F64 = torch.float64
SLICED = functools.partial(metrics.sliced_wasserstein, generator=rng.generator(0))
DISTANCES = (metrics.frechet, metrics.energy_distance, metrics.mmd_rbf, SLICED)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng.generator(seed), dtype=F64)


def with_moments(n: int, mean: Tensor, root: Tensor, seed: int = 0) -> Tensor:
    """Points whose own mean is `mean` and whose own covariance, over n - 1, is root' root: no sampling error."""
    z = randn(n, len(root), seed=seed)
    z = torch.linalg.qr(z - z.mean(0)).Q * math.sqrt(n - 1)
    return mean + z @ root


def z_score(draws: list[Tensor], expected: float) -> float:
    values = torch.stack(draws)
    return ((values.mean() - expected) / values.std() * math.sqrt(len(values))).item()


# The Frechet distance


def test_frechet_is_that_of_a_matrix_square_root() -> None:
    x, y = randn(60, 5) @ randn(5, 5, seed=1) + 3, randn(45, 5, seed=2) @ randn(5, 5, seed=3)
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(cov_x @ cov_y)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(cov_x + cov_y - 2 * root.real)
    np.testing.assert_allclose(metrics.frechet(x, y), expected, rtol=1e-12)
    np.testing.assert_allclose(metrics.frechet(y, x), expected, rtol=1e-12)


@given(
    st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=6), st.integers(0, 99)
)
def test_frechet_of_gaussians_with_common_axes(axes: list[tuple[float, float, float]], seed: int) -> None:
    shift, std_x, std_y = torch.tensor(axes, dtype=F64).T
    turn = torch.linalg.qr(randn(len(axes), len(axes), seed=seed)).Q
    x = with_moments(20, shift @ turn, torch.diag(std_x) @ turn, seed=1)
    y = with_moments(30, torch.zeros(len(axes), dtype=F64), torch.diag(std_y) @ turn, seed=2)
    expected = (shift**2 + (std_x - std_y) ** 2).sum()
    scale = (shift**2 + std_x**2 + std_y**2).sum().item()
    np.testing.assert_allclose(metrics.frechet(x, y), expected, rtol=0, atol=1e-13 * scale + 1e-300)


@pytest.mark.parametrize(("n", "m", "size"), [(4, 6, 3), (3, 4, 10), (2, 2, 1), (50, 60, 8)])
def test_frechet_of_singular_gaussians_on_two_lines(n: int, m: int, size: int) -> None:
    u, v = (torch.nn.functional.normalize(randn(size, seed=seed), dim=0) for seed in (1, 2))
    x, y = with_moments(n, 0 * u, 1.3 * u[None], seed=3), with_moments(m, u, 0.4 * v[None], seed=4)
    expected = 1 + 1.3**2 + 0.4**2 - 2 * 1.3 * 0.4 * (u @ v).abs()
    np.testing.assert_allclose(metrics.frechet(x, y), expected, rtol=1e-13)


@pytest.mark.parametrize(("n", "size"), [(100, 4), (5, 20), (2, 3)])
def test_frechet_of_a_set_and_itself_is_zero(n: int, size: int) -> None:
    x = randn(n, size)
    x[:, 0] = 7  # A feature that never moves.
    for other in (x, x.flip(0)):
        found = metrics.frechet(x, other).item()
        assert 0 <= found < 1e-13 * x.square().sum()


# Precision and recall


def test_precision_and_recall_of_nested_sets_on_a_line() -> None:
    wide = torch.arange(10, dtype=F64)[:, None]
    narrow = torch.tensor([[3.25], [3.5], [3.75]], dtype=F64)  # Nearest neighbors at 1/4: closed balls reach 3 and 4.
    assert metrics.precision_recall(wide, narrow, 1) == (1, 0.2)
    assert metrics.precision_recall(narrow, wide, 1) == (0.2, 1)
    assert metrics.precision_recall(wide, narrow - 3.5 + 20, 1) == (0, 0)
    assert metrics.precision_recall(narrow, wide, 2) == (0.2, 1)  # Reaches 2.75 to 4.25
    assert metrics.precision_recall(narrow[1:], wide + 0.25, 1) == (0.1, 1)


def test_precision_and_recall_of_a_set_and_itself_are_one() -> None:
    x = randn(50, 3)
    assert metrics.precision_recall(x, x.flip(0)) == (1, 1)
    assert metrics.precision_recall(x, x + 100) == (0, 0)
    assert metrics.precision_recall(x, x[:7]) == (1, metrics.precision_recall(x[:7], x)[0])


def test_a_ball_of_no_size_covers_its_own_point() -> None:
    copies = torch.full((4, 2), 0.1, dtype=F64)
    points = torch.tensor([[0.1, 0.1], [0.1, 0.1 + 1e-12], [5, 5], [6, 6]], dtype=F64)
    assert metrics.precision_recall(copies, points) == (0.25, 1)


@pytest.mark.parametrize(("n", "m", "size"), [(60, 90, 3), (30, 40, 8), (2500, 2100, 2)])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_precision_and_recall_by_scikit_learn(n: int, m: int, size: int, k: int) -> None:
    real, fake = randn(n, size), randn(m, size, seed=1) + 2 / math.sqrt(size)

    def share(points: Tensor, centers: Tensor) -> float:
        radii = NearestNeighbors(n_neighbors=k + 1).fit(centers).kneighbors(centers)[0][:, k]
        return (cdist(points, centers) <= radii).any(1).mean()

    expected = share(fake, real), share(real, fake)
    np.testing.assert_allclose(metrics.precision_recall(real, fake, k), expected, rtol=1e-12)
    assert 0 < min(expected) <= max(expected) < 1


def test_three_neighbors_are_the_default() -> None:
    x, y = randn(40, 2), randn(30, 2, seed=1)
    assert metrics.precision_recall(x, y) == metrics.precision_recall(x, y, 3) != metrics.precision_recall(x, y, 2)


# Sliced Wasserstein


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
def test_sliced_wasserstein_on_a_line_is_the_best_assignment(n: int, m: int, seed: int) -> None:
    x, y = randn(n, 1, seed=seed), 2 * randn(m, 1, seed=seed + 1) + 1
    copies = math.lcm(n, m)
    costs = cdist(x.repeat_interleave(copies // n, 0), y.repeat_interleave(copies // m, 0)) ** 2
    expected = costs[linear_sum_assignment(costs)].mean()
    np.testing.assert_allclose(SLICED(x, y, projections=2), expected, rtol=1e-12)


def test_sliced_wasserstein_of_translated_and_scaled_points() -> None:
    """Along each line points keep their order, so the best coupling is known, and E[u u'] = I/F averages it."""
    z, shift = randn(40, 5), randn(5, seed=1)
    x, y = 1.7 * z + shift, 0.6 * z.flip(0)
    expected = ((1.1 * z + shift) ** 2).sum(1).mean().item() / 5
    draws = [metrics.sliced_wasserstein(x, y, generator=rng.generator(1, i), projections=1) for i in range(1500)]
    assert abs(z_score(draws, expected)) < 4.5


@pytest.mark.parametrize("m", [5000, 4001])
def test_sliced_wasserstein_of_independent_gaussian_samples(m: int) -> None:
    """(1.5 - 0.5)^2 on every line, with the standard error of twice the difference of two standard deviations."""
    x, y = 1.5 * randn(5000, 3), 0.5 * randn(m, 3, seed=1)
    error = 2 * math.sqrt(1.5**2 / (2 * 5000) + 0.5**2 / (2 * m))
    assert abs(SLICED(x, y, projections=60) - 1) < 4.5 * error
    assert SLICED(x, 3 * y, projections=60) < 0.01  # One distribution, two samples


def test_directions_are_spread_evenly() -> None:
    """Of one point against another: the mean and the variance of (u . shift)^2 for u uniform on the sphere."""
    shift, n, size = torch.tensor([[3.0, 0.0, 4.0, 0.0]], dtype=F64), 50_000, 4
    found = metrics.sliced_wasserstein(shift, 0 * shift, generator=rng.generator(3), projections=n)
    variance = 5**4 * (3 / (size * (size + 2)) - 1 / size**2)
    assert abs(found - 5**2 / size) < 4.5 * math.sqrt(variance / n)
    line = functools.partial(metrics.sliced_wasserstein, shift, 0 * shift, projections=1)
    fourth = [line(generator=rng.generator(4, i)) ** 2 for i in range(2000)]
    assert abs(z_score(fourth, 5**4 * 3 / (size * (size + 2)))) < 4.5


def test_sliced_wasserstein_takes_its_randomness_from_the_generator() -> None:
    x, y, before = randn(9, 3), randn(7, 3, seed=1), torch.get_rng_state()
    first, again, other = (metrics.sliced_wasserstein(x, y, generator=rng.generator(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


# Energy distance and maximum mean discrepancy


def mean_norm(s: float, size: int) -> float:
    """E|x| for x normal with variance s^2 in each of `size` coordinates."""
    return s * math.sqrt(2) * math.gamma((size + 1) / 2) / math.gamma(size / 2)


def mean_kernel(shift: float, s: float, size: int, h: float) -> float:
    """E exp(-|x|^2 / (2 h^2)) for x normal around a point at distance `shift` from 0, s as above."""
    return (h**2 / (h**2 + s**2)) ** (size / 2) * math.exp(-(shift**2) / (2 * (h**2 + s**2)))


def small_samples(function: Callable[..., Tensor], size: int, shift: float, std: float) -> list[Tensor]:
    """Draws from few points: a bias of order 1/N would show."""
    x, y = randn(1000, 9, size), std * randn(1000, 6, size, seed=1)
    x[..., 0] += shift
    return [function(*pair) for pair in zip(x, y)]


@pytest.mark.parametrize(("size", "std"), [(1, 0.5), (3, 1.0), (8, 1.4)])
def test_energy_distance_of_gaussians_with_one_mean(size: int, std: float) -> None:
    between, within = mean_norm(math.hypot(1, std), size), mean_norm(math.sqrt(2), size) * (1 + std)
    draws = small_samples(metrics.energy_distance, size, 0.0, std)
    assert abs(z_score(draws, 2 * between - within)) < 4.5


def test_energy_distance_of_shifted_gaussians() -> None:
    s, shift = math.hypot(1, 0.7), 0.8
    between = s * math.sqrt(2 / math.pi) * math.exp(-(shift**2) / (2 * s**2)) + shift * math.erf(shift / s / 2**0.5)
    expected = 2 * between - (1 + 0.7) * 2 / math.sqrt(math.pi)
    assert abs(z_score(small_samples(metrics.energy_distance, 1, shift, 0.7), expected)) < 4.5


@pytest.mark.parametrize(("size", "shift", "std", "h"), [(1, 0.8, 0.5, 0.4), (3, 0.0, 1.0, 1.0), (5, 1.5, 1.4, 3.0)])
def test_mmd_of_gaussians(size: int, shift: float, std: float, h: float) -> None:
    within = mean_kernel(0, math.sqrt(2), size, h) + mean_kernel(0, math.sqrt(2) * std, size, h)
    expected = within - 2 * mean_kernel(shift, math.hypot(1, std), size, h)
    draws = small_samples(functools.partial(metrics.mmd_rbf, bandwidth=h), size, shift, std)
    assert abs(z_score(draws, expected)) < 4.5


def discrepancy(x: Tensor, y: Tensor, kernel: Callable[[float], float]) -> float:
    """By enumeration: over pairs of different points of one set, and over all pairs of the two."""
    within = [np.mean([kernel(math.dist(a, b)) for a, b in itertools.permutations(z.tolist(), 2)]) for z in (x, y)]
    between = np.mean([kernel(math.dist(a, b)) for a, b in itertools.product(x.tolist(), y.tolist())])
    return sum(within) - 2 * between


@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 4), st.floats(0.3, 30))
def test_energy_distance_and_mmd_by_enumeration(n: int, m: int, size: int, h: float) -> None:
    x, y = randn(n, size), randn(m, size, seed=1) + 0.5
    energy, mmd = metrics.energy_distance(x, y), metrics.mmd_rbf(x, y, h)
    np.testing.assert_allclose(energy, discrepancy(x, y, lambda d: -d), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(mmd, discrepancy(x, y, lambda d: math.exp(-(d**2) / (2 * h**2))), rtol=1e-12, atol=1e-14)


def test_many_points_are_taken_in_parts() -> None:
    x, y = randn(2500, 2), randn(3000, 2, seed=1) + 0.1
    xx, yy, xy = pdist(x), pdist(y), cdist(x, y)
    np.testing.assert_allclose(metrics.energy_distance(x, y), 2 * xy.mean() - xx.mean() - yy.mean(), rtol=1e-10)
    xx, yy, xy = (np.exp(-(d**2) / 2) for d in (xx, yy, xy))
    np.testing.assert_allclose(metrics.mmd_rbf(x, y, 1.0), xx.mean() + yy.mean() - 2 * xy.mean(), rtol=1e-10)


def test_bandwidth_is_the_median_distance() -> None:
    x, y = randn(6, 3), 2 * randn(5, 3, seed=1)  # 55 pairs: one is in the middle.
    median = float(np.median(pdist(torch.cat([x, y]))))
    assert metrics.mmd_rbf(x, y) == metrics.mmd_rbf(x, y, median)
    x, y = randn(2500, 1), randn(1501, 1, seed=1)  # Every third of 4001 points
    median = torch.nn.functional.pdist(torch.cat([x, y])[::3]).median().item()
    assert metrics.mmd_rbf(x, y) == metrics.mmd_rbf(x, y, median)
    assert abs(median - 0.954) < 0.03  # Of |x - x'|, which is normal with variance 2, folded


# What all of them share


def test_results_are_scalars_of_double_precision() -> None:
    x, y = randn(9, 2).float(), randn(8, 2, seed=1).float()
    for function in DISTANCES:
        found = function(x, y)
        assert found.shape == ()
        assert found.dtype == F64
    assert [value.dtype for value in metrics.precision_recall(x, y)] == [F64, F64]


@pytest.mark.parametrize("function", [*DISTANCES, metrics.precision_recall])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (randn(5), randn(5), r"the shape of \w+ was \(5,\); it must be \(N, F\)"),
        (randn(5, 2, 2), randn(5, 2, 2), r"the shape of \w+ was \(5, 2, 2\); it must be \(N, F\)"),
        (randn(5, 0), randn(5, 0), r"the shape of \w+ was \(5, 0\); it must be \(N, F\)"),
        (randn(0, 2), randn(5, 2), r"the shape of \w+ was \(0, 2\); it must be \(N, F\)"),
        (randn(5, 2), randn(0, 2), r"the shape of \w+ was \(0, 2\); it must be \(N, F\)"),
        (randn(5, 2), randn(5, 1), r"the shape of \w+ was \(5, 1\); it must be \(any, 2\)"),
        (randn(5, 2), randn(5, 2).float(), r"the dtype of \w+ was torch.float32; it must be torch.float64, that of"),
        (randn(5, 2), randn(5, 2).long(), r"the dtype of \w+ was torch.int64"),
        (randn(5, 2), randn(5, 2) / 0, r"\w+ was -?inf; it must be finite"),
    ],
)
def test_what_is_no_pair_of_sets_raises(function: Callable, x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(x, y)


@pytest.mark.parametrize("function", [metrics.frechet, metrics.energy_distance, metrics.mmd_rbf])
def test_one_point_is_too_few(function: Callable) -> None:
    for x, y in ((randn(1, 2), randn(5, 2)), (randn(5, 2), randn(1, 2))):
        with pytest.raises(ValueError, match=r"was \(1, 2\); it must be \(N, F\) with N of 2 or more"):
            function(x, y)


@given(st.one_of(st.integers(max_value=0), st.integers(5, 99)))
def test_bad_k_raises(k: int) -> None:
    with pytest.raises(ValueError, match=r"k was .*; it must be an integer in 1..4"):
        metrics.precision_recall(randn(5, 2), randn(9, 2), k)


@given(st.integers(max_value=0))
def test_no_projections_raise(projections: int) -> None:
    with pytest.raises(ValueError, match=r"projections was .*; it must be an integer, 1 or more"):
        SLICED(randn(5, 2), randn(5, 2), projections=projections)


@given(st.sampled_from([0.0, -1.0, math.inf, math.nan]))
def test_bad_bandwidth_raises(bandwidth: float) -> None:
    with pytest.raises(ValueError, match=r"bandwidth was .*; it must be more than 0 and finite"):
        metrics.mmd_rbf(randn(5, 2), randn(5, 2), bandwidth)
    with pytest.raises(ValueError, match=r"bandwidth was 0.0; it must be more than 0 and finite"):
        metrics.mmd_rbf(torch.ones(5, 2), torch.ones(5, 2))
