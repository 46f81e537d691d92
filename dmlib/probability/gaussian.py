"""Batched diagonal Gaussians [B, *event]; every result is in nats and per example."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from dmlib.checks import Float, Tensor, per_example, require, require_all, require_float, require_like


class Gaussian(NamedTuple):
    """Independent normals with this mean and variance; a variance of 0 is a point."""

    mean: Tensor  # [B, *event]
    var: Tensor  # [B, *event]


def log_prob(p: Gaussian, x: Tensor) -> Float[Tensor, " B"]:
    """The log-density of each example x[b] under p[b].

    In nats, summed over the event. Raises where var is 0. Eq. [eq-gaussian-log-density].
    """
    require_gaussian(p, "p")
    require_like(x, "x", p.mean, "p.mean")
    return -0.5 * per_example((x - p.mean) ** 2 / p.var + torch.log(2 * math.pi * p.var))


def entropy(p: Gaussian) -> Float[Tensor, " B"]:
    """The differential entropy of each example's Gaussian.

    In nats, summed over the event. Raises where var is 0. [Bishop2006]
    """
    require_gaussian(p, "p")
    return 0.5 * per_example(torch.log(2 * math.pi * math.e * p.var))


def kl(p: Gaussian, q: Gaussian) -> Float[Tensor, " B"]:
    """The Kullback-Leibler divergence of each p[b] from q[b].

    In nats, summed over the event; accurate where p and q nearly agree.
    Raises where a var is 0. Eq. [eq-gaussian-kl].
    """
    _require_pair(p, q)
    log_ratio = torch.log(p.var / q.var)
    return 0.5 * per_example((p.mean - q.mean) ** 2 / q.var + torch.expm1(log_ratio) - log_ratio)


def product(p: Gaussian, q: Gaussian) -> Gaussian:
    """The normalized product of the two densities.

    The constant that normalizes it is exp(log_overlap(p, q)). Raises where a var is 0.
    Eq. [eq-gaussian-product].
    """
    _require_pair(p, q)
    total = p.var + q.var
    return Gaussian((q.var * p.mean + p.var * q.mean) / total, p.var * q.var / total)


def log_overlap(p: Gaussian, q: Gaussian) -> Float[Tensor, " B"]:
    """The log of the integral of the product of the two densities.

    In nats, summed over the event. Raises where a var is 0. Eq. [eq-gaussian-product].
    """
    _require_pair(p, q)
    return log_prob(Gaussian(q.mean, p.var + q.var), p.mean)


def sample(p: Gaussian, *, generator: torch.Generator) -> Float[Tensor, "B *event"]:
    """One draw of each example's Gaussian, differentiable in mean and var.

    A variance of 0 gives the mean. The reparameterization of [Kingma2014].
    """
    require_gaussian(p, "p", points=True)
    noise = torch.randn(p.mean.shape, generator=generator, dtype=p.mean.dtype, device=p.mean.device)
    return p.mean + p.var.sqrt() * noise


def standard(like: Tensor) -> Gaussian:
    """The standard normal with the shape, dtype and device of `like`."""
    require_float(like, "like")
    return Gaussian(torch.zeros_like(like), torch.ones_like(like))


def require_gaussian(p: Gaussian, name: str, *, points: bool = False) -> None:
    """Raise unless p is a Gaussian of one shape and dtype with positive variances; `points` allows 0."""
    require(isinstance(p, Gaussian), name, type(p).__name__, "a Gaussian")
    require_float(p.mean, f"{name}.mean")
    require(p.mean.dim() > 0, f"the shape of {name}.mean", (), "(B, *event)")
    require_like(p.var, f"{name}.var", p.mean, f"{name}.mean")
    if points:
        require_all(p.var >= 0, f"{name}.var", p.var, ">= 0")
    else:
        require_all(p.var > 0, f"{name}.var", p.var, "> 0")


def _require_pair(p: Gaussian, q: Gaussian) -> None:
    require_gaussian(p, "p")
    require_gaussian(q, "q")
    require_like(q.mean, "q.mean", p.mean, "p.mean")
