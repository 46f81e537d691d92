"""Streams: made again from their names, different for different names."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlib import rng

names = st.lists(st.integers(0, 2**70), min_size=1, max_size=4)


def first_draws(*name: int) -> list[int]:
    return torch.randint(2**62, (4,), generator=rng.generator(*name)).tolist()


@settings(deadline=None)
@given(names)
def test_a_name_makes_its_stream_again(name: list[int]) -> None:
    assert first_draws(*name) == first_draws(*name)


@settings(deadline=None)
@given(names, names)
def test_two_names_have_two_streams(one: list[int], other: list[int]) -> None:
    assert (first_draws(*one) == first_draws(*other)) == (one == other)


def test_near_names_have_two_streams() -> None:
    near = [(), (0,), (0, 0), (1,), (1, 2), (12,), (2, 1), (1, 2, 0), (2**32,), (2**64,), (1, 2**32)]
    streams = [tuple(first_draws(7, *path)) for path in near]
    assert len(set(streams)) == len(near)


def test_first_draws_of_neighbors_are_uniform_and_uncorrelated() -> None:
    n = 4000
    draws = torch.stack([torch.rand(2, generator=rng.generator(3, step), dtype=torch.float64) for step in range(n)])
    centered = (draws - 0.5) * math.sqrt(12)
    statistics = {
        "mean": centered[:, 0],
        "variance": (centered[:, 0] ** 2 - 1) / math.sqrt(9 / 5 - 1),
        "next name": centered[1:, 0] * centered[:-1, 0],
        "next draw": centered[:, 0] * centered[:, 1],
    }
    for name, draw in statistics.items():
        assert abs(draw.mean().item()) * math.sqrt(len(draw)) < 4.5, name


def test_seeds_are_pinned() -> None:
    # Recorded runs name their streams: a change of the hash would make every one of them another run.
    assert rng.generator(0).initial_seed() == 4066689987807800415
    assert rng.generator(3, 1, 4).initial_seed() == 775904240800610109


def test_the_state_of_the_process_is_not_touched() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=rng.generator(0, device="cpu"))
    assert torch.equal(before, torch.get_rng_state())
    assert rng.generator(0, device=torch.device("cpu")).device.type == "cpu"


bad = st.one_of(st.integers(max_value=-1), st.floats(), st.text(), st.none(), st.booleans())


@settings(deadline=None)
@given(bad, st.lists(st.integers(0, 9), max_size=2))
def test_negative_and_non_integer_names_raise(wrong: object, path: list[int]) -> None:
    for name in itertools.permutations([wrong, *path]):
        with pytest.raises(ValueError, match=r"entry of \(seed, \*path\) was .*; it must be an integer"):
            rng.generator(*name)
