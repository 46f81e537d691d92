"""Figures that move: drawn live where there is a kernel, drawn ahead of time where there is none."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import math
import os
import string
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dmlib.book import player
from dmlib.checks import require

__all__ = ["Explorer", "explore"]

MAX_FRAMES = 40
GREEK = {
    **{"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε", "eta": "η", "theta": "θ"},
    **{"lambda": "λ", "mu": "μ", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "psi": "ψ", "omega": "ω"},
}
DPI = 150  # of the drawing; an inch is shown as 100 pixels of the page


def explore(
    draw: Callable[..., object],
    *,
    alt: str,
    figsize: tuple[float | int, float | int] = (5.0, 4.0),
    panels: tuple[int, int] | None = None,
    interval: int = 200,
    first: dict[str, Any] | None = None,
    **axes: Iterable[Any],
) -> Explorer:
    """A figure with one slider for each named axis, which `draw(ax, **values)` draws.

    `alt` is a format string over the axes, as in "two bells at t = {t}": each frame gets its own words.
    With panels = (rows, columns), `draw` gets an array of matplotlib axes. At most 40 frames in all.
    `first` says where sliders stand when the page opens; the others stand at their first value.
    """
    return Explorer(draw, alt, figsize, panels, interval, {} if first is None else first, axes)


class Explorer:
    """What `explore` returns: it displays itself as a live widget or as a player of drawn frames."""

    def __init__(self, draw, alt, figsize, panels, interval, first, axes) -> None:
        self.draw, self.figsize, self.panels, self.interval = draw, figsize, panels, interval
        require(callable(draw), "draw", type(draw).__name__, "a function of a matplotlib Axes and the values")
        require(bool(axes), "the number of axes", 0, "at least 1, as in t=range(10)")
        require(isinstance(interval, int) and interval > 0, "interval", interval, "a positive number of milliseconds")
        self.axes = {name: [_plain(value) for value in values] for name, values in axes.items()}
        for name, values in self.axes.items():
            require(len(values) > 0, f"the axis {name}", "empty", "a sequence of values")
        count = math.prod(map(len, self.axes.values()))
        require(count <= MAX_FRAMES, "the number of frames", count, f"at most {MAX_FRAMES}")
        require(set(first) <= set(axes), "first", repr(first), f"a dictionary with keys among {sorted(axes)}")
        for name, value in first.items():
            require(value in self.axes[name], f"first[{name!r}]", value, f"one of {self.axes[name]}")
        self.first = {name: values[0] for name, values in self.axes.items()} | first
        self.alt = _alt(alt, self.axes)
        self.words(self.first)  # a format that does not fit its values fails here, not in the page

    def points(self) -> list[dict[str, Any]]:
        """The values of every frame; the last axis moves fastest."""
        return [dict(zip(self.axes, values)) for values in itertools.product(*self.axes.values())]

    def words(self, values: dict[str, Any]) -> str:
        """The text that stands for one frame."""
        return _Short().format(self.alt, **values)

    def pixels(self, values: dict[str, Any]) -> Image.Image:
        """One frame, drawn."""
        return drawn(self.draw, self.figsize, self.panels, **values)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if not _has_live_kernel():
            return {"text/plain": self.words(self.first), "text/html": self._player()}
        view = {"version_major": 2, "version_minor": 0, "model_id": self._live().model_id}
        return {
            "text/plain": self.words(self.first),
            "text/html": self._frame(self.first) + "<p>Run this cell to move the figure.</p>",
            "application/vnd.jupyter.widget-view+json": view,
        }

    def _frame(self, values: dict[str, Any], hidden: str = "") -> str:
        return inline(self.pixels(values), self.words(values), self.figsize, hidden)

    def _player(self) -> str:
        frames = "".join(self._frame(at, "" if at == self.first else " hidden") for at in self.points())
        moved, drawn = " and ".join(self.axes), f"{100 * self.figsize[0]:.0f}px"
        rows = "".join(_slider(name, values, self.first[name]) for name, values in self.axes.items())
        return (
            f'<div class="dm-player" role="group" aria-label="Figure that moves with {html.escape(moved)}" '
            f'data-interval="{self.interval}">'
            f'<style>{player.STYLE}</style><div class="dm-frames" style="--drawn: {drawn}">{frames}</div>'
            f'<div class="dm-controls"><button type="button">Play</button><div class="dm-axes">{rows}</div></div>'
            f"</div><script>{player.SCRIPT}</script>"
        )

    def _live(self) -> Any:
        """The same figure as a widget, redrawn whenever a slider is let go."""
        import ipywidgets

        picture = ipywidgets.Image(format="png", width=str(round(100 * self.figsize[0])))
        words = ipywidgets.HTML()
        sliders = {
            name: ipywidgets.SelectionSlider(
                options=[(_text(value), i) for i, value in enumerate(values)],
                value=values.index(self.first[name]),
                description=name,
                continuous_update=False,
            )
            for name, values in self.axes.items()
        }

        def redraw(change: object = None) -> None:
            values = {name: self.axes[name][slider.value] for name, slider in sliders.items()}
            try:
                self.pixels(values).save(buffer := io.BytesIO(), "PNG")
                picture.value, picture.layout.display, said = buffer.getvalue(), None, self.words(values)
            except Exception as error:  # Of any kind: the function that draws is the reader's. It stands in its place.
                picture.layout.display, said = "none", f"{type(error).__name__}: {error}"
            words.value = f"<small>{html.escape(said)}</small>"

        for slider in sliders.values():
            slider.observe(redraw, names="value")
        redraw()
        return ipywidgets.VBox([picture, *sliders.values(), words])


def drawn(
    draw: Callable[..., object],
    figsize: tuple[float | int, float | int],
    panels: tuple[int, int] | None,
    **values: Any,
) -> Image.Image:
    """What `draw(ax, **values)` draws, or draw(axes, ..) where there are panels."""
    fig = Figure(figsize=figsize, dpi=DPI, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(fig)
    draw(fig.add_subplot() if panels is None else np.atleast_1d(fig.subplots(*panels)), **values)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def inline(picture: Image.Image, alt: str, figsize: tuple[float | int, float | int], more: str = "") -> str:
    """A picture as an element of a page that holds it."""
    source = base64.b64encode(_webp(picture)).decode()
    width, height = (round(100 * side) for side in figsize)
    return (
        f'<img class="dark-light" alt="{html.escape(alt)}" width="{width}" height="{height}"'
        f'{more} src="data:image/webp;base64,{source}">'
    )


class _Short(string.Formatter):
    """Formats a plain {t} shortly, and {t:.3f} as it says."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return format(value, format_spec) if format_spec else _text(value)


def _alt(alt: str, axes: dict[str, list[Any]]) -> str:
    """The format string, with the axes it does not mention added at its end."""
    require(isinstance(alt, str) and alt.strip() != "", "alt", repr(alt), "words that say what the figure shows")
    fields = {field for _, field, _, _ in string.Formatter().parse(alt) if field is not None}
    unknown = sorted(fields - set(axes))
    require(not unknown, "alt", f"a text with the fields {unknown}", f"one with fields among {sorted(axes)}")
    missing = [f"{name} = {{{name}}}" for name in axes if name not in fields]
    return alt + (f" ({', '.join(missing)})" if missing else "")


def _symbol(name: str) -> str:
    """An axis as it is read: Greek letters, a subscript behind a letter, words apart."""
    first, *rest = name.split("_")
    if len(GREEK.get(first, first)) > 1:
        return html.escape(" ".join([first, *rest]))
    return html.escape(GREEK.get(first, first)) + "".join(f"<sub>{html.escape(GREEK.get(s, s))}</sub>" for s in rest)


def _slider(name: str, values: list[Any], first: Any) -> str:
    ticks, said = html.escape(json.dumps([_text(value) for value in values])), html.escape(_text(first))
    return (
        f'<label><span>{_symbol(name)}</span><input type="range" min="0" max="{len(values) - 1}" step="1" '
        f'value="{values.index(first)}" aria-valuetext="{said}" data-ticks="{ticks}"></label>'
        f'<output aria-live="polite">{said}</output>'
    )


def _plain(value: Any) -> Any:
    """A Python number in place of an array or tensor that holds one."""
    return value.item() if hasattr(value, "item") else value


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _webp(picture: Image.Image) -> bytes:
    """The smaller of lossless, good for lines, and quality 80, good for noise."""
    tries = []
    for options in ({"lossless": True, "quality": 50}, {"quality": 80}):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", method=2, **options)
        tries.append(buffer.getvalue())
    return min(tries, key=len)


def _has_live_kernel() -> bool:
    """Whether a person may be there to move sliders: in a kernel, and not in a build of the book."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None and not os.environ.get("DMLIB_STATIC")
