"""Train a DDPM, measure its bound and its samples, and record the run.

    python -m dmlib.experiments.ddpm --data digits                                # minutes on two cores
    python -m dmlib.experiments.ddpm --data mnist --amp_dtype auto --device auto   # more than an hour of a core
    torchrun --nproc_per_node=4 -m dmlib.experiments.ddpm --data mnist             # the same run on four GPUs
    python -m dmlib.experiments.ddpm --kind v --name ddpm-digits-v                 # a variant, in a folder of its own

The same command continues a run that was stopped. All losses and bounds are in nats until they are named bits.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

from dmlib import metrics, rng
from dmlib.checks import Tensor, integer, require, require_choice
from dmlib.diffusion import bounds, parameterization, sampling, schedule, variances
from dmlib.diffusion.forward import q_sample
from dmlib.diffusion.schedule import NoiseSchedule
from dmlib.experiments import command, measure
from dmlib.learning import processes
from dmlib.learning.config import free
from dmlib.learning.training import Objective, fit
from dmlib.networks import build
from dmlib.probability.likelihoods import to_unit
from dmlib.probability.mixture import Denoiser

KINDS = get_args(parameterization.Kind)
CHOICES = {"schedule": ("linear", "cosine"), "kind": KINDS, "weighting": ("simple", "elbo")}


def noise(config: DDPMConfig) -> dict[str, Any]:
    """What schedule.build takes."""
    betas = {"beta_1": config.beta_1, "beta_T": config.beta_T} if config.schedule == "linear" else {}
    return {"name": config.schedule, "T": config.T, **betas}


@dataclass(frozen=True)
class DDPMConfig(command.SampledConfig):
    """A diffusion model of images and its training."""

    steps: int = 3000
    lr: float = 2e-3
    warmup: int = 200
    cosine: bool = True
    ema_decay: float = 0.995
    log_every: int = 200
    checkpoint_every: int | None = free(1000)
    schedule: str = "linear"
    T: int = 200
    beta_1: float = 1e-3  # Of a linear schedule, as is beta_T.
    beta_T: float = 0.1
    kind: str = "eps"  # What the network predicts: x_0, eps, score, v or mean.
    weighting: str = "simple"  # simple: the plain squared error; elbo: the bound's own weights.
    patch: int = 1
    widths: tuple[int, ...] = (32, 64)
    blocks: int = 1
    time_conditional: bool = True  # Whether the network sees t.
    bound_images: int = free(397)  # Held-out images of the bound.
    bound_steps: int | None = free(None)  # Of the chain whose bound is measured, evenly spaced; None: all T.
    sampling_steps: int | None = free(None)  # None: all T, with the posterior variance; fewer are DDIM steps.

    def __post_init__(self) -> None:
        super().__post_init__()
        integer(self.T, "T", 1)
        integer(self.bound_images, "bound_images", 2)  # A standard error takes two.
        for name in ("bound_steps", "sampling_steps"):
            ok = getattr(self, name) is None or 1 <= getattr(self, name) <= self.T
            require(ok, name, getattr(self, name), f"None or in 1..{self.T}, the steps T of the chain")
        for name, known in CHOICES.items():
            require_choice(getattr(self, name), name, known)
        for name in ("beta_1", "beta_T"):
            require(0 < getattr(self, name) < 1, name, getattr(self, name), "in (0, 1)")
        schedule.build(noise(self))  # Raises where so many steps leave nothing of the data.


PRESETS = {
    "digits": DDPMConfig(),
    "mnist": DDPMConfig(
        data="mnist", steps=20000, batch_size=64, lr=1e-3, ema_decay=0.999, amp_dtype="auto", log_every=500,
        schedule="cosine", T=1000, kind="v", patch=2, widths=(64, 96), bound_images=100,
        samples=400, sampling_steps=50,
    ),
}  # fmt: skip


def objective(config: DDPMConfig, noise_schedule: NoiseSchedule, levels: int) -> Objective:
    """What the configuration minimizes, on images of `levels` levels that are put on [-1, 1]."""
    loss = functools.partial({"simple": _simple, "elbo": _elbo}[config.weighting], noise_schedule, config.kind, levels)
    draw = functools.partial(bounds.draw, schedule=noise_schedule)
    return Objective(draw, loss, functools.partial(to_unit, levels=levels))


def _simple(s: NoiseSchedule, kind: str, levels: int, network: Any, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    return bounds.simple_loss(network, x_0, t, noise, schedule=s, kind=kind)


def _elbo(s: NoiseSchedule, kind: str, levels: int, network: Any, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    denoiser = parameterization.as_denoiser(network, s, kind)
    decoder = bounds.discretized_decoder(denoiser, s, levels)
    return bounds.elbo_loss(denoiser, x_0, t, noise, schedule=s, decoder=decoder)


def draw_samples(denoiser: Denoiser, s: NoiseSchedule, config: DDPMConfig, event: tuple[int, ...]) -> list[Tensor]:
    """Sets of config.samples images on [-1, 1], one of each seed; all T steps, or fewer of DDIM."""
    device, sets = processes.available(config.device), []
    steps = config.sampling_steps or s.T
    times = torch.linspace(s.T, 0, steps + 1).round().long()
    for seed in range(config.sets):
        images = []
        for i, n in enumerate(measure.batches(config.samples)):
            g = rng.generator(seed, 1, i, device=device)
            x_T = torch.randn(n, *event, generator=g, device=device)
            if steps == s.T:
                path = sampling.ancestral(denoiser, s, x_T, generator=g, keep=[0])
            else:
                path = sampling.ddim(denoiser, s, x_T, times=times, keep=[0])
            images.append(path.x[-1])
        sets.append(torch.cat(images))
    return sets


def held_out_bound(denoiser: Denoiser, s: NoiseSchedule, config: DDPMConfig, source: measure.Source) -> dict[str, Any]:
    """The bound of each held-out image, in bits per dimension, and the mean of each of its terms.

    The chain has `bound_steps` of the T times, evenly spaced. Beside the posterior's variance stands the best one,
    fitted to images that are not judged [eq-optimal-variance].
    """
    kept = torch.linspace(0, s.T, (config.bound_steps or s.T) + 1).round().long()
    chain = NoiseSchedule(s.alpha_bar[kept])
    other = source.train if source.validation is None else source.validation
    device = processes.available(config.device)
    judged, fitted = (
        one_pass(functools.partial(_at_times, denoiser, kept), chain, levels.to(device), source.levels)
        for levels in (measure.held_out(source, config.bound_images), other[: config.bound_images])
    )
    dims = source.test[0].numel()
    costs = variances.step_costs(chain, judged.errors, dims)
    best = variances.best_variance(chain, fitted.errors, dims)
    totals = [
        judged.ends.sum(1) - variances.step_costs(chain, judged.errors, dims, v).sum(1) for v in ("posterior", best)
    ]
    terms = torch.cat([-judged.ends[:, :1], costs, -judged.ends[:, 1:]], 1).mean(0)
    return measure.bound(totals[0], dims) | {
        "bits_best_variance": measure.bound(totals[1], dims)["bits"],
        "terms": measure.plain(metrics.bits_per_dim(-terms.cpu(), dims)),
    }


class Pass(NamedTuple):
    """What all bounds of a chain are made of, image by image."""

    errors: Tensor  # [N, T] of the prediction from each time
    ends: Tensor  # [N, 2] in nats: the reconstruction, and minus the prior's divergence


@torch.no_grad()
def one_pass(denoiser: Denoiser, chain: NoiseSchedule, images: Tensor, levels: int) -> Pass:
    """The errors and the two ends on images of levels [N, *event]: one noise for each term, the same in every run."""
    decoder, parts = bounds.discretized_decoder(denoiser, chain, levels), []
    for i, x_0 in enumerate(to_unit(images, levels).split(measure.BATCH)):
        noise = functools.partial(_noise, x_0, i)
        x_1 = q_sample(chain, x_0, torch.ones(len(x_0), dtype=torch.int64, device=x_0.device), noise(1))
        ends = torch.stack([decoder(x_0, x_1), -bounds.prior_kl(chain, x_0)], 1).double()
        errors = variances.prediction_errors(denoiser, chain, x_0, map(noise, range(1, chain.T + 1)))
        parts.append(Pass(errors, ends))
    return Pass(*map(torch.cat, zip(*parts)))


def _noise(x_0: Tensor, batch: int, t: int) -> Tensor:
    g = rng.generator(0, 2, batch, t, device=x_0.device)
    return torch.randn(x_0.shape, generator=g, device=x_0.device)


def _at_times(denoiser: Denoiser, times: Tensor, x: Tensor, i: Tensor) -> Tensor:
    """The denoiser at the i-th of some times."""
    return denoiser(x, times.to(i.device)[i])


def measured(network: nn.Module, config: DDPMConfig, folder: Path) -> dict[str, Any]:
    """The bound and the samples of a trained network; writes samples.png."""
    source, s = measure.source(config.data), schedule.build(noise(config))
    denoiser = parameterization.clamped(parameterization.as_denoiser(network, s, config.kind))
    sets = draw_samples(denoiser, s, config, tuple(source.test.shape[1:]))
    command.picture(folder / "samples.png", sets[0].cpu())
    return held_out_bound(denoiser, s, config, source) | measure.quality(sets, source)


def run(config: DDPMConfig, folder: Path) -> dict[str, Any]:
    """Train, measure, and write samples.png; with `publish`, the weights too."""
    source, steps = measure.source(config.data), noise(config)
    s, keys = schedule.build(steps), ("patch", "widths", "blocks", "time_conditional")
    size = source.train.shape[-1]
    spec = {"name": "unet", "channels": 1, "size": size} | {key: getattr(config, key) for key in keys}
    goal, network = objective(config, s, source.levels), build(spec, seed=config.seed)
    command.say(f"{config.name}: {command.environment(config)}")
    result = fit(
        network, goal, source.train, config, device=config.device, on_log=command.progress, validation=source.validation
    )
    if not processes.is_first():
        return {}
    found = measured(result.ema, config, folder)
    return measure.conclude(config, result, found, {"schedule": steps, "kind": config.kind, "network": spec})


if __name__ == "__main__":
    sys.exit(command.main(sys.modules[__name__], PRESETS, run))
