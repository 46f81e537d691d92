"""The forward laws against stepping, exact conditioning, Bayes' rule and simulation."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlib.diffusion import forward, schedule
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.probability import gaussian

JUMPS = NoiseSchedule(torch.tensor([1.0, 1 - 1e-9, 0.7, 0.699, 1e-6, 1e-30], dtype=torch.float64))
SCHEDULES = {
    "linear-1": schedule.linear(1),
    "linear-6": schedule.linear(6, 0.05, 0.7),
    "linear-1000": schedule.linear(1000),
    "cosine-1000": schedule.cosine(1000),
    "jumps": JUMPS,
}
each_schedule = pytest.mark.parametrize("noise", SCHEDULES.values(), ids=SCHEDULES.keys())


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_near(actual: object, expected: object) -> None:
    """Equal to 1e-12, scaled by what is expected."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_array_less(np.abs(actual - expected), 1e-12 * np.maximum(1, np.abs(expected)) + 1e-300)


def pairs(T: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All s < t for a short schedule; 400 random ones, neighbors and the ends for a long one."""
    if T <= 10:
        found = [(s, t) for t in range(1, T + 1) for s in range(t)]
    else:
        g = np.random.default_rng(0)
        drawn = np.sort(g.choice(T, size=(200, 2)) + np.array([0, 1]), axis=1)
        found = [(s, t) for s, t in drawn if s < t]
        found += [(t - 1, t) for t in range(1, T + 1, 5)] + [(0, T), (T - 1, T), (0, 1), (1, 2), (1, T)]
    s, t = np.array(found).T
    return torch.tensor(s), torch.tensor(t)


@each_schedule
def test_marginal_is_what_single_steps_compose_to(noise: NoiseSchedule) -> None:
    t = torch.arange(1, noise.T + 1)
    step = forward.q_transition(noise, torch.ones(noise.T, dtype=torch.float64), t - 1, t)  # of 1: the mean is a factor
    means, variances = [1.5], [0.0]
    for factor, var in zip(step.mean.tolist(), step.var.tolist()):
        means.append(factor * means[-1])
        variances.append(factor**2 * variances[-1] + var)
    marginal = forward.q_marginal(noise, torch.full((noise.T,), 1.5, dtype=torch.float64), t)
    assert_near(marginal.mean, means[1:])
    assert_near(marginal.var, variances[1:])


@each_schedule
def test_single_transition_keeps_alpha_and_adds_beta(noise: NoiseSchedule) -> None:
    t = torch.arange(1, noise.T + 1)
    x = normal(2, noise.T, 2)
    step = forward.q_transition(noise, x, t - 1, t)
    assert_near(step.mean, noise.alpha[1:, None].sqrt() * x)
    assert_near(step.var, noise.beta[1:, None].expand(-1, 2))


@pytest.mark.parametrize("name", ["linear-6", "linear-1000", "cosine-1000", "jumps"])
def test_transitions_form_a_semigroup(name: str) -> None:
    noise = SCHEDULES[name]
    s, t = pairs(noise.T)
    s, t = s[t - s > 1], t[t - s > 1]
    middle, x = (s + t) // 2, normal(3, len(s), 2)
    whole, first = forward.q_transition(noise, x, s, t), forward.q_transition(noise, x, s, middle)
    second = forward.q_transition(noise, first.mean, middle, t)
    factor = forward.q_transition(noise, torch.ones_like(x), middle, t).mean
    assert_near(whole.mean, second.mean)
    assert_near(whole.var, factor**2 * first.var + second.var)


def test_transition_from_the_data_is_the_marginal() -> None:
    noise = SCHEDULES["cosine-1000"]
    t = torch.tensor([1, 2, 400, 999, 1000])
    x_0 = normal(4, 5, 1, 2, 2)
    step, marginal = forward.q_transition(noise, x_0, torch.zeros_like(t), t), forward.q_marginal(noise, x_0, t)
    assert_near(step.mean, marginal.mean)
    assert_near(step.var, marginal.var)


@each_schedule
def test_posterior_is_the_joint_conditioned_in_50_digits(noise: NoiseSchedule) -> None:
    getcontext().prec = 50
    s, t = pairs(noise.T)
    x_0, x_t = normal(5, len(s)), normal(6, len(s))
    alpha_bar = [Decimal(a) for a in noise.alpha_bar.tolist()]
    means, variances = [], []
    for i, (i_s, i_t) in enumerate(zip(s.tolist(), t.tolist())):
        keep = (alpha_bar[i_t] / alpha_bar[i_s]).sqrt()
        gain = keep * (1 - alpha_bar[i_s]) / (1 - alpha_bar[i_t])  # Cov(x_s, x_t) / Var(x_t)
        start, end = Decimal(x_0[i].item()), Decimal(x_t[i].item())
        means.append(float(alpha_bar[i_s].sqrt() * start + gain * (end - alpha_bar[i_t].sqrt() * start)))
        variances.append(float((1 - alpha_bar[i_s]) * (1 - gain * keep)))
    posterior = forward.q_posterior(noise, x_0, x_t, t, s)
    assert_near(posterior.mean, means)
    np.testing.assert_allclose(posterior.var, variances, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["linear-6", "linear-1000", "cosine-1000", "jumps"])
def test_posterior_satisfies_bayes_rule(name: str) -> None:
    noise = SCHEDULES[name]
    s, t = pairs(noise.T)
    s, t = s[s > 0], t[s > 0]
    x_0, x_s, x_t = normal(7, len(s), 2), normal(8, len(s), 2), normal(9, len(s), 2)
    x_s = forward.q_sample(noise, x_0, s, x_s)
    step = forward.q_transition(noise, x_s, s, t)
    x_t = step.mean + step.var.sqrt() * x_t  # points of the joint law, where all densities are moderate
    left = gaussian.log_prob(step, x_t) + gaussian.log_prob(forward.q_marginal(noise, x_0, s), x_s)
    right = gaussian.log_prob(forward.q_posterior(noise, x_0, x_t, t, s), x_s)
    right = right + gaussian.log_prob(forward.q_marginal(noise, x_0, t), x_t)
    # The densities divide differences of order 1e-9 by their own size: 1e-16 / sqrt(1e-9) of rounding a term.
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-10)


def test_posterior_is_the_chain_conditioned_in_whole() -> None:
    noise, (s, t) = SCHEDULES["linear-6"], pairs(6)
    beta = noise.beta.numpy()
    lower = np.zeros((7, 7))  # x_1..x_6 given x_0 as a matrix times independent standard noises
    for i in range(1, 7):
        lower[i] = math.sqrt(1 - beta[i]) * lower[i - 1]
        lower[i, i] = math.sqrt(beta[i])
    cov = lower @ lower.T
    keep = np.sqrt(np.cumprod(1 - beta))
    x_0, x_t = normal(10, len(s)), normal(11, len(s))
    gain = cov[s, t] / cov[t, t]
    posterior = forward.q_posterior(noise, x_0, x_t, t, s)
    assert_near(posterior.mean, keep[s] * x_0.numpy() + gain * (x_t.numpy() - keep[t] * x_0.numpy()))
    assert_near(posterior.var, cov[s, s] - gain * cov[s, t])


@each_schedule
def test_posterior_looks_one_step_back_by_default(noise: NoiseSchedule) -> None:
    t = torch.arange(1, noise.T + 1)
    x_0, x_t = normal(12, noise.T, 2), normal(13, noise.T, 2)
    default, given_s = forward.q_posterior(noise, x_0, x_t, t), forward.q_posterior(noise, x_0, x_t, t, t - 1)
    assert torch.equal(default.mean, given_s.mean)
    assert torch.equal(default.var, given_s.var)
    before = 1 - noise.alpha_bar[:-1]  # the paper's beta tilde
    assert_near(default.var[:, 0], noise.beta[1:] * before / (1 - noise.alpha_bar[1:]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_schedule
def test_posterior_at_time_zero_is_exactly_the_data(noise: NoiseSchedule, dtype: torch.dtype) -> None:
    t = torch.arange(1, noise.T + 1)
    x_0, x_t = normal(14, noise.T, 3, dtype=dtype), normal(15, noise.T, 3, dtype=dtype)
    point = forward.q_posterior(noise, x_0, x_t, t, torch.zeros_like(t))
    assert torch.equal(point.mean, x_0)
    assert torch.equal(point.var, torch.zeros_like(x_0))
    first = forward.q_posterior(noise, x_0[:1], x_t[:1], t[:1])
    assert torch.equal(first.mean, x_0[:1])
    assert torch.equal(first.var, torch.zeros_like(x_0[:1]))


@each_schedule
def test_sample_has_the_marginal_as_its_law(noise: NoiseSchedule) -> None:
    t = torch.arange(1, noise.T + 1)
    x_0, drawn = normal(16, noise.T, 2), normal(17, noise.T, 2)
    marginal = forward.q_marginal(noise, x_0, t)
    assert_near(forward.q_sample(noise, x_0, t, torch.zeros_like(x_0)), marginal.mean)
    assert_near(forward.q_sample(noise, torch.zeros_like(x_0), t, drawn), marginal.var.sqrt() * drawn)
    assert_near(forward.q_sample(noise, x_0, t, drawn), marginal.mean + marginal.var.sqrt() * drawn)


def test_a_simulated_path_has_the_laws_of_the_closed_forms() -> None:
    noise, n = SCHEDULES["linear-6"], 40_000
    path = [torch.full((n,), 1.5, dtype=torch.float64)]
    for t in range(1, 5):
        now = torch.full((n,), t)
        step = forward.q_transition(noise, path[-1], now - 1, now)
        path.append(step.mean + step.var.sqrt() * normal(20 + t, n))
    marginal = forward.q_marginal(noise, path[0], now)
    posterior = forward.q_posterior(noise, path[0], path[4], now, now - 2)
    for law, x in ((marginal, path[4]), (posterior, path[2])):
        z = (x - law.mean) / law.var.sqrt()  # standard normal if the law is right
        assert abs(z.mean().item()) <= 4.5 / math.sqrt(n)
        assert abs(z.square().mean().item() - 1) <= 4.5 * math.sqrt(2 / n)
    assert abs((z * path[4]).mean().item()) <= 4.5 * (z * path[4]).std().item() / math.sqrt(n)


@pytest.mark.parametrize("event", [(), (3,), (1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_results_have_the_shape_and_dtype_of_the_data(event: tuple[int, ...], dtype: torch.dtype) -> None:
    noise = SCHEDULES["linear-1000"]
    x_0, x_t = normal(30, 4, *event, dtype=dtype), normal(31, 4, *event, dtype=dtype)
    t = torch.tensor([1000, 1, 17, 400])
    laws = [
        forward.q_transition(noise, x_0, t // 2, t),
        forward.q_marginal(noise, x_0, t),
        forward.q_posterior(noise, x_0, x_t, t),
    ]
    for x in (*(part for law in laws for part in law), forward.q_sample(noise, x_0, t, x_t)):
        assert x.shape == x_0.shape
        assert x.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_coefficients_are_rounded_once_from_float64(dtype: torch.dtype) -> None:
    noise = SCHEDULES["linear-1000"]
    t = torch.arange(1, 1001)
    ones, zeros = torch.ones(1000, dtype=torch.float64), torch.zeros(1000, dtype=torch.float64)
    for x_0, x_t in ((ones, zeros), (zeros, ones)):
        exact = forward.q_posterior(noise, x_0, x_t, t)
        rounded = forward.q_posterior(noise, x_0.to(dtype), x_t.to(dtype), t)
        assert torch.equal(rounded.mean, exact.mean.to(dtype))
        assert torch.equal(rounded.var, exact.var.to(dtype))
        assert torch.equal(
            forward.q_sample(noise, x_0.to(dtype), t, x_t.to(dtype)), forward.q_sample(noise, x_0, t, x_t).to(dtype)
        )


def test_each_example_has_its_own_time() -> None:
    noise = SCHEDULES["linear-6"]
    x_0, x_t, t, s = normal(32, 4, 1, 2), normal(33, 4, 1, 2), torch.tensor([6, 2, 4, 3]), torch.tensor([0, 1, 3, 1])
    whole = forward.q_posterior(noise, x_0, x_t, t, s)
    for b in range(4):
        one = slice(b, b + 1)
        alone = forward.q_posterior(noise, x_0[one], x_t[one], t[one], s[one])
        assert torch.equal(whole.mean[one], alone.mean)
        assert torch.equal(whole.var[one], alone.var)


def test_gradients_reach_the_data() -> None:
    noise, t = SCHEDULES["linear-6"], torch.tensor([1, 3, 6])
    x_0, x_t = normal(34, 3, 2).requires_grad_(), normal(35, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x_0, x_t: forward.q_posterior(noise, x_0, x_t, t).mean, (x_0, x_t))
    assert torch.autograd.gradcheck(lambda x_0, x_t: forward.q_sample(noise, x_0, t, x_t), (x_0, x_t))


GOOD = {"x": torch.zeros(2, 3), "t": torch.tensor([2, 6]), "s": torch.tensor([0, 3])}
BAD_TIMES = [
    ({"t": torch.tensor([0, 3])}, "t was 0; it must be in 1..6"),
    ({"t": torch.tensor([7, 3])}, "t was 7; it must be in 1..6"),
    ({"t": torch.tensor([-1, 3])}, "t was -1; it must be in 1..6"),
    ({"t": torch.tensor([1.0, 3.0])}, "the dtype of t was torch.float32; it must be torch.int64"),
    ({"t": torch.tensor([3])}, r"the shape of t was \(1,\); it must be \(2\)"),
    ({"t": torch.tensor([[3], [3]])}, r"the shape of t was \(2, 1\); it must be \(2\)"),
    ({"t": torch.tensor(3)}, r"the shape of t was \(\); it must be \(2\)"),
    ({"x": torch.tensor([[1, 2, 3], [4, 5, 6]])}, "the dtype of x_. was torch.int64; it must be a floating-point"),
    ({"x": torch.full((2, 3), math.nan)}, "x_. was nan; it must be finite"),
    ({"x": torch.full((2, 3), math.inf)}, "x_. was inf; it must be finite"),
    ({"x": torch.tensor(1.0)}, "the number of dimensions of the data was 0; it must be at least 1"),
]
BAD_EARLIER_TIMES = [
    ({"s": torch.tensor([2, 3])}, "s was 2; it must be less than t"),
    ({"s": torch.tensor([0, 6])}, "s was 6; it must be less than t"),
    ({"s": torch.tensor([-1, 3])}, "s was -1; it must be in 0..6"),
    ({"s": torch.tensor([0.0, 3.0])}, "the dtype of s was torch.float32; it must be torch.int64"),
    ({"s": torch.tensor([0])}, r"the shape of s was \(1,\); it must be \(2\)"),
]
BAD_PARTNERS = [
    ({"y": torch.zeros(1, 3)}, r"the shape of \w+ was \(1, 3\); it must be \(2, 3\)"),
    ({"y": torch.zeros(3)}, r"the shape of \w+ was \(3,\); it must be \(2, 3\)"),
    ({"y": torch.zeros(2, 3, dtype=torch.float64)}, r"the dtype of \w+ was torch.float64; it must be torch.float32"),
    ({"y": torch.full((2, 3), math.nan)}, r"(x_t|noise) was nan; it must be finite"),
    ({"y": torch.zeros(2, 3), "x": torch.full((2, 3), math.nan)}, "x_0 was nan; it must be finite"),
]
CALLS = {
    "transition": lambda n, a: forward.q_transition(n, a["x"], a["s"], a["t"]),
    "marginal": lambda n, a: forward.q_marginal(n, a["x"], a["t"]),
    "sample": lambda n, a: forward.q_sample(n, a["x"], a["t"], a.get("y", a["x"])),
    "posterior": lambda n, a: forward.q_posterior(n, a["x"], a.get("y", a["x"]), a["t"]),
    "posterior-s": lambda n, a: forward.q_posterior(n, a["x"], a.get("y", a["x"]), a["t"], a["s"]),
}


@pytest.mark.parametrize(
    ("call", "change", "message"),
    [(name, *bad) for name in CALLS for bad in BAD_TIMES]
    + [(name, *bad) for name in ("transition", "posterior-s") for bad in BAD_EARLIER_TIMES]
    + [(name, *bad) for name in ("sample", "posterior") for bad in BAD_PARTNERS],
)
def test_bad_input_is_named(call: str, change: dict, message: str) -> None:
    CALLS[call](SCHEDULES["linear-6"], GOOD)
    with pytest.raises(ValueError, match=message):
        CALLS[call](SCHEDULES["linear-6"], GOOD | change)


@settings(deadline=None, max_examples=60)
@given(st.integers(-5, 12), st.integers(-5, 12))
def test_times_are_refused_exactly_when_out_of_order(s: int, t: int) -> None:
    noise, x = SCHEDULES["linear-6"], torch.zeros(1, 2)
    refused = []
    for call in (CALLS["transition"], CALLS["posterior-s"]):
        try:
            call(noise, {"x": x, "s": torch.tensor([s]), "t": torch.tensor([t])})
            refused.append(False)
        except ValueError as error:
            refused.append("; it must be " in str(error))
    assert refused == [not 0 <= s < t <= 6] * 2


@pytest.fixture
def no_shape_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler cannot trace the shape annotations' own checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch.compiler.reset()


@pytest.mark.usefixtures("no_shape_annotations")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_sample_and_posterior_compile_into_one_graph(backend: str) -> None:
    noise, t = schedule.linear(1000), torch.tensor([1, 1000, 3])
    x_0, x_t = normal(36, 3, 2, dtype=torch.float32), normal(37, 3, 2, dtype=torch.float32)

    def both(x_0: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return forward.q_sample(noise, x_0, t, x_t), *forward.q_posterior(noise, x_0, x_t, t)

    compiled = torch.compile(both, fullgraph=True, backend=backend)
    for actual, expected in zip(compiled(x_0, x_t, t), both(x_0, x_t, t)):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_no_value_is_read_off_an_accelerator() -> None:
    noise = schedule.linear(10)
    x, t = torch.empty(3, 2, device="meta"), torch.empty(3, dtype=torch.int64, device="meta")  # has no values to read
    assert forward.q_sample(noise, x, t, x).device.type == "meta"
    for law in (
        forward.q_transition(noise, x, t, t),
        forward.q_marginal(noise, x, t),
        forward.q_posterior(noise, x, x, t),
        forward.q_posterior(noise, x, x, t, t),
    ):
        assert law.mean.device.type == law.var.device.type == "meta"
        assert law.mean.shape == law.var.shape == x.shape
