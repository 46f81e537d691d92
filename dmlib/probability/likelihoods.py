"""Decoder distributions: log p(x given parameters) in nats, per example, summed over the event.

A decoder returns a tuple of parameters [B, *event]; `likelihood(*params, x)` is [B].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid

from dmlib import checks
from dmlib.checks import Float, Int64, Tensor, integer, per_example, require, require_all, require_float, require_like
from dmlib.probability import stable
from dmlib.probability.stable import log_ndtr, log_ndtr_difference, log_sinhc_near_0, scale_down, standardize


def bernoulli(logits: Tensor, x: Tensor) -> Float[Tensor, " B"]:
    """The log-probability of binary x under independent pixels.

    x is 0 or 1, of any dtype; other values raise. Eq. [eq-bernoulli].
    """
    _require_event(logits, "logits")
    x = _counts(x, "x", logits, logits.shape, 1).to(logits.dtype)
    return per_example(logsigmoid((2 * x - 1) * logits))


def binomial(logits: Tensor, counts: Tensor, n: int) -> Float[Tensor, " B"]:
    """The log-probability of counts 0..n out of n trials in each pixel.

    n = levels - 1 makes it a likelihood of gray levels. Eq. [eq-binomial].
    """
    _require_event(logits, "logits")
    n = integer(n, "n", 1)
    k = _wide(_counts(counts, "counts", logits, logits.shape, n))
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
    size, from_end = logits.abs(), torch.where(logits > 0, 1 - x, x)  # the density falls from one end to the other
    small = size < 0.2
    near_0 = (x - 0.5) * logits - log_sinhc_near_0(torch.where(small, logits, 0.0) / 2)
    r = torch.where(small, 1.0, size)
    return per_example(torch.where(small, near_0, r.log() - torch.log(-torch.expm1(-r)) - from_end * r))


def gaussian(mean: Tensor, log_var: Tensor, x: Tensor) -> Float[Tensor, " B"]:
    """The log-density of x under independent Gaussians.

    log_var has the shape of mean or is one number (). Eq. [eq-gaussian-log-density].
    """
    _require_event(mean, "mean")
    _require_scale(log_var, "log_var", mean)
    require_like(x, "x", mean, "mean")
    return -0.5 * per_example(scale_down(x - mean, log_var) ** 2 + log_var + math.log(2 * math.pi))


def discretized_gaussian(mean: Tensor, log_scale: Tensor, x_levels: Tensor, levels: int = 256) -> Float[Tensor, " B"]:
    """The log-probability of levels 0..levels-1 as masses of Gaussian bins.

    mean is on [-1, 1]; log_scale, the log standard deviation, has its shape or is one number ().
    Level k sits at 2k/(levels-1) - 1 and owns half a spacing on each side; the end bins are open,
    so that the masses sum to 1. Computed in float64 and in log space: exact far in the tails.
    Eq. [eq-discretized-gaussian]; [Salimans2017].
    """
    _require_event(mean, "mean")
    _require_scale(log_scale, "log_scale", mean)
    levels = integer(levels, "levels", 2)
    x = _wide(_counts(x_levels, "x_levels", mean, mean.shape, levels - 1, levels_only=True))
    log_scale, spacing = log_scale.to(x.dtype), 2 / (levels - 1)
    upper = standardize((2 * x + 1) / (levels - 1) - 1 - mean.to(x.dtype), log_scale)
    lower = standardize((2 * x - 1) / (levels - 1) - 1 - mean.to(x.dtype), log_scale)
    above = upper + lower > 0  # a bin and its mirror image have one mass: take the one in the lower tail
    near, far = torch.where(above, -lower, upper), torch.where(above, -upper, lower)
    inner = log_ndtr_difference(near, far, math.log(spacing) - log_scale)
    ends = log_ndtr(torch.where(x == 0, upper, -lower))
    return per_example(torch.where((x == 0) | (x == levels - 1), ends, inner).to(mean.dtype))


def categorical(logits: Tensor, x: Tensor) -> Float[Tensor, " B"]:
    """The log-probability of categories x [B, *event] under logits [B, *event, V].

    x is of an integer dtype, in 0..V-1. Eq. [eq-categorical].
    """
    _require_event(logits, "logits")
    require(logits.dim() >= 2, "the shape of logits", tuple(logits.shape), "(B, *event, V)")
    x = _counts(x, "x", logits, logits.shape[:-1], logits.shape[-1] - 1, levels_only=True).long()
    return per_example(logits.log_softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1))


def to_unit(x_levels: Tensor, levels: int, *, dtype: torch.dtype = torch.float32) -> Float[Tensor, "B *event"]:
    """The gray levels 0..levels-1 as numbers on [-1, 1]: level k at 2k/(levels-1) - 1."""
    levels = integer(levels, "levels", 2)
    require(isinstance(dtype, torch.dtype) and dtype.is_floating_point, "dtype", dtype, "a floating-point dtype")
    x_levels = _counts(x_levels, "x_levels", None, None, levels - 1, levels_only=True)
    return (2 * _wide(x_levels) / (levels - 1) - 1).to(dtype)


def to_levels(x: Tensor, levels: int) -> Int64[Tensor, "B *event"]:
    """The nearest gray levels 0..levels-1 of numbers on [-1, 1]; beyond, the end levels."""
    require_float(x, "x")
    levels = integer(levels, "levels", 2)
    return ((_wide(x) + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).long()


def _require_event(x: Tensor, name: str) -> None:
    require_float(x, name)
    require(x.dim() > 0, f"the shape of {name}", (), "(B, *event)")


def _require_scale(scale: Tensor, name: str, mean: Tensor) -> None:
    require_float(scale, name)
    was, must = tuple(scale.shape), f"() or {tuple(mean.shape)}, that of mean"
    require(scale.shape in (torch.Size(), mean.shape), f"the shape of {name}", was, must)
    if scale.dim() > 0:  # one number never promotes or moves
        checks.require_kin(scale, name, mean, "mean")


def _counts(
    x: Tensor, name: str, like: Tensor | None, shape: torch.Size | None, top: int, *, levels_only: bool = False
) -> Tensor:
    """x once it has this shape, the device of `like`, and whole numbers in 0..top; as int64 where it has no floats."""
    require(isinstance(x, Tensor), name, type(x).__name__, "a tensor")
    whole = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    require(whole or not (levels_only or x.is_complex()), f"the dtype of {name}", x.dtype, "an integer dtype")
    require(shape is None or x.shape == shape, f"the shape of {name}", tuple(x.shape), f"{tuple(shape or ())}")
    if like is not None:
        checks.require_beside(x, name, like, "the parameters")
    x = x if x.is_floating_point() else x.long()
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
    law, options = _known(likelihood, params)
    return law[1](*params, **options)


def draw(likelihood: Callable, *params: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of x [B, *event] under a likelihood of this module: int64 where x is discrete.

    `likelihood` may be a functools.partial that fixes n or levels; others raise.
    """
    checks.require_generator(generator)
    law, options = _known(likelihood, params)
    return law[2](generator, *params, **options)


def _discretized_gaussian_mean(mean: Tensor, log_scale: Tensor, levels: int = 256) -> Tensor:
    edges = ((2 * k - 1) / (levels - 1) - 1 for k in range(1, levels))  # below levels 1, 2, ..
    return sum(torch.special.ndtr(standardize(mean - edge, log_scale)) for edge in edges)


def _categorical_mean(logits: Tensor) -> Tensor:
    return logits.softmax(-1) @ torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)


def _bernoulli_draw(generator: torch.Generator, logits: Tensor) -> Tensor:
    return torch.bernoulli(_single(logits).sigmoid(), generator=generator).long()


def _binomial_draw(generator: torch.Generator, logits: Tensor, n: int) -> Tensor:
    chance = _single(logits).sigmoid()
    return torch.binomial(torch.full_like(chance, n), chance, generator=generator).long()


def _continuous_bernoulli_draw(generator: torch.Generator, logits: Tensor) -> Tensor:
    a = -_single(logits).abs().clamp(min=1e-20)  # the inverse distribution function where it falls; else mirrored
    uniform = torch.rand(a.shape, generator=generator, dtype=a.dtype, device=a.device)
    x = torch.log1p(uniform * torch.expm1(a)) / a
    return torch.where(logits > 0, 1 - x, x).clamp(0, 1).to(logits.dtype)


def _gaussian_draw(generator: torch.Generator, mean: Tensor, log_var: Tensor) -> Tensor:
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + torch.exp(log_var / 2) * noise


def _discretized_gaussian_draw(
    generator: torch.Generator, mean: Tensor, log_scale: Tensor, levels: int = 256
) -> Tensor:
    return to_levels(_gaussian_draw(generator, mean, 2 * log_scale).clamp(-2, 2), levels)


def _categorical_draw(generator: torch.Generator, logits: Tensor) -> Tensor:
    rows = _single(logits).softmax(-1).flatten(0, -2)
    return torch.multinomial(rows, 1, generator=generator).view(logits.shape[:-1])


def _single(x: Tensor) -> Tensor:
    """x in float32 at least: half precision has too few uniform numbers."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _known(likelihood: Callable, params: tuple[Tensor, ...]) -> tuple[tuple, dict[str, int]]:
    """The law of the function behind `likelihood`, and the options a partial fixes; raises on other parameters."""
    function = getattr(likelihood, "func", likelihood)
    known = ", ".join(f.__name__ for f in _LAWS)
    ok = callable(function) and function in _LAWS
    require(ok, "likelihood", getattr(function, "__name__", repr(function)), f"one of {known}")
    law = _LAWS[function]
    require(len(params) == len(law[0]), "the number of params", len(params), f"{len(law[0])}: {', '.join(law[0])}")
    _require_event(params[0], law[0][0])
    for name, param in zip(law[0][1:], params[1:]):
        _require_scale(param, name, params[0])
    given, (option, default, least) = dict(getattr(likelihood, "keywords", {})), _OPTIONS.get(function, ("", None, 0))
    options = {option: integer(given.pop(option, default), option, least)} if option else {}
    fixed = [*getattr(likelihood, "args", ()), *given]
    require(not fixed, "what the partial of likelihood fixes", fixed, f"{option or 'nothing'}, by keyword")
    return law, options


_OPTIONS = {binomial: ("n", None, 1), discretized_gaussian: ("levels", 256, 2)}  # name, default and least value
_LAWS = {  # the names of its parameters, and the mean and the draw of x under each likelihood
    bernoulli: (("logits",), torch.sigmoid, _bernoulli_draw),
    binomial: (("logits",), lambda logits, n: n * logits.sigmoid(), _binomial_draw),
    continuous_bernoulli: (("logits",), stable.continuous_bernoulli_mean, _continuous_bernoulli_draw),
    gaussian: (("mean", "log_var"), lambda mean, log_var: mean, _gaussian_draw),
    discretized_gaussian: (("mean", "log_scale"), _discretized_gaussian_mean, _discretized_gaussian_draw),
    categorical: (("logits",), _categorical_mean, _categorical_draw),
}
