"""Five names of one prediction against their definitions, the exact mixture and the divergence of a step."""

from __future__ import annotations

import itertools
import math
import typing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, vmap

from dmlib.diffusion import bounds, forward, parameterization, schedule
from dmlib.probability import gaussian, mixture

KINDS = typing.get_args(parameterization.Kind)
NOISE = schedule.linear(6, 0.05, 0.7)
F64 = torch.float64
MIXTURE = mixture.Mixture(
    torch.tensor([0.2, 0.5, 0.3], dtype=F64),
    torch.tensor([[-1.0, 0.5], [0.8, 0.0], [0.1, -1.2]], dtype=F64),
    torch.tensor([0.1, 0.0, 0.4], dtype=F64),
)
each_kind = pytest.mark.parametrize("kind", KINDS)


def normal(seed: int, *shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-12, scaled by what is expected."""
    assert actual.shape == expected.shape
    assert ((actual - expected).abs() <= 1e-12 * expected.abs().clamp(min=1)).all()


def steps() -> tuple[Tensor, Tensor]:
    """All pairs 1 <= s < t <= 6."""
    s, t = torch.tensor([(s, t) for t in range(2, 7) for s in range(1, t)]).T
    return s, t


def defined(kind: str, x_0: Tensor, noise: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The kind as chapters define it, without the module under test."""
    alpha_bar = NOISE.alpha_bar[t][:, None]
    x_t = forward.q_sample(NOISE, x_0, t, noise)
    return {
        "x_0": lambda: x_0,
        "eps": lambda: noise,
        "score": lambda: -(x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar),  # of q(x_t given x_0)
        "v": lambda: alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x_0,
        "mean": lambda: forward.q_posterior(NOISE, x_0, x_t, t, s).mean,
    }[kind]()


@each_kind
def test_each_kind_is_what_its_definition_says(kind: str) -> None:
    s, t = steps()
    x_0, noise = normal(0, len(t), 3), normal(1, len(t), 3)
    expected, x_t = defined(kind, x_0, noise, s, t), forward.q_sample(NOISE, x_0, t, noise)
    at, before = NOISE.alpha_bar[t], NOISE.alpha_bar[s]
    assert_near(parameterization.target(kind, x_0, noise, at, alpha_bar_s=before), expected)
    assert_near(parameterization.from_x_0(kind, x_0, x_t, at, alpha_bar_s=before), expected)
    assert_near(parameterization.to_x_0(kind, expected, x_t, at, alpha_bar_s=before), x_0)


@pytest.mark.parametrize(("src", "dst"), list(itertools.product(KINDS, KINDS)))
def test_conversion_is_exact_in_both_directions(src: str, dst: str) -> None:
    s, t = steps()
    x_0, noise = normal(2, len(t), 3), normal(3, len(t), 3)
    x_t, at, before = forward.q_sample(NOISE, x_0, t, noise), NOISE.alpha_bar[t], NOISE.alpha_bar[s]
    pred = defined(src, x_0, noise, s, t)
    there = parameterization.convert(pred, x_t, at, src=src, dst=dst, alpha_bar_s=before)
    assert_near(there, defined(dst, x_0, noise, s, t))
    assert_near(parameterization.convert(there, x_t, at, src=dst, dst=src, alpha_bar_s=before), pred)


@settings(max_examples=25)
@given(alpha_bar=st.floats(1e-3, 0.999), share=st.floats(0.1, 0.9))
def test_round_trips_hold_at_any_time(alpha_bar: float, share: float) -> None:
    before = alpha_bar + share * (1 - alpha_bar)
    x_t, pred = normal(4, 2, 3), normal(5, 2, 3)
    for src, dst in itertools.product(KINDS, KINDS):
        there = parameterization.convert(pred, x_t, alpha_bar, src=src, dst=dst, alpha_bar_s=before)
        back = parameterization.convert(there, x_t, alpha_bar, src=dst, dst=src, alpha_bar_s=before)
        scale = 1 + max(there.abs().max().item(), x_t.abs().max().item()) * 1e3  # 1 / (1 - alpha_bar) amplifies
        assert (back - pred).abs().max().item() <= 1e-12 * scale


def test_small_noise_and_small_signal_lose_no_digits() -> None:
    x_0, noise = normal(6, 4, 2), normal(7, 4, 2)
    for alpha_bar in (1e-12, 1 - 1e-9):
        signal, std = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        x_t, v = signal * x_0 + std * noise, signal * noise - std * x_0
        assert_near(parameterization.convert(v, x_t, alpha_bar, src="v", dst="x_0"), x_0)
        assert_near(parameterization.convert(v, x_t, alpha_bar, src="v", dst="eps"), noise)


@pytest.mark.parametrize("alpha_bar", [1e-4, 0.3, 0.999])
def test_the_exact_denoiser_becomes_the_exact_score(alpha_bar: float) -> None:
    x_t = 1.5 * normal(8, 50, 2)
    best, score = mixture.posterior_mean(MIXTURE, x_t, alpha_bar), mixture.score(MIXTURE, x_t, alpha_bar)
    found = parameterization.from_x_0("score", best, x_t, alpha_bar)
    tolerance = 1e-12 / (1 - alpha_bar)  # x_t - sqrt(alpha_bar) x_0_hat cancels, then is divided
    assert (found - score).abs().max().item() <= tolerance * score.abs().max().item()
    eps = parameterization.convert(score, x_t, alpha_bar, src="score", dst="eps")
    assert_near(eps, -math.sqrt(1 - alpha_bar) * score)
    best_from_score = parameterization.to_x_0("score", score, x_t, alpha_bar)
    assert (best_from_score - best).abs().max().item() <= 1e-12 / math.sqrt(alpha_bar)


@each_kind
def test_weight_is_the_divergence_of_a_step_per_squared_error(kind: str) -> None:
    s, t = steps()
    x_0, x_0_hat, noise = normal(9, len(t), 3), normal(10, len(t), 3), normal(11, len(t), 3)
    x_t, at, before = forward.q_sample(NOISE, x_0, t, noise), NOISE.alpha_bar[t], NOISE.alpha_bar[s]
    model = bounds.p_transition(lambda x, t: x_0_hat, NOISE, x_t, t, s=s)
    divergence = gaussian.kl(forward.q_posterior(NOISE, x_0, x_t, t, s), model)
    truth, guess = (parameterization.from_x_0(kind, x, x_t, at, alpha_bar_s=before) for x in (x_0, x_0_hat))
    weight = parameterization.elbo_weight(kind, at, before)
    torch.testing.assert_close(weight * (truth - guess).square().sum(1), divergence, rtol=1e-12, atol=0)


def test_weight_of_the_data_is_half_the_loss_of_signal_to_noise() -> None:
    s, t = steps()
    weight = parameterization.elbo_weight("x_0", NOISE.alpha_bar[t], NOISE.alpha_bar[s])
    torch.testing.assert_close(weight, (NOISE.snr[s] - NOISE.snr[t]) / 2, rtol=1e-12, atol=0)
    one = parameterization.elbo_weight("x_0", NOISE.alpha_bar[4].item(), NOISE.alpha_bar[3].item())
    assert one.shape == ()
    assert one.item() == parameterization.elbo_weight("x_0", NOISE.alpha_bar[4:5], NOISE.alpha_bar[3:4]).item()
    assert parameterization.elbo_weight("eps", NOISE.alpha_bar[2:].float(), 0.99).dtype == torch.float32


@each_kind
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_network_of_any_kind_gives_the_same_denoiser(kind: str, dtype: torch.dtype) -> None:
    best = mixture.as_denoiser(MIXTURE, NOISE)

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        x_0, at, before = best(x_t, t), NOISE.alpha_bar[t], NOISE.alpha_bar[t - 1]
        return parameterization.from_x_0(kind, x_0, x_t, at, alpha_bar_s=before)

    t = torch.arange(1, 7)
    x_t = normal(12, 6, 2, dtype=dtype)
    found = parameterization.as_denoiser(network, NOISE, kind)(x_t, t)
    assert found.dtype == dtype
    torch.testing.assert_close(found, best(x_t, t), rtol=0, atol=1e-12 if dtype == F64 else 1e-5)


@each_kind
def test_targets_of_a_schedule_are_those_of_its_alpha_bar(kind: str) -> None:
    t = torch.tensor([1, 6, 3, 2])
    x_0, noise = normal(13, 4, 1, 2), normal(14, 4, 1, 2)
    found = parameterization.scheduled_target(kind, NOISE, x_0, t, noise)
    at, before = NOISE.alpha_bar[t], NOISE.alpha_bar[t - 1]
    assert torch.equal(found, parameterization.target(kind, x_0, noise, at, alpha_bar_s=before))


@each_kind
def test_coefficients_are_rounded_once_from_float64(kind: str) -> None:
    long, t = schedule.linear(1000), torch.arange(2, 1001)
    ones, zeros = torch.ones(999, dtype=F64), torch.zeros(999, dtype=F64)
    for x_0, noise in ((ones, zeros), (zeros, ones)):
        exact = parameterization.scheduled_target(kind, long, x_0, t, noise)
        assert torch.equal(parameterization.scheduled_target(kind, long, x_0.float(), t, noise.float()), exact.float())


@pytest.mark.parametrize("event", [(), (3,), (1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_results_have_the_shape_and_dtype_of_the_data(event: tuple[int, ...], dtype: torch.dtype) -> None:
    x, at = normal(15, 2, *event, dtype=dtype), NOISE.alpha_bar[[2, 5]]
    for kind in KINDS:
        for alpha_bar_t in (0.4, at):
            results = (
                parameterization.to_x_0(kind, x, x, alpha_bar_t, alpha_bar_s=0.99),
                parameterization.from_x_0(kind, x, x, alpha_bar_t, alpha_bar_s=0.99),
                parameterization.target(kind, x, x, alpha_bar_t, alpha_bar_s=0.99),
            )
            assert {(r.shape, r.dtype) for r in results} == {(x.shape, dtype)}


@each_kind
def test_each_example_has_its_own_time(kind: str) -> None:
    x, x_t, at, before = (
        normal(16, 3, 2, 2),
        normal(17, 3, 2, 2),
        NOISE.alpha_bar[[6, 2, 4]],
        NOISE.alpha_bar[[3, 1, 2]],
    )
    whole = parameterization.from_x_0(kind, x, x_t, at, alpha_bar_s=before)
    for b in range(3):
        one = slice(b, b + 1)
        a, earlier = at[b].item(), before[b].item()
        alone = parameterization.from_x_0(kind, x[one], x_t[one], a, alpha_bar_s=earlier)
        assert torch.equal(whole[one], alone)


X = torch.zeros(2, 3)
UNDEFINED = {
    "eps of clean data": lambda: parameterization.from_x_0("eps", X, X, 1.0),
    "score of clean data": lambda: parameterization.from_x_0("score", X, X, torch.tensor([0.5, 1.0])),
    "v of clean data": lambda: parameterization.from_x_0("v", X, X, 1),
    "target score of clean data": lambda: parameterization.target("score", X, X, 1.0),
    "data from eps alone": lambda: parameterization.to_x_0("eps", X, X, 0.0),
    "data from a score alone": lambda: parameterization.to_x_0("score", X, X, torch.tensor([0.5, 0.0])),
    "no such alpha_bar": lambda: parameterization.to_x_0("v", X, X, 1.5),
    "negative alpha_bar": lambda: parameterization.target("v", X, X, torch.tensor([0.5, -0.1])),
    "not a number": lambda: parameterization.target("v", X, X, math.nan),
    "three times for two": lambda: parameterization.target("v", X, X, torch.full((3,), 0.5)),
    "a column of times": lambda: parameterization.target("v", X, X, torch.full((2, 1), 0.5)),
    "integers": lambda: parameterization.target("v", X, X, torch.tensor([0, 1])),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_what_is_undefined_raises(name: str) -> None:
    with pytest.raises(ValueError, match=r"alpha_bar_t.* was .*; it must be "):
        UNDEFINED[name]()


def test_ends_that_are_defined_do_not_raise() -> None:
    x, y = normal(18, 2, 3), normal(19, 2, 3)
    assert torch.equal(parameterization.to_x_0("x_0", x, y, 0.0), x)
    assert torch.equal(parameterization.from_x_0("x_0", x, y, 1.0), x)
    assert torch.equal(parameterization.to_x_0("v", x, y, 1.0), y)
    assert torch.equal(parameterization.to_x_0("v", x, y, 0.0), -x)
    assert torch.equal(parameterization.target("v", x, y, 1.0), y)


def denoise(pred: Tensor, t: object, kind: str = "v") -> Tensor:
    return parameterization.as_denoiser(lambda x, t: pred, NOISE, kind)(X, t)


T = torch.tensor([1, 6])
BAD = [
    (lambda: parameterization.target("epsilon", X, X, 0.5), "kind was 'epsilon'; it must be one of x_0, eps, score, v"),
    (lambda: parameterization.convert(X, X, 0.5, src="x_0", dst="z"), "kind was 'z'; it must be one of"),
    (lambda: parameterization.elbo_weight("noise", 0.5, 0.6), "kind was 'noise'; it must be one of"),
    (lambda: denoise(X, T, "x0"), "kind was 'x0'; it must be one of"),
    (lambda: parameterization.to_x_0("mean", X, X, 0.5), "alpha_bar_s was None; it must be given"),
    (lambda: parameterization.to_x_0("mean", X, X, 0.5, alpha_bar_s=0.5), "alpha_bar_s was 0.5; it must be greater"),
    (lambda: parameterization.elbo_weight("eps", 0.5, 0.4), "alpha_bar_s was 0.4; it must be greater than alpha_bar_t"),
    (lambda: parameterization.elbo_weight("eps", 0.5, 1.0), "alpha_bar_s was 1.0; it must be less than 1"),
    (lambda: parameterization.elbo_weight("x_0", 0.5, torch.ones(2)), "alpha_bar_s was 1.0; it must be less than 1"),
    (lambda: parameterization.to_x_0("x_0", X, X, 1.5), r"alpha_bar_t was 1.5; it must be in \[0, 1\]"),
    (lambda: parameterization.to_x_0("x_0", X, X, -0.5), r"alpha_bar_t was -0.5; it must be in \[0, 1\]"),
    (lambda: parameterization.to_x_0("v", X[:1], X, 0.5), r"the shape of pred was \(1, 3\); it must be \(2, 3\)"),
    (lambda: parameterization.to_x_0("v", X.double(), X, 0.5), "the dtype of pred was torch.float64"),
    (lambda: parameterization.target("v", X, X[0], 0.5), r"the shape of noise was \(3,\)"),
    (lambda: parameterization.target("v", X.long(), X, 0.5), "the dtype of x_0 was torch.int64"),
    (lambda: denoise(X, torch.tensor([0, 1])), "t was 0; it must be in 1..6"),
    (lambda: denoise(X[:, :2], T), r"the shape of the prediction was \(2, 2\)"),
    (lambda: denoise(X.half(), T), "the dtype of the prediction was torch.float16"),
    (lambda: parameterization.scheduled_target("v", NOISE, X, torch.tensor([1, 7]), X), "t was 7; it must be in 1..6"),
    (lambda: parameterization.clamped(denoise, 1.0, 1.0), "low was 1.0; it must be less than high"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call: typing.Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_clamped_cuts_predictions_to_where_data_lie() -> None:
    x_t = torch.tensor([[-3.0, 0.5, 2.0]])
    assert parameterization.clamped(lambda x, t: x)(x_t, T[:1]).tolist() == [[-1.0, 0.5, 1.0]]
    assert parameterization.clamped(lambda x, t: x, 0.0, 2.5)(x_t, T[:1]).tolist() == [[0.0, 0.5, 2.0]]


def test_coefficients_are_finite_in_the_dtype_that_holds_them() -> None:
    """1/sqrt(alpha_bar) of the last step of cosine(4000) is 9.7e5: fine in float32, more than float16 has."""
    long = schedule.cosine(4000)
    x = torch.ones(1, 1)
    denoiser = parameterization.as_denoiser(lambda x_t, t: torch.zeros_like(x_t), long, "eps")
    expected = long.alpha_bar[-1].rsqrt().item()
    assert expected > 65504
    assert denoiser(x, torch.tensor([4000])).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(
        ValueError, match="t was 4000; it must be such that eps at x_t determines x_0, with coefficients f"
    ):
        parameterization.clamped(denoiser)(x.half(), torch.tensor([4000]))
    with pytest.raises(ValueError, match=r"alpha_bar_t was .*; it must be such that eps at x_t determines x_0, with"):
        parameterization.to_x_0("eps", 0 * x.half(), x.half(), long.alpha_bar[-1])
    faint = schedule.linear(2, 1e-11, 0.5)
    with pytest.raises(ValueError, match="t was 1; it must be where score is defined, with coefficients finite in"):
        parameterization.scheduled_target("score", faint, x.half(), torch.tensor([1]), x.half())
    with pytest.raises(ValueError, match=r"alpha_bar_t was 0.99.*; it must be less than 1 for score, with"):
        parameterization.target("score", x.half(), x.half(), faint.alpha_bar[1])


def test_weights_do_not_broadcast() -> None:
    many, one = torch.tensor([0.3, 0.4, 0.5], dtype=F64), torch.tensor([0.9], dtype=F64)
    assert parameterization.elbo_weight("eps", many, 0.9).shape == (3,)
    with pytest.raises(ValueError, match=r"the shape of alpha_bar_s was \(1,\); it must be \(\) or \(3,\)"):
        parameterization.elbo_weight("eps", many, one)
    with pytest.raises(ValueError, match=r"the shape of alpha_bar_s was \(3,\); it must be \(\) or \(1,\)"):
        parameterization.elbo_weight("eps", 0.1 * one, many)


def test_conversions_can_be_mapped_and_differentiated() -> None:
    x_t, pred = normal(40, 4, 3), normal(41, 4, 3)
    t = torch.tensor([1, 2, 5, 6])
    denoiser = parameterization.as_denoiser(lambda x_t, t: x_t**2, NOISE, "v")
    mapped = vmap(lambda x, t: denoiser(x[None], t[None])[0])(x_t, t)
    assert_near(mapped, denoiser(x_t, t))
    alpha_bar = NOISE.alpha_bar[t]
    sample = vmap(lambda x, t, noise: forward.q_sample(NOISE, x[None], t[None], noise[None])[0])
    assert_near(sample(x_t, t, pred), forward.q_sample(NOISE, x_t, t, pred))
    slopes = vmap(grad(lambda x, p, a: parameterization.to_x_0("v", p[None], x[None], a).sum()))(x_t, pred, alpha_bar)
    assert_near(slopes, alpha_bar.sqrt()[:, None].expand(4, 3))


PAIR_KINDS = ("x_0", "eps", "score", "v")
PAIRS = {
    "preserving": (torch.tensor([0.8, 0.28, 1e-4], dtype=F64), torch.tensor([0.6, 0.96, 1.0], dtype=F64)),
    "exploding": (torch.ones(3, dtype=F64), torch.tensor([0.02, 1.0, 50.0], dtype=F64)),
    "straight": (torch.tensor([0.9, 0.5, 0.05], dtype=F64), torch.tensor([0.1, 0.5, 0.95], dtype=F64)),
}
each_pair = pytest.mark.parametrize("name", PAIRS)


def pair(name: str) -> parameterization.SignalNoise:
    return parameterization.SignalNoise(*PAIRS[name])


def defined_pair(kind: str, a: Tensor, b: Tensor, x_0: Tensor, eps: Tensor) -> Tensor:
    return {"x_0": x_0, "eps": eps, "score": -eps / b, "v": a * eps - b * x_0}[kind]


@each_pair
@pytest.mark.parametrize(("src", "dst"), list(itertools.product(PAIR_KINDS, PAIR_KINDS)))
def test_any_pair_converts_between_definitions(name: str, src: str, dst: str) -> None:
    a, b = (c[:, None] for c in PAIRS[name])
    x_0, eps = normal(40, 3, 4), normal(41, 3, 4)
    x = pair(name).state(x_0, eps)
    assert_near(x, a * x_0 + b * eps)
    old, new = (defined_pair(kind, a, b, x_0, eps) for kind in (src, dst))
    assert_near(pair(name).target(src, x_0, eps), old)
    given_up = 1e-12 * (1 + (b / a).max() ** 2 + (1 / b).max() ** 2) * new.abs().max()  # x - b eps or x - a x_0 cancels
    assert (pair(name).convert(old, x, src=src, dst=dst) - new).abs().max() <= given_up


def test_a_pair_of_unit_power_agrees_with_the_functions_of_alpha_bar() -> None:
    alpha_bar = torch.tensor([0.9, 0.4, 1e-3], dtype=F64)
    x, pred = normal(42, 3, 2), normal(43, 3, 2)
    both = parameterization.SignalNoise(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())
    for src, dst in itertools.product(PAIR_KINDS, PAIR_KINDS):
        assert_near(
            both.convert(pred, x, src=src, dst=dst), parameterization.convert(pred, x, alpha_bar, src=src, dst=dst)
        )
    assert_near(both.log_snr, alpha_bar.log() - torch.log1p(-alpha_bar))
    for kind in PAIR_KINDS:
        assert_near(both.target(kind, x, pred), parameterization.target(kind, x, pred, alpha_bar))


@each_pair
def test_the_best_score_is_the_slope_of_the_log_density(name: str) -> None:
    """E[x_0 given x] as an average over a grid of x_0, the score by automatic differentiation of the same density."""
    grid = torch.linspace(-6, 6, 24001, dtype=F64)
    prior = 0.3 * torch.exp(-((grid + 1) ** 2) / 0.5) + 0.7 * torch.exp(-((grid - 0.5) ** 2) / 1.2)

    def log_density(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (prior * torch.exp(-(((x - a * grid) / b) ** 2) / 2)).sum().log()

    for i, (a, b) in enumerate(zip(*PAIRS[name])):
        x = a * 0.3 + b * 0.7
        likely = prior * torch.exp(-(((x - a * grid) / b) ** 2) / 2)
        best = ((likely * grid).sum() / likely.sum()).reshape(1, 1)
        one = parameterization.SignalNoise(PAIRS[name][0][i], PAIRS[name][1][i])
        slope = grad(log_density)(x, a, b)
        found = one.convert(best, x.reshape(1, 1), src="x_0", dst="score")
        assert (found - slope).abs() <= 1e-9 * (1 + slope.abs())


def test_a_straight_path_moves_by_the_noise_less_the_data() -> None:
    t = torch.tensor([0.2, 0.7], dtype=F64)
    x_0, eps = normal(44, 2, 3), normal(45, 2, 3)
    path = parameterization.SignalNoise(1 - t, t)
    x, v = path.state(x_0, eps), path.target("v", x_0, eps)
    ahead, behind = (parameterization.SignalNoise(1 - t - h, t + h).state(x_0, eps) for h in (1e-4, -1e-4))
    moved = path.convert(v, x, src="v", dst="eps") - path.convert(v, x, src="v", dst="x_0")
    assert (moved - (ahead - behind) / 2e-4).abs().max() <= 1e-9


def test_the_velocity_defines_both_at_either_end() -> None:
    for a, b in ((0.0, 1.0), (1.0, 0.0), (0.0, 3.0)):
        end = parameterization.SignalNoise(torch.tensor(a).double(), torch.tensor(b).double())
        x_0, eps = normal(46, 2, 3), normal(47, 2, 3)
        x, v = end.state(x_0, eps), end.target("v", x_0, eps)
        assert_near(end.convert(v, x, src="v", dst="x_0"), x_0)
        assert_near(end.convert(v, x, src="v", dst="eps"), eps)
        lost, kept = ("x_0", "eps") if a == 0 else ("eps", "x_0")
        with pytest.raises(ValueError, match=f"signal was {a}; it must be such that {kept} at x determines {lost}"):
            end.convert(x_0, x, src=kept, dst=lost)
    with pytest.raises(ValueError, match=r"noise was 0\.0; it must be greater than 0 for score"):
        parameterization.SignalNoise(torch.tensor(1.0), torch.tensor(0.0)).target("score", x_0, eps)


def test_a_pair_refuses_what_it_cannot_be() -> None:
    one, two = torch.ones(2), torch.ones(3)
    for signal, noise, words in (
        (one, two, "the shape of noise"),
        (one, one.double(), "the dtype of noise"),
        (one[None], one[None], "the shape of signal"),
        (-one, one, "signal was -1.0; it must be at least 0"),
        (one, -one, "noise was -1.0; it must be at least 0"),
        (0 * one, 0 * one, "signal [+] noise was 0.0; it must be greater than 0"),
        (one * math.inf, one, "signal was inf"),
    ):
        with pytest.raises(ValueError, match=words):
            parameterization.SignalNoise(signal, noise)
    both = parameterization.SignalNoise(one, one)
    calls = (
        lambda x: both.state(x, x),
        lambda x: both.target("eps", x, x),
        lambda x: both.convert(x, x, src="v", dst="eps"),
    )
    for call in calls:
        assert call(torch.ones(2, 3)).dtype == torch.float32
        with pytest.raises(ValueError, match="the shape of signal"):
            call(torch.ones(3, 2))
    for bad in ("mean", "noise"):
        with pytest.raises(ValueError, match="kind was"):
            both.target(bad, torch.ones(2, 3), torch.ones(2, 3))
        with pytest.raises(ValueError, match="kind was"):
            both.convert(torch.ones(2, 3), torch.ones(2, 3), src="v", dst=bad)


def test_coefficients_of_a_pair_are_rounded_once() -> None:
    t = torch.tensor([0.3, 0.999], dtype=F64)
    x, pred = normal(48, 2, 3, dtype=torch.float32), normal(49, 2, 3, dtype=torch.float32)
    fine = parameterization.SignalNoise(1 - t, t)
    assert fine.convert(pred, x, src="eps", dst="x_0").dtype == torch.float32
    exact = fine.convert(pred.double(), x.double(), src="eps", dst="x_0")
    coarse = fine.convert(pred, x, src="eps", dst="x_0")
    assert (coarse - exact).abs().max() <= 4e-7 * (x.abs().max() + pred.abs().max()) / (1 - t).min()
