"""The chapters' helpers compute where their tensors are: run on the meta device, whose tensors meet no others."""

from __future__ import annotations

import ast
import contextlib

import pytest
import torch
from conftest import ROOT

from dmlib import rng
from tools import execute

IMAGES, ROWS = (3, 1, 8, 8), (3, 64)
USES = {  # What a chapter's helpers read beside their arguments.
    "04-vae": "",
    "11-ddpm": "T f64 plane single six six_denoiser",
    "13-reading-a-model": "f64 card sched bar",
}
CALLS = [
    ("04-vae", "bits_per_pixel(Net().to('meta'), empty(ROWS), 2)"),
    ("04-vae", "three_bounds(Net().to('meta'), empty(ROWS), 2)"),
    ("04-vae", "take_apart(Net().to('meta'), empty(ROWS))[0]"),
    ("04-vae", "torch.stack(three_parts(Net().to('meta'), empty(ROWS)))"),
    ("04-vae", "sample(Net().to('meta'), empty((3, 8)))"),
    ("04-vae", "mean_image(Net().to('meta'), empty((3, 8)))"),
    ("04-vae", "as_library(Net().to('meta')).elbo(empty(ROWS).long(), empty((1, 3, 8)))"),
    ("11-ddpm", "Network().to('meta')(empty((3, 2)), empty(3, dtype=torch.int64))"),
    ("11-ddpm", "log_joint(empty((7, 3, 1)))"),
    ("11-ddpm", "move(network, plane.alpha_bar, empty((3, 2)), [40, 20, 0], 1.0)"),
    ("13-reading-a-model", "predict(empty(IMAGES), 0, 5)[1]"),
    ("13-reading-a-model", "prediction_errors(empty(IMAGES), 0)"),
    ("13-reading-a-model", "gaussian_decoder(empty(IMAGES), 0, 5)"),
    ("13-reading-a-model", "rounding_decoder(empty(IMAGES), 0, 5)"),
    ("13-reading-a-model", "late(empty(IMAGES), 0, 5, empty((3, 200)))"),
    ("13-reading-a-model", "finer_states(4, empty(IMAGES), 0)[1]"),
    ("13-reading-a-model", "class_probability(empty((3, 2)), empty((5, 2)), empty(5), 0.5, 0.04)"),
]


def empty(shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def helpers(chapter: str) -> dict:
    """A chapter's imports, functions and classes, and what the functions use; no other cell is run."""
    names, uses = {}, set(USES[chapter].split())
    for node in ast.parse("\n".join(execute.code(ROOT / "chapters" / f"{chapter}.ipynb"))).body:
        made = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        plain = isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        if plain or (isinstance(node, ast.Assign) and set(made) & uses):
            with contextlib.suppress(NameError):  # Of a default value that no call below needs.
                exec(ast.unparse(node), names)
    return names


@pytest.fixture(scope="module")
def names():
    def network(x, t):
        return x * (t > 1).view(-1, *[1] * (x.dim() - 1))

    given = {"network": network, "denoiser": network, "empty": empty, "ROWS": ROWS, "IMAGES": IMAGES}
    found = {chapter: helpers(chapter) for chapter in USES}
    for chapter in found.values():
        chapter.update(given)
    return found


@pytest.mark.parametrize(("chapter", "call"), CALLS)
def test_a_helper_computes_where_its_tensors_are(names, monkeypatch, chapter, call):
    def generator(*path, device="cpu"):
        assert torch.device(device).type == "meta"  # Which has no generators of its own.
        return on_cpu(*path)

    on_cpu = rng.generator
    monkeypatch.setattr(rng, "generator", generator)
    assert eval(call, names[chapter]).device.type == "meta"
