"""Every model of the book from a plain dictionary."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dmlib import rng
from dmlib.checks import Tensor, integers, require, require_choice, sizes
from dmlib.latent.discrete import VectorQuantizer
from dmlib.latent.hvae import MarkovHVAE
from dmlib.latent.vae import VAE
from dmlib.latent.vqvae import VQVAE
from dmlib.networks.codes import CodeEncoder, CodePrior
from dmlib.networks.convolutional import Classifier, ConvDecoder, ConvEncoder
from dmlib.networks.mlp import GAUSSIAN, MLP, Decoder, GaussianEncoder, TimeMLP, require_levels
from dmlib.networks.unet import UNet
from dmlib.probability import likelihoods


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
    levels, hidden = require_levels(likelihood, levels), integers(hidden, "hidden")
    decoder = Decoder(latent, hidden[::-1], event, likelihood, levels, spread)
    encoder = GaussianEncoder(event, hidden, latent, 2 if likelihood == "bernoulli" else levels)
    return VAE(encoder, decoder, _likelihood(likelihood, levels))


def hvae(
    event: Sequence[int],
    latents: Sequence[int],
    hidden: Sequence[int],
    between: Sequence[int],
    likelihood: str,
    levels: int | None = None,
    spread: str = "shared",
) -> MarkovHVAE:
    """A hierarchy whose lowest level is that of a `vae`; `latents` are the sizes of its levels, the lowest first.

    Between two levels stand two GaussianEncoders, one each way, whose hidden sizes `between` mirror each other.
    """
    latents, between = sizes(latents, "latents"), integers(between, "between")
    base = vae(event, latents[0], hidden, likelihood, levels, spread)
    pairs = list(itertools.pairwise(latents))
    upward = [GaussianEncoder([low], between, high) for low, high in pairs]
    downward = [GaussianEncoder([high], between[::-1], low) for low, high in pairs]
    return MarkovHVAE([base.encoder, *upward], downward, base.decoder, base.likelihood)


def conv_vae(
    channels: int, size: int, latent: int, widths: Sequence[int], likelihood: str, levels: int | None = None
) -> VAE:
    """A VAE of a ConvEncoder and a ConvDecoder, whose Gaussian decoders put out a spread for each pixel.

    `levels` is as for `vae`; "categorical" is not offered.
    """
    levels = require_levels(likelihood, levels)
    require(likelihood != "categorical", "likelihood", repr(likelihood), "one with one or two numbers for each pixel")
    encoder = ConvEncoder(channels, size, widths, latent, 2 if likelihood == "bernoulli" else levels)
    decoder = ConvDecoder(channels, size, widths, latent, 2 if likelihood in GAUSSIAN else 1)
    return VAE(encoder, decoder, _likelihood(likelihood, levels))


def vqvae(
    event: Sequence[int],
    positions: int,
    n_codes: int,
    dim: int,
    hidden: Sequence[int],
    likelihood: str,
    levels: int | None,
    prior_hidden: int = 32,
) -> VQVAE:
    """A VQVAE of levels with a CodeEncoder, a Decoder whose hidden sizes mirror each other, and a CodePrior."""
    levels, hidden = require_levels(likelihood, levels), integers(hidden, "hidden")
    require(levels is not None, "likelihood", repr(likelihood), "one of levels")
    encoder = CodeEncoder(event, hidden, positions, dim, levels)
    decoder = Decoder(positions * dim, hidden[::-1], event, likelihood, levels)
    prior = CodePrior(positions, n_codes, prior_hidden)
    quantizer = VectorQuantizer(n_codes, dim)
    return VQVAE(encoder, quantizer, decoder, _likelihood(likelihood, levels), positions, prior)


def _likelihood(likelihood: str, levels: int | None) -> Callable[..., Tensor]:
    """The likelihood of this name, with its number of levels."""
    options = {"binomial": {"n": (levels or 0) - 1}, "discretized_gaussian": {"levels": levels}}.get(likelihood, {})
    return functools.partial(getattr(likelihoods, likelihood), **options)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "time_mlp": TimeMLP,
    "gaussian_encoder": GaussianEncoder,
    "decoder": Decoder,
    "vae": vae,
    "hvae": hvae,
    "conv_vae": conv_vae,
    "vqvae": vqvae,
    "code_prior": CodePrior,
    "unet": UNet,
    "classifier": Classifier,
}


def build(spec: dict, *, seed: int = 0) -> nn.Module:
    """The network that a plain dictionary describes, its weights drawn from `seed` alone.

    spec["name"] is a key of `MODELS`; the other keys are the arguments of that model. Names and keys that the
    model does not know, and missing ones, raise. The random state of the process stays as it was.
    """
    require(isinstance(spec, dict), "spec", repr(spec), "a dictionary")
    options = dict(spec)
    name = options.pop("name", None)
    require_choice(name, "spec['name']", MODELS)
    parameters = inspect.signature(MODELS[name]).parameters
    needed = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
    ok = needed <= options.keys() <= parameters.keys()
    require(ok, f"the keys of spec for {name!r}", sorted(options), f"{sorted(needed)}, or more of {list(parameters)}")
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng.generator(seed).get_state())
        return MODELS[name](**options)
