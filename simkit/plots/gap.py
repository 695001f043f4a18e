"""The synchronisation gap by layer: exact cycles over what a density-only model predicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..engine.gap import IID, TRACE, gap
from .registry import figure
from .style import axes, legend_above, mark, name_ticks, plain_log, points, shown, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@figure("gap", "traces")
@styled
def synchronisation_gap(data: Any, ax: Axes | None = None, *, ops: Iterable[str] | str = ("down",)) -> Axes:
    """Draw exact over statistical cycles, layer by layer.

    Parameters
    ----------
    data : path, Trace, DataFrame, or list of them
        What `gap` returned, or what to make it from.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    ops : str or iterable of str
        Which ops, where traces are given.

    Returns
    -------
    Axes
        One cluster for each design, its layers from left to right; filled markers are recorded masks, hollow ones
        i.i.d. masks of the same density. At 1 a density would have been enough.

    Raises
    ------
    InputError
        If a trace has no recorded mask for any of the ops.

    Examples
    --------
    >>> frame = sk.gap("minilm_relu_small.zarr", ["cnvlutin", "eie"], tokens=64)
    >>> ax = sk.plots.synchronisation_gap(frame)
    >>> ax.figure.savefig("figure.png")
    """
    import pandas as pd

    frame = data if isinstance(data, pd.DataFrame) else gap(data, ops=ops)
    ax = axes(ax)
    designs, tunings = list(dict.fromkeys(frame["arch"])), list(dict.fromkeys(frame["tuning"]))
    layers = sorted(frame["layer"].unique())
    step = 0.8 / max(len(layers), 1)
    for index, tuning in enumerate(tunings):
        for masks in (TRACE, IID):
            part = frame[(frame["tuning"] == tuning) & (frame["masks"] == masks)]
            left = part["arch"].map(designs.index) - 0.4 + step / 2
            colour, marker = mark(index).values()
            ax.scatter(
                left + step * part["layer"].map(layers.index),
                part["gap"],
                s=1.6 * points(),
                marker=marker,
                color=colour if masks == TRACE else "none",
                edgecolors=colour,
                linewidths=0.08 * points(),
                label=shown(f"{tuning}, {masks}"),
                zorder=3,
            )
    for edge in range(1, len(designs)):
        ax.axvline(edge - 0.5, color="0.85", linewidth=0.08 * points())
    ax.axhline(1.0, color="black", linewidth=0.1 * points())
    ax.set_xlim(-0.5, len(designs) - 0.5)
    ax.tick_params(axis="x", labelsize=points() * (0.75 if len(designs) > 5 else 0.9))
    name_ticks(ax, designs)
    if frame["gap"].max() > 8:
        plain_log(ax, "y")
    ax.set_ylabel("exact / statistical cycles")
    legend_above(ax)
    return ax
