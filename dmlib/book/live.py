"""Figures that compute in the page: a JavaScript module of `live/`, given its data from Python.

A module is `live/NAME.js`, whose `render({model, el})` draws; its arithmetic stands in `live/math/`, in pure functions
that the tests hold against dmlib; its controls stand in `live/NAME.json`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from dmlib.book import widgets
from dmlib.checks import Tensor, require, require_callable, require_choice

__all__ = ["Computed", "compute"]

LIVE = Path(__file__).with_name("live")
IMPORT = re.compile(r'^import \* as (\w+) from "\./([\w/]+)\.js";\n', re.M)
EXPORT = re.compile(r"^export ((?:async )?function\*?|const|class) (\w+)", re.M)


def modules() -> list[str]:
    """The names of the figures there are."""
    return sorted(path.stem for path in LIVE.glob("*.json"))


def compute(
    module: str,
    *,
    data: dict[str, Any],
    alt: str,
    still: Callable[..., object],
    figsize: tuple[float | int, float | int] = (5.0, 4.0),
    panels: tuple[int, int] | None = None,
    **controls: Any,
) -> Computed:
    """A figure that a reader can grab, computed in the page, without a kernel.

    `data` holds what the module draws: numbers, texts, lists, dictionaries and tensors (float32 in the digits that it
    has), and networks, whose weights go in half precision. `controls` say where its controls stand at first. Where no
    script runs, `still(ax)` is shown, drawn as by `explore`, and `alt` stands for it. Raises where the module or a
    control is unknown or a value is out of range.
    """
    require_choice(module, "module", modules())
    require(isinstance(alt, str) and alt.strip() != "", "alt", repr(alt), "words that say what the figure shows")
    require_callable(still, "still")
    return Computed(module, data, controls, alt, widgets.inline(widgets.drawn(still, figsize, panels), alt, figsize))


class Computed:
    """What `compute` returns: it displays itself in every host that runs scripts, and as a picture elsewhere."""

    def __init__(self, module: str, data: dict[str, Any], controls: dict[str, Any], alt: str, still: str) -> None:
        self.module, self.alt, self.still = module, alt, still
        table = json.loads((LIVE / f"{module}.json").read_text("utf8"))
        for name, value in controls.items():
            require(name in table, f"the control {name}", "given", f"one of {', '.join(table)}")
            _require_in(name, value, table[name])
        both = sorted(set(data) & (set(table) | {"table", "link"}))
        require(not both, "the keys of data", both, "none that is a control, 'table' or 'link'")
        self.weights: dict[str, str] = {}
        self.values = {name: self._plain(value) for name, value in data.items()} | controls

    def _plain(self, value: Any) -> Any:
        """A value as JSON has it; the weights of a network are kept apart, under their digest."""
        if isinstance(value, nn.Module):
            shapes = {name: list(tensor.shape) for name, tensor in value.state_dict().items()}
            row = torch.cat([tensor.detach().cpu().flatten() for tensor in value.state_dict().values()])
            packed = base64.b64encode(row.half().numpy().astype("<f2").tobytes()).decode()
            digest = hashlib.sha256(packed.encode()).hexdigest()[:16]
            self.weights[digest] = packed
            return {"weights": digest, "shapes": shapes}
        if isinstance(value, Tensor):
            require(bool(value.isfinite().all()), "data", "not finite", "finite numbers")
            numbers = value.detach().cpu().numpy()
            return numbers.astype("U").astype(float).tolist() if numbers.dtype == "float32" else numbers.tolist()
        if isinstance(value, dict):
            return {name: self._plain(part) for name, part in value.items()}
        return [self._plain(part) for part in value] if isinstance(value, (list, tuple)) else value

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.alt, "text/html": self.page(bool(os.environ.get("DMLIB_STATIC")))}

    def page(self, static: bool = False) -> str:
        """The figure as HTML; for the built pages, its module is a file of theirs."""
        source = ' data-src="_static/live/{0}.js"></script>' if static else ">{1}</script>"
        late = '<script type="text/plain" data-late="{}" data-key="{}"'
        parts = [late.format("modules", self.module) + source.format(self.module, script(self.module))]
        for digest, packed in self.weights.items():
            parts.append(late.format("weights", digest) + f'>dmlibLive.weights["{digest}"]="{packed}";</script>')
        return (
            f'<div class="dm-live" role="group" aria-label="{html.escape(self.alt)}" data-module="{self.module}">'
            f'<div class="dm-still" style="overflow-x: auto">{self.still}</div>'
            f'<script type="application/json" class="dm-data">{_json(self.values)}</script>{"".join(parts)}</div>'
            f"<script>{(LIVE / 'loader.js').read_text('utf8')}</script>"
        )


def script(module: str) -> str:
    """A module and all it imports as one script, which keeps it in window.dmlibLive.modules under its name.

    Each file becomes a constant of its own name that holds what the file exports, so hosts that forbid files, Blob
    addresses and eval can run it, and its text is that of a worker.
    """
    parts, style = _parts(module, []), json.dumps((LIVE / "style.css").read_text("utf8"))
    inner, table = "\n".join(parts), (LIVE / f"{module}.json").read_text("utf8")
    result = f"{{ engine, figure: {module}, table: {table} }}"
    made = f'function () {{\n"use strict";\nconst STYLE = {style};\n{inner}\nreturn {result};\n}}'
    return f'dmlibLive.modules["{module}"] = {made};\n'


def _parts(path: str, done: list[str], sources: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """The files that `path` needs and itself, each once, as constants of their own names, without comments.

    `done` are the names that are there; `sources` stand in the place of files.
    """
    source = sources.get(path) or (LIVE / f"{path}.js").read_text("utf8")
    folder, name = path.rpartition("/")[::2]
    parts = []
    done.append(name)
    for known, other in IMPORT.findall(source):
        other = f"{folder}/{other}" if folder else other
        require(known == other.rpartition("/")[2], f"an import of {path}.js", known, "the name of the file")
        if known not in done:
            parts += _parts(other, done, sources)
    exported = ", ".join(found for _, found in EXPORT.findall(source))
    lines = (line.strip() for line in EXPORT.sub(r"\1 \2", IMPORT.sub("", source)).splitlines())
    body = "\n".join(line for line in lines if line and not line.startswith("//"))
    parts.append(f"const {name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();")
    return parts


def _require_in(name: str, value: Any, entry: dict[str, Any]) -> None:
    """Raise unless a control can stand at this value."""
    if "options" in entry:
        require_choice(value, name, entry["options"])
    elif isinstance(entry["value"], bool):
        require(isinstance(value, bool), name, repr(value), "True or False")
    else:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(number and entry["min"] <= value <= entry["max"], name, value, f"in {entry['min']}..{entry['max']}")


def _json(values: dict[str, Any]) -> str:
    """JSON that can stand within a script element."""
    return json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
