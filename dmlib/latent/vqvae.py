"""A variational autoencoder whose latent is a row of choices from one codebook."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from dmlib.checks import Float, Int64, Tensor, integer, require_callable, require_generator, require_shape
from dmlib.latent.discrete import Quantized, VectorQuantizer
from dmlib.probability import likelihoods
from dmlib.probability.elbo import ElboTerms


class VQVAE(nn.Module):
    """A model of x whose latent is N choices among the codes of a VectorQuantizer [Oord2017].

    encoder(x) gives z_e [B,N,dim]; decoder(z [B,N*dim]) gives the tuple of the likelihood's parameters;
    prior(idx [B,N]) gives logits [B,N,V] of each choice given those before it, or is None for a uniform prior.
    """

    def __init__(
        self, encoder: nn.Module, quantizer: VectorQuantizer, decoder: Callable, likelihood: Callable,
        positions: int, prior: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        require_callable(encoder, "encoder")
        require_callable(decoder, "decoder")
        require_callable(likelihood, "likelihood")
        self.encoder, self.quantizer, self.decoder, self.likelihood = encoder, quantizer, decoder, likelihood
        self.positions, self.prior = integer(positions, "positions", 1), prior

    def quantize(self, x: Tensor) -> Quantized:
        """The codes of each x [B,*event]; raises where the encoder gives another number of them."""
        z_e = self.encoder(x)
        require_shape(z_e, "the encoder's output", len(x), self.positions, None)
        return self.quantizer(z_e)

    def loss(self, x: Tensor, commitment: float | int = 0.25) -> Float[Tensor, " B"]:
        """What is minimized: the negative bound under a uniform prior, and the two losses. Eq. [eq-vq-loss]."""
        found = self.quantize(x)
        log_lik = self.likelihood(*self.decoder(found.z_q.flatten(1)), x)
        return self.uniform_cost - log_lik + found.codebook_loss + commitment * found.commitment_loss

    def elbo_terms(self, x: Tensor, uniform: bool = False) -> ElboTerms:
        """The bound in its two terms, in nats: the prior's is minus the log-probability of the codes of x.

        q is one-hot and has no entropy. With `uniform`, or without a prior, each x pays N log V. Eq. [eq-vq-bound].
        """
        found = self.quantize(x)
        log_lik = self.likelihood(*self.decoder(found.z_q.flatten(1)), x)
        cost = -self.log_prior(found.idx, uniform)
        return ElboTerms(log_lik, cost, cost.new_zeros(len(cost), 0))

    def elbo(self, x: Tensor, uniform: bool = False) -> Float[Tensor, " B"]:
        """The bound, in nats; nothing is drawn. Eq. [eq-code-bound]; with `uniform`, Eq. [eq-vq-bound]."""
        found = self.quantize(x)
        log_lik = self.likelihood(*self.decoder(found.z_q.flatten(1)), x)
        return log_lik + self.log_prior(found.idx, uniform)

    def log_prior(self, idx: Tensor, uniform: bool = False) -> Float[Tensor, " B"]:
        """The log-probability of codes idx [B,N], in nats. Eq. [eq-code-prior]."""
        require_shape(idx, "idx", None, self.positions)
        if uniform or self.prior is None:
            return self.quantizer.codebook.new_full((len(idx),), -self.uniform_cost)
        return likelihoods.categorical(self.prior(idx), idx)

    @property
    def uniform_cost(self) -> float:
        """N log V, the log of the number of codes, in nats."""
        return self.positions * math.log(len(self.quantizer.codebook))

    @torch.no_grad()
    def sample_codes(self, n: int, *, generator: torch.Generator, uniform: bool = False) -> Int64[Tensor, "n N"]:
        """n draws of codes from the prior, one position after the other. Eq. [eq-code-prior]."""
        n, like = integer(n, "n", 1), self.quantizer.codebook
        require_generator(generator)
        idx = torch.zeros(n, self.positions, dtype=torch.int64, device=like.device)
        flat = like.new_zeros(n, self.positions, len(like))
        for i in range(self.positions):
            logits = flat if uniform or self.prior is None else self.prior(idx)
            idx[:, i] = likelihoods.draw(likelihoods.categorical, logits[:, i], generator=generator)
        return idx

    def decode(self, idx: Tensor) -> tuple[Tensor, ...]:
        """The likelihood's parameters for codes idx [B,N]."""
        require_shape(idx, "idx", None, self.positions)
        return self.decoder(self.quantizer.codebook[idx].flatten(1))

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator, mean: bool = False, uniform: bool = False) -> Tensor:
        """n draws of x from the model, or, with `mean`, the mean of x given each drawn code."""
        parameters = self.decode(self.sample_codes(n, generator=generator, uniform=uniform))
        if mean:
            return likelihoods.mean(self.likelihood, *parameters)
        return likelihoods.draw(self.likelihood, *parameters, generator=generator)
