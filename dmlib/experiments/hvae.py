"""Train a hierarchical VAE of the digits, measure its bound, its levels and its samples, and record the run.

    python -m dmlib.experiments.hvae                                        # two levels, a minute on one core
    python -m dmlib.experiments.hvae --latents 8,4,2 --name hvae-digits-3   # three
    python -m dmlib.experiments.hvae --free_nats 4 --name hvae-digits-free

The lowest level has the sizes of `dmlib.experiments.vae`, and data, likelihood and effort are the same, so that runs
compare. All losses and bounds are in nats until they are named bits.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmlib import rng
from dmlib.checks import Tensor, require, require_number, sizes
from dmlib.experiments import command, measure, vae
from dmlib.latent.hvae import MarkovHVAE, information
from dmlib.learning import processes
from dmlib.learning.training import Objective


@dataclass(frozen=True)
class HVAEConfig(command.SampledConfig):
    """A hierarchical VAE of the digits, with a categorical likelihood, and its training."""

    steps: int = 6000
    lr: float = 2e-3
    log_every: int = 50
    patience: int | None = 10
    latents: tuple[int, ...] = (8, 4)  # The lowest level first.
    widths: tuple[int, ...] = (128, 64)  # Hidden layers between x and z_1.
    between: tuple[int, ...] = (64,)  # Hidden layers between two levels.
    free_nats: float = 0.0  # The top level's mean divergence from its prior costs nothing below this, in training.

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.data == "digits", "data", repr(self.data), "'digits'")
        for name in ("latents", "widths", "between"):
            sizes(getattr(self, name), name)
        require_number(self.free_nats, "free_nats")
        require(0 <= self.free_nats < math.inf, "free_nats", self.free_nats, "0 or more, and finite")


PRESETS = {"digits": HVAEConfig()}


def network(config: HVAEConfig, event: tuple[int, ...], levels: int) -> dict[str, Any]:
    """What networks.build takes."""
    return {
        "name": "hvae", "event": event, "latents": config.latents, "hidden": config.widths, "between": config.between,
        "likelihood": "categorical", "levels": levels,
    }  # fmt: skip


def objective(model: MarkovHVAE, free_nats: float = 0.0) -> Objective:
    """The negative bound, with one chain for each image; while it trains, the top level has its free nats."""

    def draw(x: Tensor, *, generator: torch.Generator) -> tuple[Tensor, ...]:
        (noise,) = model.draw(x, generator=generator)
        return tuple(noise)

    def loss(hvae: MarkovHVAE, x: Tensor, *noise: Tensor) -> Tensor:
        terms = hvae.elbo_terms(x, noise)
        if hvae.training and free_nats > 0:  # free bits, on the mean over the batch
            terms = terms._replace(prior=terms.prior.mean().clamp(min=free_nats).expand_as(terms.prior))
        return -terms.total

    return Objective(draw, loss)


@torch.no_grad()
def read_levels(model: MarkovHVAE, x: Tensor, chains: int = 10) -> dict[str, list[float]]:
    """The bound term by term, and the mutual information of each two neighbors, in nats, from `chains` for each image.

    terms: reconstruction, then the costs of levels 1..L; information: of x and z_1, then of z_l and z_{l+1}. The first
    compares the images of x, the others all chains; each is at most the logarithm of how many it compares.
    """
    (noise,) = model.draw(x, generator=rng.generator(0, 5, device=x.device), samples=chains)
    terms, (_, levels) = model.elbo_terms(x, noise), model.levels(x, noise)
    costs = torch.cat([terms.transitions.mean(0), terms.prior.mean()[None]])
    first = [information(model.q(x), z).mean() for z in levels[0].z.view(chains, len(x), -1)]
    between = [information(level.q, level.z).mean() for level in levels[1:]]
    found = torch.stack([torch.stack(first).mean(), *between])
    return {
        "terms": measure.plain(torch.cat([terms.reconstruction.mean()[None], costs])),
        "information": measure.plain(found),
    }


def measured(model: MarkovHVAE, config: HVAEConfig, folder: Path) -> dict[str, Any]:
    """The bound, the levels and the samples of a trained model; writes samples.png."""
    test = measure.source(config.data).test.to(processes.available(config.device))
    return vae.measured(model, config, folder) | read_levels(model, test)


def run(config: HVAEConfig, folder: Path) -> dict[str, Any]:
    """Train, measure, and write samples.png; with `publish`, the weights too."""
    source = measure.source(config.data)
    spec = network(config, tuple(source.train.shape[1:]), source.levels)
    return vae.learn(config, folder, spec, lambda model: objective(model, config.free_nats), measured)


if __name__ == "__main__":
    sys.exit(command.main(sys.modules[__name__], PRESETS, run))
