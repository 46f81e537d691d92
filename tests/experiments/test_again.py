"""What writes into the package's records by itself: a second measurement of what is shipped, and the baselines."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dmlib.experiments import again, baselines, command, measure, recorded, vae
from dmlib.learning import checkpoints


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with one shipped network, which was trained for two steps, and its record."""
    monkeypatch.setattr(recorded, "RECORDS", tmp_path / "records")
    publish, pretrained, weights = checkpoints.publish, checkpoints.pretrained, tmp_path / "weights"
    monkeypatch.setattr(checkpoints, "WEIGHTS", weights)
    monkeypatch.setattr(checkpoints, "publish", lambda *args: publish(*args, weights))
    own = {"vae-small": {"folder": weights}}  # The classifier that judges samples comes with the real package.
    monkeypatch.setattr(checkpoints, "pretrained", lambda name: pretrained(name, **own.get(name, {})))
    record = recorded.record
    monkeypatch.setattr(recorded, "record", lambda name: record(name, folder=tmp_path / "records"))
    line = "--steps 2 --log_every 2 --batch_size 8 --widths 8 --latent 2 --sets 2 --samples 40 --name vae-small"
    monkeypatch.setattr("sys.argv", ["vae", *line.split(), "--publish", "True"])
    monkeypatch.chdir(tmp_path)
    assert command.main(vae, vae.PRESETS, vae.run) == 0
    (tmp_path / "records").mkdir()
    recorded.keep(tmp_path / "runs" / "vae-small", folder=tmp_path / "records")
    return tmp_path


def test_a_shipped_network_is_measured_again_with_the_configuration_of_its_run(package, monkeypatch):
    old, seen, measured = recorded.record("vae-small"), [], vae.measured
    monkeypatch.setitem(vae.PRESETS, "digits", dataclasses.replace(vae.PRESETS["digits"], sets=1, samples=64))
    monkeypatch.setattr(
        vae, "measured", lambda model, config, folder: seen.append(config) or measured(model, config, folder)
    )
    again.again("vae-small")
    new = recorded.record("vae-small")  # Which reads the seal too.
    asked, preset = seen[0], vae.PRESETS["digits"]
    assert (*asked.widths, asked.latent) == (
        8,
        2,
    )  # What made the network is its own; how it is measured is the house's.
    assert (asked.sets, asked.samples) == (preset.sets, preset.samples)
    assert new.config == old.config
    assert new.environment == old.environment
    assert {key: new.metrics[key] for key in ("duration", "history")} == {
        key: old.metrics[key] for key in ("duration", "history")
    }
    model, card = checkpoints.pretrained("vae-small")
    assert new.metrics["parameters"] == sum(p.numel() for p in model.parameters()) == old.metrics["parameters"]
    assert new.metrics["bits"] == pytest.approx(old.metrics["bits"], abs=0.05)  # The weights are in half precision.
    assert new.sheet.shape == (8 * 16, 8 * 16)  # Sixty-four samples, each pixel doubled.
    assert card["results"] == measure.headline(new.metrics)
    assert {path.name for path in (package / "weights").iterdir()} == {"vae-small.json", "vae-small.safetensors"}


def test_baselines_leave_a_record_that_is_sealed(package, monkeypatch):
    now = iter([5.0, 7.12345])
    bits = {name: {"bits_per_dim": 2.0} for name in ("independent", "mixture")}
    monkeypatch.setattr(baselines, "measured", lambda source: bits | {"levels": source.levels})
    monkeypatch.setattr(baselines.time, "perf_counter", lambda: next(now))
    baselines.main("digits")
    found = recorded.record("baselines-digits")
    assert found.metrics["levels"] == 17
    assert found.metrics["duration"] == 2.123
    assert found.config == {
        "data": "digits", "seed": 0, "fitted": 20_000, "held_back": 4_000, "sizes": [20, 40, 80],
    }  # fmt: skip
    assert found.environment["device"] == "cpu"
    assert found.sheet is None
    assert json.loads((recorded.RECORDS / "baselines-digits" / "config.json").read_text("utf8")) == found.config
