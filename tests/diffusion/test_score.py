"""The probability flow in terms of a score, against quantile maps, a closed form and what the samplers do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dmlib.diffusion import sampling, schedule, score
from dmlib.probability import mixture

F64 = torch.float64
NOISE = schedule.linear(6, 0.05, 0.6)
PAIR = mixture.Mixture(*(torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [[-0.9], [0.8]], [0.05, 0.2])))


def angled(T: int, last: float = 0.02) -> schedule.NoiseSchedule:
    """alpha_bar is the squared cosine of an angle that grows evenly, nearly to a right one."""
    return schedule.NoiseSchedule((torch.arange(T + 1, dtype=F64) / T * (math.pi / 2 - last)).cos() ** 2)


def score_of(m: mixture.Mixture, noise: schedule.NoiseSchedule) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: mixture.score(m, x, noise.alpha_bar[t])


def below(m: mixture.Mixture, x: Tensor, alpha_bar: float) -> Tensor:
    """The share of the diffused mixture below x [B, 1]."""
    std = (alpha_bar * m.vars + 1 - alpha_bar).sqrt()
    return torch.special.ndtr((x - alpha_bar**0.5 * m.means[:, 0]) / std) @ m.weights


def test_in_one_dimension_it_keeps_the_share_below_to_second_order() -> None:
    noise, x_T, errors = angled(256), torch.linspace(-2, 2, 9, dtype=F64)[:, None], []
    start = below(PAIR, x_T, noise.alpha_bar[256].item())
    for steps in (16, 32, 64):
        path = score.probability_flow(score_of(PAIR, noise), noise, x_T, times=range(256, -1, -256 // steps))
        errors.append((below(PAIR, path.x[-1], 1.0) - start).abs().max())
    assert errors[-1] < 1e-3
    for coarse, fine in itertools.pairwise(errors):
        assert (coarse / fine).log2() == pytest.approx(2, abs=0.25)


def test_one_gaussian_is_scaled_about_its_mean() -> None:
    mean, var = torch.tensor([0.7, -1.1], dtype=F64), 0.3
    noise, x_T = angled(400), torch.tensor([[0.2, -1.0], [1.5, 0.4]], dtype=F64)

    def normal(x: Tensor, t: Tensor) -> Tensor:
        a = noise.alpha_bar[t][:, None]
        return (a.sqrt() * mean - x) / (a * var + 1 - a)

    path = score.probability_flow(normal, noise, x_T, times=range(400, -1, -1))
    assert path.t.tolist() == list(range(400, -1, -1))
    for i in (0, 100, 250, 399, 400):
        a, first = noise.alpha_bar[path.t[i]], noise.alpha_bar[400]
        shrunk = ((1 - a * (1 - var)) / (1 - first * (1 - var))).sqrt()
        assert (path.x[i] - a.sqrt() * mean - shrunk * (x_T - first.sqrt() * mean)).abs().max() < 2e-5


def test_it_predicts_what_the_score_claims() -> None:
    x_T = torch.linspace(-2, 2, 5, dtype=F64)[:, None]
    path = score.probability_flow(score_of(PAIR, NOISE), NOISE, x_T, times=[6, 4, 1, 0])
    assert path.x.shape == (4, 5, 1)
    for x, x_0_hat, t in zip(path.x[:-1], path.x_0_hat, path.t[:-1], strict=True):
        a = NOISE.alpha_bar[t].item()
        torch.testing.assert_close(x_0_hat, (x + (1 - a) * mixture.score(PAIR, x, a)) / a**0.5)
        torch.testing.assert_close(x_0_hat, mixture.posterior_mean(PAIR, x, a))
    other = sampling.heun(mixture.as_denoiser(PAIR, NOISE), NOISE, x_T, times=[6, 4, 1, 0])
    torch.testing.assert_close(path.x, other.x)


def test_an_event_of_any_shape_and_no_graph() -> None:
    weight = torch.tensor(0.5, requires_grad=True)
    path = score.probability_flow(lambda x, t: -weight * x, NOISE, torch.ones(2, 1, 3, 3), times=[5, 2, 0])
    assert path.x.shape == (3, 2, 1, 3, 3)
    assert path.x.dtype == torch.float32
    assert not path.x.requires_grad


X = torch.zeros(2, 1)
GONE = schedule.NoiseSchedule(torch.tensor([1.0, 0.5, 0.0], dtype=F64))


def flow(call: object = lambda x, t: -x, noise: object = NOISE, x_T: object = X, times: object = (6, 3, 0)) -> object:
    return score.probability_flow(call, noise, x_T, times=times)


BAD = [
    (lambda: flow(call=None), "score"),
    (lambda: flow(noise=NOISE.alpha_bar), "schedule"),
    (lambda: flow(noise=GONE, times=[2, 1, 0]), "t was 2; it must be such that score at x_t determines x_0"),
    (lambda: flow(x_T=torch.tensor(0.0)), r"the shape of x_T was \(\)"),
    (lambda: flow(x_T=torch.full((2, 1), math.nan)), "x_T was nan; it must be finite"),
    (lambda: flow(call=lambda x, t: x[:1]), r"the shape of the prediction was \(1, 1\)"),
    (lambda: flow(times=[3, 5, 0]), "times was .*; it must be strictly decreasing"),
    (lambda: flow(times=[6, 3]), "the last of times was 3; it must be 0, the data"),
    (lambda: flow(times=[0]), "the length of times was 1; it must be at least 2"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
