"""What every room stands on: shape annotations, and errors with three parts.

Shapes, dtypes, devices and names are checked always. Values are read only from CPU tensors outside compilation and
outside the transforms of torch.func, so that a check never makes an accelerator wait.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

try:  # Shape annotations are enforced in the tests alone; where jaxtyping is absent they are mere names.
    from jaxtyping import Float, Int64, UInt8
except ModuleNotFoundError:
    Float = Int64 = UInt8 = Any

__all__ = ["Float", "Int64", "Tensor", "UInt8"]


def require(ok: bool, name: str, was: object, must: str) -> None:
    """Raise a ValueError that names the argument, what it was and what it must be."""
    if not ok:
        raise ValueError(f"{name} was {was}; it must be {must}")


def values_readable(*tensors: Tensor) -> bool:
    """Whether values can be read at no cost: plain tensors on the CPU, outside compilation."""
    if torch.compiler.is_compiling():
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # inside vmap or grad
    return all(t.device.type == "cpu" and not wrapped(t) for t in tensors)


def integer(n: object, name: str, least: int, most: int | None = None) -> int:
    """`n` as a Python integer; raises unless it is an integer, of Python or NumPy, in least..most."""
    ok = isinstance(n, numbers.Integral) and not isinstance(n, bool) and n >= least and (most is None or n <= most)
    require(ok, name, repr(n), f"an integer, {least} or more" if most is None else f"an integer in {least}..{most}")
    return int(n)


def integers(values: object, name: str) -> list[int]:
    """`values` as Python integers; raises unless they are a sequence of integers or an int64 tensor [N] on the CPU."""
    if isinstance(values, Tensor):
        require(values.device.type == "cpu", f"the device of {name}", values.device, "the CPU")
        require(values.dtype == torch.int64, f"the dtype of {name}", values.dtype, "torch.int64")
        require(values.dim() == 1, f"the shape of {name}", tuple(values.shape), "(any)")
        return values.tolist()
    ok = isinstance(values, Iterable) and not isinstance(values, (str, bytes))
    require(ok, name, repr(values), "a sequence of integers")
    values = list(values)
    for n in values:
        require(isinstance(n, numbers.Integral) and not isinstance(n, bool), f"an entry of {name}", n, "an integer")
    return [int(n) for n in values]


def sizes(values: object, name: str) -> list[int]:
    """`values` as Python integers, each 1 or more; raises unless they are a sequence of one or more of these."""
    values = integers(values, name)
    require(len(values) > 0 and min(values) > 0, name, values, "one or more integers, each 1 or more")
    return values


def require_choice(x: object, name: str, choices: Iterable[str]) -> None:
    """Raise unless `x` is one of these strings."""
    require(isinstance(x, str) and x in choices, name, repr(x), f"one of {', '.join(choices)}")


def require_callable(x: object, name: str) -> None:
    """Raise unless `x` can be called."""
    require(callable(x), name, type(x).__name__, "a function")


def require_generator(x: object, name: str = "generator") -> None:
    """Raise unless `x` is a generator of random numbers."""
    require(isinstance(x, torch.Generator), name, type(x).__name__, "a torch.Generator")


def require_number(x: object, name: str, must: str = "a number") -> None:
    """Raise unless `x` is one real number, of Python or NumPy; its range is the caller's to check."""
    require(isinstance(x, numbers.Real) and not isinstance(x, bool), name, repr(x), must)


def require_all(mask: Tensor, name: str, x: Tensor, must: str) -> None:
    """Like `require`, on each entry of `x` where its values are readable; names the first bad one."""
    if values_readable(mask) and not mask.all():
        bad = x[~mask].flatten()[0].item() if mask.shape == x.shape else "not so"
        raise ValueError(f"{name} was {bad}; it must be {must}")


def require_float(x: Tensor, name: str) -> None:
    """Raise unless `x` is a floating-point tensor of finite values."""
    require(isinstance(x, Tensor), name, type(x).__name__, "a tensor")
    require(x.is_floating_point(), f"the dtype of {name}", x.dtype, "a floating-point dtype")
    if values_readable(x) and not torch.isfinite(x.detach().sum()):  # One pass; a finite sum means finite terms.
        require_all(torch.isfinite(x), name, x, "finite")


def require_like(x: Tensor, name: str, like: Tensor, like_name: str) -> None:
    """Raise unless `x` has the shape, dtype and device of `like`: nothing broadcasts, promotes or moves silently."""
    require_float(x, name)
    require(x.shape == like.shape, f"the shape of {name}", tuple(x.shape), f"{tuple(like.shape)}, that of {like_name}")
    require_kin(x, name, like, like_name)


def require_kin(x: Tensor, name: str, like: Tensor, like_name: str) -> None:
    """Raise unless `x` is a tensor of the dtype and on the device of `like`."""
    require(isinstance(x, Tensor), name, type(x).__name__, "a tensor")
    require(x.dtype == like.dtype, f"the dtype of {name}", x.dtype, f"{like.dtype}, that of {like_name}")
    require_beside(x, name, like, like_name)


def require_fits(x: Tensor, name: str, module: nn.Module) -> None:
    """Raise unless `x` is a floating-point tensor of the dtype and on the device of the parameters of `module`.

    Inside autocast the dtypes may differ.
    """
    require(isinstance(x, Tensor), name, type(x).__name__, "a tensor")
    require(x.is_floating_point(), f"the dtype of {name}", x.dtype, "a floating-point dtype")
    weight = next(module.parameters())
    require_beside(x, name, weight, "the network")
    if not torch.is_autocast_enabled(x.device.type):
        require(x.dtype == weight.dtype, f"the dtype of {name}", x.dtype, f"{weight.dtype}, that of the network")


def require_beside(x: Tensor, name: str, like: Tensor, like_name: str) -> None:
    """Raise unless `x` is on the device of `like`."""
    require(x.device == like.device, f"the device of {name}", x.device, f"{like.device}, that of {like_name}")


def require_shape(x: Tensor, name: str, *shape: int | None) -> None:
    """Raise unless `x` has this shape; None stands for any size."""
    ok = isinstance(x, Tensor) and x.dim() == len(shape) and all(n is None or n == m for n, m in zip(shape, x.shape))
    was = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
    require(ok, f"the shape of {name}", was, "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")")


def widest_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which to compute what must be exact: float64, or float32 on a device that lacks it."""
    return torch.float32 if device.type == "mps" else torch.float64


def per_example(x: Tensor) -> Tensor:
    """Sum [B, *event] over the event: [B]."""
    return x.flatten(1).sum(1) if x.dim() > 1 else x


def pad_to(a: Tensor, like: Tensor) -> Tensor:
    """View [B] as [B, 1, .., 1] with as many dimensions as `like`."""
    return a.reshape(-1, *[1] * (like.dim() - 1))
