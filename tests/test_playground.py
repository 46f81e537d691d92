"""Every figure that computes, on the built playground, from a file and without a network: moved by mouse, finger and
keyboard, wide and narrow, light and dark; reset, kept in a link, and given nonsense."""

from __future__ import annotations

import urllib.parse

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.built
FIGURES = {"mixture": "fig-play-mixture", "posterior": "fig-play-posterior", "decoder": "fig-play-decoder",
           "digits": "fig-play-digits", "cave": "fig-play-cave"}  # fmt: skip
LOOKS = [(1280, "light"), (390, "dark")]
SEEN = """figure => [...figure.querySelectorAll("canvas")].map(c => c.toDataURL()).join()
  + [...figure.querySelectorAll(".dm-grip")].map(grip => grip.getAttribute("aria-valuetext")).join()
  + figure.querySelector(".dm-said").textContent"""


def figure(visit, name: str, *, width: int = 1280, at: str = "", **settings):
    """The playground with this figure started, and the figure."""
    page = visit("chapters/playground", width=width, at=at, **settings)
    found = page.locator(f"#{FIGURES[name]} .dm-live")
    found.scroll_into_view_if_needed()
    found.locator(".dm-said:not(:empty)").wait_for()
    return page, found


def seen(found) -> str:
    """All that a figure shows, once it has come to rest."""
    last, now = None, found.evaluate(SEEN)
    while last != now:
        found.page.wait_for_timeout(250)
        last, now = now, found.evaluate(SEEN)
    return now


def middle(grip) -> tuple[float, float]:
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def by_mouse(page, grip, dx: float, dy: float):
    x, y = middle(grip)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx / 2, y + dy / 2)
    page.mouse.move(x + dx, y + dy)
    page.mouse.up()


def by_finger(page, grip, dx: float, dy: float):
    middle(grip)
    page.wait_for_timeout(600)  # a neighbor that comes near starts, and is taller once it speaks
    page.wait_for_function("[...document.querySelectorAll('.dm-said')].every(said => said.textContent)")
    x, y = middle(grip)
    client, scroll = page.context.new_cdp_session(page), page.evaluate("scrollY")
    for kind, share in (("touchStart", 0.0), ("touchMove", 0.5), ("touchMove", 1.0), ("touchEnd", None)):
        points = [] if share is None else [{"x": x + share * dx, "y": y + share * dy}]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    client.detach()
    assert page.evaluate("scrollY") == scroll  # what is dragged does not scroll the page


def by_keys(page, grip, dx: float, dy: float):
    grip.press("ArrowRight" if dx > 0 else "ArrowLeft")
    grip.press("ArrowUp" if dy < 0 else "ArrowDown")
    if "Space paints" in grip.get_attribute("aria-label"):
        grip.press("Space")


def assert_words_are_sound(found):
    words = found.inner_text()
    assert not any(bad in words for bad in ("NaN", "Infinity", "undefined", "null"))


@pytest.mark.parametrize("move", [by_mouse, by_finger, by_keys])
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", FIGURES)
def test_what_can_be_grabbed_moves(visit, name, width, scheme, move):
    page, found = figure(visit, name, width=width, color_scheme=scheme, has_touch=move is by_finger)
    assert found.locator(".dm-figure").get_attribute("data-ink") == scheme
    first = seen(found)
    if name == "digits":
        found.get_by_label("start from").select_option("drawing")  # the pad
    before, grips = seen(found), found.locator(".dm-grip:visible").all()[:6]
    assert grips
    for grip in grips:
        move(page, grip, 24, -16)
        after = seen(found)
        if after == before:  # it may stand at an end
            move(page, grip, -24, 16)
            after = seen(found)
        assert after != before, grip.get_attribute("aria-label")
        before = after
    assert_words_are_sound(found)
    found.get_by_role("button", name="Reset").click()
    assert seen(found) == first
    assert (page.outside, page.errors) == ([], [])


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", FIGURES)
def test_controls_go_from_end_to_end_by_keyboard(visit, name, width, scheme):
    page, found = figure(visit, name, width=width, color_scheme=scheme, reduced_motion="reduce")
    for slider in found.locator("input[type=range]:visible").all():
        for key in ("Home", "ArrowRight", "End", "ArrowLeft"):
            slider.press(key)
        page.wait_for_timeout(200)
        assert_words_are_sound(found)
    for choice in found.locator("select:visible").all():
        for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
            choice.press(key)
        page.wait_for_timeout(200)
        assert_words_are_sound(found)
    for switch in found.locator("input[type=checkbox]:visible").all():
        switch.press("Space")
    seen(found)
    assert_words_are_sound(found)
    assert (page.outside, page.errors) == ([], [])
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert found.locator(".dm-figure").evaluate("figure => figure.scrollWidth <= figure.clientWidth")


@pytest.mark.parametrize("name", FIGURES)
def test_the_link_carries_the_state(visit, name):
    page, found = figure(visit, name, permissions=["clipboard-read", "clipboard-write"])
    first = seen(found)
    found.locator("input[type=range]:visible").nth(1).press("ArrowRight")
    moved = seen(found)
    assert moved != first
    found.get_by_role("button", name="Copy link").click()
    found.get_by_role("button", name="Copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    again, copy = figure(visit, name, at=link.removeprefix(page.url))
    assert seen(copy) == moved
    assert again.errors == []


def test_a_link_keeps_what_is_shown_of_a_drawing(visit):
    state = urllib.parse.quote('{"start": "drawing", "t": 60, "steps": 5, "shown": 40, "drawing": "00gg"}')
    page, found = figure(visit, "digits", at=f"?{FIGURES['digits']}={state}")
    seen(found)
    assert "noised to t = 60: 5 of 5 steps. The prediction of step 2" in found.locator(".dm-said").inner_text()
    assert page.errors == []


@pytest.mark.parametrize("name", FIGURES)
def test_a_link_that_cannot_be_copied_stands_in_the_address_bar(visit, name):
    page, found = figure(visit, name)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    found.locator("input[type=range]:visible").nth(1).press("ArrowRight")
    moved = seen(found)
    found.get_by_role("button", name="Copy link").click()
    found.get_by_role("button", name="In the address bar").wait_for()
    copy = figure(visit, name, at=page.evaluate("location.search + location.hash"))[1]
    assert seen(copy) == moved


@pytest.mark.parametrize("state", ["{", "[]", "7", '{"t": 1e99}', "null"])
@pytest.mark.parametrize("name", FIGURES)
def test_nonsense_in_a_link_is_met(visit, name, state):
    page, found = figure(visit, name, at=f"?{FIGURES[name]}={urllib.parse.quote(state)}")
    seen(found)
    assert_words_are_sound(found)
    assert page.errors == []


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_axe_is_content_with_all_figures(visit, width, scheme):
    page = visit("chapters/playground", width=width, color_scheme=scheme)
    for name in FIGURES.values():
        page.locator(f"#{name}").scroll_into_view_if_needed()
        page.locator(f"#{name} .dm-said:not(:empty)").wait_for()
    found = Axe().run(page, context={"include": [[".dm-live"]]}).response["violations"]
    assert [(v["id"], node["target"]) for v in found for node in v["nodes"]] == []
