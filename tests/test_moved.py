"""Every figure that computes, after a fixed script of moves: its picture is the one kept in `pictures/`, and a changed
formula's is not. Words are left out of the pictures, so that fonts do not count."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlib.book import live

pytestmark = pytest.mark.built
PICTURES = Path(__file__).with_name("pictures")
MADE = Path("_build/pictures")
SIZE = (96, 48)  # of each drawing
TOLERANCE = 0.25  # of 255 levels, on average over the pixels of the drawing that differs most
DRAWN = "f => [...f.querySelectorAll('canvas')].filter(c => c.offsetWidth).map(c => c.toDataURL())"
SILENT = "CanvasRenderingContext2D.prototype.fillText = () => {};"
MOVES = {  # a control or a grip by its label, and the keys that it is given
    "mixture": [("component 1", "Shift+ArrowRight*4 ArrowUp*9"),
                ("shape of the chosen component", "Shift+ArrowRight*5"), ("t", "ArrowRight*400"),
                ("η of DDIM", "ArrowRight*8"), ("steps", "ArrowLeft*6")],
    "posterior": [("x₀", "Shift+ArrowLeft*3"), ("xₜ", "ArrowRight*9"), ("t", "ArrowRight*5"), ("s", "ArrowLeft*4")],
    "decoder": [("z", "Shift+ArrowRight*9 Shift+ArrowDown*3"), ("pen on", "ArrowRight*2 Space ArrowUp Space"),
                ("S, codes in the bound", "ArrowLeft*5"), ("pixel of", "ArrowUp ArrowLeft")],
    "digits": [("steps", "ArrowLeft*44"), ("pen on", "ArrowUp*2 Space ArrowDown Space ArrowDown Space ArrowDown Space"),
               ("η of DDIM", "ArrowRight*10"), ("start at t", "ArrowRight*30")],
    "cave": [("light", "ArrowRight*9"), ("shadow", "Shift+ArrowLeft*3"), ("noise variance", "ArrowLeft*20")],
}  # fmt: skip
CHANGED = [  # one sign of a formula, as it stands in the script
    ("mixture", "value - turn * (here[j]", "value + turn * (here[j]"),
    ("mixture", "=> 1 - a + a * v", "=> 1 + a - a * v"),
    ("posterior", "(added * (1 - s)) / (1 - t)]", "(added * (1 + s)) / (1 - t)]"),
    ("decoder", "value / (1 + Math.exp(-value))", "value / (1 + Math.exp(value))"),
    ("decoder", "m ** 2 + Math.exp(logVar[k]) - 1", "m ** 2 + Math.exp(logVar[k]) + 1"),
    ("digits", "Math.sqrt(t) * value + Math.sqrt(1 - t)", "Math.sqrt(t) * value - Math.sqrt(1 - t)"),
    ("digits", "(value - mean) / std", "(value + mean) / std"),
    ("cave", "[-u[1], u[0]]", "[u[1], u[0]]"),
    ("cave", "x / (1 + variance)", "x / (1 - variance)"),
]


def moved(visit, name: str, *change: str) -> np.ndarray:
    """The drawings of a figure after its moves, in gray, as an array [drawings, height, width]."""
    text = live.script(name)
    if change:
        assert text.count(change[0]) == 1
        text = text.replace(*change)

    def prepare(page):
        page.add_init_script(SILENT)
        page.route(f"**/_static/live/{name}.js", lambda route: route.fulfill(body=text, content_type="text/javascript"))

    page = visit("chapters/playground", width=1000, color_scheme="light", reduced_motion="reduce", prepare=prepare)
    found = page.locator(f"#fig-play-{name} .dm-live")
    found.scroll_into_view_if_needed()
    found.locator(".dm-said:not(:empty)").wait_for()
    for label, keys in MOVES[name]:
        for key in keys.split():
            press, _, times = key.partition("*")
            for _ in range(int(times or 1)):
                handle(found, label).press(press)
    return at_rest(found)


def handle(found, label: str):
    """The grip or the control with this label, or whose label begins so."""
    grips = found.locator(f".dm-grip[aria-label='{label}'], .dm-grip[aria-label^='{label.capitalize()}']")
    knobs = found.locator(".dm-knob", has=found.page.get_by_text(label, exact=True))
    return grips.first if grips.count() else knobs.locator("input")


def at_rest(found) -> np.ndarray:
    """The visible drawings, once they no longer change."""
    last, now = None, []
    while last != now:
        found.page.wait_for_timeout(400)
        last, now = now, found.evaluate(DRAWN)
    return np.stack([gray(url) for url in now])


def gray(url: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("L").resize(SIZE, Image.Resampling.BOX))


def kept(name: str) -> np.ndarray:
    return np.asarray(Image.open(PICTURES / f"{name}.png")).reshape(-1, *SIZE[::-1])


def apart(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return np.abs(one.astype(float) - other).mean((1, 2)).max()


@pytest.mark.parametrize("name", MOVES)
def test_the_picture_after_the_moves(visit, name):
    found = moved(visit, name)
    MADE.mkdir(parents=True, exist_ok=True)
    Image.fromarray(found.reshape(-1, SIZE[0])).save(MADE / f"{name}.png")
    off = apart(found, kept(name))
    assert off < TOLERANCE, f"{off:.2f} levels off; if it should look so, keep {MADE / name}.png in tests/pictures"


@pytest.mark.parametrize(("name", "old", "new"), CHANGED)
def test_a_changed_formula_gives_another_picture(visit, name, old, new):
    assert apart(moved(visit, name, old, new), kept(name)) > 2 * TOLERANCE
