"""How two sets of samples differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    require,
    require_float,
    require_generator,
    require_kin,
    require_number,
    require_shape,
)


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
    k = integer(k, "k", 1, most)  # less than the points of a set
    return _share_covered(fake, real, k), _share_covered(real, fake, k)


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, generator: torch.Generator, projections: int = 256
) -> Float[Tensor, ""]:
    """The squared 2-Wasserstein distance of [N, F] and [M, F] along a line, averaged over random directions.

    Exact along each of the `projections` lines, for N and M of 1 or more that may differ; no root is taken of the
    average. In float64. [Bonneel2015]
    """
    x, y = _samples(1, x=x, y=y)
    projections = integer(projections, "projections", 1)
    require_generator(generator)
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
    require_number(width, "bandwidth")
    require(0 < width < math.inf, "bandwidth", width, "more than 0 and finite")
    return _discrepancy(x, y, lambda distance: torch.exp(-0.5 * (distance / width) ** 2))


def _samples(fewest: int, **sets: Tensor) -> list[Tensor]:
    """Two sets of features [N, F], checked against each other and in float64."""
    first_name, first = next(iter(sets.items()))
    for name, x in sets.items():
        require_float(x, name)
        ok = x.dim() == 2 and len(x) >= fewest and x.shape[1] >= 1
        require(ok, f"the shape of {name}", tuple(x.shape), f"(N, F) with N of {fewest} or more and F of 1 or more")
        require_shape(x, name, None, first.shape[1])
        require_kin(x, name, first, first_name)
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
