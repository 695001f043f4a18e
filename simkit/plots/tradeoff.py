"""Figures of trade-offs: accuracy against energy, Pareto fronts, tuning cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import InputError
from ..results.columns import column_of, maximised, require
from ..results.runs import Ops, measured, trace_labels
from .registry import figure
from .style import DASHES, MARKERS, PALETTE, axes, legend_above, mark, plain_log, points, shown, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..results.result import Result


@figure("tradeoff", "result")
@styled
def accuracy_energy(result: Result, ax: Axes | None = None, *, ops: Ops = None) -> Axes:
    """Plot held-out accuracy against energy per token: one line for each arch, one marker for each tuning.

    Vertical bars are one standard error of the accuracy, horizontal ones the energy table's range.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays of traces whose tuning was measured.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    ops : str or iterable of str, optional
        Only these ops.

    Returns
    -------
    Axes
        Energy (logarithmic) along x, accuracy along y.

    Raises
    ------
    InputError
        If no trace in the result has a measured accuracy.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> ax = sk.plots.accuracy_energy(result)
    >>> ax.figure.savefig("figure.png")
    """
    table = result.summary(ops, measured=True)
    if "accuracy" not in table or table["accuracy"].isna().all():
        named = ", ".join(f"'{name}'" for name in table["trace"].unique()[:3])
        raise InputError(
            f"no trace in this result ({named}) has a measured accuracy; tune with simkit tune, then record"
        )
    ax = axes(ax, 0.75)
    table = table.dropna(subset=["accuracy"])
    tunings = list(dict.fromkeys(table["tuning"]))
    hair = 0.1 * points()
    label, unit = column_of("energy_per_token_pj").axis(table["energy_per_token_pj"])
    handles: list[Any] = []
    for index, (arch, rows) in enumerate(table.groupby("arch", sort=False)):
        rows = rows.sort_values("energy_per_token_pj")
        color = PALETTE[index % len(PALETTE)]
        energy = rows["energy_per_token_pj"] * unit
        line = {"color": color, "linestyle": DASHES[index % len(DASHES)], "linewidth": hair * 1.5}
        handles += ax.plot(energy, rows["accuracy"], label=shown(str(arch)), **line)
        ends = [energy - rows["energy_low_per_token_pj"] * unit, rows["energy_high_per_token_pj"] * unit - energy]
        error = rows.get("accuracy_se")
        ax.errorbar(
            energy, rows["accuracy"], yerr=error, xerr=np.maximum(ends, 0), fmt="none", ecolor=color,
            elinewidth=hair * 0.7, alpha=0.6,
        )  # fmt: skip
        for row in rows.itertuples():
            marker = MARKERS[tunings.index(row.tuning) % len(MARKERS)]
            ax.plot(row.energy_per_token_pj * unit, row.accuracy, marker, color=color, markeredgecolor="white",
                    markeredgewidth=0.4)  # fmt: skip
    for index, tuning in enumerate(tunings):
        handles += ax.plot(
            [], [], MARKERS[index % len(MARKERS)], color="#444444", label=shown(tuning), linestyle="none"
        )
    plain_log(ax, "x")
    ax.grid(True, axis="both")
    ax.set_xlabel(label)
    ax.set_ylabel("held-out accuracy")
    legend_above(ax, handles, [str(handle.get_label()) for handle in handles])
    return ax


@figure("cost", "result")
@styled
def tuning_cost(result: Result, ax: Axes | None = None, *, cost: str = "train_seconds", gain: str = "accuracy") -> Axes:
    """Plot what each tuning cost against what it reached.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays of traces whose tuning was measured; one marker for each trace.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    cost : str
        A measurement of the tuning: ``train_seconds``, ``trainable_parameters``, ``backward_macs`` ...
    gain : str
        Another one: ``accuracy``, ``density`` ...

    Returns
    -------
    Axes
        Cost along x; the vertical bars of an accuracy are one standard error.

    Raises
    ------
    InputError
        If no trace in the result has both measurements.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> ax = sk.plots.tuning_cost(result, cost="trainable_parameters")
    >>> ax.figure.savefig("figure.png")
    """
    runs = {run: result.meta["runs"][run] for run in result.labels().index}
    table = measured(runs)
    # a tuning was measured once, however many archs and settings it was replayed on
    table = table.assign(trace=[str(meta["trace"]["hash"]) for meta in runs.values()]).drop_duplicates("trace")
    known = sorted(set(table) - {"trace"})
    table = table.dropna(subset=[cost, gain]) if {cost, gain} <= set(table) else table.iloc[:0]
    if table.empty:
        raise InputError(f"no tuning in this result has both '{cost}' and '{gain}'; measured: {', '.join(known)}")
    labels = trace_labels([runs[run]["trace"] for run in table.index])
    axis = {name: column_of(name).axis(table[name]) for name in (cost, gain)}
    ax = axes(ax)
    for index, (label, row) in enumerate(zip(labels, table.to_dict("records"), strict=True)):
        x, y = (row[name] * axis[name][1] for name in (cost, gain))
        error = row.get(f"{gain}_se", float("nan")) * axis[gain][1]
        ax.errorbar(
            x, y, yerr=error if error == error else None, **mark(index), markersize=0.6 * points(), capsize=2,
            elinewidth=0.1 * points(), label=shown(label), linestyle="none",
        )  # fmt: skip
    ax.margins(x=0.1, y=0.15)
    ax.autoscale_view()
    ax.set_xlim(left=0)
    ax.grid(True, axis="both")
    ax.set_xlabel(axis[cost][0])
    ax.set_ylabel(axis[gain][0])
    legend_above(ax)
    return ax


@figure("pareto", "points")
@styled
def pareto(
    points_of: Result | pd.DataFrame,
    ax: Axes | None = None,
    *,
    x: str = "cycles",
    y: str = "energy_per_token_pj",
    maximise: Sequence[str] | None = None,
    group: str = "arch",
    ops: Ops = None,
) -> Axes:
    """Plot sampled points and the Pareto front among them.

    Parameters
    ----------
    points_of : path, Result, DataFrame, or list of them
        A result's summary (with its tunings' measurements), or any table with one row a point.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    x, y : str
        Columns; both are minimised but for those in `maximise`.
    maximise : sequence of str, optional
        Columns where more is better; those that `simkit.results.columns` says so of by default.
    group : str
        Column that gives the colours, where there is one of that name.
    ops : str or iterable of str, optional
        Only these ops of a result.

    Returns
    -------
    Axes
        Points faint, the front as steps; an axis that spans a factor of ten is logarithmic.

    Raises
    ------
    InputError
        If a column is missing, or no point has both figures.

    Examples
    --------
    >>> result = sk.sweep("minilm_relu_small.zarr", "cnvlutin", ops="down", fields={"lanes": [8, 16]}, progress=False)
    >>> ax = sk.plots.pareto(result, x="latency_s")
    >>> ax.figure.savefig("figure.png")
    """
    if isinstance(points_of, pd.DataFrame):
        table = points_of
    else:
        table = points_of.summary(ops, measured=True)
    maximise = maximised() if maximise is None else maximise
    require(table, [x, y], "the table of points")
    table = table.dropna(subset=[x, y])
    if table.empty:
        raise InputError(f"no point has both '{x}' and '{y}'")
    units = {name: column_of(name).axis(table[name]) for name in (x, y)}
    table = table.assign(**{name: table[name] * factor for name, (_, factor) in units.items()})
    ax = axes(ax, 0.75)
    best = table[front(table, x, y, maximise)].sort_values(x)
    groups = table.groupby(group, sort=False) if group in table else [("points", table)]
    for index, (name, rows) in enumerate(groups):
        ax.plot(rows[x], rows[y], linestyle="none", **mark(index), label=shown(str(name)),
                alpha=0.75, markeredgewidth=0)  # fmt: skip
    # between two points of the front only what either of them reaches is known to be reachable
    where = "pre" if x in maximise else "post"
    ax.step(best[x], best[y], color="black", where=where, linewidth=0.12 * points(), label="Pareto front", zorder=1)
    ax.plot(best[x], best[y], "o", markersize=0.95 * points(), markerfacecolor="none", markeredgecolor="black")
    for axis, name in (("x", x), ("y", y)):
        values = table[name]
        if values.min() > 0 and values.max() / values.min() > 10:
            plain_log(ax, axis)
        elif values.abs().max() >= 1e4:
            getattr(ax, f"{axis}axis").set_major_formatter("{x:,g}")
        getattr(ax, f"set_{axis}label")(units[name][0])
    ax.grid(True, axis="both")
    legend_above(ax)
    return ax


def front(table: pd.DataFrame, x: str, y: str, maximise: Sequence[str] = ()) -> np.ndarray[Any, Any]:
    """Return ``bool[rows]``: which rows no other beats in `x` and `y` at once (ties stay)."""
    values = table[[x, y]].to_numpy(dtype=float) * [-1.0 if name in maximise else 1.0 for name in (x, y)]
    order = np.lexsort((values[:, 1], values[:, 0]))
    keep = np.zeros(len(values), dtype=bool)
    lowest, at = np.inf, -np.inf
    for row in order:
        first, second = values[row]
        if second < lowest or (second == lowest and first == at):
            keep[row] = True
            lowest, at = second, first
    return keep
