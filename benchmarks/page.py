"""The appendix that is made from the recorded benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import store
from benchmarks.targets import judged
from tools.tables import rows

FOLDER = Path("benchmarks") / "results"
VERDICTS = {True: "met", False: "**missed**", None: "open"}

INTRO = """# Benchmarks

What training and sampling with `dmlib` cost beside other implementations.
The page is made from `benchmarks/results/results.json`, which `make bench` writes on your machine.
"""

READING = """## How to read it

- **A second is a second of one core.** Everything ran at one thread, and a second is one that the processor spent on
  the process: other programs disturb that far less than the time on the wall. On a GPU it is the time on the wall.
- **Comparisons are interleaved.** In each round every contender runs the same block of work, and each round begins
  with another one. A figure is the median over the rounds with its range in brackets, a ratio the median over the
  ratios within a round. A ratio above 1 says that `dmlib` was faster; within the range, ratios mean nothing.
- **The same network** means equal weights, batch, learning rate and data, in float32. *diffusers* and *textbook* are
  loops after the usual tutorials; *smalldiffusion* is its `training_loop`, with the average of its example. All three
  read images one by one from a DataLoader, as their examples do, with a stand-in of the same few operations for
  torchvision's data set. *textbook, tensors* reads one float tensor through a DataLoader instead, which few examples
  do. *dmlib, auto* is `dmlib` in the precision that it chooses for the machine.
- **The natural configuration** of the quality tables is another comparison: there the networks differ too. Those of
  the peers are the ones of their own examples (for smalldiffusion on 8 x 8 images scaled down), with the average
  and the sampler of this book. A smaller network is a legitimate way to be cheaper, but it is not a faster loop.
- **One seed each**, and a few hundred samples: differences of Frechet distances that are small beside the floor,
  the distance of as many held-out images, mean little. Measuring is not part of the training time.
- A target counts as met at 0.95 of a ratio of one, which repeated runs do not tell from it. It is *open* where it
  was not measured, or not far enough to decide.
"""


def page(root: Path) -> str:
    """The benchmarks page, or a line in its place where nothing is recorded."""
    path, notes = root / FOLDER / "results.json", root / FOLDER / "notes.md"
    if not path.exists():
        return f"{INTRO}\nNothing is recorded yet.\n"
    parts = store.read(path)
    sections = [INTRO, machine(parts), READING, targets(judged(parts))]
    sections += [f"## What this run shows\n\n{notes.read_text('utf8')}"] if notes.exists() else []
    makers: dict[str, Callable[[dict[str, Any]], str]] = {
        "speed": speed,
        "quality-digits": lambda part: quality("Digits", part),
        "quality-mnist": lambda part: quality("MNIST", part),
        "sampling": sampling,
        "bound": bound,
        "scaling": scaling,
    }
    return "\n".join([*sections, *(make(parts[name]) for name, make in makers.items() if name in parts)])


def number(x: float) -> str:
    """Three digits, or all before the point."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def spread(found: dict[str, float]) -> str:
    """A median with its range."""
    return f"{number(found['median'])} [{number(found['low'])}, {number(found['high'])}]"


def machine(parts: dict[str, Any]) -> str:
    """Where, when and with which versions each part ran."""
    body = []
    for name, part in parts.items():
        m = part["machine"]
        where = f"{m['processor']}, {m['cores']} cores" if m["device"] == "cpu" else m["device"]
        body.append([name, m["date"], where, str(m["threads"]), str(m["load"]), f"{m['wall']:.0f} s"])
    m = next(iter(parts.values()))["machine"]
    versions = ", ".join(f"{name} {m[name] or 'absent'}" for name in ("python", "torch", "diffusers", "smalldiffusion"))
    units = "has" if m["bfloat16 units"] else "has no"
    load = "*Load* is the number of processes that wanted a processor when the part began."
    table = rows(["part", "date", "machine", "threads", "load", "took"], body)
    return f"{versions}; {m['system']}. The processor {units} units for matrix products in bfloat16. {load}\n\n{table}"


def targets(found: list[dict[str, Any]]) -> str:
    """What was asked, what was found, and the verdict."""
    body = [[t["target"], t["wanted"], finding(t["found"]), VERDICTS[t["met"]]] for t in found]
    return f"## Targets\n\n{rows(['target', 'wanted', 'found', 'verdict'], body)}"


def finding(found: dict[str, Any] | None) -> str:
    """What was found for a target, in words."""
    if found is None:
        return "no GPU was at hand"
    if "against" in found:
        tensors = f"; {number(found['tensors'])} times as *textbook, tensors*" if "tensors" in found else ""
        return f"{spread(found)} times as fast as {found['against']}{tensors}"
    if "dmlib" in found:
        return times({"dmlib": found["dmlib"], **found["others"]}, found["given"]) if found["given"] else "not run"
    return f"{number(found['seconds'])} s at {100 * found['share']:.0f}% of the peak"


def speed(part: dict[str, Any]) -> str:
    """Images per second of a training step."""
    body = []
    for r in part["rows"]:
        auto = spread(r["auto_is_faster"]) if "auto_is_faster" in r else " "
        ratios = [spread(r["dmlib_is_faster"]), auto, f"{100 * r['share_of_peak']:.0f}%"]
        body.append([r["network"], str(r["batch"]), r["loop"], spread(r["images_per_second"]), *ratios])
    header = ["network", "batch", "loop", "images per second", "dmlib is faster", "dmlib, auto is faster", "of peak"]
    peak = f"The peak is a product of two large float32 matrices: {number(part['peak'])} GFLOP per second here."
    return f"## A training step of the same network\n\nOver {part['rounds']} rounds. {peak}\n\n{rows(header, body)}"


def quality(name: str, part: dict[str, Any]) -> str:
    """Frechet distance and bound against training time."""
    if not part["rows"]:
        return f"## Quality against compute: {name}\n\nNot run, for want of time.\n"
    body = []
    for r in part["rows"]:
        bits = f"{r['bits_per_dim']:.2f} ± {r['bits_per_dim_error']:.2f}"
        found = [number(r[key]) for key in ("seconds", "frechet", "precision", "recall")]
        body.append([r["loop"], str(r["images"]), *found, bits])
    header = ["configuration of", "images", "seconds", "Frechet distance", "precision", "recall", "bits per dimension"]
    first = part["rows"][0]
    rungs = f"held-out images reach {number(first['frechet_floor'])}, noise {number(first['frechet_ceiling'])}"
    missing = ", ".join(f"{r['loop']} at {number(r['budget'])} s" for r in part["not_run"])
    left_out = f" Not run, for want of time: {missing}." if missing else ""
    about = f"{first['samples']} samples in {part['sampling_steps']} steps; {rungs}.{left_out}"
    given = {r["loop"]: r["seconds"] for r in part["rows"]}  # of each loop the last
    arrived = [
        f"Training time to {words}: {times(part[key], given)}.\n"
        for key, words in (("seconds_to_target", "twice that floor"), ("seconds_to_floor", "the floor"))
    ]
    return "\n".join([f"## Quality against compute: {name}\n", f"{about}\n", rows(header, body), *arrived])


def times(seconds: dict[str, float | None], given: dict[str, float]) -> str:
    """When each arrived; those that did not need more than they were given."""
    never = {name: f"more than {number(given[name])} s" for name, s in seconds.items() if s is None}
    return ", ".join(f"{name} {never.get(name) or number(s) + ' s'}" for name, s in seconds.items())


def sampling(part: dict[str, Any]) -> str:
    """Seconds for a sheet of images."""
    body = []
    for r in part["rows"]:
        steps = [str(r["steps"]), str(r["steps_timed"])]
        body.append([r["sampler"], r["network"], *steps, r["loop"], spread(r["seconds"]), spread(r["dmlib_is_faster"])])
    header = ["sampler", "network", "steps", "of these timed", "by", "seconds", "dmlib is faster"]
    table = part["not_run"] or rows(header, body)
    return f"## Drawing {part['images']} images from the same network\n\n{table}\n"


def bound(part: dict[str, Any]) -> str:
    """Seconds of the whole bound, and what reduced precision changes."""
    body = [[r["network"], r["precision"], spread(r["seconds"]), spread(r["is_faster"])] for r in part["rows"]]
    shift = part["shift"]
    moved = "Whether bfloat16 shifts it was not measured: there were no trained weights."
    if shift:
        moved = (
            f"On {shift['images']} held-out digits, bfloat16 moves the bound of the shipped network, "
            f"{shift['bits_per_dim']:.3f} bits per dimension, by {shift['mean']:+.4f} ± {shift['error']:.4f} "
            "at the same noise."
        )
    about = f"All {part['T']} terms of {part['images']} digits, scaled from {part['terms_timed']} terms. {moved}"
    table = rows(["network", "precision", "seconds", "faster than float32"], body)
    return f"## The whole bound\n\n{about}\n\n{table}"


def scaling(part: dict[str, Any]) -> str:
    """Cost against T, batch and width, and memory."""
    by_T = [[r["value"], spread(r["training_step"]), spread(r["drawing"])] for r in part["by_T"]]
    batch = [[r["value"], spread(r["images_per_second"])] for r in part["by_batch"]]
    width = [[r["value"], f"{r['parameters']:,}", spread(r["images_per_second"])] for r in part["by_width"]]
    memory = [[r["network"], r["loop"], number(r["added"])] for r in part["memory"]]
    return "\n".join(
        [
            "## How the cost grows\n\nThe U-Net on 8 x 8 images: a training step, and 8 images drawn in all T steps.\n",
            rows(["T", "seconds of a training step", "seconds of drawing"], by_T),
            rows(["batch", "images per second"], batch),
            rows(["widths", "parameters", "images per second"], width),
            "What three training steps add to the memory of a fresh process:\n",
            rows(["network", "loop", "MB"], memory),
        ]
    )
