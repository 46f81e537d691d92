"""What experiments measure alike: the data, the quality of samples, bounds in bits, and the card of a model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from statistics import fmean
from typing import Any, NamedTuple

import torch

from dmlib import data, metrics, rng
from dmlib.checks import Tensor, require
from dmlib.experiments import command
from dmlib.learning import checkpoints
from dmlib.learning.training import TrainResult
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
def read(images: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """What the shipped classifier makes of images on [-1, 1]: features and class probabilities, float64 on the CPU."""
    classifier, _ = checkpoints.pretrained(f"classifier-{name}")
    features = torch.cat([classifier.features(batch.cpu().float()) for batch in images.split(BATCH)])
    return features.double(), classifier.head(features).double().softmax(1)


def quality(sets: list[Tensor], source: Source) -> dict[str, Any]:
    """How close samples on [-1, 1] come to the data, in the shipped classifier's features: one number for each set.

    The samples are rounded to levels first, as the data are. The floor compares as many held-out images as a set has,
    the ceiling as many images of noise, with the same training images. Frechet distance, squared [Heusel2017],
    precision and recall [Kynkaanniemi2019] against as many training images, and the share of images that the
    classifier puts in no class with a probability of 0.9. `classes` counts the digits that it reads in all sets.
    """
    count, unit = len(sets[0]), functools.partial(to_unit, levels=source.levels)
    train, _ = read(unit(source.train), source.name)
    noise = torch.randint(source.levels, (count, *source.test.shape[1:]), generator=rng.generator(0, 3))
    test, test_probs = read(unit(held_out(source, count)), source.name)
    drawn = [read(unit(to_levels(images.cpu(), source.levels)), source.name) for images in sets]
    away = functools.partial(metrics.frechet, train)
    shares = [metrics.precision_recall(train[:count], features) for features, _ in drawn]
    pooled, probs = (torch.cat(parts) for parts in zip(*drawn))
    return {
        "samples": count,
        "frechet": [away(features).item() for features, _ in drawn],
        "frechet_pooled": away(pooled).item(),
        "frechet_floor": away(test).item(),
        "frechet_ceiling": away(read(unit(noise), source.name)[0]).item(),
        "precision": [float(precision) for precision, _ in shares],
        "recall": [float(recall) for _, recall in shares],
        "unclear": [_unclear(probs) for _, probs in drawn],
        "unclear_floor": _unclear(test_probs),
        "classes": probs.argmax(1).bincount(minlength=probs.shape[1]).tolist(),
    }


def _unclear(probs: Tensor) -> float:
    return (probs.amax(1) < 0.9).double().mean().item()


def plain(numbers: Tensor) -> list[float]:
    """Numbers as they stand in a record."""
    return [round(number, 5) for number in numbers.tolist()]


def bound(total: Tensor, event_dims: int) -> dict[str, Any]:
    """The bound of each image [N], given in nats, in bits per dimension, with its mean and standard error."""
    bits = metrics.bits_per_dim(total.cpu(), event_dims)
    error = (bits.std() / len(bits) ** 0.5).item()
    return {"images": len(bits), "bits": plain(bits), "bits_per_dim": bits.mean().item(), "bits_per_dim_error": error}


def headline(found: dict[str, Any]) -> dict[str, Any]:
    """What a card says of a run: its single numbers, and the means over its sets of samples."""
    single = {name: value for name, value in found.items() if isinstance(value, int | float)}
    return single | {
        name: fmean(found[name]) for name in ("frechet", "precision", "recall", "unclear") if name in found
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
        about = {
            "data": config.data,
            "duration": duration,
            "results": headline(found),
            "levels": source(config.data).levels,
        }
        checkpoints.publish(config.name, result.ema.cpu(), card | about | run)
    parameters = sum(weights.numel() for weights in result.ema.parameters())
    return found | {"parameters": parameters, "duration": duration, "history": result.history}
