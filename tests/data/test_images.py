"""The digits' splits, MNIST, and the shapes of the toys."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from dmlib import data
from dmlib.data import images as source

SIZES = {"train": 1200, "validation": 200, "test": 397}


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
        files = dict(getattr(source, table))
        for split, n in (("train", 7), ("test", 5)):
            array = np.random.default_rng(number * n).integers(0, 10, (n, *event), dtype=np.uint8)
            raw = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
            (tmp_path / files[split][0]).write_bytes(raw)
            files[split] = (files[split][0], hashlib.sha256(raw).hexdigest())
            content[table, split] = array
        monkeypatch.setattr(source, table, files)
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
    assert len({mirror.split("/")[2] for mirror in source.MNIST_MIRRORS}) >= 2
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in source.MNIST_MIRRORS)


@settings(deadline=None)
@given(st.text().filter(lambda name: name not in ("train", "test")))
def test_unknown_splits_of_mnist_raise(split: str) -> None:
    for function in (data.mnist, data.mnist_labels):
        with pytest.raises(ValueError, match=r"(?s)split was .*; it must be one of train, test$"):
            function(split)
