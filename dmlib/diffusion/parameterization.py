"""What a network may predict: the data, the noise, the score, the velocity or the mean of a step.

At a known x_t they are five names of one quantity: each is a combination of x_0 and of the cumulative noise in
x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise. Coefficients are computed in float64 and rounded once.
"mean", the mean of x_s given x_t and x_0, belongs to a step: it alone reads alpha_bar_s, the others ignore it.
`SignalNoise` does the same for any two scales of x_0 and noise, whose squares need not add up to one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from dmlib import checks
from dmlib.checks import Float, Tensor, require, require_all, require_float, require_like
from dmlib.diffusion.contracts import require_prediction
from dmlib.diffusion.kinds import FORMS, Time, beside, conversion, mixing, require_defined
from dmlib.diffusion.schedule import NoiseSchedule, require_schedule
from dmlib.probability.mixture import Denoiser

Kind = Literal["x_0", "eps", "score", "v", "mean"]
Network = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, *event], t [B]) -> a prediction of its kind [B, *event]
AlphaBar = float | int | Tensor  # one number or [B]


def to_x_0(
    kind: str, pred: Tensor, x_t: Tensor, alpha_bar_t: AlphaBar, *, alpha_bar_s: AlphaBar | None = None
) -> Float[Tensor, "B *event"]:
    """The x_0 that a prediction `pred` of this kind claims at x_t.

    Raises where it claims none: eps and score at alpha_bar_t = 0. Eq. [eq-predict-line], [eq-predict-convert].
    """
    return convert(pred, x_t, alpha_bar_t, src=kind, dst="x_0", alpha_bar_s=alpha_bar_s)


def from_x_0(
    kind: str, x_0: Tensor, x_t: Tensor, alpha_bar_t: AlphaBar, *, alpha_bar_s: AlphaBar | None = None
) -> Float[Tensor, "B *event"]:
    """What a network of this kind predicts at x_t when it takes `x_0` for the data.

    Raises where that is undefined: all kinds but x_0 at alpha_bar_t = 1, where x_t holds no noise.
    Eq. [eq-predict-line], [eq-predict-convert].
    """
    return convert(x_0, x_t, alpha_bar_t, src="x_0", dst=kind, alpha_bar_s=alpha_bar_s)


def convert(
    pred: Tensor, x_t: Tensor, alpha_bar_t: AlphaBar, *, src: str, dst: str, alpha_bar_s: AlphaBar | None = None
) -> Float[Tensor, "B *event"]:
    """A prediction of kind `src` at x_t, said as one of kind `dst`.

    Raises where x_t and `src` leave `dst` open. Eq. [eq-predict-line], [eq-predict-convert].
    """
    require_float(x_t, "x_t")
    require_like(pred, "pred", x_t, "x_t")
    time = _time((src, dst), alpha_bar_t, alpha_bar_s, len(x_t) if x_t.dim() else None)
    of_pred, of_x_t = (beside(c, x_t) for c in conversion(src, dst, time))
    require_defined(of_pred, of_x_t, "alpha_bar_t", time.alpha_bar_t, f"such that {src} at x_t determines {dst}")
    return of_pred * pred + of_x_t * x_t


def target(
    kind: str, x_0: Tensor, noise: Tensor, alpha_bar_t: AlphaBar, *, alpha_bar_s: AlphaBar | None = None
) -> Float[Tensor, "B *event"]:
    """What a network of this kind should predict at the x_t made of x_0 and `noise`.

    Raises where it is undefined: score and mean at alpha_bar_t = 1. Eq. [eq-predict-rotation], [eq-predict-score].
    """
    require_float(x_0, "x_0")
    require_like(noise, "noise", x_0, "x_0")
    time = _time((kind,), alpha_bar_t, alpha_bar_s, len(x_0) if x_0.dim() else None)
    of_x_0, of_noise = (beside(c, x_0) for c in mixing(kind, time))
    require_defined(of_x_0, of_noise, "alpha_bar_t", time.alpha_bar_t, f"less than 1 for {kind}")
    return of_x_0 * x_0 + of_noise * noise


def scheduled_target(
    kind: str, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, noise: Tensor
) -> Float[Tensor, "B *event"]:
    """The `target` at times t in 1..T of a schedule; of kind "mean" for the step to t - 1."""
    tables = mixing(kind, _times((kind,), schedule))
    require_float(x_0, "x_0")
    require_like(noise, "noise", x_0, "x_0")
    schedule.check(t, x_0)
    of_x_0, of_noise = (schedule.at(table, t, x_0) for table in tables)
    require_defined(of_x_0, of_noise, "t", t, f"where {kind} is defined")
    return of_x_0 * x_0 + of_noise * noise


def elbo_weight(kind: str, alpha_bar_t: AlphaBar, alpha_bar_s: AlphaBar) -> Float[Tensor, "*B"]:
    """What a step's divergence in the bound is per unit of summed squared error of this kind's prediction.

    For the reverse step from t to s with the posterior variance; [B], or () for two numbers.
    Raises at alpha_bar_s = 1, where the reconstruction stands in the bound, and at alpha_bar_t = 0 for eps and score,
    whose error there says nothing of x_0. Eq. [eq-predict-weights], [eq-kl-snr-form].
    """
    time = _time((kind,), alpha_bar_t, alpha_bar_s, None, step=True)
    require_all(time.alpha_bar_s < 1, "alpha_bar_s", time.alpha_bar_s, "less than 1: step 1 is the reconstruction")
    gain = (time.alpha_bar_s - time.alpha_bar_t) / ((1 - time.alpha_bar_s) * (1 - time.alpha_bar_t))  # of SNR
    weight = gain / 2 * conversion(kind, "x_0", time)[0].square()
    require_all(weight.isfinite(), "alpha_bar_t", time.alpha_bar_t, f"such that {kind} at x_t determines x_0")
    given = [a.dtype for a in (alpha_bar_t, alpha_bar_s) if isinstance(a, Tensor)]
    return weight.to(given[0] if given else torch.float64)


def as_denoiser(network: Network, schedule: NoiseSchedule, kind: str) -> Denoiser:
    """The Denoiser (x_t, t) -> x_0_hat of a network whose predictions are of this kind.

    Of kind "mean" the network predicts the mean of the step to t - 1. t is int64 [B] in 1..T.
    Eq. [eq-predict-line], [eq-predict-convert].
    """
    checks.require_callable(network, "network")
    return functools.partial(_denoised, network, schedule, kind, conversion(kind, "x_0", _times((kind,), schedule)))


@dataclass(frozen=True, eq=False)
class SignalNoise:
    """Two scales, () or [B]: the state is x = signal * x_0 + noise * eps, whatever the sum of their squares.

    Variance preserving is (sqrt(alpha_bar), sqrt(1 - alpha_bar)), variance exploding (1, sigma), straight (1 - t, t).
    Kinds are x_0, eps, score (of x given x_0: -eps / noise) and v = signal * eps - noise * x_0, the usual velocity
    where the squares add up to one. That of a straight path, eps - x_0, is the difference of the kinds eps and x_0.
    Coefficients are computed in float64 and rounded once. Raises unless both are finite, at least 0 and not both 0.
    Eq. [eq-predict-pair].
    """

    signal: Tensor
    noise: Tensor

    def __post_init__(self) -> None:
        require_float(self.signal, "signal")
        require_like(self.noise, "noise", self.signal, "signal")
        require(self.signal.dim() <= 1, "the shape of signal", tuple(self.signal.shape), "() or (B,)")
        for scale, name in ((self.signal, "signal"), (self.noise, "noise")):
            require_all(scale >= 0, name, scale, "at least 0")
        require_all(self.signal + self.noise > 0, "signal + noise", self.signal + self.noise, "greater than 0")

    @property
    def log_snr(self) -> Float[Tensor, "*B"]:
        """2 log(signal / noise); infinite where either is 0."""
        return 2 * (self.signal.log() - self.noise.log())

    def state(self, x_0: Tensor, eps: Tensor) -> Float[Tensor, "B *event"]:
        """The state that is made of x_0 and the noise eps."""
        require_float(x_0, "x_0")
        require_like(eps, "eps", x_0, "x_0")
        at = self._time(("x_0",), x_0)
        return beside(at.signal, x_0) * x_0 + beside(at.noise, x_0) * eps

    def target(self, kind: str, x_0: Tensor, eps: Tensor) -> Float[Tensor, "B *event"]:
        """What a network of this kind should predict at that state; raises for the score where noise is 0."""
        require_float(x_0, "x_0")
        require_like(eps, "eps", x_0, "x_0")
        of_x_0, of_eps = (beside(c, x_0) for c in mixing(kind, self._time((kind,), x_0)))
        require_defined(of_x_0, of_eps, "noise", self.noise, f"greater than 0 for {kind}")
        return of_x_0 * x_0 + of_eps * eps

    def convert(self, pred: Tensor, x: Tensor, *, src: str, dst: str) -> Float[Tensor, "B *event"]:
        """A prediction of kind `src` at the state x, said as one of kind `dst`; raises where these leave it open."""
        require_float(x, "x")
        require_like(pred, "pred", x, "x")
        of_pred, of_x = (beside(c, x) for c in conversion(src, dst, self._time((src, dst), x)))
        require_defined(of_pred, of_x, "signal", self.signal, f"such that {src} at x determines {dst}")
        return of_pred * pred + of_x * x

    def _time(self, kinds: tuple[str, ...], x: Tensor) -> Time:
        for kind in kinds:
            checks.require_choice(kind, "kind", ("x_0", "eps", "score", "v"))
        fits = self.signal.dim() == 0 or self.signal.shape == x.shape[:1]
        require(fits, "the shape of signal", tuple(self.signal.shape), f"() or {tuple(x.shape[:1])}")
        signal, noise = (c.to(checks.widest_dtype(c.device)) for c in (self.signal, self.noise))
        one, zero = torch.ones_like(signal), torch.zeros_like(signal)
        return Time(one, one, signal, noise, one, zero, signal.square() + noise.square())


def clamped(denoiser: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """The denoiser with its predictions cut to low..high, where data are known to lie."""
    checks.require_callable(denoiser, "denoiser")
    checks.require_number(low, "low")
    checks.require_number(high, "high")
    require(low < high, "low", low, f"less than high, {high}")
    return functools.partial(_clamped, denoiser, low, high)


def _clamped(denoiser: Denoiser, low: float, high: float, x_t: Tensor, t: Tensor) -> Float[Tensor, "B *event"]:
    require_float(x_t, "x_t")
    return require_prediction(denoiser(x_t, t), x_t).clamp(low, high)


def _denoised(
    network: Network, schedule: NoiseSchedule, kind: str, tables: tuple[Tensor, Tensor], x_t: Tensor, t: Tensor
) -> Float[Tensor, "B *event"]:
    require_float(x_t, "x_t")
    schedule.check(t, x_t)
    of_pred, of_x_t = (schedule.at(table, t, x_t) for table in tables)
    require_defined(of_pred, of_x_t, "t", t, f"such that {kind} at x_t determines x_0")
    pred = require_prediction(network(x_t, t), x_t)
    return of_pred * pred + of_x_t * x_t


def _times(kinds: tuple[str, ...], schedule: NoiseSchedule) -> Time:
    """All times 0..T of a schedule, each with the one before it; nothing reads those of t = 0."""
    require_schedule(schedule)
    _require_kinds(kinds)
    before = torch.cat([schedule.alpha_bar[:1], schedule.alpha_bar[:-1]])
    return _roots(schedule.alpha_bar, before)


def _time(
    kinds: tuple[str, ...], alpha_bar_t: AlphaBar, alpha_bar_s: AlphaBar | None, size: int | None, *, step: bool = False
) -> Time:
    """The time of these arguments, each one number or [B] with B = size; a `step` always has its alpha_bar_s."""
    _require_kinds(kinds)
    alpha_bar_t = _exact(alpha_bar_t, "alpha_bar_t", size)
    if not step and "mean" not in kinds:
        return _roots(alpha_bar_t, torch.ones_like(alpha_bar_t))
    require(alpha_bar_s is not None, "alpha_bar_s", None, "given: the mean is that of a step from t to s")
    alpha_bar_s = _exact(alpha_bar_s, "alpha_bar_s", size).to(alpha_bar_t.device)
    ok = alpha_bar_s.shape == alpha_bar_t.shape or not (alpha_bar_s.dim() and alpha_bar_t.dim())
    require(ok, "the shape of alpha_bar_s", tuple(alpha_bar_s.shape), f"() or {tuple(alpha_bar_t.shape)}")
    alpha_bar_t, alpha_bar_s = torch.broadcast_tensors(alpha_bar_t, alpha_bar_s)
    require_all(alpha_bar_s > alpha_bar_t, "alpha_bar_s", alpha_bar_s, "greater than alpha_bar_t: s < t")
    return _roots(alpha_bar_t, alpha_bar_s)


def _roots(alpha_bar_t: Tensor, alpha_bar_s: Tensor) -> Time:
    one, zero = torch.ones_like(alpha_bar_t), torch.zeros_like(alpha_bar_t)
    return Time(alpha_bar_t, alpha_bar_s, alpha_bar_t.sqrt(), (1 - alpha_bar_t).sqrt(), one, zero, one)


def _require_kinds(kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        checks.require_choice(kind, "kind", FORMS)


def _exact(alpha_bar: AlphaBar, name: str, size: int | None) -> Tensor:
    """alpha_bar as a tensor () or [B] in the widest dtype of its device; raises unless in [0, 1]."""
    if not isinstance(alpha_bar, Tensor):
        checks.require_number(alpha_bar, name, "one number or a tensor")
        require(0 <= alpha_bar <= 1, name, alpha_bar, "in [0, 1]")
        return torch.tensor(alpha_bar, dtype=torch.float64)
    require_float(alpha_bar, name)
    ok = alpha_bar.dim() == 0 or (alpha_bar.dim() == 1 and size in (None, len(alpha_bar)))
    require(ok, f"the shape of {name}", tuple(alpha_bar.shape), f"() or ({'B' if size is None else size},)")
    require_all((alpha_bar >= 0) & (alpha_bar <= 1), name, alpha_bar, "in [0, 1]")
    return alpha_bar.to(checks.widest_dtype(alpha_bar.device))
