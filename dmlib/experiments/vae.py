"""Train a VAE, measure its bound and its samples, and record the run.

    python -m dmlib.experiments.vae --data digits                  # seconds on one core
    python -m dmlib.experiments.vae --data mnist                   # minutes there
    torchrun --nproc_per_node=2 -m dmlib.experiments.vae --data mnist
    python -m dmlib.experiments.vae --latent 2 --name vae-digits-2

The same command continues a run that was stopped. All losses and bounds are in nats until they are named bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmlib import rng
from dmlib.checks import Tensor, integer, require, require_choice
from dmlib.experiments import command, measure
from dmlib.latent.vae import VAE
from dmlib.learning import processes
from dmlib.learning.training import Objective, fit
from dmlib.networks import build
from dmlib.networks.mlp import LEVELED
from dmlib.probability.likelihoods import to_unit


@dataclass(frozen=True)
class VAEConfig(command.SampledConfig):
    """A variational autoencoder of gray images and its training."""

    steps: int = 2000
    lr: float = 2e-3
    log_every: int = 50
    patience: int | None = 10
    latent: int = 8
    widths: tuple[int, ...] = (128, 64)  # digits: hidden layers of an MLP; mnist: channels of convolutions.
    likelihood: str = "categorical"  # One over levels: binomial, discretized_gaussian or, for digits, categorical.

    def __post_init__(self) -> None:
        super().__post_init__()
        integer(self.latent, "latent", 1)
        ok = len(self.widths) >= 1 and min(self.widths) >= 1
        require(ok, "widths", self.widths, "one or more integers, each 1 or more")
        known = [name for name in LEVELED if self.data == "digits" or name != "categorical"]
        require_choice(self.likelihood, "likelihood", known)


PRESETS = {
    "digits": VAEConfig(),
    "mnist": VAEConfig(
        data="mnist", steps=5000, warmup=200, cosine=True, ema_decay=0.999, log_every=500, patience=None, latent=16,
        widths=(32, 64), likelihood="discretized_gaussian", amp_dtype="auto", samples=400,
    ),
}  # fmt: skip


def network(config: VAEConfig, event: tuple[int, ...], levels: int) -> dict[str, Any]:
    """What networks.build takes: an MLP for 8 x 8 images, convolutions for larger ones."""
    rest = {"latent": config.latent, "likelihood": config.likelihood, "levels": levels}
    if config.data == "digits":
        return {"name": "vae", "event": event, "hidden": config.widths, **rest}
    return {"name": "conv_vae", "channels": event[0], "size": event[-1], "widths": config.widths, **rest}


def objective(model: VAE) -> Objective:
    """The negative bound, with one code for each image."""

    def loss(vae: VAE, x: Tensor, noise: Tensor) -> Tensor:
        return -vae.elbo(x, noise)

    return Objective(model.draw, loss)


@torch.no_grad()
def held_out_bound(model: VAE, x: Tensor, codes: int = 16) -> dict[str, Any]:
    """The bound of each image, averaged over `codes` codes, in bits per dimension; the same noise in every run."""
    totals = []
    for i, batch in enumerate(x.split(measure.BATCH)):
        (noise,) = model.draw(batch, generator=rng.generator(0, 2, i, device=x.device), samples=codes)
        totals.append(model.elbo(batch, noise))
    return measure.bound(torch.cat(totals), x[0].numel())


def draw_samples(model: VAE, config: command.SampledConfig, levels: int) -> list[Tensor]:
    """Sets of config.samples images on [-1, 1], one of each seed."""
    device, sets = processes.available(config.device), []
    for seed in range(config.sets):
        g = rng.generator(seed, 1, device=device)
        drawn = [model.sample(n, generator=g) for n in measure.batches(config.samples)]
        sets.append(to_unit(torch.cat(drawn), levels))
    return sets


def measured(model: VAE, config: command.SampledConfig, folder: Path) -> dict[str, Any]:
    """The bound and the samples of a trained model; writes samples.png."""
    source, device = measure.source(config.data), processes.available(config.device)
    sets = draw_samples(model, config, source.levels)
    command.picture(folder / "samples.png", sets[0].cpu())
    return held_out_bound(model, source.test.to(device)) | measure.quality(sets, source)


def run(config: VAEConfig, folder: Path) -> dict[str, Any]:
    """Train, measure, and write samples.png; with `publish`, the weights too."""
    source = measure.source(config.data)
    spec = network(config, tuple(source.train.shape[1:]), source.levels)
    return learn(config, folder, spec, objective, measured)


def learn(
    config: command.SampledConfig,
    folder: Path,
    spec: dict[str, Any],
    objective: Callable[[Any], Objective],
    measured: Callable,
) -> dict[str, Any]:
    """Build the network of `spec`, train it by its objective, and measure it."""
    source = measure.source(config.data)
    model = build(spec, seed=config.seed)
    command.say(f"{config.name}: {command.environment(config)}")
    result = fit(
        model, objective(model), source.train, config, device=config.device, on_log=command.progress,
        validation=source.validation,
    )  # fmt: skip
    if not processes.is_first():
        return {}
    return measure.conclude(config, result, measured(result.ema, config, folder), {"network": spec})


if __name__ == "__main__":
    sys.exit(command.main(sys.modules[__name__], PRESETS, run))
