"""How a network is trained: plain numbers, kept with every result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from dmlib import rng
from dmlib.checks import integer, require
from dmlib.networks.reduced import choose


def free(default: Any) -> Any:
    """A field that may change when a run is continued, since its result does not depend on it."""
    return field(default=default, metadata={"free": True})


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train; plain numbers, kept with the result."""

    steps: int  # A run whose learning rate does not fall with the steps may get more of them when it is continued.
    batch_size: int = 128  # Of all processes together.
    lr: float = 1e-3
    warmup: int = 0  # Steps over which the learning rate grows from 0 to lr.
    cosine: bool = False  # Whether it then falls to 0 along half a cosine [Loshchilov2017].
    grad_clip: float | None = 1.0  # The largest norm of a gradient; None clips nothing.
    ema_decay: float = 0.99  # The share of its old value that the averaged network keeps at each step.
    amp_dtype: str = "float32"  # Of the networks alone: "bfloat16", "float16", or "auto" for what is native.
    compile: bool = False  # Whether torch.compile compiles the network with its loss.
    seed: int = 0
    log_every: int = 100  # Steps between two entries of the history.
    patience: int | None = None  # Entries without a better validation loss before training stops; None: never.
    checkpoint_every: int | None = free(None)  # Steps between two checkpoints; None: only at the end, or when stopped.
    checkpoint: str | None = free(None)  # The file that holds all of a run; where it exists, the run continues from it.

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that must be the same for a run to continue."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("free")}

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every"):
            integer(getattr(self, name), name, 1)
        for name in ("patience", "checkpoint_every"):
            if getattr(self, name) is not None:
                integer(getattr(self, name), name, 1)
        rng.generator(self.seed)  # Raises where the seed is no integer of 0 or more.
        require(0 < self.lr < math.inf, "lr", self.lr, "more than 0 and finite")
        require(isinstance(self.warmup, int) and self.warmup >= 0, "warmup", self.warmup, "an integer, 0 or more")
        require(self.grad_clip is None or self.grad_clip > 0, "grad_clip", self.grad_clip, "None or more than 0")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        choose(self.amp_dtype, "cpu")  # Raises where the name is unknown.


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step in 1..steps: it warms up, stays, and with `cosine` falls to 0 [Loshchilov2017]."""
    warm = min(1.0, step / config.warmup) if config.warmup else 1.0
    left = 0.5 * (1 + math.cos(math.pi * (step - 1) / config.steps)) if config.cosine else 1.0
    return config.lr * warm * left
