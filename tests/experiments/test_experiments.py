"""The experiments' command line: options with types, records, one clear line for each failure, and weights to ship."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dmlib import data, metrics, networks, rng
from dmlib.diffusion import bounds, parameterization, schedule
from dmlib.experiments import baselines, classifier, command, ddpm, hvae, measure, record, vae, vqvae
from dmlib.experiments import recorded as recorded_runs
from dmlib.learning import checkpoints, processes
from dmlib.probability import mixture

SMALL = {
    ddpm: "--steps 4 --log_every 2 --batch_size 8 --T 3 --widths 8,8 --sets 2 --samples 40 --sampling_steps 3"
    " --bound_images 5 --bound_steps 3",
    vae: "--steps 4 --log_every 2 --batch_size 8 --widths 8 --latent 2 --sets 2 --samples 40",
    hvae: "--steps 4 --log_every 2 --batch_size 8 --widths 8 --latents 3,2 --between 4 --sets 2 --samples 40",
    classifier: "--steps 4 --log_every 2 --batch_size 8 --widths 4",
    vqvae: "--steps 4 --log_every 2 --batch_size 8 --widths 8 --positions 2 --n_codes 4 --dim 2 --restarts 1"
    " --restart_steps 2 --prior_steps 4 --sets 2 --samples 40",
}
needs_mnist = pytest.mark.skipif(
    "DMLIB_DATA" not in os.environ, reason="DMLIB_DATA names no folder with the files of MNIST"
)
each_experiment = pytest.mark.parametrize("experiment", SMALL, ids=lambda module: module.__name__.split(".")[-1])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an experiment's command line in an empty folder; returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def main(experiment, line: str = "") -> int:
        monkeypatch.setattr(sys, "argv", ["experiment", *SMALL[experiment].split(), *line.split()])
        return command.main(experiment, experiment.PRESETS, experiment.run)

    return main


def recorded(tmp_path, name: str, file: str) -> dict:
    return json.loads((tmp_path / "runs" / name / file).read_text("utf8"))


@each_experiment
def test_a_run_is_recorded_with_all_that_made_it(run, tmp_path, experiment, capsys):
    assert run(experiment) == 0
    name = f"{experiment.__name__.split('.')[-1]}-digits"
    config, metrics, where = (recorded(tmp_path, name, f"{f}.json") for f in ("config", "metrics", "environment"))
    assert set(config) == {field.name for field in dataclasses.fields(experiment.PRESETS["digits"])}
    assert config["steps"] == 4
    assert config["name"] == name
    assert metrics["duration"] > 0
    assert metrics["history"]["step"] == [2, 4]
    assert where["torch"] == torch.__version__
    assert where["precision"] == "float32"
    assert where["device"] == "cpu"
    lines = capsys.readouterr().out.splitlines()
    assert "'precision': 'float32'" in lines[0]
    assert [line.split()[:2] for line in lines[1:3]] == [["step", "2"], ["step", "4"]]
    assert all("examples/s" in line and line.endswith("left") for line in lines[1:3])


@each_experiment
def test_every_field_is_an_option(experiment, capsys):
    with pytest.raises(SystemExit) as stop:
        command.parse(experiment, experiment.PRESETS, ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(experiment.PRESETS["digits"]):
        assert f"--{field.name} " in text
    assert "python -m dmlib.experiments." in text


def parsed(line: str) -> ddpm.DDPMConfig:
    return command.parse(ddpm, ddpm.PRESETS, line.split())


def test_options_have_types_and_the_data_choose_the_preset():
    config = parsed(
        "--steps 7 --lr 0.5 --widths 8,16,24 --time_conditional false --grad_clip None --patience 3 --kind v"
    )
    changed = {
        "steps": 7,
        "lr": 0.5,
        "widths": (8, 16, 24),
        "time_conditional": False,
        "grad_clip": None,
        "patience": 3,
        "kind": "v",
    }
    assert config == dataclasses.replace(ddpm.PRESETS["digits"], **changed)
    assert parsed("--data mnist --T 50") == dataclasses.replace(ddpm.PRESETS["mnist"], T=50)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--steps many", "argument --steps: the value was 'many'; it must be int"),
        ("--steps 1.5", "argument --steps: the value was '1.5'; it must be int"),
        ("--steps None", "argument --steps: the value was 'None'; it must be int"),
        ("--time_conditional maybe", "argument --time_conditional: the value was 'maybe'; it must be bool"),
        ("--widths 8,x", "argument --widths: the value was '8,x'; it must be integers,like,these"),
        ("--patience soon", "argument --patience: the value was 'soon'; it must be int|None"),
        ("--data cifar", "argument --data: invalid choice: 'cifar'"),
        ("--lr -1", "lr was -1.0; it must be more than 0"),
        ("--learning_rate 1", "unrecognized arguments: --learning_rate 1"),
        ("--kind w", "kind was 'w'; it must be one of x_0, eps, score, v, mean"),
        ("--weighting none", "weighting was 'none'; it must be one of simple, elbo"),
        ("--schedule cosin", "schedule was 'cosin'; it must be one of linear, cosine"),
        ("--beta_T 1.5", "beta_T was 1.5; it must be in (0, 1)"),
        ("--T 0", "T was 0; it must be an integer, 1 or more"),
        ("--T 100 --sampling_steps 101", "sampling_steps was 101; it must be None or in 1..100, the steps T of the"),
        ("--bound_steps 201", "bound_steps was 201; it must be None or in 1..200, the steps T of the chain"),
        ("--bound_steps 0", "bound_steps was 0; it must be None or in 1..200"),
        ("--bound_images 1", "bound_images was 1; it must be an integer, 2 or more"),
        ("--samples 7", "samples was 7; it must be an integer, 8 or more"),
        ("--sets 0", "sets was 0; it must be an integer, 1 or more"),
        ("--name ../other", "name was '../other'; it must be that of a folder in runs/, without a path"),
        ("--name ..", "name was '..'; it must be that of a folder in runs/"),
    ],
)
def test_bad_options_end_in_one_line(line, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(line)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "--likelihood bernoulli",
            "likelihood was 'bernoulli'; it must be one of binomial, categorical, discretized_gau",
        ),
        (
            "--data mnist --likelihood categorical",
            "likelihood was 'categorical'; it must be one of binomial, discretized",
        ),
        ("--latent 0", "latent was 0; it must be an integer, 1 or more"),
        ("--widths 8,0", "widths was (8, 0); it must be one or more integers, each 1 or more"),
        ("--samples 7", "samples was 7; it must be an integer, 8 or more"),
    ],
)
def test_a_vae_that_could_not_be_measured_is_refused(line, words, capsys):
    with pytest.raises(SystemExit):
        command.parse(vae, vae.PRESETS, line.split())
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_the_steps_that_are_measured_follow_those_of_the_chain():
    source, config = measure.source("digits"), parsed("--T 4 --bound_images 3")
    s = schedule.build(ddpm.noise(config))
    calls = []

    def denoiser(x, t):
        calls.append(t[0].item())
        return x.clamp(-1, 1)

    ddpm.draw_samples(denoiser, s, dataclasses.replace(config, samples=8, sets=1), (1, 8, 8))
    assert calls == [4, 3, 2, 1]
    assert len(ddpm.held_out_bound(denoiser, s, config, source)["terms"]) == 4 + 1


@pytest.mark.parametrize(
    ("experiment", "line", "words"),
    [
        (ddpm, "--patch 0", "patch was 0; it must be an integer, 1 or more"),
        (ddpm, "--blocks 0", "blocks was 0; it must be an integer, 1 or more"),
        (classifier, "--features 0", "features was 0; it must be an integer, 1 or more"),
        (classifier, "--widths 0", "widths was [0]; it must be one or more integers, each 1 or more"),
    ],
)
def test_a_network_that_is_none_is_named_before_a_step(run, capsys, experiment, line, words):
    assert run(experiment, line) == 1
    said = capsys.readouterr()
    assert said.err.endswith(f"{words}\n")
    assert said.err.count("\n") == 1
    assert "step" not in said.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--device cuda:7", "ddpm-digits: device was 'cuda:7'; it must be 'auto' or one of"),
        ("--steps 30 --log_every 1 --lr 1e30", "loss was nan at step 1"),
        ("--widths 9", "ddpm-digits: widths was (9,); it must be one or more multiples of 8"),
    ],
)
def test_failures_end_in_one_line(run, capsys, line, words):
    if torch.cuda.device_count() > 7:
        pytest.skip("there are as many GPUs as the test asks for")
    assert run(ddpm, line) == 1
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_damaged_checkpoint_and_a_changed_configuration_end_in_one_line(run, tmp_path, capsys):
    assert run(vae) == 0
    before = recorded(tmp_path, "vae-digits", "metrics.json")
    assert run(vae, "--lr 0.5") == 1
    assert "lr = 0.002; it must be this one, with lr = 0.5; or name another file" in capsys.readouterr().err
    path = tmp_path / "runs" / "vae-digits" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert run(vae) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "was damaged or of another kind" in line
    assert recorded(tmp_path, "vae-digits", "metrics.json") == before


@pytest.mark.apart
def test_a_stopped_command_says_how_to_go_on_and_does(run, tmp_path, capsys):
    line = "--steps 600 --log_every 40 --patience None"
    command_line = [sys.executable, "-m", "dmlib.experiments.vae", *SMALL[vae].split(), *line.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([*command_line, "--name", "stopped"], cwd=tmp_path, env=environment, **pipes)
    while not process.stdout.readline().startswith("step      40"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "stopped at step" in err
    assert "the same call continues from runs/stopped/checkpoint.safetensors" in err
    for name in ("stopped", "whole"):
        assert run(vae, f"{line} --name {name}") == 0
    assert capsys.readouterr().err == ""
    stopped, whole = (recorded(tmp_path, name, "metrics.json") for name in ("stopped", "whole"))
    assert stopped.pop("duration") > 0
    whole.pop("duration")
    assert stopped == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_measuring_ends_in_one_line(run, monkeypatch, capsys, number):
    before = signal.signal(number, lambda *rest: None)
    monkeypatch.setattr(measure, "quality", lambda *args: signal.raise_signal(number))
    assert run(vae) == 130
    signal.signal(number, before)
    words = "stopped outside of training; the same command continues from runs/vae-digits/checkpoint.safetensors"
    assert capsys.readouterr().err == f"vae-digits: {words}\n"


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".png")}


@pytest.mark.parametrize("file", ["samples.png", "metrics.json", "environment.json"])
def test_a_full_disk_keeps_the_whole_record_before(run, tmp_path, monkeypatch, capsys, file):
    assert run(vae) == 0
    folder = tmp_path / "runs" / "vae-digits"
    before = contents(folder)
    capsys.readouterr()

    def full(write):
        def checked(path, *rest):
            write(path, *rest)
            if path.name == file:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        return checked

    with monkeypatch.context() as patch:
        patch.setattr(command, "write", full(command.write))
        patch.setattr(command, "picture", full(command.picture))
        assert run(vae, "--samples 48") == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert err.count("\n") == 1
    assert contents(folder) == before
    assert not (folder / "unfinished").exists()
    assert run(vae, "--samples 48") == 0
    after = contents(folder)
    assert after.keys() == before.keys()
    assert json.loads(after["metrics.json"])["samples"] == 48


def test_a_record_in_the_package_is_replaced_whole(tmp_path, monkeypatch):
    run, package = tmp_path / "a", tmp_path / "package"
    run.mkdir()
    for part in recorded_runs.TEXTS:
        (run / f"{part}.json").write_text('{"run": 1}')
    recorded_runs.seal(run)
    recorded_runs.keep(run, folder=package)
    (run / "config.json").write_text('{"run": 2}')
    (run / "environment.json").unlink()
    with pytest.raises(FileNotFoundError):
        recorded_runs.keep(run, folder=package)
    assert recorded_runs.record("a", folder=package).config == {"run": 1}


def test_two_runs_of_one_name_are_told_apart(run, tmp_path, capsys):
    with processes.alone(tmp_path / "runs" / "vae-digits" / "lock"):
        assert run(vae) == 1
        words = f"runs/vae-digits/lock was held by process {os.getpid()} on "
        assert words in capsys.readouterr().err
        assert run(vae, "--name other") == 0
    assert run(vae) == 0


def test_a_run_goes_on_where_nobody_listens(run, monkeypatch):
    def gone(*args, **options):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    assert run(vae) == 0


@pytest.mark.apart
def test_two_processes_speak_once(tmp_path):
    line = [*SMALL[vae].split(), "--steps", "2", "--device", "cpu"]
    pair = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*pair, "-m", "dmlib.experiments.vae", *line], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert done.stdout.count("'torch'") == first.count("'processes': 2") == 1
    assert last == "vae-digits: recorded in runs/vae-digits"
    assert recorded(tmp_path, "vae-digits", "environment.json")["processes"] == 2


@each_experiment
def test_weights_are_published_with_their_card_and_load_again(run, tmp_path, monkeypatch, experiment):
    publish = checkpoints.publish
    monkeypatch.setattr(checkpoints, "publish", lambda *args: publish(*args, folder=tmp_path))
    assert run(experiment, "--publish True --name small") == 0
    model, card = checkpoints.pretrained("small", folder=tmp_path)
    assert not model.training
    assert card["config"]["steps"] == 4
    assert card["data"] == "digits"
    assert card["levels"] == 17
    assert card["seed"] == 0
    assert card["device"] == "cpu"
    assert card["duration"] > 0
    kept = checkpoints.load(tmp_path / "runs" / "small" / "checkpoint.safetensors")[0]
    for key, value in checkpoints.unpack(kept, "best" if "best" in {k.split(".")[0] for k in kept} else "ema").items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    file = tmp_path / "small.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"the SHA-256 of small.safetensors was \w+; it must be \w+, that of its card"):
        checkpoints.pretrained("small", folder=tmp_path)
    with pytest.raises(ValueError, match="name was 'large'; it must be one of small"):
        checkpoints.pretrained("large", folder=tmp_path)


SHIPPED = sorted(path.stem for path in checkpoints.WEIGHTS.glob("*.json"))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_the_package_ships_is_small_and_says_where_it_comes_from(name):
    model, card = checkpoints.pretrained(name)
    assert (checkpoints.WEIGHTS / f"{name}.safetensors").stat().st_size < 4_000_000
    assert {"network", "data", "levels", "config", "seed", "device", "duration", "results", "sha256"} <= card.keys()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    event = (2, *data.digits("test").shape[1:]) if card["data"] == "digits" else (2, 1, 28, 28)
    if name.startswith("ddpm"):
        s = schedule.build(card["schedule"])
        denoiser = parameterization.as_denoiser(model, s, card["kind"])
        assert denoiser(torch.zeros(event), torch.tensor([1, s.T])).isfinite().all()
        assert {"frechet", "frechet_floor", "bits_per_dim", "bits_per_dim_error"} <= card["results"].keys()


def test_the_shipped_names():
    kinds = [f"{model}-{source}" for model in ("classifier", "ddpm", "vae") for source in ("digits", "mnist")]
    assert sorted([*kinds, "hvae-digits", "vqvae-digits", "vae-digits-plane"]) == SHIPPED


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith("classifier")])
def test_cards_say_what_the_records_hold(name):
    _, card = checkpoints.pretrained(name)
    found = record(name).metrics
    assert card["results"] == measure.headline(found)
    assert np.mean(found["bits"]) == pytest.approx(found["bits_per_dim"], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "count"), [("ddpm-mnist", 40), ("vae-mnist", 200), ("vae-digits", 200), ("hvae-digits", 200)]
)
def test_shipped_networks_draw_what_their_records_say(name, count):
    """Samples of every class, and as many that the classifier, which is judged by this too, is not sure of."""
    model, card = checkpoints.pretrained(name)
    if "vae" in name:
        levels = model.sample(count, generator=rng.generator(3))
        side = {"digits": 8, "mnist": 28}[card["data"]]
        images = measure.to_unit(levels, card["levels"]).view(count, 1, side, side)
    else:
        s, config = schedule.build(card["schedule"]), dataclasses.replace(ddpm.PRESETS["mnist"], sets=1, samples=count)
        denoiser = parameterization.clamped(parameterization.as_denoiser(model, s, card["kind"]))
        (images,) = ddpm.draw_samples(denoiser, s, dataclasses.replace(config, sampling_steps=25), (1, 28, 28))
    _, probs = measure.read(images, card["data"])
    share, unclear = card["results"]["unclear"], (probs.amax(1) < 0.9).double().mean().item()
    assert abs(unclear - share) < 4 * (share * (1 - share) / count) ** 0.5
    assert (probs.argmax(1).bincount(minlength=10) > 0).all()


def test_the_shipped_vae_has_the_bound_of_its_card():
    model, card = checkpoints.pretrained("vae-digits")
    x = data.digits("test")
    with torch.no_grad():
        bound = model.elbo(x, *model.draw(x, generator=rng.generator(1), samples=4))
    bits = metrics.bits_per_dim(bound, 64)
    assert bits.mean().item() == pytest.approx(card["results"]["bits_per_dim"], abs=0.005)
    assert bits.tolist() == pytest.approx(record("vae-digits").metrics["bits"], abs=0.25)


@pytest.mark.parametrize("name", ["digits", pytest.param("mnist", marks=needs_mnist)])
def test_shipped_classifiers_are_as_good_as_their_cards_say(name):
    _, card = checkpoints.pretrained(f"classifier-{name}")
    source, labels = measure.source(name), {"digits": data.digit_labels, "mnist": data.mnist_labels}[name]("test")
    _, probs = measure.read(measure.to_unit(source.test, source.levels), name)
    accuracy = (probs.argmax(1) == labels).double().mean().item()
    assert accuracy == pytest.approx(card["results"]["accuracy"], abs=0.003)


def test_the_shipped_digits_are_as_good_as_their_card_says():
    model, card = checkpoints.pretrained("ddpm-digits")
    source, s = measure.source("digits"), schedule.build(card["schedule"])
    config = dataclasses.replace(ddpm.PRESETS["digits"], bound_images=20, sets=1, samples=100)
    denoiser = parameterization.clamped(parameterization.as_denoiser(model, s, card["kind"]))
    bound = ddpm.held_out_bound(denoiser, s, config, source)
    rows = torch.randperm(397, generator=rng.generator(0, 4))[:20].sort().values
    said = torch.tensor(record("ddpm-digits").metrics["bits"])[rows]
    gap = torch.tensor(bound["bits"]) - said  # Of two draws of the noise.
    assert gap.mean().abs() < 4 * gap.std() / 20**0.5 < 0.25
    assert sum(bound["terms"]) == pytest.approx(bound["bits_per_dim"], abs=1e-3)
    assert np.mean(bound["bits_best_variance"]) < bound["bits_per_dim"]
    found = measure.quality(ddpm.draw_samples(denoiser, s, config, (1, 8, 8)), source)
    assert found["frechet_pooled"] < 2 * found["frechet_floor"] < found["frechet_ceiling"] / 5


def test_quality_tells_data_from_noise_and_counts_alike():
    source = measure.source("digits")
    unit = measure.to_unit(source.train[:300], source.levels)
    real = measure.quality([unit, unit.flip(0)], source)
    noise = measure.quality([torch.rand(300, 1, 8, 8, generator=rng.generator(0)) * 2 - 1], source)
    assert real["samples"] == noise["samples"] == 300
    assert real["frechet"][0] == pytest.approx(real["frechet"][1]) == pytest.approx(real["frechet_pooled"], rel=0.05)
    assert real["frechet"][0] < real["frechet_floor"] < noise["frechet"][0]
    assert noise["frechet"][0] == pytest.approx(noise["frechet_ceiling"], rel=0.3)
    assert real["recall"] == real["precision"] == [1, 1]
    assert noise["precision"][0] < 0.2
    assert real["unclear"][0] < real["unclear_floor"] < 0.2 < noise["unclear"][0]
    assert real["classes"] == (2 * data.digit_labels("train")[:300].bincount()).tolist()


def test_a_bound_in_bits_keeps_that_of_every_image():
    total = -torch.rand(6, generator=rng.generator(0), dtype=torch.float64)
    found = measure.bound(total, 8)
    bits = total / (-8 * np.log(2))
    assert found["images"] == 6
    assert found["bits"] == pytest.approx(bits.tolist(), abs=1e-5)
    assert found["bits_per_dim"] == pytest.approx(bits.mean().item())
    assert found["bits_per_dim_error"] == pytest.approx(bits.std().item() / 6**0.5)


def test_baselines_are_those_of_the_data_without_a_validation_split(monkeypatch):
    for name, value in {"IMAGES": 30, "FITTED": 500, "HELD_BACK": 100, "SIZES": (1, 8)}.items():
        monkeypatch.setattr(baselines, name, value)
    source = measure.source("digits")
    found = baselines.measured(source._replace(validation=None))
    test = measure.held_out(source, 30)
    alone = metrics.independent_pixels(source.train, test, levels=17)
    mixed, size = metrics.mixture_of_products(
        *(source.train[:500], source.train[500:600], test), levels=17, sizes=(1, 8), generator=rng.generator(0)
    )
    assert size == found["size"] == 8
    assert found["independent"] == measure.bound(alone, 64)
    assert found["mixture"] == measure.bound(mixed, 64)
    assert found["mixture"]["bits_per_dim"] < found["independent"]["bits_per_dim"]


def test_the_bound_of_every_image_is_that_of_the_chain():
    source, config = (
        measure.source("digits"),
        dataclasses.replace(ddpm.PRESETS["digits"], bound_images=7, bound_steps=5),
    )
    s = schedule.build(ddpm.noise(config))
    points = mixture.empirical(measure.to_unit(source.train[:5], 17).flatten(1))
    exact = mixture.as_denoiser(points, s)
    found = ddpm.held_out_bound(exact, s, config, source)
    kept = torch.linspace(0, s.T, 6).round().long()
    chain = schedule.NoiseSchedule(s.alpha_bar[kept])
    x_0 = measure.to_unit(measure.held_out(source, 7), 17)
    noises = [torch.randn(x_0.shape, generator=rng.generator(0, 2, 0, t)) for t in range(1, 6)]
    denoiser = lambda x, i: exact(x, kept[i])
    decoder = bounds.discretized_decoder(denoiser, chain, 17)
    total = bounds.denoising_form(denoiser, chain, x_0, noises, decoder).total
    assert found["bits"] == pytest.approx((total / (-64 * np.log(2))).tolist(), rel=1e-4)
    assert len(found["terms"]) == 6
    assert sum(found["terms"]) == pytest.approx(np.mean(found["bits"]), rel=1e-4)


def test_a_record_is_kept_and_read_again(run, tmp_path, monkeypatch):
    keep = recorded_runs.keep
    monkeypatch.setattr(recorded_runs, "keep", lambda run: keep(run, folder=tmp_path / "package"))
    assert run(vae, "--keep true --name small") == 0
    config, metrics, environment, sheet = recorded_runs.record("small", folder=tmp_path / "package")
    assert config["steps"] == 4
    assert len(metrics["bits"]) == 397
    assert environment["torch"] == torch.__version__
    assert sheet.shape == (5 * 16, 8 * 16)
    with pytest.raises(ValueError, match="name was 'large'; it must be one of small"):
        recorded_runs.record("large", folder=tmp_path / "package")


def test_every_record_of_the_package_is_there_and_whole():
    digits = [f"ddpm-digits-{kind}" for kind in ("eps", "v", "elbo", "eps-notime", "v-notime")]
    digits += ["vae-digits-categorical", "vae-digits-gaussian", "vqvae-digits", "vqvae-digits-plain"]
    digits += [f"hvae-digits-{kind}" for kind in ("2", "3", "free")]
    brief = [f"ddpm-mnist-brief{kind}" for kind in ("", "-eps", "-notime", "-eps-notime")]
    names = {f"{name}-{seed}" for name in digits for seed in range(3)}
    names |= {*brief, *SHIPPED, "baselines-mnist", "calls-mnist"}
    assert {path.name for path in recorded_runs.RECORDS.iterdir()} == names
    for name in names:
        found = record(name)
        assert found.metrics["duration"] > 0
        assert name.startswith(("classifier", "baselines")) or found.sheet is not None


def test_a_record_that_was_changed_is_refused(tmp_path):
    shutil.copytree(recorded_runs.RECORDS / "vae-digits", tmp_path / "vae-digits")
    path = tmp_path / "vae-digits" / "metrics.json"
    path.write_text(path.read_text("utf8").replace("0", "1", 1), "utf8")
    with pytest.raises(ValueError, match=r"the digest of vae-digits was \w{64}; it must be that of what the run left"):
        recorded_runs.record("vae-digits", folder=tmp_path)
    (tmp_path / "vae-digits" / "SHA256").unlink()
    with pytest.raises(ValueError, match="the digest of vae-digits was missing"):
        recorded_runs.record("vae-digits", folder=tmp_path)


def test_both_weightings_train_what_they_say():
    s, x_0 = schedule.linear(4, 0.1, 0.4), torch.tensor([[-1.0], [0.0], [1.0]])
    network = networks.build({"name": "time_mlp", "dim": 1, "hidden": 8})
    t, noise = torch.tensor([1, 2, 4]), torch.ones(3, 1)
    config = dataclasses.replace(ddpm.PRESETS["digits"], kind="v")
    simple = ddpm.objective(config, s, 3).loss(network, x_0, t, noise)
    torch.testing.assert_close(simple, bounds.simple_loss(network, x_0, t, noise, schedule=s, kind="v"))
    denoiser = parameterization.as_denoiser(network, s, "v")
    decoder = bounds.discretized_decoder(denoiser, s, 3)
    weighted = ddpm.objective(dataclasses.replace(config, weighting="elbo"), s, 3).loss(network, x_0, t, noise)
    torch.testing.assert_close(weighted, bounds.elbo_loss(denoiser, x_0, t, noise, schedule=s, decoder=decoder))


def test_samples_of_an_exact_denoiser_are_the_data():
    points = mixture.empirical(measure.to_unit(measure.source("digits").train[:5], 17).flatten(1))
    config = dataclasses.replace(ddpm.PRESETS["digits"], sets=2, samples=8, device="cpu")
    s = schedule.build(ddpm.noise(config))
    for steps in (s.T, 50):
        few = dataclasses.replace(config, sampling_steps=steps)
        samples = torch.cat(ddpm.draw_samples(mixture.as_denoiser(points, s), s, few, (1, 8, 8)))
        assert torch.cdist(samples.flatten(1), points.means).min(1).values.max() < 1e-3


def test_a_picture_has_its_images_in_reading_order(tmp_path):
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 2, 3) / 3 * 2 - 1
    command.picture(tmp_path / "a.png", images, columns=2, scale=2)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert pixels.shape == (8, 12)
    assert [pixels[0, 0], pixels[0, 11], pixels[7, 0], pixels[7, 11]] == [0, 85, 170, 255]


def test_drawing_64_images_is_quick():
    model, card = checkpoints.pretrained("ddpm-digits")
    s = schedule.build(card["schedule"])
    config = dataclasses.replace(ddpm.PRESETS["digits"], sets=1, samples=64, sampling_steps=50)
    begun = time.process_time()
    ddpm.draw_samples(parameterization.as_denoiser(model, s, card["kind"]), s, config, (1, 8, 8))
    assert time.process_time() - begun < 30
