"""Record the baselines of a data set: independent pixels and a mixture of products, on held-out images.

python -m dmlib.experiments.baselines mnist

The record, baselines-<data>, goes into the package. The third baseline, uniform levels, is a formula.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from dmlib import metrics, rng
from dmlib.experiments import command, measure, recorded
from dmlib.learning import checkpoints

SEED, IMAGES, FITTED, HELD_BACK, SIZES = 0, 100, 20_000, 4_000, (20, 40, 80)


def measured(source: measure.Source) -> dict[str, Any]:
    """The bits of each held-out image under both baselines; the mixture is fitted to the first FITTED images.

    Its size is chosen on the HELD_BACK images after them, unless the data have a validation split.
    """
    test, dims = measure.held_out(source, IMAGES), source.test[0].numel()
    train = source.train[:FITTED]
    validation = source.train[FITTED:][:HELD_BACK] if source.validation is None else source.validation
    alone = metrics.independent_pixels(source.train, test, levels=source.levels)
    mixed, size = metrics.mixture_of_products(
        train, validation, test, levels=source.levels, sizes=SIZES, generator=rng.generator(SEED)
    )
    return {"independent": measure.bound(alone, dims), "mixture": measure.bound(mixed, dims), "size": size}


def main(data: str) -> None:
    """Measure the baselines and write their record."""
    start = time.perf_counter()
    found = measured(measure.source(data))
    found["duration"] = round(time.perf_counter() - start, 3)
    asked = {"data": data, "seed": SEED, "fitted": FITTED, "held_back": HELD_BACK, "sizes": SIZES}
    where = command.environment(command.RunConfig(steps=1, device="cpu"))
    with checkpoints.replacing(recorded.RECORDS / f"baselines-{data}") as fresh:
        for part, content in (("config", asked), ("environment", where), ("metrics", found)):
            command.write(fresh / f"{part}.json", content)
        recorded.seal(fresh)
    command.say(" ".join(f"{name} {found[name]['bits_per_dim']:.4f}" for name in ("independent", "mixture")))


if __name__ == "__main__":
    main(sys.argv[1])
