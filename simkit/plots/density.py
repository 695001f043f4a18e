"""Density of the recorded activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .style import PALETTE, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from traces import Trace

MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


def density_by_layer(traces: Sequence[Trace], ax: Axes | None = None) -> Axes:
    """Plot the share of non-zeros at the down-projection's input, layer by layer, over real tokens.

    Parameters
    ----------
    traces : sequence of Trace
        One line each.
    ax : Axes, optional
        Where to draw.
    """
    ax = axes(ax)
    for index, trace in enumerate(traces):
        sites = [site for site in trace.sites.values() if site.op == "down"]
        label = str(trace.attrs.get("tuning", {}).get("name") or trace.name)
        ax.plot(
            [site.layer for site in sites],
            [site.density() for site in sites],
            marker=MARKERS[index % len(MARKERS)],
            color=PALETTE[index % len(PALETTE)],
            label=label,
            linewidth=1.6,
            markersize=5,
        )
    ax.set_xlabel("layer")
    ax.set_ylabel("density (share of non-zeros)")
    ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    from matplotlib.ticker import FuncFormatter

    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.legend()
    return ax
