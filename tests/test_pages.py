"""The built pages: links, pictures, weight, folds, and every equation with its check."""

from __future__ import annotations

import functools
import gzip
import json
import re
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import HTML, ROOT

from dmlib.book.figures import NARROW_MIME
from tools import appendices, execute
from tools.sphinx_book import verdict

pytestmark = pytest.mark.built
PAGES = execute.pages()
LABEL = re.compile(r"^\$\$ \((eq-[\w-]+)\)|^:label: (eq-[\w-]+)", re.MULTILINE)
STATUSES = {"checked", "corrected", "cited only", "later"}
THEIR_IDS = {"exercise-content", "solution-content", "proof-content"}  # given to every exercise and algorithm


@functools.cache
def soup(name: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / name).read_text("utf8"), "html.parser")


def built() -> list[str]:
    return sorted(f.relative_to(HTML).as_posix() for f in HTML.rglob("*.html") if "_static" not in f.parts)


def labels() -> dict[str, list[str]]:
    """Equation labels of each page, from its source."""
    found = {}
    for page in PAGES:
        if (path := ROOT / f"{page}.ipynb").exists():
            text = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
        elif (path := ROOT / f"{page}.md").exists():
            text = path.read_text("utf8")
        else:
            continue  # made by the build
        found[page] = ["".join(pair) for pair in LABEL.findall(text)]
    return found


def checks() -> dict[str, list[dict]]:
    kept = {p.stem: json.loads(execute.kept(p).read_text("utf8")) for p in execute.notebooks()}
    return appendices.ledgers(kept)


@pytest.mark.parametrize("page", PAGES)
def test_page_is_there_and_light(page):
    """Little before the first touch of a figure, compressed as a host sends it; formulas set; pictures wait."""
    path = HTML / f"{page}.html"
    assert len(gzip.compress(path.read_bytes(), 6)) < 250_000
    assert not re.search(r'src="data:|fontawesome\.js|tex-chtml', path.read_text("utf8"), re.IGNORECASE)
    assert all(script.has_attr("defer") for script in soup(f"{page}.html").select("script[src]"))
    assert all(img["loading"] == "lazy" for img in soup(f"{page}.html").select(".cell_output img"))
    assert all(formula.find("math")["data-tex"] for formula in soup(f"{page}.html").select(".math"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_all_that_it_loads_is_below_three_megabytes(page):
    """Text, pictures, scripts and weights, as they are on the disk; what all pages share is apart."""
    path = HTML / f"{page}.html"
    files = {path} | {HTML / script["data-src"] for script in soup(f"{page}.html")("script", {"data-src": True})}
    files |= {path.parent.joinpath(image["src"]).resolve() for image in soup(f"{page}.html")("img", src=True)}
    assert sum(file.stat().st_size for file in files) < 3_000_000


def test_entries_of_the_bibliography_have_the_labels_of_the_text_and_links():
    entries = {entry["id"]: entry for entry in soup("chapters/bibliography.html").select("ul.citations > li")}
    cited = [link for page in PAGES for link in soup(f"{page}.html").select('a[href*="bibliography.html#"]')]
    assert len(entries) > 50
    assert len(cited) > 100
    for link in cited:
        label = " ".join(entries[link["href"].split("#")[1]].strong.get_text().split())
        assert label.endswith(" ".join(link.get_text().split()))  # a year alone where the text names the author
    papers = [a["href"] for entry in entries.values() for a in entry.select("a.external")]
    assert len(papers) > 80
    known = (
        r"https://(arxiv\.org/abs/[\w.-]+(/\d{7})?|doi\.org/10\.\d{4,}/\S+|www\.jmlr\.org/papers/\S+\.html"
        r"|openreview\.net/forum\?id=\w+)"
    )
    assert [paper for paper in papers if not re.fullmatch(known, paper)] == []


def test_links_lead_somewhere():
    ids = {name: {tag["id"] for tag in soup(name).find_all(id=True)} for name in built()}
    bad = []
    for name in built():
        for tag in soup(name).find_all(["a", "link", "script", "img", "source", "iframe"]):
            link = urlsplit(tag.get("href") or tag.get("src") or "")
            if link.scheme or link.netloc or not (link.path or link.fragment):
                continue
            target = (HTML / name).parent.joinpath(unquote(link.path)).resolve() if link.path else HTML / name
            if not target.exists():
                bad.append(f"{name}: {link.geturl()}")
            elif link.fragment and target.suffix == ".html":
                if unquote(link.fragment) not in ids[target.relative_to(HTML).as_posix()]:
                    bad.append(f"{name}: {link.geturl()}")
    assert not bad


def test_what_has_moved_is_gone_from_where_it_was_and_stands_where_it_is_said_to():
    moved = json.loads((ROOT / "_assets" / "moved.json").read_text("utf8"))
    there = {
        link: bool(soup(f"chapters/{link.split('#')[0]}").find(id=link.split("#")[1]))
        for pair in moved.items()
        for link in pair
    }
    assert [old for old in moved if there[old]] == []
    assert [new for new in moved.values() if not there[new]] == []


@pytest.mark.parametrize("name", [f"{page}.html" for page in PAGES])
def test_nothing_is_fetched_from_elsewhere(name):
    tags = soup(name).find_all(["link", "script", "img", "source", "iframe"])
    sources = [tag.get("src") or tag.get("href") or "" for tag in tags]
    assert not [s for s in sources if urlsplit(s).netloc]


@pytest.mark.parametrize("name", [f"{page}.html" for page in PAGES])
def test_ids_are_unique_and_pictures_described(name):
    ids = [tag["id"] for tag in soup(name).find_all(id=True) if tag["id"] not in THEIR_IDS]
    assert len(ids) == len(set(ids))
    assert all(len(img.get("alt", "")) > 10 for img in soup(name).select("article img"))


@pytest.mark.parametrize("name", [f"{page}.html" for page in PAGES])
def test_no_raw_markup_is_left(name):
    article = BeautifulSoup(str(soup(name).find("article")), "html.parser")
    for tag in article.select("pre, code, script, .math, svg"):
        tag.decompose()
    assert not re.findall(r":::|\{(?:eq|cite|numref|ref|exercise|solution)[}:]|\$\$|\\\w+\{", article.get_text())


def test_a_tick_says_what_the_checks_came_to():
    ok, wrong = "PASS eq-a  claim  [|diff| <= 1]", "PASS eq-a  rejected: claim  [must fail]"
    assert verdict(f"{ok}\n") == "1 check"
    assert verdict(f"{ok}\n{ok}\n\n{wrong}\n") == "2 checks, 1 wrong form rejected"
    assert verdict(f"{wrong}\n{wrong}") == "2 wrong forms rejected"
    assert verdict("PASS eq-a  samples are rejected: no  [|diff| <= 1]") == "1 check"
    for printed in ("", f"{ok}\nFAIL eq-a  claim", f"3\n{ok}", "PASS"):
        assert verdict(printed) is None


@pytest.mark.parametrize("path", execute.notebooks(), ids=lambda path: path.stem)
def test_folds_hold_what_they_should(path):
    cells = nbformat.read(path, 4).cells
    page = soup(f"chapters/{path.stem}.html")
    assert not page.select("details[open]")
    words = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert len(page.select("section > .detour > summary")) == len(re.findall(r"^#+ Detour: ", words, re.MULTILINE))
    inside, solutions = False, []
    for cell in cells:
        for mark in re.findall(r"\{solution-(start|end)\}", cell.source) if cell.cell_type == "markdown" else ["code"]:
            if mark == "start":
                solutions.append(0)
            inside = {"start": True, "end": False}.get(mark, inside)
            solutions[-1:] = [solutions[-1] + (mark == "code")] if inside else solutions[-1:]
    assert [len(fold.select(".cell")) for fold in page.select("div.solution > .solution")] == solutions
    assert not page.select(".solution .checks")


@pytest.mark.parametrize("path", execute.notebooks(), ids=lambda path: path.stem)
def test_ticks_count_the_checks_that_ran(path):
    outputs = json.loads(execute.kept(path).read_text("utf8"))["outputs"]
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    checked = [o for cell, o in zip(code, outputs, strict=True) if "check" in cell.metadata.get("tags", ())]
    lines = ["".join("".join(part["text"]) for part in printed).splitlines() for printed in checked]
    ticks = [tick.get_text() for tick in soup(f"chapters/{path.stem}.html").select(".checks > summary")]
    assert len(ticks) == len(lines)
    for tick, printed in zip(ticks, lines):
        assert tick.startswith("✓ ")
        assert sum(map(int, re.findall(r"\d+", tick))) == len([line for line in printed if line.startswith("PASS ")])
        assert ("rejected" in tick) == any("  rejected: " in line for line in printed)


def test_labels_are_unique():
    every = [label for found in labels().values() for label in found]
    assert len(every) == len(set(every))


def test_every_equation_has_a_check_or_is_a_definition():
    defined = {row["label"] for row in appendices.table(ROOT, "definitions")}
    done = {check["label"] for found in checks().values() for check in found if check["route"] != "must_fail"}
    every = {label for found in labels().values() for label in found}
    assert every - done - defined == set(), "neither checked nor listed in chapters/definitions.csv"
    assert defined - every == set(), "defined, but no chapter has it"
    assert {c["label"] for found in checks().values() for c in found} - every == set(), "checked, but not there"


def test_a_chapter_checks_its_own_equations():
    defined = {row["label"] for row in appendices.table(ROOT, "definitions")}
    done = checks()
    for page, found in labels().items():
        mine = {check["label"] for check in done.get(page.split("/")[-1], [])}
        assert set(found) - defined - mine == set(), page


def test_every_equation_has_a_number_that_links_to_it():
    for page, found in labels().items():
        anchors = {tag["id"] for tag in soup(f"{page}.html").select("div.math[id]")}
        numbers = {tag["href"] for tag in soup(f"{page}.html").select("span.eqno a:not(.headerlink)")}
        assert {f"equation-{label}" for label in found} <= anchors, page
        assert {f"#equation-{label}" for label in found} <= numbers, page


def test_coverage_rows_say_where_they_are_carried():
    rows = appendices.table(ROOT, "coverage")
    every = {label for found in labels().values() for label in found}
    pages = {page.split("/")[-1] for page in PAGES}
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["status"] in STATUSES, row["id"]
        carried = row["status"] in ("checked", "corrected")
        assert not carried or (row["label"] in every and row["chapter"] in pages), row["id"]
        assert row["status"] != "later" or row["chapter"] not in pages, row["id"]
        assert row["status"] != "corrected" or row["note"], row["id"]


def test_no_answer_to_an_exercise_stands_in_the_ledger():
    assert not [c for found in checks().values() for c in found if re.search(r"\bexercise", c["claim"], re.IGNORECASE)]


def test_ledger_page_shows_the_checks():
    page = BeautifulSoup((HTML / "chapters" / "ledger.html").read_text("utf8"), "html.parser")
    assert f"{sum(map(len, checks().values()))} checks ran" in page.get_text()
    for name in page.select(".column"):
        name.decompose()
    shown = {re.sub(r"\W", "", row.get_text()) for row in page.select("tbody tr")}
    for check in (check for found in checks().values() for check in found):
        rest = re.sub(r"\W", "", check["claim"] + check["route"].replace("_", " ") + check["bound"])
        assert any(row.endswith(rest) for row in shown), check


def test_every_figure_that_was_redrawn_for_phones_is_on_its_page():
    """What runs left and what pages show are counted apart; image strips and drawings have one form."""
    outputs = {p.stem: json.loads(execute.kept(p).read_text("utf8"))["outputs"] for p in execute.notebooks()}
    drawn = {
        name: sum(NARROW_MIME in output.get("data", {}) for cell in cells for output in cell)
        for name, cells in outputs.items()
    }
    assert {name: len(soup(f"chapters/{name}.html").select("picture > source")) for name in drawn} == drawn
    assert sum(drawn.values()) > 40
