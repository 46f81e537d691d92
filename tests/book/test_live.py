"""Figures that compute: what Python hands to the page, and what it refuses."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch

from dmlib.book import live
from dmlib.networks import build

LINEAR = {"T": 20, "beta_1": 0.02, "beta_T": 0.4}
FOUR = ["mixture", "posterior", "decoder", "digits"]
BYTES, MORE = 60_000, 67_000  # of the four modules, and of all, each file once


def still(ax):
    ax.plot([0, 1])


def posterior(**changes):
    options = {"data": {"linear": LINEAR}, "alt": "three densities", "still": still}
    return live.compute("posterior", **(options | changes))


def handed(figure) -> dict:
    """The values that the page gets."""
    return json.loads(re.search(r'class="dm-data">(.*?)</script>', figure.page())[1])


def test_the_page_gets_the_data_and_the_controls_that_were_given():
    assert handed(posterior(t=9, schedule="cosine")) == {"linear": LINEAR, "t": 9, "schedule": "cosine"}
    made = posterior(data={"linear": LINEAR, "at": torch.tensor([0.1, 0.2], dtype=torch.float64)})
    assert handed(made)["at"] == [0.1, 0.2]
    made = posterior(data={"linear": LINEAR, "both": {"at": torch.tensor([[0.1]]), "named": (1, "a")}})
    assert handed(made)["both"] == {"at": [[0.1]], "named": [1, "a"]}


def test_no_data_ends_the_script_that_holds_it():
    nasty = "</script><script>alert(1)</script>"
    figure = posterior(data={"linear": LINEAR, "note": nasty})
    assert nasty not in figure.page()
    assert handed(figure)["note"] == nasty
    assert "<b>" not in posterior(alt="<b>bold</b>").page()


def test_weights_go_in_half_precision_under_their_names():
    net = build({"name": "mlp", "sizes": [3, 2]})
    page = posterior(data={"linear": LINEAR, "net": net}).page()
    value = json.loads(re.search(r'class="dm-data">(.*?)</script>', page)[1])["net"]
    assert value["shapes"] == {"layers.0.weight": [2, 3], "layers.0.bias": [2]}
    packed = re.search(rf'dmlibLive.weights\["{value["weights"]}"\]="([^"]*)"', page)[1]
    row = np.frombuffer(base64.b64decode(packed), "<f2")
    wanted = torch.cat([part.flatten() for part in net.state_dict().values()]).half().numpy()
    assert np.array_equal(row, wanted)


def test_the_pages_name_the_module_that_a_notebook_holds():
    assert "function" not in posterior().page(static=True).split("<script>")[0]
    assert 'data-src="_static/live/posterior.js"' in posterior().page(static=True)
    assert live.script("posterior") in posterior().page()


def test_a_build_names_and_a_notebook_holds(monkeypatch):
    monkeypatch.delenv("DMLIB_STATIC", raising=False)
    assert posterior()._repr_mimebundle_()["text/html"] == posterior().page()
    monkeypatch.setenv("DMLIB_STATIC", "1")
    bundle = posterior()._repr_mimebundle_()
    assert bundle == {"text/plain": "three densities", "text/html": posterior().page(static=True)}


def test_a_picture_stands_where_no_script_runs():
    page = posterior(figsize=(3, 2)).page()
    (picture,) = re.findall(r"<img [^>]*>", page)
    assert 'alt="three densities"' in picture
    assert 'width="300" height="200"' in picture


@pytest.mark.parametrize("name", live.modules())
def test_a_module_is_one_script_without_imports(name):
    script = live.script(name)
    assert not re.search(r"^(import|export)\b", script, re.M)
    assert "</script" not in script
    assert re.search(r"^return \{ (\w+, )*render(, \w+)* \};\n\}\)\(\);$", script, re.M)


@pytest.mark.parametrize(("names", "most"), [(FOUR, BYTES), (live.modules(), MORE)])
def test_the_modules_are_small(names, most):
    parts = {part for name in names for part in live._parts(name, [])}
    assert sum(len(part.encode()) for part in parts) < most


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"t": 0}, "t was 0; it must be in 1..20"),
        ({"t": "9"}, "t was 9; it must be in 1..20"),
        ({"t": True}, "t was True"),
        ({"schedule": "square"}, "schedule was 'square'; it must be one of linear, cosine"),
        ({"pace": 3}, "the control pace was given; it must be one of x_0, x_t"),
        ({"alt": " "}, "alt was ' '"),
        ({"still": None}, "still"),
        ({"data": {"t": 3}}, r"the keys of data was \['t'\]"),
        ({"data": {"x": torch.tensor([float("nan")])}}, "data was not finite"),
    ],
)
def test_what_is_refused(changes, words):
    with pytest.raises((ValueError, TypeError), match=words):
        posterior(**changes)


def test_an_unknown_module_is_refused():
    with pytest.raises(ValueError, match=r"module was 'prior'; it must be one of .*posterior"):
        live.compute("prior", data={}, alt="x", still=still)
