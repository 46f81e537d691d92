"""How long things take: interleaved in one process, as medians and ratios with their ranges."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

Clock = Callable[[], float]


def clock(device: torch.device | str) -> Clock:
    """What tells the seconds so far.

    On the CPU they are those that the processor spent on this process, which other programs disturb little; on a GPU
    those on the wall, after all kernels have ended.
    """
    if torch.device(device).type == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int, now: Clock) -> dict[str, list[float]]:
    """The seconds of each task in each round: a round runs all tasks once, and each round begins with another one.

    All run once before, untimed.
    """
    names: list[str] = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for task in tasks.values():
        task()
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            start = now()
            tasks[name]()
            seconds[name].append(now() - start)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median and the range of what was measured."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def speedup(seconds: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """How many times faster the first was than the other, round by round."""
    return spread([theirs / ours for ours, theirs in zip(seconds, others, strict=True)])


def repeated(step: Callable[[], object], times: int) -> Callable[[], None]:
    """`times` calls of `step` as one task."""

    def run() -> None:
        for _ in range(times):
            step()

    return run


def calls_in(seconds: float, step: Callable[[], object], now: Clock) -> int:
    """How many calls of `step` take at least this long, judged by its second one."""
    step()
    start = now()
    step()
    return max(1, round(seconds / max(now() - start, 1e-6)))


def flops(run: Callable[[], object]) -> int:
    """The floating-point operations of a call, as PyTorch counts them: a multiplication with its addition is two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def matmul_peak(device: torch.device | str, dtype: torch.dtype, size: int, rounds: int = 5) -> float:
    """The operations per second that one product of two square matrices reached here, at its best."""
    a, now = torch.randn(size, size, device=device).to(dtype), clock(device)
    seconds = interleaved({"matmul": repeated(lambda: a @ a, 5)}, rounds, now)["matmul"]
    return 5 * 2 * size**3 / max(min(seconds), 1e-9)


def peak_memory(device: torch.device | str) -> float:
    """The most memory in MB that this process has held so far, on its device; Linux and CUDA say it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
