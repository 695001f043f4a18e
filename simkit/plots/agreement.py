"""Figure of predictions against measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import InputError
from ..results.columns import require
from .registry import figure
from .style import axes, legend_above, mark, plain_log, points, shown, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Above this many points markers overlap into a blot, and are drawn small and faint.
CROWD = 200


@figure("agreement", "table")
@styled
def predicted_measured(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    predicted: str = "predicted",
    measured: str = "measured",
    group: str | None = None,
    unit: str = "",
    band: float = 0.1,
) -> Axes:
    """Plot predicted against measured figures on equal logarithmic axes, with the line of identity and a band.

    Parameters
    ----------
    table : path, DataFrame, or list of them
        One row a comparison.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    predicted, measured : str
        Columns, positive, in one unit.
    group : str, optional
        Column that gives the colours; the legend has each group's mean absolute percentage error.
    unit : str
        Of both figures, for the axes.
    band : float
        Half width of the grey band, relative.

    Returns
    -------
    Axes
        Measured along x, predicted along y.

    Raises
    ------
    InputError
        If a column is missing, or no row has two positive figures.

    Examples
    --------
    >>> table = pd.DataFrame({"predicted": [1.0, 2.1, 3.9], "measured": [1.1, 2.0, 4.0]})
    >>> ax = sk.plots.predicted_measured(table, unit="s")
    >>> ax.figure.savefig("figure.png")
    """
    require(table, [predicted, measured, *([group] if group else [])], "the table of comparisons")
    rows = table[(table[predicted] > 0) & (table[measured] > 0)]
    if rows.empty:
        raise InputError(f"no row has positive '{predicted}' and '{measured}'; nothing to compare")
    ax = axes(ax, 0.95)
    ends = np.array([rows[[predicted, measured]].min().min() / 1.3, rows[[predicted, measured]].max().max() * 1.3])
    ax.fill_between(
        ends, ends * (1 - band), ends * (1 + band), color="#DDDDDD", linewidth=0, label=f"± {band:.0%}", zorder=0
    )
    ax.plot(ends, ends, color="black", linewidth=0.1 * points())
    crowd = len(rows) > CROWD
    size = (0.25 if crowd else 0.5) * points()
    parts = rows.groupby(group, sort=False) if group else [("", rows)]
    for index, (name, part) in enumerate(parts):
        error = mean_error(part[predicted], part[measured])
        label = f"{name}: {error:.1%}" if name else f"mean error {error:.1%}"
        ax.plot(part[measured], part[predicted], linestyle="none", **mark(index),
                markersize=size, alpha=0.4 if crowd else 0.85, markeredgewidth=0, label=shown(label),
                rasterized=crowd)  # fmt: skip
    ax.set_aspect("equal")
    plain_log(ax, "x")
    plain_log(ax, "y")
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)
    ax.grid(True, axis="both")
    suffix = f" ({unit})" if unit else ""
    ax.set_xlabel("measured" + suffix)
    ax.set_ylabel("predicted" + suffix)
    legend_above(ax)
    return ax


def mean_error(predicted: pd.Series, measured: pd.Series) -> float:
    """Mean absolute percentage error, ``mean |p - m| / m``, as a share."""
    return float(((predicted - measured).abs() / measured).mean())
