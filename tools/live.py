"""Serve the book and rebuild it on change: python -m tools.live [PORT]"""

from __future__ import annotations

import os
import socket
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


def main(port: str = "8000") -> None:
    """Serve until it is stopped; ends in one line where the port is none or is in use."""
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise SystemExit(f"PORT was {port!r}; it must be in 1..65535, as in: make live PORT=8001")
    try:
        socket.create_server(("127.0.0.1", int(port))).close()
    except OSError as error:
        reason = f"PORT was {port} ({os.strerror(error.errno)}); it must be a free one"
        raise SystemExit(f"{reason}, as in: make live PORT={int(port) % 65535 + 1}") from None
    server = Server()
    for pattern in WATCHED:
        server.watch(str(ROOT / pattern), rebuild)
    server.serve(root=str(ROOT / "_build" / "html"), port=int(port), open_url_delay=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
