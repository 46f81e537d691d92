"""A figure's form for phones: panels in a column, legends above them, and what stays as it is."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from dmlib.book import figures, plotting


def test_panels_side_by_side_stand_one_below_the_other_on_a_phone():
    fig = Figure(figsize=(8, 3))
    left, right = fig.subplots(1, 2, sharey=True)
    left.set_ylabel("nats")
    assert figures.narrow(fig)
    assert (fig.get_figwidth(), fig.get_figheight()) == (figures.NARROW, 6)
    fig.draw_without_rendering()
    above, below = left.get_position(), right.get_position()
    assert above.y0 > below.y1
    assert above.x0 == pytest.approx(below.x0)
    assert right.get_ylabel() == "nats"
    assert any(label.get_visible() and label.get_text() for label in right.get_yticklabels())


def test_one_panel_and_a_column_only_become_narrower():
    for rows in (1, 2):
        fig = Figure(figsize=(6.2, 3))
        fig.subplots(rows, 1)
        assert figures.narrow(fig)
        assert (fig.get_figwidth(), fig.get_figheight()) == (figures.NARROW, 3)


@pytest.mark.parametrize("kind", ["strips", "grid", "drawing", "small", "no panels"])
def test_what_a_phone_shows_as_it_is(kind):
    fig = Figure(figsize=(4 if kind == "small" else 8, 3))
    if kind != "no panels":
        shape = {"strips": (3, 1), "grid": (2, 4)}.get(kind, (1, 1))
        for ax in np.atleast_1d(fig.subplots(*shape)).flat:
            if kind == "strips":
                plotting.image(ax, torch.zeros(4, 40))
            if kind == "drawing":
                ax.axis("off")
    before = fig.get_size_inches().tolist()
    assert not figures.narrow(fig)
    assert fig.get_size_inches().tolist() == before


def test_on_a_phone_a_legend_stands_above_its_panel_in_one_column_and_has_room():
    fig = Figure(figsize=(7, 3), layout="constrained")
    ax = fig.subplots()
    ax.plot([0, 1], label="a name that is long")
    ax.plot([1, 0], label="another that is longer", linestyle=":")
    ax.legend(loc="lower right", ncols=2, fontsize=9)
    assert figures.narrow(fig)
    assert fig.get_figheight() == pytest.approx(3 + 2 * figures.LINE)
    fig.draw_without_rendering()
    above, first, second = ax.get_legend().get_window_extent(), *ax.get_legend().get_texts()
    assert above.y0 >= ax.bbox.y1
    assert above.x1 <= fig.bbox.x1
    assert first.get_window_extent().y0 >= second.get_window_extent().y1
    assert [line.get_linestyle() for line in ax.get_legend().legend_handles] == ["-", ":"]
    assert first.get_fontsize() == 9


def test_a_page_gets_the_figure_as_it_was_drawn_and_its_form_for_phones(monkeypatch):
    monkeypatch.setenv("DMLIB_STATIC", "1")
    shell = InteractiveShell.instance()
    try:
        figures.as_svg()
        fig = Figure(figsize=(8, 3))
        fig.subplots(1, 2)
        shown, _ = shell.display_formatter.format(fig)
    finally:
        InteractiveShell.clear_instance()
    wide, narrow = (
        float(re.search(r'<svg [^>]*width="([\d.]+)pt', shown[kind])[1])
        for kind in ("image/svg+xml", figures.NARROW_MIME)
    )
    assert wide > 1.5 * narrow


def test_a_panel_outside_the_grid_leaves_a_figure_as_it_is():
    fig = Figure(figsize=(8, 3))
    fig.subplots(1, 2)
    fig.add_axes((0.1, 0.1, 0.2, 0.2))
    assert not figures.narrow(fig)
