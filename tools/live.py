"""Serve the book and rebuild it on change: python -m tools.live"""

from __future__ import annotations

import subprocess
import sys

from livereload import Server

from tools.execute import ROOT

WATCHED = ["chapters/*", "dmlib/*.py", "dmlib/*/*.py", "figures/*", "_assets/*", "tools/*.py", "*.yml", "*.bib"]


def rebuild() -> None:
    """Execute what changed and build the pages; a failure is shown and the old pages stay served."""
    for step in ("tools.execute", "tools.pages"):
        if subprocess.run([sys.executable, "-m", step], cwd=ROOT).returncode:
            return


if __name__ == "__main__":
    server = Server()
    for pattern in WATCHED:
        server.watch(str(ROOT / pattern), rebuild)
    server.serve(root=str(ROOT / "_build" / "html"), port=8000, open_url_delay=None)
