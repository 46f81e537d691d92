"""Every bound of a trained denoiser from one table of its errors: any variance of the steps, any of its times.

A reverse step's cost depends on the denoiser through the squared error of its prediction alone [eq-kl-snr-form], so
one pass over the times gives all the bounds. All is in nats and per example, summed over the event.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

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
    require_shape,
)
from dmlib.diffusion.contracts import require_prediction
from dmlib.diffusion.forward import q_posterior, q_sample
from dmlib.diffusion.schedule import NoiseSchedule, require_schedule
from dmlib.probability.mixture import Denoiser


def prediction_errors(
    denoiser: Denoiser, schedule: NoiseSchedule, x_0: Tensor, noises: Iterable[Tensor]
) -> Float[Tensor, "B times"]:
    """The squared error of the prediction of x_0 [B, *event] from x_t, summed over the event: column t - 1.

    `noises` has T tensors like x_0; noise t makes x_t. No gradients. Raises where there are fewer or more than T.
    """
    require_schedule(schedule)
    require_callable(denoiser, "denoiser")
    require_float(x_0, "x_0")
    require(isinstance(noises, Iterable), "noises", type(noises).__name__, "T tensors, one at a time")
    columns = []
    with torch.no_grad():
        for t, noise in enumerate(noises, start=1):
            require(t <= schedule.T, "the number of noises", f"{t} or more", f"T, which is {schedule.T}")
            require_like(noise, f"noise {t}", x_0, "x_0")
            times = torch.full((len(x_0),), t, dtype=torch.int64, device=x_0.device)
            x_t = q_sample(schedule, x_0, times, noise)
            columns.append(per_example((require_prediction(denoiser(x_t, times), x_t) - x_0) ** 2))
    require(len(columns) == schedule.T, "the number of noises", len(columns), f"T, which is {schedule.T}")
    return torch.stack(columns, 1)


def best_variance(schedule: NoiseSchedule, errors: Tensor, event_dims: int) -> Float[Tensor, " times"]:
    """The isotropic variance of each reverse step that costs least on average over `errors` [B, T].

    `errors` are those of `prediction_errors`, and `event_dims` counts the entries of one example. A table over t in
    float64, with 0 at t = 0 and 1, where there is no step to fit. Eq. [eq-optimal-variance]; [Bao2022].
    """
    _require_errors(schedule, errors, event_dims)
    require(len(errors) > 0, "the number of rows of errors", 0, "1 or more")
    posterior, weight = (table.to(errors.device) for table in _steps(schedule))
    mean = errors.double().mean(0)
    return posterior + weight**2 * torch.cat([mean.new_zeros(1), mean]) / event_dims


def optimal_variance(
    denoiser: Denoiser, schedule: NoiseSchedule, data: Tensor, *, generator: torch.Generator
) -> Float[Tensor, " times"]:
    """The isotropic variance of each reverse step that costs least on `data` [N, *event]: a table [T+1] in float64.

    The posterior's variance, plus the squared weight of x_0 times the denoiser's squared error in one entry of x_0,
    here its mean over the data, with one noise for each and each time. 0 at t = 0 and 1; no gradients.
    Eq. [eq-optimal-variance]; [Bao2022].
    """
    require_schedule(schedule)
    require_generator(generator)
    require_float(data, "data")
    fresh = functools.partial(torch.randn, generator=generator, dtype=data.dtype, device=data.device)
    noises = (fresh(data.shape) for _ in range(schedule.T))
    return best_variance(schedule, prediction_errors(denoiser, schedule, data, noises), data.shape[1:].numel())


def step_costs(
    schedule: NoiseSchedule, errors: Tensor, event_dims: int, variance: str | Tensor = "posterior"
) -> Float[Tensor, "B steps"]:
    """The divergence of each reverse step t = 2..T from the posterior, for denoising errors [B, T] of x_0.

    The variance of the steps is "posterior", "beta", or a table [T+1], more than 0 from t = 2 on.
    Float64. Eq. [eq-kl-to-squared-error], [eq-kl-variance-constant].
    """
    _require_errors(schedule, errors, event_dims)
    posterior, weight = (table.to(errors.device) for table in _steps(schedule))
    tables = {"posterior": posterior, "beta": schedule.beta}
    if isinstance(variance, str):
        require(variance in tables, "variance", repr(variance), "'posterior', 'beta' or a table [T+1]")
        variance = tables[variance]
    require_float(variance, "variance")
    require_shape(variance, "variance", schedule.T + 1)
    ours = variance[2:].double().to(errors.device)
    require_all(ours > 0, "variance", ours, "more than 0 from t = 2 on")
    ratio, of_error = posterior[2:] / ours, weight[2:] ** 2 / (2 * ours)
    return event_dims / 2 * (ratio - 1 - ratio.log()) + of_error * errors[:, 1:].double()


def _steps(schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """Tables over t = 0..T: the posterior's variance, and the weight of x_0 in its mean; 0 for t < 2."""
    t = torch.arange(2, schedule.T + 1)
    unit = torch.ones(len(t), 1, dtype=torch.float64)
    steps = q_posterior(schedule, unit, torch.zeros_like(unit), t)
    none = torch.zeros(2, dtype=torch.float64)
    return torch.cat([none, steps.var[:, 0]]), torch.cat([none, steps.mean[:, 0]])


def _require_errors(schedule: NoiseSchedule, errors: Tensor, event_dims: int) -> None:
    require_schedule(schedule)
    require_float(errors, "errors")
    require_shape(errors, "errors", None, schedule.T)
    require_all(errors >= 0, "errors", errors, "0 or more")
    event_dims = integer(event_dims, "event_dims", 1)
