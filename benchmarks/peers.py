"""Other implementations, diffusers and smalldiffusion, and their networks behind the interface of this one.

Neither is imported before it is used, so that the rest runs without them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dmlib.checks import Tensor

NAMES = ("diffusers", "smalldiffusion")
T = 1000  # Of the schedule that both have by default: beta from 1e-4 to 0.02.


def version(name: str) -> str | None:
    """The version of a peer, or None where it is not installed."""
    return importlib.metadata.version(name) if importlib.util.find_spec(name) else None


def diffusers() -> Any:
    """The package."""
    import diffusers

    return diffusers


def smalldiffusion() -> Any:
    """The package; a stand-in for torchvision lets it be imported where that is missing or broken.

    It uses three transforms of torchvision in one expression, which nothing here calls.
    """
    with _torchvision():
        import smalldiffusion

    return smalldiffusion


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """Inside, `from torchvision import transforms` works."""
    try:
        importlib.import_module("torchvision")
        yield
        return
    except (ImportError, RuntimeError):  # The latter where it was built for another release of PyTorch.
        stand_in, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    transforms.__getattr__ = lambda name: lambda *parts: None
    stand_in.transforms = transforms
    sys.modules |= {"torchvision": stand_in, "torchvision.transforms": transforms}
    try:
        yield
    finally:
        for name in ("torchvision", "torchvision.transforms"):
            sys.modules.pop(name, None)


class UNet2D(nn.Module):
    """diffusers' UNet2DModel as a Network, in the layout of its course: attention at all levels but the first."""

    def __init__(self, size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        below = len(widths) - 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.unet = diffusers().UNet2DModel(
                sample_size=size,
                in_channels=1,
                out_channels=1,
                layers_per_block=2,
                block_out_channels=widths,
                down_block_types=("DownBlock2D", *below * ["AttnDownBlock2D"]),
                up_block_types=(*below * ["AttnUpBlock2D"], "UpBlock2D"),
            )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.unet(x_t, t - 1).sample


class SmallUNet(nn.Module):
    """smalldiffusion's Unet, scaled as in its examples, as a Network of the time rather than the noise level."""

    def __init__(self, size: int, width: int, multiples: tuple[int, ...]) -> None:
        super().__init__()
        small, attention = smalldiffusion(), size // 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = small.Scaled(small.Unet)
            self.unet = model(size, 1, 1, ch=width, ch_mult=multiples, attn_resolutions=(attention,))
        self.register_buffer("sigmas", small.ScheduleDDPM(T).sigmas)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        sigma = self.sigmas[t - 1].view(-1, 1, 1, 1)
        return self.unet(x_t * (1 + sigma**2).sqrt(), sigma)
