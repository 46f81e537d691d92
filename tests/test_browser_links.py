"""Ways into a page in a real browser: search, references, links into what is folded, links to what has moved."""

from __future__ import annotations

import json
import re
from urllib.parse import quote_plus

import pytest
from conftest import HTML, ROOT

from tools import execute

pytestmark = pytest.mark.built
PAGES = execute.pages()


@pytest.mark.parametrize(
    ("asked", "first", "title"),
    [
        ("posterior mean", "chapters/09-posterior-mean.html", "posterior mean"),
        ("evidence lower bound", "chapters/03-elbo.html", "evidence lower bound"),
        ("(9.11)", "chapters/09-posterior-mean.html#equation-", "Equation (9.11)"),
        ("exercise 3.1", "chapters/03-elbo.html", "Exercise 3.1"),
    ],
)
def test_search_finds_places_from_a_file(visit, asked, first, title):
    page = visit("search", at=f"?q={quote_plus(asked)}")
    page.wait_for_selector("#search-results li a")
    link = page.locator("#search-results li a").first
    href = re.sub(r"\?[^#]*", "", link.get_attribute("href"))
    assert href.startswith(first)
    assert "#" in href
    assert title in link.inner_text()
    assert page.locator("#search-results li p mark").count() > 0 or asked[0] == "("
    link.click()
    page.wait_for_function("Math.abs(document.querySelector(':target')?.getBoundingClientRect().top) < 300")
    left = "net::ERR_ABORTED"  # What had not come yet when the click left the page of results.
    assert [error for error in page.errors if not error.endswith(left)] == []
    assert page.outside == []


def test_search_says_when_there_is_nothing(visit):
    page = visit("search", at="?q=zzzzqq")
    page.wait_for_selector("#search-results p")
    assert page.locator("#search-results p").inner_text() == "No places for “zzzzqq”"


def test_hovering_or_focusing_a_reference_shows_its_equation(visit, served):
    name = next(p for p in PAGES if p.endswith("03-elbo"))
    page = visit(name, base=served)
    link = page.locator('article a.reference[href*="#equation-"]').first
    card = page.locator(".eq-card")
    assert not card.is_visible()
    for act in (link.hover, link.focus):
        act()
        page.wait_for_selector(".eq-card math")
        assert card.is_visible()
        page.keyboard.press("Escape")
        assert not card.is_visible()
    assert (page.outside, page.errors) == ([], [])


def test_a_first_touch_shows_the_equation_and_a_second_one_leads_to_it(visit):
    page = visit("chapters/03-elbo", width=390, has_touch=True)
    link = page.locator('article p:visible a.reference[href^="#equation-"]').first
    link.scroll_into_view_if_needed()
    before, at = page.url, link.get_attribute("href")
    link.tap()
    page.wait_for_selector(".eq-card math")
    assert page.url == before
    link.tap()
    page.wait_for_url(f"**{at}")
    assert page.errors == []


def with_detours() -> str:
    return next(p for p in PAGES if 'class="fold detour"' in (HTML / f"{p}.html").read_text("utf8"))


def folds(page, state: str) -> int:
    return page.locator(f"details.fold:not(.checks){state}").count()


def test_a_link_into_a_fold_opens_it(visit):
    page = visit(with_detours(), at="#a-hash-that-no-page-has")
    assert folds(page, "[open]") == 0
    detour = page.locator("section:has(> details.detour)").last
    inside = page.locator("details.detour [id]:not(section)").first
    for place in (detour, inside):
        at = place.get_attribute("id")
        page.evaluate("at => { location.hash = at; }", at)
        page.wait_for_function("at => document.getElementById(at).checkVisibility()", arg=at)
        page.wait_for_function("at => Math.abs(document.getElementById(at).getBoundingClientRect().top) < 300", arg=at)
    assert detour.locator("> details[open]").count() == 1
    assert 2 <= folds(page, "[open]") < folds(page, "")
    page.reload()
    assert inside.is_visible()
    assert not detour.locator("> details[open]").count()
    assert page.errors == []


def test_a_search_hit_and_printing_open_a_detour(visit):
    name = with_detours()
    page = visit(name)
    page.evaluate("document.querySelectorAll('.math').forEach(formula => formula.remove())")
    word = page.evaluate("document.querySelector('.detour p').textContent.match(/[a-z]{6,}/)[0]")
    page = visit(name, at=f"?highlight={word}")
    page.wait_for_selector(".detour[open] .highlighted >> visible=true")
    closed = folds(page, ":not([open])")
    for event, left in (("beforeprint", 0), ("afterprint", closed)):
        page.evaluate("name => window.dispatchEvent(new Event(name))", event)
        assert folds(page, ":not([open])") == left
        assert page.locator("details.checks[open]").count() == 0


def test_a_word_of_the_map_does_not_end_the_search_for_it(visit):
    page = visit("chapters/03-elbo", at="?highlight=network")
    page.wait_for_selector("p .highlighted", state="attached")
    assert page.errors == []


def older_links() -> list[tuple[str, str]]:
    """Links of earlier editions and where they lead: equations, wherever they stand now, and sections by their list."""
    moved = json.loads((ROOT / "_assets" / "moved.json").read_text("utf8"))
    equation = re.findall(r'id="(equation-eq-[\w-]+)"', (HTML / f"{PAGES[2]}.html").read_text("utf8"))[-1]
    return [(f"{PAGES[1]}.html#{equation}", f"{PAGES[2]}.html#{equation}")] + [
        (f"chapters/{old}", f"chapters/{new}") for old, new in [*moved.items()][:: len(moved) // 3]
    ]


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_link_to_what_has_moved_leads_on(visit, served, scheme):
    for old, new in older_links():
        name, at = old.split(".html")
        page = visit(name, base=served if scheme == "http" else HTML.as_uri(), at=at)
        page.wait_for_url(lambda url, new=new: url.endswith(f"/{new}"))
        page.wait_for_selector(f"[id='{new.split('#')[1]}']", state="attached")
        assert [error for error in page.errors if not error.startswith("failed")] == []  # the first page was left early
