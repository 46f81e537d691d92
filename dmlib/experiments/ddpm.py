"""Train a DDPM, measure its bound and its samples, and record the run.

    python -m dmlib.experiments.ddpm --data digits                                # minutes on two cores
    python -m dmlib.experiments.ddpm --data mnist --amp_dtype auto --device auto   # more than an hour of a core
    torchrun --nproc_per_node=4 -m dmlib.experiments.ddpm --data mnist             # the same run on four GPUs
    python -m dmlib.experiments.ddpm --kind v --name ddpm-digits-v                 # a variant, in a folder of its own

The same command continues a run that was stopped. All losses and bounds are in nats until they are named bits.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmlib.checks import Tensor, require
from dmlib.diffusion import bounds, parameterization, sampling, schedule
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.experiments import command, measure
from dmlib.learning import processes, rng
from dmlib.learning.config import free
from dmlib.learning.networks import build
from dmlib.learning.training import Objective, fit
from dmlib.probability.likelihoods import to_unit
from dmlib.probability.mixture import Denoiser


@dataclass(frozen=True)
class DDPMConfig(command.RunConfig):
    """A diffusion model of images and its training."""

    steps: int = 3000
    lr: float = 2e-3
    warmup: int = 200
    cosine: bool = True
    ema_decay: float = 0.995
    log_every: int = 200
    checkpoint_every: int | None = free(1000)
    schedule: str = "linear"
    T: int = 200
    beta_1: float = 1e-3  # Of a linear schedule, as is beta_T.
    beta_T: float = 0.1
    kind: str = "eps"  # What the network predicts: x_0, eps, score or v.
    weighting: str = "simple"  # simple: the plain squared error; elbo: the bound's own weights.
    patch: int = 1
    widths: tuple[int, ...] = (32, 64)
    blocks: int = 1
    blind: bool = False  # Whether the network ignores t.
    bound_images: int = free(397)  # Held-out images of the bound.
    samples: int = free(1000)
    sampling_steps: int = free(200)  # All T with the posterior variance; fewer are DDIM steps.


PRESETS = {
    "digits": DDPMConfig(),
    "mnist": DDPMConfig(
        data="mnist", steps=20000, batch_size=64, lr=1e-3, ema_decay=0.999, amp_dtype="auto", log_every=500,
        schedule="cosine", T=1000, kind="v", patch=2, widths=(64, 96), bound_images=100, sampling_steps=50,
    ),
}  # fmt: skip


def noise(config: DDPMConfig) -> dict[str, Any]:
    """What schedule.build takes."""
    betas = {"beta_1": config.beta_1, "beta_T": config.beta_T} if config.schedule == "linear" else {}
    return {"name": config.schedule, "T": config.T, **betas}


def objective(config: DDPMConfig, noise_schedule: NoiseSchedule, levels: int) -> Objective:
    """What the configuration minimizes, on images of `levels` levels that are put on [-1, 1]."""
    weightings = {"simple": _simple, "elbo": _elbo}
    require(config.weighting in weightings, "weighting", repr(config.weighting), "'simple' or 'elbo'")
    loss = functools.partial(weightings[config.weighting], noise_schedule, config.kind, levels)
    draw = functools.partial(bounds.draw, schedule=noise_schedule)
    return Objective(draw, loss, functools.partial(to_unit, levels=levels))


def _simple(s: NoiseSchedule, kind: str, levels: int, network: Any, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    return bounds.simple_loss(network, x_0, t, noise, schedule=s, kind=kind)


def _elbo(s: NoiseSchedule, kind: str, levels: int, network: Any, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    denoiser = parameterization.as_denoiser(network, s, kind)
    decoder = bounds.discretized_decoder(denoiser, s, levels)
    return bounds.elbo_loss(denoiser, x_0, t, noise, schedule=s, decoder=decoder)


@torch.no_grad()
def draw_samples(denoiser: Denoiser, s: NoiseSchedule, config: DDPMConfig, event: tuple[int, ...]) -> Tensor:
    """config.samples images on [-1, 1]; all T steps, or fewer of DDIM."""
    device = processes.available(config.device)
    images = []
    for i, n in enumerate(measure.batches(config.samples)):
        g = rng.generator(config.seed, 1, i, device=device)
        x_T = torch.randn(n, *event, generator=g, device=device)
        if config.sampling_steps == s.T:
            path = sampling.ancestral(denoiser, s, x_T, generator=g, keep=torch.tensor([0]))
        else:
            times = torch.linspace(s.T, 0, config.sampling_steps + 1).round().long()
            path = sampling.ddim(denoiser, s, x_T, times=times, keep=torch.tensor([0]))
        images.append(path.x[-1])
    return torch.cat(images)


@torch.no_grad()
def held_out_bound(denoiser: Denoiser, s: NoiseSchedule, config: DDPMConfig, x_0: Tensor, levels: int) -> dict:
    """The bound on images x_0 over all T terms, one noise each, in bits per dimension."""
    decoder, parts = bounds.discretized_decoder(denoiser, s, levels), []
    for i, batch in enumerate(x_0.split(measure.BATCH)):
        g = rng.generator(config.seed, 2, i, device=x_0.device)
        noises = (torch.randn(batch.shape, generator=g, device=x_0.device) for _ in range(s.T))
        parts.append(bounds.denoising_form(denoiser, s, batch, noises, decoder))
    return measure.bound(parts, x_0[0].numel())


def run(config: DDPMConfig, folder: Path) -> dict[str, Any]:
    """Train, measure, and write samples.png; with `publish`, the weights too."""
    source, steps = measure.source(config.data), noise(config)
    s, keys = schedule.build(steps), ("patch", "widths", "blocks", "blind")
    size = source.train.shape[-1]
    spec = {"name": "unet", "channels": 1, "size": size} | {key: getattr(config, key) for key in keys}
    goal, network = objective(config, s, source.levels), build(spec, seed=config.seed)
    command.say(f"{config.name}: {command.environment(config)}")
    result = fit(
        network, goal, source.train, config, device=config.device, on_log=command.progress, validation=source.validation
    )
    if not processes.is_first():
        return {}
    denoiser = parameterization.clamped(parameterization.as_denoiser(result.ema, s, config.kind))
    device = processes.available(config.device)
    x_0 = to_unit(measure.held_out(source, config.bound_images), source.levels).to(device)
    samples = draw_samples(denoiser, s, config, tuple(x_0.shape[1:]))
    command.picture(folder / "samples.png", (samples[:64].cpu() + 1) / 2)
    metrics = held_out_bound(denoiser, s, config, x_0, source.levels) | measure.quality(samples, source)
    return measure.conclude(config, result, metrics, {"schedule": steps, "kind": config.kind, "network": spec})


if __name__ == "__main__":
    sys.exit(command.main(sys.modules[__name__], PRESETS, run))
