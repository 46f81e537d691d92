"""The digits' splits, MNIST, and the shapes of the toys."""

from __future__ import annotations

import hashlib
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from dmlib.learning import data, rng

SIZES = {"train": 1200, "validation": 200, "test": 397}
TOYS = (data.two_moons, data.eight_gaussians, data.spiral, data.checkerboard)
each_toy = pytest.mark.parametrize("toy", TOYS)
N = 50_000


def as_bytes(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    return [bytes([label]) + image.astype(np.uint8).tobytes() for image, label in zip(images, labels)]


@pytest.mark.parametrize("split", SIZES)
def test_digits_are_levels_of_small_images(split: str) -> None:
    images, labels = data.digits(split), data.digit_labels(split)
    assert images.shape == (SIZES[split], 1, 8, 8)
    assert images.dtype == torch.uint8
    assert (images.min(), images.max()) == (0, 16)
    assert labels.shape == (SIZES[split],)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(10))
    assert data.DIGIT_LEVELS == 17


def test_splits_hold_every_image_with_its_label_once() -> None:
    source = load_digits()
    ours = [row for s in SIZES for row in as_bytes(data.digits(s).numpy(), data.digit_labels(s).numpy())]
    assert sorted(ours) == sorted(as_bytes(source.images, source.target))
    assert ours != as_bytes(source.images, source.target)


def test_splits_are_pinned() -> None:
    # Every number in the book that is measured on digits depends on them.
    found = {split: hashlib.sha256(data.digits(split).numpy().tobytes()).hexdigest()[:16] for split in SIZES}
    assert found == {"train": "0f6898143ae83672", "validation": "4e643bf5351470d6", "test": "889244e842349b09"}


@settings(deadline=None)
@given(st.text().filter(lambda name: name not in SIZES))
def test_unknown_splits_raise(split: str) -> None:
    for function in (data.digits, data.digit_labels):
        with pytest.raises(ValueError, match=r"(?s)split was .*; it must be one of train, validation, test"):
            function(split)


def test_mnist_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small files in the place of the real ones: which file, which shape, which type."""
    tables = {"MNIST_IMAGES": (28, 28), "MNIST_LABELS": ()}
    content = {}
    for number, (table, event) in enumerate(tables.items(), start=1):
        files = dict(getattr(data, table))
        for split, n in (("train", 7), ("test", 5)):
            array = np.random.default_rng(number * n).integers(0, 10, (n, *event), dtype=np.uint8)
            raw = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
            (tmp_path / files[split][0]).write_bytes(raw)
            files[split] = (files[split][0], hashlib.sha256(raw).hexdigest())
            content[table, split] = array
        monkeypatch.setattr(data, table, files)
    monkeypatch.setenv("DMLIB_DATA", str(tmp_path))
    for split, n in (("train", 7), ("test", 5)):
        images, labels = data.mnist(split), data.mnist_labels(split)
        assert (images.shape, images.dtype, labels.dtype) == ((n, 1, 28, 28), torch.uint8, torch.int64)
        np.testing.assert_array_equal(images[:, 0], content["MNIST_IMAGES", split])
        np.testing.assert_array_equal(labels, content["MNIST_LABELS", split])


@pytest.mark.skipif("DMLIB_DATA" not in os.environ, reason="DMLIB_DATA names no folder with the files of MNIST")
def test_mnist_is_mnist() -> None:
    counts = {
        "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    }
    for split, expected in counts.items():
        images, labels = data.mnist(split), data.mnist_labels(split)
        assert images.shape == (sum(expected), 1, 28, 28)
        assert (images.min(), images.max()) == (0, data.MNIST_LEVELS - 1)
        assert labels.bincount().tolist() == expected
    assert data.mnist_labels("train")[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    ink = data.mnist("train").double() / 255
    np.testing.assert_allclose([ink.mean(), ink.std()], [0.1307, 0.3081], atol=5e-5)


def test_mnist_has_two_mirrors() -> None:
    assert len({mirror.split("/")[2] for mirror in data.MNIST_MIRRORS}) >= 2
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in data.MNIST_MIRRORS)


@settings(deadline=None)
@given(st.text().filter(lambda name: name not in ("train", "test")))
def test_unknown_splits_of_mnist_raise(split: str) -> None:
    for function in (data.mnist, data.mnist_labels):
        with pytest.raises(ValueError, match=r"(?s)split was .*; it must be one of train, test$"):
            function(split)


@each_toy
def test_toys_are_standardized(toy) -> None:
    x = toy(N, generator=rng.generator(0)).double()
    assert x.shape == (N, 2)
    assert (x.mean(0).abs() / x.std(0) * math.sqrt(N)).max() < 4.5
    square = (x**2).mean(1)
    assert abs(square.mean() - 1) / square.std() * math.sqrt(N) < 4.5


@each_toy
def test_toys_are_float32_of_their_generator_alone(toy) -> None:
    before = torch.get_rng_state()
    first, second = toy(5, generator=rng.generator(1)), toy(5, generator=rng.generator(1))
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    assert not torch.equal(first, toy(5, generator=rng.generator(2)))
    assert torch.equal(before, torch.get_rng_state())


@settings(deadline=None)
@given(st.sampled_from(TOYS), st.integers(max_value=0))
def test_toys_of_no_points_raise(toy, n: int) -> None:
    with pytest.raises(ValueError, match=r"n was .*; it must be an integer, 1 or more"):
        toy(n, generator=rng.generator(0))


def test_eight_gaussians_are_eight_equal_bells_on_a_circle() -> None:
    x = data.eight_gaussians(N, generator=rng.generator(0)).double()
    turn = torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi) * 8
    counts = torch.bincount(turn.round().long() % 8, minlength=8).double()
    assert ((counts - N / 8) ** 2 / (N / 8)).sum() < 36  # chi-squared, 7 degrees of freedom: p < 1e-5 beyond
    centers = torch.stack([x[turn.round().long() % 8 == k].mean(0) for k in range(8)])
    np.testing.assert_allclose(centers.norm(dim=1), 1 / 0.7106, atol=0.01)
    around = x - centers[turn.round().long() % 8]
    np.testing.assert_allclose(around.std(0), 0.07 / 0.7106, atol=0.002)


def test_checkerboard_fills_the_dark_squares_evenly() -> None:
    x = data.checkerboard(N, generator=rng.generator(0)).double()
    square = ((x / math.sqrt(3) + 1) * 2).floor().clamp(0, 3).long()
    counts = torch.bincount(4 * square[:, 0] + square[:, 1], minlength=16).reshape(4, 4).double()
    dark = (torch.arange(4).unsqueeze(1) + torch.arange(4)) % 2 == 0
    assert (counts[~dark] == 0).all()
    assert ((counts[dark] - N / 8) ** 2 / (N / 8)).sum() < 36
    assert x.abs().max() <= math.sqrt(3)


def test_spiral_winds_out_from_one_radius_to_three_times_it() -> None:
    x = data.spiral(N, generator=rng.generator(0)).double() * 6.796 + torch.tensor([2.0, 2 / (3 * math.pi)])
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    off = (radius - angle) / (2 * math.pi)
    across = (off - off.round()) * 2 * math.pi  # Radius equals angle up to whole turns, and noise.
    assert across.abs().max() < 5 * 0.3
    np.testing.assert_allclose(across.std(), 0.3, rtol=0.02)
    np.testing.assert_allclose(radius.quantile(torch.tensor([0.02, 0.98]).double()) / math.pi, [1.56, 4.44], atol=0.05)


def test_two_moons_are_two_half_circles() -> None:
    x = data.two_moons(5000, generator=rng.generator(0)).double() * 0.7122 + torch.tensor([0.5, 0.25])
    angle = torch.linspace(0, math.pi, 1000, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.tensor([1.0, 0.5]) - upper
    distances = torch.stack([torch.cdist(x, moon).amin(1) for moon in (upper, lower)])
    np.testing.assert_allclose((distances.amin(0) ** 2).mean().sqrt(), 0.1, atol=0.01)
    np.testing.assert_allclose((distances[0] < distances[1]).double().mean(), 0.5, atol=4.5 * 0.5 / math.sqrt(5000))
    np.testing.assert_allclose((x[:, 1] < 0.25).double().mean(), 0.5, atol=4.5 * 0.5 / math.sqrt(5000))
