"""Bits per dimension with the three rungs of every table of them, and measures of how two sets of samples differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F

from dmlib.checks import Float, Tensor, require, require_all, require_float, require_shape


def bits_per_dim(log_prob: Tensor, event_dims: int) -> Float[Tensor, "B"]:
    """The bits per dimension of each log probability [B], given in nats.

    `event_dims` counts the dimensions of one example: 64 for an 8 x 8 image.
    """
    require_float(log_prob, "log_prob")
    require_shape(log_prob, "log_prob", None)
    require(isinstance(event_dims, int) and event_dims >= 1, "event_dims", event_dims, "an integer, 1 or more")
    return -log_prob / (event_dims * math.log(2))


def uniform_bpd(levels: int) -> float:
    """The first rung, in bits per dimension: every level of every pixel equally likely."""
    _require_levels(levels)
    return math.log2(levels)


def independent_pixels(train: Tensor, test: Tensor, *, levels: int, smoothing: float = 0.5) -> Float[Tensor, "N"]:
    """The second rung: log probability of each test image under independent categorical pixels.

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
    """The third rung: log probability of each test image under a mixture of independent pixels, and its size.

    Fitted by EM on `train` for each of `sizes`; the size that is best on `validation` is fitted again on both.
    Images are [M, *event], integers 0..levels-1. In nats, float64.
    """
    train, validation, test = _pixels(levels, train=train, validation=validation, test=test)
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
    require(isinstance(size, int) and 1 <= size <= len(pixels), "size", size, f"an integer in 1..{len(pixels)}")
    require(isinstance(iterations, int) and iterations >= 1, "iterations", iterations, "an integer, 1 or more")
    require(strength > 0, "strength", strength, "more than 0")
    prior = strength * _independent(pixels, levels)[1].squeeze(2).exp()
    picked = pixels[torch.randperm(len(pixels), generator=generator, device=generator.device)[:size]]
    nearest = torch.cdist(pixels.double(), picked.double()).argmin(1)
    responsibilities = F.one_hot(nearest, size).double()
    for _ in range(iterations):
        log_weights, log_probs = _maximize(pixels, responsibilities, prior)
        responsibilities = _log_joint(pixels, log_weights, log_probs).softmax(1)
    return log_weights, log_probs


def frechet(features_x: Tensor, features_y: Tensor) -> Float[Tensor, ""]:
    """The squared Frechet distance between the Gaussians fitted to two sets of features, [N, F] and [M, F].

    Covariances divide by N - 1 and may be singular; N and M are 2 or more. In float64. Two small sets of one
    distribution are further apart than two large ones: compare at equal sizes. [Dowson1982, Heusel2017]
    """
    x, y = _samples(2, features_x=features_x, features_y=features_y)
    # With cov = R' R from a QR, tr sqrt(cov_x cov_y) is the sum of the singular values of R_x R_y': no root of a
    # matrix is taken, so that nothing is lost where covariances are singular.
    roots = [torch.linalg.qr(z - z.mean(0), mode="r").R / math.sqrt(len(z) - 1) for z in (x, y)]
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    squared = ((x.mean(0) - y.mean(0)) ** 2).sum() + sum((root**2).sum() for root in roots) - 2 * shared
    return squared.clamp(min=0)


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The share of fake features [M, F] on the manifold of the real ones [N, F], and the share of real on that of fake.

    A set's manifold is the union of closed balls around its points, each as large as the distance to the point's
    k-th neighbor in the set, itself not counted. In float64. [Kynkaanniemi2019]
    """
    real, fake = _samples(2, real=real, fake=fake)
    most = min(len(real), len(fake)) - 1
    require(isinstance(k, int) and 1 <= k <= most, "k", k, f"an integer in 1..{most}, less than the points of a set")
    return _share_covered(fake, real, k), _share_covered(real, fake, k)


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, generator: torch.Generator, projections: int = 256
) -> Float[Tensor, ""]:
    """The squared 2-Wasserstein distance of [N, F] and [M, F] along a line, averaged over random directions.

    Exact along each of the `projections` lines, for N and M of 1 or more that may differ; no root is taken of the
    average. In float64. [Bonneel2015]
    """
    x, y = _samples(1, x=x, y=y)
    require(isinstance(projections, int) and projections >= 1, "projections", projections, "an integer, 1 or more")
    directions = torch.randn(x.shape[1], projections, generator=generator, dtype=x.dtype, device=x.device)
    directions = directions / directions.norm(dim=0)
    rows_x, rows_y, weights = _quantile_coupling(len(x), len(y), x.device)
    gaps = (x @ directions).sort(0).values[rows_x] - (y @ directions).sort(0).values[rows_y]
    return (weights @ gaps**2).mean()


def energy_distance(x: Tensor, y: Tensor) -> Float[Tensor, ""]:
    """An unbiased estimate of 2 E|x - y| - E|x - x'| - E|y - y'| from points [N, F] and [M, F].

    No point is paired with itself (the U-statistic), so that it may fall below 0 where the distributions agree.
    N and M are 2 or more. In float64. [Szekely2013]
    """
    return _discrepancy(*_samples(2, x=x, y=y), torch.neg)


def mmd_rbf(x: Tensor, y: Tensor, bandwidth: float | None = None) -> Float[Tensor, ""]:
    """An unbiased estimate of the squared maximum mean discrepancy of [N, F] and [M, F], N and M of 2 or more.

    The kernel is exp(-|x - y|^2 / (2 bandwidth^2)). By default the bandwidth is the median distance between points
    of both sets (at most 2000 of them, evenly spaced), so it moves with them: give one to compare several sets.
    As the U-statistic it may fall below 0 where the distributions agree. In float64. [Gretton2012]
    """
    x, y = _samples(2, x=x, y=y)
    width = _median_distance(torch.cat([x, y])) if bandwidth is None else bandwidth
    require(0 < width < math.inf, "bandwidth", width, "more than 0 and finite")
    return _discrepancy(x, y, lambda distance: torch.exp(-0.5 * (distance / width) ** 2))


def _independent(pixels: Tensor, levels: int, smoothing: float = 0.5) -> tuple[Tensor, Tensor]:
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
    first = next(iter(splits.values()))
    for name, x in splits.items():
        require(not (x.is_floating_point() or x.is_complex()), f"the dtype of {name}", x.dtype, "an integer dtype")
        require(x.dim() > 1 and len(x) > 0, f"the shape of {name}", tuple(x.shape), "(N, *event) with N of 1 or more")
        require(x.shape[1:] == first.shape[1:], f"the event of {name}", tuple(x.shape[1:]), f"{tuple(first.shape[1:])}")
        require_all((x >= 0) & (x < levels), name, x, f"in 0..{levels - 1}")
    return [x.flatten(1).long() for x in splits.values()]


def _require_levels(levels: int) -> None:
    require(isinstance(levels, int) and levels >= 2, "levels", levels, "an integer, 2 or more")


def _samples(fewest: int, **sets: Tensor) -> list[Tensor]:
    """Two sets of features [N, F], checked against each other and in float64."""
    first_name, first = next(iter(sets.items()))
    for name, x in sets.items():
        require_float(x, name)
        ok = x.dim() == 2 and len(x) >= fewest and x.shape[1] >= 1
        require(ok, f"the shape of {name}", tuple(x.shape), f"(N, F) with N of {fewest} or more and F of 1 or more")
        require_shape(x, name, None, first.shape[1])
        require(x.dtype == first.dtype, f"the dtype of {name}", x.dtype, f"{first.dtype}, that of {first_name}")
    return [x.double() for x in sets.values()]


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Distances from the points of x to all of y, a few rows at a time; exactly 0 where two points are equal."""
    for rows in x.split(max(1, 2**22 // len(y))):
        yield torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist")


def _discrepancy(x: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of kernel(distance) over pairs of two points in x, and in y, less twice that between x and y."""
    xx, yy, xy = (sum(kernel(d).sum() for d in _distances(*pair)) for pair in ((x, x), (y, y), (x, y)))
    n, m, itself = len(x), len(y), kernel(x.new_zeros(()))
    return (xx - n * itself) / (n * (n - 1)) + (yy - m * itself) / (m * (m - 1)) - 2 * xy / (n * m)


def _median_distance(points: Tensor) -> float:
    return F.pdist(points[:: math.ceil(len(points) / 2000)]).median().item()


def _share_covered(points: Tensor, centers: Tensor, k: int) -> Tensor:
    """The share of points within some center's distance to its k-th neighbor among the centers."""
    radii = torch.cat([d.topk(k + 1, largest=False).values[:, k] for d in _distances(centers, centers)])
    return torch.cat([(d <= radii).any(1) for d in _distances(points, centers)]).double().mean()


def _quantile_coupling(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Which of n and of m sorted points the quantile functions pair, and the share of each pair."""
    steps = torch.cat([m * torch.arange(n + 1, device=device), n * torch.arange(m + 1, device=device)]).unique()
    return steps[:-1] // m, steps[:-1] // n, steps.diff().double() / (n * m)
