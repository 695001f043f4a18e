"""Rooflines of the archs, with the replayed ops on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import InputError
from ..results.runs import Ops, arch_of
from .registry import figure
from .style import DASHES, FILLS, MARKERS, PALETTE, axes, legend_above, plain_log, points, shown, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hwmodels import Arch

    from ..results.result import Result


@figure("roofline", "result")
@styled
def roofline(result: Result, ax: Axes | None = None, *, ops: Ops = None, archs: Sequence[Arch] | None = None) -> Axes:
    """Plot the ops of each arch against its dense roof.

    The roof is ``min(peak, bandwidth intensity)`` with the peak of dense GEMMs. Ops are drawn at their dense MACs
    over DRAM bytes and over latency, so a marker above the roof is work that was skipped, not done faster.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays; layers of one op are drawn as one marker.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    ops : str or iterable of str, optional
        Only these ops.
    archs : sequence of Arch, optional
        The archs of a result of an earlier version, which does not hold them.

    Returns
    -------
    Axes
        MAC per DRAM byte along x, MAC/s along y, both logarithmic; a marker's shape is its op, colour and filling its
        arch.

    Raises
    ------
    InputError
        If an arch is not known here, or the result has none of the ops.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> ax = sk.plots.roofline(result)
    >>> ax.figure.savefig("figure.png")
    """
    sums = op_points(result, ops)
    if sums.empty:
        raise InputError("no op in this result moves a byte of DRAM in some time; a roofline needs traffic")
    given = {arch.hash: arch for arch in archs or ()}
    chosen = {}
    for run, name in result.labels()["arch"].items():
        meta = result.meta["runs"][run]
        if name not in chosen and name in set(sums["arch"]):
            key = meta["arch"]["hash"]
            chosen[name] = given[key] if key in given else arch_of(meta)
    ax = axes(ax, 0.8)
    reach = np.array([sums["intensity"].min() / 3, sums["intensity"].max() * 3])
    names = list(dict.fromkeys(sums["op"]))
    for index, (name, arch) in enumerate(chosen.items()):
        color = PALETTE[index % len(PALETTE)]
        peak, bandwidth = peak_macs_per_s(arch), float(arch.memory.bandwidth.value)
        at = np.geomspace(float(reach[0]), float(reach[1]), 200)
        look = {"color": color, "fillstyle": FILLS[index % len(FILLS)], "markerfacecoloralt": "white"}
        line = {"linestyle": DASHES[index % len(DASHES)], "label": shown(name)}
        ax.plot(at, np.minimum(peak, bandwidth * at), "o", markevery=[], **look, **line)
        rows = sums[sums["arch"] == name]
        for op, marked in rows.groupby("op", sort=False):
            marker = MARKERS[names.index(str(op)) % len(MARKERS)]
            ax.plot(marked["intensity"], marked["rate"], marker, markeredgewidth=0.08 * points(), alpha=0.85, **look)
    handles, labels = ax.get_legend_handles_labels()
    for index, op in enumerate(names):
        handles += ax.plot([], [], MARKERS[index % len(MARKERS)], color="#444444", linestyle="none")
        labels.append(op)
    plain_log(ax, "x")
    ax.set_yscale("log")
    ax.set_xlim(*reach)
    ax.grid(True, axis="both")
    ax.set_xlabel("dense MACs per DRAM byte")
    ax.set_ylabel("dense MACs per second")
    ax.tick_params(labelsize=points() - 1)
    legend_above(ax, handles, labels)
    return ax


def op_points(result: Result, ops: Ops = None) -> pd.DataFrame:
    """One row for each run and op: dense MACs per DRAM byte (``intensity``) and per second (``rate``)."""
    table = result.op_table(ops)
    table = table.assign(op=table["op"].map(_merged_names(table)))
    sums = (
        table.groupby(["run", "arch", "tuning", "op"], sort=False)[["macs", "latency_s", "dram_bytes"]]
        .sum()
        .reset_index()
    )
    sums = sums[(sums["dram_bytes"] > 0) & (sums["latency_s"] > 0)]
    return sums.assign(intensity=sums["macs"] / sums["dram_bytes"], rate=sums["macs"] / sums["latency_s"])


def _merged_names(table: pd.DataFrame) -> dict[str, str]:
    """Name ops of equal shapes and work as one, ``k, q, v``: their markers would lie on one another."""
    alike: dict[tuple[tuple[int, ...], ...], list[str]] = {}
    for name, rows in table.groupby("op", sort=False):
        shapes = rows[["m", "k", "n", "repeat", "macs", "effectual_macs", "dram_bytes"]].drop_duplicates()
        alike.setdefault(tuple(sorted(shapes.itertuples(index=False, name=None))), []).append(str(name))
    return {name: ", ".join(names) for names in alike.values() for name in names}


# K and N of the GEMMs that tell the peak: a multiple of every array size in the archs
PROBE = 2048
_PEAKS: dict[str, float] = {}


def peak_macs_per_s(arch: Arch) -> float:
    """Dense MACs per second once the pipeline is full: the marginal rate between two GEMMs, 64 and 32 tokens.

    Raises
    ------
    InputError
        If the arch takes no time.
    """
    import hwmodels

    if arch.hash in _PEAKS:
        return _PEAKS[arch.hash]

    def cycles(tokens: int) -> int:
        weight = hwmodels.OnesMask(PROBE, PROBE)
        return hwmodels.simulate(hwmodels.Op("peak", 0, tokens, PROBE, PROBE, weight=weight), arch).dense_cycles

    taken = cycles(64) - cycles(32)
    if not taken:
        raise InputError(f"arch '{arch.name}' estimates energy alone; without time it has no peak")
    _PEAKS[arch.hash] = 32 * PROBE * PROBE / taken * arch.clock_hz
    return _PEAKS[arch.hash]
