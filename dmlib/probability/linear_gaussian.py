"""Linear-Gaussian latent-variable models, whose evidence and posterior are exact.

`log_evidence` and `posterior` serve both models: the one-layer `LinearGaussian` and the `LinearChain`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.linalg import solve_triangular

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    require,
    require_all,
    require_beside,
    require_float,
    require_generator,
    require_kin,
    require_shape,
    widest_dtype,
)
from dmlib.probability import gaussian, multivariate
from dmlib.probability.gaussian import Gaussian
from dmlib.probability.multivariate import MVN


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """z ~ N(0, I) over R^K and x = W z + b + noise over R^D, the noise of variance var.

    Probabilistic principal components [Tipping1999]; Eq. [eq-linear-gaussian].
    """

    W: Tensor  # [D, K]
    b: Tensor  # [D]
    var: Tensor  # []

    def __post_init__(self) -> None:
        _require_parameters(self.W, "W", self.b, self.var)
        require_shape(self.W, "W", None, None)
        require_shape(self.b, "b", self.W.shape[0])
        require_shape(self.var, "var")


@dataclass(frozen=True, eq=False)
class LinearChain:
    """x_0 ~ N(0, I) over R^D and x_t = A_t x_{t-1} + b_t + noise for t = 1..T.

    A[t-1], b[t-1], var[t-1] make step t. x_0..x_{T-1} are hidden, x_T is observed.
    """

    A: Tensor  # [T, D, D]
    b: Tensor  # [T, D]
    var: Tensor  # [T]

    def __post_init__(self) -> None:
        _require_parameters(self.A, "A", self.b, self.var)
        require_shape(self.b, "b", None, None)
        steps, size = self.b.shape
        require(steps > 0 and size > 0, "the shape of b", (steps, size), "(T, D) with T, D >= 1")
        require_shape(self.A, "A", steps, size, size)
        require_shape(self.var, "var", steps)


def sample(
    m: LinearGaussian, n: int, *, generator: torch.Generator
) -> tuple[Float[Tensor, "{n} K"], Float[Tensor, "{n} D"]]:
    """n draws (z, x) of the model: first the latents, then what they cause."""
    _require_model(m, LinearGaussian)
    n = integer(n, "n", 0)
    require_generator(generator)
    draw = {"generator": generator, "dtype": m.W.dtype, "device": m.W.device}
    z = torch.randn(n, m.W.shape[1], **draw)
    return z, z @ m.W.mT + m.b + m.var.sqrt() * torch.randn(n, m.W.shape[0], **draw)


def log_evidence(m: LinearGaussian | LinearChain, x: Tensor) -> Float[Tensor, " B"]:
    """The log-density of what is observed, all latents integrated out.

    x [B, D] is the observation of a LinearGaussian, the last state x_T of a LinearChain.
    In nats. Eq. [eq-linear-gaussian].
    """
    _require_data(m, x)
    if isinstance(m, LinearChain):
        states = _states(m)
        return multivariate.log_prob(multivariate.marginal(states, _observed(m)), x.to(states.mean.dtype)).to(x.dtype)
    z, root = _posterior(m, x)
    W, b, var = (p.to(z.dtype) for p in (m.W, m.b, m.var))
    squares = ((x - b - z @ W.mT) ** 2).sum(1) / var + (z**2).sum(1)
    log_volume = len(b) / 2 * (var.log() + math.log(2 * math.pi)) + root.diagonal().abs().log().sum()
    return (-squares / 2 - log_volume).to(x.dtype)


def posterior(
    m: LinearGaussian | LinearChain, x: Tensor
) -> tuple[Float[Tensor, "B latent"], Float[Tensor, "latent latent"]]:
    """The mean of the latents given each x, and their common covariance.

    For a LinearGaussian the latents are z [K]; for a LinearChain all hidden states in time order,
    x_0..x_{T-1} as one vector [T D], given x_T. Eq. [eq-linear-gaussian-posterior].
    """
    _require_data(m, x)
    if isinstance(m, LinearChain):
        states = _states(m)
        mean, cov = multivariate.condition(states, _observed(m), x.to(states.mean.dtype))
    else:
        mean, root = _posterior(m, x)
        inverse = solve_triangular(root, torch.eye(len(root), dtype=root.dtype, device=root.device), upper=True)
        cov = inverse @ inverse.mT
    return mean.to(x.dtype), cov.to(x.dtype)


def elbo(m: LinearGaussian, x: Tensor, q: Gaussian) -> Float[Tensor, " B"]:
    """The evidence lower bound of each x under the encoder q [B, K], exactly.

    In nats. Eq. [eq-elbo-two-terms].
    """
    _require_encoder(m, x, q)
    residual = ((x - m.b - q.mean @ m.W.mT) ** 2).sum(1) + q.var @ (m.W**2).sum(0)
    reconstruction = -0.5 * (residual / m.var + len(m.b) * (m.var.log() + math.log(2 * math.pi)))
    return reconstruction - gaussian.kl(q, gaussian.standard(q.mean))


def gap(m: LinearGaussian, x: Tensor, q: Gaussian) -> Float[Tensor, " B"]:
    """The divergence of the encoder q [B, K] from the true posterior.

    It is what the bound lacks of the evidence, in nats. Eq. [eq-elbo-gap].
    """
    _require_encoder(m, x, q)
    mean, root = _posterior(m, x)
    q_mean, q_var = q.mean.to(mean.dtype), q.var.to(mean.dtype)
    quadratic = (((q_mean - mean) @ root.mT) ** 2).sum(1) + q_var @ (root**2).sum(0)
    log_ratio = (
        gaussian.log_var(q).sum(1) + 2 * root.diagonal().abs().log().sum()
    )  # of the volumes of q and the posterior
    return (0.5 * (quadratic - log_ratio - len(root))).to(x.dtype)


def mean_field_posterior(m: LinearGaussian, x: Tensor) -> Gaussian:
    """The diagonal Gaussian nearest to the posterior in KL(q || posterior), [B, K].

    It keeps the posterior's mean and inverts the diagonal of its precision. Eq. [eq-mean-field].
    """
    _require_data(m, x, LinearGaussian)
    mean, root = _posterior(m, x)
    return Gaussian(mean.to(x.dtype), (1 / (root**2).sum(0)).to(x.dtype).expand_as(mean))


def _posterior(m: LinearGaussian, x: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior's mean [B, K], and the triangle R [K, K] with R'R its precision I + W'W / var, in float64.

    R is that of [W / std; I] = QR: the sum, in which a small var drowns the I, is never formed.
    """
    W, b, var = (p.to(widest_dtype(x.device)) for p in (m.W, m.b, m.var))
    identity = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
    orthogonal, root = torch.linalg.qr(torch.cat([W / var.sqrt(), identity]))
    seen = (x - b) / var.sqrt() @ orthogonal[: len(b)]
    return solve_triangular(root, seen.mT, upper=True).mT, root


def _states(m: LinearChain) -> MVN:
    """The joint distribution of x_0..x_T, as one vector [(T + 1) D], in float64."""
    parameters = [p.to(widest_dtype(m.b.device)) for p in (m.A, m.b, m.var)]
    identity = torch.eye(m.b.shape[1], dtype=parameters[1].dtype, device=m.b.device)
    states = MVN(torch.zeros_like(identity[0]), identity)
    for A, b, var in zip(*parameters):
        earlier = A.new_zeros(len(b), len(states.mean) - len(b))
        states = multivariate.joint(states, torch.cat([earlier, A], 1), b, var * identity)
    return states


def _observed(m: LinearChain) -> range:
    steps, size = m.b.shape
    return range(steps * size, (steps + 1) * size)


def _require_parameters(matrix: Tensor, name: str, b: Tensor, var: Tensor) -> None:
    for value, label in ((matrix, name), (b, "b"), (var, "var")):
        require_float(value, label)
    for value, label in ((matrix, name), (b, "b"), (var, "var")):
        require_beside(value, label, matrix, name)
        if value.dim() > 0:  # one number never promotes
            require(value.dtype == b.dtype, f"the dtype of {label}", value.dtype, f"{b.dtype}, that of b")
    require_all(var > 0, "var", var, "> 0")


def _require_model(m: object, *kinds: type) -> None:
    require(isinstance(m, kinds), "m", type(m).__name__, "a " + " or a ".join(kind.__name__ for kind in kinds))


def _require_data(m: LinearGaussian | LinearChain, x: Tensor, *kinds: type) -> None:
    _require_model(m, *kinds or (LinearGaussian, LinearChain))
    require_float(x, "x")
    require_shape(x, "x", None, m.b.shape[-1])
    require_kin(x, "x", m.b, "the model")


def _require_encoder(m: LinearGaussian, x: Tensor, q: Gaussian) -> None:
    _require_data(m, x, LinearGaussian)
    gaussian.require_gaussian(q, "q")
    require_shape(q.mean, "q.mean", x.shape[0], m.W.shape[1])
    require_kin(q.mean, "q.mean", x, "x")
