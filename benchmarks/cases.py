"""What is trained: networks of dmlib and of its peers, each with data, batch and settings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import peer_loops, peers
from benchmarks.loops import Case, Loop, dmlib_loop, textbook_loop
from benchmarks.plan import Plan
from dmlib import rng
from dmlib.checks import Tensor
from dmlib.diffusion import bounds, schedule
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.experiments import ddpm, measure, vae
from dmlib.learning.config import TrainConfig
from dmlib.learning.training import Objective
from dmlib.networks import build
from dmlib.probability.likelihoods import to_unit

ENDLESS = 10**9  # Steps of a run that is stopped from outside.


def speed_cases(plan: Plan, peers_there: list[str]) -> list[Case]:
    """The networks whose training steps are timed, each in every loop."""
    n, width, hidden = plan.batch, 8 if plan.is_quick else 32, 8 if plan.is_quick else 256
    mnist_widths = (8, 8) if plan.is_quick else ddpm.PRESETS["mnist"].widths
    nets = [
        noise_case("MLP, 8 px", lambda: build(mlp(hidden)), images(8, 17), 17, n),
        noise_case("U-Net, 8 px", lambda: build(unet(8, 1, (width, 2 * width))), images(8, 17), 17, n),
        noise_case("U-Net, 28 px", lambda: build(unet(28, 2, mnist_widths)), images(28, 256), 256, max(4, n // 4)),
        vae_case("VAE MLP, 28 px", (8, 8) if plan.is_quick else (192, 128), images(28, 256), n),
    ]
    if "diffusers" in peers_there:
        wide = (32, 32) if plan.is_quick else (32, 64)
        small = functools.partial(peers.UNet2D, 8, wide)
        large = functools.partial(peers.UNet2D, 28, (*wide, wide[1]))
        nets.append(noise_case("UNet2DModel of diffusers, 8 px", small, images(8, 17), 17, max(4, n // 2), False))
        nets.append(noise_case("UNet2DModel of diffusers, 28 px", large, images(28, 256), 256, max(4, n // 8), False))
    return nets


def loops(case: Case, peers_there: list[str]) -> dict[str, Callable[..., Loop]]:
    """The loops that can train a case, by name."""
    found: dict[str, Callable[..., Loop]] = {"dmlib": dmlib_loop}
    if case.is_own:
        found["dmlib, auto"] = functools.partial(dmlib_loop, amp_dtype="auto")
        if torch.cuda.is_available():
            found["dmlib, auto, compiled"] = functools.partial(dmlib_loop, amp_dtype="auto", compile=True)
    found["textbook"] = textbook_loop
    found["textbook, tensors"] = functools.partial(textbook_loop, images=False)
    theirs = {"diffusers": peer_loops.diffusers_loop, "smalldiffusion": peer_loops.smalldiffusion_loop}
    return found | {name: theirs[name] for name in peers_there if case.schedule is not None}


def mlp(hidden: int) -> dict[str, Any]:
    """What networks.build takes for an MLP of 8 x 8 images."""
    return {"name": "time_mlp", "dim": 64, "hidden": hidden, "depth": 3}


def unet(size: int, patch: int, widths: tuple[int, ...]) -> dict[str, Any]:
    """What networks.build takes for a U-Net of gray images."""
    return {"name": "unet", "channels": 1, "size": size, "patch": patch, "widths": widths, "blocks": 1}


def images(size: int, levels: int, n: int = 2048) -> Tensor:
    """Images of noise, for what takes as long on any."""
    return torch.randint(levels, (n, 1, size, size), dtype=torch.uint8, generator=rng.generator(0))


def noise_case(
    name: str, make: Callable[[], nn.Module], data: Tensor, levels: int, batch: int, is_own: bool = True, **more: Any
) -> Case:
    """A network that predicts the noise of the linear schedule that all peers have by default."""
    s = schedule.linear(peers.T)
    config = TrainConfig(steps=ENDLESS, batch_size=batch, **more)
    return Case(name, make, noise_objective(s, levels), data, levels, config, s, is_own=is_own)


def noise_objective(s: NoiseSchedule, levels: int) -> Callable[[nn.Module], Objective]:
    """The plain squared error of the noise."""
    loss = functools.partial(bounds.simple_loss, schedule=s, kind="eps")
    goal = Objective(functools.partial(bounds.draw, schedule=s), loss, functools.partial(to_unit, levels=levels))
    return lambda model: goal


def vae_case(name: str, hidden: tuple[int, ...], data: Tensor, batch: int) -> Case:
    """A VAE of binary images."""
    spec = {"name": "vae", "event": data.shape[1:], "latent": 10, "hidden": hidden, "likelihood": "bernoulli"}

    def objective(model: nn.Module) -> Objective:
        return dataclasses.replace(vae.objective(model), prepare=lambda x: (x > 127).float())

    return Case(name, lambda: build(spec), objective, data, 256, TrainConfig(steps=ENDLESS, batch_size=batch))


def contenders(data: str, plan: Plan, peers_there: list[str]) -> dict[str, tuple[Case, Callable[..., Loop]]]:
    """Each implementation at its natural configuration on digits or mnist, with its own loop.

    dmlib: the preset of its experiment, at a constant learning rate, so that one run gives every checkpoint.
    diffusers: the network of its course at the schedule's default. smalldiffusion: its example on 28 x 28 images,
    for 8 x 8 ones at half the width and one level less. Batches of the peers: 128 for digits, 64 for MNIST.
    The average of all keeps 0.99 a step, as in smalldiffusion's example: slower ones pay in longer runs.
    """
    source, is_small = measure.source(data), data == "digits"
    config = dataclasses.replace(ddpm.PRESETS[data], steps=ENDLESS, cosine=False, ema_decay=0.99)
    if plan.is_quick:
        config = dataclasses.replace(config, widths=(8, 8), batch_size=4)
    s, size = schedule.build(ddpm.noise(config)), source.train.shape[-1]
    spec = unet(size, config.patch, config.widths)
    goal = ddpm.objective(config, s, source.levels)
    own = Case("dmlib", lambda: build(spec), lambda model: goal, source.train, source.levels, config, s, config.kind)
    batch = 4 if plan.is_quick else 128 if is_small else 64
    make = functools.partial(noise_case, data=source.train, levels=source.levels, batch=batch, is_own=False)
    found: dict[str, tuple[Case, Callable[..., Loop]]] = {"dmlib": (own, dmlib_loop)}
    if "diffusers" in peers_there:
        net = functools.partial(peers.UNet2D, size, (32, 64) if is_small else (32, 64, 64))
        found["diffusers"] = (make("diffusers", net, lr=1e-3, ema_decay=config.ema_decay), peer_loops.diffusers_loop)
    if "smalldiffusion" in peers_there:
        net = functools.partial(peers.SmallUNet, size, *((32, (1, 2)) if is_small else (64, (1, 1, 2))))
        case = make("smalldiffusion", net, lr=7e-4, ema_decay=config.ema_decay)
        found["smalldiffusion"] = (case, peer_loops.smalldiffusion_loop)
    return found
