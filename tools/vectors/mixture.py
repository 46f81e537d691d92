"""Mixtures, samplers and schedules drawn by hand: live/math/oracle.js, parts of sampling.js and schedule.js."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dmlib import metrics, rng
from dmlib.diffusion import forward, parameterization, sampling, schedule, score
from dmlib.probability import mixture
from tools.vectors import Case

F64 = torch.float64
LINE = mixture.Mixture(*(torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [[-1.2], [0.4]], [0.02, 0.3])))
PLANE = mixture.Mixture(
    *(torch.tensor(v, dtype=F64) for v in ([0.2, 0.5, 0.3], [[-1.0, 0.6], [0.9, 1.1], [0.3, -1.4]], [0.04, 0.1, 0.3]))
)
SHORT = schedule.linear(12, 0.05, 0.5)
TIMES = [12, 9, 7, 4, 1, 0]
DENOISER = "(x, t) => oracle.posteriorMean(m, x, alphaBar[t])"


def cases() -> list[Case]:
    """Exact values, whole paths, draws, counts, distances and tables."""
    return [*values(), *paths(), *draws(), *tables()]


def plain(m: mixture.Mixture) -> dict[str, Any]:
    """A mixture as the page has it."""
    return {"D": m.means.shape[1], "weights": m.weights, "means": m.means.flatten(), "vars": m.vars}


def values() -> list[Case]:
    """Density, denoiser and score at points near and far, in one dimension and in two."""
    functions = {
        "logDensity": (mixture.log_prob, "eq-mixture-posterior-mean", "the log density"),
        "posteriorMean": (mixture.posterior_mean, "eq-mixture-posterior-mean", "the denoiser"),
        "score": (mixture.score, "eq-score", "the score"),
    }
    points = torch.tensor([[-2.5, 0.4], [0.3, -0.2], [1.1, 1.3], [45.0, -50.0]], dtype=F64)
    found = []
    for m, x in ((LINE, points[:, :1]), (PLANE, points)):
        given = {"m": plain(m), "x": x.flatten()}
        for name, (function, label, what) in functions.items():
            for a in (1.0, 0.35):
                claim, call = f"{what} in D = {x.shape[1]}, alpha_bar = {a}", f"oracle.{name}(m, x, {a})"
                found.append(Case(label, claim, call, given, function(m, x, a).flatten()))
        best = mixture.posterior_mean(m, x, 0.35)
        for name, kind in (("noise", "eps"), ("velocity", "v")):
            wanted = parameterization.from_x_0(kind, best, x, torch.full((len(x),), 0.35, dtype=F64)).flatten()
            claim, call = f"the best {name} in D = {x.shape[1]}", f"oracle.{name}(m, x, 0.35)"
            found.append(Case("eq-predict-optimum", claim, call, given, wanted))
    return found


def paths() -> list[Case]:
    """Paths of three components in the plane: DDIM, the flow in terms of the score, and the forward process."""
    denoiser, x_T = mixture.as_denoiser(PLANE, SHORT), torch.randn(4, 2, generator=rng.generator(0), dtype=F64)
    given = {"m": plain(PLANE), "alphaBar": SHORT.alpha_bar, "xT": x_T.flatten(), "times": TIMES}
    found = []
    for eta in (0.0, 0.5, 1.0):
        path = sampling.ddim(denoiser, SHORT, x_T, times=TIMES, eta=eta, generator=rng.generator(1))
        g = rng.generator(1)
        noise = [torch.randn(4, 2, generator=g, dtype=F64).flatten() for _ in TIMES[2:]]
        call = f"sampling.ddim({DENOISER}, alphaBar, xT, times, {eta}, () => noise.shift())"
        expected = {"x": path.x.flatten(1), "x0": path.x_0_hat.flatten(1)}
        found.append(Case("eq-ddim-step", f"three clouds, eta = {eta}", call, {**given, "noise": noise}, expected))
    path = score.probability_flow(lambda x, t: mixture.score(PLANE, x, SHORT.alpha_bar[t]), SHORT, x_T, times=TIMES)
    expected = {"x": path.x.flatten(1), "x0": path.x_0_hat.flatten(1)}
    call = f"sampling.flow({DENOISER}, alphaBar, xT, times)"
    found.append(Case("eq-heun-step", "three clouds, the probability flow by their score", call, given, expected))
    x, noise = [x_T], torch.randn(5, 4, 2, generator=rng.generator(2), dtype=F64)
    for s, t, fresh in zip(TIMES[:0:-1], TIMES[-2::-1], noise):
        law = forward.q_transition(SHORT, x[-1], *(torch.full((4,), n) for n in (s, t)))
        x.append(law.mean + law.var.sqrt() * fresh)
    call = "sampling.forward(xT, alphaBar, times, () => noise.shift())"
    given = {**given, "noise": noise.flatten(1)}
    return [*found, Case("eq-noising-between", "a path of the forward process", call, given, torch.stack(x[::-1]))]


def draws() -> list[Case]:
    """Draws from the library's choices and noises, shares of points, weights, and a distance of two sets."""
    found = []
    for m in (LINE, PLANE):
        g, D = rng.generator(3), m.means.shape[1]
        x = mixture.sample(m, 7, generator=g)
        g = rng.generator(3)
        k = torch.multinomial(m.weights, 7, replacement=True, generator=g)
        noise = torch.randn(7, D, generator=g, dtype=F64).flatten()
        middles = (m.weights.cumsum(0) - m.weights / 2)[k]  # each chooses its component
        call = "oracle.sample(m, 7, { uniform: () => u.shift(), normal: () => noise.shift() })"
        given = {"m": plain(m), "u": middles, "noise": noise}
        found.append(Case("eq-mixture-marginal", f"draws in D = {D}", call, given, x.flatten()))
        joint = torch.stack(
            [w.log() - 0.5 * (((x - mu) ** 2).sum(1) / v + D * v.log()) for w, mu, v in zip(m.weights, m.means, m.vars)]
        )
        given = {"m": plain(m), "x": x.flatten()}
        shared = f"how many points each component has, D = {D}"
        found.append(Case("eq-latent-responsibility", shared, "oracle.counts(m, x)", given, joint.softmax(0).sum(1)))
        y = mixture.sample(m, 5, generator=g)
        given = {"x": x.flatten(), "y": y.flatten()}
        distance, claim = metrics.energy_distance(x, y), f"energy distance in D = {D}"
        found.append(Case("eq-mixture-marginal", claim, f"oracle.energy({D}, x, y)", given, distance))
    edge = "oracle.sample({ D: 1, weights: [0.5, 0.25], means: [1, 2], vars: [0, 0] }, 3, { uniform: () => u.shift(), "
    edge += "normal: () => 0 })"  # at a boundary, and where the weights have lost their last digits
    found.append(Case("eq-mixture-marginal", "draws at the edges", edge, {"u": [0.25, 0.5, 0.9]}, [1, 2, 2]))
    sums = "[...oracle.normalized([0.1, 0, 0.3]), ...oracle.normalized([0, 0])]"
    return [*found, Case("eq-mixture-marginal", "weights divided by their sum", sums, {}, [0.25, 0, 0.75, 0.5, 0.5])]


def tables() -> list[Case]:
    """Schedules through knots, which the library's class takes, and knots that rise or lie flat."""
    knots = [0.85, 0.6, 0.25, 0.01]
    table = np.interp(np.arange(11) / 10, [0, 0.25, 0.5, 0.75, 1], [1, *knots])
    accepted = schedule.NoiseSchedule(torch.from_numpy(table)).alpha_bar
    mended = [0.9995, 0.5, 0.4995, 0.001, 0.0005]
    repaired = "knots that rise, lie flat, or reach 0"
    return [
        Case("eq-noising-marginal", "a schedule through knots", "schedule.drawn(10, k)", {"k": knots}, accepted),
        Case("eq-noising-marginal", repaired, "schedule.decreasing([2, 0.5, 0.7, 0, -1])", {}, mended),
    ]
