"""One Gaussian with a full covariance: marginals, conditionals and affine maps, by Cholesky factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.linalg import solve_triangular

from dmlib.checks import (
    Float,
    Tensor,
    integers,
    require,
    require_all,
    require_float,
    require_kin,
    require_like,
    require_shape,
    values_readable,
)


@dataclass(frozen=True, eq=False)
class MVN:
    """A normal distribution over R^D with a positive definite covariance."""

    mean: Tensor  # [D]
    cov: Tensor  # [D, D]

    def __post_init__(self) -> None:
        require_float(self.mean, "mean")
        ok = self.mean.dtype in (torch.float32, torch.float64)
        require(
            ok, "the dtype of mean", self.mean.dtype, "torch.float32 or torch.float64: none factors in half precision"
        )
        require_shape(self.mean, "mean", None)
        require(len(self.mean) > 0, "the shape of mean", (0,), "(D,) with D >= 1")
        _require_covariance(self.cov, "cov", self.mean)
        if values_readable(self.cov):
            _cholesky(self.cov)


def log_prob(p: MVN, x: Tensor) -> Float[Tensor, " B"]:
    """The log-density of the rows of x [B, D], in nats. [Bishop2006]"""
    _require_mvn(p, "p")
    _require_values(x, "x", p, len(p.mean))
    factor = _cholesky(p.cov)
    white = solve_triangular(factor, (x - p.mean).mT, upper=False)
    return -0.5 * (white**2).sum(0) - _log_volume(factor) - 0.5 * len(p.mean) * math.log(2 * math.pi)


def kl(p: MVN, q: MVN) -> Float[Tensor, ""]:
    """The Kullback-Leibler divergence of p from q, in nats. [Bishop2006]"""
    _require_mvn(p, "p")
    _require_mvn(q, "q")
    require_like(q.mean, "q.mean", p.mean, "p.mean")
    factor_p, factor_q = _cholesky(p.cov), _cholesky(q.cov)
    ratio = solve_triangular(factor_q, factor_p, upper=False)
    shift = solve_triangular(factor_q, (p.mean - q.mean)[:, None], upper=False)
    return 0.5 * ((ratio**2).sum() + (shift**2).sum() - len(p.mean)) + _log_volume(factor_q) - _log_volume(factor_p)


def entropy(p: MVN) -> Float[Tensor, ""]:
    """The differential entropy of p, in nats. [Bishop2006]"""
    _require_mvn(p, "p")
    return 0.5 * len(p.mean) * math.log(2 * math.pi * math.e) + _log_volume(_cholesky(p.cov))


def marginal(p: MVN, dims: Sequence[int] | Tensor) -> MVN:
    """The distribution of these dimensions alone, in the order given."""
    keep, _ = _split(p, dims)
    return MVN(p.mean[keep], p.cov[keep][:, keep])


def condition(
    p: MVN, dims: Sequence[int] | Tensor, values: Tensor
) -> tuple[Float[Tensor, "B rest"], Float[Tensor, "rest rest"]]:
    """The means and the covariance of the other dimensions, given these.

    values is [B, k] for the k dims in the order given; the others keep their order.
    One covariance serves all rows. Eq. [eq-gaussian-conditioning].
    """
    given, rest = _split(p, dims)
    _require_values(values, "values", p, len(given))
    factor = _cholesky(p.cov[given][:, given])
    cross = solve_triangular(factor, p.cov[given][:, rest], upper=False)
    white = solve_triangular(factor, (values - p.mean[given]).mT, upper=False)
    return p.mean[rest] + white.mT @ cross, p.cov[rest][:, rest] - cross.mT @ cross


def affine(p: MVN, A: Tensor, b: Tensor, noise_cov: Tensor) -> MVN:
    """The distribution of A y + b + noise, for y from p and independent noise.

    A is [E, D], b [E], noise_cov [E, E]; a noise of 0 is allowed. Eq. [eq-linear-gaussian].
    """
    _require_map(p, A, "A", b, noise_cov)
    return MVN(A @ p.mean + b, _symmetric(A @ p.cov @ A.mT + noise_cov))


def joint(p_z: MVN, W: Tensor, b: Tensor, noise_cov: Tensor) -> MVN:
    """The joint distribution of z from p_z and x = W z + b + noise, in the order [z, x].

    W is [D, K], b [D], noise_cov [D, D]. Eq. [eq-linear-gaussian].
    """
    _require_map(p_z, W, "W", b, noise_cov)
    cross = W @ p_z.cov
    top = torch.cat([p_z.cov, cross.mT], 1)
    bottom = torch.cat([cross, cross @ W.mT + noise_cov], 1)
    return MVN(torch.cat([p_z.mean, W @ p_z.mean + b]), _symmetric(torch.cat([top, bottom])))


def _cholesky(cov: Tensor) -> Tensor:
    """The lower factor of a covariance; without one, raises on the CPU and is NaN beside it, where nothing waits."""
    factor, info = torch.linalg.cholesky_ex(cov)
    if values_readable(info):
        require(bool(info == 0), "cov", "not positive definite", "positive definite")
    return torch.where(info == 0, factor, math.nan)


def _log_volume(factor: Tensor) -> Tensor:
    """Half the log-determinant of a covariance from its Cholesky factor."""
    return factor.diagonal().log().sum()


def _symmetric(cov: Tensor) -> Tensor:
    return (cov + cov.mT) / 2


def _split(p: MVN, dims: Sequence[int] | Tensor) -> tuple[list[int], list[int]]:
    _require_mvn(p, "p")
    size, chosen = len(p.mean), integers(dims, "dims")
    ok = len(set(chosen)) == len(chosen) and all(0 <= d < size for d in chosen)
    require(ok, "dims", chosen, f"distinct and in 0..{size - 1}")
    return chosen, [d for d in range(size) if d not in chosen]


def _require_mvn(p: MVN, name: str) -> None:
    require(isinstance(p, MVN), name, type(p).__name__, "an MVN")


def _require_values(x: Tensor, name: str, p: MVN, size: int) -> None:
    require_float(x, name)
    require_shape(x, name, None, size)
    require_kin(x, name, p.mean, "the mean")


def _require_covariance(cov: Tensor, name: str, mean: Tensor) -> None:
    require_float(cov, name)
    require_shape(cov, name, len(mean), len(mean))
    require_kin(cov, name, mean, "the mean")
    slack = torch.finfo(cov.dtype).eps ** 0.5 * cov.abs().max()
    require_all((cov - cov.mT).abs() <= slack, name, cov, "symmetric")


def _require_map(p: MVN, A: Tensor, name: str, b: Tensor, noise_cov: Tensor) -> None:
    _require_mvn(p, "p" if name == "A" else "p_z")
    require_float(b, "b")
    require_shape(b, "b", None)
    require(len(b) > 0, "the shape of b", (0,), "(E,) with E >= 1")
    _require_values(A, name, p, len(p.mean))
    require_shape(A, name, len(b), len(p.mean))
    require_kin(b, "b", p.mean, "the mean")
    _require_covariance(noise_cov, "noise_cov", b)
    require_all(noise_cov.diagonal() >= 0, "the diagonal of noise_cov", noise_cov.diagonal(), ">= 0")
