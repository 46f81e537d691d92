"""Random numbers and samplers: live/math/random.js and sampling.js."""

from __future__ import annotations

import math

import torch

from dmlib import rng
from dmlib.diffusion import sampling, schedule
from dmlib.probability import mixture
from tools.vectors import Case

SHORT = schedule.linear(12, 0.05, 0.5)
TIMES = [12, 9, 7, 4, 1, 0]
DENOISER = "(x, t) => x.map((v) => Math.sqrt(alphaBar[t]) * 0.3 * v / (1 - 0.7 * alphaBar[t]))"  # exact for N(0, 0.3)


def cases() -> list[Case]:
    """Whole paths against a single Gaussian's exact denoiser, and the generator against its definition."""
    f64 = torch.float64
    one = mixture.Mixture(torch.ones(1, dtype=f64), torch.zeros(1, 1, dtype=f64), torch.full((1,), 0.3, dtype=f64))
    denoiser, x_T = mixture.as_denoiser(one, SHORT), torch.linspace(-2, 2, 5, dtype=f64)[:, None]
    values = {"alphaBar": SHORT.alpha_bar, "xT": x_T.flatten(), "times": TIMES}
    found = []
    for eta in (0.0, 0.6, 1.0):
        path = sampling.ddim(denoiser, SHORT, x_T, times=TIMES, eta=eta, generator=rng.generator(0))
        g = rng.generator(0)
        noise = [torch.randn(5, 1, generator=g, dtype=f64).flatten() for _ in TIMES[2:]]
        call = f"sampling.ddim({DENOISER}, alphaBar, xT, times, {eta}, () => noise.shift())"
        expected = {"x": path.x.flatten(1), "x0": path.x_0_hat.flatten(1)}
        found.append(Case("eq-ddim-step", f"a path, eta = {eta}", call, {**values, "noise": noise}, expected))
    path = sampling.heun(denoiser, SHORT, x_T, times=TIMES)
    expected = {"x": path.x.flatten(1), "x0": path.x_0_hat.flatten(1)}
    call = f"sampling.flow({DENOISER}, alphaBar, xT, times)"
    return [*found, Case("eq-heun-step", "a path of the flow", call, values, expected), *seeded()]


def seeded() -> list[Case]:
    """The generator, written a second time in integers without bounds; pairs of its numbers are turned to normal."""
    uniforms = [mulberry(7, i) for i in range(1, 7)]
    pairs = list(zip(uniforms[::2], uniforms[1::2]))
    turned = [(math.sqrt(-2 * math.log(u)), 2 * math.pi * v) for u, v in pairs]
    normal = [value for r, a in turned for value in (r * math.cos(a), r * math.sin(a))]
    call = "((g) => [1, 2, 3, 4, 5, 6].map(g.uniform))(random.generator(7))"
    return [
        Case("eq-reparameterize", "uniform numbers of a seed", call, {}, uniforms),
        Case("eq-reparameterize", "normal numbers of a seed", "random.normals(7, 6)", {}, normal),
    ]


def mulberry(seed: int, n: int) -> float:
    """The n-th number of the generator, in (0, 1)."""
    size = 2**32
    state = (seed + n * 0x6D2B79F5) % size
    z = (state ^ state >> 15) * (state | 1) % size
    z ^= (z + (z ^ z >> 7) * (z | 61)) % size
    return ((z ^ z >> 14) + 0.5) / size
