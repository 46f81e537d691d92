"""Rules for what a chapter runs: cells that fit, figures with words, checks that print, helpers that travel."""

from __future__ import annotations

import ast
import builtins
import csv
import re
from pathlib import Path
from typing import Any

from tools.reading import Book, pieces, source, tags
from tools.rules_text import numbered

Cell = dict[str, Any]
DEFINITIONS = Path(__file__).resolve().parent.parent / "chapters" / "definitions.csv"
LABEL = re.compile(r"eq-[a-z0-9]+(-[a-z0-9]+)*")
MAX_COLUMNS = 75
MAX_LINES = {"program": 45, "check": 30, "hide-input": 30, "hide-cell": 30, "remove-input": 30, "colab-setup": 30}
MAX_VISIBLE = 15
CEILINGS = {r"\[\|diff\| <= (\S+)\]": 1e-6, r"\[lower <= upper \+ (\S+)\]": 1e-6, r"\[\|z\| <= (\S+), N": 4.5}
MOVES = ("widgets.explore", "live.compute")
MOVING = range(1, 4)
FACTORIES = {
    *("arange", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint", "randn", "randperm"),
    *("tensor", "zeros"),
}
TENSOR_NAMES = re.compile(r"(x|z|eps|epsilon|noise|noises|images|data|batch|points|draws)(_\w{1,5})?|network|model|net")
TENSOR_PARTS = {
    "shape",
    "device",
    "dtype",
    "numel",
    "flatten",
    "new_zeros",
    "new_ones",
    "double",
    "expand",
    "unsqueeze",
}


def code(book: Book) -> list[tuple[int, Cell]]:
    """The code cells with their places, from 1, all cells counted."""
    return [(n, cell) for n, cell in enumerate(book["cells"], 1) if cell["cell_type"] == "code"]


def calls(cell: Cell) -> list[ast.Call]:
    """The calls of a cell, except those inside the functions that it defines."""
    found: list[ast.Call] = []
    waiting: list[ast.AST] = [ast.parse(source(cell))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call):
            found.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return found


def called(call: ast.Call) -> str:
    """The name by which a function is called."""
    return ast.unparse(call.func)


def short_code(name: str, book: Book) -> list[str]:
    """Its cells fit the page: 75 columns; 15 lines where they show, 30 where they are folded, 45 for a program."""
    faults = []
    for n, cell in code(book):
        lines = [line for line in source(cell).split("\n") if line.strip()]
        limit = max([MAX_VISIBLE, *(MAX_LINES.get(tag, 0) for tag in tags(cell))])
        faults += [f"cell {n} has {len(lines)} lines; at most {limit}"] if len(lines) > limit else []
        faults += [f"cell {n}: more than 75 columns: {line}" for line in lines if len(line) > MAX_COLUMNS]
    return faults


def plain_code(name: str, book: Book) -> list[str]:
    """Its code is Python that runs anywhere: no magics, no shell, no paths of one machine."""
    faults = []
    for n, cell in code(book):
        if "colab-setup" not in tags(cell) and re.search(r"^\s*[!%]", source(cell), re.M):
            faults.append(f"cell {n} has a magic")
    for n, cell in enumerate(book["cells"], 1):
        paths = re.findall(r"(?<![\w.])/(?:content|home|mnt|root|tmp|Users|usr|var)/\S*", source(cell))
        faults += [f"cell {n}: a path of one machine: {path}" for path in paths]
    return faults


def introduced(name: str, book: Book) -> list[str]:
    """A text before each code cell says what to look for; only checks, which are folded, follow code."""
    faults = []
    for n, (before, cell) in enumerate(zip(book["cells"], book["cells"][1:]), 2):
        free = "check" in tags(cell) or "colab-setup" in tags(before)
        if cell["cell_type"] == before["cell_type"] == "code" and not free:
            faults.append(f"cell {n} is code right after code")
    return faults


def described(name: str, book: Book) -> list[str]:
    """Every figure has words that say what it shows; one that moves has a name and a caption."""
    faults = []
    for n, cell in code(book):
        draws = any(re.match(r"(plt|plotting)\.(?!close)", called(call)) for call in calls(cell))
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        if draws and len(alt) <= 10:
            faults.append(f"cell {n} draws a figure without alt text")
        explored = [call for call in calls(cell) if called(call) in MOVES]
        if "mystnb" in cell["metadata"] and not alt and not explored:
            faults.append(f"cell {n} has a figure's metadata without alt text")
        if explored and cell["metadata"].get("mystnb", {}).get("figure", {}).keys() != {"name", "caption"}:
            faults.append(f"cell {n} moves a figure without the name and caption of its figure")
        if any("alt" not in [word.arg for word in call.keywords] for call in explored):
            faults.append(f"cell {n} moves a figure without alt text")
    return faults


def checked(name: str, book: Book) -> list[str]:
    """Its checks print passes and nothing else, the passes are stored, and one check must fail."""
    faults = []
    for n, cell in code(book):
        asks = [call for call in calls(cell) if re.match(r"ledger\.(close|bound|monte_carlo|must_fail)$", called(call))]
        if bool(asks) != ("check" in tags(cell)):
            faults.append(f"cell {n} runs checks but has no tag `check`, or has the tag but runs none")
        if "check" in tags(cell):
            lines = "".join(text for out in cell["outputs"] for text in out["text"]).splitlines()
            faults += [] if lines else [f"check cell {n} stores no output: record the chapter"]
            faults += [f"check cell {n} prints {line!r}" for line in lines if not re.match(r"PASS eq-\S+  .*\]$", line)]
        for word in (word for call in asks for word in call.keywords if word.arg == "claim"):
            if re.match(r"f?\W*(exercise|self-test)", ast.unparse(word.value), re.I):
                faults.append(f"cell {n}: a claim tells an exercise's answer: {ast.unparse(word.value)}")
    if numbered(name):
        every = "".join(source(cell) for _, cell in code(book))
        faults += [] if "ledger.must_fail(" in every else ["nothing must fail"]
        faults += (
            [] if "ledger.report()" in source(code(book)[-1][1]) else ["the last code cell is not ledger.report()"]
        )
    return faults


def narrow(name: str, book: Book) -> list[str]:
    """A tolerance above the ceiling of its route has a reason beside it: a comment that begins with `wide:`."""
    faults = []
    for n, cell in code(book):
        said = "".join(text for out in cell["outputs"] for text in out.get("text", ()))
        found = [(float(bound), most) for rule, most in CEILINGS.items() for bound in re.findall(rule, said)]
        wide = any(bound > most for bound, most in found)
        if wide != bool(re.search(r"# wide: \w", source(cell))):
            faults.append(
                f"cell {n} has a {'wide tolerance without a reason' if wide else 'reason for none'} (# wide:)"
            )
    return faults


def calm(name: str, book: Book) -> list[str]:
    """No cell may raise: a page would be built with its traceback. An error that is the point is caught and printed."""
    return [f"cell {n} is tagged raises-exception" for n, cell in code(book) if "raises-exception" in tags(cell)]


def anchored(name: str, book: Book) -> list[str]:
    """Each numbered equation has a check that ran here, or is a definition."""
    with DEFINITIONS.open(encoding="utf8") as file:
        defined = {row["label"] for row in csv.DictReader(file)}
    text = "\n".join(source(cell) for cell in book["cells"] if cell["cell_type"] == "markdown")
    labels = re.findall(r"^\$\$ *\((eq-[\w-]+)\)", text, re.M)
    said = "".join(line for _, cell in code(book) for out in cell["outputs"] for line in out["text"])
    ran = set(re.findall(r"^PASS (\S+)  .*\[(?!must fail\])", said, re.M))
    odd = [
        f"the label {label} must be of letters a-z, digits and hyphens"
        for label in labels
        if not LABEL.fullmatch(label)
    ]
    return odd + [
        f"{label} has neither a check in this chapter nor a row in chapters/definitions.csv"
        for label in labels
        if label not in ran | defined
    ]


def moving(name: str, book: Book) -> list[str]:
    """A chapter has one to three figures that move."""
    count = sum(called(call) in MOVES for _, cell in code(book) for call in calls(cell))
    return [f"{count} moving figures; one to three"] if numbered(name) and count not in MOVING else []


def names(text: str) -> tuple[set[str], set[str]]:
    """The names that a piece of Python makes, and those that it reads."""
    made, read = set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            made.add(node.name)
    return made, read


def solved(name: str, book: Book) -> list[str]:
    """A solution's code runs by itself after the set-up cell, and leaves nothing in the ledger."""
    faults, ready, made = [], set(dir(builtins)), set()
    for _, cell in code(book):
        if "setup" in tags(cell):
            ready |= names(source(cell))[0]
    for piece in pieces(book):
        if piece.part == "solution" and piece.kind == "code":
            cell = book["cells"][piece.cell - 1]
            if "check" in tags(cell) or "ledger." in piece.text:
                faults.append(f"cell {piece.cell}: a solution calls the ledger")
            new, read = names(piece.text)
            made |= new
            if missing := sorted(read - made - ready):
                faults.append(
                    f"cell {piece.cell}: a solution uses what neither it nor the set-up defines: {', '.join(missing)}"
                )
        elif piece.part != "solution":
            made = set()
    return faults


def takes_tensor(function: ast.FunctionDef) -> bool:
    """Whether an argument is a tensor or a network, by its annotation, its name, or what the body asks of it.

    What draws on matplotlib's axes does so on the CPU.
    """
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    if any(argument.arg in ("ax", "axes") for argument in arguments):
        return False
    asked = {
        node.value.id
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in TENSOR_PARTS and isinstance(node.value, ast.Name)
    }
    for argument in arguments:
        note = ast.unparse(argument.annotation) if argument.annotation else ""
        if note in ("int", "float", "str", "bool"):
            continue
        if "Tensor" in note or argument.arg in asked or TENSOR_NAMES.fullmatch(argument.arg):
            return True
    return False


def portable(name: str, book: Book) -> list[str]:
    """A helper that is given tensors makes new ones on their device."""
    faults = []
    for n, cell in code(book):
        for function in ast.walk(ast.parse(source(cell))):
            if isinstance(function, ast.FunctionDef):
                faults += [f"cell {n}: {function.name}: {fault} without device=" for fault in stray(function)]
    return faults


def stray(function: ast.FunctionDef) -> list[str]:
    """Tensors that a function makes on no named device, though an argument has one; a constant fits any device."""
    found = []
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call) and takes_tensor(function)):
        module, _, factory = called(call).rpartition(".")
        words = {word.arg for word in call.keywords}
        constant = factory == "tensor" and isinstance(call.args[0], ast.Constant)
        if module == "torch" and factory in FACTORIES and not words & {"device", None} and not constant:
            found.append(called(call))
    return found


RULES = (short_code, plain_code, introduced, described, checked, narrow, calm, anchored, moving, solved, portable)
