"""Ways to train one network: those of diffusers and smalldiffusion."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import peers
from benchmarks.loops import Case, Loop, batches, follow
from dmlib.checks import Tensor


def diffusers_loop(case: Case, device: torch.device | str) -> Loop:
    """The loop of diffusers' tutorial: its scheduler's add_noise, AdamW, clipping and its EMAModel."""
    library = peers.diffusers()
    from diffusers.training_utils import EMAModel

    model = case.build().to(device).train()
    scheduler, optimizer = library.DDPMScheduler(peers.T), torch.optim.AdamW(model.parameters(), lr=case.config.lr)
    ema = EMAModel(model.parameters(), decay=case.config.ema_decay)
    ema.to(device)

    def steps() -> Iterator[float]:
        for x in batches(case):
            x_0 = x.to(device)
            t, noise = torch.randint(peers.T, (len(x_0),), device=device), torch.randn_like(x_0)
            loss = diffusers_loss(scheduler, model, x_0, t, noise)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
            yield loss.item()

    def average() -> nn.Module:
        averaged = copy.deepcopy(model).eval()
        ema.copy_to(averaged.parameters())
        return averaged

    return Loop(functools.partial(next, steps()), average)


def diffusers_loss(scheduler: Any, network: nn.Module, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """What its tutorial minimizes; t is 0..T-1 there and 1..T for a Network."""
    return F.mse_loss(network(scheduler.add_noise(x_0, noise, t), t + 1), noise)


def small_model(network: nn.Module, schedule: Any) -> nn.Module:
    """A Network as a model of smalldiffusion: it is called with x_0 + sigma noise and sigma."""

    class Model(nn.Module, peers.smalldiffusion().ModelMixin):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.sigmas = network, schedule.sigmas

        def forward(self, x: Tensor, sigma: Tensor, cond: None = None) -> Tensor:
            t = torch.searchsorted(self.sigmas.to(x.device), sigma.flatten()) + 1
            return self.network(x / (1 + sigma**2).sqrt(), t)

    return Model()


def smalldiffusion_loop(case: Case, device: torch.device | str) -> Loop:
    """smalldiffusion's training_loop with the average that its example keeps beside it."""
    small = peers.smalldiffusion()
    network, schedule = case.build().to(device), small.ScheduleDDPM(peers.T)
    average = copy.deepcopy(network).eval()
    accelerator = small.diffusion.Accelerator(cpu=torch.device(device).type == "cpu")
    epoch = _Endless(case, device)
    loop = small.training_loop(epoch, small_model(network, schedule), schedule, accelerator, lr=case.config.lr)

    def step() -> float:
        loss = next(loop).loss.item()
        follow(average, network, case.config.ema_decay)
        return loss

    return Loop(step, lambda: average)


class _Endless:
    """One epoch without end, as the loader of a loop that wants one."""

    def __init__(self, case: Case, device: torch.device | str) -> None:
        self.case, self.device = case, device

    def __iter__(self) -> Iterator[Tensor]:
        return (x.to(self.device) for x in batches(self.case))
