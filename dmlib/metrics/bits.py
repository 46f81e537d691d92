"""Bits per dimension, with the three baselines on which every table of them stands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    integers,
    require,
    require_all,
    require_beside,
    require_float,
    require_generator,
    require_number,
    require_shape,
)


def bits_per_dim(log_prob: Tensor, event_dims: int) -> Float[Tensor, "B"]:
    """The bits per dimension of each log probability [B], given in nats.

    `event_dims` counts the dimensions of one example: 64 for an 8 x 8 image.
    """
    require_float(log_prob, "log_prob")
    require_shape(log_prob, "log_prob", None)
    event_dims = integer(event_dims, "event_dims", 1)
    return -log_prob / (event_dims * math.log(2))


def uniform_bpd(levels: int) -> float:
    """The first baseline, in bits per dimension: every level of every pixel equally likely."""
    _require_levels(levels)
    return math.log2(levels)


def independent_pixels(train: Tensor, test: Tensor, *, levels: int, smoothing: float = 0.5) -> Float[Tensor, "N"]:
    """The second baseline: log probability of each test image under independent categorical pixels.

    The probabilities are the frequencies in `train` [M, *event], integers 0..levels-1, after `smoothing`
    (more than 0; 0.5 is best on the digits' validation split) was added to the count of each level. In nats, float64.
    """
    train, test = _pixels(levels, train=train, test=test)
    return _log_joint(test, *_independent(train, levels, smoothing)).squeeze(1)


def mixture_of_products(
    train: Tensor,
    validation: Tensor,
    test: Tensor,
    *,
    levels: int,
    sizes: Sequence[int] = (10, 20, 40, 60, 80),
    generator: torch.Generator,
) -> tuple[Float[Tensor, "N"], int]:
    """The third baseline: log probability of each test image under a mixture of independent pixels, and its size.

    Fitted by EM on `train` for each of `sizes`; the size that is best on `validation` is fitted again on both.
    Images are [M, *event], integers 0..levels-1. In nats, float64.
    """
    train, validation, test = _pixels(levels, train=train, validation=validation, test=test)
    require_generator(generator)
    sizes = integers(sizes, "sizes")
    require(len(sizes) > 0, "sizes", sizes, "one integer or more")
    fits = [expectation_maximization(train, size, levels, generator=generator) for size in sizes]
    scores = torch.stack([_log_joint(validation, *fit).logsumexp(1).mean() for fit in fits])
    size = sizes[int(scores.argmax())]
    best = expectation_maximization(torch.cat([train, validation]), size, levels, generator=generator)
    return _log_joint(test, *best).logsumexp(1), size


def expectation_maximization(
    pixels: Tensor, size: int, levels: int, *, generator: torch.Generator, iterations: int = 50, strength: float = 10.0
) -> tuple[Float[Tensor, "K"], Float[Tensor, "D V K"]]:
    """Log weights and log pixel probabilities of a mixture of `size` products, fitted to images [N, *event] by EM.

    Each component is drawn towards independent pixels as by `strength` imaginary images from them (10 is about
    best on the digits' validation split). It starts from the images nearest to one image that is picked at random.
    What never decreases is the log probability of `pixels` plus that of the imaginary images [Dempster1977].
    """
    (pixels,) = _pixels(levels, pixels=pixels)
    size = integer(size, "size", 1, len(pixels))
    iterations = integer(iterations, "iterations", 1)
    require_generator(generator)
    require_number(strength, "strength")
    require(strength > 0, "strength", strength, "more than 0")
    prior = strength * _independent(pixels, levels)[1].squeeze(2).exp()
    picked = pixels[torch.randperm(len(pixels), generator=generator, device=generator.device)[:size]]
    nearest = torch.cdist(pixels.double(), picked.double()).argmin(1)
    responsibilities = F.one_hot(nearest, size).double()
    for _ in range(iterations):
        log_weights, log_probs = _maximize(pixels, responsibilities, prior)
        responsibilities = _log_joint(pixels, log_weights, log_probs).softmax(1)
    return log_weights, log_probs


def _independent(pixels: Tensor, levels: int, smoothing: float = 0.5) -> tuple[Tensor, Tensor]:
    require_number(smoothing, "smoothing")
    require(smoothing > 0, "smoothing", smoothing, "more than 0")
    one = torch.ones(len(pixels), 1, dtype=torch.float64, device=pixels.device)
    return _maximize(pixels, one, torch.full((pixels.shape[1], levels), smoothing, dtype=one.dtype, device=one.device))


def _maximize(pixels: Tensor, responsibilities: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Log weights [K] and log pixel probabilities [D, V, K] from responsibilities [N, K] and prior counts [D, V]."""
    levels, size = prior.shape[1], responsibilities.shape[1]
    empty = responsibilities.new_zeros(levels, size)
    counts = torch.stack([empty.index_add(0, pixel, responsibilities) for pixel in pixels.T]) + prior.unsqueeze(2)
    return responsibilities.mean(0).log(), (counts / counts.sum(1, keepdim=True)).log()


def _log_joint(pixels: Tensor, log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """log p(x, component) [N, K]: the entries that the pixels [N, D] pick from [D, V, K], summed over D."""
    dims, levels, size = log_probs.shape
    rows = pixels + levels * torch.arange(dims, device=pixels.device)
    return log_weights + F.embedding_bag(rows, log_probs.reshape(dims * levels, size), mode="sum")


def _pixels(levels: int, **splits: Tensor) -> list[Tensor]:
    """Each split checked against the first one and flattened: int64 [N, D]."""
    _require_levels(levels)
    given, first = next(iter(splits.items()))
    for name, x in splits.items():
        require(isinstance(x, Tensor), name, type(x).__name__, "a tensor")
        require_beside(x, name, first, given)
        require(not (x.is_floating_point() or x.is_complex()), f"the dtype of {name}", x.dtype, "an integer dtype")
        require(x.dim() > 1 and len(x) > 0, f"the shape of {name}", tuple(x.shape), "(N, *event) with N of 1 or more")
        require(x.shape[1:] == first.shape[1:], f"the event of {name}", tuple(x.shape[1:]), f"{tuple(first.shape[1:])}")
    pixels = {name: x.flatten(1).long() for name, x in splits.items()}  # In uint8, 256 levels would be 0 levels.
    for name, x in pixels.items():
        require_all((x >= 0) & (x < levels), name, x, f"in 0..{levels - 1}")
    return list(pixels.values())


def _require_levels(levels: int) -> None:
    levels = integer(levels, "levels", 2)
