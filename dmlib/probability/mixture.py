"""Gaussian mixtures diffused by x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise: exact oracles.

All is computed in float64; results have the dtype and device of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dmlib.checks import Float, Tensor, require, require_all, require_float, require_shape

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
            must = f"{self.means.dtype}, that of means"
            require(value.dtype == self.means.dtype, f"the dtype of {name}", value.dtype, must)
        require_shape(self.means, "means", None, None)
        require(self.means.numel() > 0, "the shape of means", tuple(self.means.shape), "(K, D) with K, D >= 1")
        require_shape(self.weights, "weights", len(self.means))
        require_shape(self.vars, "vars", len(self.means))
        require_all(self.weights >= 0, "weights", self.weights, ">= 0")
        total = self.weights.double().sum()
        require_all((total - 1).abs() < 1e-6, "the sum of weights", total, "1")
        require_all(self.vars >= 0, "vars", self.vars, ">= 0")


def empirical(data: Tensor) -> Mixture:
    """The mixture of the N rows of data [N, D] as equally likely points."""
    require_float(data, "data")
    require_shape(data, "data", None, None)
    require(len(data) > 0, "the number of rows of data", 0, ">= 1")
    return Mixture(data.new_full((len(data),), 1 / len(data)), data, data.new_zeros(len(data)))


def sample(m: Mixture, n: int, *, generator: torch.Generator) -> Float[Tensor, "{n} D"]:
    """n draws of x_0."""
    k = torch.multinomial(m.weights, n, replacement=True, generator=generator)
    noise = torch.randn(n, m.means.shape[1], generator=generator, dtype=m.means.dtype, device=m.means.device)
    return m.means[k] + m.vars[k].sqrt()[:, None] * noise


def log_prob(m: Mixture, x: Tensor, alpha_bar: float | int | Tensor = 1.0) -> Float[Tensor, " B"]:
    """The log-density of the rows of x [B, D] under the diffused mixture, in nats.

    alpha_bar is one number or [B], in [0, 1]; 1 is the mixture itself, where points raise.
    Eq. [eq-mixture-posterior-mean].
    """
    return torch.logsumexp(_diffused(m, x, alpha_bar).log_joint, 1).to(x.dtype)


def posterior_mean(m: Mixture, x_t: Tensor, alpha_bar_t: float | int | Tensor) -> Float[Tensor, "B D"]:
    """The exact E[x_0 given x_t]: what a perfect denoiser returns.

    x_t is [B, D]; alpha_bar_t is one number or [B], in [0, 1]; at 1 points raise.
    Eq. [eq-mixture-posterior-mean].
    """
    d = _diffused(m, x_t, alpha_bar_t, "_t")
    return _average(d, d.means).to(x_t.dtype)


def score(m: Mixture, x_t: Tensor, alpha_bar_t: float | int | Tensor) -> Float[Tensor, "B D"]:
    """The gradient of the diffused log-density at each row of x_t [B, D].

    alpha_bar_t is one number or [B], in [0, 1]; at 1 points raise. Eq. [eq-score].
    """
    d = _diffused(m, x_t, alpha_bar_t, "_t")
    return _average(d, -d.residual / d.total[..., None]).to(x_t.dtype)


def minimum_mse(m: Mixture, x_t: Tensor, alpha_bar_t: float | int | Tensor) -> Float[Tensor, " B"]:
    """The trace of Cov[x_0 given x_t]: the squared error that no denoiser can avoid.

    x_t is [B, D]; alpha_bar_t is one number or [B], in [0, 1]; at 1 points raise.
    Summed over the event. Eq. [eq-mixture-posterior-mean].
    """
    d = _diffused(m, x_t, alpha_bar_t, "_t")
    between = (d.means - _average(d, d.means)[:, None]) ** 2
    return _average(d, between + d.vars[..., None]).sum(1).to(x_t.dtype)


def as_denoiser(m: Mixture, schedule: Any) -> Denoiser:
    """The exact Denoiser: (x_t [B, *event], t int64 [B] in 1..T) -> E[x_0 given x_t].

    Reads only schedule.alpha_bar [T+1]. The event is flattened to the D of the mixture.
    Eq. [eq-mixture-posterior-mean].
    """

    def denoise(x_t: Tensor, t: Tensor) -> Float[Tensor, "B *event"]:
        require_float(x_t, "x_t")
        require(x_t.dim() > 0, "the shape of x_t", (), "(B, *event)")
        require_shape(t, "t", len(x_t))
        require(t.dtype == torch.int64, "the dtype of t", t.dtype, "torch.int64")
        table, last = schedule.alpha_bar, len(schedule.alpha_bar) - 1
        require_all((t >= 1) & (t <= last), "t", t, f"in 1..{last}")
        alpha_bar_t = _beside(t, table)[t]
        return posterior_mean(m, x_t.reshape(len(x_t), -1), alpha_bar_t).reshape(x_t.shape)

    return denoise


class _Diffused(NamedTuple):
    """What the K components say of x_t, in float64."""

    log_joint: Tensor  # log p(k, x_t): [B, K]
    residual: Tensor  # x_t minus its mean given k: [B, K, D]
    total: Tensor  # Var[x_t given k]: [B, K]
    means: Tensor  # E[x_0 given x_t, k]: [B, K, D]
    vars: Tensor  # Var[x_0 given x_t, k]: [B, K]


def _diffused(m: Mixture, x: Tensor, alpha_bar: float | int | Tensor, suffix: str = "") -> _Diffused:
    require_float(x, f"x{suffix}")
    require_shape(x, f"x{suffix}", None, m.means.shape[1])
    a = _column(alpha_bar, f"alpha_bar{suffix}", x)
    weights, means, var = (_beside(x, y).double() for y in (m.weights, m.means, m.vars))
    total = 1 - a + a * var
    require_all(total > 0, "the variance of x_t in a component", total, "> 0: a point needs alpha_bar < 1")
    residual = x.double()[:, None] - a.sqrt()[..., None] * means
    log_normal = -0.5 * ((residual**2).sum(2) / total + x.shape[1] * torch.log(2 * math.pi * total))
    gain = a.sqrt() * var / total
    return _Diffused(
        weights.log() + log_normal, residual, total, means + gain[..., None] * residual, var * (1 - a) / total
    )


def _average(d: _Diffused, values: Tensor) -> Tensor:
    """The mean over components given x_t of values [B, K, D]: [B, D]."""
    return torch.einsum("bk,bkd->bd", d.log_joint.softmax(1), values)


def _column(alpha_bar: float | int | Tensor, name: str, x: Tensor) -> Tensor:
    """alpha_bar as [B, 1] (or [1, 1] for one number) in float64, beside x."""
    if not isinstance(alpha_bar, Tensor):
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
