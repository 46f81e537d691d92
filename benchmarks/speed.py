"""Images per second of one training step, of the same network at the same batch, in several loops."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import cases, timing
from benchmarks.loops import Case, dmlib_loop
from benchmarks.plan import Plan

UNITS = {
    "images_per_second": "images per second",
    "dmlib_is_faster": "times",
    "auto_is_faster": "times",
    "gflop_per_image": "GFLOP, forward and backward",
    "share_of_peak": "of the largest matrix product's rate in float32 here",
    "peak": "GFLOP per second",
}


def run(plan: Plan, device: str, peers_there: list[str]) -> dict[str, Any]:
    """All networks in all loops."""
    peak = timing.matmul_peak(device, torch.float32, 64 if plan.is_quick else _size(device))
    rows = [
        row for case in cases.speed_cases(plan, peers_there) for row in measure(case, plan, device, peers_there, peak)
    ]
    return {"units": UNITS, "rounds": plan.rounds, "peak": peak / 1e9, "rows": rows}


def measure(case: Case, plan: Plan, device: str, peers_there: list[str], peak: float) -> list[dict[str, Any]]:
    """One network in all its loops, interleaved."""
    now, batch = timing.clock(device), case.config.batch_size
    steps = {name: make(case, device).step for name, make in cases.loops(case, peers_there).items()}
    times = timing.calls_in(plan.block, steps["dmlib"], now)
    seconds = timing.interleaved({k: timing.repeated(step, times) for k, step in steps.items()}, plan.rounds, now)
    work = timing.flops(dmlib_loop(case, device).step) / batch
    rows = []
    for name, measured in seconds.items():
        rate = timing.spread([times * batch / s for s in measured])
        row = {"network": case.name, "batch": batch, "loop": name, "images_per_second": rate}
        row |= {"dmlib_is_faster": timing.speedup(seconds["dmlib"], measured)}
        row |= {"auto_is_faster": timing.speedup(seconds["dmlib, auto"], measured)} if case.is_own else {}
        rows.append(row | {"gflop_per_image": work / 1e9, "share_of_peak": rate["median"] * work / peak})
    return rows


def _size(device: str) -> int:
    """The size of a matrix that is large for this device."""
    return 8192 if torch.device(device).type == "cuda" else 1024
