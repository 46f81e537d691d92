"""Diffused mixtures against torch.distributions, enumeration, quadrature and autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.func import grad, vmap

from dmlib.probability import mixture
from dmlib.probability.mixture import Mixture

F64 = torch.float64
TIMES = [0.0, 1e-6, 0.3, 0.9, 1.0]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def random_mixture(components: int, size: int, seed: int = 0) -> Mixture:
    weights = randn(components, seed=seed).softmax(0)
    return Mixture(weights, 2 * randn(components, size, seed=seed + 1), randn(components, seed=seed + 2).exp() / 2)


POINTS = Mixture(torch.tensor([0.2, 0.5, 0.3], dtype=F64), 2 * randn(3, 2, seed=9), torch.zeros(3, dtype=F64))
MIXED = Mixture(POINTS.weights, POINTS.means, torch.tensor([0.0, 0.4, 1.3], dtype=F64))


def diffused(m: Mixture, alpha_bar: float) -> MixtureSameFamily:
    std = (1 - alpha_bar + alpha_bar * m.vars).sqrt()
    bells = Normal(math.sqrt(alpha_bar) * m.means, std[:, None].expand_as(m.means))
    return MixtureSameFamily(Categorical(m.weights), Independent(bells, 1))


def close(actual: Tensor, expected: Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=tol, atol=tol)


@pytest.mark.parametrize("alpha_bar", TIMES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_density_is_that_of_torch(alpha_bar: float, size: int) -> None:
    m, x = random_mixture(4, size), 2 * randn(6, size, seed=5)
    close(mixture.log_prob(m, x, alpha_bar), diffused(m, alpha_bar).log_prob(x), 1e-11)
    close(mixture.log_prob(m, x), diffused(m, 1.0).log_prob(x), 1e-11)


@pytest.mark.parametrize("alpha_bar", [0.0, 1e-6, 0.3, 0.9, 0.9999])
def test_points_by_enumeration(alpha_bar: float) -> None:
    """The posterior over which point it was: Bayes' rule with densities of torch."""
    x = math.sqrt(alpha_bar) * POINTS.means[[0, 1, 2, 0]] + math.sqrt(1 - alpha_bar) * randn(4, 2, seed=6)
    std = math.sqrt(1 - alpha_bar)
    likelihood = Normal(math.sqrt(alpha_bar) * POINTS.means, std).log_prob(x[:, None]).sum(2).exp()
    r = POINTS.weights * likelihood
    r = r / r.sum(1, keepdim=True)
    close(mixture.posterior_mean(POINTS, x, alpha_bar), r @ POINTS.means, 1e-10)
    second = r @ (POINTS.means**2).sum(1) - ((r @ POINTS.means) ** 2).sum(1)
    close(mixture.minimum_mse(POINTS, x, alpha_bar), second, 1e-10)


@pytest.mark.parametrize("alpha_bar", [0.0, 1e-6, 0.3, 0.9])
@pytest.mark.parametrize("seed", [0, 20])
def test_posterior_moments_by_quadrature(alpha_bar: float, seed: int) -> None:
    m, x_t = random_mixture(3, 1, seed), randn(5, 1, seed=7)
    nodes, weights = np.polynomial.legendre.leggauss(500)
    x_0, weights = torch.tensor(nodes) * 14, torch.tensor(weights) * 14
    log_joint = diffused(m, 1.0).log_prob(x_0[:, None]) + Normal(
        math.sqrt(alpha_bar) * x_0, math.sqrt(1 - alpha_bar)
    ).log_prob(x_t)
    posterior = weights * log_joint.exp()
    close(mixture.log_prob(m, x_t, alpha_bar), posterior.sum(1).log(), 1e-10)
    posterior = posterior / posterior.sum(1, keepdim=True)
    mean = posterior @ x_0
    close(mixture.posterior_mean(m, x_t, alpha_bar)[:, 0], mean, 1e-10)
    close(mixture.minimum_mse(m, x_t, alpha_bar), posterior @ x_0**2 - mean**2, 1e-10)


@pytest.mark.parametrize("m", [random_mixture(4, 2), MIXED, POINTS])
@pytest.mark.parametrize("alpha_bar", [0.0, 1e-6, 0.3, 0.9])
def test_score_is_the_gradient_and_tweedie_holds(m: Mixture, alpha_bar: float) -> None:
    x = randn(5, 2, seed=8).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(m, x, alpha_bar).sum(), x)
    score, mean = mixture.score(m, x, alpha_bar), mixture.posterior_mean(m, x, alpha_bar)
    close(score, gradient)
    close(math.sqrt(alpha_bar) * mean, x + (1 - alpha_bar) * score)


@pytest.mark.parametrize("m", [random_mixture(4, 2), MIXED, POINTS])
@pytest.mark.parametrize("alpha_bar", [0.3, 0.9])
def test_minimum_mse_by_the_curvature_of_the_density(m: Mixture, alpha_bar: float) -> None:
    """Tweedie's second order: Cov = (1 - a)/a (I + (1 - a) Hessian of log q)."""
    x, noise = randn(3, 2, seed=8), 1 - alpha_bar
    curvature = [
        torch.autograd.functional.hessian(lambda y: mixture.log_prob(m, y[None], alpha_bar).sum(), row).trace()
        for row in x
    ]
    expected = noise / alpha_bar * (2 + noise * torch.stack(curvature))
    close(mixture.minimum_mse(m, x, alpha_bar), expected, 1e-10)


def test_two_points_make_a_hyperbolic_tangent() -> None:
    m = mixture.empirical(torch.tensor([[-1.0], [1.0]], dtype=F64))
    x = torch.linspace(-3, 3, 7, dtype=F64)[:, None]
    expected = torch.tanh(math.sqrt(0.3) * x / 0.7)
    close(mixture.posterior_mean(m, x, 0.3), expected)
    close(mixture.minimum_mse(m, x, 0.3), (1 - expected**2)[:, 0])


def test_pure_noise_tells_nothing_and_no_noise_all() -> None:
    m, x = random_mixture(4, 2), randn(5, 2, seed=8)
    mean = m.weights @ m.means
    total = m.weights @ (m.means**2).sum(1) - (mean**2).sum() + 2 * m.weights @ m.vars
    close(mixture.posterior_mean(m, x, 0.0), mean.expand(5, 2))
    close(mixture.minimum_mse(m, x, 0.0), total.expand(5))
    close(mixture.posterior_mean(m, x, 1.0), x)
    close(mixture.minimum_mse(m, x, 1.0), torch.zeros(5, dtype=F64))


@given(st.floats(-1e8, 1e8), st.floats(1e-3, 0.999))
def test_far_away_all_is_finite(x: float, alpha_bar: float) -> None:
    x_t = torch.tensor([[x, -x]], dtype=F64)
    for m in (POINTS, MIXED):
        for value in (
            mixture.log_prob(m, x_t, alpha_bar),
            mixture.score(m, x_t, alpha_bar),
            mixture.posterior_mean(m, x_t, alpha_bar),
            mixture.minimum_mse(m, x_t, alpha_bar),
        ):
            assert torch.isfinite(value).all()
        assert (mixture.minimum_mse(m, x_t, alpha_bar) >= 0).all()
    low, high = POINTS.means.amin(0), POINTS.means.amax(0)
    mean = mixture.posterior_mean(POINTS, x_t, alpha_bar)
    assert ((mean >= low - 1e-12) & (mean <= high + 1e-12)).all()


def test_far_away_the_nearest_direction_wins() -> None:
    """Between equal bells the log-odds are linear in x: at 10^4 sigma only the outermost point is left."""
    m = mixture.empirical(torch.tensor([[-1.0], [0.5], [1.0]], dtype=F64))
    x = torch.tensor([[-1e4], [1e4]], dtype=F64)
    close(mixture.posterior_mean(m, x, 0.5), torch.tensor([[-1.0], [1.0]], dtype=F64))
    expected = math.log(1 / 3) - 0.5 * (1e4 - math.sqrt(0.5)) ** 2 / 0.5 - 0.5 * math.log(2 * math.pi * 0.5)
    close(mixture.log_prob(m, x, 0.5), torch.full((2,), expected, dtype=F64))


def test_a_component_without_weight_does_not_count() -> None:
    weights = torch.tensor([0.4, 0.0, 0.6], dtype=F64)
    m = Mixture(weights, MIXED.means, MIXED.vars)
    keep = [0, 2]
    small, x = Mixture(weights[keep], m.means[keep], m.vars[keep]), randn(3, 2)
    for fn in (mixture.log_prob, mixture.score, mixture.posterior_mean, mixture.minimum_mse):
        close(fn(m, x, 0.4), fn(small, x, 0.4))


@pytest.mark.parametrize("fn", [mixture.log_prob, mixture.score, mixture.posterior_mean, mixture.minimum_mse])
def test_each_example_may_have_its_own_time(fn: Callable) -> None:
    x, times = randn(4, 2, seed=8), torch.tensor([0.0, 0.2, 0.7, 0.99], dtype=F64)
    together = fn(MIXED, x, times)
    for i, alpha_bar in enumerate(times):
        close(together[i : i + 1], fn(MIXED, x[i : i + 1], alpha_bar.item()))
        close(together[i : i + 1], fn(MIXED, x[i : i + 1], alpha_bar))


@pytest.mark.parametrize("fn", [mixture.log_prob, mixture.score, mixture.posterior_mean, mixture.minimum_mse])
def test_float32_data_are_computed_in_float64(fn: Callable) -> None:
    x = randn(4, 2, seed=8).float()
    result = fn(POINTS, x, 0.999)
    assert result.dtype == torch.float32
    assert torch.equal(result, fn(POINTS, x.double(), 0.999).float())
    single = Mixture(*(v.float() for v in (MIXED.weights, MIXED.means, MIXED.vars)))
    assert fn(single, x.double(), 0.3).dtype == F64


# ---- draws, data and denoisers ----


def test_samples_have_the_moments_of_each_component() -> None:
    m = Mixture(POINTS.weights, torch.tensor([[-50.0, 0], [0, 7], [50, 3]], dtype=F64), MIXED.vars)
    n = 30_000
    x = mixture.sample(m, n, generator=torch.Generator().manual_seed(1))
    assert x.shape == (n, 2)
    which = (x[:, 0] + 75).div(50, rounding_mode="floor").long()
    counts = which.bincount(minlength=3)
    deviation = (n * m.weights * (1 - m.weights)).sqrt()
    assert ((counts - n * m.weights).abs() <= 4.5 * deviation).all()
    same = torch.Generator().manual_seed(1)
    torch.multinomial(m.weights, n, replacement=True, generator=same)
    noise = torch.randn(n, 2, generator=same, dtype=F64)
    close(x, m.means[which] + m.vars[which].sqrt()[:, None] * noise)
    for k in range(3):
        own = x[which == k] - m.means[k]
        error = (m.vars[k] / len(own)).sqrt()
        assert (own.mean(0).abs() <= 4.5 * error + 1e-12).all()
        assert ((own**2).mean(0) - m.vars[k]).abs().le(4.5 * error * (2 * m.vars[k]).sqrt() + 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_empirical_is_the_data_as_points(dtype: torch.dtype) -> None:
    data = randn(1000, 3).to(dtype)
    m = mixture.empirical(data)
    assert torch.equal(m.means, data)
    assert torch.equal(m.vars, torch.zeros(1000, dtype=dtype))
    assert torch.equal(m.weights, torch.full((1000,), 1 / 1000, dtype=dtype))
    near = mixture.posterior_mean(m, math.sqrt(0.999999) * data[:7], 0.999999)
    torch.testing.assert_close(near, data[:7])
    drawn = mixture.sample(m, 5, generator=torch.Generator().manual_seed(0))
    assert ((drawn[:, None] == data).all(2).sum(1) == 1).all()


def test_denoiser_gathers_the_time_of_each_example() -> None:
    schedule = SimpleNamespace(alpha_bar=torch.tensor([1.0, 0.8, 0.5, 0.1], dtype=F64))
    x, t = randn(4, 2, seed=8).float(), torch.tensor([3, 1, 2, 1])
    result = mixture.as_denoiser(MIXED, schedule)(x, t)
    assert result.dtype == torch.float32
    expected = [mixture.posterior_mean(MIXED, x[i : i + 1], [1.0, 0.8, 0.5, 0.1][t[i]]) for i in range(4)]
    close(result, torch.cat(expected))


def test_denoiser_of_images_keeps_their_shape() -> None:
    schedule = SimpleNamespace(alpha_bar=torch.tensor([1.0, 0.8], dtype=F64))
    data, x, t = randn(5, 4), randn(3, 1, 2, 2, seed=3), torch.ones(3, dtype=torch.int64)
    m = mixture.empirical(data)
    result = mixture.as_denoiser(m, schedule)(x, t)
    close(result, mixture.posterior_mean(m, x.flatten(1), 0.8).view(3, 1, 2, 2))


# ---- bad input ----

WEIGHTS, MEANS, VARS = torch.full((2,), 0.5), torch.zeros(2, 3), torch.ones(2)
BAD = {
    "the sum of weights was .*; it must be 1": (WEIGHTS * 1.01, MEANS, VARS),
    "weights was -0.5; it must be >= 0": (torch.tensor([-0.5, 1.5]), MEANS, VARS),
    "weights was nan; it must be finite": (WEIGHTS * math.nan, MEANS, VARS),
    "means was inf; it must be finite": (WEIGHTS, MEANS + math.inf, VARS),
    "vars was -1.0; it must be >= 0": (WEIGHTS, MEANS, -VARS),
    r"the shape of weights was \(3,\); it must be \(2\)": (torch.full((3,), 1 / 3), MEANS, VARS),
    r"the shape of vars was \(2, 1\); it must be \(2\)": (WEIGHTS, MEANS, VARS[:, None]),
    r"the shape of means was \(2,\); it must be \(any, any\)": (WEIGHTS, MEANS[:, 0], VARS),
    r"the shape of means was \(0, 3\); it must be \(K, D\) with K, D >= 1": (WEIGHTS[:0], MEANS[:0], VARS[:0]),
    r"the dtype of means was torch.int64; it must be a floating-point": (WEIGHTS, MEANS.long(), VARS),
    r"the dtype of vars was torch.float64; it must be torch.float32": (WEIGHTS, MEANS, VARS.double()),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_mixture_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(*BAD[message])


FUNCTIONS = [("", mixture.log_prob), ("_t", mixture.posterior_mean), ("_t", mixture.score), ("_t", mixture.minimum_mse)]


@given(st.floats().filter(lambda a: not 0 <= a <= 1))
@example(1.5)
@example(-0.5)
def test_alpha_bar_out_of_range_is_named(alpha_bar: float) -> None:
    x = torch.zeros(2, 2, dtype=F64)
    for suffix, fn in FUNCTIONS:
        with pytest.raises(ValueError, match=rf"alpha_bar{suffix} was .*; it must be in \[0, 1\]"):
            fn(MIXED, x, alpha_bar)
        with pytest.raises(ValueError, match=rf"alpha_bar{suffix} was .*; it must be (in \[0, 1\]|finite)"):
            fn(MIXED, x, torch.full((2,), alpha_bar, dtype=F64))


@pytest.mark.parametrize(("suffix", "fn"), FUNCTIONS)
def test_other_bad_input_is_named(suffix: str, fn: Callable) -> None:
    x, alpha_bar = torch.zeros(2, 2, dtype=F64), f"alpha_bar{suffix}"
    for bad, message in (
        (torch.zeros(3), rf"the shape of {alpha_bar} was \(3,\); it must be \(\) or \(2,\)"),
        (torch.zeros(1), rf"the shape of {alpha_bar} was \(1,\); it must be \(\) or \(2,\)"),
        (torch.zeros(2, 1), rf"the shape of {alpha_bar} was \(2, 1\); it must be \(\) or \(2,\)"),
        (torch.zeros(2, dtype=torch.int64), rf"the dtype of {alpha_bar} was torch.int64; it must be a floating-point"),
        (1, r"the variance of x_t in a component was 0.0; it must be > 0: a point needs"),
    ):
        with pytest.raises(ValueError, match=message):
            fn(MIXED, x, bad)
    for bad, message in (
        (torch.zeros(2, 3), rf"the shape of x{suffix} was \(2, 3\); it must be \(any, 2\)"),
        (x.long(), rf"the dtype of x{suffix} was torch.int64; it must be a floating-point"),
        (x * math.nan, rf"x{suffix} was nan; it must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            fn(MIXED, bad, 0.5)


@given(st.integers(-5, 9).filter(lambda t: not 1 <= t <= 3))
def test_a_time_outside_the_schedule_is_named(t: int) -> None:
    denoise = mixture.as_denoiser(MIXED, SimpleNamespace(alpha_bar=torch.tensor([1.0, 0.8, 0.5, 0.1], dtype=F64)))
    with pytest.raises(ValueError, match=rf"t was {t}; it must be in 1..3"):
        denoise(torch.zeros(2, 2), torch.tensor([1, t]))


def test_a_bad_time_or_data_set_is_named() -> None:
    denoise = mixture.as_denoiser(MIXED, SimpleNamespace(alpha_bar=torch.tensor([1.0, 0.8], dtype=F64)))
    with pytest.raises(ValueError, match=r"the shape of t was \(1,\); it must be \(2\)"):
        denoise(torch.zeros(2, 2), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"the dtype of t was torch.float32; it must be torch.int64"):
        denoise(torch.zeros(2, 2), torch.ones(2))
    with pytest.raises(ValueError, match=r"the number of rows of data was 0; it must be >= 1"):
        mixture.empirical(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"the shape of data was \(3,\); it must be \(any, any\)"):
        mixture.empirical(torch.zeros(3))
    with pytest.raises(ValueError, match=r"the dtype of data was torch.uint8; it must be a floating-point"):
        mixture.empirical(torch.zeros(3, 2, dtype=torch.uint8))


def test_blocks_of_components_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(30)
    weights, means, x = (torch.randn(*shape, generator=generator, dtype=F64) for shape in ((9,), (9, 3), (5, 3)))
    weights[:4] = -math.inf  # the first blocks have no weight at all
    m = Mixture(weights.softmax(0), means, means[:, 0] ** 2)
    fns = (mixture.posterior_mean, mixture.score, mixture.minimum_mse, mixture.log_prob)
    whole = [fn(m, x, 0.3) for fn in fns]
    monkeypatch.setattr(mixture, "BLOCK", 2 * x.numel())
    for fn, expected in zip(fns, whole):
        torch.testing.assert_close(fn(m, x, 0.3), expected, rtol=1e-12, atol=1e-12)
    assert len(list(mixture._blocks(m, x, 0.3, "alpha_bar", "x"))) == 5
    slopes = vmap(grad(lambda x: mixture.log_prob(m, x[None], 0.3)[0]))(x)
    torch.testing.assert_close(slopes, mixture.score(m, x, 0.3), rtol=1e-12, atol=1e-12)


def test_a_large_data_set_needs_little_memory_at_a_time() -> None:
    """No tensor over components is larger than a block, whatever their number."""
    m = mixture.empirical(torch.zeros(2000, 784))
    x = torch.zeros(16, 784)
    assert max(d.residual.numel() for d in mixture._blocks(m, x, 0.5, "alpha_bar", "x")) <= mixture.BLOCK
    assert torch.equal(mixture.posterior_mean(m, x, 0.5), x)


def test_a_mixture_in_half_precision() -> None:
    data = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float16)
    assert mixture.posterior_mean(mixture.empirical(data), data, 0.9).dtype == torch.float16
    draws = mixture.sample(mixture.empirical(data), 3000, generator=torch.Generator().manual_seed(31))
    assert all(900 < (draws == value).sum() < 1100 for value in data)
