"""The experiment of discrete latents: its network, its restarts, its three priors and an evidence that is counted."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from dmlib import metrics, rng
from dmlib.experiments import measure, vqvae
from dmlib.latent.discrete import perplexity
from dmlib.networks import build
from dmlib.probability import likelihoods

CONFIG = dataclasses.replace(
    vqvae.PRESETS["digits"], name="small", widths=(8,), positions=2, n_codes=3, dim=2, restarts=2, restart_steps=2,
    batch_size=8, prior_hidden=4, prior_steps=4, log_every=2, steps=4, sets=2, samples=9, device="cpu",
)  # fmt: skip


def source(n: int = 12) -> measure.Source:
    full = measure.source("digits")
    return full._replace(train=full.train[:n], validation=full.validation[:5], test=full.test[:7])


def model(seed: int = 0, scale: float = 3.0):
    made = build(vqvae.network(CONFIG, (1, 8, 8), 17), seed=seed).eval()
    for weight in (*made.prior.parameters(), made.quantizer.codebook):
        weight.data *= scale
    return made


def test_the_network_is_that_of_the_configuration() -> None:
    spec = vqvae.network(CONFIG, (1, 4, 6), 5)
    made = build(spec)
    assert (spec["name"], spec["likelihood"], spec["levels"]) == ("vqvae", "categorical", 5)
    assert made.quantizer.codebook.shape == (3, 2)
    assert made.prior.shape == (2, 3)
    assert made.prior.weight.shape == (2, 4, 3)
    assert made.encoder.mlp.layers[0].weight.shape == (8, 24)
    assert made.decode(torch.zeros(1, 2, dtype=torch.int64))[0].shape == (1, 1, 4, 6, 5)


def test_the_losses_are_those_of_the_model_and_of_its_prior() -> None:
    made, x = model(), source().train
    heavy = dataclasses.replace(CONFIG, commitment=2.0)
    assert vqvae.objective(heavy).draw(x, generator=None) == ()
    torch.testing.assert_close(vqvae.objective(heavy).loss(made, x), made.loss(x, 2.0))
    idx = vqvae.codes(made, x)
    assert torch.equal(idx, made.quantize(x).idx)
    assert vqvae.prior_objective().draw(idx, generator=None) == ()
    torch.testing.assert_close(vqvae.prior_objective().loss(made.prior, idx), -made.log_prior(idx))


def test_restarts_train_each_time_on_other_batches_and_leave_no_code_dead(monkeypatch) -> None:
    seen, real = [], vqvae.fit
    monkeypatch.setattr(vqvae, "fit", lambda *args, **rest: seen.append(args[3]) or real(*args, **rest))
    made = build(vqvae.network(CONFIG, (1, 8, 8), 17), seed=1)
    made.prior = None
    made.quantizer.codebook.data += 100 * torch.arange(3)[:, None]
    dead = vqvae.revive(made, dataclasses.replace(CONFIG, seed=7), source().train)
    assert dead[0] == 2
    assert len(dead) == 2
    assert [(c.steps, c.patience, c.checkpoint, c.seed) for c in seen] == [(2, None, None, 1007), (2, None, None, 2007)]
    assert made.training
    assert made.quantizer.codebook.abs().max() < 50
    names, generator = [], rng.generator
    monkeypatch.setattr(rng, "generator", lambda *path, **rest: names.append(path) or generator(*path, **rest))
    vqvae.revive(made, dataclasses.replace(CONFIG, seed=7), source().train)
    assert [name for name in names if len(name) == 3] == [(7, 5, 0), (7, 5, 1)]
    assert vqvae.revive(made, dataclasses.replace(CONFIG, restarts=0), source().train) == []


def test_the_prior_is_fitted_to_training_codes_and_stopped_by_those_of_the_validation_images(monkeypatch) -> None:
    given, real = {}, vqvae.fit

    def fit(prior, objective, data, config, **rest):
        given.update(data=data, validation=rest["validation"], config=config)
        return real(prior, objective, data, config, **rest)

    monkeypatch.setattr(vqvae, "fit", fit)
    made, data = model(), source()
    prior, history = vqvae.fit_prior(made.prior, made, dataclasses.replace(CONFIG, checkpoint="no"), data)
    assert torch.equal(given["data"], vqvae.codes(made, data.train))
    assert torch.equal(given["validation"], vqvae.codes(made, data.validation))
    assert (given["config"].steps, given["config"].checkpoint) == (4, None)
    assert history["step"] == [2, 4]
    assert prior is not made.prior


def test_the_bounds_are_those_of_three_priors_on_test_images() -> None:
    made, data = model(), source()
    found = vqvae.held_out_bounds(made, data)
    for name, uniform in (("bits", False), ("uniform", True)):
        bits = found["bits"] if name == "bits" else found["uniform"]["bits"]
        expected = metrics.bits_per_dim(made.elbo_terms(data.test, uniform).total, 64)
        assert bits == pytest.approx(expected.tolist(), abs=2e-5)
    log_lik = made.elbo_terms(data.test).reconstruction
    alone = metrics.independent_pixels(made.quantize(data.train).idx, made.quantize(data.test).idx, levels=3)
    expected = metrics.bits_per_dim(log_lik.double() + alone, 64)
    assert found["independent"]["bits"] == pytest.approx(expected.tolist(), abs=2e-5)
    bits = lambda total: metrics.bits_per_dim(total, 64).mean().item()
    assert found["reconstruction"] == pytest.approx(bits(log_lik), abs=1e-5)
    terms = made.elbo_terms(data.train)
    assert found["train"]["reconstruction"] == pytest.approx(bits(terms.reconstruction), abs=1e-5)
    assert found["train"]["fitted"] == pytest.approx(bits(terms.total), abs=1e-5)
    assert found["train"]["uniform"] == pytest.approx(bits(made.elbo_terms(data.train, True).total), abs=1e-5)


@pytest.mark.parametrize("chunk", [4, 9, 100])
def test_the_evidence_counts_all_codes(chunk) -> None:
    made, data = model(), source()
    found = vqvae.evidence(made, data.test, 17, chunk)
    rows = torch.tensor(list(itertools.product(range(3), repeat=2)))
    for name, uniform in (("fitted", False), ("uniform", True)):
        joint = [
            likelihoods.categorical(made.decode(row[None])[0].expand(7, 1, 8, 8, 17), data.test)
            + made.log_prior(row[None], uniform)
            for row in rows
        ]
        torch.testing.assert_close(found[name], torch.stack(joint).logsumexp(0), rtol=1e-5, atol=1e-4)
        assert (made.elbo_terms(data.test, uniform).total <= found[name] + 1e-4).all()


def test_the_use_of_codes_is_that_of_the_training_images() -> None:
    made, data = model(), source(40)
    idx = vqvae.codes(made, data.train)
    assert vqvae.usage(made, data) == {"used": idx.unique().numel(), "perplexity": perplexity(idx, 3).item()}


def test_samples_are_sets_of_their_own_from_either_prior(monkeypatch) -> None:
    names, real = [], rng.generator
    monkeypatch.setattr(rng, "generator", lambda *path, device="cpu": names.append(path) or real(*path, device=device))
    made = model()
    names.clear()
    one, two = vqvae.draw_samples(made, CONFIG, 17)
    assert names == [(0, 1), (1, 1)]
    assert one.shape == (9, 1, 8, 8)
    assert not torch.equal(one, two)
    levels = (one + 1) * 8
    assert torch.equal(levels, levels.round())
    flat, _ = vqvae.draw_samples(made, CONFIG, 17, uniform=True)
    expected = made.sample(9, generator=real(0, 1), uniform=True)
    assert torch.equal(flat, likelihoods.to_unit(expected, 17))
    assert not torch.equal(flat, one)


def test_a_run_measures_the_average_with_the_fitted_prior(monkeypatch, tmp_path) -> None:
    data, kept = source(), {}
    monkeypatch.setattr(measure, "source", lambda name: data)
    names = ("frechet", "precision", "recall", "unclear")
    monkeypatch.setattr(measure, "quality", lambda sets, source: {name: [sets[0].mean().item()] for name in names})
    real = vqvae.measured
    monkeypatch.setattr(vqvae, "measured", lambda m, *rest: kept.update(model=m) or real(m, *rest))
    found = vqvae.run(CONFIG, tmp_path)
    made = kept["model"]
    assert made.prior is not None
    assert not made.training
    assert found["bits"] == vqvae.held_out_bounds(made, data)["bits"]
    assert found["evidence_fitted"]["bits_per_dim"] <= found["bits_per_dim"] + 1e-5
    assert found["evidence_uniform"]["images"] == 7
    assert found["parameters"] == sum(p.numel() for p in made.parameters())
    assert len(found["dead"]) == 2
    assert found["prior_history"]["step"] == [2, 4]
    assert found["uniform_samples"]["frechet"] != found["frechet"]
    first = (vqvae.draw_samples(made, CONFIG, 17)[0][0, 0] + 1) / 2 * 255
    sheet = np.array(Image.open(tmp_path / "samples.png"))
    np.testing.assert_allclose(sheet[:16:2, :16:2], first.numpy(), atol=0.5)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("positions", 0, "positions was 0; it must be an integer, 1 or more"),
        ("dim", 0, "dim was 0"),
        ("n_codes", 1, "n_codes was 1; it must be an integer, 2 or more"),
        ("restarts", -1, "restarts was -1; it must be an integer, 0 or more"),
        ("restart_steps", 0, "restart_steps was 0"),
        ("prior_hidden", 0, "prior_hidden was 0"),
        ("prior_steps", 0, "prior_steps was 0"),
        ("commitment", -0.1, "commitment was -0.1; it must be 0 or more"),
        ("widths", (0,), "widths was (0,); it must be one or more integers above 0"),
        ("widths", (), "widths was (); it must be one or more integers above 0"),
    ],
)
def test_a_run_that_could_not_be_is_refused(name, value, words) -> None:
    with pytest.raises(ValueError, match="was") as raised:
        dataclasses.replace(CONFIG, **{name: value})
    assert str(raised.value).startswith(words)
    assert dataclasses.replace(CONFIG, commitment=0.0, restarts=0).commitment == 0
