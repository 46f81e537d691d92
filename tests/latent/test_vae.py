"""The VAE against exact linear-Gaussian answers, plain torch.distributions, and its own invariances."""

from __future__ import annotations

import copy
import math
from functools import partial
from itertools import pairwise

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Bernoulli, Categorical, Normal

from dmlib.latent.vae import VAE
from dmlib.probability import likelihoods, linear_gaussian
from dmlib.probability.gaussian import Gaussian
from dmlib.probability.linear_gaussian import LinearGaussian

B, D, K = 5, 3, 2


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MODEL = LinearGaussian(normal(1, D, K), normal(2, D), torch.tensor(0.6, dtype=torch.float64))
X = 2 * normal(3, B, D)
ENCODER, OFFSET = 0.4 * normal(4, D, K), torch.tensor([-1.3, 0.2], dtype=torch.float64)


def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = x @ ENCODER + 0.3
    return mean, OFFSET + 0.5 * torch.sin(mean)


def decode(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    mean = z @ MODEL.W.T + MODEL.b
    return mean, MODEL.var.log().expand_as(mean)


def linear_vae(encoder: object = encode) -> VAE:
    return VAE(encoder, decode, likelihoods.gaussian)


def cubature(n: int, latent: int = K) -> torch.Tensor:
    """2K points whose plain mean is the exact expectation of a quadratic under the standard normal."""
    points = math.sqrt(latent) * torch.eye(latent, dtype=torch.float64)
    return torch.cat([points, -points])[:, None, :].expand(-1, n, -1)


class Layer(nn.Module):
    """A small nonlinear network with two outputs."""

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        self.first = nn.Parameter(normal(seed, inputs, outputs))
        self.second = nn.Parameter(0.5 * normal(seed + 1, inputs, outputs))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.to(self.first.dtype)
        return torch.tanh(x @ self.first), torch.sin(x @ self.second) - 1


class Logits(nn.Module):
    """A small nonlinear decoder with one parameter."""

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(normal(seed, inputs, outputs)), nn.Parameter(normal(seed + 1, outputs))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor]:
        return (2 * torch.tanh(z @ self.weight + self.bias),)


def bernoulli_vae() -> VAE:
    return VAE(Layer(D, K, 10), Logits(K, D, 20), likelihoods.bernoulli)


BITS = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1]])


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", ["a", "b"])
def test_expected_bound_is_the_closed_form(estimator: str) -> None:
    mean, log_var = encode(X)
    exact = linear_gaussian.elbo(MODEL, X, Gaussian(mean, log_var.exp()))
    assert_near(linear_vae().elbo(X, cubature(B), estimator), exact)


def test_terms_are_those_of_the_closed_form() -> None:
    mean, log_var = encode(X)
    var = log_var.exp()
    terms = linear_vae().elbo_terms(X, cubature(B))
    prior = 0.5 * (mean.square() + var - 1 - log_var).sum(1)
    assert_near(terms.prior, prior)
    assert_near(terms.reconstruction, linear_gaussian.elbo(MODEL, X, Gaussian(mean, var)) + prior)
    assert terms.transitions.shape == (B, 0)
    noise = normal(5, 3, B, K)
    assert_near(linear_vae().elbo_terms(X, noise).total, linear_vae().elbo(X, noise))


def test_exact_posterior_makes_every_weight_the_evidence() -> None:
    model = LinearGaussian(MODEL.W[:, :1], MODEL.b, MODEL.var)
    mean, cov = linear_gaussian.posterior(model, X)

    def exact(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return mean, cov.log().expand_as(mean)

    vae = VAE(exact, lambda z: (z @ model.W.T + model.b, model.var.log()), likelihoods.gaussian)
    noise, evidence = normal(6, 7, B, 1), linear_gaussian.log_evidence(model, X)
    assert_near(vae.log_weights(X, noise), evidence.expand(7, B))
    assert_near(vae.elbo(X, noise, "a"), evidence)
    assert_near(vae.iwae(X, noise), evidence)


def test_gradient_of_the_expected_bound_is_that_of_the_closed_form() -> None:
    weights = ENCODER.clone().requires_grad_()
    log_var = OFFSET.clone().requires_grad_()

    def encoder(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x @ weights, log_var.expand(len(x), -1)

    exact = linear_gaussian.elbo(MODEL, X, Gaussian(encoder(X)[0], encoder(X)[1].exp())).sum()
    expected = torch.autograd.grad(exact, (weights, log_var))
    for estimator in ("a", "b"):
        bound = linear_vae(encoder).elbo(X, cubature(B), estimator).sum()
        for actual, wanted in zip(torch.autograd.grad(bound, (weights, log_var)), expected):
            assert_near(actual, wanted)


def test_log_weights_are_those_of_torch_distributions_one_by_one() -> None:
    vae, noise = bernoulli_vae(), normal(7, 6, 4, K)
    expected = torch.empty(6, 4, dtype=torch.float64)
    mean, log_var = vae.encoder(BITS)
    for s in range(6):
        for b in range(4):
            q = Normal(mean[b], torch.exp(log_var[b] / 2))
            z = q.loc + q.scale * noise[s, b]
            pixels = Bernoulli(logits=vae.decoder(z)[0]).log_prob(BITS[b].double()).sum()
            expected[s, b] = pixels + Normal(0.0, 1.0).log_prob(z).sum() - q.log_prob(z).sum()
    assert_near(vae.log_weights(BITS, noise), expected)
    assert_near(vae.elbo(BITS, noise, "a"), expected.mean(0))
    assert_near(vae.iwae(BITS, noise), expected.exp().mean(0).log())


def test_categorical_images_keep_their_shape() -> None:
    levels, V = torch.randint(3, (4, 1, 2, 2), generator=generator(8)), 3
    network = Logits(K, 4 * V, 30)

    def decoder(z: torch.Tensor) -> tuple[torch.Tensor]:
        return (network(z)[0].view(-1, 1, 2, 2, V),)

    vae = VAE(lambda x: (ENCODED, -ENCODED.abs()), decoder, likelihoods.categorical)
    noise = normal(9, 5, 4, K)
    z = ENCODED + torch.exp(-ENCODED.abs() / 2) * noise
    pixels = Categorical(logits=network(z)[0].view(5, 4, 4, V)).log_prob(levels.view(4, 4))
    assert_near(vae.elbo_terms(levels, noise).reconstruction, pixels.sum(-1).mean(0))


ENCODED = normal(40, 4, K)


def test_both_estimators_have_one_expectation() -> None:
    vae, n = bernoulli_vae(), 300
    (noise,) = vae.draw(BITS, generator=generator(11), samples=n)
    with torch.no_grad():
        a = torch.stack([vae.elbo(BITS, e[None], "a") for e in noise])  # one sample each
        b = torch.stack([vae.elbo(BITS, e[None], "b") for e in noise])
        assert_near(vae.elbo(BITS, noise, "a"), a.mean(0))
        assert_near(vae.elbo(BITS, noise, "b"), b.mean(0))
    gap = a - b
    assert (gap.mean(0).abs() <= 4.5 * gap.std(0) / math.sqrt(n)).all()
    assert (gap.std(0) > 0.1).all()  # they do differ draw by draw


def test_importance_weighted_bound_grows_towards_the_evidence() -> None:
    vae, repeats, most = linear_vae(), 3000, 16
    noise = normal(12, repeats * most, B, K)
    log_w = vae.log_weights(X, noise).view(repeats, most, B)
    bounds = [vae.iwae(X, noise[i : i + 1]) for i in range(3)]
    assert_near(torch.stack(bounds), log_w.flatten(0, 1)[:3])
    evidence = linear_gaussian.log_evidence(MODEL, X)
    rungs = [log_w[:, :s].exp().mean(1).log() for s in (1, 4, 16)] + [evidence.expand(repeats, B)]
    for lower, upper in pairwise(rungs):
        gain = upper - lower
        assert (gain.mean(0) / (gain.std(0) / math.sqrt(repeats)) > 4.5).all()
    assert_near(vae.iwae(X, noise[:most]), rungs[2][0])


def test_gradient_reaches_encoder_and_decoder() -> None:
    vae = bernoulli_vae()
    noise = normal(13, 3, 4, K)
    for bound in (vae.elbo(BITS, noise), vae.elbo(BITS, noise, "a"), vae.iwae(BITS, noise)):
        for gradient in torch.autograd.grad(bound.sum(), list(vae.parameters())):
            assert torch.isfinite(gradient).all()
            assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_gradient_is_that_of_finite_differences(bound: str) -> None:
    vae, noise = bernoulli_vae(), normal(14, 2, 4, K)

    def value(*parameters: torch.Tensor) -> torch.Tensor:
        named = dict(zip((name for name, _ in vae.named_parameters()), parameters))
        return torch.func.functional_call(Bound(vae, bound), {f"vae.{k}": v for k, v in named.items()}, (BITS, noise))

    assert torch.autograd.gradcheck(value, tuple(p.detach().clone().requires_grad_() for p in vae.parameters()))


class Bound(nn.Module):
    def __init__(self, vae: VAE, name: str) -> None:
        super().__init__()
        self.vae, self.name = vae, name

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return getattr(self.vae, self.name)(x, noise)


def test_draw_is_standard_normal_in_the_codes_dtype_without_gradient() -> None:
    vae = linear_vae()
    (noise,) = vae.draw(X, generator=generator(15), samples=3)
    assert torch.equal(noise, torch.randn(3, B, K, generator=generator(15), dtype=torch.float64))
    assert not noise.requires_grad
    (single,) = vae.float().draw(X, generator=generator(15))
    assert single.shape == (1, B, K)
    assert single.dtype == torch.float32  # the module's own dtype once it was cast


class Wide(nn.Module):
    """An encoder that says its latent_dim and counts its calls."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim, self.calls, self.layer = latent_dim, 0, Layer(D, latent_dim, 50)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return self.layer(x)


def test_an_encoder_with_latent_dim_need_not_run_to_draw_or_sample() -> None:
    vae = VAE(Wide(K), Logits(K, D, 20), likelihoods.bernoulli)
    assert vae.draw(BITS, generator=generator(16), samples=2)[0].dtype == torch.float64
    for n in (1, 3):
        assert vae.sample(n, generator=generator(16)).shape == (n, D)
    assert vae.encoder.calls == 0
    assert vae.elbo(BITS, *vae.draw(BITS, generator=generator(16))).shape == (4,)


def test_what_was_seen_is_no_part_of_the_weights() -> None:
    seen, fresh = bernoulli_vae(), bernoulli_vae()
    seen.q(BITS)
    fresh.load_state_dict(seen.state_dict())
    assert seen.state_dict().keys() == fresh.state_dict().keys() == dict(seen.named_parameters()).keys()
    twin = copy.deepcopy(seen)
    assert torch.equal(twin.sample(2, generator=generator(17)), seen.sample(2, generator=generator(17)))


def test_samples_have_the_moments_of_the_model() -> None:
    vae, n = linear_vae(), 20_000
    vae.q(X)
    x = vae.sample(n, generator=generator(18))
    means = vae.sample(n, generator=generator(19), mean=True)
    signal = MODEL.W @ MODEL.W.T
    for draws, cov in ((x, signal + MODEL.var * torch.eye(D, dtype=torch.float64)), (means, signal)):
        centered = draws - MODEL.b
        outer = centered[:, :, None] * centered[:, None, :]
        assert (centered.mean(0).abs() <= 4.5 * centered.std(0) / math.sqrt(n)).all()
        assert ((outer.mean(0) - cov).abs() <= 4.5 * outer.std(0) / math.sqrt(n)).all()


def test_mean_and_sample_share_their_codes() -> None:
    vae = VAE(Wide(K), lambda z: (z,), likelihoods.bernoulli)
    z = torch.randn(4, K, generator=generator(20), dtype=torch.float64)
    assert_near(vae.sample(4, generator=generator(20), mean=True), torch.sigmoid(z))
    g = generator(20)
    torch.randn(4, K, generator=g, dtype=torch.float64)
    assert torch.equal(vae.sample(4, generator=generator(20)), torch.bernoulli(torch.sigmoid(z), generator=g).long())


def test_sample_serves_a_partial_likelihood() -> None:
    vae = VAE(Wide(K), Logits(K, D, 20), partial(likelihoods.binomial, n=16))
    levels = torch.tensor([[0, 16, 3]])
    assert vae.elbo(levels, *vae.draw(levels, generator=generator(21))).shape == (1,)
    x = vae.sample(200, generator=generator(21))
    assert x.dtype == torch.int64
    assert 0 <= x.min() < 8 < x.max() <= 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, e: v.elbo(X, e, "c"), "estimator was 'c'; it must be one of a, b"),
        (lambda v, e: v.elbo(X, e, ""), "estimator was ''; it must be one of a, b"),
        (lambda v, e: v.elbo(X, e[0]), r"the shape of noise was \(5, 2\); it must be \(any, 5, 2\)"),
        (lambda v, e: v.elbo(X, e[:, :1]), r"the shape of noise was \(4, 1, 2\); it must be \(any, 5, 2\)"),
        (lambda v, e: v.elbo(X, e[:, :, :1]), r"the shape of noise was \(4, 5, 1\); it must be \(any, 5, 2\)"),
        (lambda v, e: v.elbo(X, e[:0]), "the number of samples of noise was 0; it must be at least 1"),
        (lambda v, e: v.elbo(X, e.float()), "the dtype of noise was torch.float32; it must be torch.float64"),
        (lambda v, e: v.iwae(X, e.long()), "the dtype of noise was torch.int64; it must be a floating-point dtype"),
        (lambda v, e: v.iwae(X, e * math.nan), "noise was nan; it must be finite"),
        (lambda v, e: v.elbo(X * math.inf, e), "the encoder's mean was -?(nan|inf); it must be finite"),
        (lambda v, e: v.draw(X, generator=generator(0), samples=0), "samples was 0; it must be an integer, 1 or more"),
        (lambda v, e: v.sample(0, generator=generator(0)), "n was 0; it must be an integer, 1 or more"),
        (lambda v, e: v.sample(2, generator=generator(0)), "the latent dimension was unknown; it must be"),
        (
            lambda v, e: VAE(encode, lambda z: decode(z)[0], likelihoods.gaussian).elbo(X, e),
            "the decoder's output was Tensor; it must be a tuple of tensors",
        ),
        (
            lambda v, e: VAE(encode, decode, lambda m, s, x: (m - x).square()).elbo(X, e),
            r"the shape of the log-likelihood was \(20, 3\); it must be \(20\)",
        ),
        (
            lambda v, e: VAE(lambda x: (x, x[:, :1]), decode, likelihoods.gaussian).q(X),
            r"the shape of the encoder's log-variance was \(5, 1\); it must be \(5, 3\)",
        ),
        (
            lambda v, e: VAE(lambda x: (x[None], x[None]), decode, likelihoods.gaussian).q(X),
            r"the shape of the encoder's mean was \(1, 5, 3\); it must be \(5, any\)",
        ),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(linear_vae(), cubature(B))


def test_sample_refuses_a_likelihood_it_does_not_know() -> None:
    vae = VAE(Wide(K), Logits(K, D, 20), lambda logits, x: likelihoods.bernoulli(logits, x))
    with pytest.raises(ValueError, match=r"likelihood was <lambda>; it must be one of bernoulli, binomial"):
        vae.sample(2, generator=generator(0))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=0, max_size=4))
def test_only_noise_of_the_right_shape_is_taken(shape: list[int]) -> None:
    vae, good = linear_vae(), len(shape) == 3 and shape[0] > 0 and shape[1:] == [B, K]
    noise = torch.zeros(shape, dtype=torch.float64)
    refused = 0
    for bound in (vae.elbo, vae.iwae, vae.log_weights, vae.elbo_terms):
        try:
            bound(X, noise)
        except ValueError:
            refused += 1
    assert refused == (0 if good else 4)


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_the_loss_compiles_into_one_graph(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the compiler cannot trace its checks
    torch.compiler.reset()
    module = Bound(VAE(Wide(K), Logits(K, D, 20), likelihoods.bernoulli), bound)
    noise = normal(22, 3, 4, K)
    compiled = torch.compile(module, fullgraph=True, backend="eager")(BITS, noise)
    np.testing.assert_allclose(compiled.detach(), module(BITS, noise).detach(), rtol=1e-12)


@pytest.mark.parametrize("estimator", ["a", "b"])
@pytest.mark.parametrize("log_var", [-1e4, -200.0, -104.0, -90.0, -60.0])
def test_a_sharp_encoder_has_a_finite_bound_and_slope(log_var: float, estimator: str) -> None:
    """Half of the number of images by each log-variance: the KL's slope, (exp(l) - 1) / 2, at l far below 0."""
    offset = torch.full((K,), log_var, requires_grad=True)
    model = linear_vae(lambda x: (x @ ENCODER.float(), offset.expand(len(x), K)))
    model.decoder = lambda z: (z @ MODEL.W.T.float(), torch.zeros(D).expand(len(z), D))
    x, noise = X[:4].float(), normal(60, 1, 4, K).float()
    bound = model.elbo(x, noise, estimator)
    (slope,) = torch.autograd.grad(bound.sum(), offset)
    torch.testing.assert_close(slope, torch.full((K,), 2.0), rtol=1e-6, atol=1e-6)
    code = x @ ENCODER.float()
    log_lik = likelihoods.gaussian(code @ MODEL.W.T.float(), torch.zeros(()), x)
    entropy = (1 + log_var) / 2 if estimator == "b" else (noise[0] ** 2 + log_var) / 2
    log_ratio = (entropy - code**2 / 2).sum(1)
    torch.testing.assert_close(bound.detach(), log_lik + log_ratio, rtol=1e-6, atol=1e-5)


def test_noise_on_another_device_is_named() -> None:
    with pytest.raises(ValueError, match=r"the device of noise was meta; it must be cpu, that of the encoder's mean"):
        linear_vae().elbo(X, torch.zeros(1, B, K, dtype=torch.float64, device="meta"))


def test_the_width_of_the_codes_is_kept_without_any_code() -> None:
    said = nn.Linear(3, 4)
    said.latent_dim = 2
    assert VAE(said, said, likelihoods.gaussian)._no_codes.shape == (0, 2)
    unsaid = linear_vae()
    assert unsaid._no_codes is None
    unsaid.q(X)
    assert unsaid._no_codes.shape == (0, K)
