"""Decoder distributions: log p(x given parameters) in nats, per example, summed over the event.

A decoder returns a tuple of parameters [B, *event]; `likelihood(*params, x)` is [B].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid

from dmlib import checks
from dmlib.checks import Float, Int64, Tensor, per_example, require, require_all, require_float, require_like


def bernoulli(logits: Tensor, x: Tensor) -> Float[Tensor, " B"]:
    """The log-probability of binary x under independent pixels.

    x is 0 or 1, of any dtype; other values raise. Eq. [eq-bernoulli].
    """
    _require_event(logits, "logits")
    x = _counts(x, "x", logits.shape, 1).to(logits.dtype)
    return per_example(logsigmoid((2 * x - 1) * logits))


def binomial(logits: Tensor, counts: Tensor, n: int) -> Float[Tensor, " B"]:
    """The log-probability of counts 0..n out of n trials in each pixel.

    n = levels - 1 makes it a likelihood of gray levels. Eq. [eq-binomial].
    """
    _require_event(logits, "logits")
    require(isinstance(n, int) and n >= 1, "n", n, "an integer >= 1")
    k = _wide(_counts(counts, "counts", logits.shape, n))
    log_choices = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    log_odds = logits.to(k.dtype)  # large terms cancel
    log_mass = log_choices + k * logsigmoid(log_odds) + (n - k) * logsigmoid(-log_odds)
    return per_example(log_mass.to(logits.dtype))


def continuous_bernoulli(logits: Tensor, x: Tensor) -> Float[Tensor, " B"]:
    """The log-density of x in [0, 1] under the continuous Bernoulli.

    Unlike the Bernoulli's formula at gray x, it integrates to 1 over [0, 1].
    Eq. [eq-continuous-bernoulli]; [LoaizaGanem2019].
    """
    _require_event(logits, "logits")
    require_like(x, "x", logits, "logits")
    require_all((x >= 0) & (x <= 1), "x", x, "in [0, 1]")
    return per_example((x - 0.5) * logits - _log_sinhc(logits / 2))


def gaussian(mean: Tensor, log_var: Tensor, x: Tensor) -> Float[Tensor, " B"]:
    """The log-density of x under independent Gaussians.

    log_var has the shape of mean or is one number (). Eq. [eq-gaussian-log-density].
    """
    _require_event(mean, "mean")
    _require_scale(log_var, "log_var", mean)
    require_like(x, "x", mean, "mean")
    return -0.5 * per_example((x - mean) ** 2 * torch.exp(-log_var) + log_var + math.log(2 * math.pi))


def discretized_gaussian(mean: Tensor, log_scale: Tensor, x_levels: Tensor, levels: int = 256) -> Float[Tensor, " B"]:
    """The log-probability of levels 0..levels-1 as masses of Gaussian bins.

    mean is on [-1, 1]; log_scale, the log standard deviation, has its shape or is one number ().
    Level k sits at 2k/(levels-1) - 1 and owns half a spacing on each side; the end bins are open,
    so that the masses sum to 1. Computed in float64 and in log space: exact far in the tails.
    Eq. [eq-discretized-gaussian]; [Salimans2017].
    """
    _require_event(mean, "mean")
    _require_scale(log_scale, "log_scale", mean)
    _require_levels(levels)
    x = _wide(_counts(x_levels, "x_levels", mean.shape, levels - 1, integer=True))
    inv_scale = torch.exp(-log_scale.to(x.dtype))
    upper = ((2 * x + 1) / (levels - 1) - 1 - mean.to(x.dtype)) * inv_scale
    lower = ((2 * x - 1) / (levels - 1) - 1 - mean.to(x.dtype)) * inv_scale
    above = upper + lower > 0  # a bin and its mirror image have one mass: take the one in the lower tail
    near, far = torch.where(above, -lower, upper), torch.where(above, -upper, lower)
    inner = _log_ndtr_difference(near, far, 2 / (levels - 1) * inv_scale)
    ends = torch.special.log_ndtr(torch.where(x == 0, upper, -lower))
    return per_example(torch.where((x == 0) | (x == levels - 1), ends, inner).to(mean.dtype))


def categorical(logits: Tensor, x: Tensor) -> Float[Tensor, " B"]:
    """The log-probability of categories x [B, *event] under logits [B, *event, V].

    x is int64 or uint8 in 0..V-1. Eq. [eq-categorical].
    """
    _require_event(logits, "logits")
    require(logits.dim() >= 2, "the shape of logits", tuple(logits.shape), "(B, *event, V)")
    x = _counts(x, "x", logits.shape[:-1], logits.shape[-1] - 1, integer=True).long()
    return per_example(logits.log_softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1))


def to_unit(x_levels: Tensor, levels: int, *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "B *event"]:
    """The gray levels 0..levels-1 as numbers on [-1, 1]: level k at 2k/(levels-1) - 1."""
    _require_levels(levels)
    return (2 * _wide(_counts(x_levels, "x_levels", None, levels - 1, integer=True)) / (levels - 1) - 1).to(dtype)


def to_levels(x: Tensor, levels: int) -> Int64[Tensor, "B *event"]:
    """The nearest gray levels 0..levels-1 of numbers on [-1, 1]; beyond, the end levels."""
    require_float(x, "x")
    _require_levels(levels)
    return ((_wide(x) + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).long()


def _log_ndtr_difference(upper: Tensor, lower: Tensor, width: Tensor) -> Tensor:
    """log(Phi(upper) - Phi(lower)) for lower < upper, upper + lower <= 0, width their distance.

    A bin so narrow that the difference would cancel has the mass density times width, to 1e-11.
    """
    center = (upper + lower) / 2
    narrow = width * (1 - center) < 1e-5
    log_density = -0.5 * center**2 - 0.5 * math.log(2 * math.pi)
    log_upper = torch.special.log_ndtr(upper)
    drop = torch.where(narrow, 1.0, log_upper - torch.special.log_ndtr(lower))
    return torch.where(narrow, log_density + torch.log(width), log_upper + torch.log(-torch.expm1(-drop)))


def _log_sinhc(s: Tensor) -> Tensor:
    """log(sinh(s) / s), an even function, by its series where the quotient would cancel."""
    small = s.abs() < 0.1
    square = torch.where(small, s, 0.0) ** 2
    series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))
    r = torch.where(small, 1.0, s.abs())
    return torch.where(small, series, r + torch.log(-torch.expm1(-2 * r) / (2 * r)))


def _require_event(x: Tensor, name: str) -> None:
    require_float(x, name)
    require(x.dim() > 0, f"the shape of {name}", (), "(B, *event)")


def _require_scale(scale: Tensor, name: str, mean: Tensor) -> None:
    require_float(scale, name)
    was, must = tuple(scale.shape), f"() or {tuple(mean.shape)}, that of mean"
    require(scale.shape in (torch.Size(), mean.shape), f"the shape of {name}", was, must)
    if scale.dim() > 0:  # one number never promotes
        require(scale.dtype == mean.dtype, f"the dtype of {name}", scale.dtype, f"{mean.dtype}, that of mean")


def _require_levels(levels: int) -> None:
    require(isinstance(levels, int) and levels >= 2, "levels", levels, "an integer >= 2")


def _counts(x: Tensor, name: str, shape: torch.Size | None, top: int, *, integer: bool = False) -> Tensor:
    """x itself, once it has this shape and its values are whole numbers in 0..top."""
    require(isinstance(x, Tensor), name, type(x).__name__, "a tensor")
    ok = not integer or x.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)
    require(ok, f"the dtype of {name}", x.dtype, "an integer dtype")
    require(shape is None or x.shape == shape, f"the shape of {name}", tuple(x.shape), f"{tuple(shape or ())}")
    ok = x == x.clamp(0, top).round() if x.is_floating_point() else (x >= 0) & (x <= top)
    require_all(ok, name, x, f"a whole number in 0..{top}")
    return x


def _wide(x: Tensor) -> Tensor:
    """x in the widest dtype of its device."""
    return x.to(checks.widest_dtype(x.device))


def mean(likelihood: Callable, *params: Tensor) -> Float[Tensor, "B *event"]:
    """The mean of x under a likelihood of this module: where x are levels, the mean level.

    `likelihood` may be a functools.partial that fixes n or levels; others raise.
    """
    function, options = _known(likelihood, params)
    return _LAWS[function][0](*params, **options)


def draw(likelihood: Callable, *params: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of x [B, *event] under a likelihood of this module: int64 where x is discrete.

    `likelihood` may be a functools.partial that fixes n or levels; others raise.
    """
    function, options = _known(likelihood, params)
    return _LAWS[function][1](generator, *params, **options)


def _continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    half = logits / 2
    small = half.abs() < 0.1
    s = torch.where(small, half, 0.0)
    series = s / 3 - s**3 / 45 + 2 * s**5 / 945 - s**7 / 4725
    r = torch.where(small, 1.0, half)
    return 0.5 + 0.5 * torch.where(small, series, 1 / torch.tanh(r) - 1 / r)


def _discretized_gaussian_mean(mean: Tensor, log_scale: Tensor, levels: int = 256) -> Tensor:
    edges = ((2 * k - 1) / (levels - 1) - 1 for k in range(1, levels))  # below levels 1, 2, ..
    return sum(torch.special.ndtr((mean - edge) * torch.exp(-log_scale)) for edge in edges)


def _categorical_mean(logits: Tensor) -> Tensor:
    return logits.softmax(-1) @ torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)


def _bernoulli_draw(generator: torch.Generator, logits: Tensor) -> Tensor:
    return torch.bernoulli(logits.sigmoid(), generator=generator).long()


def _binomial_draw(generator: torch.Generator, logits: Tensor, n: int) -> Tensor:
    return torch.binomial(torch.full_like(logits, n), logits.sigmoid(), generator=generator).long()


def _continuous_bernoulli_draw(generator: torch.Generator, logits: Tensor) -> Tensor:
    a = -logits.abs().clamp(min=1e-20)  # the inverse distribution function where it falls; else its mirror image
    uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
    x = torch.log1p(uniform * torch.expm1(a)) / a
    return torch.where(logits > 0, 1 - x, x).clamp(0, 1)


def _gaussian_draw(generator: torch.Generator, mean: Tensor, log_var: Tensor) -> Tensor:
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + torch.exp(log_var / 2) * noise


def _discretized_gaussian_draw(
    generator: torch.Generator, mean: Tensor, log_scale: Tensor, levels: int = 256
) -> Tensor:
    return to_levels(_gaussian_draw(generator, mean, 2 * log_scale), levels)


def _categorical_draw(generator: torch.Generator, logits: Tensor) -> Tensor:
    rows = logits.softmax(-1).flatten(0, -2)
    return torch.multinomial(rows, 1, generator=generator).view(logits.shape[:-1])


def _known(likelihood: Callable, params: tuple[Tensor, ...]) -> tuple[Callable, dict[str, int]]:
    """The function of this module behind `likelihood` and the options a partial fixes."""
    for param in params:
        require_float(param, "a parameter")
    function = getattr(likelihood, "func", likelihood)
    names = ", ".join(f.__name__ for f in _LAWS)
    require(function in _LAWS, "likelihood", getattr(function, "__name__", repr(function)), f"one of {names}")
    return function, getattr(likelihood, "keywords", {})


_LAWS = {  # the mean and the draw of x under each likelihood
    bernoulli: (torch.sigmoid, _bernoulli_draw),
    binomial: (lambda logits, n: n * logits.sigmoid(), _binomial_draw),
    continuous_bernoulli: (_continuous_bernoulli_mean, _continuous_bernoulli_draw),
    gaussian: (lambda mean, log_var: mean, _gaussian_draw),
    discretized_gaussian: (_discretized_gaussian_mean, _discretized_gaussian_draw),
    categorical: (_categorical_mean, _categorical_draw),
}
