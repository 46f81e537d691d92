"""The variational autoencoder: a learned encoder, a learned decoder, one bound on the evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    require,
    require_choice,
    require_float,
    require_generator,
    require_kin,
    require_like,
    require_shape,
)
from dmlib.probability import elbo, gaussian, likelihoods
from dmlib.probability.elbo import ElboTerms
from dmlib.probability.gaussian import Gaussian


class VAE(nn.Module):
    """A latent-variable model of x with a standard normal prior [Kingma2014], [Rezende2014].

    encoder(x) gives (mean, log_var), each [B,K]; decoder(z [N,K]) gives the tuple of the likelihood's parameters;
    likelihood(*parameters, x) gives [N]. x is what the likelihood takes: the encoder scales it.
    An encoder that says its `latent_dim` K lets `sample` work before any x was seen.
    Noise is [S,B,K]; a subclass may take a list.
    """

    def __init__(self, encoder: Callable, decoder: Callable, likelihood: Callable) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.register_buffer("_no_codes", None, persistent=False)  # [0, K]: the codes' width, dtype and device
        if hasattr(encoder, "latent_dim"):
            self._no_codes = next(encoder.parameters(), torch.empty(0)).new_empty(0, encoder.latent_dim)

    def q(self, x: Tensor) -> Gaussian:
        """The approximate posterior of z given x, [B,K]; it keeps the log-variance."""
        require(isinstance(x, Tensor) and x.dim() > 0, "x", type(x).__name__, "a tensor [B, *event]")
        q = predicted(self.encoder, x, "the encoder")
        if self._no_codes is None:
            self._no_codes = q.mean.new_empty(0, q.mean.shape[1])
        return q

    def draw(self, x: Tensor, *, generator: torch.Generator, samples: int = 1) -> tuple[Float[Tensor, "S B K"]]:
        """The standard normal noise that the bounds on x take.

        Encodes x once, without gradient, if K is not known yet.
        """
        require(isinstance(x, Tensor) and x.dim() > 0, "x", type(x).__name__, "a tensor [B, *event]")
        samples = integer(samples, "samples", 1)
        require_generator(generator)
        if self._no_codes is None:
            with torch.no_grad():
                self.q(x)
        return (self._normal(samples, x.shape[0], self._no_codes.shape[1], generator=generator),)

    def log_weights(self, x: Tensor, noise: Tensor) -> Float[Tensor, "S B"]:
        """The log-weights log p(x, z) - log q(z given x) of S reparameterized codes, in nats.

        The density of z is that of its noise over the product of the standard deviations. Eq. [eq-reparameterize].
        """
        q, z, log_lik = self._codes(x, noise)
        flat, noise = z.flatten(0, 1), noise.flatten(0, 1)
        standard = gaussian.standard(flat)
        log_ratio = gaussian.log_prob(standard, flat) - gaussian.log_prob(standard, noise)
        return log_lik + log_ratio.view_as(log_lik) + gaussian.log_var(q).sum(1) / 2

    def elbo(self, x: Tensor, noise: Tensor | Sequence[Tensor], estimator: str = "b") -> Float[Tensor, " B"]:
        """An unbiased estimate of the evidence lower bound, in nats.

        "a" averages log-weights, Eq. [eq-sgvb-a]; "b" takes the KL to the prior in closed form, Eq. [eq-sgvb-b].
        """
        require_choice(estimator, "estimator", ("a", "b"))
        if estimator == "a":
            return elbo.sgvb_a(self.log_weights(x, noise))
        reconstruction, prior, transitions = self.elbo_terms(x, noise)
        return reconstruction - prior - transitions.sum(1)

    def elbo_terms(self, x: Tensor, noise: Tensor) -> ElboTerms:
        """The bound in its two terms, reconstruction and prior, in nats; there are no transitions.

        Eq. [eq-elbo-two-terms].
        """
        q, _, log_lik = self._codes(x, noise)
        prior = gaussian.kl(q, gaussian.standard(q.mean))
        return ElboTerms(log_lik.mean(0), prior, prior.new_zeros(len(prior), 0))

    def iwae(self, x: Tensor, noise: Tensor | Sequence[Tensor]) -> Float[Tensor, " B"]:
        """The importance-weighted bound of S codes, in nats: tighter as S grows [Burda2016].

        Eq. [eq-iwae].
        """
        return elbo.iwae(self.log_weights(x, noise))

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator, mean: bool = False) -> Tensor:
        """n draws of x from the model, or, with `mean`, the mean of x given each drawn code.

        Raises where K is unknown: the encoder has no `latent_dim` and has encoded nothing yet.
        """
        n = integer(n, "n", 1)
        require_generator(generator)
        require(self._no_codes is not None, "the latent dimension", "unknown", "the encoder's attribute latent_dim")
        return self._observe(self._normal(n, self._no_codes.shape[1], generator=generator), generator, mean)

    def _codes(self, x: Tensor, noise: Tensor) -> tuple[Gaussian, Tensor, Tensor]:
        """q(z given x), S codes drawn from it [S,B,K] and their log-likelihoods [S,B]."""
        q = self.q(x)
        require_float(noise, "noise")
        require_shape(noise, "noise", None, *q.mean.shape)
        require(len(noise) > 0, "the number of samples of noise", 0, "at least 1")
        require_kin(noise, "noise", q.mean, "the encoder's mean")
        z = q.mean + gaussian.std(q) * noise  # [S, B, K]
        repeated = x.expand(len(z), *x.shape).flatten(0, 1)
        log_lik = self.likelihood(*self._decode(z.flatten(0, 1)), repeated)
        require_shape(log_lik, "the log-likelihood", len(repeated))
        return q, z, log_lik.view(z.shape[:2])

    def _decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """The likelihood's parameters for each code, z [N,K]."""
        parameters = self.decoder(z)
        require(isinstance(parameters, tuple), "the decoder's output", type(parameters).__name__, "a tuple of tensors")
        return parameters

    def _observe(self, z: Tensor, generator: torch.Generator, mean: bool) -> Tensor:
        """A draw of x, or its mean, given each code, z [N,K]."""
        parameters = self._decode(z)
        if mean:
            return likelihoods.mean(self.likelihood, *parameters)
        return likelihoods.draw(self.likelihood, *parameters, generator=generator)

    def _normal(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Standard normal numbers of the codes' dtype and device."""
        like = self._no_codes
        return torch.randn(*shape, generator=generator, dtype=like.dtype, device=like.device)


def predicted(network: Callable, given: Tensor, name: str) -> Gaussian:
    """The Gaussian that a network predicts for each row of `given`, as (mean, log_var); raises on other shapes."""
    mean, log_var = network(given)
    require_float(mean, f"{name}'s mean")
    require_shape(mean, f"{name}'s mean", given.shape[0], None)
    require_like(log_var, f"{name}'s log-variance", mean, "its mean")
    return gaussian.from_log_var(mean, log_var)
