"""Record how far samples of a shipped diffusion model are from the data, by sampler and number of network calls.

python -m dmlib.experiments.calls mnist

The record, calls-<data>, goes into the package. All samplers start from the same noises, seed by seed, so that their
distances can be paired. Half an hour of one core for MNIST.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dmlib import metrics, rng
from dmlib.checks import Tensor
from dmlib.diffusion import bounds, parameterization, sampling, schedule
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.experiments import command, measure, recorded
from dmlib.learning import checkpoints
from dmlib.probability.likelihoods import to_levels, to_unit
from dmlib.probability.mixture import Denoiser

SEEDS, SAMPLES, FITTED, COUNTS, FEW = 5, 200, 200, (10, 20, 40), (10, 20)
SETTINGS = {
    "ddim": COUNTS,
    "ancestral": COUNTS,  # With the posterior variance.
    "heun": COUNTS,  # At most as many calls: two for each step, and one for the last.
    "ancestral, beta": FEW,
    "ancestral, best": FEW,
    "ddim, noise kept": (20,),  # The prediction clipped, the noise not recomputed.
}
SHOWN = [(name, n) for n in (10, 40) for name in ("ancestral", "ddim", "heun")]
Draw = Callable[[Tensor, torch.Generator], Tensor]


def evenly(s: NoiseSchedule, steps: int) -> Tensor:
    """`steps` + 1 times from T to 0."""
    return torch.linspace(s.T, 0, steps + 1).round().long()


def sampler(name: str, denoiser: Denoiser, s: NoiseSchedule, calls: int, fitted: Tensor) -> tuple[Draw, int]:
    """The sampler (x_T, generator) -> x_0 of this name, and the number of its calls; all clip to -1..1."""
    clipped = parameterization.clamped(denoiser)
    times = evenly(s, (calls + 1) // 2 if name == "heun" else calls)
    if name == "heun":
        path = functools.partial(sampling.heun, clipped, s, times=times, keep=[0])
        return lambda x_T, _: path(x_T).x[-1], 2 * (len(times) - 1) - 1
    if name == "ddim, noise kept":
        return lambda x_T, _: noise_kept(denoiser, s, x_T, times), calls
    if name.startswith("ddim"):
        path = functools.partial(sampling.ddim, clipped, s, times=times, keep=[0])
        return lambda x_T, _: path(x_T).x[-1], calls
    kind = name.partition(", ")[2] or "posterior"
    variance = best(clipped, s, times, fitted) if kind == "best" else kind
    path = functools.partial(sampling.ancestral, clipped, s, times=times, variance=variance, keep=[0])
    return lambda x_T, g: path(x_T, generator=g).x[-1], calls


def best(denoiser: Denoiser, s: NoiseSchedule, times: Tensor, images: Tensor) -> Tensor:
    """The best variance of the jumps between these times, [T+1], measured on images that are not judged."""
    kept = times.flip(0)
    chain = NoiseSchedule(s.alpha_bar[kept])
    there = functools.partial(_at_times, denoiser, kept)
    table = torch.zeros(s.T + 1, dtype=torch.float64)
    table[kept] = bounds.optimal_variance(there, chain, images, generator=rng.generator(0, 5))
    return table


@torch.no_grad()
def noise_kept(denoiser: Denoiser, s: NoiseSchedule, x: Tensor, times: Tensor) -> Tensor:
    """DDIM whose prediction of x_0 is clipped after the noise was read off it."""
    for t, u in itertools.pairwise(times.tolist()):
        signal, noise = s.alpha_bar[t].sqrt().item(), (1 - s.alpha_bar[t]).sqrt().item()
        x_0_hat = denoiser(x, torch.full((len(x),), t, device=x.device))
        epsilon = (x - signal * x_0_hat) / noise
        x = s.alpha_bar[u].sqrt().item() * x_0_hat.clamp(-1, 1) + (1 - s.alpha_bar[u]).sqrt().item() * epsilon
    return x


def measured(denoiser: Denoiser, s: NoiseSchedule, source: measure.Source, settings: Any, folder: Path) -> dict:
    """The Frechet distance of each seed's samples under each setting, with floor and ceiling; writes samples.png."""
    unit = functools.partial(to_unit, levels=source.levels)
    features = functools.partial(_features, source)
    train, _ = measure.read(unit(source.train), source.name)
    noise = torch.randint(source.levels, (SAMPLES, *source.test.shape[1:]), generator=rng.generator(0, 3))
    ends = {"floor": unit(measure.held_out(source, SAMPLES)), "ceiling": unit(noise)}
    found: dict[str, Any] = {name: metrics.frechet(features(x)[0], train).item() for name, x in ends.items()}
    rows, fitted = {}, unit(source.train[:FITTED])
    for name, counts in settings.items():
        found[name] = {}
        for calls in counts:
            start = time.perf_counter()
            draw, made = sampler(name, denoiser, s, calls, fitted)
            sets = [_set(draw, tuple(source.test.shape[1:]), seed) for seed in range(SEEDS)]
            read, probs = (list(part) for part in zip(*map(features, sets)))
            rows[name, calls] = sets[0][:8]
            found[name][str(calls)] = {
                "calls": made,
                "frechet": [metrics.frechet(part, train).item() for part in read],
                "frechet_pooled": metrics.frechet(torch.cat(read), train).item(),
                "unclear": [(p.amax(1) < 0.9).double().mean().item() for p in probs],
                "duration": round(time.perf_counter() - start, 3),
            }
            command.say(f"{name}, {made} calls: {found[name][str(calls)]['frechet_pooled']:.2f}")
    command.picture(folder / recorded.SHEET, torch.cat([rows[key] for key in SHOWN if key in rows]))
    return found


def _set(draw: Draw, event: tuple[int, ...], seed: int) -> Tensor:
    """The samples of one seed, from noises that no setting changes."""
    x_T = torch.randn(SAMPLES, *event, generator=rng.generator(seed, 1))
    return torch.cat([draw(x, rng.generator(seed, 2, i)) for i, x in enumerate(x_T.split(50))])


def _features(source: measure.Source, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the shipped classifier reads off images on [-1, 1], once they are rounded to levels as the data are."""
    return measure.read(to_unit(to_levels(images, source.levels), source.levels), source.name)


def _at_times(denoiser: Denoiser, times: Tensor, x: Tensor, i: Tensor) -> Tensor:
    return denoiser(x, times.to(i.device)[i])


def main(data: str, settings: Any = SETTINGS) -> None:
    """Draw, measure and record."""
    start, name = time.perf_counter(), f"ddpm-{data}"
    network, card = checkpoints.pretrained(name)
    s = schedule.build(card["schedule"])
    denoiser = parameterization.as_denoiser(network, s, card["kind"])
    where = command.environment(command.RunConfig(steps=1, device="cpu"))
    asked = {"data": data, "weights": name, "seeds": SEEDS, "samples": SAMPLES, "fitted": FITTED, "settings": settings}
    with checkpoints.replacing(recorded.RECORDS / f"calls-{data}") as fresh:
        found = measured(denoiser, s, measure.source(data), settings, fresh)
        found["duration"] = round(time.perf_counter() - start, 3)
        for part, content in (("config", asked), ("environment", where), ("metrics", found)):
            command.write(fresh / f"{part}.json", content)
        recorded.seal(fresh)
    command.say(f"calls-{data}: {found['duration']:.0f} seconds")


if __name__ == "__main__":
    main(sys.argv[1])
