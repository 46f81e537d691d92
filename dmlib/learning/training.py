"""From data to a trained network: the one training loop of the book."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dmlib import rng
from dmlib.checks import Tensor, require, require_float, require_shape
from dmlib.learning import processes
from dmlib.learning.config import TrainConfig
from dmlib.learning.state import TrainState
from dmlib.networks.reduced import precision


def identity(batch: Tensor) -> Tensor:
    """The batch as it is."""
    return batch


@dataclass(frozen=True)
class Objective:
    """What is minimized: `loss(model, x_0, *drawn)` [B], with `drawn = draw(x_0, generator=...)`.

    `prepare(batch)` makes x_0 from a batch of the data on the device: scales it, for example.
    The loss is a pure function: all randomness is drawn before. Each drawn tensor has the batch as its first
    dimension, or as its second where the first has another size, as the noise [S,B,K] of a VAE.
    """

    draw: Callable[..., tuple]
    loss: Callable[..., Tensor]
    prepare: Callable[[Tensor], Tensor] = identity


@dataclass(frozen=True)
class TrainResult:
    """A trained `model`, the averaged network `ema`, and the `history` of both.

    `history` has three lists: "step", "loss" (mean over the batches since the entry before)
    and "validation" (of the averaged network; empty where no validation data were given).
    """

    model: nn.Module
    ema: nn.Module
    history: dict[str, list]
    seconds: float  # Of training, all continuations together.


def fit(
    model: nn.Module,
    objective: Objective,
    data: Tensor,
    config: TrainConfig,
    *,
    device: torch.device | str = "cpu",
    on_log: Callable[[dict[str, Any]], Any] | None = None,
    validation: Tensor | None = None,
) -> TrainResult:
    """The model trained in place on `data` [N, *event], its moving average, and the history of both losses.

    With `validation` data, `ema` holds the average that was best on them, and training stops after
    `config.patience` entries without a better one. Both networks come back in eval mode. `on_log` receives each
    entry, with its pace. Under torchrun, N processes compute what one would. Raises, and keeps the last checkpoint:
    RuntimeError where a loss or a weight is not finite, OSError where it cannot write, ValueError where another process
    works on the checkpoint, Stopped on Ctrl-C, SIGTERM and SIGHUP.
    """
    # Set up.
    device, rank, world = processes.join(device)
    _check(data, validation, config, world)
    with processes.alone(f"{config.checkpoint}.lock" if config.checkpoint and rank == 0 else None):
        state = TrainState(model.to(device).train(), config, data, validation)
        state.resume()
        data, validation = data.to(device), None if validation is None else validation.to(device)
        net = _wrap(model, objective.loss, config, world)
        # Loop.
        with precision(model, state.dtype), processes.stop_signals() as received:
            stopped = False
            while not (state.finished or stopped):
                state.update(net(*_batch(objective, data, config, state.step + 1, rank, world)))
                entry = state.log(lambda ema: _evaluate(ema, objective, validation, config)) if state.due else {}
                stopped = processes.agree(received, state.due)
                if stopped or state.finished or state.step % (config.checkpoint_every or config.steps) == 0:
                    state.save()
                if entry and on_log is not None and rank == 0:
                    on_log(entry | state.pace)
        if stopped or received:
            raise processes.Stopped(state.step, config.steps, config.checkpoint)
        return TrainResult(model.eval(), state.best_ema(), state.history, state.duration)


class _Loss(nn.Module):
    """The module that is compiled and shared among processes: its forward is the mean loss of a batch."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x_0: Tensor, *drawn: Tensor) -> Tensor:
        losses = self.loss(self.model, x_0, *drawn)
        require_shape(losses, "the loss", len(x_0))
        return losses.mean()


def _wrap(model: nn.Module, loss: Callable[..., Tensor], config: TrainConfig, world: int) -> nn.Module:
    """The model with its loss, compiled and shared as the configuration and the number of processes ask."""
    net: nn.Module = _Loss(model, loss)
    net = torch.compile(net) if config.compile else net
    return DistributedDataParallel(net) if world > 1 else net


def _batch(objective: Objective, data: Tensor, config: TrainConfig, step: int, rank: int, world: int) -> list[Tensor]:
    """x_0 and all that is drawn for it: the share of this process in the one batch that all draw alike."""
    generator = rng.generator(config.seed, step, device=data.device)
    rows = torch.randint(len(data), (config.batch_size,), generator=generator, device=data.device)
    x_0 = objective.prepare(data.index_select(0, rows))
    parts = [x_0, *objective.draw(x_0, generator=generator)]
    dims = [0 if len(part) == config.batch_size else 1 for part in parts]
    return [part.chunk(world, dim)[rank] if world > 1 else part for part, dim in zip(parts, dims)]


@torch.no_grad()
def _evaluate(ema: nn.Module, objective: Objective, data: Tensor | None, config: TrainConfig) -> float | None:
    """The mean loss of the averaged network on all of `data`, with the same randomness at each call."""
    if data is None:
        return None
    losses = []
    for i, batch in enumerate(data.split(config.batch_size)):
        x_0 = objective.prepare(batch)
        drawn = objective.draw(x_0, generator=rng.generator(config.seed, 0, i, device=data.device))
        losses.append(objective.loss(ema, x_0, *drawn))
    return torch.cat(losses).mean().item()


def _check(data: Tensor, validation: Tensor | None, config: TrainConfig, world: int) -> None:
    require(isinstance(data, Tensor), "data", type(data).__name__, "a tensor")
    require(data.dim() > 0 and len(data) > 0, "the shape of data", tuple(data.shape), "(N, *event) with N of 1 or more")
    if data.is_floating_point():
        require_float(data, "data")
    ok = config.batch_size % world == 0
    require(ok, "batch_size", config.batch_size, f"a multiple of {world}, the number of processes")
    if validation is None:
        require(config.patience is None, "patience", config.patience, "None where there are no validation data")
        return
    require(len(validation) > 0, "the length of validation", 0, "1 or more")
    require_shape(validation, "validation", None, *data.shape[1:])
    require(validation.dtype == data.dtype, "the dtype of validation", validation.dtype, f"{data.dtype}, that of data")
    if validation.is_floating_point():
        require_float(validation, "validation")
