"""Measure the networks that the package ships once more, and put what is found into their records and cards.

python -m dmlib.experiments.again ddpm-digits vae-digits

The weights are those in the package, in half precision. What training left, its duration and its history, stays.
"""

from __future__ import annotations

import dataclasses
import sys

from dmlib.experiments import command, ddpm, hvae, measure, recorded, vae, vqvae
from dmlib.learning import checkpoints

EXPERIMENTS = {"ddpm": ddpm, "hvae": hvae, "vae": vae, "vqvae": vqvae}
OF_TRAINING = ("duration", "history", "dead", "prior_history")  # What a record keeps of it.


def again(name: str) -> None:
    """Measure one shipped network; rewrite the metrics and the samples of its record, and the results of its card."""
    model, card = checkpoints.pretrained(name)
    old, experiment = recorded.record(name), EXPERIMENTS[name.split("-")[0]]
    preset = experiment.PRESETS[card["data"]]
    free = {f.name for f in dataclasses.fields(preset) if f.metadata.get("free")}
    kept = {key: old.config[key] for key in old.config.keys() - free}
    config = dataclasses.replace(preset, **{k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()})
    with checkpoints.replacing(recorded.RECORDS / name) as fresh:
        found = experiment.measured(model, config, fresh)
        found |= {"parameters": sum(weights.numel() for weights in model.parameters())}
        found |= {key: old.metrics[key] for key in OF_TRAINING if key in old.metrics}
        command.write(fresh / "metrics.json", found)
        for part in ("config", "environment"):
            command.write(fresh / f"{part}.json", getattr(old, part))
        recorded.seal(fresh)
    with checkpoints.replacing(checkpoints.WEIGHTS) as fresh:
        command.write(fresh / f"{name}.json", card | {"results": measure.headline(found)})
    command.say(f"{name}: {found['bits_per_dim']:.4f} bits per dimension, distance {found['frechet_pooled']:.2f}")


if __name__ == "__main__":
    for shipped in sys.argv[1:]:
        again(shipped)
