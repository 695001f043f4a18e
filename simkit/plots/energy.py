"""Figure of the energy breakdown by component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import InputError
from ..results.columns import COLUMNS
from ..results.runs import Ops
from ..results.typeset import number
from .registry import figure
from .style import AS_IS, axes, bar_style, legend_above, points, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..results.result import Result

# Many on-chip components share a colour, so that a stack has no more than what a reader can tell apart.
GROUPS = {
    "mac": "MAC",
    "multiplier": "MAC",
    "tensor": "MAC",
    "vector": "vector unit",
    "dram": "DRAM",
    "static": "static",
}
ORDER = ["MAC", "on-chip", "DRAM", "static", "vector unit"]


@figure("energy", "result")
@styled
def energy_breakdown(
    result: Result, ax: Axes | None = None, *, relative_to: str | None = None, ops: Ops = None
) -> Axes:
    """Stack energy per token by component, one bar for each run; whiskers span the table's ranges.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    relative_to : str, optional
        An arch: its energy for the first tuning is 1.
    ops : str or iterable of str, optional
        Only these ops.

    Returns
    -------
    Axes
        Energy per real token along x; archs and tunings down.

    Raises
    ------
    InputError
        If `relative_to` is not in the result, or the ops are not.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> ax = sk.plots.energy_breakdown(result, relative_to="systolic_32x32")
    >>> ax.figure.savefig("figure.png")
    """
    stack, ends = per_token(result, ops)
    label, factor = COLUMNS["energy_per_token_pj"].axis(stack.sum(axis=1))
    scale = 1 / factor
    if relative_to is not None:
        archs = list(dict.fromkeys(stack.index.get_level_values("arch")))
        if relative_to not in archs:
            raise InputError(f"relative_to='{relative_to}' is not in the result; it has {', '.join(archs)}")
        first = stack.loc[relative_to].iloc[0]
        label, scale = f"energy per token ({relative_to}, {first.name} = 1)", first.sum()
    ax = axes(ax, rows_aspect(stack))
    row_bars(ax, stack / scale, ends / scale, totals=True)
    ax.set_xlabel(label, **AS_IS)
    legend_above(ax)
    return ax


def per_token(result: Result, ops: Ops = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Energy per real token, pJ, one row for each run by the labels of its arch and tuning.

    Returns
    -------
    DataFrame, DataFrame
        Energy by component group, and the low and high ends of the totals.
    """
    frame = result.actions(ops)
    tokens = frame["run"].map({run: meta["trace"]["tokens"] for run, meta in result.meta["runs"].items()})
    columns = ["energy_pj", "energy_low_pj", "energy_high_pj"]
    frame = frame.assign(
        group=frame["component"].map(lambda name: GROUPS.get(name, "on-chip")),
        **{name: frame[name] / tokens for name in columns},
    )
    stack = frame.pivot_table(index="run", columns="group", values="energy_pj", aggfunc="sum", sort=False).fillna(0.0)
    ends = frame.groupby("run", sort=False)[columns[1:]].sum().loc[stack.index]
    labels = pd.MultiIndex.from_frame(result.labels().loc[stack.index, ["arch", "tuning"]])
    return stack[[name for name in ORDER if name in stack]].set_index(labels), ends.set_index(labels)


def rows_aspect(stack: pd.DataFrame) -> float:
    """Height over width at which the rows of `row_bars`, the names of the archs and the legend have room."""
    rows = len(stack) + stack.index.get_level_values("arch").nunique()
    return 0.24 + 0.037 * rows + 0.025 * max(0, stack.shape[1] - 4)


def row_bars(ax: Axes, stack: pd.DataFrame, ends: pd.DataFrame | None = None, totals: bool = False) -> None:
    """Draw one stacked horizontal bar for each (arch, tuning) row, archs in bands with their names above.

    Horizontal, because twenty names of tunings can be read along rows and not under columns.
    """
    archs = list(dict.fromkeys(stack.index.get_level_values("arch")))
    stack = stack.loc[[key for arch in archs for key in stack.index if key[0] == arch]]
    ends = None if ends is None else ends.loc[stack.index]
    places: list[float] = []
    at = 0.0
    for arch in archs:
        places += [at + 1.0 + step for step in range(len(stack.loc[[arch]]))]
        ax.annotate(
            arch, (0.0, at + 0.1), xycoords=("axes fraction", "data"), va="center", fontweight="bold",
            fontsize=points() * 0.9, xytext=(2, 0), textcoords="offset points", **AS_IS,
        )  # fmt: skip
        at = places[-1] + 1.1
    left = np.zeros(len(stack))
    for index, name in enumerate(stack):
        values = stack[name].to_numpy(dtype=float)
        ax.barh(places, values, 0.82, left=left, label=name, **bar_style(index))
        left = left + values
    reach = left
    if ends is not None:
        low, high = ends.to_numpy(dtype=float).T
        spread = [np.maximum(left - low, 0), np.maximum(high - left, 0)]
        ax.errorbar(left, places, xerr=spread, fmt="none", ecolor="black", elinewidth=0.1 * points(), capsize=1.5)
        reach = np.maximum(left, high)
    if totals:
        for place, value, end in zip(places, left, reach, strict=True):
            ax.annotate(
                number(float(value)), (end, place), xytext=(3, 0), va="center",
                textcoords="offset points", fontsize=points() * 0.75,
            )  # fmt: skip
        ax.set_xlim(0, reach.max() * 1.12)
    ax.set_yticks(places, list(stack.index.get_level_values("tuning")), **AS_IS)
    ax.set_ylim(at - 0.5, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
