"""Whether KaTeX, which VS Code uses, reads every formula: python -m tools.formulas chapters/NN-name.ipynb ...

Collected from notebooks (texts and captions of figures), Markdown pages and the tables beside them; read by the
KaTeX in tests/vendor, in a headless Chromium; without one, the command says so and finds nothing.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tools import execute, reading

KATEX = execute.ROOT / "tests" / "vendor" / "katex" / "katex.min.js"
CODE = re.compile(r"^ *(```+|~~~+).*?^ *\1[ \t]*$|(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)", re.M | re.S)
DISPLAY = re.compile(r"(?<!\\)\$\$(.+?)(?<!\\)\$\$", re.S)
ALIGNED = re.compile(r"^(\\begin\{(align|equation|gather)(\*?)\}.*?\\end\{\2\3\})", re.M | re.S)
INLINE = re.compile(r"(?<![\\$])\$(?![\s$])((?:[^$\\]|\\.)+?)(?<![\s\\])\$(?!\d)", re.S)
SYMBOLS = {"notation": "symbol"}  # columns that hold bare formulas
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
READ = """formulas => formulas.map(([tex, display]) => {
  try { katex.renderToString(tex, {displayMode: display, throwOnError: true, strict: "ignore"}); return null }
  catch (error) { return error.message }
})"""


class Formula(NamedTuple):
    """A formula, where it stands, and whether it is displayed."""

    place: str
    tex: str
    display: bool


def in_text(text: str, place: str) -> list[Formula]:
    """The formulas of a piece of Markdown, displayed ones first."""
    text = CODE.sub(" ", text)
    found = [Formula(place, tex.strip(), True) for tex in DISPLAY.findall(text)]
    text = DISPLAY.sub(" ", text)
    found += [Formula(place, match[0], True) for match in ALIGNED.findall(text)]
    return found + [Formula(place, tex, False) for tex in INLINE.findall(ALIGNED.sub(" ", text))]


def in_file(path: Path) -> list[Formula]:
    """The formulas of a notebook, a Markdown page or a table."""
    text = path.read_text("utf8")
    if path.suffix == ".csv":
        found = []
        for n, row in enumerate(csv.DictReader(text.splitlines()), 2):
            place = f"{path.name}, line {n}"
            bare = SYMBOLS.get(path.stem)
            found += [Formula(place, row[bare], False)] if bare else []
            found += [formula for key in row if key != bare for formula in in_text(row[key] or "", place)]
        return found
    if path.suffix != ".ipynb":
        return in_text(text, path.stem)
    found = []
    for n, cell in enumerate(json.loads(text)["cells"], 1):
        caption = cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption", "")
        text = reading.source(cell) if cell["cell_type"] == "markdown" else caption
        found += in_text(text, f"{path.stem}, cell {n}")
    return found


def faults(formulas: list[Formula], browser: Any) -> list[str]:
    """What KaTeX cannot read, one line a formula, by a page of this browser."""
    page = browser.new_page()
    page.add_script_tag(path=KATEX)
    answers = page.evaluate(READ, [[formula.tex, formula.display] for formula in formulas])
    page.close()
    return [
        f"{formula.place}: {' '.join(formula.tex.split())}: {answer.splitlines()[0]}"
        for formula, answer in zip(formulas, answers, strict=True)
        if answer
    ]


def find_browser() -> str | None:
    """The first Chromium or Chrome on the PATH."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def main(paths: list[str]) -> int:
    """Print what KaTeX cannot read in these files; return the exit status."""
    program = find_browser()
    if not paths or program is None:
        print(__doc__ if not paths else "no Chromium was found: the formulas were not read", file=sys.stderr)
        return 0 if paths else 2
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        found = faults([formula for path in paths for formula in in_file(Path(path))], browser)
        browser.close()
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
