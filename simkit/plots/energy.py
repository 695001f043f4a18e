"""Where the energy goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .style import HATCHES, PALETTE, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..result import Result

# Many on-chip components share a colour, so that a stack has no more than what a reader can tell apart.
GROUPS = {
    "dram": "DRAM",
    "hbm": "DRAM",
    "static": "static",
    "mac": "MAC",
    "tensor": "MAC",
}


def energy_breakdown(
    result: Result,
    ax: Axes | None = None,
    *,
    relative_to: str | None = None,
    ops: str | Iterable[str] | None = None,
) -> Axes:
    """Stack energy per token by component, one bar for each arch and tuning; whiskers span the table's ranges.

    Parameters
    ----------
    result : Result
        Replays.
    ax : Axes, optional
        Where to draw.
    relative_to : str, optional
        An arch: its energy for the first tuning is 1.
    ops : str or iterable of str, optional
        Only these ops.

    Raises
    ------
    InputError
        If `relative_to` is not in the result.
    """
    ax = axes(ax)
    frame = result.frame
    if ops is not None:
        frame = frame[frame["op"].isin([ops] if isinstance(ops, str) else list(ops))]
    frame = frame.assign(group=frame["component"].map(lambda name: GROUPS.get(name, "on-chip buffers")))
    keys = ["arch", "tuning"]
    stack = frame.pivot_table(index=keys, columns="group", values="energy_pj", aggfunc="sum", sort=False).fillna(0.0)
    ends = frame.groupby(keys, sort=False)[["energy_low_pj", "energy_high_pj"]].sum().loc[stack.index]
    tokens = {m["trace"]["name"]: m["trace"]["tokens"] for m in result.meta["runs"].values()}
    by_pair = frame.drop_duplicates(keys).set_index(keys)["trace"].map(tokens).loc[stack.index]
    unit, scale = "energy per token (nJ)", 1e3 * by_pair.to_numpy(dtype=float)
    if relative_to is not None:
        if relative_to not in stack.index.get_level_values("arch"):
            known = ", ".join(dict.fromkeys(stack.index.get_level_values("arch")))
            raise InputError(f"relative_to='{relative_to}' is not in the result; it has {known}")
        base = stack.loc[relative_to].iloc[0].sum() / by_pair.loc[relative_to].iloc[0]
        unit, scale = f"energy per token ({relative_to} = 1)", base * by_pair.to_numpy(dtype=float)
    _draw(ax, stack.div(scale, axis=0), ends.div(scale, axis=0))
    ax.set_ylabel(unit)
    return ax


def _draw(ax: Axes, stack, ends) -> None:  # type: ignore[no-untyped-def]
    archs = list(dict.fromkeys(stack.index.get_level_values("arch")))
    places, labels, at = [], [], 0.0
    for arch in archs:
        for tuning in stack.loc[arch].index:
            places.append(at)
            labels.append(tuning)
            at += 1.0
        at += 0.8
    order = [name for name in ("MAC", "on-chip buffers", "DRAM", "static") if name in stack]
    bottom = np.zeros(len(stack))
    for index, name in enumerate(order):
        ax.bar(
            places,
            stack[name],
            0.86,
            bottom=bottom,
            label=name,
            color=PALETTE[index],
            hatch=HATCHES[index],
            edgecolor="white",
            linewidth=0.4,
        )
        bottom = bottom + stack[name].to_numpy()
    spread = np.abs(ends.to_numpy().T - bottom)
    ax.errorbar(places, bottom, yerr=spread, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    ax.set_xticks(places, labels, rotation=60, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    first = 0
    for arch in archs:
        count = len(stack.loc[arch])
        middle = float(np.mean(places[first : first + count]))
        ax.annotate(
            arch,
            (middle, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize="small",
        )
        first += count
    ax.margins(x=0.02)
    ax.legend(loc="upper right")
