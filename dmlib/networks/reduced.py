"""Reduced precision around the networks and nothing else: bounds, losses and weights stay in float32."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from dmlib.checks import Tensor, require

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def reducible(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A network's forward that runs in `self.amp_dtype` where `precision` has set one, and returns float32 then."""

    @functools.wraps(forward)
    def run(self: nn.Module, x: Tensor, *rest: Tensor) -> Any:
        dtype = getattr(self, "amp_dtype", None)
        if dtype is None:
            return forward(self, x, *rest)
        with torch.autocast(x.device.type, dtype):
            out = forward(self, x, *rest)
        return tuple(part.float() for part in out) if isinstance(out, tuple) else out.float()

    run.reducible = True
    return run


@contextlib.contextmanager
def precision(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside, the networks of `model` compute in `dtype`; torch.float32 leaves them as they are [Micikevicius2018]."""
    require(dtype in DTYPES.values(), "dtype", dtype, f"one of {', '.join(map(str, DTYPES.values()))}")
    networks = [m for m in model.modules() if hasattr(type(m).forward, "reducible") and dtype != torch.float32]
    require(
        bool(networks) or dtype == torch.float32, "model", type(model).__name__, "one that holds a network of dmlib"
    )
    for network in networks:
        network.amp_dtype = dtype
    try:
        yield
    finally:
        for network in networks:
            del network.amp_dtype


def choose(name: str, device: torch.device | str) -> torch.dtype:
    """The dtype that a configuration names; "auto" is the fastest that `device` computes natively.

    That is bfloat16 on GPUs and CPUs with units for it, float16 on other NVIDIA GPUs, float32 everywhere else.
    """
    require(name in ("auto", *DTYPES), "amp_dtype", repr(name), f"'auto' or one of {', '.join(DTYPES)}")
    if name != "auto":
        return DTYPES[name]
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if kind == "cpu" and _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices in bfloat16; older releases of PyTorch do not say."""
    return hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("amx_bf16", False))
