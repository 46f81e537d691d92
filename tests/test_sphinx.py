"""How formulas are set, and what of vendored files is held: their digests."""

from __future__ import annotations

import hashlib
import re
import sys
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT
from sphinx.errors import ExtensionError

from dmlib.book.figures import NARROW_MIME
from tools import pages

sys.path.insert(0, str(ROOT / "tools"))  # where Sphinx finds its extensions
import sphinx_light
import sphinx_math
import sphinx_narrow


def text(made: str) -> str:
    return re.sub(r"<[^>]*>", "", made)


def test_a_formula_is_mathml_that_carries_its_tex():
    made = sphinx_math.mathml(r"a < \frac{x_t}{2}")
    assert made.startswith('<math data-tex="a &lt; \\frac{x_t}{2}"')
    assert "<mfrac><msub><mi>x</mi><mi>t</mi></msub><mn>2</mn></mfrac>" in made


def test_a_displayed_formula_can_be_broken_before_its_relations_and_sums_only():
    def pieces(tex):
        made = sphinx_math.mathml(tex, True)
        return [text(piece) for piece in re.findall(r"<mrow>(.*?)</mrow>(?=<mrow>|</math>|</mtd>)", made)]

    assert pieces(r"a = -b + c \le d") == ["a", "=−b", "+c", "≤d"]
    assert pieces(r"f_a(x) = g\bigl(x + y\bigr) + 1") == ["fa(x)", "=g(x+y)", "+1"]
    assert pieces(r"f(x + y)") == ["f(x+y)"]
    assert pieces(r"\begin{aligned} a &= b \\ &= c - d \end{aligned}")[-2:] == ["=c", "−d"]


@pytest.mark.parametrize("tex", [r"\E[x]", r"\frac{1}{2"])
def test_what_cannot_be_read_is_named_in_one_line(tex):
    with pytest.raises(ExtensionError, match=r"^formula: .*ParseError: ") as caught:
        sphinx_math.mathml(tex)
    assert "\n" not in str(caught.value)


def test_inline_pictures_become_files_that_wait(tmp_path):
    body = '<img alt="x" src="data:image/webp;base64,AAEC"><img alt="y" src="data:image/webp;base64,AAEC">'
    made = sphinx_light.picture_files(body, "../_images/", tmp_path)
    (name,) = (path.name for path in tmp_path.iterdir())
    assert (tmp_path / name).read_bytes() == bytes([0, 1, 2])
    assert made.count(f'loading="lazy" src="../_images/{name}"') == 2


def test_a_drawing_has_the_size_that_it_says(tmp_path):
    (tmp_path / "a.svg").write_text('<svg xmlns="x" width="300.0pt" height="150pt" viewBox="0 0 300 150">', "utf8")
    made = sphinx_light.sized('<img alt="x" src="../_images/a.svg" />', {"a.svg": tmp_path / "a.svg"})
    assert made == '<img loading="lazy" width="400" height="200" alt="x" src="../_images/a.svg" />'


@pytest.mark.parametrize("folder", ["_assets/vendor/fonts", "tools/vendor/temml"])
def test_vendored_files_are_those_that_were_taken(folder):
    lines = (ROOT / folder / "SHA256SUMS").read_text("utf8").splitlines()
    digests = {name: digest for digest, name in map(str.split, lines)}
    assert digests == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / folder).iterdir()
        if path.name != "SHA256SUMS"
    }


def test_a_drawing_without_a_form_for_phones_scrolls_in_its_own_box():
    image = '<img loading="lazy" width="400" height="200" alt="x" src="../_images/a.svg" />'
    made = sphinx_narrow.fitting(f"<figure>{image}</figure>", {"a.svg": None}.get)
    assert made == f'<figure><span class="drawing" style="--drawn: 400px">{image}</span></figure>'
    other = '<img width="9" src="_images/a.webp">'
    assert sphinx_narrow.fitting(other, {}.get) == other


def test_a_drawing_with_a_form_for_phones_is_a_picture_of_two():
    image = '<img loading="lazy" width="400" height="200" alt="x" src="../_images/a.svg" />'
    made = sphinx_narrow.fitting(image, {"a.svg": ("b.svg", 'width="300" height="500" ')}.get)
    source = '<source media="(max-width: 600px)" width="300" height="500" srcset="../_images/b.svg">'
    assert made == f"<picture>{source}{image}</picture>"


def test_a_drawings_form_for_phones_is_found_by_its_content_however_its_lines_end():
    assert sphinx_narrow.narrow_name("<svg>\n a</svg>\n") == sphinx_narrow.narrow_name("<svg>\r\n a</svg>")
    assert sphinx_narrow.narrow_name("<svg>a</svg>") != sphinx_narrow.narrow_name("<svg>b</svg>")


def test_pages_take_the_forms_for_phones_out_of_a_chapters_outputs(tmp_path):
    two = {"image/svg+xml": ["<svg>\n", "wide</svg>"], NARROW_MIME: ["<svg>\n", "narrow</svg>"]}
    outputs = [[{"output_type": "display_data", "metadata": {}, "data": two}], [], [{"output_type": "stream"}]]
    name = sphinx_narrow.narrow_name("<svg>\nwide</svg>")
    assert pages.narrow_figures(outputs) == {name: b"<svg>\nnarrow</svg>"}
    path = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
    assert b"wide" in pages.with_outputs(path, outputs[:1])
    assert b"narrow" not in pages.with_outputs(path, outputs[:1])


def test_a_long_line_of_code_hangs_to_its_indent_and_is_copied_as_it_was():
    long = '    <span class="n">x</span> = &quot;' + "a" * 40 + "&quot;"
    body = f'<div class="highlight"><pre><span></span>short\n{long}\n</pre>'
    made = sphinx_narrow.hanging(body)
    assert made.count('class="long"') == 1
    assert '<span class="long" style="--in: 4ch"><span class="indent">    </span><span class="n">x' in made
    assert text(made) == text(body)


def test_the_scripts_walk_is_taken_once_and_a_second_build_leaves_the_script(tmp_path):
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"))
    path = tmp_path / "_static" / "scripts" / "pydata-sphinx-theme.js"
    path.parent.mkdir(parents=True)
    walk = ',"complete"===document.readyState?O():window.addEventListener("load",O)'
    path.write_text(f'find("main-content"){walk};', "utf8")
    for _ in range(2):
        sphinx_light.quiet_theme(app, None)
        assert path.read_text("utf8") == sphinx_light.QUIET + 'find("main-content");'
    path.write_text('another("main-content");', "utf8")
    with pytest.raises(ExtensionError, match="as sphinx_light knows it"):
        sphinx_light.quiet_theme(app, None)


def test_a_check_links_an_equation_of_another_chapter_where_it_stands():
    body = '<a href="#equation-eq-a">a</a><a href="#equation-eq-b">b</a><a href="#equation-eq-none">c</a>'
    equations = {"eq-a": ("chapters/01-a", 1), "eq-b": ("chapters/02-b", 2)}
    made = sphinx_light.lead(body, "chapters/01-a", equations, lambda here, there: f"{there.split('/')[1]}.html")
    assert re.findall('href="(.*?)"', made) == ["#equation-eq-a", "02-b.html#equation-eq-b", "#equation-eq-none"]
