"""One full Gaussian against scipy, torch.distributions, precision matrices and the chain rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from dmlib.probability import multivariate
from dmlib.probability.multivariate import MVN

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def random_mvn(size: int, seed: int) -> MVN:
    root = randn(size, size + 2, seed=seed)
    return MVN(randn(size, seed=seed + 100), root @ root.T / size)


def reference(p: MVN) -> MultivariateNormal:
    return MultivariateNormal(p.mean, p.cov)


def close(actual: Tensor, expected: Tensor | np.ndarray, tol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=tol, atol=tol)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_density_divergence_and_entropy_are_those_of_torch_and_scipy(size: int) -> None:
    p, q, x = random_mvn(size, 0), random_mvn(size, 1), randn(7, size, seed=2)
    close(multivariate.log_prob(p, x), reference(p).log_prob(x), 1e-11)
    expected = scipy.stats.multivariate_normal(p.mean.numpy(), p.cov.numpy())
    close(multivariate.log_prob(p, x), expected.logpdf(x.numpy()).reshape(7), 1e-10)  # scipy's eigenvalues
    close(multivariate.kl(p, q), kl_divergence(reference(p), reference(q)), 1e-11)
    close(multivariate.entropy(p), reference(p).entropy())
    assert abs(multivariate.kl(p, p).item()) < 1e-12


def test_joint_is_the_density_of_z_times_that_of_x_given_z() -> None:
    p_z, W, b, noise = random_mvn(2, 3), randn(3, 2, seed=4), randn(3, seed=5), random_mvn(3, 6).cov
    y = randn(6, 5, seed=7)
    z, x = y[:, :2], y[:, 2:]
    given_z = MultivariateNormal(torch.zeros(3, dtype=F64), noise).log_prob(x - z @ W.T - b)
    close(multivariate.log_prob(multivariate.joint(p_z, W, b, noise), y), reference(p_z).log_prob(z) + given_z, 1e-11)


def test_affine_is_the_marginal_of_the_joint_and_matches_hand_arithmetic() -> None:
    p, A, b, noise = random_mvn(3, 8), randn(2, 3, seed=9), randn(2, seed=10), random_mvn(2, 11).cov
    law = multivariate.affine(p, A, b, noise)
    close(law.mean, (A * p.mean).sum(1) + b)
    close(law.cov, torch.einsum("ij,jk,lk->il", A, p.cov, A) + noise)
    joint = multivariate.joint(p, A, b, noise)
    close(joint.mean[3:], law.mean)
    close(joint.cov[3:, 3:], law.cov)
    close(multivariate.affine(p, A, b, torch.zeros(2, 2, dtype=F64)).cov, law.cov - noise)
    assert torch.equal(law.cov, law.cov.T)


@pytest.mark.parametrize("dims", [[0], [3], [2, 0], [1, 2, 3], torch.tensor([3, 1]), range(2, 4)])
def test_density_is_that_of_the_given_times_that_of_the_rest(dims: object) -> None:
    """The chain rule, with the remaining dimensions in order, and the precision matrix as a second route."""
    p, x, given_ = random_mvn(4, 12), randn(6, 4, seed=13), [int(d) for d in dims]
    rest = [d for d in range(4) if d not in given_]
    mean, cov = multivariate.condition(p, dims, x[:, given_])
    marginal = multivariate.marginal(p, dims)
    chain = reference(marginal).log_prob(x[:, given_]) + MultivariateNormal(mean, cov).log_prob(x[:, rest])
    close(chain, reference(p).log_prob(x), 1e-10)
    precision = torch.linalg.inv(p.cov)
    own = precision[rest][:, rest]
    pull = (x[:, given_] - p.mean[given_]) @ precision[given_][:, rest]
    close(cov, torch.linalg.inv(own), 1e-10)
    close(mean, p.mean[rest] - pull @ torch.linalg.inv(own), 1e-10)
    close(marginal.cov, p.cov.numpy()[np.ix_(given_, given_)])
    close(marginal.mean, p.mean[given_])


def test_conditioning_on_all_or_on_nothing() -> None:
    p, x = random_mvn(3, 14), randn(2, 3, seed=15)
    mean, cov = multivariate.condition(p, [0, 1, 2], x)
    assert mean.shape == (2, 0)
    assert cov.shape == (0, 0)
    mean, cov = multivariate.condition(p, [], x[:, :0])
    close(mean, p.mean.expand(2, 3))
    close(cov, p.cov)


def test_results_have_the_dtype_of_the_law_and_gradients_flow() -> None:
    p = MVN(torch.zeros(2), torch.eye(2))
    results = [multivariate.log_prob(p, torch.ones(3, 2)), multivariate.entropy(p), multivariate.kl(p, p)]
    results += [*multivariate.condition(p, [0], torch.ones(3, 1)), multivariate.marginal(p, [1]).cov]
    assert {r.dtype for r in results} == {torch.float32}
    leaf = torch.zeros(2, dtype=F64, requires_grad=True)
    multivariate.log_prob(MVN(leaf, torch.eye(2, dtype=F64)), torch.ones(1, 2, dtype=F64)).sum().backward()
    close(leaf.grad, torch.ones(2, dtype=F64))


# ---- bad input ----

EYE = torch.eye(2)
BAD = {
    r"mean was nan; it must be finite": (torch.full((2,), math.nan), EYE),
    r"the dtype of mean was torch.int64; it must be a floating-point": (torch.zeros(2, dtype=torch.int64), EYE),
    r"the shape of mean was \(1, 2\); it must be \(any\)": (torch.zeros(1, 2), EYE),
    r"the shape of mean was \(0,\); it must be \(D,\) with D >= 1": (torch.zeros(0), torch.zeros(0, 0)),
    r"the shape of cov was \(2, 1\); it must be \(2, 2\)": (torch.zeros(2), EYE[:, :1]),
    r"the shape of cov was \(3, 3\); it must be \(2, 2\)": (torch.zeros(2), torch.eye(3)),
    r"the dtype of cov was torch.float64; it must be torch.float32": (torch.zeros(2), EYE.double()),
    r"cov was .*; it must be symmetric": (torch.zeros(2), EYE + torch.tensor([[0, 0.5], [0, 0]])),
    r"cov was nan; it must be finite": (torch.zeros(2), EYE * math.nan),
    r"cov was not positive definite; it must be positive definite": (torch.zeros(2), torch.ones(2, 2)),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_law_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MVN(*BAD[message])


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_symmetry_is_judged_relative_to_the_largest_entry(scale: float) -> None:
    cov = torch.tensor([[1e-4, 1e-3], [0.0, 1.0]], dtype=F64)
    cov[1, 0] = (1 - 1e-7) * cov[0, 1]  # as rounding leaves it
    MVN(torch.zeros(2, dtype=F64), scale * cov)
    cov[1, 0] = (1 - 1e-3) * cov[0, 1]
    with pytest.raises(ValueError, match=r"cov was .*; it must be symmetric"):
        MVN(torch.zeros(2, dtype=F64), scale * cov)


def test_a_law_is_frozen() -> None:
    p = random_mvn(2, 16)
    with pytest.raises(AttributeError):
        p.mean = p.mean


@given(st.lists(st.integers(-3, 6), max_size=5).filter(lambda d: len(set(d)) < len(d) or not set(d) <= set(range(3))))
def test_bad_dims_are_named(dims: list[int]) -> None:
    with pytest.raises(ValueError, match=r"dims was \[.*\]; it must be distinct and in 0..2"):
        multivariate.marginal(random_mvn(3, 17), dims)
    with pytest.raises(ValueError, match=r"dims was \[.*\]; it must be distinct and in 0..2"):
        multivariate.condition(random_mvn(3, 17), dims, torch.zeros(1, len(dims), dtype=F64))


@given(st.integers(1, 4).filter(lambda n: n != 3))
def test_values_of_another_size_are_named(size: int) -> None:
    p, other = random_mvn(3, 18), torch.zeros(2, size, dtype=F64)
    with pytest.raises(ValueError, match=rf"the shape of x was \(2, {size}\); it must be \(any, 3\)"):
        multivariate.log_prob(p, other)
    with pytest.raises(ValueError, match=rf"the shape of values was \(2, {size}\); it must be \(any, 3\)"):
        multivariate.condition(p, [0, 1, 2], other)
    with pytest.raises(ValueError, match=rf"the shape of q.mean was \({size},\); it must be \(3,\), that of p.mean"):
        multivariate.kl(p, random_mvn(size, 19))
    with pytest.raises(ValueError, match=rf"the shape of A was \(2, {size}\); it must be \(any, 3\)"):
        multivariate.affine(p, other, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))


def test_a_bad_map_is_named() -> None:
    p, W, b, noise = random_mvn(2, 20), randn(3, 2), torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64)
    for fn, name in ((multivariate.joint, "W"), (multivariate.affine, "A")):
        for bad, message in (
            ((W[:2], b, noise), rf"the shape of {name} was \(2, 2\); it must be \(3, 2\)"),
            ((W.float(), b, noise), rf"the dtype of {name} was torch.float32; it must be torch.float64"),
            ((W, b.float(), noise), "the dtype of b was torch.float32; it must be torch.float64"),
            ((W, b[None], noise), r"the shape of b was \(1, 3\); it must be \(any\)"),
            ((W, b, noise[:2]), r"the shape of noise_cov was \(2, 3\); it must be \(3, 3\)"),
            ((W, b, noise.tril() + noise.roll(1, 0).tril(-1)), "noise_cov was .*; it must be symmetric"),
            ((W, b, -noise), "the diagonal of noise_cov was -1.0; it must be >= 0"),
            ((W * math.nan, b, noise), f"{name} was nan; it must be finite"),
        ):
            with pytest.raises(ValueError, match=message):
                fn(p, *bad)
    with pytest.raises(ValueError, match="cov was not positive definite"):
        multivariate.joint(p, W, b, 0 * noise)


def test_other_data_is_named() -> None:
    p = random_mvn(2, 21)
    with pytest.raises(ValueError, match=r"the dtype of x was torch.float32; it must be torch.float64"):
        multivariate.log_prob(p, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="x was inf; it must be finite"):
        multivariate.log_prob(p, torch.full((1, 2), math.inf, dtype=F64))


def test_half_precision_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"the dtype of mean was torch.float16; it must be torch.float32 or torch.float6"
    ):
        MVN(torch.zeros(2).half(), torch.eye(2).half())


def test_a_factor_that_does_not_exist_is_no_number() -> None:
    """On the CPU it raises; where values are not read it is NaN."""
    singular = torch.ones(2, 2, dtype=torch.float64)
    p = MVN(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    object.__setattr__(p, "cov", singular)
    with pytest.raises(ValueError, match="cov was not positive definite; it must be positive definite"):
        multivariate.entropy(p)
    assert torch.func.vmap(multivariate._cholesky)(singular[None]).isnan().all()
