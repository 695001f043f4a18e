"""Speed-up of each design over its own dense baseline."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..results.runs import Ops
from .energy import row_bars, rows_aspect
from .registry import figure
from .style import AS_IS, axes, grouped_bars, legend_above, mark, plain_log, points, shown, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ..results.result import Result

# Beyond this ratio between the largest and the smallest bar a linear axis hides the small ones.
LOG_FROM = 8.0
# With useful, other and DRAM there are then as many colours as the palette has.
MAX_CAUSES = 5


@figure("speedup", "result")
@styled
def speedup_bars(result: Result, ax: Axes | None = None, *, ops: Ops = None) -> Axes:
    """Draw latency of the dense baseline over latency with the trace's masks, DRAM stalls included.

    Where the bars span more than a factor of 8 the axis is logarithmic and the bars start at 1.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    ops : str or iterable of str, optional
        Only these ops.

    Returns
    -------
    Axes
        One cluster for each arch, one bar for each run on it, in the colour of its tuning.

    Raises
    ------
    InputError
        If the result is empty or has none of the ops.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> ax = sk.plots.speedup_bars(result)
    >>> ax.figure.savefig("figure.png")
    """
    ax = axes(ax)
    table = result.summary(ops)
    archs, tunings = list(dict.fromkeys(table["arch"])), list(dict.fromkeys(table["tuning"]))
    # labels are of one run each, so that a cell that were there twice would be an error here
    values = table.pivot(index="arch", columns="tuning", values="speedup").loc[archs, tunings]
    spread = values.max().max() / values.min().min()
    grouped_bars(ax, archs, {name: list(values[name]) for name in tunings}, bottom=1.0 if spread > LOG_FROM else 0.0)
    if spread > LOG_FROM:
        plain_log(ax, "y")
    ax.axhline(1.0, color="black", linewidth=0.1 * points(), zorder=3)
    ax.set_ylabel("speed-up over dense (×)")
    legend_above(ax)
    return ax


@figure("speedup-density", "result")
@styled
def speedup_density(result: Result, ax: Axes | None = None, *, ops: Ops = None) -> Axes:
    """Plot the speed-up in compute cycles of each layer against the density of its MACs.

    The line is ``1 / density``: what a design reaches that loses nothing to synchronisation or empty slots.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    ops : str or iterable of str, optional
        Only these ops; by default those with a recorded mask (density below 1).

    Returns
    -------
    Axes
        One marker for each layer and tuning, one colour for each arch; both axes logarithmic.

    Raises
    ------
    InputError
        If the result has none of the ops.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> ax = sk.plots.speedup_density(result)
    >>> ax.figure.savefig("figure.png")
    """
    ax = axes(ax, 0.75)
    table = result.op_table(ops)
    table = table.assign(density=table["effectual_macs"] / table["macs"], gain=table["dense_cycles"] / table["cycles"])
    table = table[(table["density"] > 0) & ((table["density"] < 1) | (ops is not None))]
    for index, (name, rows) in enumerate(table.groupby("arch", sort=False)):
        look = {**mark(index), "linestyle": "none", "markeredgewidth": 0, "alpha": 0.8}
        ax.plot(rows["density"], rows["gain"], label=shown(str(name)), **look)
    if not table.empty:
        ends = np.array([table["density"].min() * 0.9, 1.0])
        ax.plot(ends, 1 / ends, color="black", linewidth=0.12 * points(), linestyle="--", label="1 / density")
    plain_log(ax, "x")
    plain_log(ax, "y")
    ax.grid(True, axis="both")
    ax.set_xlabel("density (effectual MACs / MACs)")
    ax.set_ylabel("speed-up in cycles (×)")
    legend_above(ax)
    return ax


@figure("stalls", "result")
@styled
def stall_breakdown(result: Result, ax: Axes | None = None, *, ops: Ops = None) -> Axes:
    """Stack where each run's time goes: useful work, lost slots by cause, and waiting for DRAM.

    The DRAM share is ``stall_cycles / (cycles + stall_cycles)``. The rest is split as the kernel's slots are:
    ``busy : cause_1 : cause_2 ...`` in unit-cycles, with busy what the units did; where a kernel does not count them
    (a GPU's), it stays one piece.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    ops : str or iterable of str, optional
        Only these ops.

    Returns
    -------
    Axes
        One bar for each arch and tuning; every bar adds up to 100 %.

    Raises
    ------
    InputError
        If the result has none of the ops.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> ax = sk.plots.stall_breakdown(result)
    >>> ax.figure.savefig("figure.png")
    """
    shares = stall_shares(result, ops)
    ax = axes(ax, rows_aspect(shares))
    row_bars(ax, shares * 100.0)
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of latency (%)")
    legend_above(ax)
    return ax


def stall_shares(result: Result, ops: Ops = None) -> pd.DataFrame:
    """Return the shares that `stall_breakdown` draws.

    Returns
    -------
    DataFrame
        One row for each run that takes time, by the labels of its arch and tuning; columns useful, causes, DRAM; sum 1.

    Raises
    ------
    InputError
        If the result has none of the ops, or no run takes time.
    """
    import pandas as pd

    wanted = result.op_names(ops)
    rows = {}
    for line in result.summary(ops).itertuples():
        slots: dict[str, int] = {}
        for name, causes in result.meta["runs"][line.run].get("slots", {}).items():
            if wanted is None or name in wanted:
                for cause, count in causes.items():
                    slots[cause] = slots.get(cause, 0) + count
        latency = line.cycles + line.stall_cycles
        if not latency:
            continue  # an estimate of energy alone
        total = sum(slots.values())
        compute = {cause: count / total * line.cycles / latency for cause, count in slots.items() if total}
        if not total:
            compute = {"compute, not split": line.cycles / latency}
        rows[line.run] = {"busy": 0.0, **compute, "DRAM": line.stall_cycles / latency}
    if not rows:
        raise InputError("no run in this result takes time: its archs estimate energy alone")
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna(0.0)
    frame.index = pd.MultiIndex.from_frame(result.labels().loc[frame.index, ["arch", "tuning"]])
    causes = sorted(set(frame.columns) - {"busy", "DRAM"}, key=lambda cause: -frame[cause].sum())
    shares = {"useful": frame["busy"], **{cause.replace("_", " "): frame[cause] for cause in causes[:MAX_CAUSES]}}
    shares |= {"other": frame[causes[MAX_CAUSES:]].sum(axis=1), "DRAM": frame["DRAM"]}
    stacked = pd.DataFrame(shares)
    return stacked.loc[:, (stacked > 0).any()]


@figure("utilisation", "result")
@styled
def utilisation_map(result: Result, ax: Axes | None = None, *, arch: str | None = None) -> Axes:
    """Map how busy each PE or lane is, layer by layer: busy cycles over the op's compute cycles.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays on designs whose kernel counts its units.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    arch : str, optional
        Which design; the first that counts its units by default.

    Returns
    -------
    Axes
        Units across, ops and layers down (each tuning's under one another); colour is the share, 0 to 1.

    Raises
    ------
    InputError
        If no run has busy counts by unit.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> ax = sk.plots.utilisation_map(result, arch="cnvlutin")
    >>> ax.figure.savefig("figure.png")
    """
    labels, metas = result.labels(), result.meta["runs"]
    counted = {run: label for run, label in labels["arch"].items() if metas[run].get("unit_busy")}
    if not counted or arch not in (None, *counted.values()):
        known = ", ".join(sorted(set(counted.values())))
        raise InputError(f"no run on {arch or 'any arch'} counts its units; those that do: {known or 'none'}")
    chosen = arch or next(iter(counted.values()))
    cycles = result.ops.set_index(["run", "op", "layer"])["cycles"]
    rows: list[Any] = []
    names: list[str] = []
    groups: list[tuple[int, str]] = []
    for run in (run for run, label in counted.items() if label == chosen):
        meta = metas[run]
        alike = _units_alike(result, run, meta)
        for name, busy in meta["unit_busy"].items():
            op, _, layer = name.rpartition(".")
            rows.append(np.asarray(busy) / max(1, int(cycles.loc[(run, op, int(layer))])) / alike)
            names.append(f"{op} {layer}" if int(layer) >= 0 else op)
        groups.append((len(rows), str(labels.loc[run, "tuning"])))
    ax = axes(ax, 0.3 + 0.03 * len(rows))
    share = np.array(rows)
    image = ax.imshow(share, aspect="auto", vmin=0, vmax=1, interpolation="nearest")
    ax.set_yticks(range(len(names)), names, fontsize=0.7 * points(), **AS_IS)
    start = 0
    for end, name in groups:
        ax.annotate(
            "\n".join(wrap(name, 12)), (1.01, 1 - (start + end) / 2 / len(rows)), xycoords="axes fraction", va="center",
            rotation=-90 if end - start > 3 else 0, fontsize=0.75 * points(), **AS_IS,
        )  # fmt: skip
        if end < len(rows):
            ax.axhline(end - 0.5, color="white", linewidth=0.2 * points())
        start = end
    ax.set_xlabel(f"PE or lane of {chosen}", **AS_IS)
    ax.grid(False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.figure.colorbar(image, ax=ax, label="busy share", fraction=0.05, pad=0.1)
    return ax


def _units_alike(result: Result, run: str, meta: dict[str, Any]) -> int:
    """How many units one busy count stands for: TensorDash counts a lane over all rows of its tile."""
    name, busy = next(iter(meta["unit_busy"].items()))
    op = name.rpartition(".")[0]
    ops = result.ops
    cycles = int(ops.loc[(ops["run"] == run) & (ops["op"] == op), "cycles"].sum())
    slots = sum(meta.get("slots", {}).get(op, {}).values())
    return max(1, round(slots / max(1, cycles * len(busy))))
