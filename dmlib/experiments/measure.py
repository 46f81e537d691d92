"""What experiments measure alike: the data, the quality of samples, bounds in bits, and the card of a model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from dmlib.checks import Tensor, require
from dmlib.experiments import command
from dmlib.learning import checkpoints, data, metrics, rng
from dmlib.learning.training import TrainResult
from dmlib.probability.elbo import ElboTerms
from dmlib.probability.likelihoods import to_levels, to_unit

BATCH = 250  # Images at a time, where nothing is trained.


class Source(NamedTuple):
    """A data set of gray images as levels [N, 1, H, W]; without a validation split, that is None."""

    name: str
    levels: int
    train: Tensor
    validation: Tensor | None
    test: Tensor


def source(name: str) -> Source:
    """The data set of this name: digits or mnist."""
    require(name in ("digits", "mnist"), "data", repr(name), "'digits' or 'mnist'")
    if name == "digits":
        return Source(name, data.DIGIT_LEVELS, *(data.digits(split) for split in ("train", "validation", "test")))
    return Source(name, data.MNIST_LEVELS, data.mnist("train"), None, data.mnist("test"))


def held_out(source: Source, count: int) -> Tensor:
    """`count` test images, or all: a fixed random choice, since the first test images of MNIST are easier."""
    rows = torch.randperm(len(source.test), generator=rng.generator(0, 4))[:count]
    return source.test[rows.sort().values]


def batches(n: int) -> Iterator[int]:
    """n in pieces of BATCH or fewer."""
    yield from (min(BATCH, n - start) for start in range(0, n, BATCH))


@torch.no_grad()
def features(images: Tensor, name: str) -> Tensor:
    """The shipped classifier's features of images on [-1, 1], in float64 on the CPU."""
    classifier, _ = checkpoints.pretrained(f"classifier-{name}")
    parts = [classifier.features(batch.cpu().float()) for batch in images.split(BATCH)]
    return torch.cat(parts).double()


def quality(samples: Tensor, source: Source) -> dict[str, Any]:
    """How close samples on [-1, 1] come to the data, in the shipped classifier's features.

    The samples are rounded to levels first, as the data are. The floor compares as many held-out images, the ceiling
    as many images of noise, with the same training images. Frechet distance [Heusel2017], precision and recall
    [Kynkaanniemi2019] against as many training images.
    """
    unit = functools.partial(to_unit, levels=source.levels)
    train, real = features(unit(source.train), source.name), held_out(source, len(samples))
    count = len(real)
    fake = features(unit(to_levels(samples.cpu()[:count], source.levels)), source.name)
    test = features(unit(real), source.name)
    noise = torch.randint(source.levels, real.shape, generator=rng.generator(0, 3))
    precision, recall = metrics.precision_recall(train[:count], fake)
    return {
        "samples": count,
        "frechet": metrics.frechet(fake, train).item(),
        "frechet_floor": metrics.frechet(test, train).item(),
        "frechet_ceiling": metrics.frechet(features(unit(noise), source.name), train).item(),
        "precision": float(precision),
        "recall": float(recall),
    }


def bound(parts: list[ElboTerms], event_dims: int) -> dict[str, Any]:
    """A bound in bits per dimension: mean, standard error over images, and the mean of each kind of term."""
    terms = ElboTerms(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in ElboTerms._fields))
    bits = functools.partial(metrics.bits_per_dim, event_dims=event_dims)
    total = bits(terms.total)
    return {
        "images": len(total),
        "bits_per_dim": total.mean().item(),
        "bits_per_dim_error": (total.std() / len(total) ** 0.5).item(),
        "reconstruction": bits(terms.reconstruction).mean().item(),
        "prior": bits(-terms.prior).mean().item(),
        "transitions": bits(-terms.transitions.sum(1)).mean().item(),
    }


def conclude(config: command.RunConfig, result: TrainResult, found: dict[str, Any], card: dict[str, Any]) -> dict:
    """The metrics of a run; where the configuration says publish, the weights and their card go into the package."""
    where = command.environment(config)
    duration = round(result.seconds, 3)
    if config.publish:
        kept = {
            name: value for name, value in dataclasses.asdict(config).items() if name not in ("checkpoint", "publish")
        }
        run = {"config": kept, "seed": config.seed, "device": where["device"], "environment": where}
        about = {"data": config.data, "duration": duration, "results": found, "levels": source(config.data).levels}
        checkpoints.publish(config.name, result.ema.cpu(), card | about | run)
    return found | {"duration": duration, "history": result.history}
