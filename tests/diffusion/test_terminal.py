"""A schedule that ends without any signal: what is defined there is exact, what is not is refused with its reason."""

from __future__ import annotations

import math

import pytest
import torch

from dmlib import rng
from dmlib.diffusion import bounds, forward, parameterization, sampling, schedule, variances
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.probability import gaussian, mixture
from dmlib.probability.mixture import Mixture

f64 = torch.float64
CHAIN = NoiseSchedule(torch.tensor([1.0, 0.9, 0.5, 0.2, 0.0], dtype=f64))
BELL = Mixture(torch.ones(1, dtype=f64), torch.tensor([[0.7]], dtype=f64), torch.tensor([0.4], dtype=f64))
EXACT = mixture.as_denoiser(BELL, CHAIN)


def network(kind: str):
    """The perfect network of this kind."""
    return lambda x_t, t: parameterization.from_x_0(kind, EXACT(x_t, t), x_t, CHAIN.alpha_bar[t])


def test_the_last_state_is_noise_alone() -> None:
    x_0, noise = torch.randn(2, 5, 1, dtype=f64, generator=rng.generator(0))
    last = torch.full((5,), 4)
    assert torch.equal(forward.q_sample(CHAIN, x_0, last, noise), noise)
    posterior, earlier = forward.q_posterior(CHAIN, x_0, noise, last), forward.q_marginal(CHAIN, x_0, last - 1)
    torch.testing.assert_close(posterior.mean, earlier.mean, rtol=1e-15, atol=0)  # x_T tells nothing of x_{T-1}.
    torch.testing.assert_close(posterior.var, earlier.var, rtol=1e-15, atol=0)
    assert CHAIN.beta[4] == 1
    assert CHAIN.snr[4] == 0
    assert CHAIN.log_snr[4] == -math.inf
    assert torch.equal(bounds.prior_kl(CHAIN, x_0), torch.zeros(5, dtype=f64))
    assert schedule.cosine(50, max_beta=1.0).alpha_bar[-1] == 0
    assert schedule.linear(50, 1e-4, 1.0).alpha_bar[-1] == 0


@pytest.mark.parametrize("kind", ["x_0", "v"])
def test_two_kinds_predict_the_data_from_noise_alone(kind: str) -> None:
    denoiser = parameterization.as_denoiser(network(kind), CHAIN, kind)
    x_T = torch.randn(5, 1, dtype=f64, generator=rng.generator(1))
    torch.testing.assert_close(denoiser(x_T, torch.full((5,), 4)), torch.full((5, 1), 0.7, dtype=f64))
    by_hand = torch.tensor([[0.0], [1.0]], dtype=f64)
    ends = sampling.ddim(denoiser, CHAIN, by_hand, eta=0.0, times=torch.arange(4, -1, -1)).x[-1]
    for t in range(4, 0, -1):
        a, b = CHAIN.alpha_bar[t], CHAIN.alpha_bar[t - 1]
        x_0 = EXACT(by_hand, torch.full((2,), t))
        by_hand = b.sqrt() * x_0 + (1 - b).sqrt() * (by_hand - a.sqrt() * x_0) / (1 - a).sqrt()
    torch.testing.assert_close(ends, by_hand, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["eps", "score"])
def test_two_kinds_say_nothing_there_and_are_refused(kind: str) -> None:
    denoiser = parameterization.as_denoiser(network(kind), CHAIN, kind)
    x_T = torch.randn(5, 1, dtype=f64, generator=rng.generator(1))
    reason = f"4; it must be such that {kind} at x_t determines x_0"
    with pytest.raises(ValueError, match=f"t was {reason}"):
        denoiser(x_T, torch.full((5,), 4))
    with pytest.raises(ValueError, match=f"t was {reason}"):
        sampling.ddim(denoiser, CHAIN, x_T, eta=0.0, times=torch.arange(4, -1, -1))
    with pytest.raises(ValueError, match=f"alpha_bar_t was 0.0; it must be such that {kind} at x_t determines x_0"):
        parameterization.elbo_weight(kind, CHAIN.alpha_bar[2:], CHAIN.alpha_bar[1:-1])
    assert denoiser(x_T, torch.full((5,), 3)).isfinite().all()


def test_the_bound_has_no_prior_term_and_its_last_step_costs_what_the_error_says() -> None:
    x_0 = torch.tensor([[0.3]], dtype=f64)
    errors = torch.full((1, 4), 0.25, dtype=f64)
    costs = variances.step_costs(CHAIN, errors, 1)
    assert costs[0, -1].item() == pytest.approx(0.25 * 0.25 / 2)  # Half of SNR(3) - 0, times the error.
    weights = parameterization.elbo_weight("x_0", CHAIN.alpha_bar[2:], CHAIN.alpha_bar[1:-1])
    torch.testing.assert_close(costs[0], weights * 0.25)
    noises, last = [torch.full_like(x_0, 0.2)] * 4, torch.tensor([4])
    terms = bounds.denoising_form(EXACT, CHAIN, x_0, noises, lambda x_0, x_1: torch.zeros(1, dtype=f64))
    assert terms.prior.item() == 0
    step = bounds.p_transition(EXACT, CHAIN, noises[3], last)
    kl = gaussian.kl(forward.q_posterior(CHAIN, x_0, noises[3], last), step)
    torch.testing.assert_close(terms.transitions[:, -1], kl)
