"""The hierarchy's experiment: its objective, what it reads from the levels, and its configuration."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from dmlib import data, rng
from dmlib.experiments import hvae, vae
from dmlib.latent.hvae import information
from dmlib.networks import build

CONFIG = dataclasses.replace(hvae.PRESETS["digits"], latents=(3, 2, 1), widths=(9,), between=(7,), device="cpu")
MODEL = build(hvae.network(CONFIG, (1, 8, 8), 17), seed=5)
X = data.digits("test")[:30]


def test_the_network_is_the_one_that_is_asked_for() -> None:
    assert hvae.network(hvae.PRESETS["digits"], (1, 8, 8), 17) == {
        "name": "hvae", "event": (1, 8, 8), "latents": (8, 4), "hidden": (128, 64), "between": (64,),
        "likelihood": "categorical", "levels": 17,
    }  # fmt: skip
    preset, flat = hvae.PRESETS["digits"], vae.PRESETS["digits"]
    shared = ("lr", "batch_size", "log_every", "patience", "ema_decay", "grad_clip", "widths", "warmup", "cosine")
    assert all(getattr(preset, name) == getattr(flat, name) for name in shared)
    assert preset.steps == 6000
    assert preset.latents[0] == flat.latent


def test_the_loss_is_the_negative_bound_and_free_nats_hold_in_training_alone() -> None:
    plain, free = hvae.objective(MODEL), hvae.objective(MODEL, 50.0)
    drawn = plain.draw(X, generator=rng.generator(1))
    (noise,) = MODEL.draw(X, generator=rng.generator(1))
    assert all(torch.equal(a, b) for a, b in zip(drawn, noise, strict=True))
    assert [tuple(part.shape) for part in drawn] == [(1, 30, 3), (1, 30, 2), (1, 30, 1)]
    terms = MODEL.elbo_terms(X, noise)
    MODEL.eval()
    for objective in (plain, free):
        torch.testing.assert_close(objective.loss(MODEL, X, *drawn), -terms.total)
    MODEL.train()
    torch.testing.assert_close(plain.loss(MODEL, X, *drawn), -terms.total)
    torch.testing.assert_close(free.loss(MODEL, X, *drawn), 50 - terms.reconstruction + terms.transitions.sum(1))
    little = hvae.objective(MODEL, 1e-6).loss(MODEL, X, *drawn)  # A floor below the divergence: only its mean counts.
    torch.testing.assert_close(little, terms.prior.mean() - terms.reconstruction + terms.transitions.sum(1))
    assert terms.prior.mean() > 1e-6


def test_levels_are_read_term_by_term_and_pair_by_pair() -> None:
    found = hvae.read_levels(MODEL, X, chains=3)
    (noise,) = MODEL.draw(X, generator=rng.generator(0, 5), samples=3)
    with torch.no_grad():
        terms, (_, levels) = MODEL.elbo_terms(X, noise), MODEL.levels(X, noise)
    reconstruction, *costs = found["terms"]
    assert reconstruction - sum(costs) == pytest.approx(terms.total.mean().item(), abs=1e-3)
    assert reconstruction == pytest.approx(terms.reconstruction.mean().item(), abs=1e-4)
    assert costs[:2] == pytest.approx(terms.transitions.mean(0).tolist(), abs=1e-4)
    assert costs[2] == pytest.approx(terms.prior.mean().item(), abs=1e-4)
    q, z = levels[0].q, levels[0].z.view(3, 30, 3)
    first = [information(type(q)(q.mean[:30], q.var[:30]), part).mean().item() for part in z]
    between = [information(level.q, level.z).mean().item() for level in levels[1:]]
    assert found["information"] == pytest.approx([sum(first) / 3, *between], abs=1e-4)
    assert found["information"][0] <= math.log(30)
    assert hvae.read_levels(MODEL, X, chains=3) == found  # The same noise in every run.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "mnist"}, "data was 'mnist'; it must be 'digits'"),
        ({"latents": ()}, r"latents was \[\]; it must be one or more integers"),
        ({"widths": (0,)}, r"widths was \[0\]; it must be one or more integers"),
        ({"between": (4, 0)}, r"between was \[4, 0\]; it must be one or more integers"),
        ({"free_nats": -1.0}, "free_nats was -1.0; it must be 0 or more, and finite"),
        ({"free_nats": math.inf}, "free_nats was inf; it must be 0 or more, and finite"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hvae.PRESETS["digits"], **change)
