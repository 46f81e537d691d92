"""A chapter's ledger: checks that tie its equations to numbers, and that can fail."""

from __future__ import annotations

import contextlib
import html
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmlib.checks import require

__all__ = ["CheckFailed", "Ledger", "Report"]

MIME = "application/vnd.dmlib.ledger+json"
FIELDS = ("label", "claim", "route", "bound")


class CheckFailed(AssertionError):
    """A claim that its numbers do not bear out."""


class NotComparable(CheckFailed):
    """Sides whose shapes differ, that are empty or not finite: no verdict, so `must_fail` does not count it."""


class Ledger:
    """The checks of one chapter, in the order they ran."""

    def __init__(self, chapter: str) -> None:
        ok = isinstance(chapter, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", chapter) is not None
        require(ok, "chapter", repr(chapter), "a name like '03-elbo'")
        self.chapter = chapter
        self._checks: dict[tuple[str, str, str], str] = {}

    def close(self, label: str, actual: Any, expected: Any, *, atol: float | int, claim: str) -> None:
        """Pass if the largest absolute difference is at most `atol`; shapes are equal."""
        self._begin("close", label, claim)
        _require_tolerance("atol", atol)
        a, b = _tensor("actual", actual), _tensor("expected", expected)
        _require_same_shape(label, claim, a, b)
        error = _difference(a, b).abs().max().item()
        self._settle(error <= atol, "close", label, claim, f"|diff| <= {atol:g}", f"|diff| = {error:.3g}")

    def bound(self, label: str, lower: Any, upper: Any, *, slack: float | int = 0.0, claim: str) -> None:
        """Pass if lower <= upper + slack in every entry; shapes are equal, or one side is a Python number."""
        self._begin("bound", label, claim)
        _require_tolerance("slack", slack)
        a, b = _tensor("lower", lower), _tensor("upper", upper)
        if not isinstance(lower, (int, float)) and not isinstance(upper, (int, float)):
            _require_same_shape(label, claim, a, b)
        _require_entries(label, claim, a, b)
        excess = _difference(a, b).max().item()
        rule = "lower <= upper" + (f" + {slack:g}" if slack else "")
        self._settle(excess <= slack, "bound", label, claim, rule, f"lower - upper = {excess:.3g}")

    def monte_carlo(self, label: str, draws: Any, expected: Any, *, z: float | int = 4.5, claim: str) -> None:
        """Pass if the mean of draws[N, ...] is within `z` of its standard errors of `expected`, in every entry.

        An entry that never varies must equal `expected` to 1e-12.
        """
        self._begin("monte_carlo", label, claim)
        require(isinstance(z, (int, float)) and math.isfinite(z) and z > 0, "z", z, "a positive number")
        x, mu = _tensor("draws", draws).double(), _tensor("expected", expected).double()
        n = x.shape[0] if x.dim() else 0
        require(n >= 100, "the number of draws", n, "at least 100")
        _require_same_shape(label, claim, x[0], mu)
        constant = x.amax(0) == x.amin(0)
        unit = torch.where(constant, torch.full_like(mu, 1e-12 / z), x.std(0) / math.sqrt(n))
        _require_finite(label, claim, x, unit)
        score = ((x.mean(0) - mu).abs() / unit).max().item()
        rule = f"|z| <= {z:g}, N = {n}"
        self._settle(score <= z, "monte_carlo", label, claim, rule, f"|z| = {score:.3g}")

    def must_fail(self, label: str, fn: Callable[[], object], *, claim: str) -> None:
        """Pass if the wrong check that `fn` runs on this ledger raises CheckFailed; nothing else is recorded."""
        _require_text(label, claim)
        self._begin("must_fail", label, f"rejected: {claim}")
        before = dict(self._checks)
        rejected = False
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                fn()
        except NotComparable:
            raise
        except CheckFailed:
            rejected = True
        finally:
            self._checks = before
        self._settle(rejected, "must_fail", label, f"rejected: {claim}", "must fail", "the wrong check passed")

    def report(self) -> Report:
        """A table of the checks that passed, and their data for the book's ledger."""
        return Report(self._data())

    def save(self, path: str | Path) -> None:
        """Write the checks that passed as JSON."""
        Path(path).write_text(json.dumps(self._data(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _data(self) -> dict[str, Any]:
        rows = [dict(zip(FIELDS, (*key, bound))) for key, bound in self._checks.items()]
        return {"chapter": self.chapter, "checks": rows}

    def _begin(self, route: str, label: str, claim: str) -> None:
        """Refuse what is no label or claim; forget what an earlier run of this check recorded."""
        _require_text(label, claim)
        self._checks.pop((label, claim, route), None)

    def _settle(self, ok: bool, route: str, label: str, claim: str, bound: str, measured: str) -> None:
        """Record and print a pass, or raise."""
        if not ok:
            raise CheckFailed(f"{label}: {claim}: {measured}; it must be: {bound}")
        self._checks[label, claim, route] = bound
        print(f"PASS {label}  {claim}  [{bound}]")


class Report:
    """A ledger as a table: text, HTML, and data for the appendix."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __repr__(self) -> str:
        rows = [list(FIELDS), *([check[f] for f in FIELDS] for check in self.data["checks"])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(FIELDS))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in FIELDS)
        rows = "".join(
            f'<tr><td><a style="color:inherit" href="#equation-{check["label"]}">{check["label"]}</a></td>'
            + "".join(f"<td>{html.escape(check[name])}</td>" for name in FIELDS[1:])
            + "</tr>"
            for check in self.data["checks"]
        )
        return (
            f"<details><summary>The checks of this chapter, {len(self.data['checks'])} in all</summary>"
            '<div class="dm-ledger" role="region" tabindex="0" aria-label="Checks of this chapter" '
            f'style="overflow-x:auto"><table class="table dataframe"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div></details>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._repr_html_(), MIME: self.data}


def _require_text(label: str, claim: str) -> None:
    ok = isinstance(label, str) and re.fullmatch(r"eq-[a-z0-9]+(-[a-z0-9]+)*", label) is not None
    require(ok, "label", repr(label), "an equation label such as 'eq-posterior-mean'")
    ok = isinstance(claim, str) and claim.strip() == claim != "" and "\n" not in claim
    require(ok, "claim", repr(claim), "one line of words")


def _require_tolerance(name: str, value: float | int) -> None:
    ok = isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
    require(ok, name, value, "a finite number, 0 or larger")


def _tensor(name: str, x: Any) -> Tensor:
    """Anything numeric as a tensor on the CPU: int64 where it holds integers, else float64."""
    try:
        found = torch.as_tensor(x)
        x = torch.as_tensor(x, dtype=torch.float64) if found.is_floating_point() else found
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} was {type(x).__name__}; it must be numbers") from None
    require(not x.is_complex(), f"the dtype of {name}", x.dtype, "real")
    return x.detach().cpu() if x.is_floating_point() else x.detach().cpu().long()


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """a - b in float64, exact for integers too, which float64 alone would round beyond 2**53."""
    (high_a, low_a), (high_b, low_b) = _parts(a), _parts(b)
    return (high_a - high_b) + (low_a - low_b)


def _parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two float64 tensors whose exact sum is x: the multiple of 2**32 below an integer, and the rest."""
    if x.is_floating_point():
        return x, torch.zeros_like(x)
    low = x % 2**32
    return (x - low).double(), low.double()


def _require_entries(label: str, claim: str, a: Tensor, b: Tensor) -> None:
    if not (a.numel() and b.numel()):
        raise NotComparable(f"{label}: {claim}: the sides have no entries; they must have at least one")
    _require_finite(label, claim, a, b)


def _require_finite(label: str, claim: str, *sides: Tensor) -> None:
    for side in sides:
        bad = side[~torch.isfinite(side)]
        if bad.numel():
            raise NotComparable(f"{label}: {claim}: a side holds {bad[0].item()}; its numbers must be finite")


def _require_same_shape(label: str, claim: str, a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise NotComparable(f"{label}: {claim}: the shapes were {shapes}; they must be equal")
    _require_entries(label, claim, a, b)
