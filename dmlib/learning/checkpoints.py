"""Weights on disk: safetensors with a JSON header, written whole or not at all, never pickled."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from dmlib.checks import Tensor, require
from dmlib.networks import build

HEADER = "dmlib"  # The key of the JSON header in the metadata of safetensors.
FORMAT = "2"  # Of what `save` writes. Version 1 had no digest.
WEIGHTS = Path(__file__).with_name("weights")


def save(path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write named tensors and a header, a dictionary of plain JSON, to `path`, with a digest of both.

    Tensors that share memory are written each for itself. The file is complete under a temporary name before it takes
    the place of an older one, so a crash, a kill or a full disk leaves the older one as it was. Raises OSError where
    it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    own = {"copy": True, "memory_format": torch.contiguous_format}
    plain, text = {name: tensor.detach().to("cpu", **own) for name, tensor in tensors.items()}, json.dumps(header)
    content = safetensors.torch.save(plain, {HEADER: text, "format": FORMAT, "sha256": digest(plain, text)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        kept = "the one before it is kept" if path.exists() else "there is none before it"
        raise OSError(f"{path} could not be written ({error.strerror or error}); {kept}") from error


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the header of a file that `save` wrote.

    Raises ValueError where the file is another one, of another format, or not as it was written, to the bit.
    """
    content = Path(path).read_bytes()  # At once: another process may replace the file.
    try:
        tensors = dict(sorted(safetensors.torch.load(content).items()))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} was damaged or of another kind ({error}); it must be a file of dmlib") from error
    about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    require(HEADER in about, str(path), "a safetensors file of another program", "a file of dmlib")
    found = about.get("format", "1")
    require(found == FORMAT, f"the format of {path}", found, f"{FORMAT}, that of this version of dmlib")
    ok = digest(tensors, about[HEADER]) == about.get("sha256")
    require(ok, str(path), "damaged (its content has another SHA-256 than it names)", "a file of dmlib")
    header = json.loads(about[HEADER])
    require(isinstance(header, dict), f"the header of {path}", f"a {type(header).__name__}", "a dictionary")
    return tensors, header


def digest(tensors: dict[str, Tensor], text: str = "") -> str:
    """The SHA-256 of a text and of the names, dtypes, shapes and bytes of tensors, in the order of their names."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Inside, an empty folder; at the end its files take the places of those of the same names in `folder`.

    They do so together, once all are complete and on the disk. Where anything fails before, those in `folder` stay.
    """
    fresh = folder / "unfinished"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        files = sorted(fresh.iterdir())
        for path in files:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        for path in files:
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def pack(**groups: dict[str, Tensor]) -> dict[str, Tensor]:
    """Several dictionaries of tensors as one: the name of each group stands before a dot."""
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def unpack(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    """One group of what `pack` made, under its own names."""
    return {name.removeprefix(f"{group}."): t for name, t in tensors.items() if name.startswith(f"{group}.")}


def publish(name: str, model: nn.Module, card: dict[str, Any], folder: Path = WEIGHTS) -> None:
    """Write a model in half precision, and its card, which must name its `network`, to where `pretrained` looks."""
    require("network" in card, "the keys of card", sorted(card), "with 'network', what networks.build takes")
    with replacing(folder) as fresh:
        file = fresh / f"{name}.safetensors"
        save(file, {key: value.half() for key, value in model.state_dict().items()}, {"name": name})
        card = {"name": name, **card, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        file.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def pretrained(name: str, *, folder: Path = WEIGHTS) -> tuple[nn.Module, dict[str, Any]]:
    """A network whose weights the package ships, in eval mode, and its card.

    The card says what the model is (network, and for a diffusion schedule and kind), what it was trained on (data,
    levels, config, seed, device, duration in seconds) and what it reaches (results).
    Raises where the name is unknown or the weights are not those of the card.
    """
    names = sorted(path.stem for path in folder.glob("*.json"))
    require(name in names, "name", repr(name), f"one of {', '.join(names)}")
    card = json.loads((folder / f"{name}.json").read_text("utf-8"))
    file = folder / f"{name}.safetensors"
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    require(found == card["sha256"], f"the SHA-256 of {file.name}", found, f"{card['sha256']}, that of its card")
    model = build(card["network"])
    model.load_state_dict({key: value.float() for key, value in safetensors.torch.load(content).items()})
    return model.eval().requires_grad_(False), card
