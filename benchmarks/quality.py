"""How good samples and bound become for how much training, each implementation at its natural configuration."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import cases, timing
from benchmarks.loops import Case, Loop
from benchmarks.plan import Plan
from dmlib import metrics, rng
from dmlib.checks import Tensor, per_example
from dmlib.diffusion import bounds, parameterization, sampling
from dmlib.diffusion.forward import q_sample
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.experiments import measure
from dmlib.probability.likelihoods import to_unit
from dmlib.probability.mixture import Denoiser

UNITS = {
    "budget": "seconds of training",
    "seconds": "seconds of training",
    "images": "images that training saw, repetitions included",
    "frechet": "squared Frechet distance in the shipped classifier's features",
    "precision": "share of the samples",
    "recall": "share of the data",
    "bits_per_dim": "bits per dimension, a bound on held-out images",
    "seconds_to_target": "seconds of training",
    "seconds_to_floor": "seconds of training",
}
BOUND_IMAGES = {"digits": 397, "mnist": 50}
LAST = torch.tensor([0])


def run(plan: Plan, device: str, peers_there: list[str], data: str, deadline: float) -> dict[str, Any]:
    """All contenders at each budget in turn; no budget is begun after the deadline, a time of time.monotonic()."""
    budgets, steps = (
        (plan.budgets, plan.sampling_steps) if data == "digits" else (plan.mnist_budgets, plan.mnist_sampling_steps)
    )
    racers = {
        name: (case, make(case, device)) for name, (case, make) in cases.contenders(data, plan, peers_there).items()
    }
    spent, trained = dict.fromkeys(racers, 0.0), dict.fromkeys(racers, 0)
    rows, skipped = [], []
    for budget in budgets:
        for name, (case, loop) in racers.items():
            if time.monotonic() > deadline:
                skipped.append({"loop": name, "budget": budget})
                continue
            spent[name], n = train(loop, budget, spent[name], timing.clock(device))
            trained[name] += n * case.config.batch_size
            found = judge(case, loop, data, steps, plan, device)
            rows.append({"loop": name, "budget": budget, "seconds": spent[name], "images": trained[name]} | found)
            print(rows[-1], flush=True)
    return {"units": UNITS, "sampling_steps": steps, "rows": rows, "not_run": skipped} | summary(rows)


def train(loop: Loop, budget: float, spent: float, now: Callable[[], float]) -> tuple[float, int]:
    """Go on until `budget` seconds are spent in all: the seconds spent then, and the steps of this call."""
    n, start = 0, now()
    while spent + now() - start < budget:
        loop.step()
        n += 1
    return spent + now() - start, n


def judge(case: Case, loop: Loop, data: str, steps: int, plan: Plan, device: str) -> dict[str, Any]:
    """Frechet distance and held-out bound of the averaged network as it stands."""
    source, network, s = measure.source(data), loop.average(), case.schedule
    denoiser = parameterization.clamped(parameterization.as_denoiser(network, s, case.kind))
    n = plan.samples if data == "digits" else plan.mnist_samples
    samples = draw(denoiser, s, n, tuple(source.test.shape[1:]), steps, device, data)
    found = measure.quality([samples], source)
    found |= {key: found[key][0] for key in ("frechet", "precision", "recall", "unclear")}  # of the one set
    count = 4 if plan.is_quick else BOUND_IMAGES[data]
    x_0 = to_unit(source.test[:count], source.levels).to(device)
    bits = metrics.bits_per_dim(
        -cost(denoiser, s, x_0, source.levels, plan.strata, rng.generator(0, 4, device=device)), x_0[0].numel()
    )
    error = (bits.std() / len(bits) ** 0.5).item()
    return found | {"bits_per_dim": bits.mean().item(), "bits_per_dim_error": error}


@torch.no_grad()
def draw(
    denoiser: Denoiser, s: NoiseSchedule, n: int, event: tuple[int, ...], steps: int, device: str, data: str
) -> Tensor:
    """Samples on [-1, 1] in evenly spaced steps: ancestral ones for digits, fewer of DDIM for MNIST."""
    times, parts = torch.linspace(s.T, 0, min(steps, s.T) + 1).round().long(), []
    for i, m in enumerate(measure.batches(n)):
        g = rng.generator(0, 5, i, device=device)
        x_T = torch.randn(m, *event, generator=g, device=device)
        if data == "digits":
            path = sampling.ancestral(denoiser, s, x_T, generator=g, times=times, keep=LAST)
        else:
            path = sampling.ddim(denoiser, s, x_T, times=times, keep=LAST)
        parts.append(path.x[-1])
    return torch.cat(parts)


@torch.no_grad()
def cost(denoiser: Denoiser, s: NoiseSchedule, x_0: Tensor, levels: int, strata: int, g: torch.Generator) -> Tensor:
    """The negative bound of each image [B] in nats, without bias: its transitions from `strata` terms of T - 1.

    Reconstruction and prior are taken of every image; one term is drawn uniformly from each of `strata` equal parts.
    """
    one = torch.ones(len(x_0), dtype=torch.int64, device=x_0.device)
    decoder = bounds.discretized_decoder(denoiser, s, levels)
    total = bounds.prior_kl(s, x_0) - decoder(x_0, q_sample(s, x_0, one, _normal(x_0, g)))
    steps = parameterization.elbo_weight("x_0", s.alpha_bar[2:], s.alpha_bar[1:-1])
    weight = torch.cat([steps.new_zeros(2), steps])
    for k in range(strata):
        place = (k + torch.rand(len(x_0), generator=g, device=x_0.device)) / strata
        t = (2 + (place * (s.T - 1)).long()).clamp(max=s.T)
        error = x_0 - denoiser(q_sample(s, x_0, t, _normal(x_0, g)), t)
        total = total + (s.T - 1) / strata * per_example(s.at(weight, t, x_0) * error**2)
    return total


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The seconds that each took to the target, twice the distance of held-out images, and to that floor itself."""
    curves = {row["loop"]: [(r["seconds"], r["frechet"]) for r in rows if r["loop"] == row["loop"]] for row in rows}
    floor = rows[0]["frechet_floor"] if rows else 0.0
    return {
        "seconds_to_target": {name: reached(curve, 2 * floor) for name, curve in curves.items()},
        "seconds_to_floor": {name: reached(curve, floor) for name, curve in curves.items()},
    }


def reached(curve: list[tuple[float, float]], target: float) -> float | None:
    """The seconds at which a curve of (seconds, distance) first meets the target, straight on logarithmic axes.

    None where it does not; the first seconds where it begins below.
    """
    before: tuple[float, float] | None = None
    for seconds, distance in curve:
        if distance <= target:
            if before is None or distance == before[1]:
                return seconds
            share = math.log(before[1] / target) / math.log(before[1] / max(distance, 1e-12))
            return math.exp(math.log(before[0]) + share * math.log(seconds / before[0]))
        before = (seconds, distance)
    return None


def _normal(like: Tensor, g: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=g, device=like.device)
