"""The evidence lower bound of a diffusion model, in its two decompositions, and the losses made of its terms.

All is in nats and per example, summed over the event.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import torch

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    per_example,
    require,
    require_all,
    require_callable,
    require_float,
    require_generator,
    require_like,
)
from dmlib.diffusion.contracts import Decoder, called, decoded, require_model, require_prediction
from dmlib.diffusion.forward import q_marginal, q_posterior, q_sample, q_transition
from dmlib.diffusion.parameterization import Network, elbo_weight, scheduled_target
from dmlib.diffusion.schedule import NoiseSchedule, require_schedule
from dmlib.diffusion.variances import optimal_variance as optimal_variance
from dmlib.probability import gaussian, likelihoods
from dmlib.probability.elbo import ElboTerms
from dmlib.probability.gaussian import Gaussian
from dmlib.probability.mixture import Denoiser

Variance = str | Tensor | Callable[[Tensor, Tensor], Tensor]


def p_transition(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_t: Tensor,
    t: Tensor,
    *,
    s: Tensor | None = None,
    variance: Variance = "posterior",
) -> Gaussian:
    """The model's distribution of the earlier x_s given x_t: `reverse_step` at the denoiser's prediction.

    Eq. [eq-reverse-step].
    """
    require_schedule(schedule)
    require_callable(denoiser, "denoiser")
    require_float(x_t, "x_t")
    schedule.check(t, x_t)
    return reverse_step(schedule, require_prediction(denoiser(x_t, t), x_t), x_t, t, s=s, variance=variance)


def reverse_step(
    schedule: NoiseSchedule,
    x_0_hat: Tensor,
    x_t: Tensor,
    t: Tensor,
    *,
    s: Tensor | None = None,
    variance: Variance = "posterior",
) -> Gaussian:
    """The Gaussian of x_s given x_t whose mean is that of `q_posterior` at x_0_hat; s is t - 1 unless given.

    Its variance is "posterior", that of `q_posterior` (0 at s = 0); "beta", what the noising from s to t adds;
    a table [T+1], read at t; or a function (x_t, t) that gives [B] or [B, *event]. Raises where it is negative.
    Eq. [eq-reverse-step].
    """
    posterior = q_posterior(schedule, x_0_hat, x_t, t, s)
    known = variance in ("posterior", "beta") if isinstance(variance, str) else isinstance(variance, Tensor)
    ok = known or (callable(variance) and not isinstance(variance, str))
    was = repr(variance) if isinstance(variance, str) else type(variance).__name__
    require(ok, "variance", was, "'posterior', 'beta', a table or a function")
    if isinstance(variance, str):
        if variance == "posterior":
            return posterior
        var = schedule.at(schedule.beta, t, x_t) if s is None else q_transition(schedule, x_t, s, t).var
    else:
        if isinstance(variance, Tensor):
            require_float(variance, "variance")
        var = schedule.at(variance, t, x_t) if isinstance(variance, Tensor) else called(variance(x_t, t), x_t)
        require_all(var >= 0, "variance", var, "at least 0")
    return Gaussian(posterior.mean, var.expand_as(x_t))


def denoising_form(
    denoiser: Denoiser, schedule: NoiseSchedule, x_0: Tensor, noises: Iterable[Tensor], decoder: Decoder
) -> ElboTerms:
    """The bound with each step compared to the posterior of the data; transitions are those of t = 2..T.

    `noises` gives T tensors [B, *event], read one at a time: noise t makes x_t from x_0. A sum of expectations
    of single x_t, so that they need not come from one path. Exact in expectation. Eq. [eq-denoising-form].
    """
    require_model(denoiser, schedule, decoder)
    require_float(x_0, "x_0")
    require(isinstance(noises, Iterable), "noises", type(noises).__name__, "T tensors, one at a time")
    i, costs = 0, []
    for i, noise in enumerate(noises, 1):
        require(i <= schedule.T, "the number of noises", f"at least {i}", f"T, which is {schedule.T}")
        t = _filled(i, x_0)
        x_t = q_sample(schedule, x_0, t, noise)
        if i == 1:
            reconstruction = decoded(decoder, x_0, x_t)
        else:
            posterior = q_posterior(schedule, x_0, x_t, t)
            costs.append(gaussian.kl(posterior, p_transition(denoiser, schedule, x_t, t)))
    require(i == schedule.T, "the number of noises", i, f"T, which is {schedule.T}")
    return ElboTerms(reconstruction, prior_kl(schedule, x_0), _columns(costs, x_0))


def consistency_form(
    denoiser: Denoiser, schedule: NoiseSchedule, x_0: Tensor, path: Tensor, decoder: Decoder
) -> ElboTerms:
    """The bound with each step compared to the one that noises: q(x_t given x_{t-1}) against p(x_t given x_{t+1}).

    path is [T+1, B, *event], drawn from q step by step, with path[0] = x_0; transitions are the log-ratios of
    t = 1..T-1 along it. Their expectation is no divergence, because x_t depends on x_{t+1} too; the prior is one.
    Eq. [eq-clean-free-bound].
    """
    require_model(denoiser, schedule, decoder)
    require_float(x_0, "x_0")
    require_float(path, "path")
    require(path.dim() >= 2, "the shape of path", tuple(path.shape), "(T + 1, B, *event)")
    require(len(path) == schedule.T + 1, "the length of path", len(path), f"T + 1, which is {schedule.T + 1}")
    require_like(path[0], "path[0]", x_0, "x_0")
    require_all(path[0] == x_0, "path[0]", path[0], "x_0")
    costs, last = [], _filled(schedule.T, x_0)
    for i in range(1, schedule.T):
        t = _filled(i, x_0)
        forward = gaussian.log_prob(q_transition(schedule, path[i - 1], t - 1, t), path[i])
        costs.append(forward - gaussian.log_prob(p_transition(denoiser, schedule, path[i + 1], t + 1), path[i]))
    end = q_transition(schedule, path[-2], last - 1, last)
    prior = gaussian.kl(end, gaussian.standard(end.mean))
    return ElboTerms(decoded(decoder, x_0, path[1]), prior, _columns(costs, x_0))


def prior_kl(schedule: NoiseSchedule, x_0: Tensor) -> Float[Tensor, " B"]:
    """The divergence of q(x_T given x_0) from the standard normal that sampling starts from.

    Eq. [eq-gaussian-kl-standard].
    """
    require_schedule(schedule)
    require_float(x_0, "x_0")
    last = q_marginal(schedule, x_0, _filled(schedule.T, x_0))
    return gaussian.kl(last, gaussian.standard(last.mean))


def discretized_decoder(denoiser: Denoiser, schedule: NoiseSchedule, levels: int) -> Decoder:
    """The decoder that gives levels the masses of Gaussian bins around the prediction from x_1.

    The standard deviation is sqrt(beta_1); x_0 lies on the grid of `likelihoods.to_unit`, anything else raises.
    Eq. [eq-discretized-decoder], [eq-discretized-gaussian]; [Ho2020].
    """
    require_model(denoiser, schedule)
    levels = integer(levels, "levels", 2)
    return functools.partial(_discretized, denoiser, schedule.beta[1].log() / 2, levels)


def rounding_decoder(schedule: NoiseSchedule, levels: int) -> Decoder:
    """The decoder without parameters: p(x_0 given x_1) proportional to q(x_1 given x_0) over the levels.

    Each pixel is normalized over its `levels` levels; x_0 lies on the grid of `likelihoods.to_unit`.
    Eq. [eq-rounding-decoder]; [Kingma2021].
    """
    require_schedule(schedule)
    levels = integer(levels, "levels", 2)
    grid = likelihoods.to_unit(torch.arange(levels), levels, dtype=torch.float64) * schedule.alpha_bar[1].sqrt()
    scale = (2 * (1 - schedule.alpha_bar[1])).rsqrt()
    return functools.partial(_rounded, grid, scale, levels)


def draw(x_0: Tensor, schedule: NoiseSchedule, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a loss needs besides the data: t uniform on 1..T [B], and standard normal noise like x_0."""
    require_schedule(schedule)
    require_generator(generator)
    require_float(x_0, "x_0")
    t = torch.randint(1, schedule.T + 1, x_0.shape[:1], generator=generator, device=x_0.device)
    return t, torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype, device=x_0.device)


def simple_loss(
    network: Network, x_0: Tensor, t: Tensor, noise: Tensor, *, schedule: NoiseSchedule, kind: str
) -> Float[Tensor, " B"]:
    """The squared error of a network whose predictions are of this kind, summed over the event.

    Unweighted, so not the bound. Eq. [eq-simple-loss]; [Ho2020].
    """
    require_callable(network, "network")
    x_t = q_sample(schedule, x_0, t, noise)
    pred = require_prediction(network(x_t, t), x_t)
    return per_example((pred - scheduled_target(kind, schedule, x_0, t, noise)) ** 2)


def elbo_loss(
    denoiser: Denoiser, x_0: Tensor, t: Tensor, noise: Tensor, *, schedule: NoiseSchedule, decoder: Decoder
) -> Float[Tensor, " B"]:
    """The negative bound, estimated without bias from the one term of time t: T times it, plus the prior's.

    For t uniform on 1..T; the term of t = 1 is the negative reconstruction.
    Eq. [eq-one-term-loss], [eq-predict-weights].
    """
    require_model(denoiser, schedule, decoder)
    x_t = q_sample(schedule, x_0, t, noise)
    x_0_hat = require_prediction(denoiser(x_t, t), x_t)
    steps = elbo_weight("x_0", schedule.alpha_bar[2:], schedule.alpha_bar[1:-1])
    weight = torch.cat([steps.new_zeros(2), steps])
    step = per_example(schedule.at(weight, t, x_0) * (x_0 - x_0_hat) ** 2)
    first = -decoded(
        decoder, x_0, q_sample(schedule, x_0, torch.ones_like(t), noise)
    )  # of all, as no value of t may be read
    return prior_kl(schedule, x_0) + schedule.T * torch.where(t == 1, first, step)


def _discretized(denoiser: Denoiser, log_scale: Tensor, levels: int, x_0: Tensor, x_1: Tensor) -> Float[Tensor, " B"]:
    require_float(x_0, "x_0")
    require_like(x_1, "x_1", x_0, "x_0")
    mean = require_prediction(denoiser(x_1, _filled(1, x_1)), x_1)
    return likelihoods.discretized_gaussian(mean, log_scale, _on_grid(x_0, levels), levels)


def _rounded(grid: Tensor, scale: Tensor, levels: int, x_0: Tensor, x_1: Tensor) -> Float[Tensor, " B"]:
    require_float(x_0, "x_0")
    require_like(x_1, "x_1", x_0, "x_0")
    means, precise = (c.to(x_1.dtype).to(x_1.device, non_blocking=True) for c in (grid, scale))
    logits = -(((x_1[..., None] - means) * precise) ** 2)  # [B, *event, levels]
    return likelihoods.categorical(logits, _on_grid(x_0, levels))


def _filled(t: int, like: Tensor) -> Tensor:
    """Time t for each example of `like`: int64 [B]."""
    return torch.full(like.shape[:1], t, dtype=torch.int64, device=like.device)


def _columns(costs: list[Tensor], x_0: Tensor) -> Tensor:
    """N costs [B] as [B, N], also for N = 0."""
    return torch.stack(costs, 1) if costs else x_0.new_empty(len(x_0), 0)


def _on_grid(x_0: Tensor, levels: int) -> Tensor:
    """The levels of x_0; raises where its values are readable and lie off the grid."""
    x_levels = likelihoods.to_levels(x_0, levels)
    near = (x_0 - likelihoods.to_unit(x_levels, levels, dtype=x_0.dtype)).abs() * levels < 1e-2
    require_all(near, "x_0", x_0, f"one of the {levels} levels on [-1, 1]")
    return x_levels
