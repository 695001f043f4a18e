"""Figures of a validation, each drawn on the axes it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
COLOURS = {
    "calibrated": "#0072B2",
    "calibrated_roofline": "#E69F00",
    "naive_roofline": "#6B6B6B",
    "measured": "#D55E00",
}


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(layout="constrained").subplots()


def error_by_band(rows: list[dict[str, Any]], set_name: str, ax: Axes | None = None) -> Axes:
    """Draw mean absolute error by band of M, one bar a model, with the signed mean as a tick on each.

    Parameters
    ----------
    rows : list of dict
        What `validate_reference` returns.
    set_name : str
        Which set.
    ax : Axes, optional
        Where to draw.

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
    ax = _axes(ax)
    bands = list(found[0]["bands"])
    width = 0.8 / len(found)
    for i, row in enumerate(found):
        at = np.arange(len(bands)) + (i - (len(found) - 1) / 2) * width
        bars = [row["bands"][band] for band in bands]
        colour = COLOURS.get(row["model"], "#009E73")
        ax.bar(at, [bar["mape_percent"] for bar in bars], width, label=row["model"].replace("_", " "), color=colour)
        ax.plot(at, [bar["bias_percent"] for bar in bars], "_", color="black", markersize=6)
    floor = found[0].get("floor_percent")
    if isinstance(floor, tuple):
        ax.axhspan(*floor, color="#56B4E9", alpha=0.25, label="repeatability floor")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(range(len(bands)), bands)
    ax.set_ylabel("error / %")
    ax.set_xlabel("tokens")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize="small")
    return ax


def curve_against_density(
    density: Floats, curves: dict[str, Floats], ax: Axes | None = None, *, quantity: str = "speed-up over dense"
) -> Axes:
    """Draw curves against density: speed-up, or joules.

    Parameters
    ----------
    density : float64[points]
        Share of non-zeros.
    curves : dict of str to float64[points]
        Name -> values; ``"measured"`` is drawn as points, the others as lines.
    ax : Axes, optional
        Where to draw.
    quantity : str
        Label of the y axis.

    Returns
    -------
    Axes
    """
    ax = _axes(ax)
    order = np.argsort(density)
    for name, values in curves.items():
        style = {"linestyle": "none", "marker": "o"} if name == "measured" else {"linestyle": "-"}
        ax.plot(density[order], values[order], label=name.replace("_", " "), color=COLOURS.get(name), **style)
    if quantity.startswith("speed-up"):
        ax.axhline(1.0, color="black", linewidth=0.6)
    ax.set_xlabel("density")
    ax.set_ylabel(quantity)
    ax.legend()
    return ax


def predicted_against_measured(predicted: Floats, measured: Floats, ax: Axes | None = None, *, unit: str = "s") -> Axes:
    """Draw predictions against measurements on equal logarithmic axes with the line of identity.

    Parameters
    ----------
    predicted, measured : float64[rows]
        In one unit.
    ax : Axes, optional
        Where to draw.
    unit : str
        For the labels.

    Returns
    -------
    Axes
    """
    ax = _axes(ax)
    ends = np.array([min(predicted.min(), measured.min()), max(predicted.max(), measured.max())])
    ax.loglog(measured, predicted, ".", markersize=3, color=COLOURS["calibrated"])
    ax.fill_between(ends, ends * 0.9, ends * 1.1, color="#56B4E9", alpha=0.3, label="within 10 %")
    ax.loglog(ends, ends, color="black", linewidth=0.8)
    ax.set_xlabel(f"measured / {unit}")
    ax.set_ylabel(f"predicted / {unit}")
    ax.legend()
    return ax
