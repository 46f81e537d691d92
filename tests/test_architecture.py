"""The house stands: floors, sizes, no state, citations that lead somewhere, and requirements that Colab meets."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    **{"checks": 0, "rng": 1, "probability": 2, "book": 2, "latent": 3, "diffusion": 3},
    **{"data": 4, "networks": 4, "metrics": 4, "learning": 5, "experiments": 6},
}
MAX_FUNCTION, MAX_FILE = 40, 250
SPEAKING_ROOMS = {"book", "experiments"}
COLAB_FLOORS = {"torch": "2.6", "numpy": "2.0", "ipywidgets": "7.7.1"}
IPYWIDGETS_8 = {
    *("ColorsInput", "DatetimePicker", "FloatsInput", "IntsInput", "NaiveDatetimePicker", "Stack", "TagsInput"),
    *("TimePicker", "allow_html", "background", "set_inline", "tabbable", "text_color", "titles", "tooltip"),
}


def files(root: Path) -> list[Path]:
    return sorted((root / "dmlib").rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf8"))


def room(path: Path, root: Path) -> str:
    """The room of dmlib a file is in; `checks` and the package's own file are rooms of their own."""
    return path.relative_to(root / "dmlib").with_suffix("").parts[0]


def imports(module: ast.Module, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names of dmlib that a module imports, wherever in it, by statement or by function."""
    for node in ast.walk(module):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            whole = ".".join(part for part in (base, node.module) if part)
            names = [f"{whole}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        yield from (name for name in names if name.split(".")[0] == "dmlib")


def layer_faults(root: Path) -> list[str]:
    """Imports that climb the stairs, cross a floor, or enter a room that is not on the plan."""
    faults = []
    for path in files(root):
        mine = room(path, root)
        if mine != "__init__" and mine not in FLOORS:
            faults.append(f"{path.name}: the room {mine} is not on the plan")
        for name in imports(tree(path), ("dmlib", *path.relative_to(root / "dmlib").parent.parts)):
            other = name.split(".")[1] if "." in name else "__init__"
            below = FLOORS.get(other, 99) < FLOORS.get(mine, -1)
            if other != mine and not below:
                faults.append(f"{path.name}: {mine} imports {name}")
    return faults


def size_faults(root: Path) -> list[str]:
    """Files and functions that are too long to read at one sitting."""
    faults = []
    for path in files(root):
        if (lines := len(path.read_text("utf8").splitlines())) > MAX_FILE:
            faults.append(f"{path.name} has {lines} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION:
                    faults.append(f"{path.name}: {node.name} has {lines} lines")
    return faults


def is_quiet(node: ast.stmt) -> bool:
    """Whether a statement at the top of a module only names things: imports, definitions and constants."""
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
    if isinstance(node, ast.Try):
        return all(isinstance(inner, (ast.Import, ast.ImportFrom)) for inner in node.body)
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    named = all(
        re.fullmatch(r"_?[A-Z]\w*|__\w+__", name) for t in targets for name in ast.unparse(t).strip("()").split(", ")
    )
    return named and ast.unparse(node.value) not in ("[]", "{}", "set()", "dict()", "list()")


def state_faults(root: Path) -> list[str]:
    """Work done or state kept at import, global names, global seeds, and words printed by the mathematics."""
    faults = []
    for path in files(root):
        module = tree(path)
        faults += [f"{path.name}:{node.lineno} acts at import" for node in module.body if not is_quiet(node)]
        for node in ast.walk(module):
            if isinstance(node, ast.Global):
                faults.append(f"{path.name}:{node.lineno} has a global")
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if re.search(r"(^|\.)(manual_seed_all|set_default_dtype|set_default_device)$", called):
                    faults.append(f"{path.name}:{node.lineno} calls {called}")
                if called in ("torch.manual_seed", "random.seed", "np.random.seed", "numpy.random.seed"):
                    faults.append(f"{path.name}:{node.lineno} calls {called}")
                if called == "print" and room(path, root) not in SPEAKING_ROOMS:
                    faults.append(f"{path.name}:{node.lineno} prints")
    return faults


def docstrings(root: Path) -> Iterator[tuple[str, str]]:
    """Each docstring of dmlib, with the name of what it belongs to."""
    for path in files(root):
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                yield f"{path.name}: {getattr(node, 'name', 'module')}", ast.get_docstring(node) or ""


def equations(root: Path) -> set[str]:
    """Labels of the equations that the chapters number."""
    texts = [path.read_text("utf8") for path in (root / "chapters").glob("*.md")]
    for path in (root / "chapters").glob("*.ipynb"):
        texts += ["".join(cell["source"]) for cell in json.loads(path.read_text("utf8"))["cells"]]
    return {
        label
        for text in texts
        for label in re.findall(r"^\$\$ *\((eq-[^)]+)\)|^:label: (eq-\S+)", text, re.M)
        for label in label
        if label
    }


def citation_faults(root: Path) -> list[str]:
    """Equations and sources named in docstrings that no chapter numbers or no bibliography holds."""
    numbered = equations(root)
    known = set(re.findall(r"^@\w+\{([^,\s]+),", (root / "references.bib").read_text("utf8"), re.M))
    faults = []
    for name, text in docstrings(root):
        faults += [
            f"{name} cites {label}" for label in re.findall(r"\beq-[a-z0-9-]*[a-z0-9]", text) if label not in numbered
        ]
        for inside in re.findall(r"\[([^\]]*)\]", text):
            faults += [
                f"{name} cites {key}" for key in re.findall(r"\b[A-Z][a-z]\w*\d{4}[a-z]?\b", inside) if key not in known
            ]
    return faults


def test_a_file_imports_only_from_its_room_or_a_floor_below():
    assert layer_faults(ROOT) == []


def test_files_and_functions_are_short():
    assert size_faults(ROOT) == []


def test_importing_does_nothing_and_keeps_nothing():
    assert state_faults(ROOT) == []


def test_docstrings_cite_equations_and_sources_that_exist():
    assert citation_faults(ROOT) == []


def test_the_package_itself_is_nearly_empty():
    body = tree(ROOT / "dmlib" / "__init__.py").body
    assert [type(node) for node in body] == [ast.Expr, ast.Assign]
    assert ast.unparse(body[1].targets[0]) == "__version__"


def room_faults(root: Path) -> list[str]:
    """Rooms whose __init__ does more than name what their own files offer."""
    faults = []
    for path in (path for path in files(root) if path.name == "__init__.py" and room(path, root) != "__init__"):
        offered = tree(path).body[1:]  # after its docstring
        own = f"dmlib.{room(path, root)}."
        faults += [
            f"{path.parent.name} offers {ast.unparse(node)}"
            for node in offered
            if not (isinstance(node, ast.ImportFrom) and str(node.module).startswith(own))
        ]
    return faults


def test_a_room_names_what_it_offers_and_does_nothing_else():
    assert room_faults(ROOT) == []


def test_requirements_are_what_colab_has():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    lower = dict(requirement.split(">=") for requirement in project["dependencies"])
    assert lower.items() >= COLAB_FLOORS.items()
    assert project["requires-python"] == ">=3.11"


def test_an_installed_package_holds_its_weights_and_its_records():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["tool"]["setuptools"]["package-data"]
    folders = {name: ROOT.joinpath(*name.split(".")) for name in data}
    listed = {path for name, patterns in data.items() for p in patterns for path in folders[name].glob(p)}
    held = {path for path in (ROOT / "dmlib").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert held == listed != set()


def test_widgets_use_no_name_that_came_with_ipywidgets_8():
    nodes = list(ast.walk(tree(ROOT / "dmlib" / "book" / "widgets.py")))
    used = {getattr(node, "attr", None) or getattr(node, "arg", None) or getattr(node, "id", None) for node in nodes}
    assert "SelectionSlider" in used
    assert used & IPYWIDGETS_8 == set()


@pytest.fixture
def house(tmp_path):
    """A small sound house; the tests below break it."""
    for name, text in {
        "dmlib/__init__.py": '"""A package."""\n',
        "dmlib/checks.py": "LIMIT = 3\n",
        "dmlib/probability/gaussian.py": '"""Eq. [eq-normal], [Gauss1809]."""\nfrom dmlib.checks import LIMIT\n',
        "dmlib/latent/vae.py": "from dmlib.probability import gaussian\nfrom . import discrete\n",
        "dmlib/latent/discrete.py": "Kind = int\n",
        "dmlib/diffusion/forward.py": "from dmlib.probability.gaussian import LIMIT\n",
        "dmlib/book/verify.py": "def f():\n    import dmlib.rng\n    print(1)\n",
        "chapters/01-a.md": "$$\nx\n$$ (eq-normal)\n",
        "references.bib": "@book{Gauss1809,\n}\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf8")
    return tmp_path


ALL = (layer_faults, size_faults, state_faults, citation_faults, room_faults)


def test_a_sound_house_has_no_faults(house):
    assert [fault for faults in ALL for fault in faults(house)] == []


@pytest.mark.parametrize(
    ("faults", "name", "line"),
    [
        (layer_faults, "probability/gaussian.py", "import dmlib.latent.vae"),
        (layer_faults, "probability/gaussian.py", "from dmlib.book import verify"),
        (layer_faults, "probability/gaussian.py", "from dmlib import learning"),
        (layer_faults, "probability/gaussian.py", "def f():\n    from dmlib.diffusion import forward"),
        (layer_faults, "probability/gaussian.py", "if TYPE_CHECKING:\n    from dmlib.diffusion import forward"),
        (layer_faults, "probability/gaussian.py", "def f():\n    importlib.import_module('dmlib.book.verify')"),
        (layer_faults, "latent/vae.py", "from dmlib.diffusion import forward"),
        (layer_faults, "diffusion/forward.py", "from ..latent import vae"),
        (layer_faults, "book/verify.py", "from dmlib.latent import vae"),
        (layer_faults, "data/idx.py", "from dmlib import metrics"),
        (room_faults, "latent/__init__.py", '"""A room."""\nfrom dmlib.probability import gaussian'),
        (room_faults, "latent/__init__.py", '"""A room."""\nprint(1)'),
        (layer_faults, "checks.py", "from dmlib.probability import gaussian"),
        (layer_faults, "__init__.py", "from dmlib import checks"),
        (layer_faults, "attic/old.py", "X = 1"),
        (size_faults, "latent/vae.py", "X = 1\n" * 250),
        (size_faults, "latent/vae.py", "def f():\n" + "    x = 1\n" * 40),
        (state_faults, "latent/vae.py", "print(1)"),
        (state_faults, "latent/vae.py", "torch.set_num_threads(1)"),
        (state_faults, "latent/vae.py", "cache = 1"),
        (state_faults, "latent/vae.py", "CACHE = {}"),
        (state_faults, "latent/vae.py", "for i in range(3):\n    pass"),
        (state_faults, "latent/vae.py", "def f():\n    global x"),
        (state_faults, "latent/vae.py", "def f():\n    torch.manual_seed(0)"),
        (state_faults, "latent/vae.py", "def f():\n    print(1)"),
        (citation_faults, "latent/vae.py", 'def f():\n    """Eq. [eq-nowhere]."""'),
        (citation_faults, "latent/vae.py", 'def f():\n    """The bound of [Nobody1999]."""'),
    ],
)
def test_a_fault_is_found(house, faults, name, line):
    path = house / "dmlib" / name
    path.parent.mkdir(exist_ok=True)
    before = path.read_text("utf8") if path.exists() else ""
    path.write_text(f"{before}{line}\n", "utf8")
    assert faults(house) != []
