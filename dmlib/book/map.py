"""The map of the book: one path from the bound to continuous time, drawn once, lit where a chapter stands.

`html(name)` is what a page holds: a wide drawing, and a tall one where the page is narrow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from html import escape
from itertools import pairwise
from typing import NamedTuple

from dmlib.book.plotting import FORWARD, GRAY, MODEL
from dmlib.checks import require

__all__ = ["PLACES", "html", "svg", "words"]


class Stop(NamedTuple):
    """A column of the map: a model, and what is said about it. `_` starts a subscript of one letter."""

    name: str
    chapters: str
    latents: str
    encoder: str
    terms: str
    output: str
    ends: tuple[str, str]
    steps: int  # arrows each way; 0 is a continuous path
    encoder_color: str
    decoder_color: str


INK = "#222222"
STOPS = {
    "elbo": Stop("ELBO", "1, 3", "z", "any", "reconstruction − KL", "nothing yet", ("x", "z"), 1, INK, INK),
    "vae": Stop(
        *("VAE", "2, 4", "z, small", "learned, one step", "two terms", "mean and variance of z; pixels"),
        *(("x", "z"), 1, FORWARD, MODEL),
    ),
    "hierarchy": Stop(
        *("hierarchy", "5", "z_1 … z_L", "learned, L steps", "1 + L terms", "a Gaussian for each level"),
        *(("x", "z_L"), 2, FORWARD, MODEL),
    ),
    "diffusion": Stop(
        *("diffusion", "7–13", "x_1 … x_T, as large as x_0", "fixed: adds noise, T steps"),
        *("1 + T terms", "the noise in x_t, so a clean x_0", ("x_0", "x_T"), 4, GRAY, MODEL),
    ),
    "continuous": Stop(
        *("continuous time", "14–16", "a whole path x_t", "fixed: adds noise", "an integral over t"),
        *("the score, or a velocity", ("data", "noise"), 0, GRAY, MODEL),
    ),
}
ROWS = {"latents": "latents", "encoder": "encoder q", "terms": "bound", "output": "network gives"}
DISCRETE = {"vae": ("6-discrete", "discrete: 6"), "diffusion": ("17-discrete", "discrete: 17")}
PLACES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("intro", "toolbox", "slips", "20-training-at-scale"), ()),
    **dict.fromkeys(("01-latent-variables", "03-elbo"), ("elbo",)),
    **dict.fromkeys(("02-autoencoders", "04-vae"), ("vae",)),
    "05-hierarchical-vae": ("hierarchy",),
    "06-discrete-vae": ("6-discrete",),
    **dict.fromkeys(("07-forward-process", "08-two-elbos", "09-posterior-mean"), ("diffusion",)),
    **dict.fromkeys(("10-what-to-predict", "11-ddpm", "12-sampling", "13-reading-a-model"), ("diffusion",)),
    **dict.fromkeys(("14-continuous-time", "15-score", "16-flow-matching"), ("continuous",)),
    "17-discrete-diffusion": ("17-discrete",),
    **dict.fromkeys(("18-vae-versus-ddpm", "19-latent-diffusion"), ("vae", "diffusion")),
}
LEGEND = "Upper arrows: q, data to latents; lower: p, back. Colored: learned; gray: fixed."
STYLE = """
.dm-map{container-type:inline-size;background:#fff;border:1px solid #d5d5d5;border-radius:8px;padding:6px}
.dm-map svg{display:block;width:100%;height:auto;margin:0 auto}
.dm-map .dm-map-tall{display:none;max-width:440px}
@container (max-width:640px){.dm-map .dm-map-wide{display:none}.dm-map .dm-map-tall{display:block}}
"""


def html(name: str) -> str:
    """The map for a page, lit at the chapter `name`; it takes the form that fits the page's width."""
    return f'<div class="dm-map"><style>{STYLE}</style>{svg(name)}{svg(name, tall=True)}</div>'


def words(name: str) -> str:
    """The map in one line of words, with the chapter's place in brackets."""
    lit = _lit(name)
    stops = [f"{stop.name} ({stop.chapters})" for stop in STOPS.values()]
    return " > ".join(f"[{text}]" if key in lit else text for key, text in zip(STOPS, stops))


def svg(name: str, *, tall: bool = False) -> str:
    """The map as one SVG, lit at the chapter `name`: columns side by side, or one below the other if `tall`."""
    lit = _lit(name)
    form = "tall" if tall else "wide"
    width, height, drawn = _tall(lit) if tall else _wide(lit)
    here = " and ".join(STOPS[key].name for key in STOPS if key in lit or DISCRETE.get(key, ("",))[0] in lit)
    title = "The map of the book" + (f"; this chapter stands at: {here}" if here else "")
    ids = f"dm-map-{form}-title dm-map-{form}-words"
    return (
        f'<svg class="dm-map-{form}" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{ids}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
        f'<title id="dm-map-{form}-title">{escape(title)}</title>'
        f'<desc id="dm-map-{form}-words">{escape(_description())}</desc>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(drawn)}</svg>'
    )


def _lit(name: str) -> tuple[str, ...]:
    require(name in PLACES, "name", repr(name), "a chapter on the map: " + ", ".join(PLACES))
    return PLACES[name]


def _description() -> str:
    facts = lambda stop: "; ".join(f"{label}: {getattr(stop, field)}" for field, label in ROWS.items())
    stops = " ".join(f"{stop.name}, chapters {stop.chapters}: {facts(stop)}." for stop in STOPS.values())
    return re.sub(r"_(\w)", r"\1", f"{stops} Discrete latents: chapter 6; discrete diffusion: chapter 17.")


def _wide(lit: Iterable[str]) -> tuple[int, int, list[str]]:
    """Five columns; rows of words below the graphs."""
    left, column, top = 72, 137, 104
    heights = dict(zip(ROWS, (36, 36, 24, 42)))
    bottom = top + sum(heights.values())
    drawn = []
    for n, (key, stop) in enumerate(STOPS.items()):
        x = left + n * column
        drawn += [_panel(x + 1, 4, column - 3, bottom - 4)] if key in lit else []
        drawn += [_text(x + 10, 22, stop.name, size=13, bold=True), _text(x + 10, 38, _chapters(stop))]
        drawn += _graph(stop, x + 14, 68, column - 32)
        if key in DISCRETE:
            tag, label = DISCRETE[key]
            drawn += [_tag(x + 5, bottom + 5, column - 12, label, tag in lit)]
    y = top
    for field, label in ROWS.items():
        drawn.append(f'<path d="M4 {y}H{left + 5 * column - 4}" stroke="#dddddd"/>')
        drawn += _wrapped(6, y + 16, label, 9, color=GRAY)
        for n, stop in enumerate(STOPS.values()):
            drawn += _wrapped(left + n * column + 10, y + 16, getattr(stop, field), 19)
        y += heights[field]
    drawn.append(_text(6, bottom + 46, LEGEND, color=GRAY))
    return left + 5 * column, bottom + 54, drawn


def _tall(lit: Iterable[str]) -> tuple[int, int, list[str]]:
    """One stop below the other; where a place is lit, only it says more than its name."""
    width, y, drawn = 330, 4, []
    for key, stop in STOPS.items():
        tag, label = DISCRETE.get(key, ("", ""))
        spoken = key in lit or tag in lit or not lit
        height = (136 if spoken else 48) + (26 if tag and spoken else 0)
        drawn += [_panel(2, y, width - 4, height)] if key in lit else []
        drawn += [_text(10, y + 20, stop.name, size=13, bold=True), _text(10, y + 38, _chapters(stop))]
        drawn += _graph(stop, 150, y + 20, 150)
        for n, (field, row) in enumerate(ROWS.items() if spoken else ()):
            line = y + 66 + 19 * n
            drawn += [_text(10, line, row, color=GRAY), _text(100, line, getattr(stop, field))]
        if tag and spoken:
            drawn.append(_tag(98, y + 132, 120, label, tag in lit))
        y += height + 4
        drawn.append(f'<path d="M4 {y - 2}H{width - 4}" stroke="#dddddd"/>')
    if "6-discrete" not in lit and "17-discrete" not in lit and lit:
        drawn.append(_text(10, y + 14, "Discrete: 6 (latents), 17 (diffusion).", color=GRAY))
        y += 18
    legend = _wrapped(10, y + 14, LEGEND, 46, color=GRAY)
    return width, y + 14 * len(legend) + 8, drawn + legend


def _chapters(stop: Stop) -> str:
    return ("chapter " if stop.chapters.isdigit() else "chapters ") + stop.chapters


def _text(x: float | int, y: float | int, text: str, *, size: int = 12, bold: bool = False, color: str = INK) -> str:
    """A line of text; `_` before a letter makes it a subscript."""
    small = r'<tspan dy="3" font-size="10">\1</tspan><tspan dy="-3">​</tspan>'
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}"{weight} fill="{color}">{re.sub(r"_(.)", small, escape(text))}</text>'
    )


def _wrapped(x: float | int, y: float | int, text: str, columns: int, *, color: str = INK) -> list[str]:
    """Text in lines of so many letters, 14 apart; a subscript's mark does not count."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if len(longer.replace("_", "")) <= columns:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_text(x, y + 14 * n, line, color=color) for n, line in enumerate(lines)]


def _panel(x: float | int, y: float | int, width: float | int, height: float | int) -> str:
    return (
        f'<rect class="dm-map-lit" x="{x}" y="{y}" width="{width}" height="{height}" rx="7" '
        'fill="#fff1c9" stroke="#b98900" stroke-width="1.5"/>'
    )


def _tag(x: float | int, y: float | int, width: float | int, label: str, lit: bool) -> str:
    """A small box for a branch of the path; drawn in dashes unless lit."""
    yes, no = 'class="dm-map-lit" fill="#fff1c9" stroke="#b98900"', 'fill="none" stroke="#777" stroke-dasharray="3 3"'
    look = yes if lit else no
    return f'<rect x="{x}" y="{y}" width="{width}" height="21" rx="6" {look}/>{_text(x + 6, y + 15, label)}'


def _graph(stop: Stop, x: float | int, y: float | int, width: float | int) -> list[str]:
    """States from data to noise, with arrows of the encoder above and of the model below."""
    steps = stop.steps or 1
    places = [x + width * n / steps for n in range(steps + 1)]
    right = x + width - (26 if len(stop.ends[1]) > 3 else 6)
    drawn = [_text(x - 5, y + 25, stop.ends[0]), _text(right, y + 25, stop.ends[1])]
    for a, b in pairwise(places):
        if stop.steps:
            drawn += _arrow(a + 5, b - 5, y - 5, -7, stop.encoder_color)
            drawn += _arrow(b - 5, a + 5, y + 5, 7, stop.decoder_color)
        else:
            jagged = (0, -9, -6, -15, -10, -17, -8, -13, -6)
            line = " ".join(f"{a + 9 + (b - a - 18) * n / 8:.1f},{y + dy:.1f}" for n, dy in enumerate(jagged))
            drawn.append(f'<polyline points="{line}" fill="none" stroke="{stop.encoder_color}" stroke-width="1.6"/>')
            drawn += _arrow(b - 5, a + 5, y + 5, 9, stop.decoder_color)
    circle = f'<circle cx="{{:.1f}}" cy="{y}" r="5" fill="#fff" stroke="{INK}" stroke-width="1.4"/>'
    return drawn + [circle.format(p) for p in places]


def _arrow(start: float | int, end: float | int, y: float | int, bow: float | int, color: str) -> list[str]:
    """A bowed arrow from `start` to `end`, both at the height `y`."""
    middle = (start + end) / 2
    length = math.hypot(end - middle, 2 * bow)
    u, v = (end - middle) / length, -2 * bow / length  # the direction in which it arrives
    back, high = end - 7 * u, y - 7 * v
    tip = f"{end:.1f},{y} {back - 3.2 * v:.1f},{high + 3.2 * u:.1f} {back + 3.2 * v:.1f},{high - 3.2 * u:.1f}"
    curve = f"M{start:.1f} {y}Q{middle:.1f} {y + 2 * bow} {back:.1f} {high:.1f}"
    line = f'<path d="{curve}" fill="none" stroke="{color}" stroke-width="1.6"/>'
    return [line, f'<polygon points="{tip}" fill="{color}"/>']
