"""Figures that compute, in the hosts that show them: a file, a sandboxed frame under a strict policy, JupyterLab."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmlib.book import live

# The policy under which editors show the outputs of notebooks: no Blob addresses, no files of other hosts.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; child-src data:"
CELL = """from dmlib.book import live
live.compute("posterior", data={"linear": {"T": 20, "beta_1": 0.02, "beta_T": 0.4}}, alt="three densities",
             still=lambda ax: ax.plot([0, 1]))"""
NOTEBOOK = {
    "cells": [{"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": CELL}],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def output() -> str:
    linear = {"T": 20, "beta_1": 0.02, "beta_T": 0.4}
    figure = live.compute("posterior", data={"linear": linear}, alt="three densities", still=lambda ax: ax.plot([0, 1]))
    return f"<!doctype html><html lang='en'><body>{figure.page()}</body></html>"


@pytest.fixture
def errors(browser):
    """A new page, whose errors are none at the end."""
    page = browser.new_page()
    found = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: message.type == "error" and found.append(message.text))
    yield page
    page.close()
    assert found == []


def moves(frame) -> None:
    """The figure is there, and an arrow key changes what it says."""
    said, grip = frame.locator(".dm-said"), frame.locator(".dm-grip").first
    frame.wait_for_function("document.querySelector('.dm-said')?.textContent.includes('Posterior: mean')")
    before = said.text_content()
    grip.press("ArrowRight")
    frame.wait_for_function("before => document.querySelector('.dm-said').textContent !== before", arg=before)


def test_in_a_file_of_its_own(errors, tmp_path):
    (tmp_path / "out.html").write_text(output(), "utf8")
    errors.goto((tmp_path / "out.html").as_uri())
    moves(errors.main_frame)


def test_in_a_sandboxed_frame_under_a_strict_policy(errors, tmp_path):
    meta = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
    (tmp_path / "in.html").write_text(meta + output(), "utf8")
    (tmp_path / "out.html").write_text('<iframe sandbox="allow-scripts" src="in.html" height="700"></iframe>', "utf8")
    errors.goto((tmp_path / "out.html").as_uri())
    errors.wait_for_timeout(200)
    moves(errors.frames[1])


def test_without_scripts_its_picture_stands(browser, tmp_path):
    (tmp_path / "out.html").write_text(output(), "utf8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "out.html").as_uri())
    assert page.get_by_role("img", name="three densities").is_visible()
    context.close()


def test_in_jupyterlab(browser, tmp_path):
    (tmp_path / "figure.ipynb").write_text(json.dumps(NOTEBOOK), "utf8")
    options = ["--no-browser", "--port=0", "--IdentityProvider.token=", "--ServerApp.allow_root=True"]
    folder = [f"--ServerApp.root_dir={tmp_path}", f"--LabApp.user_settings_dir={tmp_path / 'settings'}"]
    command = [sys.executable, "-m", "jupyterlab", *options, *folder]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parent.parent)
    try:
        for _ in range(600):
            time.sleep(0.1)
            found = re.search(r"http://(localhost|127.0.0.1):(\d+)/lab", (tmp_path / "log").read_text())
            if found:
                break
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"http://127.0.0.1:{found[2]}/lab/tree/figure.ipynb?reset")
        page.locator(".jp-Notebook .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        moves(page.main_frame)
        page.close()
    finally:
        server.terminate()
        server.wait(30)
        log.close()
