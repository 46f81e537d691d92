"""The arithmetic of figures that compute: held against dmlib, in a browser, and seen to fail where it is changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dmlib.book import live
from tools import vectors

MATH = sorted(path.stem for path in (live.LIVE / "math").glob("*.js"))
JUDGE = Path(__file__).with_name("judge.js").read_text("utf8")
SECONDS = 5  # after which a changed file is taken to loop
RUN = """async ([judge, jobs, seconds]) => {
  const address = "data:text/javascript," + encodeURIComponent(judge), verdicts = [];
  for (const job of jobs) {
    const worker = new Worker(address);
    verdicts.push(await new Promise((done) => {
      const late = setTimeout(() => done("no end"), 1000 * seconds);
      worker.onmessage = ({ data }) => { clearTimeout(late); done(data); };
      worker.postMessage(job);
    }));
    worker.terminate();
  }
  return verdicts;
}"""
# One change each: what to find, and what to put in its place.
CHANGES = [
    *((rf"(?<= ){re.escape(a)}(?= )", b) for a, b in (("+", "-"), ("-", "+"), ("*", "/"), ("/", "*"), ("**", "*"))),
    *((rf"(?<= ){re.escape(a)}(?= )", b) for a, b in (("<", "<="), ("<=", "<"), (">", ">="), (">=", ">"))),
    *((rf"(?<= ){re.escape(a)}(?= )", b) for a, b in (("&&", "||"), ("||", "&&"), ("===", "!=="), ("+=", "-="))),
    *((rf"Math\.{a}\b", f"Math.{b}") for a, b in (("sin", "cos"), ("cos", "sin"), ("min", "max"), ("max", "min"))),
    *((rf"Math\.{a}\b", f"Math.{b}") for a, b in (("sqrt", "cbrt"), ("exp", "expm1"), ("log", "log1p"))),
    (r"(?<=[\[(=?:] )-(?=[\w(])|(?<=[\[(])-(?=[\w(])", ""),
    (r"(?<![\w.])\d+(?![\w.])", lambda match: str(int(match[0]) + 1)),
    (r"(?<![\w.])\d+\.\d+", lambda match: str(float(match[0]) + 1)),
]
# Changes that change nothing that can be seen: (file, the line they stand in, what is put there).
PAST = "what is written past the end of a row is set anew, or is past the end of the array, which ignores it"
SAME: dict[tuple[str, str], str] = {
    ("unet", "for (let i = 0; i <= n; i++)"): PAST,
    ("unet", "for (let first = 0; first <= x.length; first += side ** 2)"): PAST,
}


def plain(value):
    """A value as JSON has it; networks as float64 rows of their half-precision weights, by name."""
    if isinstance(value, torch.nn.Module):
        return {name: plain(t.detach().half().double().flatten()) for name, t in value.state_dict().items()}
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def numbers(value) -> list[float]:
    """All numbers of an expected value, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    return [x for part in value for x in numbers(part)] if isinstance(value, list) else [float(value)]


def job(sources: dict[str, str], cases: list[vectors.Case]) -> dict:
    """What the judge is given: the files as one script, and the cases."""
    parts, done = [], []
    for name in MATH:
        if name not in done:
            parts += live._parts(f"math/{name}", done, sources)
    return {"source": "\n".join(parts), "names": MATH, "cases": [given(case) for case in cases]}


def given(case: vectors.Case) -> dict:
    expected = numbers(plain(case.expected))
    return {"call": case.call, "values": plain(case.values), "expected": expected, "atol": case.atol}


def mutants(source: str) -> Iterator[tuple[int, str]]:
    """Each changed source, with the number of its line; comments stay."""
    lines = source.split("\n")
    for n, line in enumerate(lines):
        code = line.split("//")[0]
        if code.startswith("import"):
            continue
        for pattern, change in CHANGES:
            for match in re.finditer(pattern, code):
                new = change(match) if callable(change) else change
                yield n, "\n".join([*lines[:n], code[: match.start()] + new + code[match.end() :], *lines[n + 1 :]])


@pytest.fixture(scope="module")
def judged(browser):
    """Verdicts of jobs: None where every case holds."""
    page = browser.new_page()
    yield lambda jobs: page.evaluate(RUN, [JUDGE, jobs, SECONDS])
    page.close()


@pytest.fixture(scope="module")
def cases() -> list[vectors.Case]:
    return vectors.cases()


def test_the_page_computes_what_the_library_does(judged, cases):
    faults = [verdict for verdict in judged([job({}, [case]) for case in cases]) if verdict]
    assert faults == []


@pytest.mark.parametrize("name", MATH)
def test_a_changed_formula_fails(judged, cases, name):
    source = (live.LIVE / "math" / f"{name}.js").read_text("utf8")
    changed = list(mutants(source))
    mine = [case for case in cases if re.search(rf"\b{name}\.", case.call) and not case.once]
    assert mine
    jobs = [job({f"math/{name}": text}, mine) for _, text in changed]
    survived = []
    for (n, text), verdict in zip(changed, judged(jobs)):
        new = text.split("\n")[n].strip()
        if verdict is None and (name, new) not in SAME:
            survived.append(f"{name}.js:{n + 1}: {new}")
    assert not survived, "\n".join(survived)


def test_what_is_said_to_change_nothing_stands_in_the_files():
    for name, new in SAME:
        source = (live.LIVE / "math" / f"{name}.js").read_text("utf8")
        assert new in {text.split("\n")[n].strip() for n, text in mutants(source)}
