"""Energy of a MAC slot from gates, against density."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..validation.rtl.results import load_results
from .registry import figure
from .style import DASHES, MARKERS, PALETTE, axes, legend_above, points, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "dense_pe": "dense, 16 lanes",
    "tensordash_pe": "TensorDash",
    "cnvlutin_lanes": "Cnvlutin",
    "dense_mac": "dense, one MAC",
    "sparten_cluster": "SparTen, weights half zero",
    "eie_pe": "EIE, weights 10 %",
    "dense_mac_16": "dense, one 16-bit MAC",
}
PANEL = ("dense_pe", "tensordash_pe", "cnvlutin_lanes")


@figure("gates", "nothing")
@styled
def energy_from_gates(
    results: dict[str, Any] | None = None, ax: Axes | None = None, designs: tuple[str, ...] = PANEL
) -> Axes:
    """Draw picojoules per MAC slot of the dense schedule against density; lines mark the break-even with the twin.

    Parameters
    ----------
    results : dict, optional
        From `simkit.validation.rtl.results.collect`; the committed ones by default.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    designs : tuple of str
        Names of gate-level designs.

    Returns
    -------
    Axes
        180 nm, 1.8 V; what is left out is named in the results.
    """
    found = load_results() if results is None else results
    ax = axes(ax)
    for index, name in enumerate(designs):
        rows = sorted((row for row in found["rows"] if row["design"] == name), key=lambda row: float(row["density"]))
        x, y = [row["density"] for row in rows], [row["mac_slot_pj"] for row in rows]
        style = {"color": PALETTE[index], "linestyle": DASHES[index], "marker": MARKERS[index]}
        ax.plot(x, y, label=TITLES.get(name, name), **style)
    for even in found["break_even"]:
        if even["design"] in designs and 0 < even["density"] < 1:
            place = designs.index(even["design"])
            ax.axvline(even["density"], color=PALETTE[place], linewidth=0.1 * points(), linestyle=":")
    ax.set_xlabel("density of the activations")
    ax.set_ylabel("energy per MAC slot (pJ, 180 nm)")
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    ax.plot([], [], color="0.3", linewidth=0.1 * points(), linestyle=":", label="as much as its dense twin")
    legend_above(ax)
    return ax
