"""The bounds on a table whose evidence is a sum, and the estimators against plain arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dmlib.probability import elbo
from dmlib.probability.elbo import ElboTerms

LOG_W = torch.tensor([[0.3, -1.0], [0.1, 2.0], [-0.7, 0.5]], dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def table() -> tuple[torch.Tensor, torch.Tensor]:
    """p(x, z) over two values of x and three of z, and an encoder q(z given x)."""
    g = torch.Generator().manual_seed(0)
    joint = torch.rand(2, 3, generator=g, dtype=torch.float64)
    return joint / joint.sum(), torch.rand(2, 3, generator=g, dtype=torch.float64).softmax(1)


def test_total_is_reconstruction_minus_the_costs() -> None:
    terms = ElboTerms(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25]), torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
    torch.testing.assert_close(terms.total, torch.tensor([1 - 0.5 - 0.3, 2 - 0.25 - 0.7]))
    assert terms[1] is terms.prior


def test_total_of_a_model_with_one_latent_has_no_transitions() -> None:
    terms = ElboTerms(torch.ones(4), torch.full((4,), 0.25), torch.zeros(4, 0))
    assert torch.equal(terms.total, torch.full((4,), 0.75))


def test_estimators_of_given_weights_by_hand() -> None:
    weights = LOG_W.exp()
    close(elbo.sgvb_a(LOG_W), (LOG_W[0] + LOG_W[1] + LOG_W[2]) / 3)
    close(elbo.sgvb_b(LOG_W, torch.tensor([2.0, 3.0]).double()), LOG_W.sum(0) / 3 - torch.tensor([2.0, 3.0]).double())
    close(elbo.iwae(LOG_W), torch.log((weights[0] + weights[1] + weights[2]) / 3))
    close(elbo.effective_sample_size(LOG_W), weights.sum(0) ** 2 / (weights**2).sum(0))


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_expected_bounds_on_a_table_by_enumeration(samples: int) -> None:
    joint, q = table()
    log_w = torch.log(joint / q)
    evidence = joint.sum(1).log()
    expected = {"a": 0.0, "b": 0.0, "iwae": 0.0}
    p_z = joint.sum(0)
    log_lik, kl = torch.log(joint / p_z), (q * torch.log(q / p_z)).sum(1)
    for draw in itertools.product(range(3), repeat=samples):
        chance, rows = q[:, draw].prod(1), (log_w[:, draw].T, log_lik[:, draw].T)
        expected["a"] = expected["a"] + chance * elbo.sgvb_a(rows[0])
        expected["b"] = expected["b"] + chance * elbo.sgvb_b(rows[1], kl)
        expected["iwae"] = expected["iwae"] + chance * elbo.iwae(rows[0])
    bound = (q * log_w).sum(1)
    posterior = joint / joint.sum(1, keepdim=True)
    close(expected["a"], bound)
    close(expected["b"], bound)
    close(bound + (q * torch.log(q / posterior)).sum(1), evidence)
    assert (expected["iwae"] >= bound - 1e-12).all()
    assert (expected["iwae"] <= evidence).all()
    assert (expected["iwae"] > bound + 1e-3).all() == (samples > 1)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(-1e4, 1e4))
def test_invariances(values: list[float], shift: float) -> None:
    log_w = torch.tensor(values, dtype=torch.float64)[:, None]
    a, iwae = elbo.sgvb_a(log_w), elbo.iwae(log_w)
    slack = 1e-9 * (1 + abs(shift))
    assert (a <= iwae + slack).all()
    assert (iwae <= log_w.max() + slack).all()
    torch.testing.assert_close(elbo.iwae(log_w + shift), iwae + shift, rtol=1e-12, atol=1e-10)
    size = elbo.effective_sample_size(log_w + shift).item()
    assert 1 - 1e-6 <= size <= len(values) + 1e-6


@pytest.mark.parametrize("shift", [-1e5, 0.0, 1e5])
def test_extreme_weights_neither_overflow_nor_vanish(shift: float) -> None:
    log_w = torch.full((4, 2), shift, dtype=torch.float64)
    close(elbo.iwae(log_w), log_w[0])
    close(elbo.effective_sample_size(log_w), torch.full((2,), 4.0, dtype=torch.float64))
    log_w[0] += 1000
    close(elbo.iwae(log_w), log_w[0] - math.log(4))
    close(elbo.effective_sample_size(log_w), torch.ones(2, dtype=torch.float64))


ESTIMATORS = [elbo.sgvb_a, elbo.iwae, elbo.effective_sample_size, lambda w: elbo.sgvb_b(w, torch.zeros(2))]


@pytest.mark.parametrize("fn", ESTIMATORS)
def test_bad_weights_are_named(fn: Callable) -> None:
    name = "(log_w|log_lik)"
    with pytest.raises(ValueError, match=rf"the shape of {name} was \(2,\); it must be \(any, any\)"):
        fn(torch.zeros(2))
    with pytest.raises(ValueError, match=rf"the dtype of {name} was torch.int64; it must be a floating-point"):
        fn(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"{name} was nan; it must be finite"):
        fn(torch.full((3, 2), math.nan))
    with pytest.raises(ValueError, match=rf"the number of samples of {name} was 0; it must be >= 1"):
        fn(torch.zeros(0, 2))


@given(st.integers(0, 4).filter(lambda n: n != 2))
def test_a_divergence_of_another_batch_is_named(size: int) -> None:
    with pytest.raises(ValueError, match=rf"the shape of kl was \({size},\); it must be \(2\)"):
        elbo.sgvb_b(LOG_W, torch.zeros(size, dtype=torch.float64))


def test_a_bad_divergence_is_named() -> None:
    with pytest.raises(ValueError, match=r"the dtype of kl was torch.float32; it must be torch.float64, that of log_l"):
        elbo.sgvb_b(LOG_W, torch.zeros(2))
    with pytest.raises(ValueError, match="kl was inf; it must be finite"):
        elbo.sgvb_b(LOG_W, torch.full((2,), math.inf, dtype=torch.float64))


def test_a_weight_of_zero_is_the_logarithm_minus_infinity() -> None:
    log_w = torch.tensor([[-math.inf, 0.0], [0.0, 0.0], [-math.inf, 0.0]], dtype=torch.float64, requires_grad=True)
    bound = elbo.iwae(log_w)
    close(bound.detach(), torch.tensor([-math.log(3), 0.0], dtype=torch.float64))
    (slope,) = torch.autograd.grad(bound.sum(), log_w)
    close(slope, torch.tensor([[0.0, 1 / 3], [1.0, 1 / 3], [0.0, 1 / 3]], dtype=torch.float64))
    assert elbo.iwae(torch.tensor([[-math.inf], [0.0]])).item() == pytest.approx(-0.6931, abs=1e-4)
    assert elbo.effective_sample_size(log_w).tolist() == [1, 3]
    assert elbo.sgvb_a(log_w).tolist() == elbo.sgvb_b(log_w, log_w[1]).tolist() == [-math.inf, 0]
    assert elbo.iwae(log_w[::2, :1]).tolist() == [-math.inf]
    with pytest.raises(ValueError, match=r"log_w was .*; it must be more than -inf for one sample or more"):
        elbo.effective_sample_size(log_w[::2])
    with pytest.raises(ValueError, match="log_w was inf; it must be finite"):
        elbo.iwae(-log_w)
