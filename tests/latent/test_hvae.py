"""The hierarchy against the VAE, plain torch.distributions, enumeration by quadrature, and linear-Gaussian truth."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from dmlib.latent.hvae import MarkovHVAE, information
from dmlib.latent.vae import VAE
from dmlib.probability import gaussian, likelihoods, linear_gaussian, multivariate
from dmlib.probability.gaussian import Gaussian
from dmlib.probability.linear_gaussian import LinearChain

B, D, WIDTHS = 4, 3, (2, 3, 1)
BITS = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1]])


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Map(nn.Module):
    """A small nonlinear map to a mean and a log-variance."""

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        self.first = nn.Parameter(normal(seed, inputs, outputs))
        self.second = nn.Parameter(0.5 * normal(seed + 1, inputs, outputs))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.to(self.first.dtype)
        return torch.tanh(x @ self.first), torch.sin(x @ self.second) - 0.7


WEIGHT = normal(90, WIDTHS[0], D)


def logits(z: torch.Tensor) -> tuple[torch.Tensor]:
    return (2 * torch.tanh(z.to(WEIGHT.dtype) @ WEIGHT),)


def hierarchy(levels: int) -> MarkovHVAE:
    sizes = (D, *WIDTHS)
    up = [Map(sizes[i], sizes[i + 1], 10 * i) for i in range(levels)]
    down = [Map(sizes[i + 2], sizes[i + 1], 10 * i + 5) for i in range(levels - 1)]
    return MarkovHVAE(up, down, logits, likelihoods.bernoulli)


def noises(levels: int, samples: int, seed: int = 50) -> list[torch.Tensor]:
    return [normal(seed + i, samples, B, WIDTHS[i]) for i in range(levels)]


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_with_one_level_it_is_the_vae() -> None:
    one = hierarchy(1)
    vae = VAE(one.encoder, logits, likelihoods.bernoulli)
    (noise,) = vae.draw(BITS, generator=generator(1), samples=3)
    (ours,) = one.draw(BITS, generator=generator(1), samples=3)
    assert len(ours) == 1
    assert torch.equal(ours[0], noise)
    assert_near(one.log_weights(BITS, ours), vae.log_weights(BITS, noise))
    for kind in ("a", "b"):
        assert_near(one.elbo(BITS, ours, kind), vae.elbo(BITS, noise, kind))
    assert_near(one.iwae(BITS, ours), vae.iwae(BITS, noise))
    for actual, expected in zip(one.elbo_terms(BITS, ours), vae.elbo_terms(BITS, noise)):
        assert_near(actual, expected)
    assert torch.equal(one.sample(9, generator=generator(2)), vae.sample(9, generator=generator(2)))
    assert_near(one.sample(9, generator=generator(2), mean=True), vae.sample(9, generator=generator(2), mean=True))
    assert one.state_dict().keys() == {"encoder.first", "encoder.second"}


@pytest.mark.parametrize("levels", [2, 3])
@torch.no_grad()
def test_log_weights_and_terms_are_those_of_torch_distributions_one_by_one(levels: int) -> None:
    model, noise, samples = hierarchy(levels), noises(levels, 5), 5
    log_w, fit = (torch.empty(samples, B, dtype=torch.float64) for _ in range(2))
    costs = torch.zeros(samples, B, levels, dtype=torch.float64)
    for s in range(samples):
        for b in range(B):
            below, chain, qs = BITS[b], [], []
            for i, up in enumerate([model.encoder, *model.upward]):
                mean, log_var = up(below)
                qs.append(Normal(mean, torch.exp(log_var / 2)))
                below = mean + torch.exp(log_var / 2) * noise[i][s, b]
                chain.append(below)
            fit[s, b] = Bernoulli(logits=logits(chain[0])[0]).log_prob(BITS[b].double()).sum()
            log_w[s, b] = fit[s, b]
            for i, (z, q) in enumerate(zip(chain, qs)):
                if i + 1 < levels:
                    mean, log_var = model.downward[i](chain[i + 1])
                    p = Normal(mean, torch.exp(log_var / 2))
                    costs[s, b, i] = -q.entropy().sum() - p.log_prob(z).sum()
                else:
                    p = Normal(torch.zeros_like(z), torch.ones_like(z))
                    costs[s, b, i] = kl_divergence(q, p).sum()
                log_w[s, b] += p.log_prob(z).sum() - q.log_prob(z).sum()
    assert_near(model.log_weights(BITS, noise), log_w)
    terms = model.elbo_terms(BITS, noise)
    assert_near(terms.reconstruction, fit.mean(0))
    assert_near(terms.transitions, costs.mean(0)[:, :-1])
    assert_near(terms.prior, costs.mean(0)[:, -1])
    assert_near(model.elbo(BITS, noise), (fit - costs.sum(2)).mean(0))
    assert_near(model.elbo(BITS, noise, "a"), log_w.mean(0))
    assert_near(model.iwae(BITS, noise), log_w.exp().mean(0).log())


def test_both_estimators_have_one_expectation() -> None:
    model, noise = hierarchy(3), noises(3, 4000)
    a = model.log_weights(BITS, noise)
    b = torch.stack([model.elbo(BITS, [e[s : s + 1] for e in noise]) for s in range(400)])
    assert ((a[:400] - b).std(0) > 0.1).all()  # they do differ draw by draw
    apart = a.mean(0) - b.mean(0)
    assert (apart.abs() <= 4.5 * (a.var(0) / 4000 + b.var(0) / 400).sqrt()).all()


def chain() -> LinearChain:
    return LinearChain(0.6 * normal(70, 2, 1, 1).sign(), normal(71, 2, 1), torch.tensor([0.5, 0.3]).double())


def exact(x: torch.Tensor) -> MarkovHVAE:
    """The chain z_2 -> z_1 -> x with one number each, and the encoder that is its posterior."""
    m = chain()
    mean, cov = linear_gaussian.posterior(m, x)
    pair = multivariate.joint(
        multivariate.MVN(torch.zeros(1).double(), torch.eye(1).double()),
        m.A[0], m.b[0], m.var[0] * torch.eye(1).double(),
    )  # fmt: skip

    def cause(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        at, given = multivariate.condition(pair, [1], z)
        return at, given.log().expand_as(at)

    return MarkovHVAE(
        [lambda x: (mean[:, 1:], cov[1, 1].log().expand(len(x), 1)), cause],
        [lambda z: (z @ m.A[0].T + m.b[0], m.var[0].log().expand_as(z))],
        lambda z: (z @ m.A[1].T + m.b[1], m.var[1].log()),
        likelihoods.gaussian,
    )


def test_the_exact_posterior_makes_every_weight_the_evidence() -> None:
    x = 2 * normal(72, 5, 1)
    model, log_p = exact(x), linear_gaussian.log_evidence(chain(), x)
    (noise,) = model.draw(x, generator=generator(3), samples=6)
    assert [e.shape for e in noise] == [(6, 5, 1), (6, 5, 1)]
    assert_near(model.log_weights(x, noise), log_p.expand(6, 5))
    assert_near(model.iwae(x, noise), log_p)


def test_samples_have_the_moments_of_the_chain() -> None:
    m, n = chain(), 40_000
    model = exact(normal(73, 2, 1))
    with pytest.raises(ValueError, match="the latent dimension was unknown; it must be each inference map's"):
        model.sample(2, generator=generator(4))
    model.draw(normal(73, 2, 1), generator=generator(4))
    x = model.sample(n, generator=generator(5))
    spread = m.A[1, 0, 0] ** 2 * (m.A[0, 0, 0] ** 2 + m.var[0]) + m.var[1]
    center = m.A[1, 0, 0] * m.b[0, 0] + m.b[1, 0]
    assert abs(x.mean() - center) < 4.5 * (spread / n) ** 0.5
    assert abs(x.var() / spread - 1) < 4.5 * (2 / n) ** 0.5
    means = model.sample(n, generator=generator(5), mean=True)
    assert abs(means.var() / (spread - m.var[1]) - 1) < 4.5 * (2 / n) ** 0.5


def test_below_a_level_everything_else_is_drawn_anew() -> None:
    m, n = chain(), 40_000
    model = exact(normal(73, 1, 1))
    top = torch.full((n, 1), 1.5, dtype=torch.float64)
    for level, mean, var in (
        (1, 1.5 * m.A[1, 0, 0] + m.b[1, 0], m.var[1]),
        (2, m.A[1, 0, 0] * (1.5 * m.A[0, 0, 0] + m.b[0, 0]) + m.b[1, 0], m.var[1] + m.A[1, 0, 0] ** 2 * m.var[0]),
    ):
        x = model.sample_below(top, level, generator=generator(6))
        assert abs(x.mean() - mean) < 4.5 * (var / n) ** 0.5
        assert abs(x.var() / var - 1) < 4.5 * (2 / n) ** 0.5
    assert torch.equal(model.sample_below(top, generator=generator(6)), x)  # The top, if no level is named.
    fixed = model.sample_below(top[:3], 1, generator=generator(6), mean=True)
    assert_near(fixed, (1.5 * m.A[1, 0, 0] + m.b[1, 0]).expand(3, 1))


def test_levels_name_the_two_gaussians_that_meet() -> None:
    model, noise = hierarchy(2), noises(2, 3)
    log_lik, (low, top) = model.levels(BITS, noise)
    q = model.q(BITS)
    assert log_lik.shape == (3, B)
    assert_near(low.z.view(3, B, -1), q.mean + gaussian.std(q) * noise[0])
    assert_near(low.q.mean.view(3, B, -1)[2], q.mean)
    assert_near(low.noise, noise[0].flatten(0, 1))
    assert_near(low.p.mean, model.downward[0](top.z)[0])
    assert_near(top.q.mean, model.upward[0](low.z)[0])
    assert_near(top.z, top.q.mean + top.q.var.sqrt() * noise[1].flatten(0, 1))
    assert_near(top.p.var, torch.ones_like(top.z))
    assert not top.p.mean.any()


def test_gradient_reaches_every_map() -> None:
    model, noise = hierarchy(3), noises(3, 2)
    for bound in (model.elbo(BITS, noise), model.elbo(BITS, noise, "a"), model.iwae(BITS, noise)):
        gradients = torch.autograd.grad(bound.sum(), list(model.parameters()))
        assert len(gradients) == 10
        assert all(g.isfinite().all() and g.abs().max() > 1e-4 for g in gradients)


class Wide(Map):
    """A map that says its latent_dim."""

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__(inputs, outputs, seed)
        self.latent_dim = outputs

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("not needed")


def test_maps_with_latent_dim_need_not_run_to_draw_or_sample() -> None:
    model = MarkovHVAE([Wide(D, 2, 1), Wide(2, 3, 2)], [Map(3, 2, 3)], logits, likelihoods.bernoulli)
    (noise,) = model.draw(BITS, generator=generator(7), samples=2)
    g = generator(7)
    for e, width in zip(noise, (2, 3)):
        assert torch.equal(e, torch.randn(2, B, width, generator=g, dtype=torch.float64))
    assert model.sample(5, generator=generator(7)).shape == (5, D)
    assert model.float().draw(BITS, generator=generator(7))[0][1].dtype == torch.float32
    half = MarkovHVAE([Wide(D, 2, 1), Map(2, 3, 2)], [Map(3, 2, 3)], logits, likelihoods.bernoulli)
    with pytest.raises(ValueError, match="the latent dimension was unknown"):
        half.sample(5, generator=generator(7))


def test_information_is_each_density_over_the_mean_of_all() -> None:
    q = Gaussian(normal(80, 50, 2), normal(81, 50, 2).exp())
    z = q.mean + q.var.sqrt() * normal(82, 50, 2)
    densities = Normal(q.mean, q.var.sqrt()).log_prob(z[:, None]).sum(2).exp()
    expected = (densities.diagonal() / densities.mean(1)).log()
    for rows in (1, 7, 50, 500):
        assert_near(information(q, z, rows), expected)
    same = Gaussian(torch.ones(9, 2).double(), torch.ones(9, 2).double())
    assert_near(information(same, normal(83, 9, 2)), torch.zeros(9).double())
    far = Gaussian(100 * torch.arange(9).double()[:, None], torch.ones(9, 1).double())
    assert_near(information(far, far.mean), torch.full((9,), math.log(9), dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, e: m.elbo(BITS, e[:1]), "the number of tensors of noise was 1; it must be 2, one for each level"),
        (lambda m, e: m.elbo(BITS, [e[0], e[1][:1]]), r"the shape of noise 1 was \(1, 4, 3\); it must be \(3, 4, 3\)"),
        (lambda m, e: m.elbo(BITS, [e[0], e[1].float()]), "the dtype of noise 1 was torch.float32; it must be torch.f"),
        (lambda m, e: m.elbo(BITS, [e[0], e[1] * math.nan]), "noise 1 was nan; it must be finite"),
        (lambda m, e: m.elbo(BITS, [e[0][:0], e[1][:0]]), "the number of samples of noise was 0; it must be at least"),
        (lambda m, e: m.elbo(BITS, e, "c"), "estimator was 'c'; it must be one of a, b"),
        (lambda m, e: m.sample(0, generator=generator(0)), "n was 0; it must be an integer, 1 or more"),
        (lambda m, e: m.sample_below(e[1][0], 3, generator=generator(0)), "level was 3; it must be an integer in 1..2"),
        (lambda m, e: m.sample_below(e[1][0], 0, generator=generator(0)), "level was 0; it must be an integer in 1..2"),
        (lambda m, e: m.sample_below(e[1], generator=generator(0)), r"the shape of z was \(3, 4, 3\); it must be"),
        (lambda m, e: m.sample_below(e[1][0].long(), generator=generator(0)), "the dtype of z was torch.int64"),
        (lambda m, e: MarkovHVAE([], [], logits, m.likelihood), "the number of inference maps was 0"),
        (
            lambda m, e: MarkovHVAE([m.encoder], [m.encoder], logits, likelihoods.bernoulli),
            "the number of generative maps was 1; it must be 0, one less than the inference maps",
        ),
        (
            lambda m, e: MarkovHVAE([m.encoder, m.upward[0]], [lambda z: (z, z)], logits, m.likelihood).elbo(BITS, e),
            r"the shape of generative map 0's mean was \(12, 3\); it must be \(12, 2\), that of level 1",
        ),
        (
            lambda m, e: MarkovHVAE(
                [m.encoder, lambda z: (z, z[:, :1])], list(m.downward), logits, m.likelihood
            ).draw(BITS, generator=generator(0)),
            r"the shape of inference map 1's log-variance was \(4, 1\); it must be \(4, 2\), that of its mean",
        ),
        (lambda m, e: information(Gaussian(BITS.double(), BITS + 1.0), BITS), "the dtype of"),
        (lambda m, e: information(Gaussian(e[0], e[0].exp()), e[0]), r"the shape of z was \(3, 4, 2\); it must be"),
        (lambda m, e: information(Gaussian(e[0][0], e[0][0].exp()), e[0][0], 0), "rows was 0; it must be an integer"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(hierarchy(2), noises(2, 3))


def test_functions_without_parameters_are_maps_too() -> None:
    model = MarkovHVAE(
        [lambda x: (x, x), lambda z: (z, -z)], [lambda z: (z, z)], lambda z: (z, z), likelihoods.gaussian
    )
    x = normal(84, 3, 2)
    (noise,) = model.draw(x, generator=generator(8))
    assert model.elbo(x, noise).shape == (3,)
    assert not list(model.parameters())


def test_what_is_no_map_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # It would name it first.
    good = hierarchy(2).encoder
    for up, down in (([good, 3], [good]), ([good, good], [3])):
        with pytest.raises(ValueError, match="a map was int; it must be a function"):
            MarkovHVAE(up, down, logits, likelihoods.bernoulli)
