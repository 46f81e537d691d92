"""Train the classifier in whose features samples are measured, and record the run.

python -m dmlib.experiments.classifier --data digits
python -m dmlib.experiments.classifier --data mnist --publish True   # replaces the one in the package
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dmlib import data
from dmlib.checks import Tensor
from dmlib.experiments import command, measure
from dmlib.learning.training import Objective, fit
from dmlib.networks import build
from dmlib.probability.likelihoods import to_unit


@dataclass(frozen=True)
class ClassifierConfig(command.RunConfig):
    """A small convolutional classifier and its training."""

    steps: int = 1500
    lr: float = 2e-3
    warmup: int = 50
    cosine: bool = True
    widths: tuple[int, ...] = (32, 64)
    features: int = 32


PRESETS = {"digits": ClassifierConfig(), "mnist": ClassifierConfig(data="mnist", steps=4000)}


def objective(images: Tensor, labels: Tensor, levels: int) -> Objective:
    """Cross-entropy of the labels of the rows that a batch names."""

    def draw(rows: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return to_unit(images[rows], levels), labels[rows]

    def loss(model: nn.Module, rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    return Objective(draw, loss)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, levels: int) -> float:
    """The share of images that the model puts in the right class."""
    predicted = [model(to_unit(batch, levels)).argmax(1) for batch in images.split(measure.BATCH)]
    return (torch.cat(predicted) == labels).double().mean().item()


def run(config: ClassifierConfig, folder: Path) -> dict[str, Any]:
    """Train on the training images and count the right answers on held-out ones."""
    source = measure.source(config.data)
    labels = {"digits": data.digit_labels, "mnist": data.mnist_labels}[config.data]
    shape = {"channels": 1, "size": source.train.shape[-1]}
    spec = {"name": "classifier", **shape, "widths": config.widths, "features": config.features}
    rows = torch.arange(len(source.train))
    goal = objective(source.train, labels("train"), source.levels)
    command.say(f"{config.name}: {command.environment(config)}")
    result = fit(build(spec, seed=config.seed), goal, rows, config, device=config.device, on_log=command.progress)
    right = functools.partial(accuracy, result.ema, levels=source.levels)
    metrics = {"accuracy": right(source.test, labels("test")), "train_accuracy": right(source.train, labels("train"))}
    return measure.conclude(config, result, metrics, {"network": spec})


if __name__ == "__main__":
    sys.exit(command.main(sys.modules[__name__], PRESETS, run))
