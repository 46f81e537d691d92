"""Each kind of prediction as a combination of x_0 and noise, and the coefficients that lead from one to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from dmlib.checks import Tensor, pad_to, require_all


class Time(NamedTuple):
    """What the coefficients at a time, or at several, are made of; all of one shape, in float64."""

    alpha_bar_t: Tensor
    alpha_bar_s: Tensor
    signal: Tensor  # sqrt(alpha_bar_t), or any factor of x_0
    noise: Tensor  # sqrt(1 - alpha_bar_t), or any factor of the noise
    one: Tensor
    zero: Tensor
    power: Tensor  # signal^2 + noise^2


class Form(NamedTuple):
    """A kind as (of_x_0 * x_0 + of_noise * noise) / scale."""

    of_x_0: Tensor
    of_noise: Tensor
    scale: Tensor
    slope: Tensor  # noise * of_x_0 - signal * of_noise without cancellation: its slope in x_0 at fixed x_t, not scaled


def _mean_form(at: Time) -> Form:
    """The posterior mean of x_s, with the x_t in it written as x_0 and noise."""
    keep = at.alpha_bar_s.sqrt()
    slope = (at.alpha_bar_s - at.alpha_bar_t) / keep
    return Form(at.noise * keep, at.signal * (1 - at.alpha_bar_s) / keep, at.noise, slope)


FORMS: dict[str, Callable[[Time], Form]] = {
    "x_0": lambda at: Form(at.one, at.zero, at.one, at.noise),
    "eps": lambda at: Form(at.zero, at.one, at.one, -at.signal),
    "score": lambda at: Form(at.zero, -at.one, at.noise, at.signal),
    "v": lambda at: Form(-at.noise, at.signal, at.one, -at.power),
    "mean": _mean_form,
}


def mixing(kind: str, at: Time) -> tuple[Tensor, Tensor]:
    """The coefficients of x_0 and of the noise in a kind."""
    form = FORMS[kind](at)
    return form.of_x_0 / form.scale, form.of_noise / form.scale


def conversion(src: str, dst: str, at: Time) -> tuple[Tensor, Tensor]:
    """The coefficients of the prediction and of x_t; not finite where x_t and `src` leave `dst` open."""
    if src == dst:
        return at.one, at.zero
    old, new = FORMS[src](at), FORMS[dst](at)
    bottom = old.slope * new.scale  # Cramer's rule for x_0 and noise, in terms of x_t and the prediction
    return new.slope * old.scale / bottom, (new.of_noise * old.of_x_0 - new.of_x_0 * old.of_noise) / bottom


def require_defined(one: Tensor, other: Tensor, name: str, time: Tensor, must: str) -> None:
    """Raise at the first time where a coefficient, () or [B, 1, .., 1] in the dtype of the data, is not finite."""
    defined = (torch.isfinite(one) & torch.isfinite(other)).reshape(time.shape)
    require_all(defined, name, time, f"{must}, with coefficients finite in {one.dtype}")


def beside(coefficient: Tensor, x: Tensor) -> Tensor:
    """A coefficient () or [B], rounded to the dtype of x and moved to its device, to multiply it."""
    rounded = coefficient.to(x.dtype).to(x.device, non_blocking=x.device.type != "cpu")
    return pad_to(rounded, x) if rounded.dim() else rounded
