"""What a run leaves in the package, and how it is read again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from dmlib.checks import Tensor, UInt8, require
from dmlib.learning import checkpoints

RECORDS = Path(__file__).with_name("records")
TEXTS = ("config", "metrics", "environment")
SHEET = "samples.png"
SEAL = "SHA256"


class Record(NamedTuple):
    """One recorded run."""

    config: dict[str, Any]  # Every field of the configuration.
    metrics: dict[str, Any]  # What was found; bounds are in bits per dimension, one for each held-out image.
    environment: dict[str, Any]  # Versions, processor, device, precision.
    sheet: UInt8[Tensor, "H W"] | None  # Samples in gray, eight to a row; None for a run without samples.


def record(name: str, *, folder: Path = RECORDS) -> Record:
    """The recorded run of this name; raises where there is none, or where it is not as the run left it."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    require(name in names, "name", repr(name), f"one of {', '.join(names)}")
    beside = folder / name / SEAL
    kept = beside.read_text("utf-8").strip() if beside.exists() else "missing"
    require(kept == digest(folder / name), f"the digest of {name}", kept, "that of what the run left")
    texts = [json.loads((folder / name / f"{part}.json").read_text("utf-8")) for part in TEXTS]
    sheet = folder / name / SHEET
    return Record(*texts, torch.from_numpy(np.array(Image.open(sheet).convert("L"))) if sheet.exists() else None)


def digest(run: Path) -> str:
    """The SHA-256 of all that `record` reads from the folder of a run; raises where a part is missing."""
    files = [*(run / f"{part}.json" for part in TEXTS), *run.glob(SHEET)]
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


def seal(run: Path) -> None:
    """Write the digest of a finished run beside its files."""
    (run / SEAL).write_text(digest(run) + "\n", encoding="utf-8")


def keep(run: Path, *, folder: Path = RECORDS) -> None:
    """Copy what `record` reads from the folder of a run into the package, in the place of a run of the same name."""
    with checkpoints.replacing(folder / run.name) as fresh:
        for file in [*(run / f"{part}.json" for part in TEXTS), *run.glob(SHEET), run / SEAL]:
            shutil.copy(file, fresh)
