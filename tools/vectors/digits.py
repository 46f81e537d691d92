"""The sampler of digits: live/math/unet.js, layer by layer and whole, denoising.js, and the packed weights."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from dmlib import rng
from dmlib.book import live
from dmlib.checks import Tensor
from dmlib.diffusion import forward, parameterization, sampling, schedule
from dmlib.learning.checkpoints import pretrained
from dmlib.networks import Attention, ResidualBlock, build, time_features
from tools.vectors import EXACT, NETWORK, Case

F64 = torch.float64
SHORT = schedule.linear(6, 0.05, 0.5)
TIMES = [6, 4, 1, 0]
LAYER = "eq-simple-loss"  # of whose network the layers are


def cases() -> list[Case]:
    """Layers with random weights, a small network, the shipped one, and what makes a sampler of it."""
    return [*layers(), *blocks(), whole(), *shipped(), *denoising(), halves()]


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers that half precision holds."""
    return (scale * torch.randn(*shape, generator=rng.generator(seed), dtype=F64)).half().double()


def filled(module: nn.Module) -> nn.Module:
    """The module in float64, with all its weights drawn."""
    for i, parameter in enumerate(module.double().parameters()):
        parameter.data = drawn(*parameter.shape, seed=i, scale=0.3)
    return module.requires_grad_(False)


def packed(network: nn.Module) -> dict[str, Any]:
    """The weights as a page gets them."""
    made = live.Computed("digits", {"net": network}, {}, "", "")
    (row,) = made.weights.values()
    return {"shapes": made.values["net"]["shapes"], "halves": row}


def layers() -> Iterable[Case]:
    x = drawn(24, seed=1)
    yield Case(LAYER, "SiLU", "unet.silu(x)", {"x": x}, nn.functional.silu(x))
    for inputs, outputs, n in ((7, 3, 2), (4, 2, 1), (3, 1, 5)):
        layer, x = filled(nn.Linear(inputs, outputs)), drawn(inputs, n, seed=2)
        call, values = "unet.linear(w.weight, w.bias, x, n)", {"w": layer, "x": x.flatten(), "n": n}
        yield Case(LAYER, f"a linear layer from {inputs} to {outputs}", call, values, layer(x.T).T.flatten())
    for kernel, stride, size in ((1, 1, 3), (3, 1, 3), (3, 2, 4), (3, 2, 5)):
        layer, x = filled(nn.Conv2d(2, 3, kernel, stride, kernel // 2)), drawn(2, size, size, seed=3)
        call = f"unet.conv(w.weight, w.bias, x, {size}{', 2' if stride == 2 else ''})"
        claim = f"a convolution, kernel {kernel}, stride {stride}, {size} x {size} pixels"
        yield Case(LAYER, claim, call, {"w": layer, "x": x.flatten()}, layer(x).flatten())
    layer, x = filled(nn.GroupNorm(8, 16)), drawn(1, 16, 2, 2, seed=4, scale=0.01)
    call = "unet.groupNorm(w.weight, w.bias, Float64Array.from(x))"
    yield Case(LAYER, "group normalization", call, {"w": layer, "x": x.flatten()}, layer(x).flatten())
    x = drawn(1, 2, 3, 3, seed=5)
    bigger = nn.functional.interpolate(x, scale_factor=2.0).flatten()
    yield Case(LAYER, "nearest upsampling", "unet.upsample(x, 3)", {"x": x.flatten()}, bigger)
    # The library takes the angles in float32.
    features = time_features(torch.tensor([3])).flatten()
    yield Case("eq-time-features", "at t = 3", "unet.timeFeatures(3)", {}, features, 1e-6)
    w = filled(nn.ConvTranspose2d(3, 1, 1, 1))
    x = drawn(3, 2, 2, seed=6)
    call = "unet.conv(w.weight, w.bias, x, 2)"
    values = {"w": w, "x": x.flatten()}
    yield Case(LAYER, "the head's transposed convolution, patches of one pixel", call, values, w(x).flatten())


def blocks() -> Iterable[Case]:
    for n_in, n_out in ((8, 8), (8, 16)):
        block, x, time = filled(ResidualBlock(n_in, n_out, 5)), drawn(1, n_in, 2, 2, seed=7), drawn(1, 5, seed=8)
        call = 'unet.residual(w, "of", Float64Array.from(x), time, 2)'
        values = {"w": nn.ModuleDict({"of": block}), "x": x.flatten(), "time": time.flatten()}
        yield Case(LAYER, f"a residual block from {n_in} to {n_out}", call, values, block(x, time).flatten())
    block, x = filled(Attention(8)), drawn(1, 8, 3, 3, seed=9, scale=3.0)
    call, values = (
        'unet.attention(w, "of", Float64Array.from(x), 3)',
        {"w": nn.ModuleDict({"of": block}), "x": x.flatten()},
    )
    yield Case(LAYER, "attention", call, values, block(x, x).flatten())


def whole() -> Case:
    """A U-Net of two levels, two blocks each; the angles of its time are float32."""
    net = filled(build({"name": "unet", "channels": 1, "size": 4, "patch": 1, "widths": [8, 16], "blocks": 2}))
    x, t = drawn(1, 1, 4, 4, seed=10), torch.tensor([3])
    call = "unet.predict(halves.tensors(net), Float64Array.from(x), 3)"
    return Case(LAYER, "a small U-Net", call, {"net": packed(net), "x": x.flatten()}, net(x, t).flatten(), NETWORK)


def shipped() -> Iterable[Case]:
    """The network of the page at two times, and short paths from the same noise."""
    net, card = pretrained("ddpm-digits")
    values, net, predict = {"net": packed(net)}, net.double(), "unet.predict(w, Float64Array.from(x), t)"
    x = drawn(1, 1, 8, 8, seed=11)
    outputs = [net(x, torch.tensor([t])).flatten() for t in (200, 20)]
    call = f"((w) => [200, 20].map((t) => {predict}))(halves.tensors(net))"
    yield Case(LAYER, "the shipped network", call, {**values, "x": x.flatten()}, outputs, NETWORK, once=True)
    of = {key: value for key, value in card["schedule"].items() if key != "name"}
    yield path(
        net,
        schedule.linear(**of),
        [200, 120, 60, 20, 0],
        x,
        f"((w) => {PATH.format(predict)})(halves.tensors(net))",
        values,
    )


# What the page does with the path, and its predictions of the noise.
PATH = """((way, denoise, x, x0) => {{
  let at = way.next();
  for (; !at.done; at = way.next(x0.at(-1))) x.push(at.value[0]) && x0.push(denoise(...at.value));
  return {{ x: [...x, at.value], x0 }};
}})(denoising.path(alphaBar, x, times, eta, () => noise.shift()),
  (x, t) => denoising.cleaned(x, {}, alphaBar[t], clamped), [], [])"""


def path(net: Any, plan: schedule.NoiseSchedule, times: list[int], x: Tensor, call: str, given: dict[str, Any]) -> Case:
    """A path with eta = 0.7 and clamped predictions; with a network in the tolerance of a network."""
    denoiser = parameterization.clamped(parameterization.as_denoiser(net, plan, "eps"))
    found = sampling.ddim(denoiser, plan, x, times=times, eta=0.7, generator=rng.generator(3))
    g = rng.generator(3)
    noise = [torch.randn(x.shape, generator=g, dtype=F64).flatten() for _ in times[2:]]
    values = {**given, "alphaBar": plan.alpha_bar, "x": x.flatten(), "times": times, "eta": 0.7, "clamped": True}
    expected = {"x": found.x.flatten(1), "x0": found.x_0_hat.flatten(1)}
    claim = "a path of the shipped network, clamped, eta = 0.7" if given else "a path, clamped, eta = 0.7"
    size = NETWORK if given else EXACT
    return Case("eq-ddim-step", claim, call, {**values, "noise": noise}, expected, size, once=bool(given))


def denoising() -> Iterable[Case]:
    x, noise, t = drawn(1, 5, seed=15), drawn(1, 5, seed=16, scale=1.5), torch.tensor([4])
    values = {"x": x.flatten(), "noise": noise.flatten(), "t": SHORT.alpha_bar[4].item()}
    state = forward.q_sample(SHORT, x, t, noise).flatten()
    yield Case("eq-noising-marginal", "a drawing, noised", "denoising.noised(x, noise, t)", values, state)
    x_0 = parameterization.to_x_0("eps", noise, x, SHORT.alpha_bar[t])
    for cut, expected in (("false", x_0), ("true", x_0.clamp(-1, 1))):
        call = f"denoising.cleaned(x, noise, t, {cut})"
        yield Case("eq-predict-line", f"x_0 of a prediction of noise, clamped: {cut}", call, values, expected.flatten())
    call = PATH.format("x.map((value) => 0.4 * value + 0.1)")
    yield path(lambda x, t: 0.4 * x + 0.1, SHORT, TIMES, drawn(1, 4, seed=17), call, {})


def halves() -> Case:
    """Normal and subnormal numbers of both signs, zero, and the largest."""
    row = torch.tensor([1.5, -0.3125, 0.0, -3e-7, 6e-5, 65504.0, -2.0]).half()
    text = base64.b64encode(row.numpy().astype("<f2").tobytes()).decode()
    call, values = "halves.tensors(net)", {"net": {"shapes": {"a": [2, 2], "b": [3]}, "halves": text}}
    return Case("eq-reparameterize", "weights in half precision", call, values, {"a": row[:4], "b": row[4:]})
