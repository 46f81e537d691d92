"""Train an autoencoder with a codebook and a prior over its codes, measure its bounds and its samples, record the run.

    python -m dmlib.experiments.vqvae                                  # a minute on one core
    python -m dmlib.experiments.vqvae --restarts 0 --name vqvae-digits-plain-0   # dead codes stay dead

A stopped command begins with the restarts again and continues the training after them. All losses and bounds are in
nats until they are named bits.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import one_hot

from dmlib import rng
from dmlib.checks import Tensor, integer, require
from dmlib.experiments import command, measure
from dmlib.latent.discrete import perplexity
from dmlib.latent.vqvae import VQVAE
from dmlib.learning import processes
from dmlib.learning.training import Objective, fit
from dmlib.metrics import bits_per_dim, independent_pixels
from dmlib.networks import CodePrior, build
from dmlib.probability import likelihoods
from dmlib.probability.likelihoods import to_unit


@dataclass(frozen=True)
class VQVAEConfig(command.SampledConfig):
    """An autoencoder of gray images with a codebook, its prior over codes, and their training."""

    steps: int = 6000
    lr: float = 2e-3
    log_every: int = 50
    patience: int | None = 10
    positions: int = 4  # Choices for each image.
    n_codes: int = 32  # Codes in the codebook.
    dim: int = 8  # Numbers of a code.
    widths: tuple[int, ...] = (128, 64)  # Hidden layers of the encoder; the decoder mirrors them.
    commitment: float = 0.25  # The weight of the commitment loss.
    restarts: int = 5  # Times, before the training proper, that dead codes are put on encoder outputs.
    restart_steps: int = 40  # Of training before each of them.
    prior_hidden: int = 32  # Hidden units for each position of the prior over codes.
    prior_steps: int = 3000  # At most, for that prior.

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("positions", "dim", "restart_steps", "prior_hidden", "prior_steps"):
            integer(getattr(self, name), name, 1)
        integer(self.n_codes, "n_codes", 2)
        integer(self.restarts, "restarts", 0)
        require(self.commitment >= 0, "commitment", self.commitment, "0 or more")
        require(len(self.widths) >= 1 and min(self.widths) >= 1, "widths", self.widths, "one or more integers above 0")


PRESETS = {"digits": VQVAEConfig()}


def network(config: VQVAEConfig, event: tuple[int, ...], levels: int) -> dict[str, Any]:
    """What networks.build takes."""
    sizes = {name: getattr(config, name) for name in ("positions", "n_codes", "dim", "prior_hidden")}
    return {
        "name": "vqvae",
        "event": event,
        "hidden": config.widths,
        "likelihood": "categorical",
        "levels": levels,
    } | sizes


def objective(config: VQVAEConfig) -> Objective:
    """The negative bound under a uniform prior and the two losses of the codes; nothing is drawn."""
    return Objective(lambda x, generator: (), lambda model, x: model.loss(x, config.commitment))


def prior_objective() -> Objective:
    """The negative log-probability of the codes of an image."""
    return Objective(lambda idx, generator: (), lambda prior, idx: -likelihoods.categorical(prior(idx), idx))


def revive(model: VQVAE, config: VQVAEConfig, x: Tensor) -> list[int]:
    """Train a little and restart dead codes, as often as the configuration says; how many were dead each time."""
    found: list[int] = []
    for i in range(config.restarts):
        seed = config.seed + 1000 * (i + 1)  # Other batches in each round, and none of those of the training proper.
        short = {"steps": config.restart_steps, "patience": None, "checkpoint": None, "seed": seed}
        fit(model, objective(config), x, dataclasses.replace(config, **short), device=config.device)
        x = x.to(next(model.parameters()).device)
        with torch.no_grad():
            z_e = model.encoder(x)
        found.append(model.quantizer.restart(z_e, generator=rng.generator(config.seed, 5, i)))
        model.train()
    return found


@torch.no_grad()
def codes(model: VQVAE, x: Tensor) -> Tensor:
    """The codes idx [B,N] of images, on the device of the model."""
    x = x.to(next(model.parameters()).device)
    return torch.cat([model.quantize(batch).idx for batch in x.split(measure.BATCH)])


def fit_prior(prior: CodePrior, model: VQVAE, config: VQVAEConfig, source: measure.Source) -> tuple[CodePrior, dict]:
    """The prior fitted to the codes of the training images, stopped by those of the validation images; its history."""
    asked = dataclasses.replace(config, steps=config.prior_steps, checkpoint=None)
    train, validation = (codes(model, x).cpu() for x in (source.train, source.validation))
    found = fit(prior, prior_objective(), train, asked, device=config.device, validation=validation)
    return found.ema, found.history


@torch.no_grad()
def reconstruction(model: VQVAE, x: Tensor) -> Tensor:
    """The log-likelihood of images given their codes, in nats, float64 on the CPU [B]."""
    x = x.to(next(model.parameters()).device)
    return torch.cat([model.elbo_terms(batch).reconstruction for batch in x.split(measure.BATCH)]).cpu().double()


@torch.no_grad()
def evidence(model: VQVAE, x: Tensor, levels: int, chunk: int = 2**15) -> dict[str, Tensor]:
    """The log-evidence of images under both priors, in nats on the CPU, by a sum over all V^N rows of codes [B]."""
    book, n = model.quantizer.codebook, model.positions
    picked = one_hot(x.to(book.device).long(), levels).to(book.dtype).flatten(1)
    found = {name: book.new_full((len(x),), -torch.inf) for name in ("fitted", "uniform")}
    for first in range(0, len(book) ** n, chunk):
        number = torch.arange(first, min(first + chunk, len(book) ** n), device=book.device)
        idx = torch.stack([number // len(book) ** i % len(book) for i in range(n)], 1)
        (logits,) = model.decode(idx)
        log_lik = logits.log_softmax(-1).flatten(1) @ picked.T  # [codes, images]
        for name in found:
            log_joint = log_lik + model.log_prior(idx, name == "uniform")[:, None]
            found[name] = found[name].logaddexp(log_joint.logsumexp(0))
    return {name: total.cpu() for name, total in found.items()}


@torch.no_grad()
def held_out_bounds(model: VQVAE, source: measure.Source) -> dict[str, Any]:
    """The bound of each held-out image in bits per dimension, under three priors over its codes.

    At the top level stands that of the fitted prior; "uniform" and "independent", choices by their frequencies in the
    training codes, stand below it, and "reconstruction" is the mean of what all of them share. "train" has the means
    under the two priors, and that of the reconstruction, on the training images.
    """
    dims, test, train = source.test[0].numel(), codes(model, source.test), codes(model, source.train)
    log_lik, log_lik_train = reconstruction(model, source.test), reconstruction(model, source.train)
    levels, bits = len(model.quantizer.codebook), lambda total: bits_per_dim(total, dims).mean().item()
    costs = {
        "uniform": model.log_prior(test, uniform=True).cpu(),
        "independent": independent_pixels(train.cpu(), test.cpu(), levels=levels),
    }
    found = measure.bound(log_lik + model.log_prior(test).cpu(), dims)
    found |= {name: measure.bound(log_lik + log_prior, dims) for name, log_prior in costs.items()}
    seen = {"fitted": model.log_prior(train).cpu(), "uniform": model.log_prior(train, uniform=True).cpu()}
    seen = {name: bits(log_lik_train + log_prior) for name, log_prior in seen.items()}
    seen["reconstruction"] = bits(log_lik_train)
    return found | {"reconstruction": bits(log_lik), "train": seen}


def usage(model: VQVAE, source: measure.Source) -> dict[str, Any]:
    """How many codes the training images use at all, and the perplexity of their use."""
    idx = codes(model, source.train).cpu()
    return {"used": idx.unique().numel(), "perplexity": perplexity(idx, len(model.quantizer.codebook)).item()}


def draw_samples(model: VQVAE, config: VQVAEConfig, levels: int, uniform: bool = False) -> list[Tensor]:
    """Sets of config.samples images on [-1, 1], one of each seed; with `uniform`, from codes that are all as likely."""
    device, sets = processes.available(config.device), []
    for seed in range(config.sets):
        g = rng.generator(seed, 1, device=device)
        drawn = [model.sample(n, generator=g, uniform=uniform) for n in measure.batches(config.samples)]
        sets.append(to_unit(torch.cat(drawn), levels))
    return sets


def measured(model: VQVAE, config: VQVAEConfig, folder: Path) -> dict[str, Any]:
    """The bounds, the use of codes and the samples of a trained model; writes samples.png."""
    source = measure.source(config.data)
    sets = draw_samples(model, config, source.levels)
    command.picture(folder / "samples.png", sets[0].cpu())
    found = held_out_bounds(model, source) | usage(model, source) | measure.quality(sets, source)
    for name, total in evidence(model, source.test, source.levels).items():
        found[f"evidence_{name}"] = measure.bound(total, source.test[0].numel())
    flat = measure.quality(draw_samples(model, config, source.levels, uniform=True), source)
    return found | {"uniform_samples": {name: flat[name] for name in ("frechet", "precision", "recall", "unclear")}}


def run(config: VQVAEConfig, folder: Path) -> dict[str, Any]:
    """Train, measure, and write samples.png; with `publish`, the weights too."""
    source = measure.source(config.data)
    spec = network(config, tuple(source.train.shape[1:]), source.levels)
    model = build(spec, seed=config.seed)
    command.say(f"{config.name}: {command.environment(config)}")
    prior, model.prior = model.prior, None  # Trained after the codes, on them.
    dead = revive(model, config, source.train)
    result = fit(
        model, objective(config), source.train, config, device=config.device, on_log=command.progress,
        validation=source.validation,
    )  # fmt: skip
    best = result.ema
    best.prior, history = fit_prior(prior, best, config, source)
    if not processes.is_first():
        return {}
    found = measured(best, config, folder) | {"dead": dead, "prior_history": history}
    return measure.conclude(config, result, found, {"network": spec})


if __name__ == "__main__":
    sys.exit(command.main(sys.modules[__name__], PRESETS, run))
