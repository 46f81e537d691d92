"""Batched diagonal Gaussians [B, *event]; every result is in nats and per example."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from dmlib.checks import (
    Float,
    Tensor,
    per_example,
    require,
    require_all,
    require_float,
    require_generator,
    require_like,
)
from dmlib.probability.stable import scale_down


class Gaussian(NamedTuple):
    """Independent normals with this mean and variance; a variance of 0 is a point."""

    mean: Tensor  # [B, *event]
    var: Tensor  # [B, *event]


class _FromLogVar(Gaussian):
    """A Gaussian that keeps the log-variance it was made from; var may be rounded to 0 or to infinity."""

    kept: Tensor | None = None  # None in a copy whose parts were replaced


def from_log_var(mean: Tensor, log_var: Tensor) -> Gaussian:
    """The Gaussian of this mean and log-variance, each [B, *event], what an encoder predicts.

    It keeps log_var, so that the functions below are exact, as are their gradients, where its exponential leaves the
    numbers of the dtype; only `product` needs var itself.
    """
    require_float(mean, "mean")
    require_like(log_var, "log_var", mean, "mean")
    p = _FromLogVar(mean, log_var.exp())
    p.kept = log_var
    return p


def log_var(p: Gaussian) -> Tensor:
    """The logarithm of the variance, [B, *event]: the one that p was made from, if it was."""
    return p.var.log() if _kept(p) is None else _kept(p)


def std(p: Gaussian) -> Tensor:
    """The standard deviation, [B, *event]."""
    return p.var.sqrt() if _kept(p) is None else torch.exp(_kept(p) / 2)


def log_prob(p: Gaussian, x: Tensor) -> Float[Tensor, " B"]:
    """The log-density of each example x[b] under p[b].

    In nats, summed over the event. Raises where var is 0. Eq. [eq-gaussian-log-density].
    """
    require_gaussian(p, "p")
    require_like(x, "x", p.mean, "p.mean")
    return -0.5 * per_example(_standardized(p, x) ** 2 + log_var(p) + math.log(2 * math.pi))


def entropy(p: Gaussian) -> Float[Tensor, " B"]:
    """The differential entropy of each example's Gaussian.

    In nats, summed over the event. Raises where var is 0. [Bishop2006]
    """
    require_gaussian(p, "p")
    return 0.5 * per_example(log_var(p) + math.log(2 * math.pi * math.e))


def kl(p: Gaussian, q: Gaussian) -> Float[Tensor, " B"]:
    """The Kullback-Leibler divergence of each p[b] from q[b].

    In nats, summed over the event; accurate where p and q nearly agree.
    Raises where a var is 0. Eq. [eq-gaussian-kl].
    """
    _require_pair(p, q)
    log_ratio = _log_ratio(p, q)
    return 0.5 * per_example(_standardized(q, p.mean) ** 2 + torch.expm1(log_ratio) - log_ratio)


def product(p: Gaussian, q: Gaussian) -> Gaussian:
    """The normalized product of the two densities.

    The constant that normalizes it is exp(log_overlap(p, q)). Raises where a var is 0.
    Eq. [eq-gaussian-product].
    """
    _require_pair(p, q)
    p, q = Gaussian(*p), Gaussian(*q)  # without their log-variances
    _require_pair(p, q)
    small, large = torch.minimum(p.var, q.var), torch.maximum(p.var, q.var)
    var = small / (1 + small / large)
    return Gaussian(var / p.var * p.mean + var / q.var * q.mean, var)


def log_overlap(p: Gaussian, q: Gaussian) -> Float[Tensor, " B"]:
    """The log of the integral of the product of the two densities.

    In nats, summed over the event. Raises where a var is 0. Eq. [eq-gaussian-product].
    """
    _require_pair(p, q)
    return log_prob(from_log_var(q.mean, torch.logaddexp(log_var(p), log_var(q))), p.mean)


def sample(p: Gaussian, *, generator: torch.Generator) -> Float[Tensor, "B *event"]:
    """One draw of each example's Gaussian, differentiable in mean and var.

    A variance of 0 gives the mean. The reparameterization of [Kingma2014].
    """
    require_gaussian(p, "p", points=True)
    require_generator(generator)
    noise = torch.randn(p.mean.shape, generator=generator, dtype=p.mean.dtype, device=p.mean.device)
    return p.mean + std(p) * noise


def standard(like: Tensor) -> Gaussian:
    """The standard normal with the shape, dtype and device of `like`."""
    require_float(like, "like")
    return Gaussian(torch.zeros_like(like), torch.ones_like(like))


def require_gaussian(p: Gaussian, name: str, *, points: bool = False) -> None:
    """Raise unless p is a Gaussian of one shape and dtype with positive variances; `points` allows 0."""
    require(isinstance(p, Gaussian), name, type(p).__name__, "a Gaussian")
    require_float(p.mean, f"{name}.mean")
    require(p.mean.dim() > 0, f"the shape of {name}.mean", (), "(B, *event)")
    if _kept(p) is not None:  # checked when p was made
        return
    require_like(p.var, f"{name}.var", p.mean, f"{name}.mean")
    if points:
        require_all(p.var >= 0, f"{name}.var", p.var, ">= 0")
    else:
        require_all(p.var > 0, f"{name}.var", p.var, "> 0")


def _require_pair(p: Gaussian, q: Gaussian) -> None:
    require_gaussian(p, "p")
    require_gaussian(q, "q")
    require_like(q.mean, "q.mean", p.mean, "p.mean")


def _log_ratio(p: Gaussian, q: Gaussian) -> Tensor:
    """log(p.var / q.var): of the quotient, exact where the two nearly agree, or else the difference of logarithms."""
    difference = log_var(p) - log_var(q)
    if _kept(p) is not None or _kept(q) is not None:
        return difference
    info, quotient = torch.finfo(p.var.dtype), p.var / q.var
    exact = (quotient >= info.tiny) & (quotient <= info.max)
    return torch.where(exact, torch.where(exact, quotient, 1.0).log(), difference)


def _standardized(p: Gaussian, x: Tensor) -> Tensor:
    """How many standard deviations x lies above the mean."""
    return (x - p.mean) / p.var.sqrt() if _kept(p) is None else scale_down(x - p.mean, _kept(p))


def _kept(p: Gaussian) -> Tensor | None:
    """The log-variance that p was made from, or None."""
    return getattr(p, "kept", None)
