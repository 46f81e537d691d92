"""Random streams named by integers, so that any one can be made again without the others."""

from __future__ import annotations

import hashlib

import torch

from dmlib.checks import integer


def generator(seed: object, *path: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator whose stream is named by the integers seed, *path.

    Wide, not chained: `generator(seed, step)` needs no earlier step, so a run resumes anywhere.
    Neighboring names, and names of different length, give unrelated streams: the seed is a hash of all of them.
    PyTorch's CPU generator keeps 32 bits of a seed: two names share a stream with probability 2**-32.
    Raises where an integer is negative or is none.
    """
    for number in (seed, *path):
        integer(number, "an entry of (seed, *path)", 0)
    name = ",".join(str(int(number)) for number in (seed, *path))
    mixed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little", signed=True)
    return torch.Generator(device=device).manual_seed(mixed)
