"""Rules for what a chapter says: its opening and its end, its length, its detours, its exercises, its words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tools import reading
from tools.reading import Book, pieces, source, tags

MAX_WORDS = 3_500
MIN_EXERCISES, MIN_BUILD = 6, 2
DETOUR = re.compile(r"#{2,3} Detour: \S.* \(\d+ minutes?\)")
EXERCISE = re.compile(r"^ *(:{3,})\{exercise(?:-start)?\}([^\n]*)\n(.*?)^ *\1[ \t]*$", re.M | re.S)
KIND = re.compile(r"^\*\*(Derive|Code|Experiment|Build)\*\* · •{1,3} · \d+ minutes$", re.M)
MACROS = re.compile(r"\\(?:E|R|Normal|KL)(?![A-Za-z])")
HOUSE = re.compile(
    r"\b(laws?(?! of (?:large numbers|total|the iterated))|bells?|rungs?|guess(?:es|ed|ing)?|told|blind(?:ness|ly)?"
    r"|slips?|steps? back|(?:clean|predicted|true) starts?)\b",
    re.I,
)
STOCK = (
    *("it can be shown", "it can be seen", "after some algebra", "it is easy to", "easy to see", "left as an exercise"),
    *("left to the reader", "it is well known", "needless to say", "it is worth noting", "it is important to note"),
    *("it should be noted", "obviously", "trivially", "delve", "dive into", "deep dive", "in this section, we will"),
    *("state-of-the-art", "cutting-edge", "game-changing", "powerful framework", "in the realm of"),
    *("plays a crucial role",),
)


def numbered(name: str) -> bool:
    """Whether a notebook is a chapter proper, not an appendix."""
    return re.match(r"\d\d-", name) is not None


def markdown(book: Book) -> str:
    """All Markdown of a notebook."""
    return "\n".join(source(cell) for cell in book["cells"] if cell["cell_type"] == "markdown")


def opening(name: str, book: Book) -> list[str]:
    """Cell 1: a title and one sentence of promise; cell 2 sets up and shows the map; cell 3: whence, and how long."""
    first = source(book["cells"][0])
    if book["cells"][0]["cell_type"] != "markdown" or not first.startswith("# "):
        return ["cell 1 does not open with `# Title`"]
    if not numbered(name):
        return []
    if [cell["cell_type"] for cell in book["cells"][1:3]] != ["code", "markdown"]:
        return ["cell 2 must be the set-up cell, cell 3 the text that starts with **From**"]
    promise = " ".join(first.split("\n")[1:]).strip()
    sentences = len(re.findall(r"[.!?](?=\s|$)", promise))
    faults = [] if sentences == 1 else [f"cell 1 promises in {sentences} sentences; it must be one after the title"]
    second, third = book["cells"][1], source(book["cells"][2])
    faults += [] if {"setup", "hide-input"} <= tags(second) else ["cell 2 has not the tags setup and hide-input"]
    text = source(second).replace("'", '"')
    for line in ("notebook.setup()", f'verify.Ledger("{name}")'):
        faults += [] if line in text else [f"cell 2 has no {line}"]
    last = f'notebook.place("{name}")'
    faults += [] if text.rstrip().endswith(f"\n{last}") else [f"cell 2 does not end with the line {last}"]
    faults += [] if third.startswith("**From**") else ["cell 3 does not start with **From**"]
    hours = reading.hours(book)
    return faults + ([] if hours in third.split("\n") else [f"cell 3 must hold the line: {hours}"])


def ending(name: str, book: Book) -> list[str]:
    """It ends with a summary, further reading, and the question that is left open."""
    if not numbered(name):
        return []
    lines = [piece.text for piece in pieces(book) if piece.kind == "line"]
    places = {
        words: n for n, line in enumerate(lines) for words in ("## Summary", "## Further reading") if line == words
    }
    faults = [f"no section {words}" for words in ("## Summary", "## Further reading") if words not in places]
    after = [line for line in lines[places.get("## Further reading", 0) :] if line.startswith("**Next**")]
    return faults + (
        [] if len(after) == 1 else [f"{len(after)} paragraphs start with **Next** after further reading; one must"]
    )


def short_main_line(name: str, book: Book) -> list[str]:
    """Its main line reads in one sitting."""
    words = reading.count(book, "main").words
    return [f"the main line has {words:,} words; at most {MAX_WORDS:,}"] if numbered(name) and words > MAX_WORDS else []


def detoured(name: str, book: Book) -> list[str]:
    """A detour says how long it takes and belongs to a section of the main line."""
    faults, main, back = [], False, False
    for piece in pieces(book):
        mark = re.match(r"(#+) +(.*)", piece.text) if piece.kind == "line" else None
        if not mark:
            continue
        back |= piece.part in ("back", "exercise")
        if not mark[2].lower().startswith("detour"):
            main |= piece.part == "main" and len(mark[1]) == 2
            continue
        faults += [] if DETOUR.fullmatch(piece.text) else [f"{piece.text!r} must read `## Detour: Title (8 minutes)`"]
        if back or not main or piece.part != "detour":
            faults.append(f"{piece.text!r} stands under no section of the main line")
    return faults


def exercised(name: str, book: Book) -> list[str]:
    """Its exercises have a title, a label, a kind, a level, minutes, a hint and a gated solution."""
    text = markdown(book)
    faults, kinds, labels = [], [], []
    for _, title, body in EXERCISE.findall(text):
        label = re.search(r"^ *:label: (ex-[a-z0-9-]+)$", body, re.M)
        called = label[1] if label else title.strip() or "an exercise"
        labels.append(called)
        kinds += KIND.findall(body)
        faults += [] if label else [f"{called} has no `:label: ex-...`"]
        faults += [] if title.strip() else [f"{called} has no title"]
        faults += [] if KIND.search(body) else [f"{called} has no line like `**Derive** · •• · 25 minutes`"]
        faults += (
            []
            if re.search(r"^ *:{3,}\{dropdown\} Hint *$", body, re.M)
            else [f"{called} has no `:::{{dropdown}} Hint`"]
        )
    asked = len(re.findall(r"^ *:{3,}\{exercise(?:-start)?\}", text, re.M))
    faults += [] if asked == len(labels) else ["an exercise is not closed by as many colons as open it"]
    solved = re.findall(r"^ *:{3,}\{solution-start\} (\S+)", text, re.M)
    faults += [f"no gated solution of {label}" for label in labels if label not in solved]
    faults += [f"a solution of {label}, which is not asked" for label in solved if label not in labels]
    if numbered(name):
        faults += [] if asked >= MIN_EXERCISES else [f"{asked} exercises; at least {MIN_EXERCISES}"]
        build = kinds.count("Build")
        faults += [] if build >= MIN_BUILD else [f"{build} exercises of the kind Build; at least {MIN_BUILD}"]
    return faults


def gated(name: str, book: Book) -> list[str]:
    """Every solution opens and closes."""
    text = markdown(book)
    gates = re.findall(r"^ *:{3,}\{solution-(start|end)\}", text, re.M)
    faults = (
        [] if gates == ["start", "end"] * (len(gates) // 2) else ["solution-start and solution-end do not alternate"]
    )
    plain = re.findall(r"^ *:{3,}\{solution\} *(\S*)", text, re.M)
    return faults + [f"the solution {label} is not gated by solution-start and solution-end" for label in plain]


def prose(book: Book) -> Iterator[str]:
    """Lines of running text: no code, no displayed equations, no directives."""
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            text = re.sub(r"^\$\$.*?^\$\$[^\n]*|^(```+).*?^\1", "", source(cell), flags=re.M | re.S)
            yield from (line.strip() for line in text.split("\n") if line.strip() and not line.lstrip().startswith(":"))


def written(name: str, book: Book) -> list[str]:
    """Its prose has no stock phrases, no dashes for commas, and no brackets around what has brackets."""
    text = "\n".join(prose(book))
    faults = [f"the stock phrase {phrase!r}" for phrase in STOCK if re.search(rf"\b{phrase}", text, re.I)]
    faults += [f"double brackets in: {line}" for line in prose(book) if "({eq}`" in line]
    return faults + [f"a dash in: {line}" for line in prose(book) if "\u2014" in line]


def field_words(name: str, book: Book) -> list[str]:
    """Its main line speaks as the field does."""
    found: dict[int, list[str]] = {}
    for piece in pieces(book) if numbered(name) else ():
        if piece.part == "main" and piece.kind == "line":
            plain = re.sub(r"\{\w+\}`[^`]*`|`[^`]*`|\]\([^)]*\)|\$[^$]+\$", " ", piece.text)
            found.setdefault(piece.cell, []).extend(word.lower() for word in HOUSE.findall(plain))
    return [f"cell {n} has house words: {', '.join(sorted(set(words)))}" for n, words in found.items() if words]


def plain_formulas(name: str, book: Book) -> list[str]:
    r"""Its formulas use no macro that only the pages know: \mathbb{E} for \E."""
    faults = []
    for n, cell in enumerate(book["cells"], 1):
        caption = cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption", "")
        text = caption if cell["cell_type"] == "code" else source(cell)
        faults += [
            f"cell {n}: the macro {macro}, which only the pages know" for macro in sorted(set(MACROS.findall(text)))
        ]
    return faults


def repeated(books: dict[str, Book]) -> list[str]:
    """Long lines of prose that stand in the book twice."""
    hours = {name: reading.hours(book) for name, book in books.items()}
    lines = [
        (line.lower(), name)
        for name, book in books.items()
        for line in prose(book)
        if len(line) >= 60 and line != hours[name]
    ]
    count = Counter(line for line, _ in lines)
    return [f"{name}: stands in the book twice: {line}" for line, name in lines if count[line] > 1]


RULES = (
    *(opening, ending, short_main_line, detoured, exercised, gated),
    *(written, field_words, plain_formulas),
)
