"""Noise schedules: how much of the data is left at each time t = 0..T.

The array's index is the paper's index: `alpha_bar[t]` belongs to time t, `alpha_bar[0] = 1` is the data.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from functools import cached_property

import torch

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    pad_to,
    require,
    require_all,
    require_beside,
    require_choice,
    require_float,
    require_number,
    require_shape,
)


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The variance-preserving schedule with the given alpha_bar, [T+1] in float64 on the CPU.

    Raises unless alpha_bar starts at exactly 1 and strictly decreases, to 0 or above. At alpha_bar[T] = 0 no signal is
    left in x_T, so that a noise or a score predicted there says nothing of x_0 and is refused; x_0 and v do.
    """

    alpha_bar: Tensor

    def __post_init__(self) -> None:
        alpha_bar = self.alpha_bar
        require_shape(alpha_bar, "alpha_bar", None)
        require(len(alpha_bar) >= 2, "the length of alpha_bar", len(alpha_bar), "T + 1 with T of at least 1")
        require(alpha_bar.dtype == torch.float64, "the dtype of alpha_bar", alpha_bar.dtype, "torch.float64")
        require(alpha_bar.device.type == "cpu", "the device of alpha_bar", alpha_bar.device, "the CPU")
        require_float(alpha_bar, "alpha_bar")
        require(alpha_bar[0].item() == 1, "alpha_bar[0]", alpha_bar[0].item(), "exactly 1, the data")
        require_all(alpha_bar >= 0, "alpha_bar", alpha_bar, "in [0, 1]")
        require_all(alpha_bar.diff() < 0, "a step of alpha_bar", alpha_bar.diff(), "negative: it strictly decreases")
        for table in ("alpha", "beta", "snr", "log_snr"):
            getattr(self, table)  # made now: before Python 3.12, the compiler cannot follow the making

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.alpha_bar) - 1

    @cached_property
    def alpha(self) -> Float[Tensor, " times"]:
        """The share of variance that step t keeps; 1 at t = 0."""
        return torch.cat([self.alpha_bar[:1], self.alpha_bar[1:] / self.alpha_bar[:-1]])

    @cached_property
    def beta(self) -> Float[Tensor, " times"]:
        """The variance that step t adds; 0 at t = 0."""
        before = torch.cat([self.alpha_bar[:1], self.alpha_bar[:-1]])
        return (before - self.alpha_bar) / before  # no cancellation, unlike 1 - alpha

    @cached_property
    def snr(self) -> Float[Tensor, " times"]:
        """The signal-to-noise ratio at t; infinite at t = 0. Eq. [eq-noising-snr]."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @cached_property
    def log_snr(self) -> Float[Tensor, " times"]:
        """The log of the signal-to-noise ratio; infinite where the noise or the signal is 0. Eq. [eq-noising-snr]."""
        return self.alpha_bar.log() - torch.log1p(-self.alpha_bar)

    def check(self, t: Tensor, like: Tensor, name: str = "t", first: int = 1) -> None:
        """Raise unless `t` is int64, one entry for each example of `like`, in first..T."""
        require(isinstance(like, Tensor), "the data", type(like).__name__, "a tensor")
        require(like.dim() >= 1, "the number of dimensions of the data", 0, "at least 1, the batch")
        require_shape(t, name, like.shape[0])
        require(t.dtype == torch.int64, f"the dtype of {name}", t.dtype, "torch.int64")
        require_beside(t, name, like, "the data")
        require_all((t >= first) & (t <= self.T), name, t, f"in {first}..{self.T}")

    def at(self, table: Tensor, t: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Float[Tensor, "B *ones"]:
        """The entries of a table [T+1] at times t [B] in 0..T, as [B, 1, .., 1] to multiply `like`.

        The table is cast to the dtype of `like` (or to `dtype`) and moved to its device, then gathered.
        """
        require_shape(table, "table", self.T + 1)
        self.check(t, like, first=0)
        table = table.to(dtype or like.dtype).to(like.device, non_blocking=True)
        return pad_to(table[t], like)


def require_schedule(schedule: object) -> None:
    """Raise unless `schedule` is a NoiseSchedule."""
    require(isinstance(schedule, NoiseSchedule), "schedule", type(schedule).__name__, "a NoiseSchedule")


def from_betas(beta: Tensor) -> NoiseSchedule:
    """The schedule whose steps t = 1..T add the variances `beta`, [T] in float64, each in (0, 1); the last may be 1."""
    require_shape(beta, "beta", None)
    require(beta.dtype == torch.float64, "the dtype of beta", beta.dtype, "torch.float64")
    require(beta.device.type == "cpu", "the device of beta", beta.device, "the CPU")
    require_all((beta > 0) & (beta <= 1), "beta", beta, "in (0, 1], and 1 at the last step alone")
    require_all(beta[:-1] < 1, "beta", beta[:-1], "less than 1 before the last step")
    return NoiseSchedule(torch.cat([beta.new_ones(1), (1 - beta).cumprod(0)]))


def linear(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> NoiseSchedule:
    """The schedule whose beta grows linearly from beta_1 to beta_T. Eq. [eq-schedule-linear]; [Ho2020]."""
    T = integer(T, "T", 1)
    require_number(beta_1, "beta_1")
    require_number(beta_T, "beta_T")
    return from_betas(torch.linspace(beta_1, beta_T, T, dtype=torch.float64))


def cosine(T: int, s: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """The schedule whose alpha_bar follows a squared cosine. Eq. [eq-schedule-cosine]; [Nichol2021].

    `s` keeps the first steps from being too small; `max_beta` keeps the last one from erasing all signal, unless it
    is 1.
    """
    T = integer(T, "T", 1)
    require_number(s, "s")
    require_number(max_beta, "max_beta")
    require(s >= 0 and math.isfinite(s), "s", s, "finite and at least 0")
    require(0 < max_beta <= 1, "max_beta", max_beta, "in (0, 1]")
    angle = (torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2
    target = angle.cos().square()
    return from_betas((1 - target[1:] / target[:-1]).clamp(max=max_beta))


SCHEDULES = {"linear": linear, "cosine": cosine}


def build(spec: dict) -> NoiseSchedule:
    """The schedule that a plain dictionary describes: a "name", "linear" or "cosine", and the arguments of that one."""
    require(isinstance(spec, dict), "spec", repr(spec), "a dictionary")
    options = dict(spec)
    name = options.pop("name", None)
    require_choice(name, "spec['name']", SCHEDULES)
    known = list(inspect.signature(SCHEDULES[name]).parameters)
    if not options.keys() <= set(known):
        raise ValueError(f"the keys of spec for {name!r} were {sorted(options)}; they must be among {known}")
    return SCHEDULES[name](**options)
