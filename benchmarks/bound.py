"""What the whole bound costs, in float32 and bfloat16, and whether reduced precision shifts it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import cases, peers, timing
from benchmarks.plan import Plan
from dmlib import metrics, rng
from dmlib.checks import Tensor
from dmlib.diffusion import bounds, parameterization, schedule
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.experiments import ddpm, measure
from dmlib.learning import checkpoints
from dmlib.networks import build, precision
from dmlib.probability.likelihoods import to_unit

UNITS = {"seconds": "seconds for all T terms", "is_faster": "times", "shift": "bits per dimension"}


def run(plan: Plan, device: str, peers_there: list[str]) -> dict[str, Any]:
    """The cost of all T terms for `bound_images` digits with the MLP and the U-Net, and the shift of the U-Net's."""
    x_0 = to_unit(measure.source("digits").train[: plan.bound_images], 17).to(device)
    widths = (8, 8) if plan.is_quick else ddpm.PRESETS["digits"].widths
    hidden = 8 if plan.is_quick else 256
    nets = {
        "MLP, 8 px": {"name": "time_mlp", "dim": 64, "hidden": hidden, "depth": 3},
        "U-Net, 8 px": cases.unet(8, 1, widths),
    }
    rows = [row for name, spec in nets.items() for row in cost(name, build(spec).to(device).eval(), x_0, plan, device)]
    return {"units": UNITS, "images": len(x_0), "T": peers.T, "terms_timed": plan.terms, "rows": rows} | shift(
        plan, device
    )


def cost(name: str, network: nn.Module, x_0: Tensor, plan: Plan, device: str) -> list[dict[str, Any]]:
    """The seconds of all T terms, scaled from those of the first few terms of an evenly thinned schedule."""
    times = torch.linspace(0, peers.T, plan.terms + 1).round().long()
    short = NoiseSchedule(schedule.linear(peers.T).alpha_bar[times])
    tasks: dict[str, Callable[[], object]] = {
        kind: functools.partial(_bound, network, short, x_0, dtype)
        for kind, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    seconds = timing.interleaved(tasks, min(3, plan.rounds), timing.clock(device))
    return [
        {"network": name, "precision": kind, "seconds": timing.spread([s * peers.T / plan.terms for s in measured])}
        | {"is_faster": timing.speedup(measured, seconds["float32"])}
        for kind, measured in seconds.items()
    ]


def shift(plan: Plan, device: str, images: int = 100) -> dict[str, Any] | None:
    """How far bfloat16 moves the bound of the shipped DDPM on held-out digits, at the same noise.

    None where the package ships no weights of it.
    """
    try:
        network, card = checkpoints.pretrained("ddpm-digits")
    except ValueError:
        return None
    s = schedule.build(card["schedule"])
    short = NoiseSchedule(s.alpha_bar[torch.tensor([0, 1, s.T])]) if plan.is_quick else s
    x_0 = to_unit(measure.source("digits").test[: 4 if plan.is_quick else images], 17).to(device)
    found = [_bound(network.to(device), short, x_0, dtype, card["kind"]) for dtype in (torch.float32, torch.bfloat16)]
    bits = [metrics.bits_per_dim(terms.total, x_0[0].numel()) for terms in found]
    moved = bits[1] - bits[0]
    error = (moved.std() / len(moved) ** 0.5).item()
    return {
        "shift": {
            "bits_per_dim": bits[0].mean().item(),
            "mean": moved.mean().item(),
            "error": error,
            "images": len(x_0),
        }
    }


@torch.no_grad()
def _bound(network: nn.Module, s: NoiseSchedule, x_0: Tensor, dtype: torch.dtype, kind: str = "eps") -> Any:
    """The bound over all terms of a schedule, one noise each."""
    denoiser = parameterization.clamped(parameterization.as_denoiser(network, s, kind))
    parts, decoder = [], bounds.discretized_decoder(denoiser, s, 17)
    with precision(network, dtype):
        for i, batch in enumerate(x_0.split(measure.BATCH)):
            g = rng.generator(0, i, device=x_0.device)
            noises = (torch.randn(batch.shape, generator=g, device=x_0.device) for _ in range(s.T))
            parts.append(bounds.denoising_form(denoiser, s, batch, noises, decoder))
    return type(parts[0])(*(torch.cat([getattr(p, name) for p in parts]) for name in parts[0]._fields))
