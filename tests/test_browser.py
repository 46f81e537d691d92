"""Every page in a real browser: no request leaves, mathematics shows, sliders move, nothing overflows."""

from __future__ import annotations

import functools
import http.server
import re
import threading

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import HTML

from tools import execute

pytestmark = pytest.mark.built
PAGES = execute.pages()
SETTLED = "window.MathJax && MathJax.startup && MathJax.startup.promise.then(() => true)"
# Faults of the theme and of its bibliography that axe names; each is (rule, part of the selector).
THEIRS = [
    ("label-content-name-mismatch", ".search-button"),
    ("label-content-name-mismatch", ".theme-switch-button"),
    ("aria-required-children", ".citation-list"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def served():
    """The book over HTTP, on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, served):
    """Open a page and wait for its mathematics; `page.outside` and `page.errors` hold what went wrong."""
    contexts = []

    def go(name: str, *, base: str = HTML.as_uri(), width: int = 1280, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.outside, page.errors = [], []
        inside = (HTML.as_uri(), served, "data:", "blob:")
        page.route(lambda url: not url.startswith(inside), lambda route: route.abort())
        page.on("request", lambda r: r.url.startswith(inside) or page.outside.append(r.url))
        page.on("requestfailed", lambda r: page.errors.append(f"failed: {r.url}"))
        page.on("pageerror", lambda e: page.errors.append(str(e)))
        page.on("console", lambda m: m.type == "error" and page.errors.append(f"{m.text} {m.location}"))
        page.goto(f"{base}/{name}.html")
        if page.locator(".math").count():
            page.wait_for_function(SETTLED, timeout=60_000)
        return page

    yield go
    for context in contexts:
        context.close()


def frame(player) -> str:
    """The alternative text of the frame a player shows: exactly one."""
    shown = player.locator("img:visible")
    assert shown.count() == 1
    assert shown.evaluate("img => img.complete && img.naturalWidth > 100")
    return shown.get_attribute("alt")


def assert_mathematics_shows(page):
    assert page.evaluate(
        """[...document.querySelectorAll(".math")].every(m => m.querySelector("mjx-container")?.offsetHeight > 0
             || !m.offsetParent)"""
    )
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


def assert_sliders_move_by_keyboard(page):
    for player in page.locator(".dm-player").all():
        frames = {frame(player)}
        for slider in player.locator("input[type=range]").all():
            slider.focus()
            slider.press("Home")
            for _ in range(int(slider.get_attribute("max"))):
                before = frame(player)
                slider.press("ArrowRight")
                assert frame(player) != before
                frames.add(frame(player))
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
             return !e.closest("mjx-assistive-mml, .visually-hidden");
           }).map(e => e.outerHTML.slice(0, 120))""",
        width,
    )
    assert clipped == []


def assert_axe_is_content(page):
    ours = [
        (v["id"], node["target"], node["html"][:150])
        for v in Axe().run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
        if not any(v["id"] == rule and part in str(node["target"]) for rule, part in THEIRS)
    ]
    assert ours == []


@pytest.mark.parametrize("name", PAGES)
def test_page_from_a_file_on_a_desktop_in_light(visit, name):
    page = visit(name, color_scheme="light")
    assert_mathematics_shows(page)
    assert_sliders_move_by_keyboard(page)
    assert (page.outside, page.errors) == ([], [])
    assert_axe_is_content(page)  # last: it fetches style sheets itself


@pytest.mark.parametrize("name", PAGES)
def test_page_over_http_on_a_phone_in_dark(visit, served, name):
    page = visit(name, base=served, width=390, color_scheme="dark")
    assert_mathematics_shows(page)
    assert_no_sideways_scroll(page, 390)
    assert (page.outside, page.errors) == ([], [])
    assert_axe_is_content(page)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert_no_sideways_scroll(page, 390)


@pytest.mark.parametrize("name", [p for p in PAGES if re.search(r"/\d\d-", p)])
def test_figures_of_a_chapter_move_only_when_asked(visit, name):
    page = visit(name, reduced_motion="no-preference")
    counts = [player.locator("img").count() for player in page.locator(".dm-player").all()]
    assert 2 <= len(counts) <= 3
    assert max(counts) <= 40
    player = page.locator(".dm-player").first
    still = frame(player)
    page.wait_for_timeout(700)
    assert frame(player) == still
    player.locator("button").click()
    page.wait_for_function("([player, alt]) => player.querySelector('img:not([hidden])').alt !== alt",
                           arg=[player.element_handle(), still])  # fmt: skip
    page.emulate_media(reduced_motion="reduce")
    assert page.locator(".dm-player button:visible").count() == 0


def test_search_finds_a_chapter_from_a_file(visit):
    page = visit("search", base=HTML.as_uri())
    page.goto(f"{HTML.as_uri()}/search.html?q=evidence")
    page.wait_for_selector("#search-results li a")
    assert "chapters/" in page.locator("#search-results li a").first.get_attribute("href")
    assert page.outside == []


def test_hovering_or_focusing_a_reference_shows_its_equation(visit):
    name = next(p for p in PAGES if p.endswith("03-elbo"))
    page = visit(name)
    link = page.locator('article a.reference[href*="#equation-"]').first
    card = page.locator(".eq-card")
    assert not card.is_visible()
    for act in (link.hover, link.focus):
        act()
        page.wait_for_selector(".eq-card mjx-container")
        assert card.is_visible()
        page.keyboard.press("Escape")
        assert not card.is_visible()
    assert page.errors == []


def test_theme_switch_turns_the_page_dark(visit):
    page = visit(PAGES[0], color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
