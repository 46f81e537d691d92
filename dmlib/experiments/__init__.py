"""Recorded runs: how each was made, and what it found."""

from dmlib.experiments.recorded import record
