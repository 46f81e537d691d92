"""Shared by all tests: where the book is, a browser to open it in, and how a page is opened."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest
from hypothesis import settings

from tools.formulas import find_browser

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--allow-file-access-from-files"]


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one the test says so, and under CI it fails."""
    path = find_browser()
    if path is None:
        message = "no Chromium was found: install one (Debian: apt install chromium) to see the pages in a browser"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def served():
    """The book over HTTP, on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, served):
    """Open a page, which `prepare` may meet before it loads; `page.outside` and `page.errors` hold what went wrong."""
    contexts = []

    def go(name: str, *, base: str = HTML.as_uri(), at: str = "", width: int = 1280, prepare=None, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.outside, page.errors = [], []
        inside = (HTML.as_uri(), served, "data:", "blob:")
        page.route(lambda url: not url.startswith(inside), lambda route: route.abort())
        page.on("request", lambda r: r.url.startswith(inside) or page.outside.append(r.url))
        page.on("requestfailed", lambda r: page.errors.append(f"failed: {r.url} {r.failure}"))
        page.on("pageerror", lambda e: page.errors.append(str(e)))
        page.on("console", lambda m: m.type == "error" and page.errors.append(f"{m.text} {m.location}"))
        if prepare:
            prepare(page)
        page.goto(f"{base}/{name}.html{at}")
        return page

    yield go
    for context in contexts:
        context.close()
