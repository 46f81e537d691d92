"""Networks of discrete codes: an encoder to rows of vectors, and a prior that reads the codes in their order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from dmlib import checks
from dmlib.checks import Float, Tensor, integer, integers, require, require_all, require_beside, require_shape
from dmlib.networks.mlp import MLP
from dmlib.probability.likelihoods import to_unit


class CodeEncoder(nn.Module):
    """Maps levels x [B,*event] in 0..levels-1, put on [-1, 1] first, to `positions` vectors [B,N,dim]."""

    def __init__(self, event: Sequence[int], hidden: Sequence[int], positions: int, dim: int, levels: int) -> None:
        super().__init__()
        event, hidden = checks.sizes(event, "event"), integers(hidden, "hidden")
        self.event, self.levels = tuple(event), integer(levels, "levels", 2)
        self.shape = integer(positions, "positions", 1), integer(dim, "dim", 1)
        self.mlp = MLP([math.prod(event), *hidden, math.prod(self.shape)])

    def forward(self, x: Tensor) -> Float[Tensor, "B N dim"]:
        require_shape(x, "x", None, *self.event)
        x = to_unit(x, self.levels, dtype=next(self.parameters()).dtype)
        return self.mlp(x.flatten(1)).view(-1, *self.shape)


class CodePrior(nn.Module):
    """Logits [B,N,V] of each code given those before it, idx [B,N]: N small networks, masked [Germain2015].

    Position i has a hidden layer of its own, which sees the embedded codes of the positions before i and nothing else.
    """

    def __init__(self, positions: int, n_codes: int, hidden: int = 32, dim: int = 8) -> None:
        super().__init__()
        n, v = integer(positions, "positions", 1), integer(n_codes, "n_codes", 2)
        hidden, dim = integer(hidden, "hidden", 1), integer(dim, "dim", 1)
        self.shape = n, v
        self.embedding = nn.Embedding(v, dim)
        self.first = nn.Linear(n * dim, n * hidden)
        self.weight = nn.Parameter(torch.randn(n, hidden, v) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(n, v))
        before = torch.ones(n, n).tril(-1)  # Row i: the positions that position i sees.
        self.register_buffer("mask", before.repeat_interleave(hidden, 0).repeat_interleave(dim, 1), persistent=False)

    def forward(self, idx: Tensor) -> Float[Tensor, "B N V"]:
        n, v = self.shape
        require_shape(idx, "idx", None, n)
        require(idx.dtype == torch.int64, "the dtype of idx", idx.dtype, "torch.int64")
        require_beside(idx, "idx", self.bias, "the network")
        require_all((idx >= 0) & (idx < v), "idx", idx, f"in 0..{v - 1}")
        seen = self.embedding(idx).flatten(1)
        hidden = F.silu(F.linear(seen, self.first.weight * self.mask, self.first.bias)).view(len(idx), n, -1)
        return torch.einsum("bnh,nhv->bnv", hidden, self.weight) + self.bias
