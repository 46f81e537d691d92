"""What this room asks of the functions it is given: denoisers, networks, decoders and variances."""

from __future__ import annotations

from collections.abc import Callable

from dmlib.checks import Tensor, pad_to, require, require_callable, require_float, require_kin, require_shape
from dmlib.diffusion.schedule import NoiseSchedule, require_schedule
from dmlib.probability.mixture import Denoiser

Decoder = Callable[[Tensor, Tensor], Tensor]  # (x_0, x_1) -> log p(x_0 given x_1) [B]


def require_model(denoiser: Denoiser, schedule: NoiseSchedule, *decoders: Decoder) -> None:
    """Raise unless these are a schedule and functions."""
    require_schedule(schedule)
    require_callable(denoiser, "denoiser")
    for decoder in decoders:
        require_callable(decoder, "decoder")


def decoded(decoder: Decoder, x_0: Tensor, x_1: Tensor) -> Tensor:
    """The decoder's log-probabilities, once they are one for each example."""
    log_prob = decoder(x_0, x_1)
    require_shape(log_prob, "the decoder's log-probability", len(x_0))
    require_kin(log_prob, "the decoder's log-probability", x_0, "x_0")
    return log_prob


def require_prediction(pred: Tensor, x_t: Tensor) -> Tensor:
    """The prediction itself; raises unless it has the shape, dtype and device of x_t."""
    require(isinstance(pred, Tensor), "the prediction", type(pred).__name__, "a tensor")
    require(pred.shape == x_t.shape, "the shape of the prediction", tuple(pred.shape), f"{tuple(x_t.shape)}, as x_t")
    require_kin(pred, "the prediction", x_t, "x_t")
    return pred


def called(var: Tensor, x_t: Tensor) -> Tensor:
    """The variance a function gave, [B] or [B, *event], to go with x_t."""
    require_float(var, "variance(x_t, t)")
    ok = var.shape in (x_t.shape[:1], x_t.shape)
    require(ok, "the shape of variance(x_t, t)", tuple(var.shape), f"{tuple(x_t.shape[:1])} or {tuple(x_t.shape)}")
    return (var if var.shape == x_t.shape else pad_to(var, x_t)).to(x_t.dtype)
