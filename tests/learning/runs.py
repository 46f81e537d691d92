"""Small runs that the tests start in processes of their own: python runs.py {nursery|ranks} FOLDER.

nursery: forks a run that saves after each step, kills it with SIGKILL at a random moment, twenty times, then lets it
end; ranks: what torchrun starts, a VAE and a DDPM in float64.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from dmlib import data, rng
from dmlib.diffusion import bounds, schedule
from dmlib.learning import checkpoints, processes
from dmlib.learning.training import Objective, TrainConfig, TrainResult, fit
from dmlib.networks import build
from dmlib.probability.likelihoods import to_unit

POINTS = data.two_moons(200, generator=rng.generator(0))
HELD_OUT = data.two_moons(50, generator=rng.generator(1))
KILLS = 20


def denoising(dtype: torch.dtype = torch.float32) -> Objective:
    """The plain loss of a diffusion in eight steps."""
    s = schedule.cosine(8)
    loss = functools.partial(bounds.simple_loss, schedule=s, kind="eps")
    return Objective(functools.partial(bounds.draw, schedule=s), loss, lambda x: x.to(dtype))


def small_run(checkpoint: Path | None, steps: int = 60) -> TrainResult:
    """A run of some tenths of a second that uses all that a checkpoint holds."""
    config = TrainConfig(
        steps, batch_size=32, lr=0.01, warmup=10, cosine=True, ema_decay=0.9, log_every=7,
        checkpoint=str(checkpoint) if checkpoint else None, checkpoint_every=1 if checkpoint else None,
    )  # fmt: skip
    model = build({"name": "time_mlp", "dim": 2, "hidden": 16})
    return fit(model, denoising(), POINTS, config, validation=HELD_OUT)


def keep(result: TrainResult, path: Path) -> None:
    """Write all that a run has made."""
    tensors = checkpoints.pack(model=result.model.state_dict(), ema=result.ema.state_dict())
    checkpoints.save(path, tensors, result.history)


def forked(run: object) -> int:
    """A child process that runs this and nothing else."""
    child = os.fork()
    if child == 0:
        run()
        os._exit(0)
    return child


def saved(checkpoint: Path) -> int:
    """The step that the checkpoint holds; 0 before there is one."""
    return checkpoints.load(checkpoint)[1]["step"] if checkpoint.exists() else 0


def nursery(folder: Path) -> None:
    """The same run with and without twenty kills, and how far each of them let it come.

    A kill waits for none to four further steps, and then for an instant, so that it falls anywhere within a step.
    """
    checkpoint = folder / "run.safetensors"
    os.waitpid(forked(lambda: keep(small_run(None), folder / "whole.safetensors")), 0)
    chance, reached = random.Random(0), []
    for _ in range(KILLS):
        wanted = min(saved(checkpoint) + chance.randint(0, 4), 59)
        child = forked(lambda: small_run(checkpoint))
        while saved(checkpoint) < wanted:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reached.append(saved(checkpoint))
    os.waitpid(forked(lambda: keep(small_run(checkpoint), folder / "killed.safetensors")), 0)
    print(*reached)


def ranks(folder: Path) -> None:
    """A VAE and a DDPM in float64, trained by however many processes there are."""
    images = data.digits("train")
    config = TrainConfig(steps=12, batch_size=16, lr=0.01, log_every=5)
    vae = build(
        {"name": "vae", "event": [1, 8, 8], "latent": 3, "hidden": [16], "likelihood": "binomial", "levels": 17}
    )
    bound = Objective(functools.partial(vae.draw, samples=2), lambda model, x, noise: -model.elbo(x, noise))
    unet = build({"name": "unet", "channels": 1, "size": 8, "patch": 1, "widths": [8, 16]}).double()
    s = schedule.cosine(8)
    simple = Objective(
        functools.partial(bounds.draw, schedule=s),
        functools.partial(bounds.simple_loss, schedule=s, kind="eps"),
        functools.partial(to_unit, levels=17, dtype=torch.float64),
    )
    for name, model, objective in (("vae", vae.double(), bound), ("ddpm", unet, simple)):
        path = str(folder / f"{name}-run-{processes.world_size()}.safetensors")
        config = TrainConfig(steps=12, batch_size=16, lr=0.01, log_every=5, checkpoint=path, checkpoint_every=4)
        result = fit(model, objective, images, config)
        if processes.is_first():
            keep(result, folder / f"{name}-{processes.world_size()}.safetensors")


if __name__ == "__main__":
    import torch._dynamo  # The first step of an optimizer imports it; a fork that has it starts at once.

    torch.set_num_threads(1)
    {"nursery": nursery, "ranks": ranks}[sys.argv[1]](Path(sys.argv[2]))
