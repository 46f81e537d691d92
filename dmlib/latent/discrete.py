"""Latents that are choices: gradients through a random choice, and the nearest code of a codebook."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from dmlib.checks import (
    Float,
    Int64,
    Tensor,
    integer,
    per_example,
    require,
    require_all,
    require_float,
    require_generator,
    require_kin,
    require_like,
    require_number,
    require_shape,
    widest_dtype,
)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard`, to the bit, with the gradient of `soft` [Bengio2013]. Eq. [eq-straight-through].

    Raises where the two differ in shape, dtype or device.
    """
    require_float(soft, "soft")
    require_like(hard, "hard", soft, "soft")
    return hard.detach() + (soft - soft.detach())


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise of uniform numbers in [0, 1), by its inverse distribution function. Eq. [eq-gumbel-noise]."""
    require_float(uniform, "uniform")
    require_all((uniform >= 0) & (uniform < 1), "uniform", uniform, "in [0, 1)")
    return -(-uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log()).log()


def gumbel_softmax(logits: Tensor, uniform: Tensor, tau: float | int, hard: bool = False) -> Float[Tensor, "B N V"]:
    """A relaxed draw of N choices among V for each example [Jang2017], [Maddison2017]. Eq. [eq-gumbel-softmax].

    logits and uniform, numbers in [0, 1), are [B,N,V]; tau > 0 is the temperature. With `hard`, the draw is one-hot
    and its gradient is that of the relaxed one.
    """
    _require_logits(logits)
    require_like(uniform, "uniform", logits, "logits")
    require_number(tau, "tau")
    require(0 < tau < math.inf, "tau", tau, "more than 0, and finite")
    soft = ((logits + gumbel(uniform)) / tau).softmax(-1)
    if not hard:
        return soft
    return straight_through(torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0), soft)


def kl_to_uniform(logits: Tensor) -> Float[Tensor, " B"]:
    """The divergence of N independent choices, logits [B,N,V], from uniform ones, in nats. Eq. [eq-kl-uniform]."""
    _require_logits(logits)
    log_probs = logits.log_softmax(-1)
    return per_example(log_probs.exp() * log_probs) + logits.shape[1] * math.log(logits.shape[2])


def score_function(losses: Tensor, log_probs: Tensor, baseline: Tensor | None = None) -> Float[Tensor, " B"]:
    """A surrogate: the mean of S losses whose gradient is the score-function estimator [Williams1992].

    losses [S,B] are those of S draws, log_probs [S,B] the log-probabilities of the draws; `baseline` [B] must not
    depend on them. The gradient of the losses themselves is added. Eq. [eq-score-function].
    """
    _require_draws(losses, log_probs, 1)
    if baseline is not None:
        require_like(baseline, "baseline", losses[0], "the losses of one draw")
    advantage = losses if baseline is None else losses - baseline
    return _surrogate(losses, log_probs, advantage)


def leave_one_out(losses: Tensor, log_probs: Tensor) -> Float[Tensor, " B"]:
    """`score_function` with a baseline for each draw: the mean loss of the S - 1 others [Mnih2016], [Kool2019].

    losses and log_probs are [S,B] with S of 2 or more. Eq. [eq-choice-leave-one-out].
    """
    _require_draws(losses, log_probs, 2)
    draws = len(losses)
    others = (losses.sum(0) - losses) / (draws - 1)
    return _surrogate(losses, log_probs, losses - others)


def _surrogate(losses: Tensor, log_probs: Tensor, advantage: Tensor) -> Tensor:
    return (losses + advantage.detach() * (log_probs - log_probs.detach())).mean(0)


class Quantized(NamedTuple):
    """What a VectorQuantizer makes of z_e [B,N,dim]."""

    z_q: Tensor  # The nearest codes [B,N,dim], with the gradient of z_e.
    idx: Tensor  # Which codes these are, int64 [B,N].
    codebook_loss: Tensor  # Squared distance, moves the codes alone [B].
    commitment_loss: Tensor  # The same number, moves the encoder alone [B].


class VectorQuantizer(nn.Module):
    """A codebook of n_codes vectors of `dim` numbers, trained by gradients [Oord2017]. Eq. [eq-vq-nearest]."""

    def __init__(self, n_codes: int, dim: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(integer(n_codes, "n_codes", 2), integer(dim, "dim", 1)))

    def forward(self, z_e: Tensor) -> Quantized:
        """The nearest code of each vector of z_e [B,N,dim], and the two losses, summed over N and dim."""
        idx = self.nearest(z_e)
        codes = self.codebook[idx]
        codebook_loss = per_example((codes - z_e.detach()).square())
        commitment_loss = per_example((z_e - codes.detach()).square())
        return Quantized(straight_through(codes, z_e), idx, codebook_loss, commitment_loss)

    @torch.no_grad()
    def nearest(self, z_e: Tensor) -> Int64[Tensor, "B N"]:
        """The index of the code nearest to each vector of z_e [B,N,dim]."""
        require_float(z_e, "z_e")
        require_shape(z_e, "z_e", None, None, self.codebook.shape[1])
        require_kin(z_e, "z_e", self.codebook, "the codebook")
        exact = "donot_use_mm_for_euclid_dist"  # No squares that cancel.
        return torch.cdist(z_e.flatten(0, 1), self.codebook, compute_mode=exact).argmin(1).view(z_e.shape[:2])

    @torch.no_grad()
    def restart(self, z_e: Tensor, *, generator: torch.Generator) -> int:
        """Put each code that no vector of z_e [B,N,dim] uses on one of these vectors; how many were dead.

        The vectors are picked at random, each at most once where there are enough. Reads values: not for a loop that
        must not wait for an accelerator.
        """
        require_generator(generator)
        used = torch.bincount(self.nearest(z_e).flatten(), minlength=len(self.codebook)) > 0
        dead = (~used).nonzero().squeeze(1)
        rows = torch.randperm(z_e.shape[:2].numel(), generator=generator, device=generator.device)
        rows = rows[torch.arange(len(dead), device=rows.device) % len(rows)]
        self.codebook[dead] = z_e.flatten(0, 1)[rows.to(z_e.device)]
        return len(dead)


def perplexity(idx: Tensor, n_codes: int) -> Float[Tensor, ""]:
    """How many equally used codes would have the entropy of those in idx (any shape), 1..n_codes.

    Eq. [eq-perplexity].
    """
    n_codes = integer(n_codes, "n_codes", 1)
    require(isinstance(idx, Tensor), "idx", type(idx).__name__, "a tensor")
    require(idx.dtype == torch.int64, "the dtype of idx", idx.dtype, "torch.int64")
    require(idx.numel() > 0, "the number of codes in idx", 0, "1 or more")
    require_all((idx >= 0) & (idx < n_codes), "idx", idx, f"in 0..{n_codes - 1}")
    one = torch.full((idx.numel(),), 1 / idx.numel(), dtype=widest_dtype(idx.device), device=idx.device)
    shares = one.new_zeros(n_codes).index_add(0, idx.flatten(), one)
    return torch.special.entr(shares).sum().exp()


def _require_logits(logits: Tensor) -> None:
    require_float(logits, "logits")
    require_shape(logits, "logits", None, None, None)


def _require_draws(losses: Tensor, log_probs: Tensor, least: int) -> None:
    require_float(losses, "losses")
    require_shape(losses, "losses", None, None)
    require_like(log_probs, "log_probs", losses, "losses")
    require(len(losses) >= least, "the number of draws", len(losses), f"{least} or more")
