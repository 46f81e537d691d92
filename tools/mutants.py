"""Seed an error in every formula and see which checks notice: python -m tools.mutants [MODULE ...]

Every operator, number and function of the rooms below is changed, one at a time. This process has the libraries
loaded and forks a child for each mutant: the child imports dmlib with that one change and runs the module's own
tests, in the machinery those of its room too. A survivor in the mathematics meets the chapters that use the module.
The record, with the share noticed in each room and the survivors by name, is tests/mutants.md; where modules are
named, it keeps its lines of the others.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tools import execute

MATHEMATICS = ("probability", "latent", "diffusion")  # Judged by chapters too.
MACHINERY = ("metrics", "networks", "data", "learning", "experiments")  # Judged by all tests of the room.
JUDGED = (*MATHEMATICS, *MACHINERY, "book/verify.py")
RECORD = execute.ROOT / "tests" / "mutants.md"
SECONDS = {"tests": 300, "chapters": 300}
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr,
}  # fmt: skip
NAMES = {
    "log": "exp", "exp": "expm1", "log1p": "log", "expm1": "exp", "sqrt": "square", "square": "sqrt", "sum": "mean",
    "mean": "sum", "cumprod": "cumsum", "logsumexp": "amax", "softmax": "log_softmax", "log_softmax": "softmax",
    "sigmoid": "tanh", "softplus": "relu", "logsigmoid": "sigmoid", "tanh": "sigmoid", "ones_like": "zeros_like",
    "zeros_like": "ones_like", "ones": "zeros", "zeros": "ones", "lgamma": "digamma", "log_ndtr": "ndtr",
    "ndtr": "sigmoid", "diff": "neg", "cos": "sin", "max": "min", "maximum": "minimum",
}  # fmt: skip


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, Callable[[ast.AST], None], str]]:
    """Each thing that can be changed: the node, what changes a copy of it, and in words what that does."""
    for node in computed(tree):
        op = getattr(node, "op", None) or (node.ops[0] if isinstance(node, ast.Compare) else None)
        if isinstance(node, ast.UnaryOp) and isinstance(op, ast.USub | ast.Not):
            yield (
                node,
                lambda n: setattr(n, "op", ast.UAdd() if isinstance(n.op, ast.USub) else ast.Not()),
                "sign dropped",
            )
        elif type(op) in OPERATORS:
            new = OPERATORS[type(op)]
            words = f"{type(op).__name__} becomes {new.__name__}"
            if isinstance(node, ast.Compare):
                yield node, lambda n, new=new: n.ops.__setitem__(0, new()), words
            else:
                yield node, lambda n, new=new: setattr(n, "op", new()), words
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield node, lambda n: setattr(n, "value", n.value + 1), f"{node.value} becomes {node.value + 1}"
        elif isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node, lambda n: setattr(n, "attr", NAMES[n.attr]), f"{node.attr} becomes {NAMES[node.attr]}"
        elif isinstance(node, ast.Call) and len(node.args) == 2 and not called(node).startswith("require"):
            if all(isinstance(a, ast.Name | ast.Attribute) for a in node.args):
                yield node, lambda n: n.args.reverse(), f"arguments of {called(node)} swapped"


def computed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it but checks and what is raised."""
    asks = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "require" in called(node.value)
    if not asks and not isinstance(node, ast.Raise):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from computed(child)


def called(node: ast.Call) -> str:
    """The last part of the name of the function that is called."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def formulas(tree: ast.Module) -> Iterator[ast.AST]:
    """The parts of a module that compute: function bodies without annotations, messages and checks."""
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        for statement in function.body:
            said = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant | ast.Call)
            checks = said and (isinstance(statement.value, ast.Constant) or "require" in called(statement.value))
            if not checks and not isinstance(statement, ast.FunctionDef | ast.Raise):
                yield statement


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """(line, what changed, mutated source) for each single change of a module."""
    tree = ast.parse(source)
    for statement in formulas(tree):
        for node, change, words in places(statement):
            saved = copy.copy(node)
            ops = list(node.ops) if isinstance(node, ast.Compare) else None
            args = list(node.args) if isinstance(node, ast.Call) else None
            change(node)
            mutated = ast.unparse(tree)
            node.__dict__.update(saved.__dict__)
            if ops is not None:
                node.ops = ops
            if args is not None:
                node.args = args
            if mutated != ast.unparse(tree):
                yield node.lineno, words, mutated


class Changed(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from changed source."""

    def __init__(self, name: str, path: Path, source: str):
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname, path=None, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def get_filename(self, fullname):
        return str(self.path)

    def get_data(self, path):
        return self.source.encode()


def run_tests(path: Path) -> bool:
    """Whether the module's own tests pass, in this process."""
    import pytest

    room = execute.ROOT / "tests" / path.parent.name
    tests = sorted(room.glob(f"test_{path.stem}*.py"))
    if not tests or path.parent.name in MACHINERY:
        tests += sorted(set(room.glob("test_*.py")) - set(tests), key=lambda file: file.stat().st_size)
    quiet = ["-p", "no:cacheprovider", "-p", "no:nbval", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return pytest.main(["-x", "-q", "-m", "not apart", *quiet, *map(str, tests)]) == 0


def run_chapters(path: Path) -> bool:
    """Whether every chapter that uses the module runs through with its checks, in this process."""
    os.chdir(execute.ROOT / "chapters")
    for chapter in reversed(execute.notebooks()):  # the quickest come last in the book
        cells = execute.code(chapter)
        if path in execute.reached("\n".join(cells), execute.ROOT):
            exec(compile("\n".join(cells), str(chapter), "exec"), {"display": lambda *a: None, "__name__": "chapter"})
    return True


def survives(path: Path, source: str, run: Callable[[Path], bool], seconds: int) -> bool:
    """Fork, import dmlib with the changed module, run; an error or too long a run is a kill."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException), open(os.devnull, "w") as silent:
            os.dup2(silent.fileno(), 1)
            os.dup2(silent.fileno(), 2)
            signal.alarm(seconds)
            name = ".".join(path.relative_to(execute.ROOT).with_suffix("").parts)
            sys.meta_path.insert(0, Changed(name, path, source))
            code = 0 if run(path) else 1
        os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def judge(job: tuple[Path, int, str, str]) -> tuple[Path, int, str, str]:
    """What became of one mutant: killed by tests, killed by a chapter, or survived."""
    path, line, words, source = job
    if not survives(path, source, run_tests, SECONDS["tests"]):
        return path, line, words, "tests"
    if path.parent.name not in MATHEMATICS:
        return path, line, words, "survived"
    alive = survives(path, source, run_chapters, SECONDS["chapters"])
    return path, line, words, "survived" if alive else "chapters"


def baseline(paths: list[Path]) -> None:
    """Stop unless every module passes unchanged: else nothing could be learned from its mutants."""
    for path in paths:
        if not survives(path, path.read_text("utf8"), run_tests, SECONDS["tests"]):
            raise SystemExit(f"{path.name} fails its own tests unchanged")
    first = next((path for path in paths if path.parent.name in MATHEMATICS), None)
    if first and not survives(first, first.read_text("utf8"), run_chapters, SECONDS["chapters"]):
        raise SystemExit(f"a chapter that uses {first.name} fails unchanged")


def warm_up() -> None:
    """Load what the children need, but nothing of dmlib and no thread pool."""
    import hypothesis  # noqa: F401
    import matplotlib.pyplot as plt
    import nbformat  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch
    import torch._dynamo

    plt.switch_backend("agg")
    torch.set_num_threads(1)


def record(done: list[tuple[Path, int, str, str]], seconds: float, earlier: str = "") -> str:
    """The record as Markdown: a row a module, then the survivors by name; what `earlier` says of others is kept."""
    named = [(path.relative_to(execute.ROOT).as_posix(), line, words, fate) for path, line, words, fate in done]
    count, judged = Counter((name, fate) for name, *_, fate in named), {name for name, *_ in named}
    rows = [f"| {n} | {count[n, 'tests']} | {count[n, 'chapters']} | {count[n, 'survived']} |" for n in judged]
    left = [f"- `{name}:{line}` {words}" for name, line, words, fate in named if fate == "survived"]
    kept = [line for line in earlier.splitlines() if "dmlib/" in line and not any(name in line for name in judged)]
    rows = sorted(rows + [line for line in kept if line.startswith("|")])
    left = [line for line in kept if line.startswith("-")] + left
    fates = {row.split("|")[1].strip(): [int(n) for n in row.split("|")[2:5]] for row in rows}
    total, last = sum(map(sum, fates.values())), ", of the modules that were judged last" if kept else ""
    rooms = [f"| {room} | {noticed(fates, room):.1%} |" for room in sorted({name.split("/")[1] for name in fates})]
    head = f"""# Mutants

Made by `make mutants`: {total} single changes, {noticed(fates):.1%} noticed ({seconds / 60:.0f} minutes{last}).

| room | noticed |
| --- | --- |
{chr(10).join(rooms)}

| module | killed by its tests | killed by a chapter | survived |
| --- | --- | --- | --- |
"""
    return head + "\n".join(rows) + "\n\n## Survivors\n\n" + ("\n".join(left) or "None.") + "\n"


def noticed(fates: dict[str, list[int]], room: str = "") -> float:
    """The share that did not survive among the mutants of a room, or of all."""
    counts = [fate for name, fate in fates.items() if name.startswith(f"dmlib/{room}")]
    return 1 - sum(survived for *_, survived in counts) / sum(map(sum, counts))


def main() -> int:
    """Judge every mutant, two at a time, and write the record."""
    start = time.perf_counter()
    chosen = [execute.ROOT / name for name in sys.argv[1:]]
    places = [execute.ROOT / "dmlib" / place for place in JUDGED]
    paths = chosen or [p for place in places for p in sorted(place.glob("[!_]*.py")) or [place]]
    os.environ.update(execute.KERNEL_ENVIRONMENT | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"})
    warm_up()
    jobs = [(path, *mutant) for path in paths for mutant in mutants(path.read_text("utf8"))]
    baseline(paths)
    done = []
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for n, result in enumerate(pool.imap(judge, jobs), 1):
            done.append(result)
            path, line, words, fate = result
            print(f"[{n}/{len(jobs)}] {path.name}:{line} {words}: {fate}", flush=True)
    earlier = RECORD.read_text("utf8") if chosen and RECORD.exists() else ""
    text = record(done, time.perf_counter() - start, earlier)
    RECORD.write_text(text, "utf8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
