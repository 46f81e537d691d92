"""What every experiment shares: a command line made from its configuration, and the record of its run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import platform
import re
import signal
import sys
import types
import typing
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from PIL import Image

from dmlib.checks import Tensor, integer, require
from dmlib.experiments import recorded
from dmlib.learning import checkpoints, processes
from dmlib.learning.config import TrainConfig, free
from dmlib.networks.reduced import choose

RUNS = Path("runs")


@dataclasses.dataclass(frozen=True)
class RunConfig(TrainConfig):
    """What any recorded run takes beside the training itself."""

    data: str = "digits"  # digits: 8 x 8, 17 levels, in the package; mnist: 28 x 28, 256 levels.
    device: str = free("auto")  # auto, cpu, cuda, mps.
    name: str = free("")  # Of the folder in runs/; the experiment and its data, unless given.
    keep: bool = free(False)  # Whether the record goes into the package, for `experiments.record`.
    publish: bool = free(False)  # Whether the weights go into the package, in half precision, with a card.

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = self.name == Path(self.name).name != ".."
        require(ok, "name", repr(self.name), "that of a folder in runs/, without a path")


@dataclasses.dataclass(frozen=True)
class SampledConfig(RunConfig):
    """What a run takes whose samples are judged."""

    sets: int = free(5)  # Of samples, each from a seed of its own.
    samples: int = free(397)  # Of each set, as many as there are held-out digits.

    def __post_init__(self) -> None:
        super().__post_init__()
        integer(self.sets, "sets", 1)
        integer(self.samples, "samples", 8)  # A row of the picture; the judge takes 4.


Config = TypeVar("Config", bound=RunConfig)


def parse(experiment: types.ModuleType | Any, presets: dict[str, Config], arguments: Sequence[str]) -> Config:
    """The configuration that a command line asks for: the preset of its --data, with each named field changed.

    Raises SystemExit, after one line, where a field is unknown or a value has another type or is out of range.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--data", choices=presets, default=next(iter(presets)))
    preset = presets[first.parse_known_args(arguments)[0].data]
    parser = argparse.ArgumentParser(
        prog=f"python -m {experiment.__spec__.name}",
        description=experiment.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hints = typing.get_type_hints(type(preset))
    for field in dataclasses.fields(preset):
        value = getattr(preset, field.name)
        choices = list(presets) if field.name == "data" else None
        kind = _reader(hints[field.name])
        parser.add_argument(
            f"--{field.name}", type=kind, default=value, choices=choices, metavar=kind.__name__, help=f"[{value}]"
        )
    try:
        return dataclasses.replace(preset, **vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))


def _reader(hint: Any) -> Callable[[str], Any]:
    """What reads a value of this type from a command line."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
    optional = type(None) in typing.get_args(hint)

    def read(text: str) -> Any:
        if optional and text == "None":
            return None
        if typing.get_origin(hint) is tuple:
            return tuple(int(part) for part in text.split(","))
        if kinds[0] is bool:
            return {"True": True, "False": False}[text.capitalize()]
        return kinds[0](text)

    def checked(text: str) -> Any:
        try:
            return read(text)
        except (ValueError, KeyError):
            raise argparse.ArgumentTypeError(f"the value was {text!r}; it must be {checked.__name__}") from None

    names = "integers,like,these" if typing.get_origin(hint) is tuple else "|".join(kind.__name__ for kind in kinds)
    checked.__name__ = f"{names}|None" if optional else names
    return checked


def main(experiment: Any, presets: dict[str, Config], run: Callable[[Config, Path], dict[str, Any]]) -> int:
    """Run an experiment from its command line and record it; returns the exit status, after one line on failure.

    `run(config, folder)` returns the metrics. Beside what the experiment writes itself, the folder
    runs/<name> gets config.json, environment.json and metrics.json; with `keep`, the package gets them too.
    """
    config = parse(experiment, presets, sys.argv[1:])
    name = config.name or f"{experiment.__spec__.name.split('.')[-1]}-{config.data}"
    folder = RUNS / name
    checkpoint = config.checkpoint or str(folder / "checkpoint.safetensors")
    config = dataclasses.replace(config, name=name, checkpoint=checkpoint)
    try:
        with processes.handled(signal.default_int_handler), warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest, **more: say(f"{name}: {message}", sys.stderr)
            processes.join(config.device)
            _record(config, run, folder)
        return 0
    except (ValueError, RuntimeError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        stopped = f"stopped outside of training; the same command continues from {checkpoint}"
        say(f"{name}: {str(error) or stopped}", sys.stderr)
        return 130
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def _record(config: Config, run: Callable[[Config, Path], dict[str, Any]], folder: Path) -> None:
    """Run, and put all that it leaves into the place of an older record at once."""
    if not processes.is_first():
        run(config, folder)
        return
    with processes.alone(folder / "lock"):
        with checkpoints.replacing(folder) as fresh:
            write(fresh / "metrics.json", run(config, fresh))
            write(fresh / "config.json", dataclasses.asdict(config))
            write(fresh / "environment.json", environment(config))
            recorded.seal(fresh)
        if config.keep:
            recorded.keep(folder)
    say(f"{config.name}: recorded in {folder}")


def say(line: str, to: Any = None) -> None:
    """Print a line, once for all processes; a run goes on where nobody listens any more."""
    if processes.is_first():
        with contextlib.suppress(OSError):
            print(line, file=to, flush=True)


def progress(entry: dict[str, Any]) -> None:
    """Print an entry of the history, with the rate and the time left."""
    losses = "  ".join(f"{name} {entry[name]:.4g}" for name in ("loss", "validation") if name in entry)
    left = timedelta(seconds=round(entry["seconds_left"]))
    say(f"step {entry['step']:>7}  {losses}  {entry['examples_per_second']:.0f} examples/s  {left} left")


def environment(config: RunConfig) -> dict[str, Any]:
    """Where a run took place: versions, processor, device, precision, processes."""
    device = processes.available(config.device)
    is_cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if is_cuda else str(device),
        "threads": torch.get_num_threads(),
        "processes": processes.world_size(),
        "precision": str(choose(config.amp_dtype, device)).removeprefix("torch."),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write plain data as JSON, each list on one line."""
    text = re.sub(r"\[[^][{}]*]", lambda found: " ".join(found[0].split()), json.dumps(content, indent=1))
    path.write_text(text + "\n", encoding="utf-8")


def picture(path: Path, images: Tensor, columns: int = 8, scale: int = 2) -> None:
    """Write the first columns^2 gray images [N, 1, H, W], -1 black to 1 white, as one PNG in full rows."""
    count = min(len(images), columns**2) // columns * columns
    rows = images[:count].unflatten(0, (-1, columns)).squeeze(2)
    sheet = rows.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)  # [rows H, columns W]
    pixels = ((sheet.clamp(-1, 1) + 1) / 2 * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(path)
