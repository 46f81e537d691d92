"""Schedules and reverse steps: live/math/schedule.js and gaussian.js."""

from __future__ import annotations

import torch

from dmlib.diffusion import forward, schedule
from dmlib.probability import gaussian
from tools.vectors import Case

SHORT = schedule.linear(20, 0.02, 0.4)


def cases() -> list[Case]:
    """Tables, one reverse step, and a density."""
    tables = [
        Case("eq-schedule-linear", "alpha_bar, T = 20", "schedule.linear(20, 0.02, 0.4)", {}, SHORT.alpha_bar),
        Case("eq-schedule-linear", "alpha_bar, T = 1000", "schedule.linear(1000)", {}, schedule.linear(1000).alpha_bar),
        Case("eq-schedule-linear", "one step", "schedule.linear(1, 0.3, 0.9)", {}, schedule.linear(1, 0.3).alpha_bar),
        Case(
            "eq-schedule-linear",
            "two steps",
            "schedule.linear(2, 0.3, 0.9)",
            {},
            schedule.linear(2, 0.3, 0.9).alpha_bar,
        ),
        Case("eq-schedule-cosine", "alpha_bar, T = 50", "schedule.cosine(50)", {}, schedule.cosine(50).alpha_bar),
    ]
    x = torch.tensor([0.7], dtype=torch.float64)
    log_p = gaussian.log_prob(gaussian.Gaussian(torch.full_like(x, -0.4), torch.full_like(x, 0.3)), x)
    density = Case(
        "eq-gaussian-log-density", "the density at a point", "gaussian.density(-0.4, 0.3, 0.7)", {}, log_p.exp().item()
    )
    times = "the times of a shorter chain"
    evenly = Case("eq-ddim-step", times, "schedule.evenly(200, 7)", {}, [200, 171, 143, 114, 86, 57, 29, 0])
    return [*tables, density, evenly, *(reverse(t, s) for t, s in ((6, 5), (17, 3), (20, 19), (4, 0)))]


def reverse(t: int, s: int) -> Case:
    """One reverse step from t to s: prior, likelihood and posterior, each against its own function of dmlib."""
    x_0, x_t = (torch.tensor([value], dtype=torch.float64) for value in (1.2, -0.5))
    late, early = torch.tensor([t]), torch.tensor([s])
    one, zero = torch.ones_like(x_0), torch.zeros_like(x_0)
    step = forward.q_transition(SHORT, one, early, late)  # its mean is the weight of x_s
    prior = forward.q_marginal(SHORT, x_0, early) if s else gaussian.Gaussian(x_0, zero)
    posterior = forward.q_posterior(SHORT, x_0, x_t, late, early)
    weights = [forward.q_posterior(SHORT, *pair, late, early).mean.item() for pair in ((one, zero), (zero, one))]
    expected = {
        "prior": list(prior),
        "likelihood": [x_t / step.mean, step.var / step.mean**2],
        "posterior": list(posterior),
        "weights": weights,
    }
    call = f"schedule.reverse(alphaBar, 1.2, -0.5, {s}, {t})"
    return Case("eq-posterior-general", f"from t = {t} to s = {s}", call, {"alphaBar": SHORT.alpha_bar}, expected)
