"""Diagonal Gaussians against torch.distributions, quadrature, autograd and Monte Carlo."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence
from torch.func import grad, vmap

from dmlib.probability import gaussian
from dmlib.probability.gaussian import Gaussian

EVENTS = [(), (3,), (1, 2, 2)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_gaussian(event: tuple[int, ...], seed: int, batch: int = 4) -> Gaussian:
    draw = torch.randn(2, batch, *event, generator=seeded(seed), dtype=torch.float64)
    return Gaussian(2 * draw[0], torch.exp(draw[1]))


def reference(p: Gaussian) -> Independent:
    return Independent(Normal(p.mean, p.var.sqrt()), p.mean.dim() - 1)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("event", EVENTS)
def test_densities_are_those_of_torch(event: tuple[int, ...]) -> None:
    p, q = random_gaussian(event, 0), random_gaussian(event, 1)
    x = random_gaussian(event, 2).mean
    close(gaussian.log_prob(p, x), reference(p).log_prob(x))
    close(gaussian.entropy(p), reference(p).entropy())
    close(gaussian.kl(p, q), kl_divergence(reference(p), reference(q)))
    assert gaussian.kl(p, q).shape == (4,)


def test_a_density_integrates_to_one_and_its_entropy_is_its_mean_surprise() -> None:
    p = Gaussian(torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64))
    x, weight = grid(p)
    density = gaussian.log_prob(Gaussian(p.mean.expand_as(x), p.var.expand_as(x)), x)
    close((density.exp() * weight).sum(), torch.ones((), dtype=torch.float64))
    close(-(density.exp() * density * weight).sum(), gaussian.entropy(p)[0])


def grid(*laws: Gaussian) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on the line and Gauss-Legendre weights that cover every law given, of shape [1]."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    reach = max(abs(p.mean.item()) + 10 * math.sqrt(p.var.item()) for p in laws)
    return torch.tensor(nodes) * reach, torch.tensor(weights) * reach


def test_product_and_overlap_by_quadrature() -> None:
    p, q = random_gaussian((), 3, batch=1), random_gaussian((), 4, batch=1)
    x, weight = grid(p, q)
    wide = [Gaussian(r.mean.expand_as(x), r.var.expand_as(x)) for r in (p, q)]
    both = gaussian.log_prob(wide[0], x) + gaussian.log_prob(wide[1], x)
    overlap = torch.log((both.exp() * weight).sum())
    close(gaussian.log_overlap(p, q)[0], overlap)
    r = gaussian.product(p, q)
    close(gaussian.log_prob(Gaussian(r.mean.expand_as(x), r.var.expand_as(x)), x), both - overlap)


@pytest.mark.parametrize("event", EVENTS)
def test_product_times_overlap_is_the_product_of_densities(event: tuple[int, ...]) -> None:
    p, q = random_gaussian(event, 5), random_gaussian(event, 6)
    x = random_gaussian(event, 7).mean
    left = gaussian.log_prob(gaussian.product(p, q), x) + gaussian.log_overlap(p, q)
    close(left, reference(p).log_prob(x) + reference(q).log_prob(x))


@given(st.floats(1e-9, 1e-3), st.floats(-30, 30))
def test_kl_is_accurate_where_the_two_nearly_agree(step: float, log_var: float) -> None:
    var = torch.tensor([math.exp(log_var)], dtype=torch.float64)
    p = Gaussian(torch.zeros_like(var), var * (1 + step))
    log_ratio = torch.log1p(p.var / var - 1)  # the KL is half of exp(r) - 1 - r, here by its series
    series = log_ratio**2 / 4 * (1 + log_ratio / 3 * (1 + log_ratio / 4 * (1 + log_ratio / 5)))
    torch.testing.assert_close(gaussian.kl(p, Gaussian(p.mean, var)), series, rtol=1e-6, atol=1e-30)
    assert gaussian.kl(p, p).item() == 0


@pytest.mark.parametrize("event", EVENTS)
def test_sample_has_the_mean_the_variance_and_the_reparameterized_gradient(event: tuple[int, ...]) -> None:
    p = random_gaussian(event, 8)
    n = 20_000
    many = Gaussian(*(v.expand(n, *v.shape).flatten(0, 1) for v in p))
    draws = gaussian.sample(many, generator=seeded(9)).view(n, *p.mean.shape)
    error = p.var.sqrt() / math.sqrt(n)
    assert ((draws.mean(0) - p.mean).abs() <= 4.5 * error).all()
    assert (((draws - p.mean) ** 2).mean(0) - p.var).abs().le(4.5 * p.var * math.sqrt(2 / n)).all()
    leaf = Gaussian(*(v.clone().requires_grad_() for v in p))
    x = gaussian.sample(leaf, generator=seeded(10))
    noise = torch.randn(p.mean.shape, generator=seeded(10), dtype=torch.float64)
    close(x.detach(), p.mean + p.var.sqrt() * noise)
    x.sum().backward()
    close(leaf.mean.grad, torch.ones_like(p.mean))
    close(leaf.var.grad, ((x - leaf.mean) / (2 * leaf.var)).detach())


def test_a_point_can_be_sampled_and_nothing_else() -> None:
    point = Gaussian(torch.tensor([[1.0, -2.0]]), torch.zeros(1, 2))
    proper = gaussian.standard(point.mean)
    assert torch.equal(gaussian.sample(point, generator=seeded(0)), point.mean)
    match = "var was 0.0; it must be > 0"
    for fn in (
        lambda: gaussian.log_prob(point, point.mean),
        lambda: gaussian.entropy(point),
        lambda: gaussian.kl(point, proper),
        lambda: gaussian.kl(proper, point),
        lambda: gaussian.product(point, proper),
        lambda: gaussian.product(proper, point),
        lambda: gaussian.log_overlap(point, proper),
        lambda: gaussian.log_overlap(proper, point),
    ):
        with pytest.raises(ValueError, match=match):
            fn()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_standard_is_standard(dtype: torch.dtype) -> None:
    p = gaussian.standard(torch.full((2, 3), 7.0, dtype=dtype))
    assert torch.equal(p.mean, torch.zeros(2, 3, dtype=dtype))
    assert torch.equal(p.var, torch.ones(2, 3, dtype=dtype))
    x = gaussian.sample(p, generator=seeded(11))
    results = [x, gaussian.log_prob(p, x), gaussian.entropy(p), gaussian.kl(p, p), *gaussian.product(p, p)]
    assert {r.dtype for r in results} == {dtype}


def test_an_empty_batch_gives_an_empty_result() -> None:
    p = gaussian.standard(torch.zeros(0, 3))
    assert gaussian.log_prob(p, p.mean).shape == gaussian.kl(p, p).shape == (0,)


P = Gaussian(torch.zeros(2, 3), torch.ones(2, 3))
BAD = {
    "p.var was -1.0; it must be > 0": Gaussian(P.mean, -P.var),
    "p.mean was nan; it must be finite": Gaussian(P.mean * math.nan, P.var),
    "p.var was inf; it must be finite": Gaussian(P.mean, P.var * math.inf),
    r"the shape of p.var was \(2, 1\); it must be \(2, 3\)": Gaussian(P.mean, P.var[:, :1]),
    "the dtype of p.var was torch.float64; it must be torch.float32": Gaussian(P.mean, P.var.double()),
    "the dtype of p.mean was torch.int64; it must be a floating-point": Gaussian(P.mean.long(), P.var),
    r"the shape of p.mean was \(\); it must be \(B, ": Gaussian(torch.zeros(()), torch.ones(())),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_gaussian_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gaussian.entropy(BAD[message])
    with pytest.raises(ValueError, match=message):
        gaussian.kl(BAD[message], P)
    with pytest.raises(ValueError, match=message.replace("p.", "q.")):
        gaussian.product(P, Gaussian(*BAD[message]))


def test_finite_is_said_of_each_value_and_not_of_their_sum() -> None:
    large = torch.full((2, 3), 3e38)  # whose sum is infinite in float32
    assert torch.equal(gaussian.entropy(Gaussian(large, P.var)), gaussian.entropy(P))
    both = torch.tensor([[math.inf, -math.inf, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match=r"p.mean was inf; it must be finite"):
        gaussian.entropy(Gaussian(both, P.var))


@given(st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(lambda shape: shape != (2, 3)))
def test_no_shape_broadcasts(shape: tuple[int, int]) -> None:
    other = torch.zeros(shape)
    match = rf"the shape of (x|q.mean) was \({shape[0]}, {shape[1]}\); it must be \(2, 3\), that of p.mean"
    for fn in (lambda: gaussian.log_prob(P, other), lambda: gaussian.kl(P, gaussian.standard(other))):
        with pytest.raises(ValueError, match=match):
            fn()


def test_a_negative_variance_cannot_be_sampled() -> None:
    with pytest.raises(ValueError, match=r"p.var was -1.0; it must be >= 0"):
        gaussian.sample(Gaussian(P.mean, -P.var), generator=seeded(0))


def test_other_data_is_named() -> None:
    with pytest.raises(ValueError, match=r"the dtype of x was torch.float64; it must be torch.float32, that of p"):
        gaussian.log_prob(P, P.mean.double())
    with pytest.raises(ValueError, match="x was nan; it must be finite"):
        gaussian.log_prob(P, P.mean * math.nan)
    with pytest.raises(ValueError, match=r"the dtype of like was torch.int64; it must be a floating-point"):
        gaussian.standard(torch.zeros(2, dtype=torch.int64))


# ---- log-variances, and variances near the ends of a dtype ----


@pytest.mark.parametrize("log_var", [-1e4, -200.0, -104.0, -90.0, -1.0, 0.0, 3.0])
def test_a_log_variance_reaches_the_divergence_as_it_is(log_var: float) -> None:
    """KL = (exp(l) - 1 - l) / 2, of slope (exp(l) - 1) / 2."""
    leaf = torch.tensor([[log_var]], requires_grad=True)
    kl = gaussian.kl(gaussian.from_log_var(torch.zeros(1, 1), leaf), gaussian.standard(torch.zeros(1, 1)))
    kl.sum().backward()
    assert math.isclose(kl.item(), (math.expm1(log_var) - log_var) / 2, rel_tol=1e-6)
    assert math.isclose(leaf.grad.item(), math.expm1(log_var) / 2, rel_tol=1e-6)


@pytest.mark.parametrize("log_var", [-1e4, -200.0, -104.0, -90.0, 90.0, 200.0])
def test_a_gaussian_of_an_extreme_log_variance(log_var: float) -> None:
    mean, leaf = torch.tensor([[3.0]]), torch.tensor([[log_var]], requires_grad=True)
    p = gaussian.from_log_var(mean, leaf)
    log_prob = gaussian.log_prob(p, mean)
    log_prob.sum().backward()
    assert leaf.grad.item() == -0.5
    expected = -0.5 * (log_var + math.log(2 * math.pi))
    assert math.isclose(log_prob.item(), expected, rel_tol=1e-6)
    assert math.isclose(gaussian.entropy(p).item(), 0.5 - expected, rel_tol=1e-6)
    assert math.isclose(gaussian.log_overlap(p, p).item(), expected - math.log(2) / 2, rel_tol=1e-6)
    noise = torch.randn(1, 1, generator=seeded(3)).double()
    draw = (mean + math.exp(log_var / 2) * noise).float()
    torch.testing.assert_close(gaussian.sample(p, generator=seeded(3)), draw, rtol=1e-5, atol=0)


def test_made_from_a_variance_or_from_its_logarithm_it_is_the_same() -> None:
    p, q = random_gaussian((3,), 20), random_gaussian((3,), 21)
    p_log, q_log = (gaussian.from_log_var(g.mean, g.var.log()) for g in (p, q))
    x = random_gaussian((3,), 22).mean
    close(gaussian.log_prob(p_log, x), gaussian.log_prob(p, x))
    close(gaussian.entropy(p_log), gaussian.entropy(p))
    for pair in ((p_log, q), (p, q_log), (p_log, q_log)):
        close(gaussian.kl(*pair), gaussian.kl(p, q))
        close(gaussian.log_overlap(*pair), gaussian.log_overlap(p, q))
        close(torch.stack(gaussian.product(*pair)), torch.stack(gaussian.product(p, q)))
    for copied in (copy.deepcopy(p_log), pickle.loads(pickle.dumps(p_log)), Gaussian(*p_log)):
        close(gaussian.log_var(copied), p.var.log())
        close(gaussian.std(copied), p.var.sqrt())
        close(copied.var, p.var)


def test_a_bad_log_variance_is_named() -> None:
    with pytest.raises(ValueError, match="log_var was -inf; it must be finite"):
        gaussian.from_log_var(P.mean, P.mean - math.inf)
    with pytest.raises(ValueError, match=r"the shape of log_var was \(2, 1\); it must be \(2, 3\), that of mean"):
        gaussian.from_log_var(P.mean, P.var[:, :1])
    with pytest.raises(ValueError, match=r"p.var was 0.0; it must be > 0"):
        gaussian.product(gaussian.from_log_var(P.mean, P.mean - 200), P)


def test_half_precision_holds_all_between_what_it_is_given_and_what_it_gives() -> None:
    """By hand: no product, quotient, sum or square leaves float16 where the result does not."""

    def at(var: float, mean: float = 0.0) -> Gaussian:
        return Gaussian(*torch.tensor([[mean], [var]], dtype=torch.float16))

    def near(actual: Tensor, expected: float) -> None:
        assert math.isclose(actual.item(), expected, rel_tol=2e-3)

    near(gaussian.log_prob(at(20000), at(1).mean), -5.8707)
    near(gaussian.log_prob(at(60000), at(1, 300).mean), -0.5 * (300**2 / 60000 + math.log(2 * math.pi * 60000)))
    near(gaussian.entropy(at(10000)), 6.0241)
    near(gaussian.log_overlap(at(40000), at(40000)), -0.5 * math.log(2 * math.pi * 80000))
    for one, other, var in ((1e-4, 1e-4, 5e-5), (300, 300, 150), (60000, 60000, 30000), (60000, 1e-4, 1e-4)):
        near(gaussian.product(at(one), at(other)).var, var)
    near(gaussian.product(at(60000, 2), at(60000, 4)).mean, 3)
    near(gaussian.product(at(60000, 2), at(1e-4, 4)).mean, 4)
    near(gaussian.kl(at(1e-4), at(60000)), 0.5 * (1e-4 / 60000 - 1 + math.log(60000 / 1e-4)))
    near(gaussian.kl(at(1000, 300), at(1000)), 45)


def test_the_transforms_of_torch_func_give_gradients() -> None:
    p, q, x = random_gaussian((3,), 23), random_gaussian((3,), 24), random_gaussian((3,), 25).mean

    def log_prob(mean: Tensor, var: Tensor, x: Tensor) -> Tensor:
        return gaussian.log_prob(Gaussian(mean[None], var[None]), x[None])[0]

    def kl(p: Gaussian, q: Gaussian) -> Tensor:
        return gaussian.kl(Gaussian(*(v[None] for v in p)), Gaussian(*(v[None] for v in q)))[0]

    close(vmap(grad(log_prob, 2))(*p, x), (p.mean - x) / p.var)
    close(vmap(grad(log_prob, 1))(*p, x), ((x - p.mean) ** 2 / p.var - 1) / (2 * p.var))
    close(vmap(grad(kl))(p, q).var, 0.5 / q.var - 0.5 / p.var)


def test_data_on_another_device_are_named() -> None:
    for there in (Gaussian(P.mean.to("meta"), P.var.to("meta")), Gaussian(P.mean, P.var.to("meta"))):
        with pytest.raises(
            ValueError, match=r"the device of (x|p.var) was (cpu|meta); it must be (cpu|meta), that of p.mean"
        ):
            gaussian.log_prob(there, P.mean)
