"""Images of handwritten digits: 8 x 8 in the package, 28 x 28 from MNIST."""

from __future__ import annotations

import hashlib

import torch

from dmlib.checks import Int64, Tensor, UInt8, require_choice
from dmlib.data import idx

DIGIT_LEVELS = 17
SPLITS = {"train": slice(0, 1200), "validation": slice(1200, 1400), "test": slice(1400, 1797)}
MNIST_LEVELS = 256
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_IMAGES = {  # The name of each split's file, and the SHA-256 of its uncompressed content.
    "train": ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "test": ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
}
MNIST_LABELS = {
    "train": ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "test": ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


def digits(split: str) -> UInt8[Tensor, "N 1 8 8"]:
    """The 8 x 8 handwritten digits of one split, as integer levels 0..16.

    "train" has 1200 images, "validation" 200, "test" 397: cut from one fixed permutation of the 1797
    images that scikit-learn ships. Train and validation together are the 1400 images not used for testing.
    """
    images, _ = _split(split)
    return images


def digit_labels(split: str) -> Int64[Tensor, "N"]:
    """The digit 0..9 that each image of `digits(split)` shows, in the same order."""
    _, labels = _split(split)
    return labels


def _split(split: str) -> tuple[Tensor, Tensor]:
    require_choice(split, "split", SPLITS)
    from sklearn.datasets import load_digits  # Slow to import, and needed here alone.

    source = load_digits()
    rows = _permutation(len(source.images))[SPLITS[split]]
    images = torch.from_numpy(source.images).to(torch.uint8).unsqueeze(1)
    return images[rows], torch.from_numpy(source.target).to(torch.int64)[rows]


def _permutation(n: int) -> Tensor:
    """The order of 0..n-1 by the hash of each index: no version of any library can change it."""
    return torch.tensor(sorted(range(n), key=lambda i: hashlib.sha256(str(i).encode()).digest()))


def mnist(split: str) -> UInt8[Tensor, "N 1 28 28"]:
    """The 28 x 28 handwritten digits of MNIST, as integer levels 0..255, in their original order [LeCun1998].

    "train" has 60000 images, "test" 10000. The files are those of `$DMLIB_DATA/mnist`, of `$DMLIB_DATA` or of the
    user's cache, where they are downloaded to when absent (12 MB in all). Raises as `idx.load` does.
    """
    return _mnist(MNIST_IMAGES, split).unsqueeze(1)


def mnist_labels(split: str) -> Int64[Tensor, "N"]:
    """The digit 0..9 that each image of `mnist(split)` shows, in the same order."""
    return _mnist(MNIST_LABELS, split).long()


def _mnist(files: dict[str, tuple[str, str]], split: str) -> Tensor:
    require_choice(split, "split", files)
    return idx.load(*files[split], folder="mnist", mirrors=MNIST_MIRRORS)
