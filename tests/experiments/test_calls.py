"""Samplers against the number of network calls: what is counted, what is the same for all, and what is left behind."""

from __future__ import annotations

import torch

from dmlib import rng
from dmlib.diffusion import sampling, schedule
from dmlib.experiments import calls, recorded

NOISE = schedule.cosine(40)
FITTED = torch.linspace(-1, 1, 24).view(6, 1, 2, 2)


class Counted:
    """A denoiser that leaves the range, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x, t):
        self.calls += 1
        return 1.5 * x.clamp(-1, 1)


def drawn(name: str, count: int) -> tuple[torch.Tensor, int, int]:
    """The samples of a sampler, how many calls it says it makes, and how many it made."""
    denoiser = Counted()
    draw, said = calls.sampler(name, denoiser, NOISE, count, FITTED)
    before = denoiser.calls
    x_T = torch.randn(3, 1, 2, 2, generator=rng.generator(1))
    return draw(x_T, rng.generator(2)), said, denoiser.calls - before


def test_each_sampler_makes_the_calls_that_it_says():
    made = {name: drawn(name, 10)[1:] for name in calls.SETTINGS}
    assert made == {name: (9, 9) if name == "heun" else (10, 10) for name in calls.SETTINGS}


def test_samplers_differ_and_all_but_the_one_that_keeps_the_noise_are_the_librarys():
    samples = {name: drawn(name, 8)[0] for name in calls.SETTINGS}
    for i, one in enumerate(samples.values()):
        assert one.abs().max() <= 1
        assert all(not torch.equal(one, other) for other in [*samples.values()][i + 1 :])
    clipped = lambda x, t: (1.5 * x.clamp(-1, 1)).clamp(-1, 1)
    x_T = torch.randn(3, 1, 2, 2, generator=rng.generator(1))
    times = range(40, -1, -5)
    path = sampling.ancestral(clipped, NOISE, x_T, generator=rng.generator(2), times=times, variance="beta")
    assert torch.equal(samples["ancestral, beta"], path.x[-1])
    assert torch.equal(samples["ddim"], sampling.ddim(clipped, NOISE, x_T, times=times).x[-1])


def test_a_noise_that_is_kept_belongs_to_the_prediction_before_it_was_clipped():
    within = lambda x, t: 0.3 * x.clamp(-1, 1)
    x_T, times = torch.randn(3, 1, 2, 2, generator=rng.generator(1)), torch.tensor([40, 20, 5, 0])
    path = sampling.ddim(within, NOISE, x_T, times=times)
    assert torch.allclose(calls.noise_kept(within, NOISE, x_T, times), path.x[-1], atol=1e-5)
    beyond = lambda x, t: torch.full_like(x, 3.0)
    a, b = NOISE.alpha_bar[40], NOISE.alpha_bar[20]
    seen = []
    calls.noise_kept(lambda x, t: seen.append(x) or beyond(x, t), NOISE, x_T, times)
    epsilon = (x_T - a.sqrt() * 3) / (1 - a).sqrt()
    assert torch.allclose(seen[1], (b.sqrt() + (1 - b).sqrt() * epsilon).float(), atol=1e-4)


def test_the_best_variance_stands_at_the_times_that_are_visited():
    table = calls.best(Counted(), NOISE, calls.evenly(NOISE, 4), FITTED)
    assert table.shape == (41,)
    assert table.nonzero().flatten().tolist() == [20, 30, 40]  # The step to 0 draws nothing.


def test_a_record_has_a_distance_for_each_seed_and_leaves_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "SEEDS", 2)
    monkeypatch.setattr(calls, "SAMPLES", 12)
    monkeypatch.setattr(recorded, "RECORDS", tmp_path)
    calls.main("digits", {"ddim": (10,), "heun": (10,)})
    record = recorded.record("calls-digits", folder=tmp_path)
    assert record.config["weights"] == "ddpm-digits"
    assert record.config["samples"] == 12
    assert record.metrics["floor"] < record.metrics["ceiling"]
    for name, made in (("ddim", 10), ("heun", 9)):
        found = record.metrics[name]["10"]
        assert found["calls"] == made
        assert len(found["frechet"]) == len(found["unclear"]) == 2
        assert 0 < found["frechet_pooled"] < min(found["frechet"])
        assert max(found["frechet"]) < record.metrics["ceiling"]
    assert record.sheet.shape == (2 * 16, 8 * 16)


def test_the_shipped_record_is_that_of_the_settings():
    record = recorded.record("calls-mnist")
    assert record.config["settings"] == {name: list(counts) for name, counts in calls.SETTINGS.items()}
    assert (record.config["seeds"], record.config["samples"]) == (calls.SEEDS, calls.SAMPLES)
    for name, counts in calls.SETTINGS.items():
        assert [*record.metrics[name]] == [str(n) for n in counts]
        assert all(len(row["frechet"]) == calls.SEEDS for row in record.metrics[name].values())
