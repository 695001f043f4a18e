"""Figures of a validation, each drawn on the axes it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .agreement import predicted_measured
from .style import DASHES, HATCHES, PALETTE, axes, legend_above, name_ticks, points, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
# a model keeps its colour, hatch and dash in every figure
PLACES = {"calibrated": 0, "calibrated_roofline": 1, "naive_roofline": 7, "measured": 5}


def _place(name: str, index: int) -> int:
    return PLACES.get(name, index)


@styled
def error_by_band(rows: list[dict[str, Any]], set_name: str, ax: Axes | None = None) -> Axes:
    """Draw mean absolute error by band of M, one bar a model, with the signed mean as a tick on each.

    Parameters
    ----------
    rows : list of dict
        What `validate_reference` returns.
    set_name : str
        Which set.
    ax : Axes, optional
        Axes to draw into; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the set has no error by band.
    """
    found = [row for row in rows if row["set"] == set_name and "bands" in row]
    if not found:
        known = sorted({row["set"] for row in rows if "bands" in row})
        raise InputError(f"no error by band for set '{set_name}'; known: {', '.join(known) or 'none'}")
    ax = axes(ax, 0.75)
    bands = list(found[0]["bands"])
    width = 0.8 / len(found)
    for index, row in enumerate(found):
        at = np.arange(len(bands)) + (index - (len(found) - 1) / 2) * width
        bars = [row["bands"][band] for band in bands]
        place = _place(row["model"], index)
        style = {"color": PALETTE[place], "hatch": HATCHES[place], "edgecolor": "white", "linewidth": 0.0}
        name = row["model"].replace("_", " ")
        ax.bar(at, [bar["mape_percent"] for bar in bars], width * 0.94, label=name, **style)
        bias = [bar["bias_percent"] for bar in bars]
        ax.plot(at, bias, "_", color="black", markersize=0.6 * points(), label="_" if index else "bias (signed mean)")
    floor = found[0].get("floor_percent")
    if isinstance(floor, tuple):
        ax.axhspan(*floor, color="#56B4E9", alpha=0.25, label="repeatability floor", linewidth=0)
    ax.axhline(0, color="black", linewidth=0.08 * points())
    name_ticks(ax, [band.removeprefix("M").removeprefix("=").replace(">=", "≥ ") for band in bands])
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("mean error (%)")
    ax.set_xlabel("tokens M")
    legend_above(ax)
    return ax


@styled
def curve_against_density(
    density: Floats, curves: dict[str, Floats], ax: Axes | None = None, *, quantity: str = "speed-up over dense (×)"
) -> Axes:
    """Draw curves against density: speed-up, or joules.

    Parameters
    ----------
    density : float64[points]
        Share of non-zeros.
    curves : dict of str to float64[points]
        Name -> values; ``"measured"`` is drawn as points, the others as lines.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    quantity : str
        Label of the y axis.

    Returns
    -------
    Axes
    """
    ax = axes(ax)
    order = np.argsort(density)
    for index, (name, values) in enumerate(curves.items()):
        place = _place(name, index)
        line = (
            {"linestyle": "none", "marker": "o"} if name == "measured" else {"linestyle": DASHES[index % len(DASHES)]}
        )
        ax.plot(density[order], values[order], label=name.replace("_", " "), color=PALETTE[place], **line)
    if quantity.startswith("speed-up"):
        ax.axhline(1.0, color="black", linewidth=0.08 * points())
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlim(right=1.0)
    ax.grid(True, axis="both")
    ax.set_xlabel("density")
    ax.set_ylabel(quantity)
    legend_above(ax)
    return ax


def predicted_against_measured(predicted: Floats, measured: Floats, ax: Axes | None = None, *, unit: str = "s") -> Axes:
    """Draw predictions against measurements on equal logarithmic axes with the line of identity.

    Parameters
    ----------
    predicted, measured : float64[rows]
        In one unit.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    unit : str
        For the labels.

    Returns
    -------
    Axes
    """
    import pandas as pd

    table = pd.DataFrame({"predicted": predicted, "measured": measured})
    return predicted_measured(table, ax, unit=unit)
