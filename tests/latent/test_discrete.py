"""Gradients through a choice against enumeration; quantization against all distances; a VQVAE against its joint."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence
from torch.nn.functional import one_hot

from dmlib import networks
from dmlib.latent import discrete
from dmlib.latent.discrete import (
    VectorQuantizer,
    gumbel,
    gumbel_softmax,
    kl_to_uniform,
    leave_one_out,
    perplexity,
    score_function,
    straight_through,
)
from dmlib.latent.vqvae import VQVAE
from dmlib.probability import likelihoods

B, N, V, DIM = 5, 2, 3, 4


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def uniform(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


LOGITS = normal(1, B, N, V)
STATES = torch.tensor(list(itertools.product(range(V), repeat=N)))  # [9, N]
COSTS = normal(2, len(STATES), B)


def assert_near(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=atol)


def log_probs_of(logits: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    """Of choices idx [S,N] under logits [B,N,V]: [S,B]."""
    table = logits.log_softmax(-1)
    return torch.stack([table[:, torch.arange(N), row].sum(1) for row in idx])


# --- Gradients through a choice


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other() -> None:
    hard, soft = normal(3, B, V).requires_grad_(), (1e8 * normal(4, B, V)).requires_grad_()
    out = straight_through(hard, soft)
    assert torch.equal(out, hard)
    weights = normal(5, B, V)
    out.backward(weights)
    assert torch.equal(soft.grad, weights)
    assert hard.grad is None


def test_gumbel_noise_has_the_distribution_of_gumbel() -> None:
    u = torch.tensor([0.01, 0.3, 0.5, 0.99], dtype=torch.float64)
    assert_near(torch.exp(-torch.exp(-gumbel(u))), u)
    assert torch.isfinite(gumbel(torch.tensor([0.0, 1 - 2**-24]))).all()
    assert gumbel(torch.tensor(0.0)) < -4


def test_the_largest_noisy_logit_is_a_draw() -> None:
    draws = 40_000
    logits = LOGITS[:1].expand(draws, N, V)
    hard = gumbel_softmax(logits, uniform(6, draws, N, V), 0.7, hard=True)
    assert torch.equal(hard.sum(-1), torch.ones(draws, N, dtype=torch.float64))
    assert torch.equal(hard, hard.round())
    shares, probs = hard.mean(0), LOGITS[0].softmax(-1)
    assert ((shares - probs).abs() / (probs * (1 - probs) / draws).sqrt()).max() < 4


def test_a_relaxed_draw_is_a_softmax_and_sharpens_to_the_hard_one() -> None:
    u = uniform(7, B, N, V)
    noisy = LOGITS - torch.log(-torch.log(u))
    for tau in (0.3, 1, 2.5):
        weights = torch.exp(noisy / tau)
        assert_near(gumbel_softmax(LOGITS, u, tau), weights / weights.sum(-1, keepdim=True))
    assert_near(gumbel_softmax(LOGITS, u, 1e-4), gumbel_softmax(LOGITS, u, 3.0, hard=True), atol=1e-6)


def test_a_hard_draw_has_the_gradient_of_the_relaxed_one() -> None:
    u, weights = uniform(8, B, N, V), normal(9, B, N, V)
    grads = []
    for hard in (False, True):
        logits = LOGITS.clone().requires_grad_()
        (gumbel_softmax(logits, u, 0.5, hard=hard) * weights).sum().backward()
        grads.append(logits.grad)
    assert_near(*grads)
    assert grads[0].abs().max() > 1e-3


def test_the_divergence_from_uniform_is_that_of_torch() -> None:
    expected = kl_divergence(Categorical(logits=LOGITS), Categorical(logits=torch.zeros_like(LOGITS))).sum(1)
    assert_near(kl_to_uniform(LOGITS), expected)
    one_hot_logits = torch.full((1, N, V), -1e4, dtype=torch.float64)
    one_hot_logits[:, :, 0] = 0
    assert_near(kl_to_uniform(one_hot_logits), torch.tensor([N * math.log(V)], dtype=torch.float64))


def gradients(estimator, draws: int, **more: object) -> tuple[torch.Tensor, torch.Tensor]:
    """All gradients of the estimator in the logits of each batch of `draws` states, and their probabilities."""
    found, probs = [], []
    for rows in itertools.product(range(len(STATES)), repeat=draws):
        logits = LOGITS.clone().requires_grad_()
        log_probs = log_probs_of(logits, STATES[list(rows)])
        estimator(COSTS[list(rows)], log_probs, **more).sum().backward()
        found.append(logits.grad)
        probs.append(log_probs.detach().sum(0).exp())
    return torch.stack(found), torch.stack(probs)


def exact_gradient() -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    (log_probs_of(logits, STATES).exp() * COSTS).sum().backward()
    return logits.grad


@pytest.mark.parametrize(
    ("estimator", "draws", "more"),
    [
        (score_function, 1, {}),
        (score_function, 2, {}),
        (score_function, 2, {"baseline": torch.linspace(-1, 2, B, dtype=torch.float64)}),
        (leave_one_out, 2, {}),
        (leave_one_out, 3, {}),
    ],
)
def test_score_function_gradients_are_exact_on_average(estimator, draws, more) -> None:
    grads, probs = gradients(estimator, draws, **more)
    assert_near(probs.sum(0), torch.ones(B, dtype=torch.float64))
    assert_near((probs[:, :, None, None] * grads).sum(0), exact_gradient())


def test_leave_one_out_is_its_own_formula() -> None:
    losses, log_probs = normal(10, 4, B), normal(11, 4, B).requires_grad_()
    leave_one_out(losses, log_probs).sum().backward()
    expected = torch.stack([
        (losses[s] - sum(losses[r] for r in range(4) if r != s) / 3) / 4 for s in range(4)
    ])  # fmt: skip
    assert_near(log_probs.grad, expected)


def test_a_surrogate_has_the_value_of_the_mean_loss_and_passes_the_gradient_of_the_losses() -> None:
    losses, log_probs = normal(12, 3, B).requires_grad_(), normal(13, 3, B)
    for estimator in (score_function, leave_one_out):
        out = estimator(losses, log_probs)
        assert torch.equal(out, losses.mean(0))
        (grad,) = torch.autograd.grad(out.sum(), losses)
        assert_near(grad, torch.full_like(grad, 1 / 3))


def test_a_baseline_is_a_constant_and_is_taken_off() -> None:
    baseline = torch.linspace(1, 3, B, dtype=torch.float64).requires_grad_()
    losses, log_probs = normal(15, 2, B), normal(14, 2, B).requires_grad_()
    score_function(losses, log_probs, baseline).sum().backward()
    assert baseline.grad is None
    assert_near(log_probs.grad, (losses - torch.linspace(1, 3, B, dtype=torch.float64)) / 2)


# --- Codebooks


def quantizer() -> VectorQuantizer:
    made = VectorQuantizer(V, DIM).double()
    made.codebook.data.copy_(normal(16, V, DIM))
    return made


def test_a_codebook_starts_standard_normal() -> None:
    torch.manual_seed(0)
    book = VectorQuantizer(500, 40).codebook
    assert book.shape == (500, 40)
    assert abs(book.mean().item()) < 0.03
    assert abs(book.std().item() - 1) < 0.03


def test_the_nearest_code_is_that_of_all_distances() -> None:
    vq, z_e = quantizer(), normal(17, B, N, DIM)
    found = vq(z_e)
    distances = torch.stack([(z_e - code).square().sum(-1) for code in vq.codebook])  # [V, B, N]
    assert torch.equal(found.idx, distances.argmin(0))
    assert torch.equal(found.z_q, vq.codebook[found.idx])
    least = distances.amin(0).sum(1)
    assert_near(found.codebook_loss, least)
    assert_near(found.commitment_loss, least)


def test_each_loss_moves_its_own_side_and_the_reconstruction_passes_to_the_encoder() -> None:
    vq, z_e = quantizer(), normal(18, B, N, DIM).requires_grad_()
    found = vq(z_e)
    away = 2 * (z_e - vq.codebook[found.idx]).detach()
    one = torch.autograd.grad(found.commitment_loss.sum(), (z_e, vq.codebook), allow_unused=True, retain_graph=True)
    assert_near(one[0], away)
    assert one[1] is None
    two = torch.autograd.grad(found.codebook_loss.sum(), (z_e, vq.codebook), allow_unused=True, retain_graph=True)
    assert two[0] is None
    expected = torch.zeros_like(vq.codebook).index_add(0, found.idx.flatten(), -away.flatten(0, 1))
    assert_near(two[1], expected.detach())
    three = torch.autograd.grad(found.z_q.sum(), (z_e, vq.codebook), allow_unused=True)
    assert torch.equal(three[0], torch.ones_like(z_e))
    assert three[1] is None


def test_dead_codes_are_put_on_vectors_and_the_others_stay() -> None:
    vq = VectorQuantizer(6, 2).double()
    far = 100.0 * torch.arange(1, 7, dtype=torch.float64)[:, None].expand(6, 2)
    vq.codebook.data.copy_(far)
    vq.codebook.data[2] = 0.0
    z_e = normal(19, B, N, 2)
    before = vq.codebook.detach().clone()
    assert vq.restart(z_e, generator=generator(0)) == 5
    assert torch.equal(vq.codebook[2], before[2])
    rows = z_e.flatten(0, 1)
    moved = vq.codebook.detach()[[0, 1, 3, 4, 5]]
    where = [(rows == code).all(1).nonzero().item() for code in moved]
    assert len(set(where)) == 5
    assert vq.codebook.requires_grad
    one = VectorQuantizer(6, 2).double()
    one.codebook.data.copy_(before)
    one.restart(z_e, generator=generator(1))
    assert not torch.equal(one.codebook, vq.codebook)
    assert VectorQuantizer(2, 2).double().restart(z_e[:1, :1], generator=generator(0)) in (1, 2)


def test_more_dead_codes_than_vectors() -> None:
    vq = VectorQuantizer(7, 1).double()
    vq.codebook.data.copy_(torch.arange(50.0, 57.0)[:, None])
    z_e = torch.tensor([[[1.0], [2.0]]], dtype=torch.float64)
    assert vq.restart(z_e, generator=generator(0)) == 6
    assert vq.codebook[0] == 50  # The nearest one was alive.
    assert sorted(vq.codebook[1:].flatten().tolist()) == [1, 1, 1, 2, 2, 2]


def test_a_code_with_one_vector_is_alive() -> None:
    vq = VectorQuantizer(2, 1).double()
    vq.codebook.data.copy_(torch.tensor([[0.0], [9.0]]))
    z_e = torch.tensor([[[0.1], [0.2], [8.0]]], dtype=torch.float64)
    assert vq.restart(z_e, generator=generator(0)) == 0
    assert vq.codebook.flatten().tolist() == [0, 9]


def test_perplexity_counts_equally_used_codes() -> None:
    assert_near(perplexity(torch.arange(8).view(2, 4), 20), torch.tensor(8.0, dtype=torch.float64))
    assert_near(perplexity(torch.zeros(5, dtype=torch.int64), 20), torch.tensor(1.0, dtype=torch.float64))
    assert perplexity(torch.zeros(5, dtype=torch.int64), 1).item() == 1
    idx = torch.tensor([0, 0, 0, 1])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert perplexity(idx, 2).item() == pytest.approx(expected, abs=1e-12)


# --- A model of two binary pixels with choices


def model(prior: bool = True) -> VQVAE:
    spec = {
        **{"name": "vqvae", "event": (1, 2, 2), "positions": N, "n_codes": V, "dim": DIM, "hidden": (8,)},
        **{"likelihood": "categorical", "levels": 2, "prior_hidden": 5},
    }
    made = networks.build(spec, seed=3).double()
    if not prior:
        made.prior = None
    return made


X = torch.tensor(list(itertools.product(range(2), repeat=4))).view(16, 1, 2, 2)


def joint(vqvae: VQVAE, uniform: bool = False) -> torch.Tensor:
    """log p(x, codes) of all 16 images and all 9 rows of codes [16, 9]."""
    rows = [vqvae.likelihood(*(p.expand(16, *p.shape[1:]) for p in vqvae.decode(row[None])), X) for row in STATES]
    return torch.stack(rows, 1) + vqvae.log_prior(STATES, uniform)


@pytest.mark.parametrize("uniform", [False, True])
def test_the_bound_is_the_joint_at_the_codes_of_x_and_lies_under_the_evidence(uniform) -> None:
    vqvae = model()
    idx = vqvae.quantize(X).idx
    every = joint(vqvae, uniform)
    assert_near(every.exp().sum(), torch.ones((), dtype=torch.float64))
    place = (idx * torch.tensor([V, 1])).sum(1)
    bound = vqvae.elbo_terms(X, uniform).total
    assert_near(bound, every[torch.arange(16), place])
    assert_near(vqvae.elbo(X, uniform), bound)
    assert (bound < every.logsumexp(1)).all()


def test_the_loss_is_the_bound_under_a_uniform_prior_and_the_two_losses() -> None:
    vqvae = model()
    found = vqvae.quantize(X)
    for weight in (0.25, 2):
        expected = -vqvae.elbo_terms(X, uniform=True).total + found.codebook_loss + weight * found.commitment_loss
        assert_near(vqvae.loss(X, weight), expected)
    assert_near(vqvae.loss(X), vqvae.loss(X, 0.25))
    assert vqvae.uniform_cost == pytest.approx(N * math.log(V))


def test_without_a_prior_it_is_uniform() -> None:
    vqvae = model(prior=False)
    assert_near(vqvae.log_prior(STATES), torch.full((9,), -N * math.log(V), dtype=torch.float64))
    assert_near(vqvae.elbo_terms(X).total, vqvae.elbo_terms(X, uniform=True).total)
    assert vqvae.elbo_terms(X).transitions.shape == (16, 0)


def test_the_prior_reads_only_what_came_before() -> None:
    prior = networks.build({"name": "code_prior", "positions": 4, "n_codes": 5, "hidden": 6, "dim": 3}).double()
    idx = torch.randint(5, (8, 4), generator=generator(20))
    before = prior(idx)
    for i in range(4):
        changed = idx.clone()
        changed[:, i] = (idx[:, i] + 1) % 5
        moved = (prior(changed) - before).abs().amax((0, 2)) > 1e-9
        assert moved.tolist() == [j > i for j in range(4)]
    every = torch.tensor(list(itertools.product(range(5), repeat=4)))
    assert_near(likelihoods.categorical(prior(every), every).logsumexp(0), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("uniform", [False, True])
def test_codes_are_drawn_from_the_prior(uniform) -> None:
    vqvae = model()
    vqvae.prior.weight.data *= 3
    draws = 30_000
    idx = vqvae.sample_codes(draws, generator=generator(21), uniform=uniform)
    shares = torch.bincount((idx * torch.tensor([V, 1])).sum(1), minlength=9) / draws
    probs = vqvae.log_prior(STATES, uniform).exp()
    assert ((shares - probs).abs() / (probs * (1 - probs) / draws).sqrt()).max() < 4
    assert uniform == torch.allclose(probs, probs.new_full((9,), 1 / 9))


def test_samples_are_draws_or_means_of_the_decoder() -> None:
    vqvae = model()
    idx = vqvae.sample_codes(6, generator=generator(22))
    mean = vqvae.sample(6, generator=generator(22), mean=True)
    assert_near(mean, likelihoods.mean(vqvae.likelihood, *vqvae.decode(idx)))
    x = vqvae.sample(6, generator=generator(22))
    assert x.dtype == torch.int64
    assert x.shape == (6, 1, 2, 2)
    flat = vqvae.sample_codes(6, generator=generator(22), uniform=True)
    mean = vqvae.sample(6, generator=generator(22), mean=True, uniform=True)
    assert_near(mean, likelihoods.mean(vqvae.likelihood, *vqvae.decode(flat)))


def test_decoding_the_codes_of_x_is_what_the_bound_does() -> None:
    vqvae = model()
    (logits,) = vqvae.decode(vqvae.quantize(X).idx)
    assert_near(likelihoods.categorical(logits, X), vqvae.elbo_terms(X).reconstruction)


# --- Wrong calls


WRONG = [
    (lambda: straight_through(LOGITS, LOGITS[:1]), "the shape of hard was"),
    (lambda: gumbel(torch.tensor([0.5, 1.0])), "uniform was 1.0; it must be in"),
    (lambda: gumbel(torch.tensor([-0.1])), "uniform was -0.1"),
    (lambda: gumbel_softmax(LOGITS[0], LOGITS[0], 1.0), "the shape of logits was"),
    (lambda: gumbel_softmax(LOGITS, uniform(0, B, N, 2), 1.0), "the shape of uniform was"),
    (lambda: gumbel_softmax(LOGITS, uniform(0, B, N, V), 0), "tau was 0; it must be more than 0, and finite"),
    (lambda: gumbel_softmax(LOGITS, uniform(0, B, N, V), math.inf), "tau was inf"),
    (lambda: gumbel_softmax(LOGITS, uniform(0, B, N, V), "1"), "tau was '1'; it must be a number"),
    (lambda: kl_to_uniform(LOGITS[0]), "the shape of logits was"),
    (lambda: score_function(COSTS[:0], COSTS[:0]), "the number of draws was 0; it must be 1 or more"),
    (lambda: score_function(COSTS[0], COSTS[0]), "the shape of losses was"),
    (lambda: score_function(COSTS, COSTS[1:]), "the shape of log_probs was"),
    (lambda: score_function(COSTS, COSTS, COSTS), "the shape of baseline was"),
    (lambda: leave_one_out(COSTS[:1], COSTS[:1]), "the number of draws was 1; it must be 2 or more"),
    (lambda: VectorQuantizer(1, 2), "n_codes was 1; it must be an integer, 2 or more"),
    (lambda: VectorQuantizer(2, 0), "dim was 0; it must be an integer, 1 or more"),
    (lambda: quantizer()(normal(0, B, DIM)), "the shape of z_e was"),
    (lambda: quantizer()(normal(0, B, N, DIM).float()), "the dtype of z_e was torch.float32"),
    (lambda: quantizer().restart(normal(0, B, N, DIM), generator=None), "generator was NoneType"),
    (lambda: perplexity(torch.tensor([3]), 3), "idx was 3; it must be in 0..2"),
    (lambda: perplexity(torch.tensor([-1]), 3), "idx was -1; it must be in 0..2"),
    (lambda: perplexity(torch.tensor([1.0]), 3), "the dtype of idx was torch.float32"),
    (lambda: perplexity(torch.tensor([], dtype=torch.int64), 3), "the number of codes in idx was 0"),
    (lambda: VQVAE(nn.Identity(), quantizer(), None, max, 2), "decoder was NoneType; it must be a function"),
    (lambda: VQVAE(3, quantizer(), max, max, 2), "encoder was int; it must be a function"),
    (lambda: VQVAE(nn.Identity(), quantizer(), max, 1, 2), "likelihood was int; it must be a function"),
    (lambda: VQVAE(nn.Identity(), quantizer(), max, max, 0), "positions was 0; it must be an integer, 1 or more"),
    (lambda: model().decode(STATES[:, :1]), "the shape of idx was"),
    (lambda: model().log_prior(STATES[0]), "the shape of idx was"),
    (lambda: model().sample_codes(0, generator=generator(0)), "n was 0; it must be an integer, 1 or more"),
    (lambda: model().sample_codes(1, generator=None), "generator was NoneType"),
    (lambda: model().prior(STATES + 1), "idx was 3; it must be in 0..2"),
    (lambda: model().prior(STATES.int()), "the dtype of idx was torch.int32"),
    (lambda: model().prior(STATES[:, :1]), "the shape of idx was"),
]


@pytest.mark.parametrize(("call", "words"), WRONG)
def test_a_wrong_call_is_named(call, words, monkeypatch) -> None:
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as they are for a user
    with pytest.raises(ValueError, match="it must be") as raised:
        call()
    assert str(raised.value).startswith(words)


def test_one_hot_codes_pick_rows_of_the_codebook() -> None:
    vq, z_e = quantizer(), normal(23, B, N, DIM)
    found = vq(z_e)
    assert_near(one_hot(found.idx, V).double() @ vq.codebook, found.z_q)
    assert discrete.Quantized(*found).idx is found.idx
