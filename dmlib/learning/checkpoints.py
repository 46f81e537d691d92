"""Weights on disk: safetensors with a JSON header, written whole or not at all, never pickled."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import nn

from dmlib.checks import Tensor, require
from dmlib.networks import build

HEADER = "dmlib"  # The key of the JSON header in the metadata of safetensors.
WEIGHTS = Path(__file__).with_name("weights")


def save(path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write named tensors and a header of plain JSON to `path`.

    The file is complete under a temporary name before it takes the place of an older one, so a crash, a kill or a
    full disk leaves the older one as it was. Raises OSError where it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(plain, {HEADER: json.dumps(header)})
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
    """The tensors, on the CPU, and the header of a file that `save` wrote; raises where it is another or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, struct.error) as error:
        raise ValueError(f"{path} was damaged or of another kind ({error}); it must be a file of dmlib") from error
    require(header is not None, str(path), "a safetensors file of another program", "a file of dmlib")
    return tensors, json.loads(header)


def pack(**groups: dict[str, Tensor]) -> dict[str, Tensor]:
    """Several dictionaries of tensors as one: the name of each group stands before a dot."""
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def unpack(tensors: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    """One group of what `pack` made, under its own names."""
    return {name.removeprefix(f"{group}."): t for name, t in tensors.items() if name.startswith(f"{group}.")}


def publish(name: str, model: nn.Module, card: dict[str, Any], folder: Path = WEIGHTS) -> None:
    """Write a model in half precision, and its card, which must name its `network`, to where `pretrained` looks."""
    require("network" in card, "the keys of card", sorted(card), "with 'network', what networks.build takes")
    file = folder / f"{name}.safetensors"
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
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    require(digest == card["sha256"], f"the SHA-256 of {file.name}", digest, f"{card['sha256']}, that of its card")
    model = build(card["network"])
    model.load_state_dict({key: value.float() for key, value in load(file)[0].items()})
    return model.eval().requires_grad_(False), card
