"""The Markovian hierarchical VAE: latents above latents, each level connected with its neighbors alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    require,
    require_callable,
    require_float,
    require_generator,
    require_kin,
    require_like,
    require_shape,
)
from dmlib.latent.vae import VAE, predicted
from dmlib.probability import gaussian
from dmlib.probability.elbo import ElboTerms
from dmlib.probability.gaussian import Gaussian


class Level(NamedTuple):
    """One latent in N drawn chains: z and its noise [N,K], and the two Gaussians that meet in it."""

    z: Tensor
    noise: Tensor
    q: Gaussian  # given the level below, or given x
    p: Gaussian  # given the level above, or the prior


class MarkovHVAE(VAE):
    """A VAE whose code z_1 has a latent above it, which may have one above it, up to z_L, which is standard normal.

    inference: L maps to (mean, log_var), the first of x, each other one of the level below; generative: L - 1 maps to
    (mean, log_var), generative[i] from level i + 2 to level i + 1; decoder(z_1) and likelihood as in a VAE.
    Noise is a list of L tensors [S,B,K_l], the lowest level first. With L = 1 it is the VAE.
    Maps that say their `latent_dim` let `sample` work before any x was seen. Eq. [eq-hvae-joint].
    """

    def __init__(
        self, inference: Sequence[Callable], generative: Sequence[Callable], decoder: Callable, likelihood: Callable
    ) -> None:
        require(len(inference) > 0, "the number of inference maps", 0, "1 or more")
        ok, must = len(generative) == len(inference) - 1, f"{len(inference) - 1}, one less than the inference maps"
        require(ok, "the number of generative maps", len(generative), must)
        for network in (*inference, *generative):
            require_callable(network, "a map")
        super().__init__(inference[0], decoder, likelihood)
        self.upward, self.downward = _modules(inference[1:]), _modules(generative)
        self._widths = [getattr(network, "latent_dim", None) for network in inference[1:]]  # of levels 2..L

    def draw(self, x: Tensor, *, generator: torch.Generator, samples: int = 1) -> tuple[list[Float[Tensor, "S B K"]]]:
        """The standard normal noise that the bounds on x take, as one list.

        Encodes x once, without gradient, if the width of a level is not known yet.
        """
        (lowest,) = super().draw(x, generator=generator, samples=samples)
        if None in self._widths:
            with torch.no_grad():
                self._climb(self.q(x).mean, None)
        shape = lowest.shape[:2]
        return ([lowest, *(self._normal(*shape, width, generator=generator) for width in self._widths)],)

    def levels(self, x: Tensor, noise: Sequence[Tensor]) -> tuple[Float[Tensor, "S B"], list[Level]]:
        """The log-likelihoods of the chains that q draws from x with this noise, and their levels, the lowest first.

        The N = S B rows of a level are in the order of its noise [S,B,K], flattened.
        """
        must = f"{1 + len(self.upward)}, one for each level"
        require(len(noise) == 1 + len(self.upward), "the number of tensors of noise", len(noise), must)
        q, z, log_lik = self._codes(x, noise[0])
        mean, log_var = (part.expand_as(z).flatten(0, 1) for part in (q.mean, gaussian.log_var(q)))
        z = z.flatten(0, 1)
        chain = [(z, noise[0].flatten(0, 1), gaussian.from_log_var(mean, log_var)), *self._climb(z, noise)]
        above = [predicted(f, z, f"generative map {i}") for i, (f, (z, *_)) in enumerate(zip(self.downward, chain[1:]))]
        for i, (p, (z, *_)) in enumerate(zip(above, chain)):
            require_like(p.mean, f"generative map {i}'s mean", z, f"level {i + 1}")
        return log_lik, [Level(*parts, p) for parts, p in zip(chain, [*above, gaussian.standard(chain[-1][0])])]

    def log_weights(self, x: Tensor, noise: Sequence[Tensor]) -> Float[Tensor, "S B"]:
        """The log-weights log p(x, z_1..z_L) - log q(z_1..z_L given x) of S chains, in nats. Eq. [eq-hvae-bound]."""
        log_w, levels = self.levels(x, noise)
        for z, noise_l, q, p in levels:
            log_q = gaussian.log_prob(gaussian.standard(noise_l), noise_l) - gaussian.log_var(q).sum(1) / 2
            log_w = log_w + (gaussian.log_prob(p, z) - log_q).view_as(log_w)
        return log_w

    def elbo_terms(self, x: Tensor, noise: Sequence[Tensor]) -> ElboTerms:
        """The bound in 1 + L terms, in nats: reconstruction, the top level's KL to the prior, and levels 1..L-1.

        A transition is the mean of log q(z_l given z_{l-1}) - log p(z_l given z_{l+1}), its first part in closed form.
        It is no divergence, and may be negative. Eq. [eq-hvae-terms].
        """
        log_lik, levels = self.levels(x, noise)
        *lower, top = levels
        costs = [-gaussian.entropy(level.q) - gaussian.log_prob(level.p, level.z) for level in lower]
        costs = [cost.view_as(log_lik).mean(0) for cost in [*costs, gaussian.kl(top.q, top.p)]]
        transitions = torch.stack(costs[:-1], 1) if lower else log_lik.new_zeros(log_lik.shape[1], 0)
        return ElboTerms(log_lik.mean(0), costs[-1], transitions)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator, mean: bool = False) -> Tensor:
        """n draws of x from the model, or, with `mean`, the mean of x given each drawn z_1.

        Raises where the width of the top level is unknown: its map has no `latent_dim` and nothing was encoded yet.
        """
        if not self.upward:
            return super().sample(n, generator=generator, mean=mean)
        n = integer(n, "n", 1)
        require_generator(generator)
        known = self._no_codes is not None and self._widths[-1] is not None
        require(known, "the latent dimension", "unknown", "each inference map's attribute latent_dim")
        top = self._normal(n, self._widths[-1], generator=generator)
        return self.sample_below(top, generator=generator, mean=mean)

    @torch.no_grad()
    def sample_below(
        self, z: Tensor, level: int | None = None, *, generator: torch.Generator, mean: bool = False
    ) -> Tensor:
        """A draw of x, or its mean given z_1, for each row of z [N,K_l], the latent of one level: the top, if not said.

        All levels below are drawn. Eq. [eq-hvae-joint].
        """
        level = integer(1 + len(self.upward) if level is None else level, "level", 1, 1 + len(self.upward))
        require_float(z, "z")
        require_shape(z, "z", None, None)
        require_generator(generator)
        for i in reversed(range(level - 1)):
            z = gaussian.sample(predicted(self.downward[i], z, f"generative map {i}"), generator=generator)
        return self._observe(z, generator, mean)

    def _climb(self, z: Tensor, noise: Sequence[Tensor] | None) -> list[tuple[Tensor, Tensor, Gaussian]]:
        """Levels 2..L above z_1 [N,K]: z, its noise and q; without noise, the means, to learn how wide levels are."""
        chain = []
        for i, network in enumerate(self.upward):
            q = predicted(network, z, f"inference map {i + 1}")
            self._widths[i] = q.mean.shape[1]
            if noise is None:
                z = q.mean
                continue
            require_float(noise[i + 1], f"noise {i + 1}")
            require_shape(noise[i + 1], f"noise {i + 1}", *noise[0].shape[:2], self._widths[i])
            require_kin(noise[i + 1], f"noise {i + 1}", q.mean, f"inference map {i + 1}'s mean")
            flat = noise[i + 1].flatten(0, 1)
            z = q.mean + gaussian.std(q) * flat
            chain.append((z, flat, q))
        return chain


def information(q: Gaussian, z: Tensor, rows: int = 500) -> Float[Tensor, " N"]:
    """log q_n(z_n) less the log of the mean of all N densities at z_n, in nats, for one draw z_n from each q_n.

    q and z are [N,K]. The mean is the mutual information of z with the index n, and so at most log N. `rows` are
    compared at a time. Eq. [eq-hvae-information].
    """
    gaussian.require_gaussian(q, "q")
    require_like(z, "z", q.mean, "q")
    require_shape(z, "z", None, None)
    rows, std, volume = integer(rows, "rows", 1), gaussian.std(q), gaussian.log_var(q).sum(1) / 2
    ratios = []
    for i in range(0, len(z), rows):
        log_q = -((z[i : i + rows, None] - q.mean) / std).square().sum(2) / 2 - volume  # [rows, N], up to a constant
        ratios.append(log_q.diagonal(i) - log_q.logsumexp(1) + math.log(len(z)))
    return torch.cat(ratios)


class _Function(nn.Module):
    """A function without parameters, as a module."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        return self.function(given)


def _modules(maps: Sequence[Callable]) -> nn.ModuleList:
    return nn.ModuleList(f if isinstance(f, nn.Module) else _Function(f) for f in maps)
