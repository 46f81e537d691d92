"""What a run keeps beside its weights: its clock, its best average, and its share among several processes."""

from __future__ import annotations

import dataclasses
import json
import types

import pytest
import torch
from torch import nn

import runs
from dmlib.learning import checkpoints, processes, state, training
from dmlib.learning.state import TrainState
from dmlib.learning.training import TrainConfig, fit
from dmlib.networks import build

CONFIG = TrainConfig(steps=9, batch_size=8, log_every=3)


def network() -> nn.Module:
    return build({"name": "time_mlp", "dim": 2, "hidden": 8})


def fresh(**changes) -> TrainState:
    return TrainState(network(), dataclasses.replace(CONFIG, **changes), runs.POINTS, runs.HELD_OUT)


def test_the_pace_counts_the_steps_of_this_process_and_the_duration_those_before(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(state.time, "perf_counter", lambda: now[0])
    run = fresh()
    assert run.duration == 0
    run.resumed_at, run.step, run.seconds, now[0] = 1, 5, 3.0, 18.0
    assert run.pace == {"examples_per_second": 8 / 2, "seconds_left": 4 * 2}
    assert run.duration == 3 + 8


def test_of_two_averages_that_score_alike_the_first_is_kept():
    run = fresh()
    first = {name: value.clone() for name, value in run.ema.state_dict().items()}
    run.losses = [torch.tensor(2.0), torch.tensor(4.0)]
    assert run.log(lambda ema: 1.5) == {"step": 0, "loss": 3.0, "validation": 1.5}
    with torch.no_grad():
        for weight in run.ema.parameters():
            weight += 1
    run.losses = [torch.tensor(1.0)]
    run.log(lambda ema: 1.5)
    assert all(torch.equal(value, first[name]) for name, value in run.best_ema().state_dict().items())


def test_the_shortest_patience_waits_for_one_entry_without_a_better_one():
    run = fresh(patience=1)
    for scores, finished in (([], False), ([2.0], False), ([2.0, 1.0], False), ([2.0, 1.0, 1.0], True)):
        run.history["validation"] = scores
        assert run.finished == finished


def test_a_run_is_saved_where_it_is_asked_and_at_its_end(tmp_path, monkeypatch):
    saved, save = [], TrainState.save
    monkeypatch.setattr(TrainState, "save", lambda self: saved.append(self.step) or save(self))
    config = TrainConfig(steps=9, batch_size=8, log_every=9, checkpoint=str(tmp_path / "a"), checkpoint_every=4)
    fit(network(), runs.denoising(), runs.POINTS, config, validation=runs.HELD_OUT)
    assert saved == [0, 4, 8, 9]


def test_the_parts_of_a_runs_identity_are_twelve_digits_of_a_digest(tmp_path):
    config = TrainConfig(steps=1, batch_size=8, checkpoint=str(tmp_path / "a"))
    fit(network(), runs.denoising(), runs.POINTS, config, validation=runs.HELD_OUT)
    run = checkpoints.load(tmp_path / "a")[1]["run"]
    assert [len(run[part]) for part in ("model", "data", "validation")] == [12, 12, 12]
    assert run["data"] == checkpoints.digest({"data": runs.POINTS})[:12]


def test_published_weights_come_back_with_their_card(tmp_path):
    model, spec = network(), {"name": "time_mlp", "dim": 2, "hidden": 8}
    checkpoints.publish("small", model, {"network": spec, "data": "moons"}, tmp_path)
    text = (tmp_path / "small.json").read_text("utf8")
    assert text.splitlines()[1].startswith(' "')
    assert text.endswith("}\n")
    found, card = checkpoints.pretrained("small", folder=tmp_path)
    assert card == json.loads(text)
    assert card["name"] == "small"
    assert not found.training
    for one, other in zip(found.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other.half().float())
        assert not one.requires_grad
    with pytest.raises(ValueError, match="name was 'large'; it must be one of small"):
        checkpoints.pretrained("large", folder=tmp_path)


class Group:
    """A stand-in for torch.distributed: two processes, of which this is one, and the other says `theirs`."""

    def __init__(self, rank: int, theirs: float = 0.0, launched: bool = True, backend: str = "gloo"):
        self.rank, self.theirs, self.launched, self.backend, self.joined = rank, theirs, launched, backend, None

    def is_available(self):
        return True

    def is_torchelastic_launched(self):
        return self.launched

    def is_initialized(self):
        return self.joined is not None

    def init_process_group(self, backend):
        assert not self.is_initialized()
        self.joined = backend

    def get_rank(self):
        return self.rank

    def get_world_size(self):
        return 2

    def get_backend(self):
        return self.backend

    def all_reduce(self, values):
        values += self.theirs


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_meet_once_and_one_speaks_for_all(monkeypatch, rank):
    group = Group(rank)
    monkeypatch.setattr(processes, "dist", group)
    assert processes.is_first()  # Before they have met, each is alone.
    assert processes.world_size() == 1
    assert processes.join("cpu") == (torch.device("cpu"), rank, 2)
    assert group.joined == "gloo"
    assert processes.join("cpu") == (torch.device("cpu"), rank, 2)  # They do not meet again.
    assert processes.is_first() == (rank == 0)
    assert processes.world_size() == 2
    assert processes.surroundings(torch.device("cpu"))["processes"] == 2


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.setattr(processes, "dist", Group(0, launched=False))
    assert processes.join("cpu") == (torch.device("cpu"), 0, 1)
    monkeypatch.setattr(processes, "dist", types.SimpleNamespace(is_available=lambda: False))
    assert processes.join("cpu") == (torch.device("cpu"), 0, 1)
    assert processes.is_first()
    assert processes.world_size() == 1
    assert processes.average(torch.tensor([3.0])).item() == 3
    assert processes.agree(["SIGTERM"], False)
    assert not processes.agree([], True)


def test_two_processes_average_and_agree_where_an_entry_is_due(monkeypatch):
    monkeypatch.setattr(processes, "dist", group := Group(0, theirs=5.0))
    processes.join("cpu")
    assert processes.average(torch.tensor([3.0])).item() == 4
    for theirs, received, due, stop in ((0, [], True, False), (1, [], True, True), (0, ["SIGINT"], True, True),
                                        (1, ["SIGINT"], False, False)):  # fmt: skip
        group.theirs = float(theirs)
        assert processes.agree(received, due) is stop
    assert processes._meeting_place() == "cpu"
    group.backend = "nccl"
    assert processes._meeting_place() == "cuda"


def test_only_the_first_process_holds_the_lock_and_writes(tmp_path, monkeypatch):
    config, seen = TrainConfig(steps=2, batch_size=8, log_every=1, checkpoint=str(tmp_path / "a")), []
    monkeypatch.setattr(training, "_wrap", lambda model, loss, config, world: training._Loss(model, loss))
    for rank in (1, 0):
        group = Group(rank)
        group.all_reduce = lambda values: values.mul_(2)  # The other one has the same.
        monkeypatch.setattr(processes, "dist", group)
        fit(network(), runs.denoising(), runs.POINTS, config, on_log=lambda entry, rank=rank: seen.append(rank))
        assert (tmp_path / "a").exists() == (tmp_path / "a.lock").exists() == (rank == 0)
    assert seen == [0, 0]
