"""Measure, and record for the book: python -m benchmarks [--parts speed,sampling] [--quick] [--device cuda]

Everything runs at one thread on a CPU, so that seconds of the processor are those of one core.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import bound, peers, quality, sampling, scaling, speed, store
from benchmarks.plan import QUICK, Plan

RESULTS = Path("benchmarks") / "results" / "results.json"
PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "speed": speed.run,
    "sampling": sampling.run,
    "bound": bound.run,
    "scaling": scaling.run,
    "quality-digits": functools.partial(quality.run, data="digits"),
    "quality-mnist": functools.partial(quality.run, data="mnist"),
}


def machine(device: str) -> dict[str, Any]:
    """Where and with what a part runs; `load` is the number of processes that want the processors."""
    is_cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else "cpu",
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 units": bool(torch.cpu.get_capabilities().get("amx_bf16", False)),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: peers.version(name) for name in peers.NAMES},
    }


def processor() -> str:
    """The name of the processor, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> int:
    """Run the parts one by one and record each as it ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=60, help="after which no further budget is trained")
    parser.add_argument("--quick", action="store_true", help="sizes that show that everything runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    plan, deadline = QUICK if options.quick else Plan(), time.monotonic() + 60 * options.minutes
    there = [name for name in peers.NAMES if peers.version(name)]
    torch.set_num_threads(1)
    for name in options.parts.split(","):
        start, date, about = time.monotonic(), datetime.now(UTC).date().isoformat(), machine(options.device)
        extra = {"deadline": deadline} if name.startswith("quality") else {}
        part = PARTS[name](plan, options.device, there, **extra)
        about |= {"date": date, "wall": round(time.monotonic() - start, 1)}
        store.record(options.results, name, part | {"machine": about})
        print(f"{name}: {about['wall']} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
