"""A pytest plugin: a stage of CI fails where a room has lost tests, or where one is skipped for a new reason.

tests/held.csv holds how many tests of each room must pass, stage by stage. It is asked only where a whole stage runs
(`pytest tests -m STAGE`), not where files or names are picked.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

HELD = "held.csv"
SKIPS = (
    r"\w+ is not installed",
    "DMLIB_DATA names no folder with the files of MNIST",
    "there are as many GPUs as the test asks for",
    "no Chromium was found: .*",
)
ROOM_FOR_MORE = 1.1  # How many times the held number may pass before it is too old to notice a loss.


def room(nodeid: str) -> str:
    """The folder under tests/ that a test lies in; tests/ itself for the tests of the whole."""
    folder = Path(nodeid.partition("::")[0]).parent.parts
    return folder[1] if len(folder) > 1 else "tests"


def losses(stage: str, passed: Counter[str], skipped: Counter[str], held: dict[tuple[str, str], int]) -> list[str]:
    """What is wrong with the numbers of a stage, one line each."""
    faults = []
    for where in sorted({name for of, name in held if of == stage} | set(passed)):
        least, count = held.get((stage, where), 0), passed[where] + skipped[where]
        if count < least:
            faults.append(f"{where}: {count} tests; at least {least} are held in tests/{HELD}")
        elif count > least * ROOM_FOR_MORE + 5:
            faults.append(f"{where}: {count} tests, and only {least} are held: raise them in tests/{HELD}")
    return faults


def reason(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    return str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "no reason"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Count, in the process that has all reports, and fail the session."""
    config = session.config
    stage = config.option.markexpr
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or config.args != ["tests"] or config.option.keyword:
        return
    with (config.rootpath / "tests" / HELD).open(encoding="utf8") as file:
        held = {(row["stage"], row["room"]): int(row["tests"]) for row in csv.DictReader(file)}
    found = {kind: reporter.stats.get(kind, []) for kind in ("passed", "skipped")}
    passed, skipped = (Counter(room(report.nodeid) for report in reports) for reports in found.values())
    faults = losses(stage, passed, skipped, held)
    for why in sorted({reason(report) for report in found["skipped"]}):
        if not any(re.fullmatch(allowed, why) for allowed in SKIPS):
            faults.append(f"skipped for a reason that tools/counted.py does not list: {why}")
    if faults:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("")
        for fault in faults:
            reporter.write_line(f"ERROR {fault}", red=True)
