"""The chapters' helpers compute where their tensors are: run on the meta device, whose tensors meet no others."""

from __future__ import annotations

import ast
import contextlib
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from dmlib import rng
from tools import execute

IMAGES, ROWS = (3, 1, 8, 8), (3, 64)
USES = {  # What a chapter's helpers read beside their arguments.
    "01-latent-variables": "",
    "02-autoencoders": "g corners clover shift",
    "04-vae": "",
    "06-discrete-vae": "x W N V S f64 states corners exact rows score chance logits log_q P goal",
    "05-hierarchical-vae": "",
    "07-forward-process": "beta kept plan",
    "10-what-to-predict": "T f64 beta bar before a b A B forms nats runs angle time grid layers plan single oracle one",
    "08-two-elbos": "six alpha beta calls unit perfect points denoise plan",
    "11-ddpm": "T f64 plane single six six_denoiser",
    "12-sampling": "f64 clouds wheel turn T short bar high low of_x_0 seed_of",
    "13-reading-a-model": "f64 card sched bar",
}
CALLS = [
    ("01-latent-variables", "cast(empty((3, 9)), 30)"),
    ("01-latent-variables", "log_evidence(empty(9).long(), 0.5)"),
    ("01-latent-variables", "grid_evidence(empty((9, 2)), 11)"),
    ("01-latent-variables", "update(empty((5, 5)), empty((5, 5, 7)), 5)[1]"),
    ("01-latent-variables", "responsibilities(empty(4), empty(3), empty(3), empty(3))"),
    ("01-latent-variables", "grid_posterior(empty(2))[1]"),
    ("02-autoencoders", "error(lambda x: x, lambda z: 2 * z, empty(ROWS))"),
    ("02-autoencoders", "Stack((64, 8, 64)).to('meta')(empty(ROWS))"),
    ("02-autoencoders", "best(empty((3, 2)), 0.7)"),
    ("02-autoencoders", "relabel(empty((3, 16)))"),
    ("02-autoencoders", "undo(empty((3, 16)))"),
    ("04-vae", "bits_per_pixel(Net().to('meta'), empty(ROWS), 2)"),
    ("04-vae", "three_bounds(Net().to('meta'), empty(ROWS), 2)"),
    ("04-vae", "take_apart(Net().to('meta'), empty(ROWS))[0]"),
    ("04-vae", "torch.stack(three_parts(Net().to('meta'), empty(ROWS)))"),
    ("04-vae", "sample(Net().to('meta'), empty((3, 8)))"),
    ("04-vae", "mean_image(Net().to('meta'), empty((3, 8)))"),
    ("04-vae", "as_library(Net().to('meta')).elbo(empty(ROWS).long(), empty((1, 3, 8)))"),
    ("06-discrete-vae", "cost(empty((5, 2, 3), f64))"),
    ("06-discrete-vae", "average(empty((2, 3), f64))"),
    ("06-discrete-vae", "place(empty((7, 2, 3), f64))"),
    ("06-discrete-vae", "VQ().to('meta')(empty(ROWS).long())[0]"),
    ("06-discrete-vae", "flat(empty((5, 3)))"),
    ("06-discrete-vae", "log_soft(empty(5), 1.0, 0.5)"),
    ("06-discrete-vae", "mix_cost(empty(5))"),
    ("06-discrete-vae", "count(empty((4, 6561), f64))[1]"),
    ("06-discrete-vae", "loo_gradient(empty((2, 5)), lambda idx: idx.sum(1).float(), empty((6, 2)).long())"),
    ("06-discrete-vae", "average_step(empty((7, 2)), empty(7), empty((7, 2)), empty((9, 2)), 0.5)[0]"),
    ("06-discrete-vae", "log_joint(coded, empty(IMAGES).long(), empty((3, 2)).long())"),
    ("06-discrete-vae", "improve(coded, empty(IMAGES).long(), empty((3, 2)).long())"),
    ("06-discrete-vae", "price(empty((5, 4)))"),
    ("06-discrete-vae", "surrogate('soft', empty((5, 4)), empty((3, 5, 4)))"),
    ("05-hierarchical-vae", "TwoLevels().to('meta').bound(empty(ROWS), empty((3, 8)), empty((3, 4)))"),
    (
        "05-hierarchical-vae",
        "as_library(TwoLevels().to('meta')).elbo(empty(ROWS).long(), [empty((1, 3, 8)), empty((1, 3, 4))])",
    ),
    ("05-hierarchical-vae", "known(empty((3, 4)))"),
    ("05-hierarchical-vae", "gain((empty(2), empty(2)), empty(9))"),
    ("05-hierarchical-vae", "read((empty(2), empty(2)), empty((5, 2)), empty((5, 2, 2)))[2]"),
    ("07-forward-process", "log_weights(empty(ROWS), 0.3, empty(ROWS))"),
    ("07-forward-process", "known(empty(ROWS), empty((3, 10)), 0.3, empty(ROWS))"),
    ("07-forward-process", "jump(empty(IMAGES), 5, empty(IMAGES))"),
    ("07-forward-process", "gaussian_information(empty(64), empty(5))"),
    ("07-forward-process", "draw_pair(plan, empty(IMAGES), 1, 2, None)[1]"),
    ("07-forward-process", "draw_between(plan, empty(IMAGES), empty(IMAGES), 1, 2, None)"),
    ("10-what-to-predict", "decode(empty((3, 1)), empty((3, 1)))"),
    ("10-what-to-predict", "predict([w.to('meta') for w in layers], empty((24, 5)), empty((24, 5)).long())"),
    ("10-what-to-predict", "reached(empty((2, 401)), empty((2, 401)))"),
    ("10-what-to-predict", "translate(empty((3, 2)), empty((3, 2)), empty(3), empty(3), 'v', 'score')"),
    ("08-two-elbos", "moments(Affine(*[empty(7)] * 6), empty(()))[1]"),
    ("08-two-elbos", "path_lines(Affine(*[empty(7)] * 6), empty(()))"),
    ("08-two-elbos", "denoising_lines(Affine(*[empty(7)] * 6), six, empty(()))"),
    ("08-two-elbos", "printed_of(Affine(*[empty(7)] * 6), empty(()))"),
    ("08-two-elbos", "evidence_of(Affine(*[empty(7)] * 6), empty(()))"),
    ("08-two-elbos", "mixed_up(Affine(*[empty(7)] * 6), empty(()))[1]"),
    ("08-two-elbos", "bound_under(Affine(*[empty(4)] * 6), empty(()), empty(3), empty((3, 3)))"),
    ("08-two-elbos", "targets(six, empty((7, 3)))['denoising']"),
    ("08-two-elbos", "values(six, 0.8, empty((7, 3)))['log-ratio']"),
    ("08-two-elbos", "gauss_decoder(empty((3, 1)), empty((3, 1)))"),
    ("08-two-elbos", "table_bound(empty((3, 4, 4)), empty((3, 4, 4)), empty(4))"),
    ("08-two-elbos", "repaired_form(denoise, plan, empty((11, 3, 1)), decode)[0]"),
    ("08-two-elbos", "back_from(empty((3, 1)), 1).mean"),
    ("11-ddpm", "Network().to('meta')(empty((3, 2)), empty(3, dtype=torch.int64))"),
    ("11-ddpm", "log_joint(empty((7, 3, 1)))"),
    ("11-ddpm", "move(network, plane.alpha_bar, empty((3, 2)), [40, 20, 0], 1.0)"),
    ("12-sampling", "cdf(clouds, empty(5, dtype=f64), 0.5)"),
    ("12-sampling", "quantile(clouds, empty(5, dtype=f64))"),
    ("12-sampling", "slerp(empty(IMAGES), empty(IMAGES), empty(()))"),
    ("12-sampling", "distance(empty(5, dtype=f64))"),
    ("12-sampling", "predict([empty((2, i, 9)) for i in (9, 1, 9, 1, 9, 1)], empty((2, 3)), empty((2, 3)))[1]"),
    ("12-sampling", "cost(*[empty((12, 3))] * 3, torch.ones_like(empty((12, 3))).long(), empty((12, 3)))"),
    ("12-sampling", "between(torch.ones_like(empty((12, 3))).long(), empty((12, 3)))"),
    ("12-sampling", "second_order(denoiser, wheel, empty((3, 2)), [1024, 512, 0])"),
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

    coded = SimpleNamespace(decode=lambda idx: (empty((len(idx), 1, 8, 8, 17)),), log_prior=lambda idx: empty(len(idx)))
    coded.quantizer = SimpleNamespace(codebook=empty((3, 2)))
    given = {"network": network, "denoiser": network, "coded": coded, "empty": empty, "ROWS": ROWS, "IMAGES": IMAGES}
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
