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

from dmlib.checks import require

__all__ = ["Explorer", "explore"]

MAX_FRAMES = 40
DPI = 150  # of the drawing; an inch is shown as 100 pixels of the page

# The frames are white, so the player is an opaque white card: its contrast is the same in light and dark.
_STYLE = """
.dm-player { box-sizing: border-box; width: fit-content; max-width: 100%; margin: .5rem auto 1rem; padding: .75rem;
 color: #222; color-scheme: light; background: #fff; border: 1px solid #ccc; border-radius: .5rem; }
.dm-player img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.dm-player img[hidden] { display: none; }
.dm-controls { display: flex; gap: 1rem; align-items: center; margin-top: .5rem; }
.dm-axes { display: grid; flex: 1; grid-template-columns: auto minmax(4rem, 1fr) auto; gap: .4rem .75rem;
 align-items: center; }
.dm-axes label { display: contents; }
.dm-axes input { width: 100%; margin: 0; accent-color: #0072b2; }
.dm-axes output { min-width: 3.5em; padding: 0; text-align: right; font-variant-numeric: tabular-nums; }
.dm-player button { min-width: 4.5em; padding: .3rem .6rem; font: inherit; color: #222; background: #f2f2f2;
 border: 1px solid #767676; border-radius: .25rem; cursor: pointer; }
html[data-theme="dark"] .cell_output :is(.text_html:has(> .dm-player), .dm-player img) { padding: 0 !important;
 background: none !important; }
@media (prefers-reduced-motion: reduce) { .dm-player button { display: none; } }
@media print { .dm-player .dm-controls { display: none; } }
"""

_SCRIPT = """
document.querySelectorAll(".dm-player:not([data-ready])").forEach((player) => {
  player.dataset.ready = "1";
  const images = [...player.querySelectorAll("img")], sliders = [...player.querySelectorAll("input")];
  const outputs = [...player.querySelectorAll("output")], button = player.querySelector("button");
  const ticks = sliders.map((slider) => JSON.parse(slider.dataset.ticks));
  const show = () => {
    let frame = 0;
    sliders.forEach((slider, i) => {
      const value = ticks[i][slider.value];
      frame = frame * ticks[i].length + Number(slider.value);
      outputs[i].textContent = value;
      slider.setAttribute("aria-valuetext", value);
    });
    images.forEach((image, i) => { image.hidden = i !== frame; });
  };
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
    outputs.forEach((output) => output.setAttribute("aria-live", "polite"));
  };
  const step = () => {
    if (!player.isConnected) return stop();
    for (let i = sliders.length - 1; i >= 0; i--) {
      const next = (Number(sliders[i].value) + 1) % ticks[i].length;
      sliders[i].value = next;
      if (next > 0) break;
    }
    show();
  };
  const play = () => {
    outputs.forEach((output) => output.setAttribute("aria-live", "off"));
    button.textContent = "Pause";
    timer = setInterval(step, Number(player.dataset.interval));
  };
  sliders.forEach((slider) => slider.addEventListener("input", () => { stop(); show(); }));
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  show();
});
"""


def explore(
    draw: Callable[..., object],
    *,
    alt: str,
    figsize: tuple[float | int, float | int] = (5.0, 4.0),
    panels: tuple[int, int] | None = None,
    interval: int = 200,
    **axes: Iterable[Any],
) -> Explorer:
    """A figure with one slider for each named axis, which `draw(ax, **values)` draws.

    `alt` is a format string over the axes, as in "two bells at t = {t}": each frame gets its own words.
    With panels = (rows, columns), `draw` gets an array of matplotlib axes. At most 40 frames in all.
    """
    return Explorer(draw, alt, figsize, panels, interval, axes)


class Explorer:
    """What `explore` returns: it displays itself as a live widget or as a player of drawn frames."""

    def __init__(self, draw, alt, figsize, panels, interval, axes) -> None:
        self.draw, self.figsize, self.panels, self.interval = draw, figsize, panels, interval
        require(callable(draw), "draw", type(draw).__name__, "a function of a matplotlib Axes and the values")
        require(bool(axes), "the number of axes", 0, "at least 1, as in t=range(10)")
        require(isinstance(interval, int) and interval > 0, "interval", interval, "a positive number of milliseconds")
        self.axes = {name: [_plain(value) for value in values] for name, values in axes.items()}
        for name, values in self.axes.items():
            require(len(values) > 0, f"the axis {name}", "empty", "a sequence of values")
        count = math.prod(map(len, self.axes.values()))
        require(count <= MAX_FRAMES, "the number of frames", count, f"at most {MAX_FRAMES}")
        self.alt = _alt(alt, self.axes)
        self.words(self.points()[0])  # a format that does not fit its values fails here, not in the page

    def points(self) -> list[dict[str, Any]]:
        """The values of every frame; the last axis moves fastest."""
        return [dict(zip(self.axes, values)) for values in itertools.product(*self.axes.values())]

    def words(self, values: dict[str, Any]) -> str:
        """The text that stands for one frame."""
        return _Short().format(self.alt, **values)

    def pixels(self, values: dict[str, Any]) -> Image.Image:
        """One frame, drawn."""
        fig = Figure(figsize=self.figsize, dpi=DPI, facecolor="white", layout="constrained")
        canvas = FigureCanvasAgg(fig)
        panels = fig.add_subplot() if self.panels is None else np.atleast_1d(fig.subplots(*self.panels))
        self.draw(panels, **values)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        first = self.points()[0]
        if not _has_live_kernel():
            return {"text/plain": self.words(first), "text/html": self._player()}
        view = {"version_major": 2, "version_minor": 0, "model_id": self._live().model_id}
        return {
            "text/plain": self.words(first),
            "text/html": self._frame(first) + "<p>Run this cell to move the figure.</p>",
            "application/vnd.jupyter.widget-view+json": view,
        }

    def _frame(self, values: dict[str, Any], hidden: str = "") -> str:
        source = base64.b64encode(_webp(self.pixels(values))).decode()
        width, height = (round(100 * side) for side in self.figsize)
        return (
            f'<img class="dark-light" alt="{html.escape(self.words(values))}" width="{width}" height="{height}"'
            f'{hidden} src="data:image/webp;base64,{source}">'
        )

    def _player(self) -> str:
        first, *rest = self.points()
        frames = self._frame(first) + "".join(self._frame(values, " hidden") for values in rest)
        rows = "".join(_slider(name, values) for name, values in self.axes.items())
        return (
            f'<div class="dm-player" role="group" aria-label="Moving figure" data-interval="{self.interval}">'
            f"<style>{_STYLE}</style>{frames}"
            f'<div class="dm-controls"><button type="button">Play</button><div class="dm-axes">{rows}</div></div>'
            f"</div><script>{_SCRIPT}</script>"
        )

    def _live(self) -> Any:
        """The same figure as a widget, redrawn whenever a slider is let go."""
        import ipywidgets

        picture = ipywidgets.Image(format="png", width=str(round(100 * self.figsize[0])))
        words = ipywidgets.HTML()
        sliders = {
            name: ipywidgets.SelectionSlider(
                options=[(_text(value), i) for i, value in enumerate(values)], description=name, continuous_update=False
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


def _slider(name: str, values: list[Any]) -> str:
    ticks, first = html.escape(json.dumps([_text(value) for value in values])), html.escape(_text(values[0]))
    return (
        f'<label><span>{html.escape(name)}</span><input type="range" min="0" max="{len(values) - 1}" step="1" '
        f'value="0" aria-valuetext="{first}" data-ticks="{ticks}"></label>'
        f'<output aria-live="polite">{first}</output>'
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
