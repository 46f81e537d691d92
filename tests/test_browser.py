"""Every page in a real browser: no request leaves, mathematics shows, sliders move, folds open, nothing overflows.

A page is loaded once; what can be asked of it is asked of that one.
"""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tools import execute

pytestmark = pytest.mark.built
PAGES = execute.pages()
VIOLATIONS = {"resultTypes": ["violations"]}
# Faults of the theme and of its bibliography that axe names; each is (rule, part of the selector).
THEIRS = [
    ("label-content-name-mismatch", ".search-button"),
    ("label-content-name-mismatch", ".theme-switch-button"),
    ("aria-required-children", ".citation-list"),
]
# axe takes a minute for a chapter as it is. What repeats is looked at once: contrast in one text of each color, size
# and ground, and the rest with few formulas, copy buttons, table rows and colored words of code.
THIN = """() => {
  const grounds = new Map([[null, ""]]), seen = new Set(), again = [];
  const ground = (e) => {
    if (!grounds.has(e)) {
      const color = getComputedStyle(e).backgroundColor;
      grounds.set(e, color === "rgba(0, 0, 0, 0)" ? ground(e.parentElement) : color);
    }
    return grounds.get(e);
  };
  document.querySelectorAll("[data-sample]").forEach(e => e.removeAttribute("data-sample"));
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const s = getComputedStyle(e), key = [s.color, s.opacity, s.fontSize, s.fontWeight, ground(e)].join();
    if (seen.has(key)) again.push(e);
    else { seen.add(key); e.dataset.sample = ""; }
  }
  again.filter(e => e.matches("pre span")).forEach(e => e.replaceWith(...e.childNodes));
  [...document.querySelectorAll("math")].slice(30).forEach(e => e.replaceWith("x"));
  [...document.querySelectorAll(".copybtn")].slice(9).forEach(e => e.remove());
  [...document.querySelectorAll("tr:nth-child(n+6)")].forEach(e => e.remove());
}"""


def frame(player) -> str:
    """The alternative text of the frame a player shows, once it is in sight: exactly one."""
    player.scroll_into_view_if_needed()
    player.page.wait_for_function(
        "p => [...p.querySelectorAll('img')].every(i => i.hidden || (i.complete && i.naturalWidth))",
        arg=player.element_handle(),
    )
    (shown,) = player.evaluate(
        """player => [...player.querySelectorAll("img")].filter(i => i.offsetParent)
             .map(i => i.complete && i.naturalWidth > 100 && i.alt)"""
    )
    assert shown
    return shown


def turn(page, player, before: str):
    """Wait until a player shows another frame."""
    page.wait_for_function("([player, alt]) => player.querySelector('img:not([hidden])').alt !== alt",
                           arg=[player.element_handle(), before])  # fmt: skip


def open_folds(page, which: str):
    page.evaluate("which => document.querySelectorAll(which).forEach(fold => { fold.open = true; })", which)


def assert_mathematics_shows(page):
    assert page.evaluate(
        """[...document.querySelectorAll(".math")].every(
             m => m.querySelector("math")?.getBoundingClientRect().height > 0 || !m.checkVisibility())"""
    )
    assert page.locator("merror, .temml-error").count() == 0


def assert_figures_move_only_when_asked(page):
    counts = [player.locator("img").count() for player in page.locator(".dm-player").all()]
    assert 1 <= len(counts) <= 3
    assert max(counts) <= 40
    player = page.locator(".dm-player").first
    still = frame(player)
    page.wait_for_timeout(2.5 * int(player.get_attribute("data-interval")))
    assert frame(player) == still
    player.locator("button").click()
    turn(page, player, still)
    page.emulate_media(reduced_motion="reduce")
    assert page.locator(".dm-player button:visible").count() == 0
    page.emulate_media(reduced_motion="no-preference")


def assert_sliders_move_by_keyboard(page):
    for player in page.locator(".dm-player").all():
        frames = {frame(player)}
        for slider in player.locator("input[type=range]").all():
            slider.focus()
            slider.press("Home")
            before = frame(player)
            frames.add(before)
            for _ in range(int(slider.get_attribute("max"))):
                page.keyboard.press("ArrowRight")
                turn(page, player, before)
                after = frame(player)
                before = after
                frames.add(after)
            assert slider.input_value() == slider.get_attribute("max")
        assert len(frames) > 2


def assert_no_sideways_scroll(page, width: int):
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    clipped = page.evaluate(
        """limit => [...document.querySelectorAll("article *")].filter(e => {
             const r = e.getBoundingClientRect();
             if (r.width === 0 || r.right <= limit + 1) return false;
             for (let p = e.parentElement; p; p = p.parentElement)
               if (/auto|scroll/.test(getComputedStyle(p).overflowX)) return false;
             return !e.closest(".visually-hidden");
           }).map(e => e.outerHTML.slice(0, 120))""",
        width,
    )
    assert clipped == []


def assert_figures_are_wide_where_there_is_room(page):
    for wide, narrow in page.evaluate(
        """[...document.querySelectorAll("picture")].map(({ children: [narrow, wide] }) =>
             [wide, narrow].map(part => Number(part.getAttribute("width"))))"""
    ):
        assert wide > narrow


def assert_figures_have_their_form_for_phones(page):
    page.add_style_tag(content="section { content-visibility: visible !important; }")
    page.evaluate("document.querySelectorAll('picture img').forEach(image => { image.loading = 'eager'; })")
    page.wait_for_function("[...document.querySelectorAll('picture img')].every(image => image.naturalWidth)")
    for source, wanted, box, width in page.evaluate(
        """[...document.querySelectorAll("picture")].filter(p => p.checkVisibility()).map(p => {
             const [source, image] = p.children;
             return [image.currentSrc, source.srcset, p.parentElement.clientWidth, image.clientWidth]; })"""
    ):
        assert source.endswith(wanted.lstrip("./"))
        assert 250 < width <= box


def dress(page, scheme: str, width: int):
    """Turn the page light or dark, and to this width, and wait until the keyboard reaches what is too wide."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=scheme)
    page.wait_for_function(
        """() => [...document.querySelectorAll("pre, .output, .pst-scrollable-table-container")].every(box =>
             box.scrollWidth <= box.clientWidth || box.tabIndex >= 0 || getComputedStyle(box).overflowX == "visible")"""
    )


def assert_axe_is_content(page):
    page.evaluate(THIN)
    found = Axe().run(page, options={**VIOLATIONS, "rules": {"color-contrast": {"enabled": False}}}).response
    samples = {"include": [["[data-sample]"]]}
    contrast = Axe().run(page, context=samples, options={**VIOLATIONS, "runOnly": ["color-contrast"]}).response
    ours = [
        (v["id"], node["target"], node["html"][:150])
        for v in found["violations"] + contrast["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
        if not any(v["id"] == rule and part in str(node["target"]) for rule, part in THEIRS)
    ]
    assert ours == []


@pytest.mark.parametrize("name", PAGES)
def test_page_from_a_file(visit, name):
    page = visit(name, color_scheme="light", reduced_motion="no-preference")
    page.add_style_tag(content="section { content-visibility: visible !important; }")  # all is to be judged at once
    assert_no_sideways_scroll(page, 1280)
    assert_figures_are_wide_where_there_is_room(page)
    open_folds(page, "details:has(.dm-player)")  # the others later: a long page takes longer to move
    if re.search(r"/\d\d-", name):
        assert_figures_move_only_when_asked(page)
    assert_sliders_move_by_keyboard(page)
    open_folds(page, "details")
    assert_mathematics_shows(page)
    for scheme in ("light", "dark"):
        dress(page, scheme, 390)
        assert_mathematics_shows(page)
        assert_no_sideways_scroll(page, 390)
    assert (page.outside, page.errors) == ([], [])
    assert_axe_is_content(page)  # last: axe fetches style sheets itself
    dress(page, "light", 1280)
    assert_axe_is_content(page)


@pytest.mark.parametrize("name", PAGES)
def test_page_over_http_on_a_phone(visit, served, name):
    page = visit(name, base=served, width=390, color_scheme="dark")
    assert page.locator("details.detour[open], details.checks[open], details.solution[open]").count() == 0
    assert_figures_have_their_form_for_phones(page)
    assert (page.outside, page.errors) == ([], [])


def test_theme_switch_turns_the_page_dark(visit):
    page = visit(PAGES[0], color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
