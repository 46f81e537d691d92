"""Bounds from a table of errors, beside the bound itself, Gaussian divergences, and the best by search."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dmlib.diffusion import bounds, forward, schedule, variances
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.probability import gaussian, mixture

F64 = torch.float64
NOISE = schedule.linear(6, 0.05, 0.6)


def wrong(x_t: Tensor, t: Tensor) -> Tensor:
    """A denoiser that is far from the best one."""
    return 0.2 - 0.3 * x_t + 0.05 * t[:, None].to(x_t.dtype)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


X_0, NOISES = normal(0, 5, 3), normal(1, 6, 5, 3)
ERRORS = variances.prediction_errors(wrong, NOISE, X_0, NOISES)


def costs_of_gaussians(variance: str | Tensor) -> Tensor:
    """The divergences of the transitions 2..T from the distributions themselves."""
    columns = []
    for t in range(2, NOISE.T + 1):
        times = torch.full((len(X_0),), t)
        x_t = forward.q_sample(NOISE, X_0, times, NOISES[t - 1])
        ours = bounds.p_transition(wrong, NOISE, x_t, times, variance=variance)
        columns.append(gaussian.kl(forward.q_posterior(NOISE, X_0, x_t, times), ours))
    return torch.stack(columns, 1)


def test_errors_are_those_of_the_prediction_at_each_time():
    for t in range(1, NOISE.T + 1):
        x_t = NOISE.alpha_bar[t].sqrt() * X_0 + (1 - NOISE.alpha_bar[t]).sqrt() * NOISES[t - 1]
        expected = (wrong(x_t, torch.full((5,), t)) - X_0).square().sum(1)
        torch.testing.assert_close(ERRORS[:, t - 1], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("variance", ["posterior", "beta", torch.linspace(0.1, 0.9, 7, dtype=F64)])
def test_costs_are_the_divergences_of_the_steps(variance):
    actual = variances.step_costs(NOISE, ERRORS, 3, variance)
    torch.testing.assert_close(actual, costs_of_gaussians(variance), rtol=1e-12, atol=1e-12)


def test_costs_are_the_transitions_of_the_bound():
    terms = bounds.denoising_form(wrong, NOISE, X_0, NOISES, lambda x_0, x_1: x_0.new_zeros(len(x_0)))
    actual = variances.step_costs(NOISE, ERRORS, 3)
    torch.testing.assert_close(actual, terms.transitions, rtol=1e-12, atol=1e-12)


def test_costs_grow_evenly_with_the_dimensions_from_one_on():
    one, two, three = (variances.step_costs(NOISE, ERRORS, dims, "beta") for dims in (1, 2, 3))
    torch.testing.assert_close(three - two, two - one)
    assert (two > one).all()


def test_a_chain_of_some_of_the_times_needs_no_new_errors():
    kept = torch.tensor([0, 2, 3, 6])
    short = NoiseSchedule(NOISE.alpha_bar[kept])
    again = variances.prediction_errors(
        lambda x, i: wrong(x, kept[i]), short, X_0, [NOISES[t - 1] for t in kept[1:].tolist()]
    )
    torch.testing.assert_close(again, ERRORS[:, kept[1:] - 1], rtol=1e-12, atol=0)


def test_the_best_variance_costs_least_and_no_other_does():
    best = variances.best_variance(NOISE, ERRORS, 3)
    assert (best[:2] == 0).all()
    least = variances.step_costs(NOISE, ERRORS, 3, best).mean(0)
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert (variances.step_costs(NOISE, ERRORS, 3, best * factor).mean(0) > least).all()
    assert (least < variances.step_costs(NOISE, ERRORS, 3).mean(0)).all()


def test_without_errors_the_best_variance_is_the_posteriors():
    none = torch.zeros(2, 6, dtype=F64)
    t = torch.arange(2, 7)
    expected = NOISE.beta[t] * (1 - NOISE.alpha_bar[t - 1]) / (1 - NOISE.alpha_bar[t])
    torch.testing.assert_close(variances.best_variance(NOISE, none, 3)[2:], expected, rtol=1e-12, atol=0)
    assert variances.step_costs(NOISE, none, 3).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: variances.prediction_errors(wrong, NOISE, X_0, NOISES[:4]), "the number of noises was 4; it must be"),
        (lambda: variances.prediction_errors(wrong, NOISE, X_0, [*NOISES, X_0]), "the number of noises was 7 or more"),
        (lambda: variances.prediction_errors(wrong, NOISE, X_0, NOISES[:, :1]), "the shape of noise 1"),
        (lambda: variances.step_costs(NOISE, ERRORS[:, 1:], 3), "the shape of errors"),
        (lambda: variances.step_costs(NOISE, -ERRORS, 3), "errors was -"),
        (lambda: variances.step_costs(NOISE, ERRORS, 0), "event_dims was 0"),
        (lambda: variances.step_costs(NOISE, ERRORS, 3, "best"), "variance was 'best'; it must be 'posterior', 'beta'"),
        (lambda: variances.step_costs(NOISE, ERRORS, 3, torch.ones(6)), "the shape of variance"),
        (lambda: variances.step_costs(NOISE, ERRORS, 3, torch.zeros(7)), "variance was 0.0; it must be more than 0"),
        (lambda: variances.best_variance(NOISE, ERRORS * float("nan"), 3), "errors was nan; it must be finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_optimal_variance_of_normal_data_is_what_x_t_leaves_of_the_state_before() -> None:
    """For normal data of any variance the reverse step is normal: its variance is that of the joint, conditioned."""
    noise, c2 = schedule.linear(6, 0.05, 0.6), 0.3
    data = torch.tensor([0.7, -0.2]) + c2**0.5 * torch.randn(20_000, 2, generator=seeded(40)).double()
    ones = torch.ones(1, dtype=torch.float64)
    exact = mixture.Mixture(ones, torch.tensor([[0.7, -0.2]], dtype=torch.float64), c2 * ones)
    table = bounds.optimal_variance(mixture.as_denoiser(exact, noise), noise, data, generator=seeded(41))
    assert table.shape == (7,)
    assert table.dtype == torch.float64
    assert table[:2].tolist() == [0, 0]
    var = 1 - noise.alpha_bar + c2 * noise.alpha_bar
    left = var[1:-1] - noise.alpha[2:] * var[1:-1] ** 2 / var[2:]
    assert torch.allclose(table[2:], left, rtol=0.03)
    assert not torch.allclose(table[2:], noise.beta[2:], rtol=0.03)


def test_the_optimal_variance_is_the_best_variance_of_errors_drawn_alike() -> None:
    noise, data = schedule.linear(4, 0.05, 0.6), torch.randn(5, 1, 2, 2, generator=seeded(42))
    denoiser = lambda x, t: 0.5 * x
    table = bounds.optimal_variance(denoiser, noise, data, generator=seeded(43))
    stream = seeded(43)
    noises = [torch.randn(data.shape, generator=stream) for _ in range(4)]
    errors = variances.prediction_errors(denoiser, noise, data, noises)
    assert torch.equal(table, variances.best_variance(noise, errors, 4))


def test_no_data_have_no_optimal_variance() -> None:
    with pytest.raises(ValueError, match="the number of rows of errors was 0; it must be 1 or more"):
        bounds.optimal_variance(lambda x, t: x, schedule.linear(4), torch.randn(0, 3), generator=seeded(44))
