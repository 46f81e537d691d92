"""The tools: what is executed again when what changes, and an environment that says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

from tools import execute

ROOMS = {
    "probability": "gaussian.py",
    "latent": "vae.py",
    "diffusion": "forward.py",
    "data": "images.py",
    "networks": "models.py",
    "metrics": "bits.py",
    "learning": "training.py",
    "book": "verify.py",
}


@pytest.fixture
def house(tmp_path):
    """A copy of the chapters and the package whose outputs are all fresh."""
    for name in ("dmlib", "chapters"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "checkpoint*"))
    for name in ("_toc.yml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for path in execute.notebooks(tmp_path):
        execute.keep(path, [], 0.0, tmp_path)
    return tmp_path


def stale(root) -> set[str]:
    return {path.stem for path in execute.notebooks(root) if not execute.is_fresh(path, root)}


def test_nothing_changed_nothing_stale(house):
    assert stale(house) == set()


@pytest.mark.parametrize("room", ROOMS)
def test_a_change_in_a_room_reaches_the_chapters_that_use_it(house, room):
    module = f"dmlib/{room}/{ROOMS[room]}"
    users = {
        path.stem
        for path in execute.notebooks(house)
        if house / module in execute.reached("\n".join(execute.code(path)), house)
    }
    with (house / module).open("a") as file:
        file.write("\nCHANGED = True\n")
    assert stale(house) == users != set()


def test_a_new_record_of_a_run_reaches_the_chapters_that_read_runs(house):
    readers = {path.stem for path in execute.notebooks(house) if "experiments.record(" in "".join(execute.code(path))}
    (house / "dmlib" / "experiments" / "records" / "new").mkdir()
    (house / "dmlib" / "experiments" / "records" / "new" / "metrics.json").write_text("{}")
    assert stale(house) == readers != set()


def test_a_change_beneath_every_room_reaches_every_chapter(house):
    with (house / "dmlib" / "checks.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    assert stale(house) == {path.stem for path in execute.notebooks(house)}


def test_what_is_no_notebook_is_named_in_one_line(tmp_path):
    for text in ("", "{}", '{"cells": [1]}'):
        (tmp_path / "01-a.ipynb").write_text(text)
        with pytest.raises(RuntimeError, match=r"^01-a\.ipynb is not the JSON of a notebook: .+$"):
            execute.code(tmp_path / "01-a.ipynb")


def test_a_change_of_the_pins_reaches_every_chapter(house):
    with (house / "requirements.txt").open("a") as file:
        file.write("\n# changed\n")
    assert stale(house) == {path.stem for path in execute.notebooks(house)}


def test_imports_inside_functions_and_of_imports_are_followed(tmp_path):
    for name, text in {
        "__init__": "",
        "a": "def f():\n    from dmlib import b\n",
        "b": "import dmlib.c",
        "c": "",
    }.items():
        (tmp_path / "dmlib").mkdir(exist_ok=True)
        (tmp_path / "dmlib" / f"{name}.py").write_text(text)
    found = {path.stem for path in execute.reached("from dmlib.a import f", tmp_path)}
    assert found == {"__init__", "a", "b", "c"}


@pytest.mark.parametrize("port", ["taken", "http", "0", "70000"])
def test_a_port_that_will_not_do_is_named_in_one_line(port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1]) if port == "taken" else port
        done = subprocess.run([sys.executable, "-m", "tools.live", port], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    was = rf"({port} \(Address already in use\)|'{port}')"
    assert re.search(rf"^PORT was {was}; it must be .*, as in: make live PORT=\d", done.stderr)
    assert len((done.stdout + done.stderr).splitlines()) == 1


def environment(tmp_path, **settings) -> subprocess.CompletedProcess:
    """What the script says in a folder whose one requirement is not to be had."""
    (tmp_path / "requirements.txt").write_text("torch==0.0.0.dev0\n")
    command = ["bash", str(ROOT / "tools" / "environment.sh")]
    clean = os.environ | {"ENV": "env", "PIP_NO_INDEX": "1", **settings}
    return subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)


def test_a_full_disk_is_said_before_anything_is_made(tmp_path):
    done = environment(tmp_path, NEED_MB="999999999")
    assert done.returncode == 1
    assert "MB of disk are free" in done.stderr
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize(
    ("fails", "message"),
    [("sys.version_info", "must be 3.11 or newer"), ("ensurepip", "apt install python3-venv")],
)
def test_a_python_that_will_not_do_is_named(tmp_path, fails, message):
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\ncase "$*" in *{fails}*) exit 1;; *--version*) echo Python 3.9.1;; esac\nexit 0\n')
    fake.chmod(0o755)
    done = environment(tmp_path, PYTHON=str(fake))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "env").exists()


@pytest.mark.house
def test_a_failed_installation_leaves_nothing_behind(tmp_path):
    done = environment(tmp_path, NEED_MB="0")
    assert done.returncode != 0
    assert "torch==0.0.0.dev0" in done.stderr
    assert "env was removed" in done.stderr
    assert not (tmp_path / "env").exists()


def test_torch_comes_from_the_index_that_is_named(tmp_path):
    fake = tmp_path / "env" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "said"}\n')
    fake.chmod(0o755)
    assert environment(tmp_path, TORCH_INDEX="https://index.example/cpu").returncode == 0
    first, *rest = (tmp_path / "said").read_text().splitlines()
    assert "--index-url https://index.example/cpu torch==0.0.0.dev0" in first
    assert len(rest) == 2
    assert (tmp_path / "env" / ".complete").exists()
