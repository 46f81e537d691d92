"""Small networks, each made from a plain dictionary by `build`."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dmlib.checks import Float, Tensor, require, require_float, require_shape
from dmlib.latent.vae import VAE
from dmlib.learning import rng
from dmlib.learning.convolutional import Classifier, ConvDecoder, ConvEncoder
from dmlib.learning.precision import precision, reducible
from dmlib.learning.unet import TIME_FEATURES, UNet, time_features
from dmlib.probability import likelihoods

__all__ = [
    "MLP",
    "MODELS",
    "Decoder",
    "GaussianEncoder",
    "TimeMLP",
    "UNet",
    "build",
    "precision",
    "time_features",
    "vae",
]

ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "softplus": nn.Softplus}
LEVELED = ("binomial", "categorical", "discretized_gaussian")
GAUSSIAN = ("gaussian", "discretized_gaussian")
LIKELIHOODS = (*LEVELED, "bernoulli", "continuous_bernoulli", "gaussian")


class MLP(nn.Module):
    """Linear maps of the given sizes with an activation between two of them: [B, sizes[0]] to [B, sizes[-1]]."""

    def __init__(self, sizes: Sequence[int], activation: str = "silu") -> None:
        super().__init__()
        require(len(sizes) >= 2 and all(n >= 1 for n in sizes), "sizes", sizes, "two or more integers, each 1 or more")
        require(activation in ACTIVATIONS, "activation", repr(activation), f"one of {', '.join(ACTIVATIONS)}")
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    @reducible
    def forward(self, x: Tensor) -> Float[Tensor, "B D"]:
        require_shape(x, "x", None, self.layers[0].in_features)
        return self.layers(x)


class TimeMLP(nn.Module):
    """A Network: (x_t, t) to a prediction of x_t's shape; `dim` is the size of one flat event.

    t [B] is int64 in 1..T or a float such as gamma(t); it enters as sines and cosines. A `blind` network ignores it.
    """

    def __init__(self, dim: int, hidden: int = 128, depth: int = 3, blind: bool = False) -> None:
        super().__init__()
        require(depth >= 1, "depth", depth, "1 or more")
        self.dim, self.blind = dim, blind
        self.mlp = MLP([dim + TIME_FEATURES, *depth * [hidden], dim])

    def forward(self, x_t: Tensor, t: Tensor) -> Float[Tensor, "B *event"]:
        require_float(x_t, "x_t")
        require_shape(x_t.flatten(1), "x_t, flattened,", None, self.dim)
        require_shape(t, "t", len(x_t))
        time = time_features(torch.zeros_like(t) if self.blind else t)
        return self.mlp(torch.cat([x_t.flatten(1), time.to(x_t.dtype)], 1)).view_as(x_t)


class GaussianEncoder(nn.Module):
    """Maps x [B, *event] to the mean and log-variance of a Gaussian code, each [B, latent_dim].

    With `levels`, x holds levels 0..levels-1 of any dtype, which are put on [-1, 1] first;
    without, x is a float tensor and is used as it is.
    """

    def __init__(self, event: Sequence[int], hidden: Sequence[int], latent: int, levels: int | None = None) -> None:
        super().__init__()
        require(levels is None or levels >= 2, "levels", levels, "None, or 2 or more")
        self.event, self.latent_dim, self.levels = tuple(event), latent, levels
        self.mlp = MLP([math.prod(event), *hidden, 2 * latent])

    def forward(self, x: Tensor) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        require_shape(x, "x", None, *self.event)
        if self.levels is None:
            require_float(x, "x")
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
        _require_levels(likelihood, levels)
        require(spread in ("shared", "pixel"), "spread", repr(spread), "'shared' or 'pixel'")
        self.is_gaussian = likelihood in GAUSSIAN
        self.shape = (*event, levels) if likelihood == "categorical" else tuple(event)
        self.spread = nn.Parameter(torch.zeros(())) if self.is_gaussian and spread == "shared" else None
        outputs = 2 if self.is_gaussian and spread == "pixel" else 1
        self.mlp = MLP([latent, *hidden, outputs * math.prod(self.shape)])

    def forward(self, z: Tensor) -> tuple[Float[Tensor, "B *event"], ...]:
        outputs = self.mlp(z)
        if not self.is_gaussian:
            return (outputs.view(-1, *self.shape),)
        if self.spread is not None:
            mean = outputs.view(-1, *self.shape)
            return mean, self.spread.expand_as(mean)
        mean, spread = outputs.chunk(2, 1)
        return mean.reshape(-1, *self.shape), spread.reshape(-1, *self.shape)


def vae(
    event: Sequence[int],
    latent: int,
    hidden: Sequence[int],
    likelihood: str,
    levels: int | None = None,
    spread: str = "shared",
) -> VAE:
    """A VAE with a GaussianEncoder and a Decoder whose hidden sizes mirror each other.

    `levels` is given where x is made of levels ("binomial", "categorical", "discretized_gaussian").
    For "bernoulli", x is 0 or 1; for "continuous_bernoulli" and "gaussian" it is a float tensor.
    """
    decoder = Decoder(latent, hidden[::-1], event, likelihood, levels, spread)
    encoder = GaussianEncoder(event, hidden, latent, 2 if likelihood == "bernoulli" else levels)
    return VAE(encoder, decoder, _law(likelihood, levels))


def conv_vae(
    channels: int, size: int, latent: int, widths: Sequence[int], likelihood: str, levels: int | None = None
) -> VAE:
    """A VAE of a ConvEncoder and a ConvDecoder, whose Gaussian decoders put out a spread for each pixel.

    `levels` is as for `vae`; "categorical" is not offered.
    """
    _require_levels(likelihood, levels)
    require(likelihood != "categorical", "likelihood", repr(likelihood), "one with one or two numbers for each pixel")
    encoder = ConvEncoder(channels, size, widths, latent, 2 if likelihood == "bernoulli" else levels)
    decoder = ConvDecoder(channels, size, widths, latent, 2 if likelihood in GAUSSIAN else 1)
    return VAE(encoder, decoder, _law(likelihood, levels))


def _law(likelihood: str, levels: int | None) -> Callable[..., Tensor]:
    """The likelihood of this name, with its number of levels."""
    options = {"binomial": {"n": (levels or 0) - 1}, "discretized_gaussian": {"levels": levels}}.get(likelihood, {})
    return functools.partial(getattr(likelihoods, likelihood), **options)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "time_mlp": TimeMLP,
    "gaussian_encoder": GaussianEncoder,
    "decoder": Decoder,
    "vae": vae,
    "conv_vae": conv_vae,
    "unet": UNet,
    "classifier": Classifier,
}


def build(spec: dict, *, seed: int = 0) -> nn.Module:
    """The network that a plain dictionary describes, its weights drawn from `seed` alone.

    spec["name"] is a key of `MODELS`; the other keys are the arguments of that model. Names and keys that the
    model does not know, and missing ones, raise. The random state of the process stays as it was.
    """
    options = dict(spec)
    name = options.pop("name", None)
    require(name in MODELS, "spec['name']", repr(name), f"one of {', '.join(MODELS)}")
    parameters = inspect.signature(MODELS[name]).parameters
    needed = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
    ok = needed <= options.keys() <= parameters.keys()
    require(ok, f"the keys of spec for {name!r}", sorted(options), f"{sorted(needed)}, or more of {list(parameters)}")
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng.generator(seed).get_state())
        return MODELS[name](**options)


def _require_levels(likelihood: str, levels: int | None) -> None:
    """Raise unless `levels` is given where the likelihood has them, and only there."""
    require(likelihood in LIKELIHOODS, "likelihood", repr(likelihood), f"one of {', '.join(LIKELIHOODS)}")
    if likelihood in LEVELED:
        require(isinstance(levels, int) and levels >= 2, "levels", levels, f"2 or more for {likelihood!r}")
    else:
        require(levels is None, "levels", levels, f"None for {likelihood!r}")
