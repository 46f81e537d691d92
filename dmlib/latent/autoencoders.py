"""Autoencoders without a distribution over codes: their error, their corruptions and their penalties."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from dmlib.checks import (
    Float,
    Tensor,
    integer,
    per_example,
    require,
    require_all,
    require_callable,
    require_float,
    require_generator,
    require_like,
    require_number,
    require_shape,
)


class Autoencoder(nn.Module):
    """An encoder from x to a code z, and a decoder from z to a reconstruction x_hat [Hinton2006].

    encoder(x [B,*event]) gives [B,K]; decoder(z [B,K]) gives what the loss takes: x_hat of x's shape, or logits.
    Eq. [eq-ae-squared].
    """

    def __init__(self, encoder: Callable, decoder: Callable) -> None:
        super().__init__()
        require_callable(encoder, "encoder")
        require_callable(decoder, "decoder")
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction of each x, and its code; raises where one of them has not B rows."""
        require(isinstance(x, Tensor) and x.dim() > 0, "x", type(x).__name__, "a tensor [B, *event]")
        z = self.encoder(x)
        require_float(z, "the encoder's code")
        require_rows(z, "the encoder's code", len(x))
        x_hat = self.decoder(z)
        require_float(x_hat, "the decoder's output")
        require_rows(x_hat, "the decoder's output", len(x))
        return x_hat, z


def squared_error(x_hat: Tensor, x: Tensor) -> Float[Tensor, " B"]:
    """The squared distance of x_hat [B,*event] from x [B,*event], summed over the event. Eq. [eq-ae-squared].

    Raises where the two differ in shape, dtype or device.
    """
    require_batch(x, "x")
    require_like(x_hat, "x_hat", x, "x")
    return per_example((x_hat - x).square())


def corrupt(x: Tensor, noise_std: float | int, *, generator: torch.Generator) -> Float[Tensor, "B *event"]:
    """x [B,*event] plus Gaussian noise of standard deviation noise_std, in the units of x. Eq. [eq-dae-corruption].

    Raises where noise_std is negative.
    """
    require_batch(x, "x")
    require_number(noise_std, "noise_std")
    require(0 <= noise_std < math.inf, "noise_std", noise_std, "0 or more, and finite")
    require_generator(generator)
    return x + noise_std * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def l1_penalty(z: Tensor) -> Float[Tensor, " B"]:
    """The sum of the absolute entries of each code, z [B,K]. Eq. [eq-sparse-l1]."""
    require_batch(z, "z")
    return per_example(z.abs())


def kl_sparsity(h: Tensor, rho: float | int) -> Float[Tensor, ""]:
    """The divergence of Bernoulli(rho) from a Bernoulli of each unit's mean activity, summed over units, in nats.

    h is [B,K] with entries in (0, 1), such as outputs of a sigmoid; the mean is over the batch. Raises where an entry
    of h or rho is not in (0, 1). Eq. [eq-sparse-kl].
    """
    require_float(h, "h")
    require_shape(h, "h", None, None)
    require(len(h) > 0, "the number of rows of h", 0, "1 or more")
    require_all((h > 0) & (h < 1), "h", h, "in (0, 1)")
    require_number(rho, "rho")
    require(0 < rho < 1, "rho", rho, "in (0, 1)")
    mean = h.mean(0)
    active = rho * (math.log(rho) - mean.log())
    silent = (1 - rho) * (math.log1p(-rho) - torch.log1p(-mean))
    return (active + silent).sum()


def top_k(z: Tensor, k: int) -> Float[Tensor, "B K"]:
    """Each code z [B,K] with its k largest entries kept and the others set to zero [Makhzani2014].

    Largest by value, as in the source, not by absolute value. Zeroed entries pass no gradient.
    Raises where k is not in 1..K. Eq. [eq-k-sparse].
    """
    require_float(z, "z")
    require_shape(z, "z", None, None)
    k = integer(k, "k", 1, z.shape[1])
    kept = z.detach().topk(k, dim=1).indices
    return torch.zeros_like(z).scatter(1, kept, z.gather(1, kept))


def contractive_penalty(encoder: Callable, x: Tensor) -> Float[Tensor, " B"]:
    """The squared Frobenius norm of the encoder's Jacobian at each x [B,*event] [Rifai2011]. Eq. [eq-contractive].

    Exact, by one reverse pass for each entry of the code; it has a gradient with respect to the encoder's parameters.
    encoder(x [B,*event]) gives [B,K]; each x is encoded on its own, so it must not mix the rows of a batch.
    """
    require_callable(encoder, "encoder")
    require_batch(x, "x")

    def code(one: Tensor) -> Tensor:
        z = encoder(one[None])
        require_rows(z, "the encoder's code", 1)
        return z[0]

    jacobian = torch.func.vmap(torch.func.jacrev(code))(x)
    return per_example(jacobian.square())


def require_batch(x: Tensor, name: str) -> None:
    """Raise unless `x` is a floating-point tensor [B, *event]."""
    require_float(x, name)
    require(x.dim() > 0, f"the shape of {name}", (), "(B, *event)")


def require_rows(x: Tensor, name: str, rows: int) -> None:
    """Raise unless `x` is a tensor with this number of rows."""
    ok = isinstance(x, Tensor) and x.dim() > 0 and len(x) == rows
    was = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
    require(ok, f"the shape of {name}", was, f"({rows}, ...), a row for each x")
