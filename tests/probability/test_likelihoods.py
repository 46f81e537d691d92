"""Decoder distributions against scipy, torch.distributions, enumeration and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

from dmlib.probability import likelihoods, stable

F64 = torch.float64


def close(actual: Tensor, expected: Tensor | np.ndarray, tol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=tol, atol=tol)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def randint(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


# ---- Bernoulli, binomial, categorical, Gaussian ----


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.uint8, torch.int64, torch.bool])
def test_bernoulli_is_that_of_torch(dtype: torch.dtype) -> None:
    logits, x = 3 * randn(4, 2, 3), randint(2, 4, 2, 3)
    close(likelihoods.bernoulli(logits, x.to(dtype)), Bernoulli(logits=logits).log_prob(x.double()).sum((1, 2)))


def test_bernoulli_of_extreme_logits() -> None:
    logits = torch.tensor([-1000.0, -1000.0, 1000.0, 1000.0], requires_grad=True)
    result = likelihoods.bernoulli(logits, torch.tensor([0, 1, 0, 1]))
    assert result.tolist() == [0, -1000, -1000, 0]
    result.sum().backward()
    assert logits.grad.tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize("n", [1, 16, 255])
def test_binomial_is_that_of_scipy(n: int) -> None:
    logits, counts = 3 * randn(5, 4), randint(n + 1, 5, 4)
    expected = scipy.stats.binom.logpmf(counts.numpy(), n, logits.sigmoid().numpy()).sum(1)
    close(likelihoods.binomial(logits, counts, n), expected, 1e-11)  # scipy's own lgamma
    close(likelihoods.binomial(logits, counts.to(torch.uint8), n), likelihoods.binomial(logits, counts.double(), n))
    every = likelihoods.binomial(torch.full((n + 1,), -0.7, dtype=F64), torch.arange(n + 1), n)
    close(every.logsumexp(0), torch.zeros((), dtype=F64))


def test_binomial_of_one_trial_is_bernoulli_and_float32_is_accurate() -> None:
    logits, x = randn(3, 2), randint(2, 3, 2)
    close(likelihoods.binomial(logits, x, 1), likelihoods.bernoulli(logits, x))
    k = torch.arange(256)
    single = likelihoods.binomial(torch.zeros(256), k, 255)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), likelihoods.binomial(torch.zeros(256, dtype=F64), k, 255))


@pytest.mark.parametrize("event", [(), (3,), (1, 2, 2)])
def test_categorical_is_that_of_torch(event: tuple[int, ...]) -> None:
    logits, x = 3 * randn(4, *event, 5), randint(5, 4, *event)
    expected = Categorical(logits=logits).log_prob(x).reshape(4, -1).sum(1)
    close(likelihoods.categorical(logits, x), expected)
    close(likelihoods.categorical(logits + 1000, x.to(torch.uint8)), expected, 1e-11)


def test_gaussian_is_that_of_torch() -> None:
    mean, log_var, x = randn(4, 3), randn(4, 3, seed=1), randn(4, 3, seed=2)
    close(likelihoods.gaussian(mean, log_var, x), Normal(mean, (log_var / 2).exp()).log_prob(x).sum(1))
    one = torch.tensor(-1.3, dtype=F64)
    close(likelihoods.gaussian(mean, one, x), likelihoods.gaussian(mean, one.expand_as(mean), x))
    assert likelihoods.gaussian(mean.float(), one, x.float()).dtype == torch.float32


# ---- the continuous Bernoulli ----

LOGITS = [0.0, 1e-300, 1e-9, -1e-4, 0.1999999, 0.2000001, -0.3, 2.0, -5.0, 30.0, -300.0]


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_normalizes_by_quadrature(logit: float) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x, weights = (nodes + 1) / 2, weights / 2
    largest = max(logit, 0)
    log_normalizer = largest + math.log(weights @ np.exp(logit * x - largest))
    result = likelihoods.continuous_bernoulli(torch.full((200,), logit, dtype=F64), torch.tensor(x))
    close(result, logit * x - log_normalizer)
    close((result.exp() * torch.tensor(weights)).sum(), torch.ones((), dtype=F64))


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_gradient_is_x_minus_the_mean(logit: float) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = (nodes + 1) / 2
    tilted = weights * np.exp(logit * x - max(logit, 0))
    logits = torch.tensor([logit], dtype=F64, requires_grad=True)
    likelihoods.continuous_bernoulli(logits, torch.tensor([0.3], dtype=F64)).backward()
    close(logits.grad, np.array([0.3 - (tilted @ x) / tilted.sum()]))


def test_continuous_bernoulli_of_extreme_logits_is_finite_in_float32() -> None:
    logits = torch.tensor([-1e4, -1e-4, 0.0, 1e-4, 1e4], requires_grad=True)
    result = likelihoods.continuous_bernoulli(logits, torch.tensor([0.0, 0.5, 0.5, 0.5, 1.0]))
    torch.testing.assert_close(result, torch.tensor([math.log(1e4), 0, 0, 0, math.log(1e4)]), atol=1e-3, rtol=1e-4)
    result.sum().backward()
    assert torch.isfinite(logits.grad).all()


# ---- the discretized Gaussian ----


def bin_mass(mean: float, std: float, k: int, levels: int) -> float:
    """The log of an inner bin's mass by quadrature, relative to the density at its edge nearest the mean."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    near, far = sorted(abs(((2 * k + s) / (levels - 1) - 1 - mean) / std) for s in (-1, 1))
    u = (nodes + 1) / 2 * (far - near)
    inside = weights @ np.exp(-near * u - u**2 / 2) / 2 * (far - near)
    return -(near**2) / 2 - math.log(2 * math.pi) / 2 + math.log(inside)


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("log_scale", [-60.0, -8.0, -4.0, -1.0, 0.5, 3.0, 12.0, 40.0])
def test_discretized_gaussian_masses_sum_to_one(levels: int, log_scale: float) -> None:
    means = torch.tensor([-3.0, -1.0, -0.123, 0.0, 0.9, 1.5], dtype=F64)
    mean, x = means.repeat_interleave(levels), torch.arange(levels).repeat(len(means))
    result = likelihoods.discretized_gaussian(mean, torch.tensor(log_scale, dtype=F64), x, levels)
    assert torch.isfinite(result).all()
    # Narrow bins count as density times width, so that 256 of them add up to 1e-11.
    close(result.view(-1, levels).logsumexp(1), torch.zeros(len(means), dtype=F64), 1e-11)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discretized_gaussian_is_a_difference_of_distribution_functions(levels: int) -> None:
    mean, log_scale, x = 0.5 * randn(50, 3), randn(50, 3, seed=1) / 2 - 0.5, randint(levels, 50, 3)
    edges = np.r_[-np.inf, (2 * np.arange(1, levels) - 1) / (levels - 1) - 1, np.inf]
    law, low, high = scipy.stats.norm(mean.numpy(), np.exp(log_scale.numpy())), edges[x], edges[x + 1]
    upper_tail = low > mean.numpy()
    expected = np.log(np.where(upper_tail, law.sf(low) - law.sf(high), law.cdf(high) - law.cdf(low))).sum(1)
    close(likelihoods.discretized_gaussian(mean, log_scale, x, levels), expected, 1e-11)  # scipy's side cancels


@given(st.floats(-4, 4), st.floats(-5, 8), st.integers(1, 254))
def test_discretized_gaussian_inner_bins_by_quadrature(mean: float, log_scale: float, k: int) -> None:
    center = 2 * k / 255 - 1
    offset = max(abs(mean - center), 1.0001 / 255)  # the quadrature wants the bin on one side of the mean
    mean = center + math.copysign(offset, mean - center)
    params = torch.tensor([mean], dtype=F64), torch.tensor([log_scale], dtype=F64)
    result = likelihoods.discretized_gaussian(*params, torch.tensor([k]))
    expected = torch.tensor([bin_mass(mean, math.exp(log_scale), k, 256)], dtype=F64)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("sigmas", [10.0, 50.0, 1000.0])
def test_discretized_gaussian_far_in_the_tail(sign: int, sigmas: float) -> None:
    """Inner bins by quadrature; the end bins by scipy's log distribution function."""
    std, k = 0.01, 128
    center = 2 * k / 255 - 1
    mean = torch.tensor([center + sign * sigmas * std], dtype=F64, requires_grad=True)
    log_scale = torch.tensor([math.log(std)], dtype=F64, requires_grad=True)
    result = likelihoods.discretized_gaussian(mean, log_scale, torch.tensor([k]))
    close(result.detach(), torch.tensor([bin_mass(mean.item(), std, k, 256)], dtype=F64), 1e-11)
    result.backward()
    # d log mass / d mean: about -offset/std^2, and certainly between that of the bin's two edges
    distance = sigmas - torch.tensor([0.5, -0.5]) * 2 / 255 / std
    assert distance[0] <= -sign * mean.grad.item() * std <= distance[1] + 1 / sigmas
    assert math.isfinite(log_scale.grad.item())
    far = torch.tensor([-sign * (1 + sigmas * std)], dtype=F64)
    end = torch.tensor([255 if sign > 0 else 0])
    expected = scipy.stats.norm.logcdf(-(2 + sigmas * std - 1 / 255) / std)
    close(likelihoods.discretized_gaussian(far, log_scale.detach(), end), np.array([expected]))


def test_discretized_gaussian_gradcheck() -> None:
    mean = torch.tensor([-1.2, -0.31, 0.0, 0.004, 0.7, 1.4, 0.2], dtype=F64, requires_grad=True)
    log_scale = torch.tensor([-1.0, -3.0, -0.5, 0.0, -2.0, 1.0, 8.0], dtype=F64, requires_grad=True)
    x = torch.tensor([0, 5, 8, 8, 11, 16, 3])
    assert torch.autograd.gradcheck(lambda m, s: likelihoods.discretized_gaussian(m, s, x, 17), (mean, log_scale))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_discretized_gaussian_gradient_is_finite_everywhere(dtype: torch.dtype) -> None:
    means = torch.linspace(-3, 3, 13, dtype=dtype)
    scales = torch.tensor([-12.0, -8.0, -4.0, 0.0, 4.0, 12.0, 40.0], dtype=dtype)
    x = torch.tensor([0, 1, 127, 128, 254, 255])
    mean, log_scale, x = (v.flatten() for v in torch.meshgrid(means, scales, x.to(dtype), indexing="ij"))
    mean, log_scale = mean.clone().requires_grad_(), log_scale.clone().requires_grad_()
    result = likelihoods.discretized_gaussian(mean, log_scale, x.long())
    result.sum().backward()
    assert result.dtype == dtype
    for value in (result, mean.grad, log_scale.grad):
        assert torch.isfinite(value).all()


def test_discretized_gaussian_takes_one_scale_and_bytes() -> None:
    mean, x, scale = randn(3, 2) / 2, randint(256, 3, 2), torch.tensor(-2.0, dtype=F64)
    full = likelihoods.discretized_gaussian(mean, scale.expand(3, 2), x)
    close(likelihoods.discretized_gaussian(mean, scale, x.to(torch.uint8)), full)


# ---- levels and the unit interval ----


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_levels_go_to_the_interval_and_back(levels: int, dtype: torch.dtype) -> None:
    k = torch.arange(levels).to(dtype)
    x = likelihoods.to_unit(k, levels)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.tensor(np.linspace(-1, 1, levels), dtype=torch.float32))
    assert likelihoods.to_unit(k, levels, dtype=F64).dtype == F64
    back = likelihoods.to_levels(x, levels)
    assert back.dtype == torch.int64
    assert torch.equal(back, k.long())


def test_to_levels_rounds_and_clamps() -> None:
    x = torch.tensor([-7.0, -1.0, -0.6, -0.4, 0.0, 0.4, 0.6, 1.0, 7.0])
    assert likelihoods.to_levels(x, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


# ---- bad input ----

X = torch.zeros(2, 3)
K = torch.zeros(2, 3, dtype=torch.int64)
LIKELIHOODS = {  # each called with its parameters and x
    "bernoulli": (likelihoods.bernoulli, X, K),
    "binomial": (lambda p, x: likelihoods.binomial(p, x, 4), X, K),
    "continuous_bernoulli": (likelihoods.continuous_bernoulli, X, X),
    "gaussian": (lambda p, x: likelihoods.gaussian(p, X, x), X, X),
    "gaussian scale": (lambda p, x: likelihoods.gaussian(X, p, x), X, X),
    "discretized": (lambda p, x: likelihoods.discretized_gaussian(p, X, x, 5), X, K),
    "discretized scale": (lambda p, x: likelihoods.discretized_gaussian(X, p, x, 5), X, K),
    "categorical": (lambda p, x: likelihoods.categorical(p[..., None].expand(2, 3, 5), x), X, K),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_parameters_are_finite_floats(name: str, bad: float) -> None:
    fn, params, x = LIKELIHOODS[name]
    assert fn(params, x).shape == (2,)
    with pytest.raises(ValueError, match=f"(logits|mean|log_var|log_scale) was {bad}; it must be finite"):
        fn(params + bad, x)
    with pytest.raises(ValueError, match=r"the dtype of (logits|mean|log_var|log_scale) was torch.int64; it must be"):
        fn(params.long(), x)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(3,), (2,), (2, 1), (1, 3), (2, 3, 1), (1, 2, 3)])
def test_no_shape_of_x_broadcasts(name: str, shape: tuple[int, ...]) -> None:
    fn, params, x = LIKELIHOODS[name]
    must = rf"the shape of (x|counts|x_levels) was \({', '.join(map(str, shape))},?\); it must be \(2, 3\)"
    with pytest.raises(ValueError, match=must):
        fn(params, torch.zeros(shape, dtype=x.dtype))


@pytest.mark.parametrize("fn", [likelihoods.gaussian, likelihoods.discretized_gaussian])
def test_a_scale_is_one_number_or_like_the_mean(fn: Callable) -> None:
    x = X if fn is likelihoods.gaussian else K
    for shape in [(1,), (3,), (2, 1), (2, 3, 1)]:
        with pytest.raises(ValueError, match=r"the shape of log_(var|scale) was .*; it must be \(\) or \(2, 3\)"):
            fn(X, torch.zeros(shape), x)
    with pytest.raises(ValueError, match=r"the dtype of log_(var|scale) was torch.float64; it must be torch.float32"):
        fn(X, X.double(), x)


@given(st.floats(-9, 9).filter(lambda v: v not in (0, 1)))
def test_bernoulli_takes_binary_x_only(value: float) -> None:
    with pytest.raises(ValueError, match=r"x was .*; it must be a whole number in 0..1"):
        likelihoods.bernoulli(torch.zeros(1), torch.tensor([value], dtype=F64))


@given(st.integers(-300, 300).filter(lambda k: not 0 <= k < 5))
def test_levels_out_of_range_are_named(k: int) -> None:
    match = rf"(x|counts|x_levels) was {k}; it must be a whole number in 0..4"
    for name in ("binomial", "discretized", "categorical"):
        fn, params, x = LIKELIHOODS[name]
        with pytest.raises(ValueError, match=match):
            fn(params, torch.full_like(x, k))
    with pytest.raises(ValueError, match=match):
        likelihoods.to_unit(torch.tensor([k]), 5)


def test_other_bad_input_is_named() -> None:
    for fn in (LIKELIHOODS["discretized"][0], LIKELIHOODS["categorical"][0]):
        with pytest.raises(ValueError, match=r"the dtype of (x|x_levels) was torch.float32; it must be an integer"):
            fn(X, X)
    with pytest.raises(ValueError, match=r"the dtype of x_levels was torch.float32; it must be an integer dtype"):
        likelihoods.to_unit(X, 5)
    with pytest.raises(ValueError, match=r"counts was 0.5; it must be a whole number in 0..4"):
        likelihoods.binomial(X, X + 0.5, 4)
    for value in (-0.01, 1.01):
        with pytest.raises(ValueError, match=r"x was -?\d.*; it must be in \[0, 1\]"):
            likelihoods.continuous_bernoulli(X, X + value)
    for n in (0, -1):
        with pytest.raises(ValueError, match=rf"n was {n}; it must be an integer, 1 or more"):
            likelihoods.binomial(X, K, n)
    for levels in (1, 0):
        with pytest.raises(ValueError, match=rf"levels was {levels}; it must be an integer, 2 or more"):
            likelihoods.to_levels(X, levels)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"x was {bad}; it must be finite"):
            likelihoods.to_levels(X + bad, 5)
    with pytest.raises(ValueError, match=r"the shape of logits was \(3,\); it must be \(B, \*event, V\)"):
        likelihoods.categorical(torch.zeros(3), torch.tensor(0))
    with pytest.raises(ValueError, match=r"the shape of logits was \(\); it must be \(B, \*event\)"):
        likelihoods.bernoulli(torch.zeros(()), torch.tensor(0))


def test_bins_far_narrower_than_the_bell_have_density_times_width():
    """The difference of the edges would cancel: the tolerance is a tenth of what it would lose."""
    mean, log_scale = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor(11.0, dtype=torch.float64)
    found = likelihoods.discretized_gaussian(mean, log_scale, torch.tensor([[100]]), 256).item()
    z = (2 * 100 / 255 - 1 - 0.3) * math.exp(-11)
    expected = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) + math.log(2 / 255) - 11
    assert abs(found - expected) < 1e-13


def test_categories_of_an_event_of_many_dimensions_are_summed_one_by_one():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    x = torch.randint(5, (3, 2, 4), generator=generator)
    each = [sum(logits[b, i, j].log_softmax(0)[x[b, i, j]] for i in range(2) for j in range(4)) for b in range(3)]
    torch.testing.assert_close(likelihoods.categorical(logits, x), torch.stack(each), atol=1e-12, rtol=0)


# ---- near the ends of the dtype ----


def with_slopes(fn: Callable, *leaves: Tensor) -> list[float]:
    """The value and the gradients, as numbers."""
    leaves = [leaf.requires_grad_() for leaf in leaves]
    result = fn(*leaves).sum()
    return [result.item(), *(g.item() for g in torch.autograd.grad(result, leaves))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, F64])
@pytest.mark.parametrize("log_var", [-5000.0, -300.0, -90.0, 90.0])
def test_a_residual_of_zero_stays_zero_at_any_variance(log_var: float, dtype: torch.dtype) -> None:
    x = torch.zeros(1, dtype=dtype)
    value, of_log_var, of_mean = with_slopes(
        lambda log_var, mean: likelihoods.gaussian(mean, log_var, x), torch.tensor([log_var], dtype=dtype), x.clone()
    )
    expected = -0.5 * (log_var + math.log(2 * math.pi))
    assert (of_log_var, of_mean) == (-0.5, 0)
    assert math.isclose(value, expected, rel_tol=2 * torch.finfo(dtype).eps)


def test_a_residual_is_scaled_before_it_is_squared() -> None:
    mean, x = torch.zeros(1, dtype=torch.float16), torch.full((1,), 300.0, dtype=torch.float16)
    value = likelihoods.gaussian(mean, torch.full((1,), 10.0, dtype=torch.float16), x).item()
    assert math.isclose(value, -0.5 * (300**2 / math.exp(10) + 10 + math.log(2 * math.pi)), rel_tol=2e-3)


@pytest.mark.parametrize(("log_scale", "slope"), [(-18, -4.29432e15), (-20, -2.34462e17), (-25, -5.16437e21)])
def test_the_slope_of_an_end_bin_far_in_the_tail(log_scale: float, slope: float) -> None:
    """u exp(-2 s) with u = 1/255 - 1: the rest of d log Phi(x) = -x + O(1/x) is below one part in 10^13."""
    for level, sign in ((0, 1), (255, -1)):
        mean, levels = torch.zeros(1, dtype=F64), torch.tensor([level])
        _, of_mean = with_slopes(
            partial(likelihoods.discretized_gaussian, log_scale=torch.tensor(float(log_scale)), x_levels=levels), mean
        )
        assert math.isclose(of_mean, sign * slope, rel_tol=1e-5)
        assert math.isclose(of_mean, sign * (1 / 255 - 1) * math.exp(-2 * log_scale), rel_tol=1e-12)


def test_the_slope_of_log_phi_is_that_of_the_inverse_mills_ratio() -> None:
    """phi(x) / Phi(x) = sqrt(2 / pi) / erfcx(-x / sqrt 2), from SciPy."""
    x = torch.cat([-torch.logspace(8, -3, 200, dtype=F64), torch.logspace(-3, 1, 50, dtype=F64)]).requires_grad_()
    stable.log_ndtr(x).sum().backward()
    ratio = math.sqrt(2 / math.pi) / scipy.special.erfcx(-x.detach().numpy() / math.sqrt(2))
    close(x.grad / torch.tensor(ratio), torch.ones_like(x), 1e-12)
    close(stable.log_ndtr(x.detach()), scipy.special.log_ndtr(x.detach().numpy()))


@pytest.mark.parametrize("log_scale", [-1e4, -1e3, -800.0, 800.0, 1e4])
def test_bins_of_any_scale_are_finite_where_their_mass_is(log_scale: float) -> None:
    """All mass in the level at the mean, or log(spacing / sqrt(2 pi)) - log_scale inside and half of it at the ends."""
    for level, wide in ((0, math.log(0.5)), (1, -log_scale - 0.5 * math.log(2 * math.pi)), (2, math.log(0.5))):
        mean = torch.full((1,), level - 1.0, dtype=F64)
        at = torch.zeros_like(mean) if log_scale > 0 else mean
        value, *slopes = with_slopes(
            lambda m, s, level=level: likelihoods.discretized_gaussian(m, s, torch.tensor([level]), 3),
            at,
            torch.tensor([log_scale], dtype=F64),
        )
        assert math.isclose(value, wide if log_scale > 0 else 0.0, rel_tol=1e-12, abs_tol=1e-300)
        assert slopes == [0, -1 if log_scale > 0 and level == 1 else 0]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(("x", "logits"), [(1.0, 1e6), (0.0, -1e6), (1.0, 1e30), (0.0, -50.0)])
def test_continuous_bernoulli_at_the_end_where_it_is_high(x: float, logits: float, dtype: torch.dtype) -> None:
    """log L - log(1 - exp(-L)), of slope 1/L - 1/(exp(L) - 1)."""
    value, slope = with_slopes(
        lambda leaf: likelihoods.continuous_bernoulli(leaf, torch.tensor([x], dtype=dtype)),
        torch.tensor([logits], dtype=dtype),
    )
    eps = 4 * torch.finfo(dtype).eps
    assert math.isclose(value, math.log(abs(logits)) - math.log1p(-math.exp(-abs(logits))), rel_tol=eps)
    assert math.isclose(slope, 1 / logits, rel_tol=eps)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.int8, torch.int16, torch.int32])
def test_levels_of_any_integer_dtype(dtype: torch.dtype) -> None:
    mean, levels = randn(2, 5), torch.arange(10).view(2, 5)
    same = levels.to(dtype)
    close(likelihoods.to_unit(same, 256), likelihoods.to_unit(levels, 256))
    for fn in (
        lambda x: likelihoods.discretized_gaussian(mean, mean, x),
        lambda x: likelihoods.binomial(mean, x, 9),
        lambda x: likelihoods.bernoulli(mean, (x.long() % 2).to(dtype)),
        lambda x: likelihoods.categorical(randn(2, 5, 10), x),
    ):
        close(fn(same), fn(levels))
