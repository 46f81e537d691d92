"""The training loop against loops written out by hand, and its early stopping."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import signal
from collections import Counter

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dmlib import data, rng
from dmlib.learning import checkpoints, training
from dmlib.learning.training import Objective, TrainConfig, fit
from dmlib.networks import build

POINTS = data.two_moons(60, generator=rng.generator(0))
MORE = data.two_moons(23, generator=rng.generator(1))


def draw(x_0: torch.Tensor, *, generator: torch.Generator) -> tuple[torch.Tensor]:
    return (torch.randn(x_0.shape, generator=generator),)


def denoise(model: nn.Module, x_0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return ((model(x_0 + noise) - x_0) ** 2).sum(1)


OBJECTIVE = Objective(draw, denoise)
CONFIG = TrainConfig(steps=7, batch_size=16, lr=0.01, grad_clip=4.0, ema_decay=0.8, seed=3, log_every=3)


def new_model() -> nn.Module:
    return build({"name": "mlp", "sizes": [2, 8, 2]})


def weights(model: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def batch_of(step: int, points: torch.Tensor = POINTS) -> tuple[torch.Tensor, torch.Tensor]:
    g = rng.generator(CONFIG.seed, step)
    x_0 = points[torch.randint(len(points), (CONFIG.batch_size,), generator=g)]
    return x_0, torch.randn(x_0.shape, generator=g)


def adamw_by_hand(model: nn.Module, config: TrainConfig) -> tuple[list[np.ndarray], list[float]]:
    """The weights before and after each step, and its loss: AdamW as its paper states it."""
    parameters, path, losses = list(model.parameters()), [weights(model)], []
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for step in range(1, config.steps + 1):
        loss = denoise(model, *batch_of(step)).mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum((g**2).sum().item() for g in gradients))
        for i, (p, g) in enumerate(zip(parameters, gradients)):
            g = g * min(1.0, config.grad_clip / norm)
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            move = first[i] / (1 - 0.9**step) / ((second[i] / (1 - 0.999**step)).sqrt() + 1e-8)
            p.data = p.data * (1 - config.lr * 0.01) - config.lr * move
        path.append(weights(model))
        losses.append(loss.item())
    return path, losses


def test_fit_is_adamw_with_clipping_and_an_average_of_the_weights() -> None:
    result = fit(new_model(), OBJECTIVE, POINTS, CONFIG)
    path, losses = adamw_by_hand(new_model(), CONFIG)
    np.testing.assert_allclose(weights(result.model), path[-1], atol=1e-5)
    d, n = CONFIG.ema_decay, CONFIG.steps
    average = d**n * path[0] + sum((1 - d) * d ** (n - i) * path[i] for i in range(1, n + 1))
    np.testing.assert_allclose(weights(result.ema), average, atol=1e-5)
    assert result.history["step"] == [3, 6, 7]
    means = [np.mean(losses[:3]), np.mean(losses[3:6]), losses[6]]
    np.testing.assert_allclose(result.history["loss"], means, rtol=1e-5)
    assert result.history["validation"] == []


def test_clipping_matters_and_can_be_left_out() -> None:
    clipped = fit(new_model(), OBJECTIVE, POINTS, CONFIG)
    free = fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, grad_clip=None))
    loose = fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, grad_clip=1e6))
    np.testing.assert_array_equal(weights(free.model), weights(loose.model))
    assert np.abs(weights(free.model) - weights(clipped.model)).max() > 1e-3


def test_fit_is_decided_by_its_seed() -> None:
    before = torch.get_rng_state()
    first, again = (fit(new_model(), OBJECTIVE, POINTS, CONFIG, validation=MORE) for _ in range(2))
    other = fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, seed=4), validation=MORE)
    np.testing.assert_array_equal(weights(first.model), weights(again.model))
    np.testing.assert_array_equal(weights(first.ema), weights(again.ema))
    assert first.history == again.history
    assert np.abs(weights(first.model) - weights(other.model)).max() > 1e-3
    assert torch.equal(before, torch.get_rng_state())


def test_logging_and_validation_do_not_change_training() -> None:
    plain = fit(new_model(), OBJECTIVE, POINTS, CONFIG)
    watched = fit(
        new_model(),
        OBJECTIVE,
        POINTS,
        dataclasses.replace(CONFIG, log_every=1),
        validation=MORE,
        on_log=lambda entry: None,
    )
    np.testing.assert_array_equal(weights(plain.model), weights(watched.model))


def test_fit_trains_the_model_it_is_given_and_averages_a_copy() -> None:
    model = new_model().eval()
    result = fit(model, OBJECTIVE, POINTS, CONFIG)
    assert result.model is model
    assert result.ema is not model
    assert not result.model.training
    assert not result.ema.training
    result.model.layers[0].weight.data.zero_()
    assert (result.ema.layers[0].weight != 0).all()


def test_validation_is_the_average_network_on_all_of_it_with_fixed_draws() -> None:
    entries = []
    config = dataclasses.replace(CONFIG, log_every=7)
    result = fit(new_model(), OBJECTIVE, POINTS, config, validation=MORE, on_log=entries.append)
    losses = []
    for i, x_0 in enumerate(MORE.split(CONFIG.batch_size)):
        losses.append(denoise(result.ema, x_0, *draw(x_0, generator=rng.generator(CONFIG.seed, 0, i))))
    expected = torch.cat(losses).mean().item()
    assert len(losses) == 2
    np.testing.assert_allclose(result.history["validation"], [expected], rtol=1e-6)
    (entry,) = entries
    assert entry.pop("examples_per_second") > 0
    assert entry.pop("seconds_left") == 0
    assert entry == {"step": 7, "loss": result.history["loss"][0], "validation": result.history["validation"][0]}


def test_early_stopping_keeps_the_best_average() -> None:
    few = POINTS[:10]  # So few that the network learns them by heart.
    config = TrainConfig(steps=5000, batch_size=16, lr=0.003, ema_decay=0.5, log_every=5, patience=4)
    model = build({"name": "mlp", "sizes": [2, 64, 64, 2]})
    untrained = copy.deepcopy(model)
    seen = []
    result = fit(model, OBJECTIVE, few, config, validation=MORE, on_log=lambda entry: seen.append(entry["validation"]))
    validation = result.history["validation"]
    best = int(np.argmin(validation))
    assert seen == validation
    assert result.history["step"] == [5 * (i + 1) for i in range(len(seen))]
    assert len(validation) - 1 - best == 4
    assert best > 0
    assert result.history["step"][-1] < config.steps
    until_best = dataclasses.replace(config, steps=result.history["step"][best], patience=None)
    np.testing.assert_array_equal(weights(result.ema), weights(fit(untrained, OBJECTIVE, few, until_best).ema))


def test_without_patience_the_best_is_kept_and_all_steps_are_taken() -> None:
    config = TrainConfig(steps=400, batch_size=16, lr=0.02, ema_decay=0.5, log_every=10)
    model = build({"name": "mlp", "sizes": [2, 64, 64, 2]})
    result = fit(copy.deepcopy(model), OBJECTIVE, POINTS[:4], config, validation=MORE)
    best = int(np.argmin(result.history["validation"]))
    assert result.history["step"][-1] == 400
    assert best < 39
    until_best = dataclasses.replace(config, steps=10 * (best + 1))
    np.testing.assert_array_equal(weights(result.ema), weights(fit(model, OBJECTIVE, POINTS[:4], until_best).ema))


def test_batches_are_prepared_before_the_draw() -> None:
    levels = (POINTS * 10).round().to(torch.int64)
    prepared = Objective(draw, denoise, prepare=lambda batch: batch.float() / 10)
    by_levels = fit(new_model(), prepared, levels, CONFIG, validation=levels[:20])
    as_floats = fit(new_model(), OBJECTIVE, levels.float() / 10, CONFIG, validation=levels[:20].float() / 10)
    np.testing.assert_array_equal(weights(by_levels.model), weights(as_floats.model))
    assert by_levels.history == as_floats.history


def test_buffers_are_copied_to_the_average() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    result = fit(model, OBJECTIVE, POINTS, CONFIG)
    assert model[0].num_batches_tracked == 7
    assert torch.equal(result.ema[0].running_var, model[0].running_var)
    assert result.ema[0].num_batches_tracked == 7


def test_a_value_is_read_only_where_history_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__"):
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda x, *a, _read=read, _name=name: (reads.append(_name), _read(x, *a))[1]
        )

    def counted(steps: int) -> Counter:
        reads.clear()
        fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, steps=steps, log_every=10), validation=MORE)
        return Counter(reads)

    assert counted(40) - counted(20) == {"tolist": 2, "item": 2}


def test_denoising_one_bell_learns_the_posterior_mean() -> None:
    # x_0 ~ N(0, 1), x = x_0 + noise: E[x_0 | x] = x / 2 and the least loss is 1/2 per coordinate.
    normal = torch.randn(20_000, 2, generator=rng.generator(2))
    config = TrainConfig(steps=1500, batch_size=512, lr=0.01, ema_decay=0.99)
    result = fit(build({"name": "mlp", "sizes": [2, 2]}), OBJECTIVE, normal, config)
    linear = result.ema.layers[0]
    # Standard error about sqrt(1/2 / (512 / 0.005)) = 0.002, for an average over some 200 batches.
    np.testing.assert_allclose(linear.weight.detach(), 0.5 * np.eye(2), atol=0.02)
    np.testing.assert_allclose(linear.bias.detach(), 0, atol=0.02)
    np.testing.assert_allclose(result.history["loss"][-1], 1, atol=0.03)


def test_loss_that_is_not_finite_is_reported_with_its_step() -> None:
    calls = []

    def breaks(model: nn.Module, x_0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return denoise(model, x_0, noise) * (math.nan if len(calls) == 5 else 1)

    with pytest.raises(RuntimeError, match=r"the loss was nan at step 5; it must be finite"):
        fit(new_model(), Objective(draw, breaks), POINTS, CONFIG)
    assert len(calls) == 6  # Training goes on until the loss is read.


def test_validation_loss_that_is_not_finite_is_reported() -> None:
    cracked = Objective(draw, lambda model, *drawn: denoise(model, *drawn) * (1 if model.training else math.nan))
    with pytest.raises(RuntimeError, match=r"the validation loss was nan at step 3; it must be finite"):
        fit(new_model(), cracked, POINTS, CONFIG, validation=MORE)


def test_numbers_that_are_not_finite_are_named_where_they_come_from() -> None:
    hole = POINTS.clone()
    hole[17, 1] = math.nan
    with pytest.raises(ValueError, match=r"^data was nan; it must be finite$"):
        fit(new_model(), OBJECTIVE, hole, CONFIG)
    with pytest.raises(ValueError, match=r"^validation was nan; it must be finite$"):
        fit(new_model(), OBJECTIVE, POINTS, CONFIG, validation=hole)
    spoiled = dataclasses.replace(OBJECTIVE, prepare=lambda x: x * math.nan)
    with pytest.raises(RuntimeError, match=r"nan at step 1; it must be finite: no step was taken, so look at the data"):
        fit(new_model(), spoiled, POINTS, CONFIG)
    with pytest.raises(RuntimeError, match=r"the loss was \w+ at step [2-7]; it must be finite: try a smaller lr"):
        fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, lr=1e38))


def test_weights_that_overflow_in_the_last_step_are_not_returned() -> None:
    with pytest.raises(
        RuntimeError, match=r"the model\.\S+ was -?(inf|nan) at step 1; it must be finite: try a smaller"
    ):
        fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, lr=3.4e38 * 2, steps=1))
    with pytest.raises(ValueError, match="lr was inf; it must be more than 0 and finite"):
        dataclasses.replace(CONFIG, lr=math.inf)


def test_loss_of_the_whole_batch_raises() -> None:
    with pytest.raises(ValueError, match=r"the shape of the loss was \(\); it must be \(16\)"):
        fit(new_model(), Objective(draw, lambda *a: denoise(*a).mean()), POINTS, CONFIG)


@settings(deadline=None)
@given(st.sampled_from(["steps", "batch_size", "log_every", "patience"]), st.integers(max_value=0))
def test_bad_counts_raise(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} was .*; it must be an integer, 1 or more"):
        TrainConfig(**({"steps": 1} | {name: value}))


@settings(deadline=None)
@given(
    st.one_of(
        st.tuples(st.sampled_from(["lr", "grad_clip"]), st.floats(max_value=0) | st.just(math.nan)),
        st.tuples(st.just("ema_decay"), st.floats().filter(lambda d: not 0 <= d < 1)),
        st.tuples(st.just("seed"), st.integers(max_value=-1)),
    )
)
def test_bad_rates_raise(field: tuple[str, float]) -> None:
    name, value = field
    with pytest.raises(ValueError, match=r" was .*; it must be "):
        TrainConfig(steps=1, **{name: value})


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (POINTS[:0], None, r"the shape of data was \(0, 2\)"),
        (torch.tensor(1.0), None, r"the shape of data was \(\)"),
        (POINTS, POINTS[:0], "the length of validation was 0"),
        (POINTS, POINTS[:, :1], r"the shape of validation was \(60, 1\); it must be \(any, 2\)"),
        (POINTS, POINTS.double(), "the dtype of validation was torch.float64; it must be torch.float32"),
    ],
)
def test_bad_data_raise(train: torch.Tensor, validation: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(new_model(), OBJECTIVE, train, CONFIG, validation=validation)


def test_patience_without_validation_raises() -> None:
    with pytest.raises(ValueError, match="patience was 3; it must be None where there are no validation data"):
        fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, patience=3))


def test_compiled_training_is_the_same_and_leaves_plain_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # The compiler cannot trace its checks.
    torch.compiler.reset()
    whole = functools.partial(torch.compile, fullgraph=True, backend="eager")
    compiled_calls = []
    monkeypatch.setattr(torch, "compile", lambda net: compiled_calls.append(net) or whole(net))
    plain = fit(new_model(), OBJECTIVE, POINTS, CONFIG)
    compiled = fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, compile=True))
    assert len(compiled_calls) == 1
    np.testing.assert_allclose(weights(compiled.model), weights(plain.model), atol=1e-6)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_reduced_precision_is_around_the_network_alone(name: str) -> None:
    seen = []

    def watched(model: nn.Module, x_0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        inside = model.layers[0].register_forward_hook(lambda layer, x, out: seen.append(out.dtype))
        losses = denoise(model, x_0, noise)
        inside.remove()
        assert losses.dtype == torch.float32
        return losses

    exact = fit(new_model(), OBJECTIVE, POINTS, CONFIG)
    rough = fit(new_model(), Objective(draw, watched), POINTS, dataclasses.replace(CONFIG, amp_dtype=name))
    assert set(seen) == {getattr(torch, name)}
    assert all(p.dtype == torch.float32 for p in rough.model.parameters())
    distance = np.abs(weights(rough.model) - weights(exact.model)).max()
    assert 1e-6 < distance < 0.05
    assert not hasattr(rough.model, "amp_dtype")


def test_gradients_are_clipped_at_their_own_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: dict[str, list[torch.Tensor]] = {"float32": [], "float16": []}
    clip = nn.utils.clip_grad_norm_
    for name, seen in norms.items():
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *args, seen=seen: seen.append(clip(*args)))
        fit(new_model(), OBJECTIVE, POINTS, dataclasses.replace(CONFIG, amp_dtype=name))
    finite = [(half, full) for half, full in zip(norms["float16"], norms["float32"]) if half.isfinite()]
    assert len(finite) > 2
    assert all(abs(half / full - 1) < 0.5 for half, full in finite)


def test_float16_goes_on_with_the_scale_it_had(tmp_path) -> None:
    half = dataclasses.replace(CONFIG, amp_dtype="float16", steps=6, log_every=3)
    whole = fit(new_model(), OBJECTIVE, POINTS, half)
    path = tmp_path / "run.safetensors"

    def stop(entry: dict) -> None:
        if entry["step"] == 3:
            signal.raise_signal(signal.SIGTERM)

    saved = dataclasses.replace(half, checkpoint=str(path))
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(), OBJECTIVE, POINTS, saved, on_log=stop)
    assert 1 < checkpoints.load(path)[1]["scaler"]["scale"] < 65536  # The first gradients were too large for it.
    np.testing.assert_array_equal(weights(fit(new_model(), OBJECTIVE, POINTS, saved).model), weights(whole.model))


def test_several_draws_for_each_example_are_shared_out_by_example(monkeypatch: pytest.MonkeyPatch) -> None:
    def draws(x_0: torch.Tensor, *, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(3, len(x_0), 2, generator=generator), torch.rand(len(x_0), generator=generator)

    objective = Objective(draws, lambda model, x_0, *drawn: x_0)
    whole = training._batch(objective, POINTS, CONFIG, 5, 0, 1)
    halves = [training._batch(objective, POINTS, CONFIG, 5, rank, 2) for rank in (0, 1)]
    for part, dim in zip(range(3), (0, 1, 0)):
        assert torch.equal(torch.cat([half[part] for half in halves], dim), whole[part])
        assert halves[0][part].shape[dim] == CONFIG.batch_size // 2


def test_bad_configurations_raise() -> None:
    for field, value in {"warmup": -1, "amp_dtype": "half", "checkpoint_every": 0}.items():
        with pytest.raises(ValueError, match=rf"{field} was '?{value}'?; it must be"):
            dataclasses.replace(CONFIG, **{field: value})
    with pytest.raises(ValueError, match="batch_size was 16; it must be a multiple of 3, the number of processes"):
        training._check(POINTS, None, CONFIG, 3)
