"""Where a run takes place: its device, the processes that share it, and the signals that stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from dmlib.checks import Tensor, require

try:
    import fcntl
except ModuleNotFoundError:  # Windows: no locks there.
    fcntl = None

STOPS = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__]


class Stopped(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP came during training; where there is a checkpoint, all work is in it."""

    def __init__(self, step: int, steps: int, checkpoint: str | None) -> None:
        kept = f"the same call continues from {checkpoint}" if checkpoint else "there is no checkpoint to continue from"
        super().__init__(f"stopped at step {step} of {steps}; {kept}")


def available(device: torch.device | str) -> torch.device:
    """The device of this name, once it is there; "auto" is a GPU, where there is one, or the CPU."""
    backends = {"cuda": torch.cuda, "mps": torch.backends.mps}
    here = [name for name, backend in backends.items() if backend.is_available()]
    if device == "auto":
        return torch.device([*here, "cpu"][0])
    must = f"'auto' or one of {', '.join([*here, 'cpu'])}: there is no other here"
    kind = str(device).split(":")[0]
    require(kind in ("cpu", "meta", *here), "device", repr(str(device)), must)
    return torch.device(device)


def join(device: torch.device | str) -> tuple[torch.device, int, int]:
    """The device of this process, its rank and the number of processes; those of torchrun meet here."""
    device = available(device)
    if dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if not (dist.is_available() and dist.is_initialized()):
        return device, 0, 1
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device, dist.get_rank(), dist.get_world_size()


def is_first() -> bool:
    """Whether this process speaks and writes for all."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def world_size() -> int:
    """The number of processes that share this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def average(values: Tensor) -> Tensor:
    """The mean of `values` over all processes."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values / world_size()


def surroundings(device: torch.device) -> dict[str, Any]:
    """What may change when a run is continued, but then moves the last bits of its sums."""
    threads = torch.get_num_threads() if device.type == "cpu" else None
    return {"device": device.type, "threads": threads, "processes": world_size(), "torch": torch.__version__}


@contextlib.contextmanager
def alone(path: str | Path | None) -> Iterator[None]:
    """Inside, the file `path` is locked; raises where another process holds it, and names that one.

    A lock ends with its process, however that ends. None, and a file system without locks, lock nothing.
    """
    if path is None or fcntl is None:
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"held by process {file.read() or 'that has only just begun'}"
            must = "free: one process at a time works on this run; stop that one, or take another name"
            raise ValueError(f"{path} was {holder}; it must be {must}") from None
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Inside, the signals that stop a run (Ctrl-C, SIGTERM, SIGHUP) go to `handler`; yields their handlers before.

    One that the process ignores, as a job in the background or under nohup may, stays ignored.
    """
    is_main = threading.current_thread() is threading.main_thread()  # Signals reach the main thread alone.
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOPS if is_main}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Inside, the first signal that stops a run is noted in the list, not obeyed; a second one acts at once."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(number, before[number])

    with handled(note) as before:
        yield received


def agree(received: list[str], due: bool) -> bool:
    """Whether to stop now. Several processes ask each other, and so only where an entry of the history is due."""
    if world_size() == 1:
        return bool(received)
    return due and average(torch.tensor(float(bool(received)), device=_meeting_place())).item() > 0


def _meeting_place() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
