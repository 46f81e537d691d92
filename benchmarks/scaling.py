"""How the cost grows with T, batch and width, and how much memory training takes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import cases, timing
from benchmarks.loops import Case, dmlib_loop
from benchmarks.plan import QUICK, Plan
from dmlib import rng
from dmlib.diffusion import parameterization, sampling, schedule
from dmlib.networks import build

UNITS = {
    "training_step": "seconds",
    "drawing": "seconds for 8 images in T steps",
    "images_per_second": "images per second",
    "added": "MB",
    "parameters": "numbers",
}


def run(plan: Plan, device: str, peers_there: list[str]) -> dict[str, Any]:
    """Tables of the digits' U-Net: by T, by batch, by width; and the memory of each loop."""
    widths = (8, 8) if plan.is_quick else (32, 64)
    wider = [(8, 8), (16, 16)] if plan.is_quick else [(16, 32), (32, 64), (64, 128)]
    sizes = (2, 4) if plan.is_quick else (8, 32, 128, 512)
    return {
        "units": UNITS,
        "by_T": by_T(widths, plan, device),
        "by_batch": steps({str(n): (widths, n) for n in sizes}, plan, device),
        "by_width": steps({", ".join(map(str, w)): (w, plan.batch) for w in wider}, plan, device),
        "memory": [] if plan.is_quick else memory_rows(plan, device, peers_there),
    }


def steps(variants: dict[str, tuple[tuple[int, ...], int]], plan: Plan, device: str) -> list[dict[str, Any]]:
    """Images per second of training steps at several widths and batches."""
    found = {name: _case(*variant) for name, variant in variants.items()}
    now, tasks, work = timing.clock(device), {}, {}
    for name, case in found.items():
        step = dmlib_loop(case, device).step
        times = timing.calls_in(plan.block / 2, step, now)
        tasks[name], work[name] = timing.repeated(step, times), times * case.config.batch_size
    seconds = timing.interleaved(tasks, min(3, plan.rounds), now)
    return [
        {"value": name, "images_per_second": timing.spread([work[name] / s for s in measured])}
        | {"parameters": sum(p.numel() for p in found[name].build().parameters())}
        for name, measured in seconds.items()
    ]


def by_T(widths: tuple[int, ...], plan: Plan, device: str) -> list[dict[str, Any]]:
    """Seconds of one training step, and of drawing images in all T steps, at several T."""
    lengths = (10, 20) if plan.is_quick else (50, 100, 200)
    network = build(cases.unet(8, 1, widths)).to(device).eval()
    training, drawing = {}, {}
    for n in lengths:
        s = schedule.linear(n)
        case = _case(widths, plan.batch)
        case = dataclasses.replace(case, schedule=s, objective=cases.noise_objective(s, case.levels))
        training[str(n)] = dmlib_loop(case, device).step
        drawing[str(n)] = _all_steps(network, n, min(8, plan.drawn), device)
    now, rounds = timing.clock(device), min(3, plan.rounds)
    trained, drawn = timing.interleaved(training, rounds, now), timing.interleaved(drawing, rounds, now)
    return [
        {"value": n, "training_step": timing.spread(trained[n]), "drawing": timing.spread(drawn[n])} for n in trained
    ]


def memory_rows(plan: Plan, device: str, peers_there: list[str]) -> list[dict[str, Any]]:
    """The memory that three training steps add to what the process held before, in a process of its own for each."""
    names = ["U-Net, 8 px", "U-Net, 28 px"] + ["UNet2DModel of diffusers, 8 px"] * ("diffusers" in peers_there)
    rows = []
    for name in names:
        for loop in ("dmlib", "textbook", *peers_there):
            command = [sys.executable, "-m", "benchmarks.scaling", name, loop, device, *peers_there]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"network": name, "loop": loop, "added": json.loads(done.stdout.splitlines()[-1])})
    return rows


def added_memory(name: str, loop: str, device: str, peers_there: list[str], plan: Plan = QUICK) -> float:
    """MB that three steps of a loop add to the most that this process has held until the first."""
    case = next(case for case in cases.speed_cases(plan, peers_there) if case.name == name)
    step = cases.loops(case, peers_there)[loop](case, device).step
    before = timing.peak_memory(device)
    timing.repeated(step, 3)()
    return timing.peak_memory(device) - before


def _case(widths: tuple[int, ...], batch: int) -> Case:
    return cases.noise_case("", lambda: build(cases.unet(8, 1, widths)), cases.images(8, 17), 17, batch)


def _all_steps(network: nn.Module, T: int, n: int, device: str) -> Callable[[], object]:
    s = schedule.linear(T)
    denoiser, x_T = parameterization.as_denoiser(network, s, "eps"), torch.randn(n, 1, 8, 8, device=device)
    return lambda: sampling.ancestral(denoiser, s, x_T, generator=rng.generator(0, device=device), keep=[0])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(added_memory(*sys.argv[1:4], sys.argv[4:], Plan()))
