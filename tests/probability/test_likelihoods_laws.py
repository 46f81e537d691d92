"""Means and draws of the decoder distributions against their own log-probabilities."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from dmlib.probability import likelihoods


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# One example a row: the likelihood, its parameters [N] or [N,V], and the number of levels.
DISCRETE = {
    "bernoulli": (likelihoods.bernoulli, (f64(-2.0, 0.0, 3.0),), 2),
    "binomial": (partial(likelihoods.binomial, n=16), (f64(-2.0, 0.3, 40.0),), 17),
    "discretized-17": (
        partial(likelihoods.discretized_gaussian, levels=17),
        (f64(-1.2, 0.11, 0.9), f64(-2.0, -1.0, 0.5)),
        17,
    ),
    "discretized-256": (likelihoods.discretized_gaussian, (f64(-0.999, 0.11, 3.0), f64(-5.0, -7.0, -1.0)), 256),
    "categorical": (likelihoods.categorical, (f64(*range(12)).sin().view(3, 4) * 2,), 4),
}
CONTINUOUS = {
    "continuous-bernoulli": (
        likelihoods.continuous_bernoulli,
        (f64(-700.0, -30.0, -0.39, -0.21, -1e-9, 0.0, 0.19, 2.0, 30.0, 700.0),),
        (0.0, 1.0),
    ),
    "gaussian": (likelihoods.gaussian, (f64(-1.0, 0.5), f64(-2.0, 1.0)), (-16.0, 16.0)),
}


def masses(name: str) -> torch.Tensor:
    """The probability of every level, [N, levels]."""
    likelihood, params, levels = DISCRETE[name]
    n = len(params[0])
    return torch.stack([likelihood(*params, torch.full((n,), k)) for k in range(levels)], 1).exp()


def quadrature(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Points in each row and their probabilities, [N, points], by Gauss-Legendre on 400 panels that crowd the ends."""
    likelihood, params, (low, high) = CONTINUOUS[name]
    nodes, weights = np.polynomial.legendre.leggauss(12)
    panels = low + (high - low) * 0.5 * (1 - np.cos(np.linspace(0, np.pi, 401)))
    centers, halves = (panels[1:] + panels[:-1]) / 2, np.diff(panels) / 2
    x = torch.tensor((centers[:, None] + halves[:, None] * nodes).ravel()).expand(len(params[0]), -1)
    density = likelihood(*(p.repeat_interleave(x.shape[1]) for p in params), x.flatten()).view(x.shape).exp()
    return x, density * torch.tensor((halves[:, None] * weights).ravel())


@pytest.mark.parametrize("name", DISCRETE)
def test_mean_is_the_sum_over_levels(name: str) -> None:
    likelihood, params, levels = DISCRETE[name]
    expected = masses(name) @ torch.arange(levels, dtype=torch.float64)
    torch.testing.assert_close(likelihoods.mean(likelihood, *params), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_mean_is_the_integral(name: str) -> None:
    likelihood, params, _ = CONTINUOUS[name]
    x, probability = quadrature(name)
    expected = (x * probability).sum(1)
    torch.testing.assert_close(likelihoods.mean(likelihood, *params), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", DISCRETE)
def test_draws_have_the_probabilities_of_the_levels(name: str) -> None:
    likelihood, params, levels = DISCRETE[name]
    repeats, n = 20_000, len(params[0])
    many = (p[:, None].expand(n, repeats, *p.shape[1:]) for p in params)
    x = likelihoods.draw(likelihood, *many, generator=torch.Generator().manual_seed(1))
    assert x.shape == (n, repeats)
    assert x.dtype == torch.int64
    counts = torch.stack([(x == k).sum(1) for k in range(levels)], 1)
    assert (counts.sum(1) == repeats).all()
    p = masses(name)
    likely = repeats * p > 10  # where a count is close to normal; the rest is seen as one level
    z = (counts - repeats * p) / (repeats * p * (1 - p)).sqrt().clamp(min=1)
    assert (z[likely].abs() <= 4.5).all()
    rest, rest_p = (counts * ~likely).sum(1), repeats * (p * ~likely).sum(1)
    assert ((rest - rest_p).abs() <= 4.5 * rest_p.sqrt() + 4.5).all()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_draws_have_the_distribution_function_of_the_density(name: str) -> None:
    likelihood, params, _ = CONTINUOUS[name]
    repeats, n = 20_000, len(params[0])
    many = (p[:, None].expand(n, repeats) for p in params)
    draws = likelihoods.draw(likelihood, *many, generator=torch.Generator().manual_seed(2))
    x, probability = quadrature(name)
    below = probability.cumsum(1)
    for level in (0.05, 0.3, 0.6, 0.97):
        place = (below < level).sum(1, keepdim=True)
        share = (draws <= x.gather(1, place)).double().mean(1)
        expected = below.gather(1, place)[:, 0]
        # A node's own weight belongs half to each of its sides: 0.02 bounds it for the steepest density here.
        bound = 4.5 * (expected * (1 - expected) / repeats).sqrt() + probability.gather(1, place)[:, 0]
        assert ((share - expected).abs() <= bound).all()
        assert (probability.gather(1, place) < 0.02).all()


def test_float32_continuous_bernoulli_stays_in_the_unit_interval() -> None:
    logits = torch.tensor([-1e4, -88.0, -1e-6, 0.0, 1e-6, 88.0, 1e4])[:, None].expand(-1, 1000)
    x = likelihoods.draw(likelihoods.continuous_bernoulli, logits, generator=torch.Generator().manual_seed(3))
    assert x.dtype == torch.float32
    assert ((x >= 0) & (x <= 1)).all()
    means = likelihoods.mean(likelihoods.continuous_bernoulli, logits)[:, 0]
    torch.testing.assert_close(means, torch.tensor([1e-4, 1 / 88, 0.5, 0.5, 0.5, 1 - 1 / 88, 1 - 1e-4]))


def test_one_number_may_be_the_scale() -> None:
    mean, g = torch.zeros(3, 2), torch.Generator().manual_seed(4)
    assert likelihoods.draw(likelihoods.gaussian, mean, torch.tensor(0.0), generator=g).shape == (3, 2)
    assert likelihoods.draw(likelihoods.discretized_gaussian, mean, torch.tensor(0.0), generator=g).shape == (3, 2)
    assert likelihoods.mean(likelihoods.discretized_gaussian, mean, torch.tensor(0.0)).shape == (3, 2)


def test_categories_are_the_last_dimension() -> None:
    logits = torch.linspace(-3, 3, 2 * 3 * 4, dtype=torch.float64).sin().view(2, 3, 4) * 3
    mean = likelihoods.mean(likelihoods.categorical, logits)
    one_by_one = torch.stack([likelihoods.mean(likelihoods.categorical, row) for row in logits])
    torch.testing.assert_close(mean, one_by_one, rtol=1e-12, atol=1e-12)
    sure = torch.where(torch.arange(4) == torch.tensor([[0, 3, 1], [2, 2, 0]])[..., None], 0.0, -100.0)
    x = likelihoods.draw(likelihoods.categorical, sure, generator=torch.Generator().manual_seed(6))
    assert x.tolist() == [[0, 3, 1], [2, 2, 0]]


def test_draws_repeat_with_their_generator() -> None:
    for name, (likelihood, params, _) in (DISCRETE | CONTINUOUS).items():
        first, again = (
            likelihoods.draw(likelihood, *params, generator=torch.Generator().manual_seed(5)) for _ in range(2)
        )
        assert torch.equal(first, again), name


@pytest.mark.parametrize(
    ("likelihood", "param", "message"),
    [
        (lambda logits, x: x, f64(0.0), "likelihood was <lambda>; it must be one of bernoulli, binomial, continuous"),
        (partial(torch.add, 1), f64(0.0), "likelihood was add; it must be one of bernoulli"),
        (torch.nn.Identity(), f64(0.0), r"likelihood was Identity\(\); it must be one of bernoulli"),
        (likelihoods.bernoulli, torch.tensor([1]), "the dtype of logits was torch.int64; it must be a floating"),
        (likelihoods.bernoulli, f64(math.nan), "logits was nan; it must be finite"),
    ],
)
def test_what_it_does_not_know_is_named(likelihood: object, param: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        likelihoods.mean(likelihood, param)
    with pytest.raises(ValueError, match=message):
        likelihoods.draw(likelihood, param, generator=torch.Generator())


@pytest.mark.parametrize("act", [likelihoods.mean, partial(likelihoods.draw, generator=torch.Generator())])
def test_parameters_neither_broadcast_nor_are_miscounted(act: object) -> None:
    for law in (likelihoods.gaussian, likelihoods.discretized_gaussian):
        name = "log_var" if law is likelihoods.gaussian else "log_scale"
        assert act(law, torch.zeros(2, 3), torch.zeros(())).shape == (2, 3)
        with pytest.raises(
            ValueError, match=rf"the shape of {name} was \(2, 1\); it must be \(\) or \(2, 3\), that of"
        ):
            act(law, torch.zeros(2, 3), torch.zeros(2, 1))
        with pytest.raises(
            ValueError, match=rf"the dtype of {name} was torch.float64; it must be torch.float32, that of"
        ):
            act(law, torch.zeros(2, 3), torch.zeros(2, 3).double())
        with pytest.raises(ValueError, match=rf"the number of params was 1; it must be 2: mean, {name}"):
            act(law, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="n was None; it must be an integer, 1 or more"):
        act(likelihoods.binomial, torch.zeros(2))
    with pytest.raises(ValueError, match=r"what the partial of likelihood fixes was \['n'\]; it must be nothing"):
        act(partial(likelihoods.bernoulli, n=3), torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("law", [likelihoods.bernoulli, partial(likelihoods.binomial, n=2), likelihoods.categorical])
def test_draws_in_half_precision_are_those_in_float32(law: object, dtype: torch.dtype) -> None:
    logits = torch.linspace(-4, 4, 4000, dtype=dtype).view(-1, 2)
    half, single = (
        likelihoods.draw(law, x, generator=torch.Generator().manual_seed(1)) for x in (logits, logits.float())
    )
    assert torch.equal(half, single)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("logit", [-9.0, 0.0, 1e-3, 9.0])
def test_continuous_bernoulli_draws_in_half_precision(logit: float, dtype: torch.dtype) -> None:
    x = likelihoods.draw(
        likelihoods.continuous_bernoulli,
        torch.full((40_000,), logit, dtype=dtype),
        generator=torch.Generator().manual_seed(2),
    )
    expected = likelihoods.mean(likelihoods.continuous_bernoulli, f64(logit))
    assert x.dtype == dtype
    assert abs(x.double().mean() - expected) <= 4.5 * x.double().std() / 200 + torch.finfo(dtype).eps


def test_means_far_from_the_middle_keep_their_digits() -> None:
    """1/L - 1/(exp(L) - 1) of the way to the other end."""
    for dtype in (torch.float32, torch.float64):
        mean = likelihoods.mean(likelihoods.continuous_bernoulli, torch.tensor([-1e6, -30.0, -1e38], dtype=dtype))
        expected = torch.tensor([1e-6, 1 / 30 - 1 / math.expm1(30), 1e-38], dtype=dtype)
        torch.testing.assert_close(mean, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)
    narrow = likelihoods.mean(
        partial(likelihoods.discretized_gaussian, levels=2), torch.zeros(3), torch.full((3,), -100.0)
    )
    assert narrow.tolist() == [0.5] * 3
    wide = partial(likelihoods.discretized_gaussian, levels=2)
    draws = likelihoods.draw(
        wide, torch.zeros(1000), torch.full((1000,), 100.0), generator=torch.Generator().manual_seed(3)
    )
    assert 400 < draws.sum() < 600
