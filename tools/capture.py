"""A pytest plugin: keep what nbval's executions print and draw, so that the pages are built from them."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell

from tools import execute


class Capture:
    """Collects the outputs of each notebook's cells; a notebook with a failed cell keeps nothing."""

    def __init__(self):
        self.cells: dict[Path, list] = defaultdict(list)
        self.started: dict[Path, float] = {}
        self.failed: set[Path] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if isinstance(item, IPyNbCell) and call.when == "call":
            path = Path(item.fspath)
            self.started.setdefault(path, call.start)
            self.cells[path].append(item.test_outputs or [])
            if not report.passed:
                self.failed.add(path)
            self.finish(path)
        return report

    def finish(self, path: Path) -> None:
        """Keep the outputs once the last cell has run, all cells having passed."""
        if path not in self.failed and len(self.cells[path]) == len(execute.code(path)):
            outputs = json.loads(json.dumps(self.cells.pop(path)))
            execute.keep(path, outputs, time.time() - self.started[path])


def pytest_configure(config):
    """Called by pytest when the plugin is loaded."""
    config.pluginmanager.register(Capture())
