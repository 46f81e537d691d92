"""Train a VAE, measure its bound and its samples, and record the run.

    python -m dmlib.experiments.vae --data digits                  # seconds on one core
    python -m dmlib.experiments.vae --data mnist                   # minutes there
    torchrun --nproc_per_node=2 -m dmlib.experiments.vae --data mnist
    python -m dmlib.experiments.vae --latent 2 --name vae-digits-2

The same command continues a run that was stopped. All losses and bounds are in nats until they are named bits.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmlib.checks import Tensor
from dmlib.experiments import command, measure
from dmlib.latent.vae import VAE
from dmlib.learning import processes, rng
from dmlib.learning.config import free
from dmlib.learning.networks import build
from dmlib.learning.training import Objective, fit
from dmlib.probability.likelihoods import to_unit


@dataclass(frozen=True)
class VAEConfig(command.RunConfig):
    """A variational autoencoder of gray images and its training."""

    steps: int = 2000
    lr: float = 2e-3
    log_every: int = 50
    patience: int | None = 10
    latent: int = 8
    widths: tuple[int, ...] = (128, 64)  # digits: hidden layers of an MLP; mnist: channels of convolutions.
    likelihood: str = "categorical"
    samples: int = free(1000)


PRESETS = {
    "digits": VAEConfig(),
    "mnist": VAEConfig(
        data="mnist", steps=5000, warmup=200, cosine=True, ema_decay=0.999, log_every=500, patience=None, latent=16,
        widths=(32, 64), likelihood="discretized_gaussian", amp_dtype="auto",
    ),
}  # fmt: skip


def network(config: VAEConfig, event: tuple[int, ...], levels: int) -> dict[str, Any]:
    """What networks.build takes: an MLP for 8 x 8 images, convolutions for larger ones."""
    law = {"latent": config.latent, "likelihood": config.likelihood, "levels": levels}
    if config.data == "digits":
        return {"name": "vae", "event": event, "hidden": config.widths, **law}
    return {"name": "conv_vae", "channels": event[0], "size": event[-1], "widths": config.widths, **law}


def objective(model: VAE) -> Objective:
    """The negative bound, with one code for each image."""

    def loss(vae: VAE, x: Tensor, noise: Tensor) -> Tensor:
        return -vae.elbo(x, noise)

    return Objective(model.draw, loss)


@torch.no_grad()
def held_out_bound(model: VAE, x: Tensor, seed: int, codes: int = 16) -> dict[str, Any]:
    """The bound on images x, averaged over `codes` codes each, in bits per dimension."""
    parts = []
    for i, batch in enumerate(x.split(measure.BATCH)):
        (noise,) = model.draw(batch, generator=rng.generator(seed, 2, i, device=x.device), samples=codes)
        parts.append(model.elbo_terms(batch, noise))
    return measure.bound(parts, x[0].numel())


def run(config: VAEConfig, folder: Path) -> dict[str, Any]:
    """Train, measure, and write samples.png; with `publish`, the weights too."""
    source = measure.source(config.data)
    spec = network(config, tuple(source.train.shape[1:]), source.levels)
    model = build(spec, seed=config.seed)
    command.say(f"{config.name}: {command.environment(config)}")
    result = fit(
        model, objective(model), source.train, config, device=config.device, on_log=command.progress,
        validation=source.validation,
    )  # fmt: skip
    if not processes.is_first():
        return {}
    device = processes.available(config.device)
    metrics = held_out_bound(result.ema, source.test.to(device), config.seed)
    g = rng.generator(config.seed, 1, device=device)
    drawn = torch.cat([result.ema.sample(n, generator=g) for n in measure.batches(config.samples)])
    samples = to_unit(drawn, source.levels)
    command.picture(folder / "samples.png", (samples[:64].cpu() + 1) / 2)
    return measure.conclude(config, result, metrics | measure.quality(samples, source), {"network": spec})


if __name__ == "__main__":
    sys.exit(command.main(sys.modules[__name__], PRESETS, run))
