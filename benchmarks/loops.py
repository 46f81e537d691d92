"""Ways to train one network: that of dmlib and that of a textbook, step by step."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dmlib.checks import Tensor
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.latent.vae import VAE
from dmlib.learning.config import TrainConfig
from dmlib.learning.state import TrainState
from dmlib.learning.training import Objective, _batch, _wrap
from dmlib.networks.reduced import precision
from dmlib.probability.likelihoods import to_unit


@dataclasses.dataclass(frozen=True)
class Case:
    """What all loops train alike: a network with its data, batch and settings."""

    name: str
    build: Callable[[], nn.Module]  # The same weights at every call.
    objective: Callable[[nn.Module], Objective]
    data: Tensor  # Levels, uint8 [N, 1, H, W].
    levels: int
    config: TrainConfig
    schedule: NoiseSchedule | None = None  # Of a diffusion; None: a VAE of binary images.
    kind: str = "eps"  # What the network of a diffusion predicts.
    is_own: bool = True  # Whether the network is one of dmlib, which can compute in reduced precision.


class Loop(NamedTuple):
    """A training loop in progress: `step()` goes one step on, `average()` is the averaged network so far."""

    step: Callable[[], object]
    average: Callable[[], nn.Module]


def dmlib_loop(case: Case, device: torch.device | str, **changes: object) -> Loop:
    """The steps of `training.fit`, with some settings changed."""
    config = dataclasses.replace(case.config, **changes)
    model, data = case.build().to(device).train(), case.data.to(device)
    state, goal = TrainState(model, config, case.data, None), case.objective(model)

    def steps() -> Iterator[None]:
        net = _wrap(model, goal.loss, config, 1)
        with precision(model, state.dtype):
            while True:
                state.update(net(*_batch(goal, data, config, state.step + 1, 0, 1)))
                if state.due:
                    state.log(lambda ema: None)
                yield

    return Loop(functools.partial(next, steps()), lambda: state.ema)


def textbook_loop(case: Case, device: torch.device | str, *, images: bool = True) -> Loop:
    """The loop of many tutorials: a DataLoader, AdamW, an average and a running loss in Python."""
    model = case.build().to(device).train()
    average, optimizer = copy.deepcopy(model).eval(), torch.optim.AdamW(model.parameters(), lr=case.config.lr)
    loss_of = _binary_vae_loss if case.schedule is None else functools.partial(_noise_loss, case.schedule)

    def steps() -> Iterator[float]:
        total = 0.0
        for x in batches(case, images=images):
            loss = loss_of(model, x.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            follow(average, model, case.config.ema_decay)
            total += loss.item()
            yield total

    return Loop(functools.partial(next, steps()), lambda: average)


def batches(case: Case, *, images: bool = True) -> Iterator[Tensor]:
    """Batches without end from a DataLoader: of `images` that are transformed one by one, or of one float tensor."""
    x = Images(case.data, case.levels) if images else TensorDataset(to_unit(case.data, case.levels))
    loader = DataLoader(x, batch_size=case.config.batch_size, shuffle=True, drop_last=True)
    while True:
        for batch in loader:
            yield batch if images else batch[0]


class Images(Dataset):
    """Images one by one, as torchvision's data sets give them: a PIL image, made a tensor, put on [-1, 1]."""

    def __init__(self, levels: Tensor, n_levels: int) -> None:
        self.levels, self.top = levels.squeeze(1).numpy(), n_levels - 1

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, i: int) -> Tensor:
        image = Image.fromarray(self.levels[i])
        x = torch.from_numpy(np.array(image)).unsqueeze(0).float().div(self.top)
        return x.sub(0.5).div(0.5)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average towards the model, one tensor at a time."""
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.mul_(decay).add_(new, alpha=1 - decay)


def noise_loss(model: nn.Module, alpha_bar: Tensor, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The mean squared error of the predicted noise, as it is commonly written."""
    share = alpha_bar[t].view(-1, 1, 1, 1)
    return F.mse_loss(model(share.sqrt() * x_0 + (1 - share).sqrt() * noise, t), noise)


def binary_vae_loss(model: VAE, x: Tensor, noise: Tensor) -> Tensor:
    """Cross-entropy and divergence of a batch of binary images, as they are commonly written."""
    mean, log_var = model.encoder(x)
    (logits,) = model.decoder(mean + (log_var / 2).exp() * noise)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (cross_entropy - 0.5 * (1 + log_var - mean**2 - log_var.exp()).sum()) / len(x)


def _noise_loss(schedule: NoiseSchedule, model: nn.Module, x_0: Tensor) -> Tensor:
    t = torch.randint(1, schedule.T + 1, (len(x_0),), device=x_0.device)
    return noise_loss(model, schedule.alpha_bar.float().to(x_0.device), x_0, t, torch.randn_like(x_0))


def _binary_vae_loss(model: VAE, x: Tensor) -> Tensor:
    noise = torch.randn(len(x), model.encoder.latent_dim, device=x.device)
    return binary_vae_loss(model, (x > 0).float(), noise)
