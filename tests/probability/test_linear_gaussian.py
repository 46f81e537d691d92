"""Exact models against the joint law, quadrature, autograd and Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from dmlib.probability import gaussian, linear_gaussian
from dmlib.probability.gaussian import Gaussian
from dmlib.probability.linear_gaussian import LinearChain, LinearGaussian

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def close(actual: Tensor, expected: Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=tol, atol=tol)


def model(size: int, latent: int, seed: int = 0) -> LinearGaussian:
    return LinearGaussian(randn(size, latent, seed=seed), randn(size, seed=seed + 1), torch.tensor(0.37, dtype=F64))


SIZES = [(1, 1), (3, 2), (2, 3), (5, 5)]
MODELS = [model(*sizes) for sizes in SIZES]


def encoder(m: LinearGaussian, batch: int, seed: int = 3) -> Gaussian:
    shape = batch, m.W.shape[1]
    return Gaussian(randn(*shape, seed=seed), randn(*shape, seed=seed + 1).exp())


def posterior_by_joint(m: LinearGaussian, x: Tensor) -> tuple[Tensor, Tensor]:
    """Conditioning the joint covariance of (z, x), in NumPy."""
    W, b = m.W.numpy(), m.b.numpy()
    evidence = W @ W.T + m.var.item() * np.eye(len(b))
    gain = np.linalg.solve(evidence, W).T
    return torch.tensor((x.numpy() - b) @ gain.T), torch.tensor(np.eye(W.shape[1]) - gain @ W)


@pytest.mark.parametrize("m", MODELS)
def test_evidence_and_posterior_by_the_joint_law(m: LinearGaussian) -> None:
    x = randn(6, len(m.b), seed=2)
    law = MultivariateNormal(m.b, m.W @ m.W.T + m.var * torch.eye(len(m.b), dtype=F64))
    close(linear_gaussian.log_evidence(m, x), law.log_prob(x), 1e-11)
    for actual, expected in zip(linear_gaussian.posterior(m, x), posterior_by_joint(m, x)):
        close(actual, expected, 1e-11)


def test_evidence_is_the_integral_over_the_latent() -> None:
    m, x = model(2, 1, seed=5), randn(3, 2, seed=6)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    z, weights = torch.tensor(nodes) * 12, torch.tensor(weights) * 12
    likelihood = Normal(z[:, None, None] * m.W[:, 0] + m.b, m.var.sqrt()).log_prob(x).sum(-1)
    integrand = (Normal(0, 1).log_prob(z)[:, None] + likelihood).exp()
    close(linear_gaussian.log_evidence(m, x), torch.log(weights @ integrand))
    mean, cov = linear_gaussian.posterior(m, x)
    evidence = weights @ integrand
    close(mean[:, 0], (weights * z) @ integrand / evidence)
    close(cov[0, 0].expand(3), (weights * z**2) @ integrand / evidence - mean[:, 0] ** 2)


@pytest.mark.parametrize("m", MODELS)
def test_evidence_is_bound_plus_gap_for_any_encoder(m: LinearGaussian) -> None:
    x = randn(6, len(m.b), seed=2)
    q = encoder(m, 6)
    bound, gap = linear_gaussian.elbo(m, x, q), linear_gaussian.gap(m, x, q)
    close(bound + gap, linear_gaussian.log_evidence(m, x), 1e-11)
    mean, cov = posterior_by_joint(m, x)
    diagonal = MultivariateNormal(q.mean, torch.diag_embed(q.var))
    close(gap, kl_divergence(diagonal, MultivariateNormal(mean, cov)), 1e-11)
    assert (gap > 0).all()


def test_bound_by_gauss_hermite_quadrature() -> None:
    """The integrand is a quadratic in z, on which three nodes a dimension are exact."""
    m = MODELS[1]
    x, q = randn(4, 3, seed=2), encoder(m, 4)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    grid = torch.tensor(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 1, 2))
    weights = torch.tensor(np.outer(weights, weights).ravel() / (2 * math.pi))
    z = q.mean + q.var.sqrt() * grid
    log_p = Normal(z @ m.W.T + m.b, m.var.sqrt()).log_prob(x).sum(-1) + Normal(0, 1).log_prob(z).sum(-1)
    log_q = Normal(q.mean, q.var.sqrt()).log_prob(z).sum(-1)
    close(linear_gaussian.elbo(m, x, q), weights @ (log_p - log_q))


@pytest.mark.parametrize("m", MODELS)
def test_mean_field_is_the_best_diagonal(m: LinearGaussian) -> None:
    x = randn(4, len(m.b), seed=2)
    best = linear_gaussian.mean_field_posterior(m, x)
    leaf = Gaussian(*(v.clone().requires_grad_() for v in best))
    linear_gaussian.gap(m, x, leaf).sum().backward()
    close(leaf.mean.grad, torch.zeros_like(best.mean), 1e-11)
    close(leaf.var.grad, torch.zeros_like(best.mean), 1e-11)
    least = linear_gaussian.gap(m, x, best)
    for scale in (0.9, 1.1):
        assert (linear_gaussian.gap(m, x, Gaussian(best.mean, scale * best.var)) > least).all()
    assert (linear_gaussian.gap(m, x, Gaussian(best.mean + 0.1, best.var)) > least).all()


def test_one_latent_needs_no_mean_field() -> None:
    m, x = MODELS[0], randn(4, 1, seed=2)
    best = linear_gaussian.mean_field_posterior(m, x)
    close(linear_gaussian.gap(m, x, best), torch.zeros(4, dtype=F64))
    close(linear_gaussian.elbo(m, x, best), linear_gaussian.log_evidence(m, x))
    close(best.var, linear_gaussian.posterior(m, x)[1].expand(4, 1))


def test_samples_have_the_moments_of_the_joint() -> None:
    m, n = MODELS[1], 40_000
    z, x = linear_gaussian.sample(m, n, generator=torch.Generator().manual_seed(7))
    assert z.shape == (n, 2)
    assert x.shape == (n, 3)
    for draws, expected in (
        (z, torch.zeros(2, dtype=F64)),
        (x, m.b),
        (z[:, :, None] * z[:, None], torch.eye(2, dtype=F64)),
        (z[:, :, None] * (x - m.b)[:, None], m.W.T),
        ((x - m.b)[:, :, None] * (x - m.b)[:, None], m.W @ m.W.T + m.var * torch.eye(3, dtype=F64)),
    ):
        z_score = (draws.mean(0) - expected) / (draws.std(0) / math.sqrt(n))
        assert (z_score.abs() <= 4.5).all()
    noise = (x - z @ m.W.T - m.b) / m.var.sqrt()
    assert ((noise**2).mean(0) - 1).abs().le(4.5 * math.sqrt(2 / n)).all()
    same = torch.Generator().manual_seed(7)
    close(z, torch.randn(n, 2, generator=same, dtype=F64))
    close(noise, torch.randn(n, 3, generator=same, dtype=F64), 1e-10)


def test_nothing_is_learned_where_nothing_is_seen() -> None:
    """A latent direction that casts no shadow keeps its prior."""
    m = LinearGaussian(torch.tensor([[1.0, 1.0, 0.0]], dtype=F64), torch.zeros(1, dtype=F64), MODELS[0].var)
    mean, cov = linear_gaussian.posterior(m, randn(5, 1))
    close(mean[:, 2], torch.zeros(5, dtype=F64))
    close(cov[2], torch.tensor([0.0, 0.0, 1.0], dtype=F64))
    hidden = torch.tensor([1.0, -1.0, 0.0], dtype=F64) / math.sqrt(2)
    close(hidden @ cov @ hidden, torch.ones((), dtype=F64))


F32 = torch.float32
FAINT = [  # W, the least variance at which it is exact, the mean at x = 1 and the covariance as var goes to 0
    ([[1.0, 1.0]], 1e-25, [0.5, 0.5], [[0.5, -0.5], [-0.5, 0.5]]),
    ([[1.0, 1.0], [1.0, 1.0]], 1e-17, [0.5, 0.5], [[0.5, -0.5], [-0.5, 0.5]]),
    ([[1.0, 0.0], [0.0, 0.0]], 1e-30, [1.0, 0.0], [[0.0, 0.0], [0.0, 1.0]]),
]


@pytest.mark.parametrize(("W", "least", "mean", "cov"), FAINT)
@pytest.mark.parametrize(("var", "dtype"), [(1e-7, F32), (1e-12, F32), (1e-12, F64), (0.0, F64)])
def test_a_faint_noise_does_not_drown_the_prior(
    W: list, least: float, mean: list, cov: list, var: float, dtype: torch.dtype
) -> None:
    m = LinearGaussian(torch.tensor(W, dtype=dtype), torch.zeros(len(W), dtype=dtype), torch.tensor(max(var, least)))
    x = torch.ones(1, len(W), dtype=dtype)
    tol = 2 * max(var, torch.finfo(dtype).eps)
    for actual, expected in zip(linear_gaussian.posterior(m, x), (mean, cov)):
        close(actual.squeeze(0), torch.tensor(expected, dtype=dtype), tol)


@pytest.mark.parametrize("var", [1e-7, 1e-12])
def test_the_evidence_and_the_gap_under_a_faint_noise(var: float) -> None:
    """By hand, for x_1 = x_2 = z + noise: N(x; 0, 1 + var/2) of their mean times N(0; 0, var) of their difference."""
    m = LinearGaussian(torch.ones(2, 1), torch.zeros(2), torch.tensor(var))
    x, var = torch.full((1, 2), 0.7), m.var.item()
    log_p = -0.5 * (math.log(2 * math.pi * (1 + var / 2)) + 0.7**2 / (1 + var / 2)) - 0.5 * math.log(4 * math.pi * var)
    assert math.isclose(linear_gaussian.log_evidence(m, x).item(), log_p, rel_tol=1e-6)
    mean, cov = linear_gaussian.posterior(m, x)
    assert math.isclose(cov.item(), var / (2 + var), rel_tol=1e-6)
    assert linear_gaussian.gap(m, x, Gaussian(mean, 2 * cov)).item() == pytest.approx((1 - math.log(2)) / 2, abs=1e-2)
    chain = LinearChain(torch.ones(1, 1, 1), torch.zeros(1, 1), torch.tensor([var]))
    assert math.isclose(linear_gaussian.posterior(chain, x[:, :1])[1].item(), var / (1 + var), rel_tol=1e-3)


def test_models_in_half_precision() -> None:
    m = LinearGaussian(torch.tensor([[1.0, 1.0]]).half(), torch.zeros(1).half(), torch.tensor(1e-4).half())
    mean, cov = linear_gaussian.posterior(m, torch.ones(1, 1).half())
    assert mean.tolist() == [[0.5, 0.5]]
    assert cov.tolist() == [[0.5, -0.5], [-0.5, 0.5]]


# ---- the chain ----


def chain(steps: int, size: int, seed: int = 8) -> LinearChain:
    A, b = randn(steps, size, size, seed=seed), randn(steps, size, seed=seed + 1)
    return LinearChain(A, b, randn(steps, seed=seed + 2).exp())


def log_joint(m: LinearChain, states: Tensor) -> Tensor:
    """log p(x_0, .., x_T) of one path [T + 1, D], a sum of its steps."""
    result = Normal(0, 1).log_prob(states[0]).sum()
    for t in range(1, len(states)):
        result = result + Normal(m.A[t - 1] @ states[t - 1] + m.b[t - 1], m.var[t - 1].sqrt()).log_prob(states[t]).sum()
    return result


@pytest.mark.parametrize(("steps", "size"), [(1, 1), (1, 3), (4, 1), (3, 2)])
def test_chain_by_the_curvature_of_its_joint(steps: int, size: int) -> None:
    """The posterior from gradient and Hessian of the log-joint; the evidence from any point of both."""
    m, x = chain(steps, size), randn(3, size, seed=12)
    mean, cov = linear_gaussian.posterior(m, x)
    evidence = linear_gaussian.log_evidence(m, x)
    assert mean.shape == (3, steps * size)
    for i, observed in enumerate(x):

        def of_hidden(hidden: Tensor, observed: Tensor = observed) -> Tensor:
            return log_joint(m, torch.cat([hidden.view(steps, size), observed[None]]))

        origin = torch.zeros(steps * size, dtype=F64)
        precision = -torch.autograd.functional.hessian(of_hidden, origin)
        slope = torch.autograd.functional.jacobian(of_hidden, origin)
        close(cov, torch.linalg.inv(precision), 1e-10)
        close(mean[i], torch.linalg.solve(precision, slope), 1e-10)
        there = randn(steps * size, seed=13)
        at_posterior = MultivariateNormal(mean[i], precision_matrix=precision).log_prob(there)
        close(evidence[i], of_hidden(there) - at_posterior, 1e-10)


def test_a_chain_of_one_step_is_the_linear_model() -> None:
    m, x = chain(1, 3), randn(4, 3, seed=14)
    flat = LinearGaussian(m.A[0], m.b[0], m.var[0])
    close(linear_gaussian.log_evidence(m, x), linear_gaussian.log_evidence(flat, x), 1e-11)
    for one, other in zip(linear_gaussian.posterior(m, x), linear_gaussian.posterior(flat, x)):
        close(one, other, 1e-11)


# ---- dtype and bad input ----


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_results_have_the_dtype_of_the_model(dtype: torch.dtype) -> None:
    m = LinearGaussian(MODELS[1].W.float(), MODELS[1].b.float(), MODELS[1].var.to(dtype))
    z, x = linear_gaussian.sample(m, 4, generator=torch.Generator().manual_seed(0))
    q = gaussian.standard(z)
    results = [z, x, linear_gaussian.log_evidence(m, x), *linear_gaussian.posterior(m, x)]
    results += [linear_gaussian.elbo(m, x, q), linear_gaussian.gap(m, x, q)]
    results += [*linear_gaussian.mean_field_posterior(m, x)]
    assert {r.dtype for r in results} == {torch.float32}


W, B, VAR = torch.zeros(3, 2), torch.zeros(3), torch.tensor(1.0)
BAD_MODELS = {
    "var was 0.0; it must be > 0": (W, B, 0 * VAR),
    "var was -1.0; it must be > 0": (W, B, -VAR),
    "var was nan; it must be finite": (W, B, VAR * math.nan),
    "W was inf; it must be finite": (W + math.inf, B, VAR),
    r"the shape of var was \(1,\); it must be \(\)": (W, B, VAR[None]),
    r"the shape of b was \(2,\); it must be \(3\)": (W, B[:2], VAR),
    r"the shape of b was \(3, 1\); it must be \(3\)": (W, B[:, None], VAR),
    r"the shape of W was \(3,\); it must be \(any, any\)": (W[:, 0], B, VAR),
    r"the dtype of W was torch.int64; it must be a floating-point": (W.long(), B, VAR),
    r"the dtype of W was torch.float64; it must be torch.float32": (W.double(), B, VAR),
}


@pytest.mark.parametrize("message", BAD_MODELS)
def test_a_bad_model_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearGaussian(*BAD_MODELS[message])


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"the shape of A was \(2, 3, 2\); it must be \(2, 3, 3\)", {"A": torch.zeros(2, 3, 2)}),
        (r"the shape of A was \(3, 3, 3\); it must be \(2, 3, 3\)", {"A": torch.zeros(3, 3, 3)}),
        (r"the shape of b was \(3,\); it must be \(any, any\)", {"b": torch.zeros(3)}),
        (r"the shape of b was \(0, 3\); it must be \(T, D\) with T, D >= 1", {"b": torch.zeros(0, 3)}),
        (r"the shape of var was \(3,\); it must be \(2\)", {"var": torch.ones(3)}),
        (r"var was 0.0; it must be > 0", {"var": torch.tensor([1.0, 0.0])}),
        (r"A was nan; it must be finite", {"A": torch.full((2, 3, 3), math.nan)}),
        (r"the dtype of A was torch.float64; it must be torch.float32", {"A": torch.zeros(2, 3, 3).double()}),
    ],
)
def test_a_bad_chain_is_named(message: str, change: dict[str, Tensor]) -> None:
    good = {"A": torch.zeros(2, 3, 3), "b": torch.zeros(2, 3), "var": torch.ones(2)}
    assert linear_gaussian.log_evidence(LinearChain(**good), torch.zeros(4, 3)).shape == (4,)
    with pytest.raises(ValueError, match=message):
        LinearChain(**good | change)


@given(st.integers(0, 5).filter(lambda n: n != 3))
def test_data_of_another_size_are_named(size: int) -> None:
    x = torch.zeros(2, size)
    m = LinearGaussian(W, B, VAR)
    q = gaussian.standard(torch.zeros(2, 2))
    for fn in (
        lambda: linear_gaussian.log_evidence(m, x),
        lambda: linear_gaussian.posterior(m, x),
        lambda: linear_gaussian.mean_field_posterior(m, x),
        lambda: linear_gaussian.elbo(m, x, q),
        lambda: linear_gaussian.gap(m, x, q),
        lambda: linear_gaussian.posterior(LinearChain(W[None, :, :1].expand(1, 3, 3), B[None], VAR[None]), x),
    ):
        with pytest.raises(ValueError, match=rf"the shape of x was \(2, {size}\); it must be \(any, 3\)"):
            fn()


@pytest.mark.parametrize("fn", [linear_gaussian.elbo, linear_gaussian.gap])
def test_a_bad_encoder_is_named(fn: Callable) -> None:
    m, x, q = LinearGaussian(W, B, VAR), torch.zeros(4, 3), gaussian.standard(torch.zeros(4, 2))
    assert fn(m, x, q).shape == (4,)
    for bad, message in (
        (gaussian.standard(torch.zeros(4, 3)), r"the shape of q.mean was \(4, 3\); it must be \(4, 2\)"),
        (gaussian.standard(torch.zeros(1, 2)), r"the shape of q.mean was \(1, 2\); it must be \(4, 2\)"),
        (gaussian.standard(torch.zeros(4, 2).double()), r"the dtype of q.mean was torch.float64; it must be torch.flo"),
        (Gaussian(q.mean, 0 * q.var), "q.var was 0.0; it must be > 0"),
        (Gaussian(q.mean, q.var[:, :1]), r"the shape of q.var was \(4, 1\); it must be \(4, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            fn(m, x, bad)
    with pytest.raises(ValueError, match=r"the dtype of x was torch.float64; it must be torch.float32, that of the m"):
        fn(m, x.double(), q)
    with pytest.raises(ValueError, match="x was nan; it must be finite"):
        fn(m, x * math.nan, q)
