"""A run is never lost: kills, signals, full disks, damaged and foreign files, and many processes in place of one."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch

import runs
from dmlib.learning import checkpoints, processes, state
from dmlib.learning.training import TrainConfig, fit
from dmlib.networks import build

SCRIPT = Path(__file__).with_name("runs.py")


@pytest.fixture(autouse=True)
def usual_signals():
    """The handlers of a process in the foreground; one in the background may ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in processes.STOPS}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def same(a: Path, b: Path) -> bool:
    (tensors, history), (others, their_history) = checkpoints.load(a), checkpoints.load(b)
    return (
        tensors.keys() == others.keys()
        and history == their_history
        and all(map(torch.equal, tensors.values(), others.values()))
    )


def small_fit(folder: Path, objective=None, on_log=None, validation=None, **changes):
    config = TrainConfig(
        steps=20, batch_size=8, log_every=5, checkpoint=str(folder / "run.safetensors"), checkpoint_every=5
    )
    model = build({"name": "time_mlp", "dim": 2, "hidden": 8})
    config = dataclasses.replace(config, **changes)
    return fit(model, objective or runs.denoising(), runs.POINTS, config, on_log=on_log, validation=validation)


def step_of(folder: Path) -> int:
    return checkpoints.load(folder / "run.safetensors")[1]["step"]


@pytest.mark.apart
def test_twenty_kills_change_no_bit(tmp_path):
    command = [sys.executable, str(SCRIPT), "nursery", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    reached = [int(step) for step in done.stdout.split()]
    assert len(reached) == runs.KILLS == 20
    assert reached == sorted(reached)  # No kill costs a step that was saved.
    assert len({step for step in reached if 0 < step < 60}) >= 5  # The kills fell into the run.
    assert same(tmp_path / "whole.safetensors", tmp_path / "killed.safetensors")


def test_a_run_that_stopped_between_two_entries_goes_on_bit_for_bit(tmp_path):
    whole = small_fit(tmp_path, checkpoint=None, checkpoint_every=None)

    def stop_after(step):
        def loss(model, *args, **options):
            calls.append(1)
            if len(calls) == step:
                signal.raise_signal(signal.SIGINT)
            return inner.loss(model, *args, **options)

        calls, inner = [], runs.denoising()
        return dataclasses.replace(inner, loss=loss)

    for steps, reached in ((3, 3), (6, 9), (4, 13)):
        with pytest.raises(processes.Stopped, match=rf"stopped at step {reached} of 20; the same call continues from"):
            small_fit(tmp_path, stop_after(steps))
        assert step_of(tmp_path) == reached
    resumed = small_fit(tmp_path)
    assert resumed.history == whole.history
    assert all(map(torch.equal, resumed.model.state_dict().values(), whole.model.state_dict().values()))
    assert all(map(torch.equal, resumed.ema.state_dict().values(), whole.ema.state_dict().values()))
    assert small_fit(tmp_path).history == whole.history  # A finished run is read, not run again.


def test_ctrl_c_without_a_checkpoint_says_so_and_handlers_are_as_before(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="there is no checkpoint"):
        small_fit(
            tmp_path, checkpoint=None, checkpoint_every=None, on_log=lambda e: signal.raise_signal(signal.SIGTERM)
        )
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_signal_acts_at_once():
    with processes.stop_signals() as received:
        signal.raise_signal(signal.SIGINT)
        assert received == ["SIGINT"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with processes.stop_signals() as received:
        signal.raise_signal(signal.SIGINT)
    assert received == []


def test_a_thread_trains_too(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(small_fit(tmp_path)))
    thread.start()
    thread.join()
    assert results[0].history["step"] == [5, 10, 15, 20]


@pytest.mark.parametrize("damage", ["truncated", "header", "text", "empty", "foreign", "pickle"])
def test_a_damaged_or_foreign_checkpoint_is_named_and_kept(tmp_path, damage):
    small_fit(tmp_path)
    path = tmp_path / "run.safetensors"
    whole = path.read_bytes()
    torch.save({"a": 1}, tmp_path / "pickle")
    content = {
        "truncated": whole[: len(whole) // 2],
        "header": whole[:5],
        "text": b"this is no checkpoint",
        "empty": b"",
        "foreign": safetensors.torch.save({"a": torch.zeros(1)}),
        "pickle": (tmp_path / "pickle").read_bytes(),
    }[damage]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.safetensors was .*; it must be a file of dmlib$") as error:
        small_fit(tmp_path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.5}, r"lr = 0.001; it must be this one, with lr = 0.5"),
        ({"warmup": 3, "seed": 1}, r"warmup = 0, seed = 0; it must be this one, with warmup = 3, seed = 1"),
        ({"batch_size": 16}, "batch_size = 8"),
    ],
)
def test_a_changed_configuration_is_named(tmp_path, change, words):
    small_fit(tmp_path)
    with pytest.raises(ValueError, match=words):
        small_fit(tmp_path, **change)
    assert step_of(tmp_path) == 20
    small_fit(tmp_path, checkpoint_every=7)  # How often it is saved changes no result.


def test_other_data_and_another_network_are_named(tmp_path):
    small_fit(tmp_path)
    config = TrainConfig(steps=20, batch_size=8, log_every=5, checkpoint=str(tmp_path / "run.safetensors"))
    model = build({"name": "time_mlp", "dim": 2, "hidden": 8})
    with pytest.raises(ValueError, match="data = "):
        fit(model, runs.denoising(), runs.POINTS + 1, config)
    with pytest.raises(ValueError, match="validation = None"):
        fit(model, runs.denoising(), runs.POINTS, config, validation=runs.HELD_OUT)
    with pytest.raises(ValueError, match="model = "):
        fit(build({"name": "time_mlp", "dim": 2, "hidden": 9}), runs.denoising(), runs.POINTS, config)


def test_a_full_disk_keeps_the_last_checkpoint_and_leaves_nothing_behind(tmp_path, monkeypatch):
    small_fit(tmp_path, steps=10)
    before = (tmp_path / "run.safetensors").read_bytes()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"run\.safetensors could not be written \(No space left.*the one before it is kept"
    ):
        checkpoints.save(tmp_path / "run.safetensors", {"a": torch.zeros(3)}, {})
    with pytest.raises(OSError, match="there is none before it"):
        checkpoints.save(tmp_path / "other.safetensors", {"a": torch.zeros(3)}, {})
    assert (tmp_path / "run.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"run.safetensors", "run.safetensors.lock"}


@pytest.mark.apart
def test_a_disk_that_takes_no_more_is_met_in_a_real_process(tmp_path):
    code = (
        "import resource, torch; from dmlib.learning import checkpoints\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"checkpoints.save({str(tmp_path / 'run.safetensors')!r}, {{'a': torch.zeros(100_000)}}, {{}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "could not be written (File too large)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path):
    inner, calls = runs.denoising(), []

    def loss(model, *args, **options):
        calls.append(1)
        return inner.loss(model, *args, **options) * (math.nan if len(calls) == 13 else 1)

    with pytest.raises(
        RuntimeError, match=r"the loss was nan at step 13; it must be finite: .*run\.safetensors is as it was"
    ):
        small_fit(tmp_path, dataclasses.replace(inner, loss=loss), log_every=20, checkpoint_every=4)
    assert step_of(tmp_path) == 12
    assert all(torch.isfinite(tensor).all() for tensor in checkpoints.load(tmp_path / "run.safetensors")[0].values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    inner, calls = runs.denoising(), []

    def loss(model, *args, **options):  # Finite itself, but at its fourth call its gradient is 0 times infinity.
        calls.append(1)
        pit = torch.where(torch.tensor(len(calls) == 4), 0 * next(model.parameters()).sum(), 1.0).sqrt()
        return inner.loss(model, *args, **options) + pit

    with pytest.raises(RuntimeError, match=r"the model\.\S+ was nan at step 4; it must be finite: .* is as it was"):
        small_fit(tmp_path, dataclasses.replace(inner, loss=loss), grad_clip=None, checkpoint_every=1)
    assert step_of(tmp_path) == 3


def test_a_missing_gpu_is_named():
    backends = {"cuda": torch.cuda, "mps": torch.backends.mps}
    here = [name for name, backend in backends.items() if backend.is_available()]
    absent = next(name for name in ("cuda", "mps", "xpu") if name not in here)
    with pytest.raises(ValueError, match=rf"device was '{absent}'; it must be 'auto' or one of .*cpu"):
        fit(build({"name": "mlp", "sizes": [2, 2]}), runs.denoising(), runs.POINTS, TrainConfig(steps=1), device=absent)
    assert processes.available("auto").type == [*here, "cpu"][0]


def test_checkpoints_are_plain_and_hold_all(tmp_path):
    small_fit(tmp_path)
    with open(tmp_path / "run.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    plain = json.loads(header["__metadata__"]["dmlib"])
    assert plain["step"] == 20
    assert plain["run"]["lr"] == 0.001
    groups = {name.split(".")[0] for name in header if name != "__metadata__"}
    assert groups == {"model", "ema", "optimizer", "losses"}


@pytest.mark.apart
def test_two_processes_compute_what_one_does(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    alone = [sys.executable, str(SCRIPT)]
    pair = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    for command in (alone, pair):
        done = subprocess.run([*command, "ranks", str(tmp_path)], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
    for name in ("vae", "ddpm"):
        (one, history), (two, their_history) = (checkpoints.load(tmp_path / f"{name}-{n}.safetensors") for n in (1, 2))
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-10)  # Adam magnifies the rounding of sums.
        torch.testing.assert_close(history["loss"], their_history["loss"], rtol=1e-10, atol=0)


def test_the_learning_rate_warms_up_and_falls():
    config = TrainConfig(steps=100, lr=2.0, warmup=10, cosine=True)
    rates = [state.learning_rate(config, step) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(2 * (1 + math.cos(math.pi * 9 / 100)) / 2)
    assert rates[50] == pytest.approx(1.0)
    assert 0 < rates[-1] < 0.001
    assert {state.learning_rate(TrainConfig(steps=9, lr=0.1), step) for step in range(1, 10)} == {0.1}


def rewritten(folder: Path, change) -> None:
    """The checkpoint of a run after a change of its tensors and its header, with a digest that fits."""
    tensors, header = checkpoints.load(folder / "run.safetensors")
    text = json.dumps(change(tensors, header) or header)
    about = {"dmlib": text, "format": checkpoints.FORMAT, "sha256": checkpoints.digest(tensors, text)}
    (folder / "run.safetensors").write_bytes(safetensors.torch.save(tensors, about))


def without(prefix: str):
    return lambda tensors, header: [tensors.pop(name) for name in list(tensors) if name.startswith(prefix)] and None


def halved(tensors: dict, header: dict) -> None:
    tensors.update({name: tensor.half() for name, tensor in tensors.items() if name.startswith("model.")})


WHOLE = r"run\.safetensors was one with .*{}.*; it must be a whole checkpoint$"
BROKEN = {
    "no optimizer": (without("optimizer."), WHOLE.format("a wrong or no optimizer.0.exp_avg, optimizer.0")),
    "no average": (without("ema."), WHOLE.format("a wrong or no ema.mlp")),
    "no best average": (without("best."), WHOLE.format("a wrong or no best.mlp")),
    "no losses": (without("losses."), WHOLE.format("a wrong or no losses.pending")),
    "halved weights": (halved, WHOLE.format("a wrong or no model.mlp")),
    "a list": (lambda tensors, header: [header], r"the header of .*\.safetensors was a list; it must be a dictionary"),
    "no step": (lambda tensors, header: header.pop("step") and None, WHOLE.format("no step in its header")),
    "no history": (lambda tensors, header: header.pop("history") and None, WHOLE.format("no history in its header")),
    "a text": (lambda tensors, header: header | {"step": "9"}, WHOLE.format("a wrong or no step in its header")),
    "beyond": (lambda tensors, header: header | {"step": 21}, r"the step of .* was 21; it must be in 20\.\.20, "),
    "behind": (lambda tensors, header: header | {"step": 7}, r"the step of .* was 7; it must be in 20\.\.20, "),
    "no lists": (lambda tensors, header: header | {"history": dict.fromkeys(header["history"], 1)}, "the history"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_checkpoint_without_all_its_parts_is_refused_and_kept(tmp_path, kind):
    change, words = BROKEN[kind]
    small_fit(tmp_path, validation=runs.HELD_OUT)
    rewritten(tmp_path, change)
    before = (tmp_path / "run.safetensors").read_bytes()
    with pytest.raises(ValueError, match=words) as error:
        small_fit(tmp_path, validation=runs.HELD_OUT)
    assert "\n" not in str(error.value)
    assert (tmp_path / "run.safetensors").read_bytes() == before


def test_no_flipped_bit_is_read(tmp_path):
    path = tmp_path / "run.safetensors"
    tensors = {"a": torch.arange(40.0), "b": torch.ones((), dtype=torch.int64), "c": torch.zeros(0)}
    checkpoints.save(path, tensors, {"step": 3})
    whole = path.read_bytes()
    assert checkpoints.load(path)[1] == {"step": 3}
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"it must be") as error:
            checkpoints.load(path)
        assert "\n" not in str(error.value)


def test_a_file_of_another_format_is_named(tmp_path):
    old = safetensors.torch.save({"a": torch.zeros(1)}, {"dmlib": "{}"})
    (tmp_path / "run.safetensors").write_bytes(old)
    with pytest.raises(ValueError, match=r"the format of .*run\.safetensors was 1; it must be 2, that of this version"):
        checkpoints.load(tmp_path / "run.safetensors")


def test_tied_weights_go_on_bit_for_bit(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2)
            self.out.weight = self.into.weight

        def forward(self, x_t, t):
            return self.out(self.into(x_t).tanh())

    def tied_fit(checkpoint, **changes):
        torch.manual_seed(0)
        config = TrainConfig(steps=9, batch_size=8, log_every=5, checkpoint=checkpoint)
        return fit(Tied(), runs.denoising(), runs.POINTS, dataclasses.replace(config, **changes)).model

    path = str(tmp_path / "run.safetensors")
    tied_fit(path, steps=4)
    whole, resumed = tied_fit(None), tied_fit(path)
    assert resumed.out.weight is resumed.into.weight
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_a_finished_run_goes_on_for_more_steps_where_its_learning_rate_allows(tmp_path):
    whole = small_fit(tmp_path, steps=33, checkpoint=None, checkpoint_every=None)
    small_fit(tmp_path, steps=20)
    more = small_fit(tmp_path, steps=33)
    assert more.history == whole.history
    assert all(map(torch.equal, more.model.state_dict().values(), whole.model.state_dict().values()))
    with pytest.raises(ValueError, match=r"the step of .* was 33; it must be in 33\.\.30"):
        small_fit(tmp_path, steps=30)
    (tmp_path / "run.safetensors").unlink()
    small_fit(tmp_path, steps=20, cosine=True)
    with pytest.raises(ValueError, match=r"steps = 20; it must be this one, with steps = 30 \(cosine = True: each "):
        small_fit(tmp_path, steps=30, cosine=True)


def test_another_number_of_threads_is_said(tmp_path):
    small_fit(tmp_path, steps=10)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        said = rf"goes on with threads = {threads + 1} after {threads}: the last bits of its numbers may differ"
        with pytest.warns(UserWarning, match=said):
            small_fit(tmp_path, steps=20)
    finally:
        torch.set_num_threads(threads)


def test_a_checkpoint_that_cannot_be_written_is_found_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: os.write(-1, b""))
        with pytest.raises(OSError, match=r"could not be written .*; there is none before it"):
            small_fit(tmp_path, on_log=steps.append, log_every=1, checkpoint_every=None)
    for place in ("file/run.safetensors", "."):
        with pytest.raises(OSError, match=r"file|directory"):
            small_fit(tmp_path, on_log=steps.append, checkpoint=str(tmp_path / place))
    assert steps == []


def test_a_second_run_on_one_checkpoint_is_refused_and_names_the_first(tmp_path):
    refusals = []

    def intrude(entry: dict) -> None:
        with pytest.raises(
            ValueError, match=rf"run\.safetensors\.lock was held by process {os.getpid()} on \S+; it must"
        ):
            small_fit(tmp_path)
        refusals.append(entry["step"])

    small_fit(tmp_path, on_log=intrude)
    assert refusals == [5, 10, 15, 20]
    small_fit(tmp_path)  # It is free again.


@pytest.mark.apart
def test_a_lock_ends_with_its_process(tmp_path):
    code = f"import os\nfrom dmlib.learning import processes\nwith processes.alone({str(tmp_path / 'a')!r}):\n    "
    hold = [sys.executable, "-c", f"{code}print(os.getpid(), flush=True)\n    input()"]
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        pid = int(holder.stdout.readline())
        with pytest.raises(ValueError, match=f"held by process {pid} on"), processes.alone(tmp_path / "a"):
            pass
        holder.kill()
    with processes.alone(tmp_path / "a"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_that_stops_a_run_saves_it_first(tmp_path, number):
    def stop(entry: dict) -> None:
        if entry["step"] == 5:
            signal.raise_signal(number)

    with pytest.raises(processes.Stopped, match="stopped at step 6 of 20; the same call continues"):
        small_fit(tmp_path, on_log=stop, checkpoint_every=None)
    assert step_of(tmp_path) == 6


def test_a_signal_at_the_last_step_is_obeyed(tmp_path):
    def stop(entry: dict) -> None:
        if entry["step"] == 20:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(processes.Stopped, match="stopped at step 20 of 20"):
        small_fit(tmp_path, on_log=stop)
    assert small_fit(tmp_path).history["step"] == [5, 10, 15, 20]


def test_what_listens_may_fail_once_the_step_is_saved(tmp_path):
    def gone(entry: dict) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        small_fit(tmp_path, on_log=gone)
    assert step_of(tmp_path) == 5


def test_files_replace_others_together_or_not_at_all(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")

    def write(last: str) -> None:
        with checkpoints.replacing(tmp_path) as fresh:
            (fresh / "a").write_text("new")
            (fresh / last / "b").write_text("new")

    with pytest.raises(FileNotFoundError):
        write("nowhere")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "b": "old"}
    write("")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}
