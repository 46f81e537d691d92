"""All that changes while a network is trained: one step of it, and its way to disk and back."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dmlib.checks import Tensor, require
from dmlib.learning import checkpoints, processes
from dmlib.learning.config import TrainConfig, learning_rate
from dmlib.networks.reduced import choose

# What the header of a checkpoint holds beside its tensors.
HEADER = {"step": int, "seconds": float, "history": dict, "run": dict, "scaler": dict, "surroundings": dict}


class TrainState:
    """A model in training, its moving average, the optimizer and the history so far."""

    def __init__(self, model: nn.Module, config: TrainConfig, data: Tensor, validation: Tensor | None) -> None:
        self.device = next(model.parameters()).device
        self.model, self.ema, self.config = model, copy.deepcopy(model).eval(), config
        self.weights, self.averages = list(model.parameters()), list(self.ema.parameters())
        self.dtype = choose(config.amp_dtype, self.device)
        self.optimizer = torch.optim.AdamW(self.weights, lr=config.lr, fused=True)  # [Loshchilov2019]
        for p in self.weights:  # As the optimizer itself would begin; so a checkpoint has the same parts at every step.
            moments = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.optimizer.state[p] = {"step": torch.zeros((), device=p.device), **moments}
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.update_ema = get_ema_multi_avg_fn(config.ema_decay)  # [Polyak1992]
        self.step, self.best = 0, {}
        self.resumed_at, self.seconds, self.clock = 0, 0.0, time.perf_counter()
        self.history: dict[str, list] = {"step": [], "loss": [], "validation": []}
        self.losses: list[Tensor] = []  # Since the last entry; to read a value at each step would make the device wait.
        self.identity = _identity(model, config, data, validation) if config.checkpoint else {}

    @property
    def due(self) -> bool:
        """Whether an entry of the history is due after this step."""
        return self.step % self.config.log_every == 0 or self.step == self.config.steps

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or `patience` entries have come after the best one."""
        scores, patience = self.history["validation"], self.config.patience
        waited = len(scores) - 1 - scores.index(min(scores)) if scores else 0
        return self.step == self.config.steps or (patience is not None and waited >= patience)

    @property
    def duration(self) -> float:
        """The seconds of training so far, those before a continuation included."""
        return self.seconds + time.perf_counter() - self.clock

    @property
    def pace(self) -> dict[str, float]:
        """The examples per second since this process began, and the seconds that are left at that rate."""
        per_step = (time.perf_counter() - self.clock) / (self.step - self.resumed_at)
        left = (self.config.steps - self.step) * per_step
        return {"examples_per_second": self.config.batch_size / per_step, "seconds_left": left}

    def update(self, loss: Tensor) -> None:
        """Take one step of the optimizer and of the average."""
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.config.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.weights, self.config.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.update_ema(self.averages, self.weights, None)
        self.losses.append(loss.detach())

    def log(self, evaluate: Callable[[nn.Module], float | None]) -> dict[str, Any]:
        """Add an entry to the history and return it; the losses of all processes count."""
        self.ema.load_state_dict(dict(self.model.named_buffers()), strict=False)  # Buffers are copied, not averaged.
        losses = self._finite_losses()
        entry = {"step": self.step, "loss": sum(losses) / len(losses)}
        self.losses = []
        score = evaluate(self.ema)
        if score is not None:
            self._require_finite(score, "validation loss", self.step)
            if score < min(self.history["validation"], default=math.inf):
                self.best = copy.deepcopy(self.ema.state_dict())
            entry["validation"] = score
        for name, value in entry.items():
            self.history[name].append(value)
        return entry

    def best_ema(self) -> nn.Module:
        """The average that was best on the validation data; without them, the last one. Raises unless it is finite."""
        self._require_finite_tensors(checkpoints.pack(model=self.model.state_dict(), ema=self.ema.state_dict()))
        self.ema.load_state_dict(self.best or self.ema.state_dict())
        return self.ema

    def save(self) -> None:
        """Write all of it to the run's checkpoint; raises, and keeps the last one, where a number is not finite.

        All processes call it, since the losses of all count; the first one writes.
        """
        if self.config.checkpoint is None:
            return
        pending = torch.tensor(self._finite_losses(), dtype=self.losses[0].dtype if self.losses else None)
        if not processes.is_first():
            return
        tensors = self._tensors(pending, self.best)
        self._require_finite_tensors(tensors)
        header = {"step": self.step, "seconds": self.duration, "history": self.history, "run": self.identity}
        header |= {"scaler": self.scaler.state_dict(), "surroundings": processes.surroundings(self.device)}
        checkpoints.save(self.config.checkpoint, tensors, header)

    def resume(self) -> None:
        """Go on from the run's checkpoint; without one, write it, so that what cannot be written shows at once.

        Raises ValueError where it belongs to another run or lacks a part; warns where the last bits may differ.
        """
        path = self.config.checkpoint
        if path is None or not os.path.exists(path):
            self.save()
            return
        tensors, header = checkpoints.load(path)
        wrong = [key for key, kind in HEADER.items() if not isinstance(header.get(key), kind)]
        require(not wrong, path, f"one with a wrong or no {', '.join(wrong)} in its header", "a whole checkpoint")
        self._require_same_run(header["run"])
        self._require_whole(tensors, header)
        self._warn_if_moved(header["surroundings"])
        self.model.load_state_dict(checkpoints.unpack(tensors, "model"))
        self.ema.load_state_dict(checkpoints.unpack(tensors, "ema"))
        self.best = checkpoints.unpack(tensors, "best")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in checkpoints.unpack(tensors, "optimizer").items():
            i, name = key.split(".")
            state.setdefault(int(i), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.scaler.load_state_dict(header["scaler"])
        self.losses = list(tensors["losses.pending"].to(self.device))
        self.step, self.seconds, self.history = header["step"], header["seconds"], header["history"]
        self.resumed_at, self.clock = self.step, time.perf_counter()

    def _tensors(self, pending: Tensor, best: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint."""
        states = self.optimizer.state_dict()["state"]
        return checkpoints.pack(
            model=self.model.state_dict(),
            ema=self.ema.state_dict(),
            best=best,
            optimizer={f"{i}.{name}": value for i, state in states.items() for name, value in state.items()},
            losses={"pending": pending},
        )

    def _finite_losses(self) -> list[float]:
        """The losses since the last entry, averaged over all processes; raises where one is not finite."""
        values = processes.average(torch.stack(self.losses)).tolist() if self.losses else []
        for step, value in enumerate(values, start=self.step - len(values) + 1):
            self._require_finite(value, "loss", step)
        return values

    def _require_finite(self, value: float, name: str, step: int) -> None:
        if not math.isfinite(value):
            is_first = step <= (name == "loss")  # The first loss comes before the first step.
            hint = "no step was taken, so look at the data and the loss" if is_first else "try a smaller lr"
            kept = f"; {self.config.checkpoint} is as it was" if self.config.checkpoint else ""
            raise RuntimeError(f"the {name} was {value} at step {step}; it must be finite: {hint}{kept}")

    def _require_finite_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self._require_finite(tensor.cpu().double().sum().item(), name, self.step)

    def _require_same_run(self, theirs: dict[str, Any]) -> None:
        ours = self.identity if self.config.cosine else {**self.identity, "steps": theirs.get("steps")}
        differing = [name for name in ours if theirs.get(name) != ours[name]]
        was = ", ".join(f"{name} = {theirs.get(name)}" for name in differing)
        must = ", ".join(f"{name} = {ours[name]}" for name in differing)
        why = " (cosine = True: each learning rate depends on steps)" if "steps" in differing else ""
        name = f"the run of the checkpoint {self.config.checkpoint}"
        require(not differing, name, f"one with {was}", f"this one, with {must}{why}; or name another file")

    def _require_whole(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Raise unless the checkpoint of this run has all parts that `save` writes, in their shapes and dtypes."""
        name, must = self.config.checkpoint, "a whole checkpoint"
        history, step = header["history"], header["step"]
        ok = history.keys() == self.history.keys() and {type(entries) for entries in history.values()} == {list}
        require(ok, name, f"one with the history {history}", must)
        logged = history["step"][-1] if history["step"] else 0
        must_step = f"in {logged}..{self.config.steps}, from its last entry to the last step of this run"
        require(logged <= step <= self.config.steps, f"the step of {name}", step, must_step)
        pending = tensors.get("losses.pending", torch.zeros(0)).new_zeros(step - logged)
        whole = self._tensors(pending, self.ema.state_dict() if history["validation"] else {})
        parts = [{(key, x.dtype, tuple(x.shape)) for key, x in found.items()} for found in (whole, tensors)]
        wrong = sorted({key for key, *_ in parts[0] ^ parts[1]})
        require(not wrong, name, f"one with a wrong or no {', '.join(wrong[:3])}", must)

    def _warn_if_moved(self, theirs: dict[str, Any]) -> None:
        """Say where a run goes on in surroundings that may move its last bits."""
        ours = processes.surroundings(self.device)
        moved = [f"{key} = {value} after {theirs.get(key)}" for key, value in ours.items() if theirs.get(key) != value]
        if moved:
            said = f"{self.config.checkpoint} goes on with {', '.join(moved)}: the last bits of its numbers may differ"
            warnings.warn(said, stacklevel=3)


def _identity(model: nn.Module, config: TrainConfig, data: Tensor, validation: Tensor | None) -> dict[str, Any]:
    """What must be the same for a run to continue: its configuration, the shapes of its weights, and its data."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    fields = json.loads(json.dumps(config.identity))  # As they come back from disk, where a tuple is a list.
    return fields | {
        "model": hashlib.sha256(repr(shapes).encode()).hexdigest()[:12],
        "data": checkpoints.digest({"data": data})[:12],
        "validation": None if validation is None else checkpoints.digest({"data": validation})[:12],
    }
