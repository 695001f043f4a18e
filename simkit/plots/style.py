"""The look of the figures: column widths, embedded fonts, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, ordered so that neighbours differ in lightness too; hatches tell them apart in grey print.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#6B6B6B"]
HATCHES = ["", "///", "...", "\\\\\\", "xxx", "---", "+++", "ooo"]

# Column widths in inches, from the publishers' author guides.
WIDTHS = {"ieee": 3.5, "acm": 3.33, "slides": 10.0}
FONT_POINTS = {"ieee": 8, "acm": 8, "slides": 18}


def rc(kind: str | None = None) -> dict[str, Any]:
    """Return matplotlib settings for a kind of page; None for a screen or notebook."""
    points = FONT_POINTS[kind] if kind else 10
    width = WIDTHS[kind] if kind else 6.4
    return {
        "figure.figsize": (width, width * 0.62),
        "figure.dpi": 120,
        "savefig.dpi": 300,
        "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans",
        "font.size": points,
        "axes.titlesize": points,
        "axes.labelsize": points,
        "xtick.labelsize": points - 1,
        "ytick.labelsize": points - 1,
        "legend.fontsize": points - 1,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": "#D9D9D9",
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.5,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.fonttype": "path",
    }


@contextmanager
def paper(kind: str = "ieee") -> Iterator[None]:
    """Draw the figures inside at a venue's column width with embedded fonts.

    Parameters
    ----------
    kind : {"ieee", "acm", "slides"}
        Venue.

    Raises
    ------
    InputError
        If the venue is unknown.
    """
    import matplotlib as mpl

    if kind not in WIDTHS:
        raise InputError(f"unknown paper style '{kind}'; known: {', '.join(WIDTHS)}")
    with mpl.rc_context(rc(kind)):
        yield


def axes(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure in the suite's style."""
    if ax is not None:
        return ax
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    if mpl.rcParams["pdf.fonttype"] == 42 and mpl.rcParams["axes.grid"]:  # inside `paper`
        return plt.subplots()[1]
    with mpl.rc_context(rc()):
        return plt.subplots()[1]


def grouped_bars(ax: Axes, groups: list[str], series: dict[str, list[float]], **style: Any) -> None:
    """Draw one cluster of bars for each group, one colour and hatch for each series."""
    width = 0.8 / max(1, len(series))
    for index, (label, values) in enumerate(series.items()):
        at = [g - 0.4 + width * (index + 0.5) for g in range(len(groups))]
        ax.bar(
            at,
            values,
            width * 0.92,
            label=label,
            color=PALETTE[index % len(PALETTE)],
            hatch=HATCHES[index % len(HATCHES)],
            edgecolor="white",
            linewidth=0.4,
            **style,
        )
    ax.set_xticks(range(len(groups)), groups)
    ax.tick_params(axis="x", length=0)
