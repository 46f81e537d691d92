"""What the recorded numbers are measured on, and with: each of these could be another, and the number look as good."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dmlib import metrics, rng
from dmlib.diffusion import bounds, sampling, schedule, variances
from dmlib.experiments import classifier, command, ddpm, measure, vae
from dmlib.learning import checkpoints
from dmlib.learning.training import TrainResult
from dmlib.networks import build
from dmlib.probability import likelihoods

S = schedule.linear(4, beta_1=1e-3, beta_T=0.4)
DDPM = dataclasses.replace(
    ddpm.PRESETS["digits"], name="small", T=4, widths=(8, 8), sets=2, samples=8, sampling_steps=4, bound_images=6,
    bound_steps=4,
)  # fmt: skip


def flat(value: int) -> torch.Tensor:
    """Seven images of one level."""
    return torch.full((7, 1, 8, 8), value)


@pytest.fixture
def source(monkeypatch):
    """Data whose three parts cannot be taken for each other."""
    made = measure.Source("digits", 17, flat(2), flat(8), flat(13))
    monkeypatch.setattr(measure, "source", lambda name: made)
    monkeypatch.setattr(measure, "quality", lambda sets, source: {})
    return made


def trained(monkeypatch, experiment) -> dict:
    """Let `fit` return two different networks at once; what it was given is kept."""
    given = {}

    def fit(model, objective, data, config, **rest):
        given.update(model=model, data=data, validation=rest.get("validation"))
        torch.manual_seed(0)
        ema = build(given["spec"], seed=1)
        for weight in ema.parameters():
            nn.init.normal_(weight, std=0.1)
        given["ema"] = ema
        return TrainResult(model, ema, {"step": [], "loss": [], "validation": []}, 1.0)

    real = experiment.build
    monkeypatch.setattr(experiment, "fit", fit)
    monkeypatch.setattr(experiment, "build", lambda spec, **rest: real(given.setdefault("spec", spec), **rest))
    return given


def test_a_ddpm_is_measured_by_its_average_on_test_images(source, monkeypatch, tmp_path):
    given, seen = trained(monkeypatch, ddpm), {}
    monkeypatch.setattr(ddpm, "held_out_bound", lambda denoiser, *rest: seen.update(denoiser=denoiser) or {"bits": []})
    ddpm.run(dataclasses.replace(DDPM, time_conditional=False, sets=1, samples=8), tmp_path)
    assert given["data"] is source.train
    assert given["validation"] is source.validation
    assert given["spec"]["time_conditional"] is False
    assert seen["denoiser"].args[0].args[0] is given["ema"]


def test_the_bound_is_that_of_test_images_and_the_best_variance_that_of_others(source):
    exact = lambda x_t, t: torch.full_like(x_t, 13 / 8 - 1)  # Perfect on the test images, wrong on the others.
    found = ddpm.held_out_bound(exact, S, DDPM, source)
    assert max(found["terms"][1:4]) == 0
    errors = torch.full((6, 4), 64 * (5 / 8) ** 2)
    best = variances.best_variance(S, errors, 64)
    costs = variances.step_costs(S, 0 * errors, 64, best).sum(1) - variances.step_costs(S, 0 * errors, 64).sum(1)
    assert found["bits_best_variance"][0] - found["bits"][0] == pytest.approx(costs[0].item() / 44.36, rel=1e-3)


def test_a_vae_is_measured_by_its_average_on_test_images(source, monkeypatch, tmp_path):
    given = trained(monkeypatch, vae)
    config = dataclasses.replace(vae.PRESETS["digits"], name="small", widths=(8,), latent=2, sets=1, samples=64)
    found = vae.run(config, tmp_path)
    assert given["data"] is source.train
    assert found["bits"] == vae.held_out_bound(given["ema"].eval(), source.test)["bits"]
    assert found["bits"] != vae.held_out_bound(given["ema"], source.train)["bits"]


def test_a_classifier_is_measured_by_its_average_on_test_images(monkeypatch, tmp_path):
    shipped, card = checkpoints.pretrained("classifier-digits")
    history = {"step": [], "loss": [], "validation": []}
    monkeypatch.setattr(classifier, "fit", lambda model, *rest, **more: TrainResult(model, shipped, history, 1.0))
    found = classifier.run(dataclasses.replace(classifier.PRESETS["digits"], name="small"), tmp_path)
    assert found["accuracy"] == pytest.approx(card["results"]["accuracy"], abs=0.003)
    assert found["train_accuracy"] > found["accuracy"]


def test_held_out_images_are_drawn_at_random_and_the_same_ones_each_time():
    source = measure.source("digits")
    rows = [int((source.test == image).flatten(1).all(1).nonzero()[0]) for image in measure.held_out(source, 40)]
    assert rows == sorted(rows)
    assert max(rows) > 300
    assert torch.equal(measure.held_out(source, 40), measure.held_out(source, 40))
    assert torch.equal(measure.held_out(source, 397), source.test)


def test_every_batch_and_every_set_has_noise_of_its_own(monkeypatch):
    monkeypatch.setattr(measure, "BATCH", 3)
    nothing = lambda x_t, t: 0 * x_t
    one, two = ddpm.draw_samples(lambda x_t, t: x_t.clamp(-1, 1), S, DDPM, (1, 2, 2))
    every = torch.cat([one, two]).flatten(1)
    assert len(one) == 8
    assert torch.cdist(every, every).fill_diagonal_(1).min() > 1e-3
    found = ddpm.one_pass(lambda x_t, t: x_t, S, flat(8), 17)
    assert len(found.errors.unique(dim=0)) == 7
    assert ddpm.one_pass(nothing, S, flat(8), 17).errors.eq(0).all()
    model = build({"name": "vae", "event": (1, 8, 8), "hidden": (8,), "latent": 2, "likelihood": "categorical",
                   "levels": 17}, seed=0)  # fmt: skip
    assert len(set(vae.held_out_bound(model, flat(8), codes=1)["bits"])) == 7


def test_samples_of_a_vae_are_draws_and_no_means():
    model = build({"name": "vae", "event": (1, 8, 8), "hidden": (8,), "latent": 2, "likelihood": "categorical",
                   "levels": 17}, seed=0)  # fmt: skip
    config = dataclasses.replace(vae.PRESETS["digits"], sets=2, samples=9)
    one, two = vae.draw_samples(model, config, 17)
    levels = (one + 1) * 8
    assert torch.equal(levels, levels.round())
    assert levels.std() > 3  # Those of nearly uniform probabilities; means would all be near 8.
    assert not torch.equal(one, two)


def test_quality_compares_with_training_images_and_tells_precision_from_recall():
    source = measure.source("digits")
    unit = measure.to_unit(source.train, 17)
    same = measure.quality([unit], source)
    assert same["frechet"][0] == pytest.approx(0, abs=1e-6)
    assert same["frechet_floor"] > 1
    few = measure.quality([unit[:20].repeat(10, 1, 1, 1)], source)  # 20 images, ten times each.
    assert few["precision"][0] == 1
    assert few["recall"][0] < 0.5
    images = measure.to_unit(measure.held_out(source, 200), 17)
    _, probs = measure.read(images, "digits")
    assert measure.quality([images], source)["unclear"][0] == (probs.amax(1) < 0.9).double().mean()


def test_samples_take_as_many_steps_as_the_configuration_says(monkeypatch):
    seen = []

    def ddim(denoiser, s, x_T, *, times, **rest):
        seen.append(times.tolist())
        return real(denoiser, s, x_T, times=times, **rest)

    real = sampling.ddim
    monkeypatch.setattr(ddpm.sampling, "ddim", ddim)
    for steps, times in ((2, [[4, 2, 0]]), (4, []), (None, [])):  # All steps are those of the ancestral sampler.
        config = dataclasses.replace(DDPM, sets=1, samples=8, sampling_steps=steps)
        ddpm.draw_samples(lambda x, t: 0.5 * x, S, config, (1, 8, 8))
        assert seen == times
        seen.clear()


def test_the_terms_of_a_bound_are_its_two_ends_and_its_steps(source):
    def denoiser(x, t):
        return 0.5 * x

    chain = schedule.linear(4, beta_1=0.05, beta_T=0.3)  # Whose last state is far from noise.
    found = ddpm.held_out_bound(denoiser, chain, DDPM, source)
    assert len(found["terms"]) == 5
    assert sum(found["terms"]) == pytest.approx(found["bits_per_dim"], abs=1e-3)
    x_0 = likelihoods.to_unit(source.test, 17)
    prior = bounds.prior_kl(chain, x_0).double()
    assert found["terms"][-1] == pytest.approx(metrics.bits_per_dim(-prior, 64).mean().item(), abs=1e-4)
    assert found["terms"][-1] > 0.1
    ends = ddpm.one_pass(denoiser, chain, source.test, 17).ends
    torch.testing.assert_close(ends[:, 1], -prior)
    assert (ends[:, 0] < 0).all()


@pytest.mark.parametrize("experiment", [ddpm, vae])
def test_a_sheet_shows_the_first_samples_from_black_to_white(source, monkeypatch, tmp_path, experiment):
    shades = torch.linspace(-1, 1, 80).view(80, 1, 1, 1).expand(80, 1, 8, 8)
    monkeypatch.setattr(experiment, "draw_samples", lambda *args: [shades, -shades])
    monkeypatch.setattr(experiment, "held_out_bound", lambda *args: {})
    config = DDPM if experiment is ddpm else vae.PRESETS["digits"]
    model = nn.Identity() if experiment is ddpm else build(vae.network(config, (1, 8, 8), 17))
    experiment.measured(model, config, tmp_path)
    sheet = np.array(Image.open(tmp_path / "samples.png"))
    assert sheet.shape == (8 * 16, 8 * 16)
    seen = sheet[::16, ::16].flatten() / 255 * 2 - 1
    np.testing.assert_allclose(seen, shades[:64].flatten(1)[:, 0].numpy(), atol=1 / 255)


def test_numbers_of_a_record_are_short():
    assert measure.plain(torch.tensor([0.1234567, 2.0])) == [0.12346, 2.0]
    config, model = vae.PRESETS["digits"], nn.Linear(2, 3)
    found = measure.conclude(config, TrainResult(model, model, {}, 1.23456), {"bits": []}, {})
    assert (found["duration"], found["parameters"], found["bits"]) == (1.235, 9, [])


def test_the_network_and_the_loss_of_a_vae():
    mnist = dataclasses.replace(vae.PRESETS["mnist"], widths=(1,), latent=2)
    spec = vae.network(mnist, (3, 20, 28), 256)
    assert (spec["name"], spec["channels"], spec["size"], spec["widths"]) == ("conv_vae", 3, 28, (1,))
    model = build(vae.network(dataclasses.replace(vae.PRESETS["digits"], widths=(1,)), (1, 8, 8), 17))
    (noise,) = model.draw(flat(3), generator=rng.generator(0))
    torch.testing.assert_close(vae.objective(model).loss(model, flat(3), noise), -model.elbo(flat(3), noise))


def test_the_ends_of_what_a_ddpm_may_be_asked():
    for steps in (1, 4, None):
        asked = dataclasses.replace(DDPM, bound_steps=steps, sampling_steps=steps)
        assert asked.bound_steps == steps
    for name, value in (("bound_steps", 0), ("sampling_steps", 5), ("beta_1", 0.0), ("beta_T", 1.0)):
        with pytest.raises(ValueError, match=rf"^{name} was {value}; it must be (None or in 1\.\.4|in \(0, 1\))"):
            dataclasses.replace(DDPM, **{name: value})


def test_every_stream_has_its_name_so_that_a_record_can_be_made_again(source, monkeypatch):
    names, real = [], rng.generator
    monkeypatch.setattr(rng, "generator", lambda *path, device="cpu": names.append(path) or real(*path, device=device))

    def asked(act) -> list:
        names.clear()
        act()
        return list(names)

    model = build(vae.network(vae.PRESETS["digits"], (1, 8, 8), 17))
    config = dataclasses.replace(vae.PRESETS["digits"], sets=2, samples=8)
    assert asked(lambda: measure.held_out(source, 3)) == [(0, 4)]
    assert asked(lambda: ddpm.draw_samples(lambda x, t: x, S, DDPM, (1, 2, 2))) == [(0, 1, 0), (1, 1, 0)]
    assert asked(lambda: ddpm._noise(flat(1).float(), 3, 5)) == [(0, 2, 3, 5)]
    assert asked(lambda: vae.held_out_bound(model, flat(8))) == [(0, 2, 0)]
    assert asked(lambda: vae.draw_samples(model, config, 17)) == [(0, 1), (1, 1)]


def test_the_noise_of_the_ceiling_and_the_line_of_what_is_clear(monkeypatch):
    names, real = [], rng.generator
    monkeypatch.setattr(rng, "generator", lambda *path, device="cpu": names.append(path) or real(*path, device=device))
    digits = measure.source("digits")
    measure.quality([measure.to_unit(digits.test[:20], 17)], digits)
    assert [name for name in names if len(name) > 1] == [(0, 3), (0, 4)]  # (0,) makes the classifier.
    assert measure._unclear(torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)) == 0.5


def test_what_is_written_is_laid_out_and_cut_to_black_and_white(tmp_path):
    command.write(tmp_path / "a.json", {"a": [1, 2], "b": {"c": 3}})
    assert (tmp_path / "a.json").read_text("utf8") == '{\n "a": [ 1, 2 ],\n "b": {\n  "c": 3\n }\n}\n'
    command.picture(tmp_path / "a.png", torch.tensor([-2.0, -1.0, 1.0, 2.0]).view(4, 1, 1, 1), columns=4, scale=1)
    assert np.array(Image.open(tmp_path / "a.png")).tolist() == [[0, 0, 255, 255]]


def test_a_process_that_does_not_speak_runs_and_writes_nothing(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(command.processes, "is_first", lambda: False)
    command._record(vae.PRESETS["digits"], lambda *args: seen.append(args), tmp_path / "runs")
    assert seen == [(vae.PRESETS["digits"], tmp_path / "runs")]
    assert not (tmp_path / "runs").exists()
