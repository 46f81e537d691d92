"""Gaussian mixtures diffused by x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise: exact oracles.

All is computed in float64, over blocks of components, so that a large data set fits into the memory; results have the
dtype and device of x.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    require,
    require_all,
    require_beside,
    require_float,
    require_generator,
    require_kin,
    require_number,
    require_shape,
)

BLOCK = 2**20  # entries of the largest tensors: B times D times the components of a block
Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, *event], t int64 [B]) -> x_0_hat [B, *event]


@dataclass(frozen=True, eq=False)
class Mixture:
    """The distribution of x_0: isotropic Gaussians; a variance of 0 makes a component a point."""

    weights: Tensor  # [K], sums to 1
    means: Tensor  # [K, D]
    vars: Tensor  # [K]

    def __post_init__(self) -> None:
        for value, name in ((self.means, "means"), (self.weights, "weights"), (self.vars, "vars")):
            require_float(value, name)
            require_kin(value, name, self.means, "means")
        require_shape(self.means, "means", None, None)
        require(self.means.numel() > 0, "the shape of means", tuple(self.means.shape), "(K, D) with K, D >= 1")
        require_shape(self.weights, "weights", len(self.means))
        require_shape(self.vars, "vars", len(self.means))
        require_all(self.weights >= 0, "weights", self.weights, ">= 0")
        total = self.weights.double().sum()
        slack = max(1e-6, torch.finfo(self.weights.dtype).eps)
        require_all((total - 1).abs() < slack, "the sum of weights", total, "1")
        require_all(self.vars >= 0, "vars", self.vars, ">= 0")


def empirical(data: Tensor) -> Mixture:
    """The mixture of the N rows of data [N, D] as equally likely points."""
    require_float(data, "data")
    require_shape(data, "data", None, None)
    require(len(data) > 0, "the number of rows of data", 0, ">= 1")
    return Mixture(data.new_full((len(data),), 1 / len(data)), data, data.new_zeros(len(data)))


def sample(m: Mixture, n: int, *, generator: torch.Generator) -> Float[Tensor, "{n} D"]:
    """n draws of x_0."""
    _require_mixture(m)
    n = integer(n, "n", 1)
    require_generator(generator)
    k = torch.multinomial(m.weights.double(), n, replacement=True, generator=generator)
    noise = torch.randn(n, m.means.shape[1], generator=generator, dtype=m.means.dtype, device=m.means.device)
    return m.means[k] + m.vars[k].sqrt()[:, None] * noise


def log_prob(m: Mixture, x: Tensor, alpha_bar: float | int | Tensor = 1.0) -> Float[Tensor, " B"]:
    """The log-density of the rows of x [B, D] under the diffused mixture, in nats.

    alpha_bar is one number or [B], in [0, 1]; 1 is the mixture itself, where points raise.
    Eq. [eq-mixture-posterior-mean].
    """
    parts = (d.log_joint.logsumexp(1) for d in _blocks(m, x, alpha_bar, "alpha_bar", "x"))
    return functools.reduce(torch.logaddexp, parts).to(x.dtype)


def posterior_mean(m: Mixture, x_t: Tensor, alpha_bar_t: float | int | Tensor) -> Float[Tensor, "B D"]:
    """The exact E[x_0 given x_t]: what a perfect denoiser returns.

    x_t is [B, D]; alpha_bar_t is one number or [B], in [0, 1]; at 1 points raise.
    Eq. [eq-mixture-posterior-mean].
    """
    return _average(m, x_t, alpha_bar_t, _Diffused.means).to(x_t.dtype)


def score(m: Mixture, x_t: Tensor, alpha_bar_t: float | int | Tensor) -> Float[Tensor, "B D"]:
    """The gradient of the diffused log-density at each row of x_t [B, D].

    alpha_bar_t is one number or [B], in [0, 1]; at 1 points raise. Eq. [eq-score].
    """
    return _average(m, x_t, alpha_bar_t, lambda d: -d.residual / d.total[..., None]).to(x_t.dtype)


def minimum_mse(m: Mixture, x_t: Tensor, alpha_bar_t: float | int | Tensor) -> Float[Tensor, " B"]:
    """The trace of Cov[x_0 given x_t]: the squared error that no denoiser can avoid.

    x_t is [B, D]; alpha_bar_t is one number or [B], in [0, 1]; at 1 points raise.
    Summed over the event. Eq. [eq-mixture-posterior-mean].
    """
    mean = _average(m, x_t, alpha_bar_t, _Diffused.means)[:, None]
    spread = _average(m, x_t, alpha_bar_t, lambda d: (d.means() - mean) ** 2 + d.vars[..., None])
    return spread.sum(1).to(x_t.dtype)


def as_denoiser(m: Mixture, schedule: Any) -> Denoiser:
    """The exact Denoiser: (x_t [B, *event], t int64 [B] in 1..T) -> E[x_0 given x_t].

    Reads only schedule.alpha_bar [T+1]. The event is flattened to the D of the mixture.
    Eq. [eq-mixture-posterior-mean].
    """
    _require_mixture(m)
    table = getattr(schedule, "alpha_bar", None)
    require(isinstance(table, Tensor), "schedule", type(schedule).__name__, "one with a table alpha_bar [T+1]")

    def denoise(x_t: Tensor, t: Tensor) -> Float[Tensor, "B *event"]:
        require_float(x_t, "x_t")
        require(x_t.dim() > 0, "the shape of x_t", (), "(B, *event)")
        require_shape(t, "t", len(x_t))
        require(t.dtype == torch.int64, "the dtype of t", t.dtype, "torch.int64")
        require_beside(t, "t", x_t, "x_t")
        last = len(table) - 1
        require_all((t >= 1) & (t <= last), "t", t, f"in 1..{last}")
        alpha_bar_t = _beside(t, table)[t]
        return posterior_mean(m, x_t.reshape(len(x_t), -1), alpha_bar_t).reshape(x_t.shape)

    return denoise


class _Diffused(NamedTuple):
    """What K components say of x_t, in float64."""

    log_joint: Tensor  # log p(k, x_t): [B, K]
    residual: Tensor  # x_t minus its mean given k: [B, K, D]
    total: Tensor  # Var[x_t given k]: [B, K]
    centers: Tensor  # E[x_0 given k]: [K, D]
    gain: Tensor  # how far E[x_0 given x_t, k] moves with x_t: [B, K]
    vars: Tensor  # Var[x_0 given x_t, k]: [B, K]

    def means(self) -> Tensor:
        """E[x_0 given x_t, k]: [B, K, D]."""
        return self.centers + self.gain[..., None] * self.residual


def _blocks(m: Mixture, x: Tensor, alpha_bar: float | int | Tensor, name: str, x_name: str) -> Iterator[_Diffused]:
    """What the components say of x, a block of them at a time."""
    _require_mixture(m)
    require_float(x, x_name)
    require_shape(x, x_name, None, m.means.shape[1])
    a = _column(alpha_bar, name, x)
    total = 1 - a + a * _beside(x, m.vars).double()
    require_all(total > 0, "the variance of x_t in a component", total, "> 0: a point needs alpha_bar < 1")
    size = max(1, BLOCK // max(1, x.numel()))
    for block in zip(m.weights.split(size), m.means.split(size), m.vars.split(size)):
        yield _diffused(*(_beside(x, part).double() for part in block), x.double(), a)


def _diffused(weights: Tensor, means: Tensor, var: Tensor, x: Tensor, a: Tensor) -> _Diffused:
    total = 1 - a + a * var
    residual = x[:, None] - a.sqrt()[..., None] * means
    log_normal = -0.5 * ((residual**2).sum(2) / total + x.shape[1] * torch.log(2 * math.pi * total))
    log_joint = weights.log() + log_normal
    return _Diffused(log_joint, residual, total, means, a.sqrt() * var / total, var * (1 - a) / total)


def _average(
    m: Mixture, x_t: Tensor, alpha_bar_t: float | int | Tensor, values: Callable[[_Diffused], Tensor]
) -> Tensor:
    """The mean over components given x_t of the values [B, K, D] of each block: [B, D].

    A softmax that goes on from block to block: all is relative to the largest log_joint so far, the peak.
    """
    require_float(x_t, "x_t")
    lowest = -torch.finfo(torch.float64).max  # not -inf: a block may have no weight
    peak, total, result = torch.tensor(lowest, dtype=torch.float64, device=x_t.device), 0.0, 0.0
    for d in _blocks(m, x_t, alpha_bar_t, "alpha_bar_t", "x_t"):
        last, peak = peak, torch.maximum(peak, d.log_joint.detach().amax(1))
        shrink, chance = torch.exp(last - peak), torch.exp(d.log_joint - peak[:, None])
        total = total * shrink + chance.sum(1)
        result = result * shrink[:, None] + torch.einsum("bk,bkd->bd", chance, values(d))
    return result / total[:, None]


def _require_mixture(m: Mixture) -> None:
    require(isinstance(m, Mixture), "m", type(m).__name__, "a Mixture")


def _column(alpha_bar: float | int | Tensor, name: str, x: Tensor) -> Tensor:
    """alpha_bar as [B, 1] (or [1, 1] for one number) in float64, beside x."""
    if not isinstance(alpha_bar, Tensor):
        require_number(alpha_bar, name, "one number or a tensor")
        require(0 <= alpha_bar <= 1, name, alpha_bar, "in [0, 1]")
        return torch.full((1, 1), alpha_bar, dtype=torch.float64, device=x.device)
    require_float(alpha_bar, name)
    was, must = tuple(alpha_bar.shape), f"() or ({len(x)},), one for each example"
    require(alpha_bar.shape in (torch.Size(), x.shape[:1]), f"the shape of {name}", was, must)
    require_all((alpha_bar >= 0) & (alpha_bar <= 1), name, alpha_bar, "in [0, 1]")
    return _beside(x, alpha_bar).double().reshape(-1, 1)


def _beside(x: Tensor, y: Tensor) -> Tensor:
    """y on the device of x; a copy to an accelerator does not wait."""
    return y.to(x.device, non_blocking=x.device.type != "cpu")
