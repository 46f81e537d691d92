"""Bits per dimension and the three rungs, against enumeration, brute force and torch.distributions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, Independent, MixtureSameFamily

from dmlib import data, metrics, rng


def all_images(levels: int, dims: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=dims)))


def random_images(n: int, *event: int, levels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(levels, (n, *event), generator=rng.generator(seed))


def as_distribution(log_weights: torch.Tensor, log_probs: torch.Tensor) -> MixtureSameFamily:
    pixels = Independent(Categorical(logits=log_probs.permute(2, 0, 1)), 1)
    return MixtureSameFamily(Categorical(logits=log_weights), pixels)


def objective(images: torch.Tensor, log_weights: torch.Tensor, log_probs: torch.Tensor, strength: float) -> float:
    """What EM must not decrease: the data's log probability and that of the imaginary images."""
    n, dims = images.shape
    levels, counts = len(log_probs[0]), [torch.bincount(images[:, d], minlength=len(log_probs[0])) for d in range(dims)]
    rung = (torch.stack(counts) + 0.5) / (n + 0.5 * levels)
    imaginary = strength * (rung.unsqueeze(2) * log_probs).sum()
    return (as_distribution(log_weights, log_probs).log_prob(images).sum() + imaginary).item()


def test_bits_per_dim_of_fair_coins_is_one() -> None:
    log_prob = torch.tensor([12, 24], dtype=torch.float64) * math.log(0.5)
    np.testing.assert_allclose(metrics.bits_per_dim(log_prob, 12), [1, 2], rtol=1e-15)
    assert metrics.bits_per_dim(log_prob.float(), 12).dtype == torch.float32


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(1, 4))
def test_uniform_is_the_bits_of_equal_levels(levels: int, dims: int) -> None:
    pixel = Independent(Categorical(logits=torch.zeros(dims, levels, dtype=torch.float64)), 1)
    log_prob = pixel.log_prob(torch.zeros(1, dims))
    np.testing.assert_allclose(metrics.bits_per_dim(log_prob, dims).item(), metrics.uniform_bpd(levels), rtol=1e-12)


def test_independent_pixels_are_smoothed_frequencies() -> None:
    train, test = random_images(50, 1, 2, 3, levels=5), random_images(20, 1, 2, 3, levels=5, seed=1)
    expected = np.zeros(20)
    for d, n in itertools.product(range(6), range(20)):
        same = (train.flatten(1)[:, d] == test.flatten(1)[n, d]).sum().item()
        expected[n] += math.log((same + 0.3) / (50 + 5 * 0.3))
    found = metrics.independent_pixels(train, test, levels=5, smoothing=0.3)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_bytes_have_256_levels() -> None:
    train, test = random_images(50, 6, levels=256), random_images(20, 6, levels=256, seed=1)
    found = metrics.independent_pixels(train.to(torch.uint8), test.to(torch.uint8), levels=256)
    assert torch.equal(found, metrics.independent_pixels(train, test, levels=256))


def test_both_rungs_are_distributions() -> None:
    train, validation, every = random_images(40, 4), random_images(10, 4, seed=1), all_images(3, 4)
    independent = metrics.independent_pixels(train, every, levels=3)
    mixture, _ = metrics.mixture_of_products(train, validation, every, levels=3, sizes=(3,), generator=rng.generator(0))
    np.testing.assert_allclose(independent.logsumexp(0), 0, atol=1e-12)
    np.testing.assert_allclose(mixture.logsumexp(0), 0, atol=1e-12)


def test_mixture_of_one_is_independent_pixels() -> None:
    images = random_images(40, 2, 3, levels=4)
    frequencies = torch.stack([(images.flatten(1) == v).double().mean(0) for v in range(4)], 1)
    rung = torch.stack(
        [
            metrics.independent_pixels(images[..., d // 3, d % 3, None], torch.arange(4)[:, None], levels=4)
            for d in range(6)
        ]
    ).exp()
    log_weights, log_probs = metrics.expectation_maximization(images, 1, 4, generator=rng.generator(0), strength=5.0)
    assert log_weights.tolist() == [0.0]
    np.testing.assert_allclose(log_probs.squeeze(2).exp(), (40 * frequencies + 5 * rung) / 45, rtol=1e-12)


def test_mixture_is_refitted_on_all_and_is_that_of_torch_distributions() -> None:
    train, validation, test = (random_images(n, 2, 3, levels=4, seed=n) for n in (40, 10, 20))
    found, _ = metrics.mixture_of_products(train, validation, test, levels=4, sizes=[4], generator=rng.generator(0))
    g = rng.generator(0)
    metrics.expectation_maximization(train, 4, 4, generator=g)
    fit = metrics.expectation_maximization(torch.cat([train, validation]), 4, 4, generator=g)
    np.testing.assert_allclose(found, as_distribution(*fit).log_prob(test.flatten(1)), rtol=1e-12)


def test_em_never_decreases_its_objective_and_settles() -> None:
    images = data.digits("validation").flatten(1).long()
    values = []
    for iterations in range(1, 16):
        fit = metrics.expectation_maximization(images, 7, 17, generator=rng.generator(0), iterations=iterations)
        values.append(objective(images, *fit, strength=10.0))
    gains = np.diff(values)
    assert (gains >= -1e-9).all()
    assert gains[0] > 1
    assert gains[-1] < gains[0] / 100


def test_one_iteration_of_em_is_that_of_brute_force() -> None:
    images = random_images(12, 3)
    once, twice = (
        metrics.expectation_maximization(images, 2, 3, generator=rng.generator(5), iterations=i, strength=2.0)
        for i in (1, 2)
    )
    weights, probs, n = once[0].exp().numpy(), once[1].exp().numpy(), len(images)
    rung = [[((images[:, d] == v).sum().item() + 0.5) / (n + 1.5) for v in range(3)] for d in range(3)]
    total, counts = np.zeros(2), np.array(rung)[:, :, None] * 2.0 * np.ones(2)
    for x in images.tolist():
        joint = np.array([weights[k] * math.prod(probs[d, x[d], k] for d in range(3)) for k in range(2)])
        total += joint / joint.sum()
        for d in range(3):
            counts[d, x[d]] += joint / joint.sum()
    np.testing.assert_allclose(twice[0].exp(), total / n, rtol=1e-12)
    np.testing.assert_allclose(twice[1].exp(), counts / counts.sum(1, keepdims=True), rtol=1e-12)


def test_size_is_the_best_on_validation() -> None:
    bright = random_images(300, 1, seed=3).expand(-1, 20)  # Three kinds of images, each of one level
    flips = random_images(300, 20, seed=4)
    kept = torch.rand(300, 20, generator=rng.generator(6)) < 0.8
    three = torch.where(kept, bright, flips)
    one = random_images(300, 20)
    for images, sizes, expected in ((three, (1, 3), 3), (three, (3, 1), 3), (one, (1, 20), 1)):
        _, size = metrics.mixture_of_products(
            images[:200], images[200:], images, levels=3, sizes=sizes, generator=rng.generator(0)
        )
        assert size == expected


def test_size_is_chosen_by_the_evidence() -> None:
    kinds = random_images(200, 1, seed=3).expand(-1, 8)
    kept = torch.rand(200, 8, generator=rng.generator(6)) < 0.3
    images, sizes = torch.where(kept, kinds, random_images(200, 8, seed=4)), (1, 2, 3, 4)
    g, scores = rng.generator(0), []
    for size in sizes:
        fit = metrics.expectation_maximization(images[:120], size, 3, generator=g)
        scores.append(as_distribution(*fit).log_prob(images[120:]).mean().item())
    _, found = metrics.mixture_of_products(
        images[:120], images[120:], images, levels=3, sizes=sizes, generator=rng.generator(0)
    )
    assert found == sizes[int(np.argmax(scores))] > 1


def test_default_iterations_are_enough_on_digits() -> None:
    train, validation = (data.digits(split).flatten(1).long() for split in ("train", "validation"))
    default, long = (
        metrics.expectation_maximization(train, 20, 17, generator=rng.generator(0), **more)
        for more in ({}, {"iterations": 150})
    )
    log_probs = [as_distribution(*fit).log_prob(validation).mean() for fit in (default, long)]
    np.testing.assert_allclose(*log_probs, rtol=1e-6)


def test_rungs_on_digits() -> None:
    train, validation, test = (data.digits(split) for split in ("train", "validation", "test"))
    independent = metrics.independent_pixels(torch.cat([train, validation]), test, levels=17)
    mixture, size = metrics.mixture_of_products(train, validation, test, levels=17, generator=rng.generator(0))
    uniform = metrics.uniform_bpd(17)
    bits = [metrics.bits_per_dim(log_prob, 64).mean().item() for log_prob in (independent, mixture)]
    np.testing.assert_allclose([uniform, *bits], [4.087, 2.426, 2.18], atol=0.015)
    assert size in (20, 40, 60, 80)


def test_rungs_take_their_randomness_from_the_generator() -> None:
    train, validation, test = (random_images(n, 2, 3, levels=4, seed=n) for n in (40, 10, 20))
    first, again, other = (
        metrics.mixture_of_products(train, validation, test, levels=4, sizes=(5,), generator=rng.generator(seed))[0]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@settings(deadline=None)
@given(st.integers(max_value=1))
def test_bad_levels_raise(levels: int) -> None:
    with pytest.raises(ValueError, match=r"levels was .*; it must be an integer, 2 or more"):
        metrics.uniform_bpd(levels)
    with pytest.raises(ValueError, match=r"levels was .*; it must be an integer, 2 or more"):
        metrics.independent_pixels(random_images(3, 2), random_images(3, 2), levels=levels)


@settings(deadline=None)
@given(st.integers(max_value=0))
def test_bits_per_dim_of_no_dimensions_raises(dims: int) -> None:
    with pytest.raises(ValueError, match=r"event_dims was .*; it must be an integer, 1 or more"):
        metrics.bits_per_dim(torch.zeros(2), dims)


@pytest.mark.parametrize(
    ("log_prob", "message"),
    [
        (torch.zeros(2, 3), "the shape of log_prob was"),
        (torch.zeros(2, dtype=torch.int64), "the dtype of log_prob was"),
        (torch.tensor([math.nan]), "log_prob was nan"),
    ],
)
def test_bits_per_dim_of_something_else_raises(log_prob: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.bits_per_dim(log_prob, 2)


@settings(deadline=None)
@given(
    st.sampled_from(["train", "validation", "test"]),
    st.sampled_from(
        [
            (torch.zeros(3, 2), "the dtype of {}"),
            (torch.zeros(3, 5, dtype=torch.int64), "the event of {}|the event of validation"),
            (torch.zeros(3, dtype=torch.int64), "the shape of {}"),
            (torch.zeros(0, 2, dtype=torch.int64), "the shape of {}"),
            (torch.full((3, 2), 3), "{} was 3"),
            (torch.full((3, 2), -1), "{} was -1"),
        ]
    ),
)
def test_bad_images_raise(name: str, bad: tuple[torch.Tensor, str]) -> None:
    splits = {split: random_images(6, 2) for split in ("train", "validation", "test")}
    splits[name], message = bad
    with pytest.raises(ValueError, match=message.format(name)):
        metrics.mixture_of_products(**splits, levels=3, sizes=(1,), generator=rng.generator(0))


@settings(deadline=None)
@given(st.one_of(st.integers(max_value=0), st.integers(7, 99)))
def test_bad_sizes_raise(size: int) -> None:
    images = random_images(6, 2)
    with pytest.raises(ValueError, match=r"size was .*; it must be an integer in 1..6"):
        metrics.mixture_of_products(images, images, images, levels=3, sizes=(1, size), generator=rng.generator(0))


def test_no_sizes_no_smoothing_and_no_iterations_raise() -> None:
    images = random_images(6, 2)
    with pytest.raises(ValueError, match="sizes was"):
        metrics.mixture_of_products(images, images, images, levels=3, sizes=(), generator=rng.generator(0))
    with pytest.raises(ValueError, match="smoothing was 0"):
        metrics.independent_pixels(images, images, levels=3, smoothing=0.0)
    for bad in ({"iterations": 0}, {"strength": 0.0}):
        with pytest.raises(ValueError, match=r"(iterations|strength) was 0"):
            metrics.expectation_maximization(images, 2, 3, generator=rng.generator(0), **bad)
