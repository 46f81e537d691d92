"""From data to a trained network: the one training loop of the book."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dmlib.checks import Tensor, require, require_shape
from dmlib.learning import rng


def identity(batch: Tensor) -> Tensor:
    """The batch as it is."""
    return batch


@dataclass(frozen=True)
class Objective:
    """What is minimized: `loss(model, x_0, *drawn)` [B], with `drawn = draw(x_0, generator=...)`.

    `prepare(batch)` makes x_0 from a batch of the data on the device: scales it, for example.
    The loss is a pure function: all randomness is drawn before.
    """

    draw: Callable[..., tuple]
    loss: Callable[..., Tensor]
    prepare: Callable[[Tensor], Tensor] = identity


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train; plain numbers, kept with the result."""

    steps: int
    batch_size: int = 128
    lr: float = 1e-3
    grad_clip: float | None = 1.0  # The largest norm of a gradient; None clips nothing.
    ema_decay: float = 0.99  # The share of its old value that the averaged network keeps at each step.
    seed: int = 0
    log_every: int = 100  # Steps between two entries of the history.
    patience: int | None = None  # Entries without a better validation loss before training stops; None: never.

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every"):
            _require_count(getattr(self, name), name)
        rng.generator(self.seed)  # Raises where the seed is no integer of 0 or more.
        require(self.lr > 0, "lr", self.lr, "more than 0")
        require(self.grad_clip is None or self.grad_clip > 0, "grad_clip", self.grad_clip, "None or more than 0")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        if self.patience is not None:
            _require_count(self.patience, "patience")


def _require_count(n: int, name: str) -> None:
    require(isinstance(n, int) and n >= 1, name, n, "an integer, 1 or more")


@dataclass(frozen=True)
class TrainResult:
    """A trained `model`, the averaged network `ema`, and the `history` of both.

    `history` has three lists: "step", "loss" (mean over the batches since the entry before)
    and "validation" (of the averaged network; empty where no validation data were given).
    """

    model: nn.Module
    ema: nn.Module
    history: dict[str, list]


def fit(
    model: nn.Module,
    objective: Objective,
    data: Tensor,
    config: TrainConfig,
    *,
    device: torch.device | str = "cpu",
    on_log: Callable[[dict[str, float]], Any] | None = None,
    validation: Tensor | None = None,
) -> TrainResult:
    """The model trained in place on `data` [N, *event], its moving average, and the history of both losses.

    With `validation` data, `ema` holds the average that was best on them, and training stops after
    `config.patience` entries of the history without a better one. Both networks come back in eval mode.
    `on_log` receives each entry of the history. Raises RuntimeError, with its step, where a loss is not finite.
    """
    _check(data, validation, config)
    model.to(device).train()
    ema = copy.deepcopy(model).eval()
    history: dict[str, list] = {"step": [], "loss": [], "validation": []}
    best = None
    for step, losses in _train(model, ema, objective, data.to(device), config):
        entry = {"step": step, "loss": _mean(losses, step)}
        if validation is not None:
            entry["validation"] = _evaluate(ema, objective, validation.to(device), config, step)
            if entry["validation"] < min(history["validation"], default=math.inf):
                best = copy.deepcopy(ema.state_dict())
        for name, value in entry.items():
            history[name].append(value)
        if on_log is not None:
            on_log(entry)
        if _out_of_patience(history["validation"], config.patience):
            break
    if best is not None:
        ema.load_state_dict(best)
    return TrainResult(model.eval(), ema, history)


def _train(
    model: nn.Module, ema: nn.Module, objective: Objective, data: Tensor, config: TrainConfig
) -> Iterator[tuple[int, list[Tensor]]]:
    """Take all steps; yield the number of the last one and the losses since, whenever an entry of history is due."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, fused=True)
    update_ema = get_ema_multi_avg_fn(config.ema_decay)
    losses = []  # Tensors: to read a value at each step would make the device wait.
    for step in range(1, config.steps + 1):
        generator = rng.generator(config.seed, step, device=data.device)
        rows = torch.randint(len(data), (config.batch_size,), generator=generator, device=data.device)
        loss = _losses(model, objective, data.index_select(0, rows), generator).mean()
        optimizer.zero_grad()
        loss.backward()
        if config.grad_clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        update_ema(list(ema.parameters()), list(model.parameters()), None)
        losses.append(loss.detach())
        if step % config.log_every == 0 or step == config.steps:
            ema.load_state_dict(dict(model.named_buffers()), strict=False)  # Buffers are copied, not averaged.
            yield step, losses
            losses = []


def _losses(model: nn.Module, objective: Objective, batch: Tensor, generator: torch.Generator) -> Tensor:
    """The loss of each example of a batch, with fresh randomness."""
    x_0 = objective.prepare(batch)
    losses = objective.loss(model, x_0, *objective.draw(x_0, generator=generator))
    require_shape(losses, "the loss", len(batch))
    return losses


@torch.no_grad()
def _evaluate(model: nn.Module, objective: Objective, data: Tensor, config: TrainConfig, step: int) -> float:
    """The mean loss on all of `data`, with the same randomness at each call."""
    batches = data.split(config.batch_size)
    generators = [rng.generator(config.seed, 0, i, device=data.device) for i in range(len(batches))]
    losses = [_losses(model, objective, batch, g) for batch, g in zip(batches, generators)]
    return _mean([torch.cat(losses).mean()], step, "validation loss")


def _mean(losses: list[Tensor], last_step: int, name: str = "loss") -> float:
    """The mean of the losses of consecutive steps, the last of which is `last_step`."""
    values = torch.stack(losses).tolist()
    for step, value in enumerate(values, start=last_step - len(values) + 1):
        if not math.isfinite(value):
            raise RuntimeError(f"the {name} was {value} at step {step}; it must be finite: try a smaller lr")
    return sum(values) / len(values)


def _out_of_patience(scores: list[float], patience: int | None) -> bool:
    """Whether `patience` scores have come after the best one."""
    return patience is not None and len(scores) - scores.index(min(scores)) > patience


def _check(data: Tensor, validation: Tensor | None, config: TrainConfig) -> None:
    require(isinstance(data, Tensor), "data", type(data).__name__, "a tensor")
    require(data.dim() > 0 and len(data) > 0, "the shape of data", tuple(data.shape), "(N, *event) with N of 1 or more")
    if validation is None:
        require(config.patience is None, "patience", config.patience, "None where there are no validation data")
        return
    require(len(validation) > 0, "the length of validation", 0, "1 or more")
    require_shape(validation, "validation", None, *data.shape[1:])
    require(validation.dtype == data.dtype, "the dtype of validation", validation.dtype, f"{data.dtype}, that of data")
