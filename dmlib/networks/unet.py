"""A small U-Net that knows the time: residual blocks on a pyramid, attention at its coarsest level alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    integers,
    require,
    require_beside,
    require_fits,
    require_float,
    require_shape,
)
from dmlib.networks.reduced import reducible

TIME_FEATURES = 64
GROUPS = 8


def time_features(t: Tensor) -> Float[Tensor, "B 64"]:
    """Sines and cosines of each time [B] at frequencies from 1 down to 1/1000."""
    require_shape(t, "t", None)
    require(not t.is_complex(), "the dtype of t", t.dtype, "real")
    frequencies = torch.logspace(0, -3, TIME_FEATURES // 2, device=t.device)
    angles = t.float().unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class UNet(nn.Module):
    """A Network: (x_t [B, channels, size, size], t [B]) to a prediction of x_t's shape; zero at initialization.

    Each patch of `patch` x `patch` pixels becomes one place of `widths[0]` features; each further width is a level
    of half the resolution, with `blocks` residual blocks on the way down and on the way up [Ronneberger2015].
    t is int64 in 1..T or a float such as gamma(t). It is ignored unless `time_conditional`.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        patch: int,
        widths: Sequence[int],
        blocks: int = 1,
        time_conditional: bool = True,
    ) -> None:
        super().__init__()
        channels, size, patch = integer(channels, "channels", 1), integer(size, "size", 1), integer(patch, "patch", 1)
        widths, blocks = integers(widths, "widths"), integer(blocks, "blocks", 1)
        ok = len(widths) >= 1 and all(width >= GROUPS and width % GROUPS == 0 for width in widths)
        require(ok, "widths", tuple(widths), f"one or more multiples of {GROUPS}")
        require(patch >= 1, "patch", patch, "1 or more")
        step = patch * 2 ** (len(widths) - 1)
        require(size % step == 0, "size", size, f"a multiple of {step}, patch times 2 for each level but one")
        self.event, self.time_conditional = (channels, size, size), time_conditional
        width, top, n_time = widths[0], widths[-1], 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, n_time), nn.SiLU(), nn.Linear(n_time, n_time), nn.SiLU())
        self.stem = nn.Conv2d(channels, width, patch, patch)
        self.down = nn.ModuleList(_level(w, w, blocks, n_time) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.middle = nn.ModuleList([ResidualBlock(top, top, n_time), Attention(top), ResidualBlock(top, top, n_time)])
        self.up = nn.ModuleList(_level(2 * w, w, blocks, n_time) for w in widths)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 3, 1, 1) for a, b in itertools.pairwise(widths))
        self.head = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.ConvTranspose2d(width, channels, patch, patch)
        )
        _zero(self.head[2])

    @reducible
    def forward(self, x_t: Tensor, t: Tensor) -> Float[Tensor, "B C H W"]:
        require_float(x_t, "x_t")
        require_fits(x_t, "x_t", self)
        require_shape(x_t, "x_t", None, *self.event)
        require_shape(t, "t", len(x_t))
        require_beside(t, "t", x_t, "x_t")
        time = self.time(time_features(t if self.time_conditional else torch.zeros_like(t)).to(x_t.dtype))
        h, skips = self.stem(x_t), []
        for level, blocks in enumerate(self.down):
            h = self.shrink[level - 1](h) if level else h
            for block in blocks:
                h = block(h, time)
            skips.append(h)
        for block in self.middle:
            h = block(h, time)
        for level in reversed(range(len(self.up))):
            h = torch.cat([h, skips[level]], 1)
            for block in self.up[level]:
                h = block(h, time)
            h = self.grow[level - 1](F.interpolate(h, scale_factor=2.0)) if level else h
        return self.head(h)


class ResidualBlock(nn.Module):
    """h plus two convolutions of it, between which the time scales and shifts each channel; the identity at first."""

    def __init__(self, n_in: int, n_out: int, n_time: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(GROUPS, n_in), nn.GroupNorm(GROUPS, n_out)
        self.conv_in, self.conv_out = nn.Conv2d(n_in, n_out, 3, 1, 1), _zero(nn.Conv2d(n_out, n_out, 3, 1, 1))
        self.scale_shift = nn.Linear(n_time, 2 * n_out)
        self.skip = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.scale_shift(time)[..., None, None].chunk(2, 1)
        inner = self.norm_out(self.conv_in(F.silu(self.norm_in(h))))
        return self.skip(h) + self.conv_out(F.silu(inner * (1 + scale) + shift))


class Attention(nn.Module):
    """h plus what each place reads from all others [Vaswani2017]; the identity at first. It ignores the time."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(GROUPS, width)
        self.query_key_value, self.out = nn.Conv2d(width, 3 * width, 1), _zero(nn.Conv2d(width, width, 1))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        parts = self.query_key_value(self.norm(h)).unflatten(1, (3, self.heads, -1)).flatten(4)
        query, key, value = parts.transpose(3, 4).unbind(1)  # each [B, heads, places, width / heads]
        read = F.scaled_dot_product_attention(query, key, value)
        return h + self.out(read.transpose(2, 3).reshape(h.shape))


def _level(n_in: int, n_out: int, blocks: int, n_time: int) -> nn.ModuleList:
    """`blocks` residual blocks, the first of which goes from n_in to n_out channels."""
    return nn.ModuleList(ResidualBlock(n_out if i else n_in, n_out, n_time) for i in range(blocks))


def _zero(layer: nn.Module) -> nn.Module:
    """The layer with weights and bias of zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
