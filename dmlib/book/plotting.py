"""Figures in one visual grammar: a color for each side of the model, dashes for what is learned.

Every helper takes a matplotlib `ax`, passes further names such as xlabel, ylabel and title to `ax.set`,
and returns the `ax`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

DATA = "#0072B2"  # data, x_0
FORWARD = "#D55E00"  # q: from data to noise
MODEL = "#009E73"  # p: the generative side
EXACT = "#222222"  # known in closed form
WRONG = "#A61192"  # a formula that the checks reject
GRAY = "#5E5E5E"  # guides and context

STYLE: dict[str, Any] = {
    "figure.figsize": (6.2, 3.6),
    "figure.dpi": 160,  # of what is drawn as a picture within an SVG
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "svg.hashsalt": "dmlib",
    "svg.fonttype": "path",
    "font.size": 11.0,
    "axes.titlesize": 11.0,
    "axes.facecolor": "white",
    "axes.edgecolor": GRAY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


def curve(
    ax: Axes, x: Any, y: Any, *, color: str, label: str | None = None, learned: bool = False, **labels: Any
) -> Axes:
    """A line; dashed if `learned`, dotted if its color is WRONG."""
    ax.plot(_numpy(x), _numpy(y), color=color, label=label, linestyle=_linestyle(color, learned))
    return _named(ax, labels)


def density(
    ax: Axes, x: Any, y: Any, *, color: str, label: str | None = None, learned: bool = False, **labels: Any
) -> Axes:
    """A curve over a light fill that starts at zero."""
    ax.fill_between(_numpy(x), _numpy(y), color=color, alpha=0.15, linewidth=0)
    return curve(ax, x, y, color=color, label=label, learned=learned, **labels)


def scatter(
    ax: Axes, points: Any, *, color: str, label: str | None = None, size: float | int = 12.0, **labels: Any
) -> Axes:
    """Points [N, 2] as small dots; more than 500 are drawn as one picture, which is lighter on a page."""
    p = _numpy(points)
    many = len(p) > 500
    ax.scatter(p[:, 0], p[:, 1], color=color, label=label, s=size, alpha=0.6, linewidth=0, rasterized=many)
    return _named(ax, labels)


def bars(ax: Axes, names: Sequence[Any], heights: Any, *, color: str | Sequence[str] = DATA, **labels: Any) -> Axes:
    """One bar for each name."""
    ax.bar([str(name) for name in names], _numpy(heights), color=color, width=0.7)
    return _named(ax, labels)


def stacked(ax: Axes, x: Any, parts: Mapping[str, Any], *, colors: Sequence[str], **labels: Any) -> Axes:
    """Bars at `x` whose named parts start where the part before ends, so that their tops show the sum."""
    x = _numpy(x)
    width = 0.8 * np.diff(x).min() if len(x) > 1 else 0.8
    base = np.zeros(len(x))
    for (name, part), color in zip(parts.items(), colors, strict=True):
        ax.bar(x, _numpy(part), bottom=base, color=color, width=width, label=name)
        base = base + _numpy(part)
    return _named(ax, labels)


def image(ax: Axes, img: Any, *, low: Any = None, high: Any = None, **labels: Any) -> Axes:
    """An image [H, W] or [1, H, W] in gray without ticks; `low` is black, `high` is white."""
    x = _numpy(img)
    ax.imshow(x.reshape(x.shape[-2:]), vmin=low, vmax=high, cmap="gray", interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return _named(ax, labels)


def image_grid(ax: Axes, imgs: Any, columns: int, *, low: Any = None, high: Any = None, **labels: Any) -> Axes:
    """Images [N, 1, H, W] row by row, with a white gap of one pixel between them."""
    x = _numpy(imgs).astype(float)
    x = x.reshape(len(x), *x.shape[-2:])
    low, high = x.min() if low is None else low, x.max() if high is None else high
    rows = -(-len(x) // columns)
    padded = np.full((rows * columns, x.shape[1] + 1, x.shape[2] + 1), np.nan)
    padded[: len(x), :-1, :-1] = x
    tiled = padded.reshape(rows, columns, *padded.shape[1:]).swapaxes(1, 2)
    return image(ax, tiled.reshape(rows * padded.shape[1], -1)[:-1, :-1], low=low, high=high, **labels)


def ellipse(
    ax: Axes,
    mean: Any,
    cov: Any,
    *,
    color: str,
    label: str | None = None,
    learned: bool = False,
    stds: float | int = 2.0,
) -> Axes:
    """The outline of a Gaussian in the plane, `stds` standard deviations from its mean [2]."""
    var, axes = np.linalg.eigh(_numpy(cov))
    width, height = 2 * stds * np.sqrt(var)
    angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    style = {"edgecolor": color, "linestyle": _linestyle(color, learned), "linewidth": 1.8, "label": label}
    ax.add_patch(Ellipse(tuple(_numpy(mean)), width, height, angle=angle, facecolor="none", **style))
    ax.autoscale_view()
    return ax


def annotate(ax: Axes, text: str, xy: Any, xytext: Any, *, color: str = EXACT) -> Axes:
    """Words at `xytext`, with a thin arrow to the point `xy`, both in data coordinates."""
    ax.annotate(text, xy, xytext, color=color, arrowprops={"arrowstyle": "->", "color": color, "linewidth": 0.8})
    return ax


def quarter_circle(ax: Axes, angle: float, *, colors: Sequence[str] = (DATA, FORWARD, EXACT, MODEL)) -> Axes:
    """Noising as a turn by `angle`, in radians, from x_0 to the noise: the state x_t, and its velocity as tangent.

    The colors are those of x_0, noise, state and velocity.
    """
    c, s = np.cos(angle), np.sin(angle)
    arc = np.linspace(0, np.pi / 2, 100)
    curve(ax, np.cos(arc), np.sin(arc), color=GRAY)
    arrows = {
        "$x_0$": ((0, 0), (1, 0), (1.04, -0.03)),
        r"$\epsilon$": ((0, 0), (0, 1), (-0.12, 1.0)),
        "$x_t$": ((0, 0), (c, s), (1.06 * c, 1.06 * s - 0.04)),
        "$v$": ((c, s), (c - s, s + c), (c - 1.1 * s, s + 1.1 * c)),
    }
    for color, (name, (start, end, at)) in zip(colors, arrows.items(), strict=True):
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.8})
        ax.text(*at, name, color=color, fontsize=13)
    ax.plot([c, c, 0], [0, s, s], "--", color=GRAY, linewidth=0.9)
    small = arc[arc <= angle]
    ax.plot(0.25 * np.cos(small), 0.25 * np.sin(small), color=EXACT, linewidth=1)
    ax.text(0.4 * np.cos(angle / 2) - 0.05, 0.4 * np.sin(angle / 2) - 0.06, r"$\varphi_t$")
    ax.set(xlim=(-1.2, 1.35), ylim=(-0.15, 1.6), aspect="equal")
    ax.axis("off")
    return ax


def chain(ax: Axes, nodes: Sequence[tuple[str, str]], arrows: Sequence[tuple[int, int, float | int, str, str]]) -> Axes:
    """States as circles at x = 0, 1, .. and arrows between them, without axes.

    A node is (name, color); an arrow is (tail, head, height, color, words), its words above it or, for a negative
    height, below.
    """
    for x, (name, color) in enumerate(nodes):
        ax.plot([x], [0], "o", markersize=34, markerfacecolor="white", markeredgecolor=color, markeredgewidth=1.6)
        ax.text(x, 0, name, ha="center", va="center", fontsize=13)
    for tail, head, y, color, words in arrows:
        way = 0.24 if head > tail else -0.24
        style = {"arrowstyle": "-|>", "color": color, "linewidth": 2.2}
        ax.annotate("", (head - way, y), (tail + way, y), arrowprops=style)
        ax.text((head + tail) / 2, 0.3 if y >= 0 else -0.3, words, color=color, ha="center", va="center", fontsize=11)
    ax.set(xlim=(-0.35, len(nodes) - 0.65), ylim=(-0.6, 0.6))
    ax.axis("off")
    return ax


def _numpy(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def _linestyle(color: str, learned: bool) -> str:
    if color == WRONG:
        return ":"
    return "--" if learned else "-"


def _named(ax: Axes, labels: Mapping[str, Any]) -> Axes:
    ax.set(**labels)
    return ax
