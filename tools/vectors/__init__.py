"""What the arithmetic of the figures that compute is held against: values that dmlib gives in float64.

Each module here has `cases()`; tests/book/test_live_math.py runs them in a browser, and the ledger lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, NamedTuple

EXACT, NETWORK = 1e-10, 1e-4  # the tolerance of a formula, and of a network with the same rounded weights


class Case(NamedTuple):
    """One value of the page's arithmetic, and the same from the library."""

    label: str  # the equation
    claim: str
    call: str  # JavaScript over the files of live/math, by name, and over the names in `values`
    values: dict[str, Any]  # tensors, numbers, texts, lists and dictionaries of these
    expected: Any  # a tensor, a number, or lists and dictionaries of these, in the order of the call's result
    atol: float = EXACT  # relative to the size of the expected value where that is above 1
    once: bool = False  # too big to be asked of every changed file as well


def cases() -> list[Case]:
    """All cases, those of one file after those of another."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return [case for name in names for case in importlib.import_module(f"{__name__}.{name}").cases()]
