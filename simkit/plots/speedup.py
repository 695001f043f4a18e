"""Speed-up of each design over its own dense baseline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .style import axes, grouped_bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..result import Result


def speedup_bars(result: Result, ax: Axes | None = None, *, ops: str | Iterable[str] | None = None) -> Axes:
    """Draw latency of the dense baseline over latency with the trace's masks, DRAM stalls included.

    Parameters
    ----------
    result : Result
        Replays.
    ax : Axes, optional
        Where to draw.
    ops : str or iterable of str, optional
        Only these ops.
    """
    ax = axes(ax)
    table = result.summary(ops).pivot(index="arch", columns="tuning", values="speedup")
    summary = result.summary(ops)
    archs, tunings = list(dict.fromkeys(summary["arch"])), list(dict.fromkeys(summary["tuning"]))
    table = table.loc[archs, tunings]
    grouped_bars(ax, archs, {tuning: list(table[tuning]) for tuning in tunings})
    ax.axhline(1.0, color="black", linewidth=0.8)
    ax.set_ylabel("speed-up over dense")
    ax.legend(ncols=2, loc="upper left")
    ax.margins(y=0.25)
    return ax
