"""The samplers against affine recursions, quantile maps, chained transitions and the data they should give."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Tensor

from dmlib.diffusion import bounds, forward, sampling, schedule
from dmlib.probability import mixture

F64 = torch.float64
NOISE = schedule.linear(6, 0.05, 0.6)
DATA = mixture.Mixture(torch.ones(1, dtype=F64), torch.tensor([[0.7]], dtype=F64), torch.tensor([0.3], dtype=F64))
EXACT = mixture.as_denoiser(DATA, NOISE)
ALL, SOME = [6, 5, 4, 3, 2, 1, 0], [5, 2, 1, 0]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-12, scaled by what is expected."""
    assert actual.shape == expected.shape
    assert ((actual - expected).abs() <= 1e-12 * expected.abs().clamp(min=1)).all()


def assert_law(x: Tensor, mean: float, var: float) -> None:
    """Draws [N] of a normal law: its mean and variance by their z-scores."""
    z = (x - mean) / math.sqrt(var)
    assert abs(z.mean().item()) <= 4.5 / math.sqrt(len(z))
    assert abs(z.square().mean().item() - 1) <= 4.5 * math.sqrt(2 / len(z))


def chained(x: Tensor, times: list[int], generator: torch.Generator, **kwargs: object) -> Tensor:
    """[N+1, B, ..]: single transitions one after the other, the last without noise."""
    states = [x]
    for t, s in itertools.pairwise(times):
        t, s = (torch.full((len(x),), n) for n in (t, s))
        law = bounds.p_transition(EXACT, NOISE, states[-1], t, s=s, **kwargs)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) if s[0] > 0 else 0.0
        states.append(law.mean + law.var.sqrt() * noise)
    return torch.stack(states)


VARIANCES = {
    "posterior": "posterior",
    "beta": "beta",
    "table": torch.linspace(0.1, 0.7, 7, dtype=F64),
    "function": lambda x_t, t: 0.1 * t[:, None] + x_t**2,
}


@pytest.mark.parametrize("times", [ALL, SOME, [6, 0], [1, 0]])
@pytest.mark.parametrize("variance", VARIANCES.values(), ids=VARIANCES.keys())
def test_ancestral_chains_the_models_transitions(variance: object, times: list[int]) -> None:
    x_T = normal(0, 4, 1)
    path = sampling.ancestral(EXACT, NOISE, x_T, generator=seeded(1), times=times, variance=variance)
    assert_near(path.x, chained(x_T, times, seeded(1), variance=variance))
    assert path.t.tolist() == times
    for x, x_0_hat, t in zip(path.x[:-1], path.x_0_hat, times[:-1], strict=True):
        assert_near(x_0_hat, EXACT(x, torch.full((4,), t)))
    assert torch.equal(path.x[-1], path.x_0_hat[-1])  # no noise is added at the end


def test_all_times_are_the_default() -> None:
    x_T = normal(2, 3, 1)
    default = sampling.ancestral(EXACT, NOISE, x_T, generator=seeded(3))
    for other in (ALL, torch.tensor(ALL), range(6, -1, -1)):
        path = sampling.ancestral(EXACT, NOISE, x_T, generator=seeded(3), times=other)
        assert torch.equal(path.x, default.x)
        assert torch.equal(path.x_0_hat, default.x_0_hat)
        assert torch.equal(path.t, default.t)
    assert default.x.shape == (7, 3, 1)
    assert default.x_0_hat.shape == (6, 3, 1)
    assert default.t.tolist() == ALL


@pytest.mark.parametrize("times", [ALL, SOME, [6, 1, 0]])
def test_ddim_with_all_its_noise_is_ancestral(times: list[int]) -> None:
    x_T = normal(4, 5, 1)
    one = sampling.ddim(EXACT, NOISE, x_T, times=times, eta=1.0, generator=seeded(5))
    other = sampling.ancestral(EXACT, NOISE, x_T, times=times, generator=seeded(5))
    assert_near(one.x, other.x)
    assert_near(one.x_0_hat, other.x_0_hat)
    less = sampling.ddim(EXACT, NOISE, x_T, times=times, eta=0.9, generator=seeded(5))
    assert (less.x[1] - other.x[1]).abs().max().item() > 1e-3


@pytest.mark.parametrize("times", [ALL, SOME])
def test_moments_propagate_as_the_affine_steps_say(times: list[int]) -> None:
    path = sampling.ancestral(EXACT, NOISE, normal(6, 20_000, 1), generator=seeded(7), times=times)
    mean, var = 0.0, 1.0
    alpha_bar = NOISE.alpha_bar.tolist()
    for i, (t, s) in enumerate(itertools.pairwise(times), 1):
        gain = math.sqrt(alpha_bar[t]) * 0.3 / (1 - 0.7 * alpha_bar[t])  # E[x_0 given x_t] = 0.7 + gain (x_t - ..)
        added = 1 - alpha_bar[t] / alpha_bar[s]
        of_x_0 = math.sqrt(alpha_bar[s]) * added / (1 - alpha_bar[t])
        of_x_t = math.sqrt(alpha_bar[t] / alpha_bar[s]) * (1 - alpha_bar[s]) / (1 - alpha_bar[t])
        slope = of_x_t + of_x_0 * gain
        mean = slope * mean + of_x_0 * 0.7 * (1 - gain * math.sqrt(alpha_bar[t]))
        var = slope**2 * var + added * (1 - alpha_bar[s]) / (1 - alpha_bar[t])
        assert_law(path.x[i, :, 0], mean, var)


def test_ddim_without_noise_becomes_the_quantile_map() -> None:
    x_T, errors = torch.linspace(-3, 3, 13, dtype=F64)[:, None], []
    for T in (40, 400):
        noise = schedule.cosine(T)
        start = forward.q_marginal(noise, torch.full_like(x_T, 0.7), torch.full((13,), T)).mean
        std = math.sqrt(1 - 0.7 * noise.alpha_bar[T].item())
        quantile = 0.7 + math.sqrt(0.3) * (x_T - start) / std
        path = sampling.ddim(mixture.as_denoiser(DATA, noise), noise, x_T, times=range(T, -1, -1))
        errors.append((path.x[-1] - quantile).abs().max().item())
    assert errors[1] < 2e-2
    assert 8 < errors[0] / errors[1] < 12  # first order in the step


@pytest.mark.parametrize("times", [ALL, SOME])
def test_ddim_without_noise_keeps_the_noise_it_sees(times: list[int]) -> None:
    x_0, noise = normal(8, 4, 2, 2), normal(9, 4, 2, 2)
    x_T = forward.q_sample(NOISE, x_0, torch.full((4,), times[0]), noise)
    path = sampling.ddim(lambda x_t, t: x_0, NOISE, x_T, times=times)
    for x, t in zip(path.x[:-1], times[:-1]):
        assert_near(x, forward.q_sample(NOISE, x_0, torch.full((4,), t), noise))
    assert torch.equal(path.x[-1], x_0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_every_marginal_whatever_its_noise(eta: float) -> None:
    x_0 = torch.full((20_000, 1), 1.3, dtype=F64)
    x_T = forward.q_sample(NOISE, x_0, torch.full((20_000,), 6), normal(10, 20_000, 1))
    path = sampling.ddim(lambda x_t, t: x_0, NOISE, x_T, times=[6, 4, 3, 1, 0], eta=eta, generator=seeded(11))
    for x, t in zip(path.x[:-1], path.t):
        assert_law(x[:, 0], math.sqrt(NOISE.alpha_bar[t]) * 1.3, 1 - NOISE.alpha_bar[t].item())


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_exact_denoiser_gives_the_data(sampler: str) -> None:
    data = mixture.Mixture(
        torch.tensor([0.25, 0.75], dtype=F64), torch.tensor([[-1.0, 0.4], [0.9, -0.3]], dtype=F64),
        torch.tensor([0.02, 0.1], dtype=F64),
    )  # fmt: skip
    noise, n = schedule.cosine(200), 4000
    denoiser, x_T = mixture.as_denoiser(data, noise), normal(12, n, 2)
    if_all = {"generator": seeded(13), "keep": [0]}
    paths = {
        "ancestral": lambda: sampling.ancestral(denoiser, noise, x_T, **if_all),
        "ddim": lambda: sampling.ddim(denoiser, noise, x_T, times=range(200, -1, -1), **if_all),
    }
    x, y = paths[sampler]().x[-1], mixture.sample(data, n, generator=seeded(14))
    for feature in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x[:, 0] * x[:, 1], lambda x: (x**2).sum(1)):
        assert scipy.stats.ks_2samp(feature(x), feature(y)).pvalue > 1e-4
    left = (x[:, 0] < 0).double().mean().item() - (y[:, 0] < 0).double().mean().item()
    assert abs(left) <= 4.5 * math.sqrt(2 * 0.25 * 0.75 / n)
    assert scipy.stats.ks_2samp(x_T[:, 0], y[:, 0]).pvalue < 1e-10  # what the test rejects


@pytest.mark.parametrize("keep", [[0], [6], [3, 6], [0, 4], torch.tensor([5, 1, 0])])
def test_only_the_times_asked_for_are_kept(keep: object) -> None:
    x_T = normal(15, 2, 1)
    whole = sampling.ancestral(EXACT, NOISE, x_T, generator=seeded(16))
    wanted = sorted((int(t) for t in keep), reverse=True)
    noisy = [t for t in wanted if t > 0]
    part = sampling.ancestral(EXACT, NOISE, x_T, generator=seeded(16), keep=keep)
    assert part.t.tolist() == wanted
    assert torch.equal(part.x, whole.x[[6 - t for t in wanted]])
    assert torch.equal(part.x_0_hat, whole.x_0_hat[[6 - t for t in noisy]])
    assert part.x_0_hat.shape == (len(noisy), 2, 1)
    assert torch.equal(sampling.ddim(EXACT, NOISE, x_T, times=ALL, keep=keep).t, part.t)


@pytest.mark.parametrize("event", [(), (3,), (1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_have_the_shape_and_dtype_of_the_noise(event: tuple[int, ...], dtype: torch.dtype) -> None:
    x_T = normal(17, 2, *event, dtype=dtype)
    for path in (
        sampling.ancestral(lambda x, t: 0.5 * x, NOISE, x_T, generator=seeded(18)),
        sampling.ddim(lambda x, t: 0.5 * x, NOISE, x_T, times=SOME, eta=0.3, generator=seeded(18)),
    ):
        assert path.x.shape[1:] == path.x_0_hat.shape[1:] == x_T.shape
        assert path.x.dtype == path.x_0_hat.dtype == dtype
        assert torch.equal(path.x[0], x_T)


def test_a_generator_decides_the_path() -> None:
    x_T = normal(19, 3, 1)
    one, same, other = (sampling.ancestral(EXACT, NOISE, x_T, generator=seeded(i)).x for i in (20, 20, 21))
    assert torch.equal(one, same)
    assert not torch.equal(one[-1], other[-1])
    idle = seeded(22)
    first = sampling.ddim(EXACT, NOISE, x_T, times=ALL, generator=idle)
    assert torch.equal(idle.get_state(), seeded(22).get_state())  # without noise, no draw
    assert torch.equal(first.x, sampling.ddim(EXACT, NOISE, x_T, times=ALL).x)


def test_no_graph_is_kept() -> None:
    weight = torch.tensor(0.5, dtype=F64, requires_grad=True)
    path = sampling.ancestral(lambda x, t: weight * x, NOISE, normal(23, 2, 1), generator=seeded(24))
    assert not path.x.requires_grad
    assert not path.x_0_hat.requires_grad


def angled(T: int) -> schedule.NoiseSchedule:
    """alpha_bar is the squared cosine of an angle that grows evenly to a right one."""
    return schedule.NoiseSchedule((torch.arange(T + 1, dtype=F64) / T * math.pi / 2).cos() ** 2)


def spread(noise: schedule.NoiseSchedule, t: int) -> float:
    """The standard deviation of x_t for the data of this module."""
    return math.sqrt(1 - 0.7 * noise.alpha_bar[t].item())


def followed(noise: schedule.NoiseSchedule, x: Tensor, t: int, s: int) -> Tensor:
    """Where the probability flow takes x from t to s: normal data keep their quantile."""
    before, after = (0.7 * noise.alpha_bar[n].sqrt() for n in (t, s))
    return after + spread(noise, s) / spread(noise, t) * (x - before)


@pytest.mark.parametrize(
    ("run", "order"), [(sampling.ddim, 1), (sampling.heun, 2)], ids=["ddim is of order 1", "heun is of order 2"]
)
def test_the_error_falls_with_the_order_of_the_solver(run: Callable, order: int) -> None:
    noise, x_T, errors = angled(256), torch.linspace(-3, 3, 7, dtype=F64)[:, None], []
    exact, last = followed(noise, x_T, 256, 0), followed(noise, x_T, 256, 64)
    for steps in (16, 32, 64):
        path = run(mixture.as_denoiser(DATA, noise), noise, x_T, times=range(256, -1, -256 // steps), keep=[64, 0])
        errors.append(torch.stack([(path.x[0] - last).abs().max(), (path.x[1] - exact).abs().max()]))
    for coarse, fine in itertools.pairwise(errors):
        assert torch.allclose((coarse / fine).log2(), torch.tensor(float(order), dtype=F64), atol=0.1)


@pytest.mark.parametrize("times", [ALL, SOME, [6, 1, 0]])
def test_heun_is_exact_where_clean_image_and_noise_stay_the_same(times: list[int]) -> None:
    x_0, noise = normal(8, 4, 2, 2), normal(9, 4, 2, 2)
    x_T = forward.q_sample(NOISE, x_0, torch.full((4,), times[0]), noise)
    path = sampling.heun(lambda x_t, t: x_0, NOISE, x_T, times=times)
    for x, t in zip(path.x[:-1], times[:-1]):
        assert_near(x, forward.q_sample(NOISE, x_0, torch.full((4,), t), noise))
    assert torch.equal(path.x[-1], x_0)


def test_heun_asks_twice_in_each_step_but_the_last() -> None:
    asked = []

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        asked.append(t.unique().item())
        return EXACT(x, t)

    path = sampling.heun(denoiser, NOISE, normal(25, 3, 1), times=[6, 4, 1, 0])
    assert asked == [6, 4, 4, 1, 1]
    assert path.t.tolist() == [6, 4, 1, 0]
    for x, x_0_hat, t in zip(path.x[:-1], path.x_0_hat, path.t[:-1], strict=True):
        assert_near(x_0_hat, EXACT(x, t.expand(3)))
    one = sampling.ddim(EXACT, NOISE, path.x[2], times=[1, 0])
    assert_near(path.x[-1], one.x[-1])


def test_heun_begins_where_no_signal_is_left() -> None:
    noise = schedule.NoiseSchedule(torch.cat([angled(16).alpha_bar[:-1], torch.zeros(1, dtype=F64)]))
    x_T = normal(26, 5, 1)
    path = sampling.heun(mixture.as_denoiser(DATA, noise), noise, x_T, times=range(16, -1, -1))
    assert (path.x[-1] - followed(noise, x_T, 16, 0)).abs().max() < 0.02


@pytest.mark.parametrize("times", [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 5], [0, 6], range(0, 7, 2)])
def test_the_inverse_keeps_the_clean_image_and_the_noise_that_it_sees(times: object) -> None:
    x_0 = normal(27, 4, 1)
    path = sampling.ddim_inverse(EXACT, NOISE, x_0, times=times)
    assert path.t.tolist() == list(times)
    assert torch.equal(path.x[0], x_0)
    assert torch.equal(path.x_0_hat[0], x_0)
    assert_near(path.x[1], NOISE.alpha_bar[path.t[1]].sqrt() * x_0)  # no noise is seen in the data
    for i in range(1, len(path.t) - 1):
        here, there = NOISE.alpha_bar[path.t[i]], NOISE.alpha_bar[path.t[i + 1]]
        x_0_hat = EXACT(path.x[i], path.t[i].expand(4))
        noise = (path.x[i] - here.sqrt() * x_0_hat) / (1 - here).sqrt()
        assert_near(path.x_0_hat[i], x_0_hat)
        assert_near(path.x[i + 1], there.sqrt() * x_0_hat + (1 - there).sqrt() * noise)


def test_there_and_back_is_the_identity_to_first_order() -> None:
    noise, x_0, errors = angled(256), torch.linspace(-1, 2, 7, dtype=F64)[:, None], []
    denoiser = mixture.as_denoiser(DATA, noise)
    for steps in (32, 64, 128):
        up = torch.linspace(0, 256, steps + 1).round().long()
        there = sampling.ddim_inverse(denoiser, noise, x_0, times=up, keep=[256])
        back = sampling.ddim(denoiser, noise, there.x[-1], times=up.flip(0), keep=[0])
        exact = (x_0 - 0.7) / math.sqrt(0.3)  # what the flow makes of it at T
        errors.append(torch.stack([(back.x[-1] - x_0).abs().max(), (there.x[-1] - exact).abs().max()]))
    for coarse, fine in itertools.pairwise(errors):
        assert torch.allclose((coarse / fine).log2(), torch.ones(2, dtype=F64), atol=0.15)
    assert errors[-1].max() < 0.06


def test_the_inverse_keeps_what_it_is_asked_for_and_no_graph() -> None:
    x_0 = normal(28, 2, 1, 2, 2, dtype=torch.float32).requires_grad_()
    whole = sampling.ddim_inverse(lambda x, t: 0.5 * x, NOISE, x_0, times=range(7))
    part = sampling.ddim_inverse(lambda x, t: 0.5 * x, NOISE, x_0, times=range(7), keep=[4, 6])
    assert part.t.tolist() == [4, 6]
    assert torch.equal(part.x, whole.x[[4, 6]])
    assert torch.equal(part.x_0_hat, whole.x_0_hat[[4]])
    assert whole.x.dtype == torch.float32
    assert not whole.x.requires_grad
    last = sampling.heun(lambda x, t: 0.5 * x, NOISE, x_0, times=ALL, keep=[0])
    assert last.x.shape == (1, 2, 1, 2, 2)
    assert not last.x.requires_grad


X = torch.zeros(2, 1)


def ancestral(
    times: object = None, x_T: Tensor = X, denoiser: Callable = EXACT, **kwargs: object
) -> sampling.Trajectory:
    return sampling.ancestral(denoiser, NOISE, x_T, generator=seeded(0), times=times, **kwargs)


BAD = [
    (lambda: ancestral([6, 3, 3, 0]), r"times was \[6, 3, 3, 0\]; it must be strictly decreasing"),
    (lambda: ancestral([0, 3, 6]), "the last of times was 6; it must be 0, the data"),
    (lambda: ancestral([6, 3]), "the last of times was 3; it must be 0, the data"),
    (lambda: ancestral([7, 0]), "the first of times was 7; it must be at most T, which is 6"),
    (lambda: ancestral([0]), "the length of times was 1; it must be at least 2"),
    (lambda: ancestral(torch.tensor([6.0, 0.0])), "the dtype of times was torch.float32; it must be torch.int64"),
    (lambda: ancestral(torch.tensor([[6, 0]])), r"the shape of times was \(1, 2\)"),
    (lambda: ancestral(torch.zeros(2, device="meta").long()), "the device of times was meta; it must be the CPU"),
    (lambda: ancestral(keep=[7]), r"keep was \[7\]; it must be among the times"),
    (lambda: ancestral([6, 3, 0], keep=[4, 0]), r"keep was \[4\]; it must be among the times"),
    (lambda: ancestral(keep=torch.tensor([], dtype=torch.int64)), r"keep was \[\]; it must be some of times"),
    (lambda: ancestral(variance="learned"), "variance was 'learned'; it must be 'posterior', 'beta'"),
    (lambda: ancestral(variance=torch.ones(6)), r"the shape of variance was \(6,\); it must be \(7\)"),
    (lambda: ancestral(x_T=torch.zeros(2, 1).long()), "the dtype of x_T was torch.int64"),
    (lambda: ancestral(x_T=torch.tensor(0.0)), r"the shape of x_T was \(\); it must be"),
    (lambda: ancestral(x_T=torch.full((2, 1), math.nan)), "x_T was nan; it must be finite"),
    (lambda: ancestral(denoiser=lambda x, t: x[:1]), r"the shape of the prediction was \(1, 1\)"),
    (lambda: ancestral(denoiser=lambda x, t: x.double()), "the dtype of the prediction was torch.float64"),
    (lambda: sampling.ddim(EXACT, NOISE, X, times=ALL, eta=1.1), r"eta was 1.1; it must be in \[0, 1\]"),
    (lambda: sampling.ddim(EXACT, NOISE, X, times=ALL, eta=-0.1), r"eta was -0.1; it must be in \[0, 1\]"),
    (lambda: sampling.ddim(EXACT, NOISE, X, times=ALL, eta=0.5), "generator was None; it must be a torch.Generator"),
    (lambda: sampling.ddim(EXACT, NOISE, X, times=[3, 5, 0]), "times was .*; it must be strictly decreasing"),
    (lambda: sampling.heun(EXACT, NOISE, X, times=[3, 5, 0]), "times was .*; it must be strictly decreasing"),
    (lambda: sampling.heun(EXACT, NOISE, X, times=[0, 3]), "the last of times was 3; it must be 0, the data"),
    (lambda: sampling.heun(EXACT, NOISE, torch.tensor(0.0), times=ALL), r"the shape of x_T was \(\)"),
    (lambda: sampling.heun(lambda x, t: x[:1], NOISE, X, times=ALL), "the shape of the prediction"),
    (lambda: sampling.heun(lambda x, t: x if t[0] > 5 else x[:1], NOISE, X, times=ALL), "the shape of the prediction"),
    (lambda: sampling.ddim_inverse(EXACT, NOISE, X, times=ALL), "the first of times was 6; it must be 0, the data"),
    (lambda: sampling.ddim_inverse(EXACT, NOISE, X, times=[0]), "the length of times was 1; it must be at least 2"),
    (lambda: sampling.ddim_inverse(EXACT, NOISE, X, times=[0, 2, 2]), "times was .*; it must be strictly increasing"),
    (lambda: sampling.ddim_inverse(EXACT, NOISE, X, times=[0, 7]), "the last of times was 7; it must be at most T, wh"),
    (lambda: sampling.ddim_inverse(EXACT, NOISE, X, times=[0, 3], keep=[1]), r"keep was \[1\]; it must be among the t"),
    (lambda: sampling.ddim_inverse(EXACT, NOISE, X.long(), times=[0, 3]), "the dtype of x_0 was torch.int64"),
    (lambda: sampling.ddim_inverse(EXACT, NOISE, torch.tensor(0.0), times=[0, 3]), r"the shape of x_0 was \(\)"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
