"""Drawing images from the same network: the samplers of dmlib and the pipelines of diffusers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import peers, timing
from benchmarks.plan import Plan
from dmlib import rng
from dmlib.checks import Tensor
from dmlib.diffusion import parameterization, sampling, schedule

UNITS = {"seconds": "seconds", "dmlib_is_faster": "times"}
LAST = torch.tensor([0])


def run(plan: Plan, device: str, peers_there: list[str]) -> dict[str, Any]:
    """DDIM and ancestral sampling; without diffusers there is nothing to compare."""
    about = {"units": UNITS, "rounds": plan.rounds, "images": plan.drawn}
    if "diffusers" not in peers_there:
        return about | {"rows": [], "not_run": "Not run: diffusers was not installed."}
    few, timed = (2, 2) if plan.is_quick else (5, plan.timed_steps)
    large = (28, (32, 32, 32) if plan.is_quick else (32, 64, 64))
    rows = [
        *compare("DDIM", 8, (32, 64), plan, plan.ddim_steps, plan.ddim_steps, device),
        *compare("DDIM", *large, plan, plan.ddim_steps, few, device),
        *compare("ancestral", 8, (32, 64), plan, peers.T, timed, device),
    ]
    return about | {"rows": rows, "not_run": ""}


def compare(
    kind: str, size: int, widths: tuple[int, ...], plan: Plan, steps: int, timed: int, device: str
) -> list[dict[str, Any]]:
    """Both samplers of a kind at one network; the seconds of `steps` are scaled from those of `timed`."""
    network = peers.UNet2D(size, widths).to(device).eval()
    own, theirs = {"DDIM": (dmlib_ddim, diffusers_ddim), "ancestral": (dmlib_ancestral, diffusers_ancestral)}[kind]
    x_T = torch.randn(plan.drawn, 1, size, size, device=device)
    tasks: dict[str, Callable[[], object]] = {
        "dmlib": functools.partial(own, network, x_T, timed),
        "diffusers": functools.partial(theirs, network, plan.drawn, timed),
    }
    seconds = timing.interleaved(tasks, plan.rounds, timing.clock(device))
    shared = {"sampler": kind, "network": f"UNet2DModel, {size} px", "steps": steps, "steps_timed": timed}
    return [
        shared
        | {"loop": name, "seconds": timing.spread([s * steps / timed for s in measured])}
        | {"dmlib_is_faster": timing.speedup(seconds["dmlib"], measured)}
        for name, measured in seconds.items()
    ]


def dmlib_ddim(network: peers.UNet2D, x_T: Tensor, steps: int, clip: bool = True) -> Tensor:
    """Samples on [-1, 1] at the times that diffusers visits: T - T/steps + 1, .., 1, and then 0."""
    s = schedule.linear(peers.T)
    stride = peers.T // steps
    times = torch.tensor([*range((steps - 1) * stride + 1, 0, -stride), 0])
    return sampling.ddim(_denoiser(network, clip), s, x_T, times=times, keep=LAST).x[-1]


def dmlib_ancestral(network: peers.UNet2D, x_T: Tensor, steps: int) -> Tensor:
    """Samples on [-1, 1] in evenly spaced ancestral steps."""
    s, g = schedule.linear(peers.T), rng.generator(0, device=x_T.device)
    times = torch.linspace(s.T, 0, steps + 1).round().long()
    return sampling.ancestral(_denoiser(network, True), s, x_T, generator=g, times=times, keep=LAST).x[-1]


def diffusers_ddim(network: peers.UNet2D, n: int, steps: int, clip: bool = True, seed: int = 0) -> Any:
    """Images on [0, 1] as the pipeline of diffusers gives them."""
    library = peers.diffusers()
    pipeline = library.DDIMPipeline(network.unet, library.DDIMScheduler(peers.T, clip_sample=clip))
    return _images(pipeline, n, steps, seed, network)


def diffusers_ancestral(network: peers.UNet2D, n: int, steps: int) -> Any:
    """Images on [0, 1] as the pipeline of diffusers gives them."""
    library = peers.diffusers()
    return _images(library.DDPMPipeline(network.unet, library.DDPMScheduler(peers.T)), n, steps, 0, network)


def _images(pipeline: Any, n: int, steps: int, seed: int, network: peers.UNet2D) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    device = next(network.parameters()).device
    g = torch.Generator(device).manual_seed(seed)
    return pipeline(batch_size=n, num_inference_steps=steps, generator=g, output_type="np").images


def _denoiser(network: peers.UNet2D, clip: bool) -> Any:
    denoiser = parameterization.as_denoiser(network, schedule.linear(peers.T), "eps")
    return parameterization.clamped(denoiser) if clip else denoiser
