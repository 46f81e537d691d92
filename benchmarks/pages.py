"""How soon the pages open on a slow phone: python -m benchmarks.pages [--html _build/html] [--runs 5] [page ...]

390 pixels wide, twice as dense, a processor slowed four times, a line of 1.6 Mbit/s with 150 ms, a server that
compresses, nothing cached. Written to benchmarks/results/pages.json: medians over the runs. Needs Chromium.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import http.server
import json
import os
import statistics
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tools import execute
from tools.formulas import find_browser
from tools.tables import rows

RESULTS = Path("benchmarks") / "results" / "pages.json"
LINE = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
SLOWER = 4
QUIET = 3000  # milliseconds without a long task or a request, after which a page has opened
PACKED = {".html", ".css", ".js", ".svg", ".json"}
WATCH = """
window.seen = {blocked: 0, moved: 0, last: 0};
const paint = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? Infinity;
const long = [];
new PerformanceObserver(list => list.getEntries().forEach(task => {
  long.push([task.startTime, task.duration]);
  seen.last = performance.now();
})).observe({type: "longtask", buffered: true});
new PerformanceObserver(list => list.getEntries().forEach(shift => { seen.moved += shift.value; }))
  .observe({type: "layout-shift", buffered: true});
new PerformanceObserver(() => { seen.last = performance.now(); }).observe({type: "resource", buffered: true});
window.figures = () => ({
  "first text, s": paint() / 1000,
  "blocked, s": long.filter(([at]) => at + 50 > paint()).reduce((sum, [, time]) => sum + time - 50, 0) / 1000,
  "moved": seen.moved,
  "nodes": document.querySelectorAll("*").length,
});
"""
FIGURES = {"first text, s": 1, "blocked, s": 2, "before the first touch, kB": 0, "moved": 3, "nodes": 0}


class Packing(http.server.SimpleHTTPRequestHandler):
    """Serves files, text compressed, as a host of pages does."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in PACKED or not path.is_file():
            return super().do_GET()
        content = gzip.compress(path.read_bytes(), 6, mtime=0)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def opened(browser: Browser, address: str) -> dict[str, float]:
    """The figures of one page, opened once with an empty cache and left alone until it is quiet."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True)
    context.set_default_timeout(180_000)
    page = context.new_page()
    line, received = context.new_cdp_session(page), []
    for command, values in (
        ("Network.enable", {}),
        ("Network.emulateNetworkConditions", LINE),
        ("Emulation.setCPUThrottlingRate", {"rate": SLOWER}),
    ):
        line.send(command, values)
    line.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    page.add_init_script(WATCH)
    page.goto(address, wait_until="commit")  # a request that never ends must not end the measurement
    page.wait_for_function("quiet => performance.now() - seen.last > quiet", arg=QUIET)
    found = page.evaluate("figures()") | {"before the first touch, kB": sum(received) / 1000}
    context.close()
    return {name: found[name] for name in FIGURES}


def measure(folder: Path, pages: list[str], runs: int) -> dict[str, dict[str, float]]:
    """Medians of each page's figures, the pages taken in turn."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Packing, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found: dict[str, list[dict[str, float]]] = {page: [] for page in pages}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(runs):
            for page in pages:
                found[page].append(opened(browser, f"http://127.0.0.1:{server.server_port}/{page}.html"))
        browser.close()
    server.shutdown()
    server.server_close()
    return {page: medians(done) for page, done in found.items()}


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in FIGURES}


def table(found: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table, a page a row."""
    body = [[page, *(f"{of[name]:.{digits}f}" for name, digits in FIGURES.items())] for page, of in found.items()]
    return rows(["page", *FIGURES], body)


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", default=execute.pages(), help="all pages of the book unless named")
    parser.add_argument("--html", type=Path, default=Path("_build") / "html")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = measure(options.html, options.pages, options.runs)
    about = {"runs": options.runs, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    options.results.write_text(json.dumps({"machine": about, "pages": found}, indent=1) + "\n", encoding="utf8")
    print(table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
