"""The file of results: one part after another, under a digest of what was measured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest(parts: dict[str, Any]) -> str:
    """The SHA-256 of measured parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> dict[str, Any]:
    """The parts that were measured; raises where they are not those that a run left."""
    kept = json.loads(path.read_text("utf-8"))
    if digest(kept["parts"]) != kept["sha256"]:
        raise ValueError(f"the SHA-256 of the parts in {path} was not the one beside them; a run must write both")
    return kept["parts"]


def record(path: Path, name: str, part: dict[str, Any]) -> None:
    """Put a part into the file, in the place of an older one."""
    parts = (read(path) if path.exists() else {}) | {name: part}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".partial")
    new.write_text(json.dumps({"sha256": digest(parts), "parts": parts}, indent=1) + "\n", encoding="utf-8")
    new.replace(path)
