"""Distributions in the plane."""

from __future__ import annotations

import math

import torch

from dmlib.checks import Float, Tensor, integer, require_generator


def two_moons(n: int, *, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Points of two interleaved half circles; mean 0, unit variance on average over the two coordinates."""
    angle = math.pi * _uniform(n, generator)
    circle = _on_circle(angle)
    lower = _uniform(n, generator).unsqueeze(1) < 0.5
    moons = torch.where(lower, torch.tensor([1.0, 0.5], device=circle.device) - circle, circle)
    return _standardize(moons, mean=(0.5, 0.25), std=0.7122, noise=0.1, generator=generator)


def eight_gaussians(n: int, *, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Points of eight narrow Gaussians on a circle; mean 0, unit variance in each coordinate."""
    angle = 2 * math.pi / 8 * torch.floor(8 * _uniform(n, generator))
    return _standardize(_on_circle(angle), mean=(0.0, 0.0), std=0.7106, noise=0.07, generator=generator)


def spiral(n: int, *, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Points of a spiral of one and a half turns; mean 0, unit variance on average over the two coordinates."""
    angle = 1.5 * math.pi * (1 + 2 * _uniform(n, generator))
    arm = angle.unsqueeze(1) * _on_circle(angle)
    return _standardize(arm, mean=(2.0, 2 / (3 * math.pi)), std=6.796, noise=0.3, generator=generator)


def checkerboard(n: int, *, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Points uniform on the eight dark squares of a 4 x 4 board; mean 0, unit variance in each coordinate."""
    x = 4 * _uniform(n, generator)
    row = 2 * torch.floor(2 * _uniform(n, generator)) + torch.floor(x) % 2
    board = torch.stack([x, row + _uniform(n, generator)], 1)
    return _standardize(board, mean=(2.0, 2.0), std=math.sqrt(4 / 3), noise=0.0, generator=generator)


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    n = integer(n, "n", 1)
    require_generator(generator)
    return torch.rand(n, generator=generator, device=generator.device)


def _on_circle(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], 1)


def _standardize(points: Tensor, *, mean: tuple, std: float, noise: float, generator: torch.Generator) -> Tensor:
    """Noise added, then the distribution's own mean and root mean variance taken out."""
    noisy = points + noise * torch.randn(points.shape, generator=generator, device=points.device)
    return (noisy - torch.tensor(mean, device=points.device)) / std
