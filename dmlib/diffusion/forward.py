"""The forward process: the distributions of noisy data, all of them Gaussian and known in closed form."""

from __future__ import annotations

import torch

from dmlib.checks import Float, Tensor, require_all, require_float, require_like, widest_dtype
from dmlib.diffusion.schedule import NoiseSchedule, require_schedule
from dmlib.probability.gaussian import Gaussian


def q_transition(schedule: NoiseSchedule, x_s: Tensor, s: Tensor, t: Tensor) -> Gaussian:
    """The distribution of x_t given x_s, for times 0 <= s < t <= T.

    Eq. [eq-noising-between].
    """
    require_schedule(schedule)
    require_float(x_s, "x_s")
    alpha_bar_s, alpha_bar_t = _pair(schedule, s, t, x_s)
    signal = (alpha_bar_t / alpha_bar_s).sqrt()
    var = (alpha_bar_s - alpha_bar_t) / alpha_bar_s
    return Gaussian(signal.to(x_s.dtype) * x_s, var.to(x_s.dtype).expand_as(x_s))


def q_marginal(schedule: NoiseSchedule, x_0: Tensor, t: Tensor) -> Gaussian:
    """The distribution of x_t given the data x_0, for times t in 1..T.

    Eq. [eq-noising-marginal].
    """
    require_schedule(schedule)
    require_float(x_0, "x_0")
    schedule.check(t, x_0)
    signal = schedule.at(schedule.alpha_bar.sqrt(), t, x_0)
    var = schedule.at(1 - schedule.alpha_bar, t, x_0)
    return Gaussian(signal * x_0, var.expand_as(x_0))


def q_sample(schedule: NoiseSchedule, x_0: Tensor, t: Tensor, noise: Tensor) -> Float[Tensor, "B *event"]:
    """The x_t that standard normal noise makes of x_0, for times t in 1..T.

    Distributed as `q_marginal` and a smooth function of x_0. Eq. [eq-noising-marginal], [eq-reparameterize].
    """
    require_schedule(schedule)
    require_float(x_0, "x_0")
    require_like(noise, "noise", x_0, "x_0")
    schedule.check(t, x_0)
    signal = schedule.at(schedule.alpha_bar.sqrt(), t, x_0)
    std = schedule.at((1 - schedule.alpha_bar).sqrt(), t, x_0)
    return signal * x_0 + std * noise


def q_posterior(schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor | None = None) -> Gaussian:
    """The distribution of the earlier x_s given x_t and the data x_0, for times 0 <= s < t <= T.

    s is t - 1 unless given. At s = 0 it is the point x_0, with variance exactly 0.
    Eq. [eq-posterior-general]; for s = t - 1 Eq. [eq-posterior-mean], [eq-posterior-variance].
    """
    require_schedule(schedule)
    require_float(x_0, "x_0")
    require_like(x_t, "x_t", x_0, "x_0")
    if s is None:
        schedule.check(t, x_0)
        tables = _posterior(torch.cat([schedule.alpha_bar[:1], schedule.alpha_bar[:-1]]), schedule.alpha_bar)
        weight_0, weight_t, var = (schedule.at(table, t, x_0) for table in tables)
    else:
        weight_0, weight_t, var = (c.to(x_0.dtype) for c in _posterior(*_pair(schedule, s, t, x_0)))
    return Gaussian(weight_0 * x_0 + weight_t * x_t, var.expand_as(x_0))


def _posterior(alpha_bar_s: Tensor, alpha_bar_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of x_0 and x_t in the posterior's mean, and its variance."""
    added = (alpha_bar_s - alpha_bar_t) / alpha_bar_s  # the variance of x_t given x_s
    weight_0 = alpha_bar_s.sqrt() * added / (1 - alpha_bar_t)
    weight_t = (alpha_bar_t / alpha_bar_s).sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return weight_0, weight_t, added * (1 - alpha_bar_s) / (1 - alpha_bar_t)


def _pair(schedule: NoiseSchedule, s: Tensor, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_bar at s and at t, [B, 1, .., 1] in float64 where there is one; raises unless 0 <= s < t <= T."""
    schedule.check(t, like)
    schedule.check(s, like, "s", first=0)
    require_all(s < t, "s", s, "less than t")
    dtype = widest_dtype(like.device)
    alpha_bar_s = schedule.at(schedule.alpha_bar, s, like, dtype)
    return alpha_bar_s, schedule.at(schedule.alpha_bar, t, like, dtype)
