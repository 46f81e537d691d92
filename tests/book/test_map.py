"""The map of the book: every planned chapter has its place, both forms hold the same words, and all is readable."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dmlib.book import map

SVG = "{http://www.w3.org/2000/svg}"
CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"
FORMS = [False, True]


def drawing(name: str, tall: bool = False) -> ElementTree.Element:
    return ElementTree.fromstring(map.svg(name, tall=tall))


def lit(name: str, tall: bool = False) -> int:
    return sum(node.get("class") == "dm-map-lit" for node in drawing(name, tall).iter(f"{SVG}rect"))


@pytest.mark.parametrize("tall", FORMS)
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("intro", 0),
        ("toolbox", 0),
        ("04-vae", 1),
        ("11-ddpm", 1),
        ("17-discrete-diffusion", 1),
        ("19-latent-diffusion", 2),
    ],
)
def test_a_chapter_lights_its_place(name, count, tall):
    assert lit(name, tall) == count


def test_the_drawing_and_the_words_say_where_one_stands():
    assert "stands at: VAE" in drawing("04-vae").find(f"{SVG}title").text
    assert drawing("intro").find(f"{SVG}title").text == "The map of the book"
    assert "stands at: diffusion" in drawing("17-discrete-diffusion").find(f"{SVG}title").text
    assert map.words("09-posterior-mean").count("[") == 1
    assert "[diffusion (7–13)]" in map.words("09-posterior-mean")


def test_every_chapter_that_is_written_is_on_the_map():
    written = {path.stem for path in CHAPTERS.glob("*.ipynb")}
    assert written - set(map.PLACES) == {"playground"}  # a page beside the path
    assert [name[:2] for name in sorted(map.PLACES) if name[0].isdigit()] == [f"{n:02d}" for n in range(1, 21)]


@pytest.mark.parametrize("name", ["", "4", "vae", "04", "../intro"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=r"name was '.*'; it must be a chapter on the map: intro, "):
        map.svg(name)


@pytest.mark.parametrize("tall", FORMS)
@pytest.mark.parametrize("name", ["intro", "04-vae", "17-discrete-diffusion", "18-vae-versus-ddpm"])
def test_words_are_large_enough_and_stay_inside(name, tall):
    """On a phone of 390 px the tall form is about as wide as drawn, so that its letters keep their size."""
    svg = drawing(name, tall)
    _, _, width, height = (float(n) for n in svg.get("viewBox").split())
    assert width == 330 if tall else width > 640
    for node in svg.iter(f"{SVG}text"):
        text = "".join(node.itertext())
        size = float(node.get("font-size"))
        assert size >= 12
        assert float(node.get("x")) + 0.5 * size * len(text) <= width, text
        assert 0 < float(node.get("y")) <= height - 3


def test_a_page_holds_both_forms_and_a_reader_hears_one():
    page = map.html("intro")
    assert page.count("<svg") == 2
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) == 4
    named = re.findall(r'aria-labelledby="([^"]+)"', page)
    assert sorted(" ".join(named).split()) == sorted(ids)
    assert map.html("intro") != map.html("04-vae")


def test_the_words_of_the_map_stand_in_its_description():
    said = drawing("intro").find(f"{SVG}desc").text
    for words in (
        "VAE, chapters 2, 4: latents: z, small; encoder q: learned",
        "x1 … xT",
        "Discrete latents: chapter 6",
    ):
        assert words in said
