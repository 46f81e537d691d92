"""A figure that moves: its frames, its words, the player in a browser, and the live widget."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dmlib.book import widgets
from dmlib.book.widgets import explore


def draw(ax, **values):
    """A picture whose gray level is the first value, so that a frame can be told from its pixels."""
    ax.set_position([0, 0, 1, 1])
    ax.set_facecolor(str(float(next(iter(values.values()))) / 10))


def page(figure):
    return BeautifulSoup(figure._repr_mimebundle_()["text/html"], "html.parser")


def gray(tag):
    data = base64.b64decode(tag["src"].removeprefix("data:image/webp;base64,"))
    image = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    return image[image.shape[0] // 2, image.shape[1] // 2] / 255


def small(**axes):
    return explore(draw, alt="gray at {t}", figsize=(1, 1), **axes)


def test_each_frame_shows_its_values_and_says_so():
    html = page(explore(draw, alt="gray {t} with {u:.2f}", figsize=(2, 1), t=[0, 5, 10], u=(0.1 + 0.2, 1)))
    frames = html.find_all("img")
    assert [tag["alt"] for tag in frames] == [f"gray {t} with {u}" for t in (0, 5, 10) for u in ("0.30", "1.00")]
    assert [gray(tag) for tag in frames] == pytest.approx([0, 0, 0.5, 0.5, 1, 1], abs=0.02)
    assert [tag.has_attr("hidden") for tag in frames] == [False] + [True] * 5
    assert {(tag["width"], tag["height"]) for tag in frames} == {("200", "100")}
    sliders = html.find_all("input")
    assert [(tag["type"], tag["min"], tag["max"], tag["value"]) for tag in sliders] == [
        ("range", "0", "2", "0"),
        ("range", "0", "1", "0"),
    ]
    assert [tag["data-ticks"] for tag in sliders] == ['["0", "5", "10"]', '["0.3", "1"]']
    assert [tag.text for tag in html.find_all("label")] == ["t", "u"]
    assert [(tag.text, tag["aria-live"]) for tag in html.find_all("output")] == [("0", "polite"), ("0.3", "polite")]


def test_player_is_the_same_in_every_run_and_fetches_nothing():
    first, second = (small(t=[1, 2])._repr_mimebundle_() for _ in range(2))
    assert first == second
    assert set(first) == {"text/plain", "text/html"}
    assert first["text/plain"] == "gray at 1"
    html = page(small(t=[1, 2]))
    assert html.find_all(id=True) == []
    assert html.find_all("link") == []
    assert not re.search(r"https?:|@import|import\(|fetch\(", str(html))
    assert [tag["src"][:16] for tag in html.select("[src]")] == ["data:image/webp;"] * 2


def test_lines_are_lossless_and_noise_is_not():
    rng = np.random.default_rng(0)
    lines = Image.new("RGB", (300, 300), "white")
    noise = Image.fromarray(rng.integers(0, 255, (300, 300, 3), dtype=np.uint8))
    assert np.array_equal(Image.open(io.BytesIO(widgets._webp(lines))).convert("RGB"), lines)
    lossy = widgets._webp(noise)
    assert not np.array_equal(Image.open(io.BytesIO(lossy)).convert("RGB"), noise)
    full = io.BytesIO()
    noise.save(full, "WEBP", lossless=True)
    assert len(lossy) < full.tell()


def test_panels_give_an_array_of_axes():
    shapes = []
    for panels in ((1, 3), (2, 1), (2, 2), (1, 1)):
        explore(lambda axes, t: shapes.append(axes.shape), alt="a", figsize=(4, 4), panels=panels, t=[0])._player()
    assert shapes == [(3,), (2,), (2, 2), (1,)]


def test_values_may_be_tensors_arrays_and_words():
    seen = []
    axes = {"t": torch.tensor([0.5, 1.0]), "n": np.arange(2), "name": ["one", "two"]}
    html = page(explore(lambda ax, **v: seen.append(v), alt="{t} {n} {name}", figsize=(1, 1), **axes))
    assert seen[0] == {"t": 0.5, "n": 0, "name": "one"}
    assert [type(value) for value in seen[0].values()] == [float, int, str]
    assert html.img["alt"] == "0.5 0 one"


def test_words_name_every_axis():
    figure = explore(draw, alt="gray at {t}", t=[0.1], width=[2], u=[3])
    assert figure.words({"t": 0.1, "width": 2, "u": 3}) == "gray at 0.1 (width = 2, u = 3)"


def test_words_cannot_break_out_of_the_page():
    html = page(explore(lambda ax, **v: None, alt='"><b>{t}</b>', figsize=(1, 1), t=['"<i>', "'&"]))
    assert [tag["alt"] for tag in html.find_all("img")] == ['"><b>"<i></b>', "\"><b>'&</b>"]
    assert html.find_all(["b", "i"]) == []
    assert html.input["data-ticks"] == '["\\"<i>", "\'&"]'


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"t": range(41)}, "the number of frames was 41; it must be at most 40"),
        ({"t": range(7), "u": range(6)}, "the number of frames was 42; it must be at most 40"),
        ({"t": [1], "u": []}, "the axis u was empty; it must be a sequence of values"),
        ({}, "the number of axes was 0; it must be at least 1"),
        (
            {"t": [1], "alt": "at {s}"},
            r"alt was a text with the fields \['s'\]; it must be one with fields among \['t'\]",
        ),
        ({"t": [1], "alt": "at {}"}, "alt was a text with the fields"),
        ({"t": [1], "alt": "at {t.real}"}, "alt was a text with the fields"),
        ({"t": [1], "alt": " "}, "alt was ' '; it must be words"),
        ({"t": ["a"], "alt": "at {t:.1f}"}, "format code 'f'"),
        ({"t": [1], "first": {"u": 1}}, r"first was \{'u': 1\}; it must be a dictionary with keys among \['t'\]"),
        ({"t": [1], "first": {"t": 2}}, r"first\['t'\] was 2; it must be one of \[1\]"),
        ({"t": [1], "interval": 0}, "interval was 0; it must be a positive number of milliseconds"),
    ],
)
def test_what_cannot_be_explored_is_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        explore(draw, **{"alt": "gray", **bad})


def test_a_figure_opens_where_it_says_most():
    html = page(small(t=[0, 5, 10], u=[1, 2], first={"t": 5}))
    assert [image["alt"] for image in html.find_all("img") if not image.has_attr("hidden")] == ["gray at 5 (u = 1)"]
    assert [tag["value"] for tag in html.find_all("input")] == ["1", "0"]
    assert [tag.text for tag in html.find_all("output")] == ["5", "1"]


def test_forty_frames_are_allowed():
    assert len(small(t=range(10), u=range(4)).points()) == 40


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=3))
def test_the_last_axis_moves_fastest(axes):
    named = {name: values for name, values in zip("tuv", axes)}
    points = explore(draw, alt="a", **named).points()
    sizes = [len(values) for values in axes]
    for n, point in enumerate(points):
        place = np.unravel_index(n, sizes)
        assert list(point.values()) == [values[i] for values, i in zip(axes, place)]


def test_live_widget_redraws_what_its_sliders_say():
    figure = small(t=[0, 5, 10], u=[1, 2])
    picture, t, u, words = figure._live().children
    assert (t.description, u.description) == ("t", "u")
    assert [label for label, _ in t.options] == ["0", "5", "10"]
    assert picture.width == "100"
    t.value = 1
    u.value = 1
    shown = np.asarray(Image.open(io.BytesIO(picture.value)))
    assert np.array_equal(shown, np.asarray(figure.pixels({"t": 5, "u": 2})))
    assert shown[50, 50, 0] == pytest.approx(128, abs=2)
    assert words.value == "<small>gray at 5 (u = 2)</small>"


def test_a_drawing_that_fails_shows_its_error_in_its_place():
    def fragile(ax, t):
        ax.set_title(f"{1 / (t - 2):.1f}")

    picture, t, words = explore(fragile, alt="one over {t}", figsize=(1, 1), t=[1, 2, 3])._live().children
    before = picture.value
    t.value = 1
    assert picture.layout.display == "none"
    assert words.value == "<small>ZeroDivisionError: division by zero</small>"
    t.value = 2
    assert picture.layout.display is None
    assert picture.value != before
    assert words.value == "<small>one over 3</small>"


def test_live_only_with_a_kernel_outside_builds(monkeypatch):
    class Shell:
        kernel = object()

    assert not widgets._has_live_kernel()
    monkeypatch.setattr("IPython.get_ipython", lambda: Shell())
    monkeypatch.delenv("DMLIB_STATIC", raising=False)
    assert widgets._has_live_kernel()
    bundle = small(t=[1, 2])._repr_mimebundle_()
    assert bundle["text/html"].count("<img") == 1
    assert bundle["application/vnd.jupyter.widget-view+json"]["version_major"] == 2
    monkeypatch.setenv("DMLIB_STATIC", "1")
    assert not widgets._has_live_kernel()
    monkeypatch.delenv("DMLIB_STATIC")
    monkeypatch.delattr(Shell, "kernel")
    assert not widgets._has_live_kernel()


SHOWN = "e => [...e.querySelectorAll('img')].filter(i => i.checkVisibility()).map(i => i.alt)"


@pytest.fixture
def opened(browser, tmp_path):
    """Opens two players and a third that came later in one page, as a re-executed cell does, from a file."""
    contexts = []

    def visit(**options):
        one = explore(draw, alt="one {t}, {u}", figsize=(6, 1), interval=50, t=[0, 5, 10], u=[1, 2])
        two = explore(draw, alt="two {t}", figsize=(1, 1), interval=50, t=[0, 5, 10])
        bodies = [figure._repr_mimebundle_()["text/html"] for figure in (one, two, two)]
        (tmp_path / "page.html").write_text("<!doctype html><html lang=en><title>t</title>" + "".join(bodies), "utf8")
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: pytest.fail(str(error)))
        tab.goto((tmp_path / "page.html").as_uri())
        return tab, tab.query_selector_all(".dm-player")

    yield visit
    for context in contexts:
        context.close()


def test_every_slider_moves_its_own_figure(opened):
    tab, (one, two, three) = opened()
    for player, keys, shown in (
        (one, ["ArrowRight"], "one 5, 1"),
        (one, ["Tab", "ArrowRight"], "one 5, 2"),
        (three, ["End"], "two 10"),
    ):
        if keys[0] != "Tab":
            player.query_selector("input").focus()
        for key in keys:
            tab.keyboard.press(key)
        assert player.evaluate(SHOWN) == [shown]
    assert two.evaluate(SHOWN) == ["two 0"]
    assert [o.inner_text() for o in one.query_selector_all("output")] == ["5", "2"]
    assert one.query_selector("input").get_attribute("aria-valuetext") == "5"


def test_play_walks_through_all_frames_and_is_quiet(opened):
    tab, (one, *_) = opened()
    button = one.query_selector("button")
    tab.wait_for_timeout(200)
    assert one.evaluate(SHOWN) == ["one 0, 1"]
    one.evaluate(f"e => {{ e.seen = new Set(); setInterval(() => e.seen.add(({SHOWN})(e)[0]), 10); }}")
    button.click()
    assert button.inner_text() == "Pause"
    assert {o.get_attribute("aria-live") for o in one.query_selector_all("output")} == {"off"}
    tab.wait_for_timeout(1500)
    button.click()
    still = one.evaluate(SHOWN)
    assert len(one.evaluate("e => [...e.seen]")) == 6
    assert button.inner_text() == "Play"
    assert {o.get_attribute("aria-live") for o in one.query_selector_all("output")} == {"polite"}
    tab.wait_for_timeout(200)
    assert one.evaluate(SHOWN) == still


def test_a_hand_on_a_slider_stops_the_play(opened):
    _, (one, *_) = opened()
    button, slider = one.query_selector("button"), one.query_selector("input")
    for hand in (lambda: slider.press("Home"), lambda: slider.press("End"), slider.click):
        button.click()
        assert button.inner_text() == "Pause"
        hand()  # which moves the slider or finds it there already, wherever the play has brought it
        assert button.inner_text() == "Play"


def test_a_figure_that_leaves_the_page_stops(opened):
    tab, (one, *_) = opened()
    one.query_selector("button").click()
    one.evaluate("e => e.remove()")
    tab.wait_for_timeout(300)
    assert one.query_selector("button").text_content() == "Play"


def test_no_motion_is_offered_to_who_wants_none(opened):
    _, players = opened(reduced_motion="reduce")
    assert [player.query_selector("button").is_visible() for player in players] == [False] * 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scroll(opened, scheme):
    tab, (one, *_) = opened(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert one.evaluate("e => e.scrollWidth - e.clientWidth") == 0
    assert one.query_selector("input").bounding_box()["width"] >= 64


def test_without_scripts_the_first_frame_stands(opened):
    _, (one, *_) = opened(java_script_enabled=False)
    assert [img.is_visible() for img in one.query_selector_all("img")] == [True] + [False] * 5
