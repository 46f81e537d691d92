"""The appendices that are made, not written: notation, ledger and benchmarks."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from benchmarks import page as benchmark_page
from dmlib.book import live
from tools import vectors
from tools.tables import rows

LEDGER_MIME = "application/vnd.dmlib.ledger+json"


def table(root: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table in chapters/."""
    with (root / "chapters" / f"{name}.csv").open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def cell(text: str) -> str:
    """Text that cannot break out of a table cell."""
    return text.replace("\\mid", r"\,\vert\,").replace("|", r"\vert ").replace("\n", " ").strip() or " "


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~^])", r"\\\1", text)


def code(text: str) -> str:
    """Text as code, or nothing; a table splits at a bar even within code."""
    return "`" + text.replace("|", r"\|") + "`" if text else " "


def ledgers(kept: dict[str, dict]) -> dict[str, list[dict[str, str]]]:
    """The checks that ran, by chapter: what each ledger's report left in the executed notebook."""
    found = {}
    for chapter, record in kept.items():
        for outputs in record["outputs"]:
            for output in outputs:
                if LEDGER_MIME in output.get("data", {}):
                    found[chapter] = output["data"][LEDGER_MIME]["checks"]
    return found


def chapter(root: Path, name: str) -> str:
    """A link to a chapter, or its number where it is not yet written."""
    number = name.split("-")[0].lstrip("0")
    found = next((root / "chapters").glob(f"{name}.*"), None)
    return f"[{number}]({found.name})" if found else cell(number)


def notation(root: Path) -> str:
    """The notation page: one symbol, one identifier."""
    body = [
        [
            f"${cell(r['symbol'])}$",
            code(r["identifier"]),
            cell(r["shape"]),
            cell(r["meaning"]),
            chapter(root, r["first"]),
        ]
        for r in table(root, "notation")
    ]
    intro = (
        "# Notation\n\nOne symbol, one identifier, in the whole book. Shapes: B batch, D data, K latent, T steps.\n\n"
    )
    return intro + rows(["symbol", "identifier", "shape", "meaning", "first in"], body)


def reference(label: str, known: set[str]) -> str:
    """A link to an equation, or its bare label where no chapter defines it yet."""
    return f"{{eq}}`{label}`" if label in known else code(label)


def checks(found: dict[str, list[dict[str, str]]]) -> str:
    """One table a chapter: equation, claim, route, bound."""
    parts = []
    for chapter, done in found.items():
        body = [
            [f"{{eq}}`{c['label']}`", plain(c["claim"]), c["route"].replace("_", " "), code(c["bound"])] for c in done
        ]
        parts.append(f"### {chapter}\n\n{rows(['equation', 'claim', 'route', 'bound'], body)}")
    return "\n".join(parts)


def in_the_page() -> str:
    """What the arithmetic of the figures that compute is held against."""
    files = "|".join(path.stem for path in (live.LIVE / "math").glob("*.js"))
    body = []
    for case in vectors.cases():
        names = sorted(set(re.findall(rf"\b(?:{files})\.\w+", case.call)))
        body.append([f"{{eq}}`{case.label}`", plain(case.claim), code(", ".join(names)), code(f"<= {case.atol:.0e}")])
    return rows(["equation", "claim", "in the page", "bound"], body)


def coverage(root: Path, known: set[str]) -> str:
    """Every row of the inventory: where it is carried and what was made of it."""
    body = [
        [r["id"], remark(r), cell(r["chapter"]), reference(r["label"], known), r["status"]]
        for r in table(root, "coverage")
    ]
    return rows(["row", "statement, and what is to be said of it", "chapter", "equation", "status"], body)


def remark(row: dict[str, str]) -> str:
    """The statement of a row, and under it the correction or note."""
    title = "Correction" if row["status"] == "corrected" else "Note"
    note = f"<br>**{title}:** {cell(row['note'])}" if row["note"] else ""
    return cell(row["statement"]) + note


def ledger(root: Path, kept: dict[str, dict]) -> str:
    """The ledger page: the checks that ran, the definitions, and the coverage of the sources."""
    found = ledgers(kept)
    definitions = table(root, "definitions")
    known = {d["label"] for d in definitions} | {c["label"] for done in found.values() for c in done}
    defined = rows(["equation", "defines"], [[f"{{eq}}`{d['label']}`", cell(d["defines"])] for d in definitions])
    total = sum(len(done) for done in found.values())
    return f"""# Ledger

This page is made from the executed chapters. Every numbered equation is either a definition or stands behind at
least one check that ran. {total} checks ran for this edition.

## Checks

{checks(found)}
### Figures that compute

These run in a browser with every edition: the functions behind a figure that computes in the page give what `dmlib`
gives in float64, relative to the size of the value, and each one-character error put into them (a sign, an index, a
comparison, a number) is noticed. Networks are compared with the same weights, rounded to half precision.

{in_the_page()}
## Definitions

{defined}
## Coverage of the sources

The book grew from five documents: an excerpt of a tutorial on diffusion models, two sets of notes, a project
report and a lecture. Each row is one equation, claim, concept or picture of theirs, or (rows E) one slip found in
them. *Later* marks what a chapter not yet written will carry.

{coverage(root, known)}"""


def made(root: Path, kept: dict[str, dict]) -> dict[str, str]:
    """The appendices by page name."""
    return {"notation": notation(root), "ledger": ledger(root, kept), "benchmarks": benchmark_page.page(root)}
