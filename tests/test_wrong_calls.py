"""A wrong argument is named in one line of three parts, whatever the room; NumPy's integers are integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from dmlib import metrics, networks, rng
from dmlib.data import toys
from dmlib.diffusion import bounds, forward, parameterization, sampling, schedule, score, variances
from dmlib.latent import autoencoders, discrete
from dmlib.latent.hvae import information
from dmlib.probability import elbo, gaussian, likelihoods, linear_gaussian, mixture, multivariate

NOISE = schedule.linear(6, 0.05, 0.5)
X, T = torch.linspace(-1, 1, 12).view(4, 3), torch.tensor([1, 2, 3, 6])
V, LEVELS, IMAGES = X**2 + 0.5, torch.arange(12).view(4, 3) % 4, torch.zeros(4, 1, 8, 8)
P = gaussian.Gaussian(X, V)
LINEAR = linear_gaussian.LinearGaussian(X[:3, :2], X[0], torch.tensor(0.5))
PAIR = parameterization.SignalNoise(V[:, 0], V[:, 1])
MIXTURE, MVN = mixture.empirical(X), multivariate.MVN(X[0], torch.eye(3))
MLP, VAE = networks.MLP([3, 5, 2]), networks.vae([3], 2, [4], "gaussian")
HVAE = networks.hvae([3], [2, 1], [4], [4], "gaussian")
UNET, TIME_MLP = networks.UNet(1, 8, 2, [8]), networks.TimeMLP(3, 8, 1)
CODER = networks.ConvEncoder(1, 8, [8], 2), networks.ConvDecoder(1, 8, [8], 3)
DRAWS = torch.Generator()
CHOICES, BOOK, CODES = V.view(1, 4, 3) / 2, discrete.VectorQuantizer(5, 3), torch.tensor([[0, 1], [2, 2]])


def denoise(x_t: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x_t


def decode(x_0: Tensor, x_1: Tensor) -> Tensor:
    return -(x_0 - x_1).square().sum(1)


CALLS: dict[str, tuple[Callable, dict[str, object]]] = {  # each with arguments that are right
    "kl": (gaussian.kl, {"p": P, "q": P}),
    "log_prob": (gaussian.log_prob, {"p": P, "x": X}),
    "from_log_var": (gaussian.from_log_var, {"mean": X, "log_var": X}),
    "sample": (gaussian.sample, {"p": P, "generator": DRAWS}),
    "iwae": (elbo.iwae, {"log_w": X}),
    "sgvb_b": (elbo.sgvb_b, {"log_lik": X, "kl": X[0]}),
    "binomial": (likelihoods.binomial, {"logits": X, "counts": LEVELS, "n": 3}),
    "discretized": (likelihoods.discretized_gaussian, {"mean": X, "log_scale": X, "x_levels": LEVELS, "levels": 4}),
    "to_unit": (likelihoods.to_unit, {"x_levels": LEVELS, "levels": 4}),
    "LinearGaussian": (linear_gaussian.LinearGaussian, {"W": X[:3, :2], "b": X[0], "var": torch.tensor(0.5)}),
    "gap": (linear_gaussian.gap, {"m": LINEAR, "x": X, "q": gaussian.Gaussian(X[:, :2], V[:, :2])}),
    "linear sample": (linear_gaussian.sample, {"m": LINEAR, "n": 3, "generator": DRAWS}),
    "posterior_mean": (mixture.posterior_mean, {"m": MIXTURE, "x_t": X, "alpha_bar_t": 0.5}),
    "mixture sample": (mixture.sample, {"m": MIXTURE, "n": 3, "generator": DRAWS}),
    "condition": (multivariate.condition, {"p": MVN, "dims": [1], "values": X[:, :1]}),
    "affine": (multivariate.affine, {"p": MVN, "A": X[:2], "b": X[0, :2], "noise_cov": torch.eye(2)}),
    "vae draw": (VAE.draw, {"x": X, "generator": DRAWS, "samples": 2}),
    "vae elbo": (VAE.elbo, {"x": X, "noise": torch.zeros(1, 4, 2), "estimator": "a"}),
    "vae sample": (VAE.sample, {"n": 2, "generator": DRAWS}),
    "hvae draw": (HVAE.draw, {"x": X, "generator": DRAWS, "samples": 2}),
    "hvae sample": (HVAE.sample, {"n": 2, "generator": DRAWS}),
    "hvae below": (HVAE.sample_below, {"z": X[:, :1], "level": 2, "generator": DRAWS}),
    "information": (information, {"q": gaussian.Gaussian(X, V), "z": X, "rows": 2}),
    "squared_error": (autoencoders.squared_error, {"x_hat": X, "x": X}),
    "corrupt": (autoencoders.corrupt, {"x": X, "noise_std": 0.5, "generator": DRAWS}),
    "kl_sparsity": (autoencoders.kl_sparsity, {"h": V / 2, "rho": 0.1}),
    "top_k": (autoencoders.top_k, {"z": X, "k": 2}),
    "contractive": (autoencoders.contractive_penalty, {"encoder": MLP, "x": X}),
    "straight_through": (discrete.straight_through, {"hard": X, "soft": X}),
    "gumbel": (discrete.gumbel, {"uniform": V / 2}),
    "gumbel_softmax": (discrete.gumbel_softmax, {"logits": CHOICES, "uniform": CHOICES, "tau": 0.5}),
    "kl_to_uniform": (discrete.kl_to_uniform, {"logits": CHOICES}),
    "score_function": (discrete.score_function, {"losses": X, "log_probs": X, "baseline": X[0]}),
    "leave_one_out": (discrete.leave_one_out, {"losses": X, "log_probs": X}),
    "quantize": (BOOK.forward, {"z_e": X[None]}),
    "restart": (BOOK.restart, {"z_e": X[None], "generator": DRAWS}),
    "VectorQuantizer": (discrete.VectorQuantizer, {"n_codes": 5, "dim": 3}),
    "perplexity": (discrete.perplexity, {"idx": CODES, "n_codes": 3}),
    "CodePrior": (networks.CodePrior, {"positions": 2, "n_codes": 3, "hidden": 4, "dim": 2}),
    "code prior": (networks.CodePrior(2, 3).forward, {"idx": CODES}),
    "code encoder": (networks.CodeEncoder([3], [4], 2, 3, 4).forward, {"x": LEVELS}),
    "q_transition": (forward.q_transition, {"schedule": NOISE, "x_s": X, "s": T - 1, "t": T}),
    "q_sample": (forward.q_sample, {"schedule": NOISE, "x_0": X, "t": T, "noise": X}),
    "reverse_step": (bounds.reverse_step, {"schedule": NOISE, "x_0_hat": X, "x_t": X, "t": T, "variance": "beta"}),
    "draw": (bounds.draw, {"x_0": X, "schedule": NOISE, "generator": DRAWS}),
    "elbo_loss": (
        bounds.elbo_loss,
        {"denoiser": denoise, "x_0": X, "t": T, "noise": X, "schedule": NOISE, "decoder": decode},
    ),
    "rounding_decoder": (bounds.rounding_decoder, {"schedule": NOISE, "levels": 4}),
    "target": (
        parameterization.target,
        {"kind": "mean", "x_0": X, "noise": X, "alpha_bar_t": 0.5, "alpha_bar_s": 0.7},
    ),
    "SignalNoise": (parameterization.SignalNoise, {"signal": V[:, 0], "noise": V[:, 1]}),
    "pair state": (PAIR.state, {"x_0": X, "eps": X}),
    "pair target": (PAIR.target, {"kind": "v", "x_0": X, "eps": X}),
    "pair convert": (PAIR.convert, {"pred": X, "x": X, "src": "v", "dst": "score"}),
    "simple_loss": (
        bounds.simple_loss,
        {"network": denoise, "x_0": X, "t": T, "noise": X, "schedule": NOISE, "kind": "v"},
    ),
    "ddim": (
        sampling.ddim,
        {"denoiser": denoise, "schedule": NOISE, "x_T": X, "times": [6, 3, 0], "eta": 0.5, "generator": DRAWS},
    ),
    "heun": (sampling.heun, {"denoiser": denoise, "schedule": NOISE, "x_T": X, "times": [6, 3, 0]}),
    "flow": (score.probability_flow, {"score": denoise, "schedule": NOISE, "x_T": X, "times": [6, 3, 0]}),
    "ddim_inverse": (sampling.ddim_inverse, {"denoiser": denoise, "schedule": NOISE, "x_0": X, "times": [0, 3, 6]}),
    "optimal_variance": (
        bounds.optimal_variance,
        {"denoiser": denoise, "schedule": NOISE, "data": X, "generator": DRAWS},
    ),
    "linear": (schedule.linear, {"T": 6, "beta_1": 0.1, "beta_T": 0.2}),
    "cosine": (schedule.cosine, {"T": 6, "s": 0.1, "max_beta": 0.9}),
    "best_variance": (variances.best_variance, {"schedule": NOISE, "errors": V.repeat(1, 2), "event_dims": 3}),
    "independent_pixels": (metrics.independent_pixels, {"train": LEVELS, "test": LEVELS, "levels": 4}),
    "mixture_of_products": (
        metrics.mixture_of_products,
        {"train": LEVELS, "validation": LEVELS, "test": LEVELS, "levels": 4, "sizes": [1, 2], "generator": DRAWS},
    ),
    "bits_per_dim": (metrics.bits_per_dim, {"log_prob": X[:, 0], "event_dims": 3}),
    "precision_recall": (metrics.precision_recall, {"real": X, "fake": X, "k": 2}),
    "sliced": (metrics.sliced_wasserstein, {"x": X, "y": X, "generator": DRAWS, "projections": 4}),
    "MLP": (networks.MLP, {"sizes": [3, 4], "activation": "silu"}),
    "UNet": (networks.UNet, {"channels": 1, "size": 8, "patch": 2, "widths": [8], "blocks": 1}),
    "Decoder": (networks.Decoder, {"latent": 2, "hidden": [4], "event": [3], "likelihood": "binomial", "levels": 4}),
    "ConvEncoder": (networks.ConvEncoder, {"channels": 1, "size": 8, "widths": [8], "latent": 2, "levels": 4}),
    "mlp": (MLP.forward, {"x": X}),
    "vae decoder": (VAE.decoder.forward, {"z": X[:, :2]}),
    "unet": (lambda x_t, t: UNET(x_t, t), {"x_t": IMAGES, "t": T}),
    "time_mlp": (lambda x_t, t: TIME_MLP(x_t, t), {"x_t": X, "t": T}),
    "coder": (lambda x: CODER[0](x), {"x": IMAGES}),
    "conv_decoder": (lambda z: CODER[1](z), {"z": X}),
    "rng": (rng.generator, {"seed": 0}),
    "toys": (toys.two_moons, {"n": 5, "generator": DRAWS}),
}
ALWAYS_WRONG = ([1.0, "a"], {}, "abc", object(), np.ones((4, 3)), math.nan, torch.zeros(2, 5, dtype=torch.complex64))


def wrong(right: object) -> Iterator[object]:
    """What may not stand where `right` does."""
    yield from ALWAYS_WRONG
    if isinstance(right, Tensor):
        yield from (None, right.tolist(), right.numpy(), right.to("meta"), right.to(torch.complex64))
        yield right.double() if right.is_floating_point() else right.double() + 0.5
    if isinstance(right, gaussian.Gaussian):
        yield from (None, right.mean, gaussian.Gaussian(right.mean.tolist(), None), tuple(right))
        yield gaussian.Gaussian(*(v.to("meta") for v in right))
    if isinstance(right, int):
        yield from (right + 0.5, float(right), str(right), True, -1)
    if isinstance(right, list):
        yield from ([float(n) for n in right], [None], 5)
    if callable(right):
        yield from (lambda *_: None, lambda *_: X.double(), lambda *_: X.to("meta"), lambda *_: [1.0])


@pytest.fixture(autouse=True)
def _without_the_annotations_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as they are for a user


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, (_, right) in CALLS.items() for key in right])
def test_a_wrong_argument_is_named(name: str, key: str) -> None:
    call, right = CALLS[name]
    call(**right)
    with pytest.raises(ValueError, match="; it must be "):
        call(**right | {key: object()})
    unnamed = []
    for bad in wrong(right[key]):
        try:
            call(**right | {key: bad})
        except ValueError as error:
            if "; it must be " not in str(error) and "; they must be " not in str(error):
                unnamed.append((bad, error))
        except Exception as error:
            unnamed.append((bad, error))
    assert unnamed == []


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("name", CALLS)
def test_an_integer_of_numpy_is_an_integer(name: str, kind: type) -> None:
    call, right = CALLS[name]
    call(**{key: kind(value) if isinstance(value, int) else value for key, value in right.items()})
    call(**{key: np.array(value, dtype=kind) if isinstance(value, list) else value for key, value in right.items()})


@pytest.mark.parametrize("bad", [5.9, True, "5", None, np.float64(5), math.nan])
def test_no_time_and_no_dimension_is_rounded(bad: object) -> None:
    for values in ([bad, 0], np.array([5.9, 0.9])):
        with pytest.raises(ValueError, match=r"an entry of times was .*; it must be an integer"):
            sampling.ddim(denoise, NOISE, X, times=values)
        with pytest.raises(ValueError, match=r"an entry of dims was .*; it must be an integer"):
            multivariate.marginal(MVN, values)
    for law in (partial(likelihoods.binomial, n=bad), partial(likelihoods.discretized_gaussian, levels=bad)):
        with pytest.raises(ValueError, match=r"(n|levels) was .*; it must be an integer"):
            likelihoods.mean(law, *[X] * (1 + (law.func is likelihoods.discretized_gaussian)))


@pytest.mark.parametrize("network", [MLP, UNET, TIME_MLP, *CODER, VAE.encoder, VAE.decoder])
def test_a_batch_of_another_dtype_or_device_than_the_networks_is_named(network: torch.nn.Module) -> None:
    size = {UNET: IMAGES, CODER[0]: IMAGES, VAE.decoder: X[:, :2]}.get(network, X)
    rest = (T,) if network in (UNET, TIME_MLP) else ()
    with pytest.raises(
        ValueError, match=r"the dtype of (x|x_t|z) was torch.float64; it must be torch.float32, that of the"
    ):
        network(size.double(), *rest)
    with pytest.raises(ValueError, match=r"the device of (x|x_t|z) was meta; it must be cpu, that of the network"):
        network(size.to("meta"), *rest)
    with torch.autocast("cpu", torch.bfloat16):
        network(size.bfloat16(), *rest)
