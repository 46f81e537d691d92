"""Beside the CPU: no value is read, no float64 appears there, and the compiler takes each function whole.

Tensors on the device "meta" have shapes and no values: any attempt to read one raises. Apple's mps has no float64.
"""

from __future__ import annotations

from collections.abc import Callable

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dmlib import checks
from dmlib.diffusion import bounds, forward, parameterization, sampling, schedule, score

NOISE = schedule.linear(6, 0.05, 0.6)
KINDS = ["x_0", "eps", "score", "v", "mean"]
TABLE = torch.linspace(0.1, 0.7, 7, dtype=torch.float64)


class NoFloat64(TorchDispatchMode):
    """Raises where a float64 tensor is made on an accelerator; counts what is made there."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.device.type == "meta":
                self.made += 1
                if x.dtype == torch.float64:
                    raise AssertionError(f"{func} made a float64 tensor on an accelerator")
        return result


def network(x_t: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x_t - 0.1 * t.to(x_t.dtype)[:, None]


def decode(x_0: Tensor, x_1: Tensor) -> Tensor:
    return -(x_0 - x_1).square().sum(1)


DENOISER = parameterization.as_denoiser(network, NOISE, "v")
PAIR = parameterization.SignalNoise(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.5, 0.9]))
STATES = (torch.ones(3, 2), torch.tensor([1, 4, 6]))  # x and t
PURE: dict[str, Callable[[Tensor, Tensor], object]] = {
    "q_marginal": lambda x, t: forward.q_marginal(NOISE, x, t),
    "q_sample": lambda x, t: forward.q_sample(NOISE, x, t, x),
    "q_posterior": lambda x, t: forward.q_posterior(NOISE, x, x, t),
    "p_transition": lambda x, t: bounds.p_transition(DENOISER, NOISE, x, t),
    "p_transition beta": lambda x, t: bounds.p_transition(DENOISER, NOISE, x, t, variance="beta"),
    "p_transition table": lambda x, t: bounds.p_transition(DENOISER, NOISE, x, t, variance=TABLE),
    "p_transition function": lambda x, t: bounds.p_transition(DENOISER, NOISE, x, t, variance=lambda x, t: x**2),
    "elbo_loss": lambda x, t: bounds.elbo_loss(DENOISER, x, t, 2 * x, schedule=NOISE, decoder=decode),
    "denoising_form": lambda x, t: bounds.denoising_form(DENOISER, NOISE, x, [x] * 6, decode)[2],
    "convert number": lambda x, t: parameterization.convert(x, x, 0.3, src="eps", dst="v"),
    "target number": lambda x, t: parameterization.target("mean", x, x, 0.3, alpha_bar_s=0.4),
    "clamped": lambda x, t: parameterization.clamped(DENOISER)(x, t),
    "pair state": lambda x, t: PAIR.state(x, 2 * x),
    "pair target": lambda x, t: PAIR.target("v", x, 2 * x),
    "pair convert": lambda x, t: PAIR.convert(x, 2 * x, src="v", dst="score"),
}
for _kind in KINDS:
    PURE[f"simple_loss {_kind}"] = lambda x, t, kind=_kind: bounds.simple_loss(
        network, x, t, 2 * x, schedule=NOISE, kind=kind
    )
    PURE[f"as_denoiser {_kind}"] = lambda x, t, kind=_kind: parameterization.as_denoiser(network, NOISE, kind)(x, t)
SAMPLERS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "ancestral": lambda x, t: sampling.ancestral(DENOISER, NOISE, x, generator=torch.Generator(), keep=[0]).x,
    "ancestral strided": lambda x, t: (
        sampling.ancestral(DENOISER, NOISE, x, generator=torch.Generator(), times=[6, 3, 1, 0], variance="beta").x
    ),
    "ancestral table": lambda x, t: (
        sampling.ancestral(DENOISER, NOISE, x, generator=torch.Generator(), times=[6, 3, 0], variance=TABLE).x
    ),
    "ancestral function": lambda x, t: (
        sampling.ancestral(
            DENOISER, NOISE, x, generator=torch.Generator(), times=[6, 3, 0], variance=lambda x, t: t * 0.1
        ).x
    ),
    "ddim": lambda x, t: sampling.ddim(DENOISER, NOISE, x, times=[6, 2, 0]).x,
    "heun": lambda x, t: sampling.heun(DENOISER, NOISE, x, times=[6, 2, 0]).x,
    "probability_flow": lambda x, t: score.probability_flow(network, NOISE, x, times=[6, 2, 0]).x,
    "ddim_inverse": lambda x, t: sampling.ddim_inverse(DENOISER, NOISE, x, times=[0, 2, 6]).x,
    "ddim with noise": lambda x, t: (
        sampling.ddim(DENOISER, NOISE, x, times=[6, 2, 0], eta=0.5, generator=torch.Generator()).x
    ),
}


def tensors(result: object) -> list[Tensor]:
    return [x for x in tree_leaves(result) if isinstance(x, Tensor)]


@pytest.mark.parametrize("name", PURE | SAMPLERS)
def test_no_value_is_read_and_no_float64_made_beside_the_cpu(name: str) -> None:
    call = (PURE | SAMPLERS)[name]
    here = tensors(call(*STATES))
    with NoFloat64() as watch:
        there = tensors(call(*(x.to("meta") for x in STATES)))
    assert watch.made > len(there)
    assert [(x.shape, x.dtype) for x in there] == [(x.shape, x.dtype) for x in here]
    assert {x.device.type for x in there} == {"meta"}


def test_the_watch_sees_float64() -> None:
    x, t = (x.to("meta") for x in STATES)
    with NoFloat64(), pytest.raises(AssertionError, match="made a float64 tensor"):
        forward.q_posterior(NOISE, x, x, t, t - 1)  # of any s: float64 where the device has it


def test_decoders_and_draws_read_no_value_beside_the_cpu() -> None:
    x = STATES[0].to("meta")
    for decoder in (bounds.rounding_decoder(NOISE, 17), bounds.discretized_decoder(DENOISER, NOISE, 17)):
        assert decoder(x, x).device.type == "meta"
    path = torch.stack([x] * 7)
    assert bounds.consistency_form(DENOISER, NOISE, x, path, decode).total.device.type == "meta"
    assert {y.device.type for y in bounds.draw(x, NOISE, generator=torch.Generator())} == {"meta"}
    alpha_bar = torch.rand(3).to("meta")
    assert parameterization.convert(x, x, alpha_bar, src="score", dst="mean", alpha_bar_s=1.0).dtype == x.dtype
    assert parameterization.elbo_weight("eps", alpha_bar, 0.99).shape == (3,)
    pair = parameterization.SignalNoise(alpha_bar, 1 - alpha_bar)
    assert pair.convert(x, x, src="score", dst="v").device.type == pair.log_snr.device.type == "meta"


def test_coefficients_of_any_step_are_float32_only_where_float64_is_missing() -> None:
    assert checks.widest_dtype(torch.device("mps")) == torch.float32
    assert {checks.widest_dtype(torch.device(d)) for d in ("cpu", "cuda", "meta")} == {torch.float64}


COMPILED = {
    name: PURE[name] for name in ("q_posterior", "p_transition beta", "simple_loss eps", "simple_loss mean")
} | {
    "conversion": lambda x, t: parameterization.convert(x, x, x[:, 0] * 0.3, src="score", dst="v"),
    "pair": lambda x, t: PAIR.convert(x, 2 * x, src="eps", dst="v"),
    "elbo_weight": lambda x, t: parameterization.elbo_weight("v", x[:, 0] * 0.3, 0.5),
    "elbo_loss rounding": lambda x, t: bounds.elbo_loss(
        DENOISER, x, t, 2 * x, schedule=NOISE, decoder=bounds.rounding_decoder(NOISE, 3)
    ),
    "elbo_loss built inside": lambda x, t: elbo_of(parameterization.as_denoiser(network, NOISE, "eps"), x, t),
}


FRESH = schedule.linear(6, 0.05, 0.6)  # no other test has used it


def elbo_of(denoiser: Callable, x: Tensor, t: Tensor) -> Tensor:
    decoder = bounds.discretized_decoder(parameterization.clamped(denoiser), FRESH, 3)
    return bounds.elbo_loss(denoiser, x, t, 2 * x, schedule=FRESH, decoder=decoder)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_whole_it_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the compiler cannot trace its checks
    torch.compiler.reset()
    compiled = torch.compile(COMPILED[name], fullgraph=True, backend="eager")
    for one, other in zip(tensors(compiled(*STATES)), tensors(COMPILED[name](*STATES)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
