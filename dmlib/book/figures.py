"""How figures are shown: as SVG that is the same in every run, and on the pages in a second form, for phones."""

from __future__ import annotations

import os
import sys
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

NARROW, LINE = 4.2, 0.22  # inches: what a phone shows with labels of a readable size, and a line of a legend
NARROW_MIME = "application/vnd.dmlib.narrow+xml"  # beside the SVG of a figure


def as_svg() -> None:
    """In Jupyter, show figures as SVG that is the same in every run."""
    if "IPython" not in sys.modules or sys.modules["IPython"].get_ipython() is None:
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg", metadata={"Date": None})
    if os.environ.get("DMLIB_STATIC"):
        _formatter().mimebundle_formatter.for_type(Figure, _for_pages)


def narrow(fig: Figure) -> bool:
    """Redraw a figure for a phone, panels side by side one below the other; returns whether there was something to do.

    Strips and grids of images, drawings without axes, and panels in rows and columns stay as they are.
    """
    places = [ax.get_subplotspec() for ax in fig.axes]
    grids = {place.get_gridspec() for place in places if place is not None}
    if None in places or len(grids) != 1 or fig.get_figwidth() <= NARROW:
        return False
    (rows, columns), height = grids.pop().get_geometry(), fig.get_figheight()
    pictures = all(ax.images or not ax.axison for ax in fig.axes)
    if (rows > 1 and columns > 1) or (columns == 1 and pictures):
        return False
    column = GridSpec(columns, 1, figure=fig)
    for ax, place in zip(fig.axes, places if columns > 1 else ()):
        shared = ax.get_shared_y_axes().joined(ax, fig.axes[0])
        ax.set_subplotspec(column[place.colspan.start])
        ax.tick_params(labelleft=True)
        ax.set_ylabel(ax.get_ylabel() or (fig.axes[0].get_ylabel() if shared else ""))
    lines = sum(_legend_above(ax) for ax in fig.axes if ax.get_legend() and not ax.get_title())
    fig.set_size_inches(NARROW, columns * height + LINE * lines)
    return True


def _legend_above(ax: Axes) -> int:
    """Put the legend of a panel above it, where it hides nothing, in one column; returns its number of lines."""
    old = ax.get_legend()
    names, size = [text.get_text() for text in old.get_texts()], old.get_texts()[0].get_fontsize()
    ax.legend(old.legend_handles, names, loc="lower left", bbox_to_anchor=(0, 1), fontsize=size)
    return len(names)


def _formatter() -> Any:
    """What Jupyter shows objects by."""
    return sys.modules["IPython"].get_ipython().display_formatter


def _for_pages(fig: Figure, include: Any = None, exclude: Any = None) -> dict[str, str]:
    """A figure as the pages show it: its SVG, and another for phones where that differs."""
    from IPython.core.pylabtools import print_figure

    _formatter().formatters["image/svg+xml"].pop(Figure, None)  # it would draw the figure again, once it is narrow
    shown = {"image/svg+xml": print_figure(fig, "svg", metadata={"Date": None}), "text/plain": repr(fig)}
    if narrow(fig):
        shown[NARROW_MIME] = print_figure(fig, "svg", metadata={"Date": None})
    return shown
