"""From noise to data with any Denoiser: ancestral sampling, DDIM and Heun's method, over all steps or a few.

A sampler that skips times is the full sampler of the shorter schedule that holds the times it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from dmlib.checks import (
    Tensor,
    integers,
    require,
    require_callable,
    require_float,
    require_generator,
    require_number,
    require_shape,
)
from dmlib.diffusion.bounds import Variance, reverse_step
from dmlib.diffusion.contracts import require_prediction
from dmlib.diffusion.schedule import NoiseSchedule, require_schedule
from dmlib.probability.gaussian import Gaussian, sample
from dmlib.probability.mixture import Denoiser


class Trajectory(NamedTuple):
    """The states at the kept times, and what was predicted from each, in the order in which they were passed."""

    x: Tensor  # [N+1, B, *event], the state at t[i]
    x_0_hat: Tensor  # [N, B, *event], the prediction from the state at t[i]; none from the last state of a path
    t: Tensor  # int64 [N+1] on the CPU


def ancestral(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    generator: torch.Generator,
    times: Sequence[int] | Tensor | None = None,
    variance: Variance = "posterior",
    keep: Sequence[int] | Tensor | None = None,
) -> Trajectory:
    """The path of the model's own reverse steps, from x_T [B, *event] down to time 0.

    `times` [N+1] strictly decrease to 0 (default T..0), and x_T belongs to the first; `keep` are those stored
    (default all). `variance` is that of `reverse_step`, for the steps between the times; the step to 0 is its mean.
    No gradients. Eq. [eq-ancestral-step]; [Ho2020].
    """
    require_schedule(schedule)
    require_generator(generator)
    chosen = _chosen(schedule, times)
    short = _shortened(schedule, chosen)
    if isinstance(variance, Tensor):
        require_shape(variance, "variance", schedule.T + 1)
        variance = variance[chosen.flip(0).to(variance.device)]
    elif callable(variance):
        variance = _at_times(variance, chosen)

    def step(x: Tensor, x_0_hat: Tensor, i: int) -> Gaussian:
        return reverse_step(short, x_0_hat, x, _filled(i, x), variance=variance)

    _require_state(x_T, "x_T")
    return _run(denoiser, step, x_T, chosen, keep, generator)


def ddim(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    times: Sequence[int] | Tensor,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    keep: Sequence[int] | Tensor | None = None,
) -> Trajectory:
    """The path of steps that keep the share 1 - eta^2 of their noise: deterministic at eta = 0.

    At eta = 1 they are the ancestral steps with the posterior variance, from the same draws. eta is in [0, 1]; above
    0 it needs a generator. `times`, x_T and `keep` are those of `ancestral`. No gradients.
    Eq. [eq-ddim-step]; [Song2021DDIM].
    """
    require_schedule(schedule)
    require_number(eta, "eta")
    require(0 <= eta <= 1, "eta", eta, "in [0, 1]")
    require(eta == 0 or generator is not None, "generator", None, "a torch.Generator where eta > 0")
    if generator is not None:
        require_generator(generator)
    chosen = _chosen(schedule, times)
    short = _shortened(schedule, chosen)
    tables = _ddim_tables(short.alpha_bar, eta)

    def step(x: Tensor, x_0_hat: Tensor, i: int) -> Gaussian:
        of_x_0, of_x_t, var = (short.at(table, _filled(i, x), x) for table in tables)
        return Gaussian(of_x_0 * x_0_hat + of_x_t * x, var.expand_as(x))

    _require_state(x_T, "x_T")
    return _run(denoiser, step, x_T, chosen, keep, generator if eta > 0 else None)


def heun(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    times: Sequence[int] | Tensor,
    keep: Sequence[int] | Tensor | None = None,
) -> Trajectory:
    """The path of DDIM steps taken again, with the mean of the velocities at both ends: second order in the steps.

    Heun's method along the angle whose sine is sqrt(1 - alpha_bar). A step takes two calls of the denoiser; the one
    to 0 takes one and is DDIM's own. The rest is as in `ancestral`. No gradients. Eq. [eq-heun-step]; [Karras2022].
    """
    require_schedule(schedule)
    _require_state(x_T, "x_T")
    chosen = _chosen(schedule, times)
    short = _shortened(schedule, chosen)
    tables = (*_ddim_tables(short.alpha_bar, 0.0)[:2], _half_turns(short.alpha_bar))

    def velocity(x: Tensor, x_0_hat: Tensor, i: int) -> Tensor:
        signal, noise = (short.at(table.sqrt(), _filled(i, x), x) for table in (short.alpha_bar, 1 - short.alpha_bar))
        return (signal * x - x_0_hat) / noise

    def step(x: Tensor, x_0_hat: Tensor, i: int) -> Gaussian:
        at_x_0, at_x_t, turn = (short.at(table, _filled(i, x), x) for table in tables)
        earlier = at_x_0 * x_0_hat + at_x_t * x
        if i > 1:
            there = require_prediction(denoiser(earlier, _filled(int(chosen[-i]), x)), x)
            earlier = x - turn * (velocity(x, x_0_hat, i) + velocity(earlier, there, i - 1))
        return Gaussian(earlier, torch.zeros_like(x))

    return _run(denoiser, step, x_T, chosen, keep, None)


def ddim_inverse(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    times: Sequence[int] | Tensor,
    keep: Sequence[int] | Tensor | None = None,
) -> Trajectory:
    """The path from data x_0 [B, *event] to noise of the deterministic DDIM, run backwards; t increases.

    `times` [N+1] strictly increase from 0 to at most T. A step keeps what is predicted where it starts; at time 0 that
    is x_0 and no noise. `keep` is that of `ancestral`. No gradients. Eq. [eq-ddim-inverse]; [Song2021DDIM].
    """
    require_schedule(schedule)
    up = torch.tensor(integers(times, "times"), dtype=torch.int64)
    require(len(up) >= 2, "the length of times", len(up), "at least 2")
    require(up[0].item() == 0, "the first of times", up[0].item(), "0, the data")
    require(up[-1].item() <= schedule.T, "the last of times", up[-1].item(), f"at most T, which is {schedule.T}")
    require(bool((up.diff() > 0).all()), "times", up.tolist(), "strictly increasing")
    short = NoiseSchedule(schedule.alpha_bar[up])
    earlier, later = short.alpha_bar[:-1], short.alpha_bar[1:]
    of_x = torch.where(earlier < 1, ((1 - later) / (1 - earlier)).sqrt(), 0.0)
    tables = [torch.cat([w.new_zeros(1), w]) for w in (later.sqrt() - of_x * earlier.sqrt(), of_x)]

    def step(x: Tensor, x_0_hat: Tensor, i: int) -> Gaussian:
        at_x_0, at_x = (short.at(table, _filled(len(up) - i, x), x) for table in tables)
        return Gaussian(at_x_0 * x_0_hat + at_x * x, torch.zeros_like(x))

    _require_state(x_0, "x_0")
    return _run(denoiser, step, x_0, up, keep, None)


def _ddim_tables(alpha_bar: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of x_0_hat and x_t in the mean of the step from t to t - 1, and its variance, over t."""
    earlier = torch.cat([alpha_bar[:1], alpha_bar[:-1]])
    fresh = (earlier - alpha_bar) / (earlier * (1 - alpha_bar))  # at eta = 1, the new share of the noise in x_{t-1}
    kept = (1 - eta**2) + eta**2 * (alpha_bar / earlier) * (1 - earlier) / (1 - alpha_bar)  # 1 - eta^2 fresh
    of_x_t = ((1 - earlier) * kept / (1 - alpha_bar)).sqrt()
    return earlier.sqrt() - of_x_t * alpha_bar.sqrt(), of_x_t, eta**2 * fresh * (1 - earlier)


def _half_turns(alpha_bar: Tensor) -> Tensor:
    """tan(h / 2) over t, where h is the angle between the times t and t - 1; 0 at t = 0."""
    angle = torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())
    return torch.cat([angle[:1], (angle.diff() / 2).tan()])


@torch.no_grad()
def _run(
    denoiser: Denoiser,
    step: Callable[[Tensor, Tensor, int], Gaussian],
    x: Tensor,
    times: Tensor,
    keep: Sequence[int] | Tensor | None,
    generator: torch.Generator | None,
) -> Trajectory:
    """The states that `step` (x, x_0_hat, steps left) leads through; without generator its means."""
    require_callable(denoiser, "denoiser")
    kept = _kept(keep, times)
    states, predictions = [], []
    for i, t in zip(range(len(times) - 1, 0, -1), times.tolist()):
        x_0_hat = x if t == 0 else require_prediction(denoiser(x, _filled(t, x)), x)
        if t in kept:
            states.append(x)
            predictions.append(x_0_hat)
        following = step(x, x_0_hat, i)
        x = following.mean if i == 1 or generator is None else sample(following, generator=generator)
    if times[-1].item() in kept:
        states.append(x)
    stored = torch.stack(predictions) if predictions else x.new_empty(0, *x.shape)
    return Trajectory(torch.stack(states), stored, torch.tensor([t for t in times.tolist() if t in kept]))


def _require_state(x: Tensor, name: str) -> None:
    require_float(x, name)
    require(x.dim() >= 1, f"the shape of {name}", tuple(x.shape), "(B, *event)")


def _filled(n: int, x: Tensor) -> Tensor:
    """The number n for each example of x: int64 [B]."""
    return torch.full(x.shape[:1], n, dtype=torch.int64, device=x.device)


def _chosen(schedule: NoiseSchedule, times: Sequence[int] | Tensor | None) -> Tensor:
    """The times as int64 [N+1] on the CPU; raises unless they strictly decrease from at most T to 0."""
    times = torch.tensor(integers(range(schedule.T, -1, -1) if times is None else times, "times"), dtype=torch.int64)
    require(len(times) >= 2, "the length of times", len(times), "at least 2")
    require(times[-1].item() == 0, "the last of times", times[-1].item(), "0, the data")
    require(times[0].item() <= schedule.T, "the first of times", times[0].item(), f"at most T, which is {schedule.T}")
    require(bool((times.diff() < 0).all()), "times", times.tolist(), "strictly decreasing")
    return times


def _kept(keep: Sequence[int] | Tensor | None, times: Tensor) -> set[int]:
    if keep is None:
        return set(times.tolist())
    kept = set(integers(keep, "keep"))
    require(len(kept) > 0, "keep", [], "some of times")
    foreign = sorted(kept - set(times.tolist()))
    require(not foreign, "keep", foreign, "among the times")
    return kept


def _shortened(schedule: NoiseSchedule, times: Tensor) -> NoiseSchedule:
    """The schedule of these times alone: its time i is the i-th from the end."""
    return NoiseSchedule(schedule.alpha_bar[times.flip(0)])


def _at_times(variance: Callable[[Tensor, Tensor], Tensor], times: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of (x_t, t) as one of (x_t, index in the short schedule)."""
    return lambda x, i: variance(x, times.flip(0).to(i.device, non_blocking=True)[i])
