"""The one result type of every bound in the book, and estimators from log-weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from dmlib.checks import Float, Tensor, require, require_all, require_float, require_kin, require_shape


class ElboTerms(NamedTuple):
    """The terms of an evidence lower bound, in nats and per example.

    Each of the last two is a cost: `total` subtracts it. Eq. [eq-elbo-two-terms].
    """

    reconstruction: Tensor  # [B]
    prior: Tensor  # [B]
    transitions: Tensor  # [B, N]; N = 0 for a model with one latent

    @property
    def total(self) -> Float[Tensor, " B"]:
        """The bound: reconstruction minus prior minus all transitions."""
        return self.reconstruction - self.prior - self.transitions.sum(1)


def sgvb_a(log_w: Tensor) -> Float[Tensor, " B"]:
    """The bound estimated as the mean of S log-weights [S, B].

    log_w[s, b] = log p(x_b, z_s) - log q(z_s given x_b), in nats; -inf is a weight of 0.
    Estimator A of [Kingma2014]; Eq. [eq-sgvb-a].
    """
    _require_draws(log_w, "log_w")
    return log_w.mean(0)


def sgvb_b(log_lik: Tensor, kl: Tensor) -> Float[Tensor, " B"]:
    """The bound from S log-likelihoods [S, B] and the exact divergence [B].

    In nats. Estimator B of [Kingma2014]; Eq. [eq-sgvb-b].
    """
    _require_draws(log_lik, "log_lik")
    require_float(kl, "kl")
    require_shape(kl, "kl", log_lik.shape[1])
    require_kin(kl, "kl", log_lik, "log_lik")
    return log_lik.mean(0) - kl


def iwae(log_w: Tensor) -> Float[Tensor, " B"]:
    """The importance-weighted bound: the log of the mean of S weights [S, B].

    In nats; its expectation grows with S towards the evidence. A weight of 0 is -inf. Eq. [eq-iwae]; [Burda2016].
    """
    _require_draws(log_w, "log_w")
    return torch.logsumexp(log_w, 0) - math.log(log_w.shape[0])


def effective_sample_size(log_w: Tensor) -> Float[Tensor, " B"]:
    """How many equal weights the S weights [S, B] are worth: between 1 and S.

    A weight of 0 is -inf; raises where all are. Eq. [eq-ess].
    """
    _require_draws(log_w, "log_w")
    require_all((log_w > -math.inf).any(0), "log_w", log_w, "more than -inf for one sample or more")
    return 1 / (log_w.softmax(0) ** 2).sum(0)


def _require_draws(log_w: Tensor, name: str) -> None:
    require_float(log_w.masked_fill(log_w == -math.inf, 0) if isinstance(log_w, Tensor) else log_w, name)
    require_shape(log_w, name, None, None)
    require(log_w.shape[0] > 0, f"the number of samples of {name}", 0, ">= 1")
