"""How a model is judged: its bits per dimension, and its samples."""

from dmlib.metrics.bits import (
    bits_per_dim,
    expectation_maximization,
    independent_pixels,
    mixture_of_products,
    uniform_bpd,
)
from dmlib.metrics.samples import energy_distance, frechet, mmd_rbf, precision_recall, sliced_wasserstein
