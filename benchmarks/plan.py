"""How much is measured: all of it, or as little as shows that everything runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The sizes of a run; the defaults are those of the table in the book."""

    rounds: int = 11  # Of each interleaved comparison.
    block: float = 0.5  # Seconds that one timed block of training steps takes at least.
    batch: int = 128  # Of 8 x 8 images and of MLPs; 28 x 28 images come in smaller batches.
    is_quick: bool = False
    budgets: tuple[float, ...] = (30, 60, 120, 360)  # Seconds of training on digits before each measurement.
    mnist_budgets: tuple[float, ...] = (60, 150, 450)
    samples: int = 397  # Of which the Frechet distance is taken: as many as there are test digits.
    mnist_samples: int = 200
    sampling_steps: int = 100  # Of the samples in the quality table, alike for all.
    mnist_sampling_steps: int = 20
    ddim_steps: int = 50  # Of the timed samplers.
    timed_steps: int = 20  # From which the cost of 1000 ancestral steps is extrapolated.
    drawn: int = 64  # Images of the timed samplers.
    terms: int = 20  # From which the cost of all T terms of the bound is extrapolated.
    bound_images: int = 1000
    strata: int = 16  # Terms for each image in the quality table's bound.


QUICK = Plan(
    rounds=2, block=0.0, batch=4, is_quick=True, budgets=(0.01, 0.02), mnist_budgets=(0.01,), samples=8,
    mnist_samples=8, sampling_steps=2, mnist_sampling_steps=2, ddim_steps=2, timed_steps=2, drawn=2, terms=2,
    bound_images=4, strata=2,
)  # fmt: skip
