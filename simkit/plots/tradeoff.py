"""What density buys and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import InputError
from .density import MARKERS
from .style import PALETTE, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..result import Result


def accuracy_energy(result: Result, ax: Axes | None = None, *, ops: str | Iterable[str] | None = None) -> Axes:
    """Plot held-out accuracy against energy per token: one line for each arch, one point for each tuning.

    Bars are one standard error of the accuracy, and the energy table's range.

    Parameters
    ----------
    result : Result
        Replays of traces whose tuning was measured.
    ax : Axes, optional
        Where to draw.
    ops : str or iterable of str, optional
        Only these ops.

    Raises
    ------
    InputError
        If no trace in the result has a measured accuracy.
    """
    ax = axes(ax)
    table = result.summary(ops)
    measured = {
        run: meta["trace"]["measurements"]
        for run, meta in result.meta["runs"].items()
        if "accuracy" in meta["trace"].get("measurements", {})
    }
    table = table[table["run"].isin(measured)].copy()
    if table.empty:
        raise InputError("no trace in this result has a measured accuracy; tune with simkit tune, then record")
    table["accuracy"] = [measured[run]["accuracy"] for run in table["run"]]
    table["error"] = [measured[run].get("accuracy_se", 0.0) for run in table["run"]]
    tunings = list(dict.fromkeys(table["tuning"]))
    for index, (arch, rows) in enumerate(table.groupby("arch", sort=False)):
        rows = rows.sort_values("energy_per_token_pj")
        color = PALETTE[index % len(PALETTE)]
        ax.plot(rows["energy_per_token_pj"] / 1e3, rows["accuracy"], color=color, linewidth=1.0, label=arch)
        for row in rows.itertuples():
            ax.errorbar(
                row.energy_per_token_pj / 1e3,
                row.accuracy,
                yerr=row.error,
                fmt=MARKERS[tunings.index(row.tuning) % len(MARKERS)],
                color=color,
                markersize=5,
                elinewidth=0.8,
                capsize=2,
            )
    for index, tuning in enumerate(tunings):
        ax.plot([], [], MARKERS[index % len(MARKERS)], color="black", label=tuning, linestyle="none")
    ax.set_xscale("log")
    ax.set_xlabel("energy per token (nJ)")
    ax.set_ylabel("held-out accuracy")
    ax.legend(fontsize="small", ncols=2)
    return ax
