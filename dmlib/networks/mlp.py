"""Fully connected networks: the plain one, one that sees the time, and the two halves of a VAE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from dmlib import checks
from dmlib.checks import (
    Float,
    Tensor,
    integer,
    integers,
    require,
    require_beside,
    require_choice,
    require_fits,
    require_float,
    require_shape,
)
from dmlib.networks.reduced import reducible
from dmlib.networks.unet import TIME_FEATURES, time_features

ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "softplus": nn.Softplus}
LEVELED = ("binomial", "categorical", "discretized_gaussian")
GAUSSIAN = ("gaussian", "discretized_gaussian")
LIKELIHOODS = (*LEVELED, "bernoulli", "continuous_bernoulli", "gaussian")


class MLP(nn.Module):
    """Linear maps of the given sizes with an activation between two of them: [B, sizes[0]] to [B, sizes[-1]]."""

    def __init__(self, sizes: Sequence[int], activation: str = "silu") -> None:
        super().__init__()
        sizes = integers(sizes, "sizes")
        require(len(sizes) >= 2 and min(sizes) >= 1, "sizes", sizes, "two or more integers, each 1 or more")
        require_choice(activation, "activation", ACTIVATIONS)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    @reducible
    def forward(self, x: Tensor) -> Float[Tensor, "B D"]:
        require_fits(x, "x", self)
        require_shape(x, "x", None, self.layers[0].in_features)
        return self.layers(x)


class TimeMLP(nn.Module):
    """A Network: (x_t, t) to a prediction of x_t's shape; `dim` is the size of one flat event.

    t [B] is int64 in 1..T or a float such as gamma(t); it enters as sines and cosines, and is ignored unless
    `time_conditional`.
    """

    def __init__(self, dim: int, hidden: int = 128, depth: int = 3, time_conditional: bool = True) -> None:
        super().__init__()
        dim, hidden, depth = integer(dim, "dim", 1), integer(hidden, "hidden", 1), integer(depth, "depth", 1)
        self.dim, self.time_conditional = dim, time_conditional
        self.mlp = MLP([dim + TIME_FEATURES, *depth * [hidden], dim])

    def forward(self, x_t: Tensor, t: Tensor) -> Float[Tensor, "B *event"]:
        require_float(x_t, "x_t")
        require(x_t.dim() > 1, "the shape of x_t", tuple(x_t.shape), "(B, *event)")
        require_fits(x_t, "x_t", self)
        require_shape(x_t.flatten(1), "x_t, flattened,", None, self.dim)
        require_shape(t, "t", len(x_t))
        require_beside(t, "t", x_t, "x_t")
        time = time_features(t if self.time_conditional else torch.zeros_like(t))
        return self.mlp(torch.cat([x_t.flatten(1), time.to(x_t.dtype)], 1)).view_as(x_t)


class GaussianEncoder(nn.Module):
    """Maps x [B, *event] to the mean and log-variance of a Gaussian code, each [B, latent_dim].

    With `levels`, x holds levels 0..levels-1 of any dtype, which are put on [-1, 1] first;
    without, x is a float tensor and is used as it is.
    """

    def __init__(self, event: Sequence[int], hidden: Sequence[int], latent: int, levels: int | None = None) -> None:
        super().__init__()
        levels = None if levels is None else integer(levels, "levels", 2)
        event, hidden, latent = checks.sizes(event, "event"), integers(hidden, "hidden"), integer(latent, "latent", 1)
        self.event, self.latent_dim, self.levels = tuple(event), latent, levels
        self.mlp = MLP([math.prod(event), *hidden, 2 * latent])

    def forward(self, x: Tensor) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        require_shape(x, "x", None, *self.event)
        if self.levels is None:
            require_fits(x, "x", self)
        else:
            x = 2 * x.to(next(self.parameters()).dtype) / (self.levels - 1) - 1
        mean, log_var = self.mlp(x.flatten(1)).chunk(2, 1)
        return mean, log_var


class Decoder(nn.Module):
    """Maps codes z [B, latent] to the tuple of a likelihood's parameters, shaped for the event.

    (logits,) for "bernoulli", "binomial" and "continuous_bernoulli"; (logits [B, *event, levels],) for
    "categorical"; (mean, log_var) for "gaussian" and (mean, log_scale) for "discretized_gaussian". `spread` says
    where the second one comes from: "shared" is one learned number, "pixel" is an output for each pixel.
    """

    def __init__(
        self,
        latent: int,
        hidden: Sequence[int],
        event: Sequence[int],
        likelihood: str,
        levels: int | None = None,
        spread: str = "shared",
    ) -> None:
        super().__init__()
        levels = require_levels(likelihood, levels)
        event, hidden, latent = checks.sizes(event, "event"), integers(hidden, "hidden"), integer(latent, "latent", 1)
        require_choice(spread, "spread", ("shared", "pixel"))
        self.is_gaussian = likelihood in GAUSSIAN
        self.shape = (*event, levels) if likelihood == "categorical" else tuple(event)
        self.spread = nn.Parameter(torch.zeros(())) if self.is_gaussian and spread == "shared" else None
        outputs = 2 if self.is_gaussian and spread == "pixel" else 1
        self.mlp = MLP([latent, *hidden, outputs * math.prod(self.shape)])

    def forward(self, z: Tensor) -> tuple[Float[Tensor, "B *event"], ...]:
        require_fits(z, "z", self)
        outputs = self.mlp(z)
        if not self.is_gaussian:
            return (outputs.view(-1, *self.shape),)
        if self.spread is not None:
            mean = outputs.view(-1, *self.shape)
            return mean, self.spread.expand_as(mean)
        mean, spread = outputs.chunk(2, 1)
        return mean.reshape(-1, *self.shape), spread.reshape(-1, *self.shape)


def require_levels(likelihood: str, levels: int | None) -> int | None:
    """`levels` itself; raises unless it is given where the likelihood has them, and only there."""
    require_choice(likelihood, "likelihood", LIKELIHOODS)
    if likelihood in LEVELED:
        require(levels is not None, "levels", None, f"2 or more for {likelihood!r}")
        return integer(levels, "levels", 2)
    require(levels is None, "levels", levels, f"None for {likelihood!r}")
    return None
