"""Both decompositions against exact evidence: Gaussian chains, and three levels by quadrature over all latents.

For a Gaussian chain every term is a quadratic in the noise, so that expectations are exact by cubature: the points
sqrt(n) times plus or minus each unit vector, equally weighted, integrate polynomials of degree 3 over N(0, I_n).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from dmlib.diffusion import bounds, forward, parameterization, schedule
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.probability import gaussian, likelihoods, linear_gaussian, mixture, multivariate
from dmlib.probability.elbo import ElboTerms
from dmlib.probability.gaussian import Gaussian
from dmlib.probability.linear_gaussian import LinearChain
from dmlib.probability.multivariate import MVN

F64 = torch.float64
NOISE = schedule.linear(6, 0.05, 0.6)
DATA = mixture.Mixture(torch.ones(1, dtype=F64), torch.tensor([[0.7]], dtype=F64), torch.tensor([0.3], dtype=F64))
EXACT = mixture.as_denoiser(DATA, NOISE)


def wrong(x_t: Tensor, t: Tensor) -> Tensor:
    """An affine denoiser that is far from the best one."""
    return 0.2 - 0.3 * x_t + 0.05 * t[:, None]


DENOISERS = pytest.mark.parametrize("denoiser", [EXACT, wrong], ids=["exact", "wrong"])


def normal(seed: int, *shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-12, scaled by what is expected."""
    assert actual.shape == expected.shape
    assert ((actual - expected).abs() <= 1e-12 * expected.abs().clamp(min=1)).all()


def times(t: int, like: Tensor) -> Tensor:
    return torch.full((len(like),), t)


def gaussian_decoder(denoiser: Callable) -> bounds.Decoder:
    def decode(x_0: Tensor, x_1: Tensor) -> Tensor:
        return gaussian.log_prob(Gaussian(denoiser(x_1, times(1, x_1)), torch.full_like(x_0, NOISE.beta[1])), x_0)

    return decode


def model_chain(denoiser: Callable) -> LinearChain:
    """The model of an affine denoiser in one dimension as a chain x_T -> .. -> x_0, from the formulas of the paper."""
    alpha, alpha_bar, beta = NOISE.alpha, NOISE.alpha_bar, NOISE.beta
    slopes, offsets, variances = [], [], []
    for t in range(NOISE.T, 0, -1):
        points = denoiser(torch.tensor([[0.0], [1.0]], dtype=F64), torch.tensor([t, t]))[:, 0]
        of_x_0 = alpha_bar[t - 1].sqrt() * beta[t] / (1 - alpha_bar[t])
        of_x_t = alpha[t].sqrt() * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        slopes.append(of_x_0 * (points[1] - points[0]) + of_x_t)
        offsets.append(of_x_0 * points[0])
        variances.append(beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]))
    variances[-1] = beta[1]  # the decoder's
    return LinearChain(torch.stack(slopes)[:, None, None], torch.stack(offsets)[:, None], torch.stack(variances))


def exact_bound(denoiser: Callable, x_0: Tensor) -> Tensor:
    """The evidence of x_0 [1, 1] minus the divergence of q from the model's posterior over all latents."""
    chain = model_chain(denoiser)
    mean, cov = linear_gaussian.posterior(chain, x_0)
    alpha_bar = NOISE.alpha_bar.flip(0)[:-1]  # of x_T, .., x_1
    q_cov = torch.minimum(alpha_bar[:, None], alpha_bar) / torch.maximum(alpha_bar[:, None], alpha_bar)
    q_cov = q_cov.sqrt() * (1 - torch.maximum(alpha_bar[:, None], alpha_bar))
    q = MVN(alpha_bar.sqrt() * x_0[0, 0], q_cov)
    return linear_gaussian.log_evidence(chain, x_0) - multivariate.kl(q, MVN(mean[0], (cov + cov.mT) / 2))


def cubature(n: int) -> Tensor:
    """Points [2n, n], equally weighted."""
    return math.sqrt(n) * torch.cat([torch.eye(n, dtype=F64), -torch.eye(n, dtype=F64)])


def path_of(x_0: Tensor, noises: Tensor) -> Tensor:
    """[T+1, B, ..]: each state from the one before, by noises [T, B, ..]."""
    path = [x_0]
    for t, noise in enumerate(noises, 1):
        step = forward.q_transition(NOISE, path[-1], times(t - 1, x_0), times(t, x_0))
        path.append(step.mean + step.var.sqrt() * noise)
    return torch.stack(path)


def average(terms: ElboTerms) -> Tensor:
    return terms.total.mean(0, keepdim=True)


@DENOISERS
@pytest.mark.parametrize("x", [0.9, -1.7])
def test_denoising_form_is_the_evidence_less_the_divergence(denoiser: Callable, x: float) -> None:
    points = cubature(1)
    x_0 = torch.full_like(points, x)
    terms = bounds.denoising_form(denoiser, NOISE, x_0, [points] * NOISE.T, gaussian_decoder(denoiser))
    assert terms.transitions.shape == (2, NOISE.T - 1)
    assert_near(average(terms), exact_bound(denoiser, x_0[:1]))


@DENOISERS
@pytest.mark.parametrize("x", [0.9, -1.7])
def test_consistency_form_is_the_same_bound(denoiser: Callable, x: float) -> None:
    points = cubature(NOISE.T)
    x_0 = torch.full((len(points), 1), x, dtype=F64)
    path = path_of(x_0, points.T[..., None])
    terms = bounds.consistency_form(denoiser, NOISE, x_0, path, gaussian_decoder(denoiser))
    assert terms.transitions.shape == (12, NOISE.T - 1)
    assert_near(average(terms), exact_bound(denoiser, x_0[:1]))


@DENOISERS
def test_both_forms_lie_below_the_evidence(denoiser: Callable) -> None:
    x_0 = torch.tensor([[0.9]], dtype=F64)
    assert exact_bound(denoiser, x_0) < linear_gaussian.log_evidence(model_chain(denoiser), x_0) - 1e-3


@DENOISERS
def test_the_printed_divergence_form_is_another_quantity(denoiser: Callable) -> None:
    points = cubature(NOISE.T)
    x_0 = torch.full((len(points), 1), 0.9, dtype=F64)
    path = path_of(x_0, points.T[..., None])
    terms = bounds.consistency_form(denoiser, NOISE, x_0, path, gaussian_decoder(denoiser))
    printed, chain, slack = [], model_chain(denoiser), 0.0
    for i in range(1, NOISE.T):
        q = forward.q_transition(NOISE, path[i - 1], times(i - 1, x_0), times(i, x_0))
        printed.append(gaussian.kl(q, bounds.p_transition(denoiser, NOISE, path[i + 1], times(i + 1, x_0))))
        step = NOISE.T - i - 1  # the chain's step from i + 1 to i
        slack += chain.A[step, 0, 0] * NOISE.alpha[i + 1].sqrt() * NOISE.beta[i] / chain.var[step]
    printed_bound = average(terms._replace(transitions=torch.stack(printed, 1)))
    # What it drops: the covariance of x_t and x_{t+1} given x_{t-1}, which the slope of each reverse step multiplies.
    assert_near(printed_bound, average(terms) - slack)
    assert abs(slack.item()) > 0.5


def test_forms_agree_on_random_draws() -> None:
    n = 20_000
    x_0 = mixture.sample(DATA, n, generator=torch.Generator().manual_seed(0))
    path = path_of(x_0, normal(1, NOISE.T, n, 1))
    alpha_bar = NOISE.alpha_bar[:, None, None]
    noises = ((path[t] - alpha_bar[t].sqrt() * x_0) / (1 - alpha_bar[t]).sqrt() for t in range(1, NOISE.T + 1))
    decoder = gaussian_decoder(EXACT)
    first = bounds.consistency_form(EXACT, NOISE, x_0, path, decoder).total
    second = bounds.denoising_form(EXACT, NOISE, x_0, noises, decoder).total
    difference = first - second
    assert abs(difference.mean().item()) <= 4.5 * difference.std().item() / math.sqrt(n)
    assert difference.std().item() > 0.05  # they are equal in expectation alone


@DENOISERS
def test_with_one_step_both_forms_are_the_bound_of_a_vae(denoiser: Callable) -> None:
    one, x_0, noise = schedule.linear(1, 0.4, 0.4), normal(2, 5, 1).clamp(-1, 1).round(), normal(3, 5, 1)
    decoder = bounds.rounding_decoder(one, 3)
    x_1 = math.sqrt(0.6) * x_0 + math.sqrt(0.4) * noise
    denoising = bounds.denoising_form(denoiser, one, x_0, iter([noise]), decoder)
    consistency = bounds.consistency_form(denoiser, one, x_0, torch.stack([x_0, x_1]), decoder)
    for terms in (denoising, consistency):
        assert terms.transitions.shape == (5, 0)
        assert_near(terms.reconstruction, decoder(x_0, x_1))
        assert_near(terms.prior, 0.5 * (0.6 * x_0[:, 0] ** 2 + 0.4 - 1 - math.log(0.4)))


LEVELS = 3
TWO = NoiseSchedule(torch.tensor([1.0, 0.7, 0.2], dtype=F64))
POINTS = mixture.Mixture(
    torch.tensor([0.5, 0.2, 0.3], dtype=F64), torch.tensor([[-1.0], [0.0], [1.0]], dtype=F64), torch.zeros(3, dtype=F64)
)
BEST = mixture.as_denoiser(POINTS, TWO)
DECODERS = {
    "rounding": bounds.rounding_decoder(TWO, LEVELS),
    "discretized": bounds.discretized_decoder(BEST, TWO, LEVELS),
}
GRID = torch.linspace(-9, 9, 361, dtype=F64)  # the trapezoid rule on densities that vanish at its ends is exact


def log_normal(x: Tensor, mean: Tensor | float, var: float) -> Tensor:
    return -0.5 * ((x - mean) ** 2 / var + math.log(2 * math.pi * var))


def two_step_model(decoder: bounds.Decoder, x: float) -> tuple[Tensor, Tensor]:
    """log p(x_0 = x, x_1, x_2) and log q(x_1, x_2 given x_0) on the grid [x_2, x_1], without the library's laws."""
    column = GRID[:, None]
    guess = BEST(column, torch.full((len(GRID),), 2))
    mean = math.sqrt(0.7) * (0.5 / 0.7) / 0.8 * guess + math.sqrt(0.2 / 0.7) * 0.3 / 0.8 * column
    log_p = log_normal(column, 0.0, 1.0) + log_normal(GRID, mean, (0.5 / 0.7) * 0.3 / 0.8)
    log_p = log_p + decoder(torch.full_like(column, x), column)
    log_q = log_normal(GRID, math.sqrt(0.7) * x, 0.3)
    return log_p, log_q + log_normal(column, math.sqrt(0.2 / 0.7) * GRID, 0.5 / 0.7)


def evidence(decoder: bounds.Decoder, x: float) -> Tensor:
    step = (GRID[1] - GRID[0]).log()
    return torch.logsumexp(two_step_model(decoder, x)[0].flatten(), 0) + 2 * step


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
def test_levels_share_all_the_mass(decoder: bounds.Decoder) -> None:
    total = torch.stack([evidence(decoder, x) for x in (-1.0, 0.0, 1.0)]).exp().sum()
    assert abs(total.item() - 1) <= 1e-10  # an integral over a grid of 361 squared points


@pytest.mark.parametrize("x", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
def test_bound_is_exact_where_all_latents_are_summed(decoder: bounds.Decoder, x: float) -> None:
    step = (GRID[1] - GRID[0]).item()
    log_p, log_q = two_step_model(decoder, x)
    q = log_q.exp() * step**2
    gap = (q * (log_q - (log_p - evidence(decoder, x)))).sum()  # KL of q from the model's posterior
    noise, x_0 = GRID[:, None], torch.full((len(GRID), 1), x, dtype=F64)
    weight = log_normal(GRID, 0.0, 1.0).exp() * step
    denoising = bounds.denoising_form(BEST, TWO, x_0, [noise, noise], decoder)
    assert abs((weight * denoising.total).sum() - (evidence(decoder, x) - gap)) <= 1e-10  # quadrature's
    pairs = torch.cartesian_prod(GRID[::2], GRID[::2])  # x_1, x_2
    path = torch.stack([torch.full((len(pairs), 1), x, dtype=F64), pairs[:, :1], pairs[:, 1:]])
    consistency = bounds.consistency_form(BEST, TWO, path[0], path, decoder).total.reshape(181, 181).T
    assert abs((4 * q[::2, ::2] * consistency).sum() - (evidence(decoder, x) - gap)) <= 1e-10


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
def test_one_term_loss_over_all_times_is_the_negative_bound(decoder: bounds.Decoder) -> None:
    x_0, noises = torch.tensor([[1.0], [0.0], [-1.0], [1.0]], dtype=F64), normal(4, 2, 4, 1)
    losses = [bounds.elbo_loss(BEST, x_0, times(t, x_0), noises[t - 1], schedule=TWO, decoder=decoder) for t in (1, 2)]
    total = bounds.denoising_form(BEST, TWO, x_0, noises, decoder).total
    assert_near(torch.stack(losses).mean(0), -total)


@DENOISERS
def test_one_term_loss_keeps_the_times_of_a_batch_apart(denoiser: Callable) -> None:
    t, x_0, noise = torch.tensor([6, 1, 3, 2]), normal(5, 4, 1), normal(6, 4, 1)
    decoder = gaussian_decoder(denoiser)
    whole = bounds.elbo_loss(denoiser, x_0, t, noise, schedule=NOISE, decoder=decoder)
    terms = bounds.denoising_form(denoiser, NOISE, x_0, [noise] * 6, decoder)
    own = torch.cat([-terms.reconstruction[:, None], terms.transitions], 1).gather(1, t[:, None] - 1)[:, 0]
    assert_near(whole, terms.prior + 6 * own)


@pytest.mark.parametrize("kind", ["x_0", "eps", "score", "v", "mean"])
def test_simple_loss_is_a_reweighted_term_of_the_bound(kind: str) -> None:
    t, x_0, noise = torch.tensor([6, 4, 3, 2]), normal(7, 4, 2), normal(8, 4, 2)

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x_t - 0.1 * t[:, None]

    simple = bounds.simple_loss(network, x_0, t, noise, schedule=NOISE, kind=kind)
    denoiser = parameterization.as_denoiser(network, NOISE, kind)
    loss = bounds.elbo_loss(denoiser, x_0, t, noise, schedule=NOISE, decoder=lambda x_0, x_1: x_0[:, 0])
    weight = parameterization.elbo_weight(kind, NOISE.alpha_bar[t], NOISE.alpha_bar[t - 1])
    assert_near(bounds.prior_kl(NOISE, x_0) + 6 * weight * simple, loss)
    x_t = forward.q_sample(NOISE, x_0, t, noise)
    goal = parameterization.target(kind, x_0, noise, NOISE.alpha_bar[t], alpha_bar_s=NOISE.alpha_bar[t - 1])
    assert_near(simple, ((network(x_t, t) - goal) ** 2).sum(1))


def grid_of(levels: int) -> Tensor:
    return torch.tensor([[2 * k / (levels - 1) - 1] for k in range(levels)], dtype=F64)


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("x_1", [-1.4, -0.02, 0.8])
def test_rounding_decoder_is_bayes_rule_over_the_levels(levels: int, x_1: float) -> None:
    noise, x_0 = schedule.linear(10, 1e-3, 0.3), grid_of(levels)
    found = bounds.rounding_decoder(noise, levels)(x_0, torch.full_like(x_0, x_1))
    density = scipy.stats.norm.logpdf(x_1, np.sqrt(1 - 1e-3) * x_0[:, 0].numpy(), np.sqrt(1e-3))
    np.testing.assert_allclose(found, density - scipy.special.logsumexp(density), rtol=1e-11, atol=1e-12)
    assert abs(found.exp().sum().item() - 1) <= 1e-12


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_discretized_decoder_has_the_masses_of_bins_around_the_prediction(levels: int) -> None:
    noise, x_0 = schedule.linear(10, 0.01, 0.3), grid_of(levels)
    seen = []

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        seen.extend(t.tolist())
        return 0.5 * x

    found = bounds.discretized_decoder(denoiser, noise, levels)(x_0, torch.full_like(x_0, 0.3)).exp()
    edges = np.concatenate([[-np.inf], (2 * np.arange(1, levels) - 1) / (levels - 1) - 1, [np.inf]])
    np.testing.assert_allclose(found, np.diff(scipy.stats.norm.cdf(edges, 0.15, 0.1)), rtol=1e-9, atol=1e-13)
    assert abs(found.sum().item() - 1) <= 1e-12
    assert set(seen) == {1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoders_take_images_and_keep_their_dtype(dtype: torch.dtype) -> None:
    levels = torch.randint(256, (2, 1, 3, 3), generator=torch.Generator().manual_seed(9))
    x_0 = likelihoods.to_unit(levels, 256, dtype=dtype)
    noise, x_1 = schedule.linear(1000), x_0 + 0.01 * normal(10, 2, 1, 3, 3, dtype=dtype)
    for decoder in (bounds.rounding_decoder(noise, 256), bounds.discretized_decoder(lambda x, t: x, noise, 256)):
        whole = decoder(x_0, x_1)
        assert whole.dtype == dtype
        pixels = decoder(x_0.reshape(-1, 1), x_1.reshape(-1, 1)).reshape(2, -1).sum(1)
        torch.testing.assert_close(whole, pixels, rtol=1e-5, atol=1e-5)
        double = decoder(likelihoods.to_unit(levels, 256, dtype=F64), x_1.double())
        torch.testing.assert_close(whole.double(), double, rtol=1e-4, atol=1e-4)


PAIRS = [(0, 1), (2, 3), (1, 4), (0, 6)]


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_step_has_the_posteriors_mean_at_the_prediction_and_the_variance_asked_for(s: int, t: int) -> None:
    x_t, s, t = normal(11, 3, 2), torch.full((3,), s), torch.full((3,), t)
    posterior = forward.q_posterior(NOISE, wrong(x_t, t), x_t, t, s)
    table = torch.linspace(0.1, 0.7, 7, dtype=F64)
    ratio = (NOISE.alpha_bar[t] / NOISE.alpha_bar[s])[:, None]
    expected = {
        "posterior": posterior.var,
        "beta": (1 - ratio).expand(3, 2),
        table: table[t][:, None].expand(3, 2),
        lambda x, t: 0.1 * t: 0.1 * t[:, None].expand(3, 2),
        lambda x, t: x**2: x_t**2,
    }
    for variance, var in expected.items():
        law = bounds.p_transition(wrong, NOISE, x_t, t, s=s, variance=variance)
        assert_near(law.mean, posterior.mean)
        assert_near(law.var, var.to(F64))
    previous = bounds.p_transition(wrong, NOISE, x_t, t, s=t - 1, variance="beta")
    default = bounds.p_transition(wrong, NOISE, x_t, t, variance="beta")
    assert_near(default.mean, previous.mean)
    assert_near(default.var, previous.var)


def test_draw_covers_all_times_evenly() -> None:
    x_0 = torch.zeros(60_000, 1)
    t, noise = bounds.draw(x_0, NOISE, generator=torch.Generator().manual_seed(12))
    counts = torch.bincount(t, minlength=7)
    assert counts[0] == 0
    assert scipy.stats.chisquare(counts[1:]).pvalue > 1e-4
    assert t.max().item() == NOISE.T
    assert scipy.stats.kstest(noise[:, 0], "norm").pvalue > 1e-4
    assert abs(np.corrcoef(t, noise[:, 0])[0, 1]) <= 4.5 / math.sqrt(60_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draw_is_a_function_of_its_generator(dtype: torch.dtype) -> None:
    x_0, draw = torch.zeros(5, 2, 3, dtype=dtype), functools.partial(bounds.draw, schedule=NOISE)
    t, noise = draw(x_0, generator=torch.Generator().manual_seed(13))
    again = draw(x_0, generator=torch.Generator().manual_seed(13))
    assert torch.equal(t, again[0])
    assert torch.equal(noise, again[1])
    assert (t.shape, t.dtype, noise.shape, noise.dtype) == ((5,), torch.int64, x_0.shape, dtype)


def test_transitions_are_divergences_from_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the data's step from the model's, and not the other way round: they differ where the variances do."""
    s = schedule.linear(3, beta_1=0.1, beta_T=0.5)
    wide = functools.partial(bounds.p_transition, variance="beta")
    monkeypatch.setattr(bounds, "p_transition", wide)
    x_0, noises = torch.tensor([[0.1, -0.7, 0.4]], dtype=F64), 3 * [torch.ones(1, 3, dtype=F64)]
    found = bounds.denoising_form(lambda x_t, t: 0.3 * x_t, s, x_0, noises, lambda x_0, x_1: x_0.sum(1))
    for t in (2, 3):
        times = torch.full((1,), t)
        x_t = forward.q_sample(s, x_0, times, noises[0])
        q, p = forward.q_posterior(s, x_0, x_t, times), wide(lambda x_t, t: 0.3 * x_t, s, x_t, times)
        pair = (torch.distributions.Normal(side.mean, side.var.sqrt()) for side in (q, p))
        kl = torch.distributions.kl_divergence(*pair).sum(1)
        torch.testing.assert_close(found.transitions[:, t - 2], kl)


def test_noises_are_read_one_at_a_time() -> None:
    x_0, made, read = normal(14, 2, 1), [], []

    def noises():
        for t in range(1, 7):
            made.append(t)
            yield normal(t, 2, 1)

    def watched(x_t: Tensor, t: Tensor) -> Tensor:
        read.append((t[0].item(), len(made)))
        return EXACT(x_t, t)

    lazy = bounds.denoising_form(watched, NOISE, x_0, noises(), gaussian_decoder(watched))
    assert read == [(t, t) for t in range(1, 7)]
    stacked = torch.stack([normal(t, 2, 1) for t in range(1, 7)])
    assert torch.equal(lazy.total, bounds.denoising_form(EXACT, NOISE, x_0, stacked, gaussian_decoder(EXACT)).total)


def test_losses_have_the_gradient_of_the_network() -> None:
    t, x_0, noise = torch.tensor([1, 4, 2]), torch.tensor([[1.0], [0.0], [-1.0]], dtype=F64), normal(16, 3, 1)

    def loss(w: Tensor) -> Tensor:
        decoder = bounds.discretized_decoder(lambda x, t: w * x, NOISE, 3)
        return bounds.elbo_loss(lambda x, t: w * x, x_0, t, noise, schedule=NOISE, decoder=decoder)

    assert torch.autograd.gradcheck(loss, (torch.tensor(0.7, dtype=F64, requires_grad=True),))


X = torch.zeros(2, 1)
TIMES = torch.tensor([1, 6])


def bound(noises: object, x_0: Tensor = X) -> ElboTerms:
    return bounds.denoising_form(wrong, NOISE, x_0, noises, bounds.rounding_decoder(NOISE, 3))


def along(path: Tensor) -> ElboTerms:
    return bounds.consistency_form(wrong, NOISE, X, path, bounds.rounding_decoder(NOISE, 3))


def step(variance: object, denoiser: Callable = wrong, **kwargs: Tensor) -> Gaussian:
    return bounds.p_transition(denoiser, NOISE, X, kwargs.pop("t", TIMES), variance=variance, **kwargs)


def simple(x_0: Tensor = X, t: Tensor = TIMES, noise: Tensor = X, kind: str = "eps") -> Tensor:
    return bounds.simple_loss(lambda x, t: x, x_0, t, noise, schedule=NOISE, kind=kind)


BAD = [
    (lambda: bound([X] * 5), "the number of noises was 5; it must be T, which is 6"),
    (lambda: bound([]), "the number of noises was 0; it must be T, which is 6"),
    (lambda: bound(X for _ in range(9)), "the number of noises was at least 7; it must be T, which is 6"),
    (lambda: bound([X[:1]] * 6), r"the shape of noise was \(1, 1\); it must be \(2, 1\)"),
    (lambda: bound([X] * 6, X + 0.3), "x_0 was 0.3.*; it must be one of the 3 levels on"),
    (lambda: along(torch.zeros(6, 2, 1)), "the length of path was 6; it must be T [+] 1, which is 7"),
    (lambda: along(torch.ones(7, 2, 1)), r"path\[0\] was 1.0; it must be x_0"),
    (lambda: along(torch.zeros(7, 2)), r"the shape of path\[0\] was \(2,\)"),
    (lambda: along(torch.tensor(0.0)), r"the shape of path was \(\)"),
    (lambda: step("optimal"), "variance was 'optimal'; it must be 'posterior', 'beta'"),
    (lambda: step(torch.zeros(6)), r"the shape of table was \(6,\); it must be \(7\)"),
    (lambda: step(-torch.ones(7)), "variance was -1.0; it must be at least 0"),
    (lambda: step(lambda x, t: torch.zeros(3)), r"the shape of variance\(x_t, t\) was \(3,\); it must be \(2,\) or"),
    (lambda: step("beta", t=torch.tensor([0, 3])), "t was 0; it must be in 1..6"),
    (lambda: step("beta", s=TIMES), "s was 1; it must be less than t"),
    (lambda: step("beta", lambda x, t: x[:1]), r"the shape of the prediction was \(1, 1\)"),
    (lambda: simple(t=torch.tensor([1, 7])), "t was 7; it must be in 1..6"),
    (lambda: simple(noise=X[0]), r"the shape of noise was \(1,\)"),
    (lambda: simple(kind="noise"), "kind was 'noise'; it must be one of"),
    (lambda: simple(x_0=X.long()), "the dtype of x_0 was torch.int64"),
    (lambda: bounds.draw(X.long(), NOISE, generator=torch.Generator()), "the dtype of x_0 was torch.int64"),
    (lambda: bounds.rounding_decoder(NOISE, 1), "levels was 1; it must be an integer, 2 or more"),
    (lambda: bounds.rounding_decoder(NOISE, 2)(X, X), "x_0 was 0.0; it must be one of the 2 levels"),
    (lambda: bounds.discretized_decoder(wrong, NOISE, 2)(X, X), "x_0 was 0.0; it must be one of the 2 levels"),
    (lambda: bounds.rounding_decoder(NOISE, 17)(X + 0.01, X), "x_0 was 0.0099.*; it must be one of the 17 levels"),
    (lambda: bounds.discretized_decoder(wrong, NOISE, 3)(X, X[:1]), r"the shape of x_1 was \(1, 1\)"),
]


def test_a_variance_may_be_zero() -> None:
    assert step(torch.zeros(7)).var.eq(0).all()


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
