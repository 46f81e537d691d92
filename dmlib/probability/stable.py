"""Functions that keep their digits, and those of their gradients, where the formula they stand for would lose them."""

from __future__ import annotations

import math

import torch
from torch import special

from dmlib.checks import Tensor


def scale_down(residual: Tensor, log_var: Tensor) -> Tensor:
    """residual / exp(log_var / 2); a residual of 0 stays 0 however small the variance."""
    largest = 0.99 * math.log(torch.finfo(residual.dtype).max)
    root = torch.exp((-log_var / 4).clamp(max=largest))
    return residual * root * root


def standardize(residual: Tensor, log_scale: Tensor) -> Tensor:
    """residual / exp(log_scale), cut where its square would leave the numbers of the dtype."""
    most = math.sqrt(torch.finfo(residual.dtype).max) / 4
    return (residual * torch.exp((-log_scale).clamp(max=math.log(most)))).clamp(-most, most)


def log_ndtr(x: Tensor) -> Tensor:
    """log Phi(x), of which `torch.special.log_ndtr` has the value, but not the gradient far in the lower tail."""
    tail = x < -1
    z = torch.where(tail, x, -1.0)
    return torch.where(
        tail, torch.log(special.erfcx(-z / math.sqrt(2)) / 2) - z**2 / 2, special.log_ndtr(torch.where(tail, 0.0, x))
    )


def log_ndtr_difference(upper: Tensor, lower: Tensor, log_width: Tensor) -> Tensor:
    """log(Phi(upper) - Phi(lower)) for lower < upper, upper + lower <= 0, log_width that of their distance.

    A bin so narrow that the difference would cancel has the mass density times width, to 1e-11.
    """
    center = (upper + lower) / 2
    narrow = log_width + torch.log1p(-center) < math.log(1e-5)
    log_density = -0.5 * center**2 - 0.5 * math.log(2 * math.pi)
    log_upper = log_ndtr(upper)
    drop = torch.where(narrow, 1.0, log_upper - log_ndtr(lower))
    return torch.where(narrow, log_density + log_width, log_upper + torch.log(-torch.expm1(-drop)))


def log_sinhc_near_0(s: Tensor) -> Tensor:
    """log(sinh(s) / s), an even function, by its series: to 1e-13 for s up to 0.1."""
    square = s**2
    return square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """The mean of the continuous Bernoulli: 1 / L - 1 / (exp(L) - 1) from the end where it is high, L = |logits|."""
    half = logits / 2
    small = half.abs() < 0.1
    s = torch.where(small, half, 0.0)
    series = s / 3 - s**3 / 45 + 2 * s**5 / 945 - s**7 / 4725
    r = torch.where(small, 1.0, logits.abs())
    from_end = 1 / r + torch.exp(-r) / torch.expm1(-r)  # of the end where the density is largest
    return torch.where(small, 0.5 + 0.5 * series, torch.where(logits > 0, 1 - from_end, from_end))
