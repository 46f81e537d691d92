"""One visual grammar: colors that everyone can tell apart, dashes for what is learned, labels on the axes."""

from __future__ import annotations

import io
import itertools
import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dmlib.book import plotting

PALETTE = ("DATA", "FORWARD", "MODEL", "EXACT", "WRONG", "GRAY")
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color):
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* of linear sRGB, for a distance that follows the eye."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    f = np.cbrt(np.clip(to_xyz @ rgb, 0, None) / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.mark.parametrize("name", PALETTE)
def test_colors_stand_out_from_white(name):
    luminance = linear(getattr(plotting, name)) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 3


@pytest.mark.parametrize("eyes", BLINDNESS)
def test_colors_are_told_apart_by_all_eyes(eyes):
    seen = {name: lab(np.clip(BLINDNESS[eyes] @ linear(getattr(plotting, name)), 0, 1)) for name in PALETTE}
    apart = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(PALETTE, 2)}
    assert min(apart.values()) >= 15, min(apart, key=apart.get)


def test_learned_is_dashed_and_wrong_is_dotted(ax):
    plotting.curve(ax, [0, 1], [0, 1], color=plotting.MODEL)
    plotting.curve(ax, [0, 1], [0, 1], color=plotting.MODEL, learned=True)
    plotting.curve(ax, [0, 1], [0, 1], color=plotting.WRONG, learned=True)
    plotting.density(ax, [0, 1], [0, 1], color=plotting.DATA, learned=True)
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--", ":", "--"]


def helpers():
    x = torch.linspace(-1, 1, 5, requires_grad=True)
    labels = {"xlabel": "x", "ylabel": "y", "title": "z"}
    return {
        "curve": lambda ax: plotting.curve(ax, x, x**2, color=plotting.DATA, label="a", **labels),
        "density": lambda ax: plotting.density(ax, x, x**2, color=plotting.DATA, label="a", **labels),
        "scatter": lambda ax: plotting.scatter(ax, torch.rand(9, 2), color=plotting.DATA, label="a", **labels),
        "bars": lambda ax: plotting.bars(ax, ["a", "b"], torch.tensor([1, 2]), **labels),
        "stacked": lambda ax: plotting.stacked(ax, [0, 1], {"a": [1, 2]}, colors=[plotting.DATA], **labels),
        "image": lambda ax: plotting.image(ax, torch.rand(1, 4, 4), **labels),
        "image_grid": lambda ax: plotting.image_grid(ax, torch.rand(5, 1, 4, 4), 3, **labels),
    }


@pytest.mark.parametrize("name", helpers())
def test_helpers_return_the_axes_and_name_them(ax, name):
    assert helpers()[name](ax) is ax
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("x", "y", "z")


def test_curve_and_density_draw_the_values(ax):
    plotting.density(ax, [0.0, 1.0, 2.0], torch.tensor([0.0, 3.0, 1.0]), color=plotting.FORWARD, label="q")
    assert ax.lines[0].get_xydata().tolist() == [[0, 0], [1, 3], [2, 1]]
    assert ax.lines[0].get_label() == "q"
    assert ax.collections[0].get_datalim(ax.transData).bounds == (0, 0, 2, 3)


def test_bars_stand_under_their_names(ax):
    plotting.bars(ax, ["a", 2], [1.0, -3.0], color=[plotting.DATA, plotting.MODEL])
    assert [patch.get_height() for patch in ax.patches] == [1, -3]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "2"]


def test_stacked_parts_end_at_the_sum(ax):
    parts = {"bound": torch.tensor([-5.0, -4.0]), "gap": [2.0, 1.0]}
    plotting.stacked(ax, [0, 10], parts, colors=[plotting.MODEL, plotting.GRAY])
    tops = [round(patch.get_y() + patch.get_height(), 9) for patch in ax.patches]
    assert tops == [-5, -4, -3, -3]
    assert ax.patches[2].get_y() == -5
    assert ax.patches[0].get_width() == 8
    with pytest.raises(ValueError, match="zip"):
        plotting.stacked(ax, [0, 10], parts, colors=[plotting.MODEL])


def test_image_keeps_its_gray_levels(ax):
    img = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
    plotting.image(ax, img, low=0, high=16)
    shown = ax.images[0]
    assert np.array_equal(shown.get_array(), img[0])
    assert shown.get_clim() == (0, 16)
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0


@pytest.mark.parametrize(("n", "columns", "shape"), [(6, 3, (7, 11)), (5, 3, (7, 11)), (1, 1, (3, 3)), (2, 4, (3, 15))])
def test_image_grid_puts_each_image_in_its_place(ax, n, columns, shape):
    imgs = torch.rand(n, 1, 3, 3)
    plotting.image_grid(ax, imgs, columns)
    tiled = ax.images[0].get_array().filled(np.nan)
    assert tiled.shape == shape
    for i in range(n):
        row, column = divmod(i, columns)
        assert np.allclose(tiled[4 * row : 4 * row + 3, 4 * column : 4 * column + 3], imgs[i, 0])
    assert np.isnan(tiled).sum() == tiled.size - 9 * n
    assert np.allclose(ax.images[0].get_clim(), (imgs.min(), imgs.max()))


def test_ellipse_is_the_contour_of_the_gaussian(ax):
    mean, cov = torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.9], [0.9, 0.7]])
    assert plotting.ellipse(ax, mean, cov, color=plotting.MODEL, learned=True, stds=3.0, label="p") is ax
    patch = ax.patches[0]
    points = patch.get_patch_transform().transform(patch.get_path().vertices[:-1:3])
    centered = torch.tensor(points, dtype=torch.float32) - mean
    distance = (centered @ cov.inverse() * centered).sum(1).sqrt()
    assert torch.allclose(distance, torch.full_like(distance, 3.0), atol=1e-4)
    assert patch.get_linestyle() == "--"


def test_annotate_points_at_its_place(ax):
    assert plotting.annotate(ax, "here", (1, 2), (3, 4)) is ax
    assert (ax.texts[0].xy, ax.texts[0].get_position(), ax.texts[0].get_text()) == ((1, 2), (3, 4), "here")


@pytest.mark.parametrize("angle", [0.1, 0.7, 1.5])
def test_a_quarter_circle_turns_the_state_and_its_tangent(ax, angle):
    assert plotting.quarter_circle(ax, angle, colors=["red", "green", "blue", "black"]) is ax
    arrows = {color: a for a in ax.texts if hasattr(a, "arrow_patch") for color in [a.arrowprops["color"]]}
    ends = {color: (np.array(a.xyann), np.array(a.xy)) for color, a in arrows.items()}
    state, velocity = ends["blue"][1], ends["black"][1] - ends["black"][0]
    assert np.allclose(ends["red"][1], (1, 0))
    assert np.allclose(ends["green"][1], (0, 1))
    assert np.allclose(state, (math.cos(angle), math.sin(angle)))
    assert np.allclose(velocity, (-math.sin(angle), math.cos(angle)))
    assert np.allclose(ends["black"][0], state)
    names = {text.get_text(): text.get_color() for text in ax.texts if text.get_text() in ("$x_t$", "$v$")}
    assert names == {"$x_t$": "blue", "$v$": "black"}
    assert ax.get_aspect() == 1
    assert not ax.axison


def test_a_chain_has_its_states_in_a_row_and_arrows_that_end_at_them(ax):
    colors = [plotting.DATA, plotting.EXACT, plotting.GRAY]
    links = [(0, 1, 0.1, plotting.FORWARD, "ahead"), (2, 1, -0.1, plotting.MODEL, "back")]
    assert plotting.chain(ax, list(zip("abc", colors)), links) is ax
    assert [(*line.get_xdata(), line.get_markeredgecolor()) for line in ax.lines] == list(zip(range(3), colors))
    words = {text.get_text(): text for text in ax.texts}
    assert [words[name].get_position() for name in "abc"] == [(0, 0), (1, 0), (2, 0)]
    assert (words["ahead"].get_position(), words["back"].get_position()) == ((0.5, 0.3), (1.5, -0.3))
    arrows = [text for text in ax.texts if hasattr(text, "xyann")]
    assert [(*arrow.xyann, *arrow.xy) for arrow in arrows] == [
        pytest.approx((0.24, 0.1, 0.76, 0.1)),
        pytest.approx((1.76, -0.1, 1.24, -0.1)),
    ]
    assert [words[name].get_color() for name in ("ahead", "back")] == [plotting.FORWARD, plotting.MODEL]
    assert ax.get_xlim() == (-0.35, 2.35)
    assert not ax.axison


def test_figures_are_opaque_and_the_same_in_every_run():
    def draw():
        fig = Figure()
        plotting.density(fig.subplots(), [0, 1], [0, 1], color=plotting.DATA, xlabel="t")
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    with mpl.rc_context(plotting.STYLE):
        assert draw() == draw()
        assert Figure().get_facecolor() == (1, 1, 1, 1)
        assert "<text" not in draw()


def test_many_points_are_one_picture():
    few, many = Figure().subplots(1, 2)
    plotting.scatter(few, torch.rand(500, 2), color=plotting.DATA)
    plotting.scatter(many, torch.rand(501, 2), color=plotting.DATA)
    assert [ax.collections[0].get_rasterized() for ax in (few, many)] == [False, True]
