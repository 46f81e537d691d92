"""CI cannot be falsely green: a book with one canary chapter passes, and fails in each way it can be broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

pytestmark = pytest.mark.house
TOC = """format: jb-book
root: chapters/intro
parts:
  - caption: One
    chapters: [{file: chapters/01-canary}, {file: chapters/bibliography}]
"""
TESTS = """import pytest


def test_unit():
    assert True


@pytest.mark.built
def test_built():
    assert True


@pytest.mark.house
def test_house():
    assert True
"""
HELD = "stage,room,tests\nnot built and not house and not apart,tests,1\nhouse or apart,tests,1\nbuilt,tests,1\n"
TABLES = {
    "definitions": "label,defines\neq-canary,a canary\n",
    "notation": "symbol,identifier,shape,meaning,first\n",
    "coverage": "id,statement,chapter,label,status,note\n",
}


def canary(source: str = "print(2 + 2)", stored: str = "4\n"):
    """A chapter with one equation and one cell whose stored output is compared."""
    checked = new_code_cell(
        source,
        metadata={"tags": ["check", "nbval-check-output"]},
        execution_count=1,
        outputs=[new_output("stream", name="stdout", text=stored)],
    )
    text = new_markdown_cell("# Canary\n\n$$\n2 + 2 = 4\n$$ (eq-canary)\n\nSee {eq}`eq-canary`.")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=[text, checked], metadata={"kernelspec": kernel})


@pytest.fixture
def book(tmp_path):
    """A copy of this house with nothing in it but the canary."""
    skip = shutil.ignore_patterns("_build", ".venv*", ".git", "chapters", "tests", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, tmp_path, dirs_exist_ok=True, ignore=skip)
    (tmp_path / "_toc.yml").write_text(TOC)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    (tmp_path / "tests" / "held.csv").write_text(HELD)
    shutil.copy(ROOT / "tests" / "nbval_sanitize.cfg", tmp_path / "tests")
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "intro.md").write_text("# A book\n")
    (tmp_path / "chapters" / "bibliography.md").write_text("# Bibliography\n")
    for name, text in TABLES.items():
        (tmp_path / "chapters" / f"{name}.csv").write_text(text)
    nbformat.write(canary(), tmp_path / "chapters" / "01-canary.ipynb")
    for name in ("requirements.txt", "pyproject.toml", "tools/environment.sh"):
        os.utime(tmp_path / name, (0, 0))  # older than the environment: nothing is installed
    return tmp_path


def make(book, *targets: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTEST", "MFLAGS"))}
    command = ["make", "--no-print-directory", f"ENV={sys.prefix}", *targets]
    return subprocess.run(command, cwd=book, env=clean, capture_output=True, text=True)


def stages(book) -> subprocess.CompletedProcess:
    """What `make test` runs once style and units have passed."""
    return make(book, "notebooks", "pages", "seen")


def test_the_whole_test_command_passes_and_the_pages_are_nbvals_executions(book):
    done = make(book, "test")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (book / "_build" / "html" / "chapters" / "01-canary.html").read_text("utf8")
    assert "<span></span>4\n" in page


def test_a_wrong_stored_output_fails(book):
    nbformat.write(canary(stored="5\n"), book / "chapters" / "01-canary.ipynb")
    done = stages(book)
    assert done.returncode != 0
    assert "Cell outputs differ" in done.stdout
    assert not (book / "_build" / "executed" / "01-canary.json").exists()


def test_a_failing_cell_fails(book):
    nbformat.write(canary(source="print(4)\nassert False"), book / "chapters" / "01-canary.ipynb")
    done = stages(book)
    assert done.returncode != 0
    assert "AssertionError" in done.stdout
    assert make(book, "book").returncode != 0


def test_a_broken_notebook_fails(book):
    (book / "chapters" / "01-canary.ipynb").write_text("{ this is no notebook")
    assert stages(book).returncode != 0
    assert make(book, "book").returncode != 0


def test_a_missing_page_fails(book):
    (book / "chapters" / "intro.md").unlink()
    executed = make(book, "notebooks")
    assert executed.returncode == 0, executed.stdout
    done = make(book, "pages")
    assert done.returncode != 0
    assert "missing: chapters/intro" in done.stderr
    (book / "chapters" / "intro.md").write_text("# A book\n")
    (book / "chapters" / "01-canary.ipynb").unlink()
    assert stages(book).returncode != 0


def test_dangling_references_fail_and_are_all_named(book):
    dangling = ["{eq}`eq-nowhere`", "{cite}`Nobody1900`", "[gone](gone.md)", "{ref}`nothing`"]
    (book / "chapters" / "intro.md").write_text("# A book\n\nSee " + ", ".join(dangling) + ".\n")
    done = make(book, "book")
    assert done.returncode != 0
    assert all(name in done.stderr for name in ("eq-nowhere", "Nobody1900", "gone.md", "nothing"))
    assert not (book / "_build" / "html").exists()


def test_words_on_stderr_fail(book):
    nbformat.write(
        canary(source="import sys\nprint('oh', file=sys.stderr)\nprint(4)"), book / "chapters" / "01-canary.ipynb"
    )
    done = make(book, "book")
    assert done.returncode != 0
    assert "stderr" in done.stderr


def test_lost_and_skipped_tests_fail(book):
    (book / "tests" / "held.csv").write_text(HELD.replace("apart,tests,1", "apart,tests,2"))
    done = make(book, "unit")
    assert done.returncode != 0
    assert "tests: 1 tests; at least 2 are held in tests/held.csv" in done.stdout
    (book / "tests" / "held.csv").write_text(HELD)
    (book / "tests" / "test_it.py").write_text(TESTS + '\n\npytestmark = pytest.mark.skip(reason="later")\n')
    done = make(book, "unit")
    assert done.returncode != 0
    assert "skipped for a reason that tools/counted.py does not list: later" in done.stdout


def test_a_failing_unit_test_and_bad_style_fail(book):
    (book / "tests" / "test_it.py").write_text("def test_unit():\n    assert False\n")
    assert make(book, "unit").returncode != 0
    (book / "tests" / "test_it.py").write_text("import os\n")
    assert make(book, "lint").returncode != 0


def test_the_ci_script_fails_when_the_test_command_does(book, tmp_path_factory):
    bin_ = tmp_path_factory.mktemp("bin")
    for name, code in {"make": 1, "chromium": 0}.items():
        (bin_ / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (bin_ / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}"}
    run = ["bash", str(book / ".ci" / "run")]
    assert subprocess.run(run, env=environment, capture_output=True).returncode != 0
    (bin_ / "make").write_text("#!/bin/sh\nexit 0\n")
    assert subprocess.run(run, env=environment, capture_output=True).returncode == 0
