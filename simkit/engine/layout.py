"""Columnar counts of a workload on one arch, so that a sweep can reprice thousands of variants.

Bandwidth and clock change the stalls alone, so all the rest is laid out once as a `Layout` and shared by every variant
that differs in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwmodels import Arch, Counts, Op
from hwmodels.counts import total
from hwmodels.memo import Moved, counts_of
from hwmodels.memory import Tiles, bytes_per_cycle

from ..results.result import SHAPE_COLUMNS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
SHAPE = ("layer", "op", *SHAPE_COLUMNS)
STATIC = "static.picosecond"


class Counted(NamedTuple):
    """What one operation of one layer does on an arch; `op` is None for a vector op."""

    shape: dict[str, Any]
    op: Op | None
    counts: Counts


class Layout:
    """All that holds at any bandwidth and clock.

    Parameters
    ----------
    items : sequence of Op
        GEMMs in order; several of one name and layer are rows of one op.
    place : sequence of int
        Which of `moved` counts each of `items`.
    moved : sequence of Moved
        What each distinct op does.
    vectors : sequence of Counted
        Vector ops.
    arch : Arch
        Any arch that `moved` holds for.
    """

    def __init__(
        self, items: Sequence[Op], place: Sequence[int], moved: Sequence[Moved], vectors: Sequence[Counted], arch: Arch
    ):
        self._place = np.asarray(place, dtype=np.intp)
        self._waits = _Waits(moved)
        ops, self._group = _merged(items, [counts_of(one, arch) for one in moved], place)
        self.ops = [*ops, *vectors]
        self.shapes = {name: _column([one.shape[name] for one in self.ops]) for name in SHAPE}
        names = ("macs", "effectual_macs", "cycles", "dense_cycles", "dram_bytes")
        self.figures = {name: _ints([getattr(one.counts, name) for one in self.ops]) for name in names}
        rows = [[*one.counts.actions, STATIC] for one in self.ops]
        self.rows_of_op = _ints([len(one) for one in rows])
        self.actions = list(dict.fromkeys(name for one in rows for name in one))
        index = {name: place for place, name in enumerate(self.actions)}
        self.action_of_row = np.array([index[name] for one in rows for name in one], dtype=np.intp)
        self.counts = _ints([count for one in self.ops for count in (*one.counts.actions.values(), 0)])
        # static energy is the last row of each op
        self.static_rows = np.cumsum(self.rows_of_op) - 1
        self._lost, self._slots, self._busy = _unit_cycles(self.ops)

    def at(self, arch: Arch) -> Tally:
        """Add the stalls of a bandwidth and a clock."""
        waits, dense_waits = self._waits.cycles(arch)
        return Tally(self, self._by_op(waits), self._by_op(dense_waits), arch.clock_hz)

    def _by_op(self, waits: Ints) -> Ints:
        column = np.zeros(len(self.ops), dtype=np.int64)
        np.add.at(column, self._group, waits[self._place])
        return column

    def unit_cycles(self, units: bool, stall_cycles: int) -> dict[str, Any]:
        """Lost unit-cycles by cause, unit-cycles by op and use, and (for `units`) the busy cycles of each unit."""
        lost = {cause: stall_cycles if cause == "dram" else count for cause, count in self._lost.items()}
        return {"stalls": lost, "slots": self._slots, "unit_busy": self._busy if units else {}}


class Tally:
    """A layout at one bandwidth and clock: `figures` in the order of a result's columns, `counts` of all its rows."""

    def __init__(self, layout: Layout, stall_cycles: Ints, dense_stall_cycles: Ints, clock_hz: float):
        self.layout = layout
        known = layout.figures
        latency_s = (known["cycles"] + stall_cycles) / clock_hz
        self.figures: dict[str, NDArray[Any]] = {
            "macs": known["macs"],
            "effectual_macs": known["effectual_macs"],
            "cycles": known["cycles"],
            "dense_cycles": known["dense_cycles"],
            "stall_cycles": stall_cycles,
            "dense_stall_cycles": dense_stall_cycles,
            "latency_s": latency_s,
            "dense_latency_s": (known["dense_cycles"] + dense_stall_cycles) / clock_hz,
            "dram_bytes": known["dram_bytes"],
        }
        self.counts = layout.counts.copy()
        self.counts[layout.static_rows] = np.rint(latency_s * 1e12)

    def unit_cycles(self, units: bool) -> dict[str, Any]:
        """As `Layout.unit_cycles`, with these stalls."""
        return self.layout.unit_cycles(units, int(self.figures["stall_cycles"].sum()))


class _Waits:
    """Tiles of many ops end to end, so that one pass over them finds the stalls of all.

    The dense baseline of an op without masks, and of its like in every layer, is the same: each is there once.
    """

    def __init__(self, moved: Sequence[Moved]):
        self._known: dict[tuple[bytes, ...], int] = {}
        parts: list[tuple[Floats, Floats, Floats]] = []
        self._groups = _ints([one.op.groups for one in moved])
        self._with = np.array([one.movement is not None for one in moved], dtype=bool)
        pairs = [self._pair(one, parts) for one in moved]
        self._own, self._dense = (np.array([pair[side] for pair in pairs], dtype=np.intp) for side in (0, 1))
        self._fill, self._body, self._busy = (
            np.concatenate([np.zeros(0), *(part[column] for part in parts)]) for column in range(3)
        )
        ends = np.cumsum([0, *(len(part[0]) for part in parts)]).tolist()
        self._spans = [slice(a, b) for a, b in pairwise(ends)]

    def _pair(self, one: Moved, parts: list[tuple[Floats, Floats, Floats]]) -> tuple[int, int]:
        if one.movement is None:
            return 0, 0
        return self._add(one.movement.tiles, parts), self._add(one.movement.dense, parts)

    def _add(self, tiles: Tiles, parts: list[tuple[Floats, Floats, Floats]]) -> int:
        part = tiles.fill, tiles.bytes - tiles.fill, tiles.busy
        key = tuple(column.tobytes() for column in part)
        if key not in self._known:
            self._known[key] = len(parts)
            parts.append(part)
        return self._known[key]

    def cycles(self, arch: Arch) -> tuple[Ints, Ints]:
        """Stall cycles of every op and of its dense baseline, exactly as `Tiles.stall_cycles` has them."""
        if not self._with.any():
            return np.zeros(len(self._with), dtype=np.int64), np.zeros(len(self._with), dtype=np.int64)
        rate = bytes_per_cycle(arch)
        fill = self._fill / rate
        late = np.maximum(0.0, self._body / rate - self._busy)
        # added op by op: another order of addition may fall on the other side of a whole cycle
        waits = np.ceil([fill[span].sum() + late[span].sum() for span in self._spans]).astype(np.int64)
        scale = self._groups * self._with
        return waits[self._own] * scale, waits[self._dense] * scale


def _merged(items: Sequence[Op], counts: Sequence[Counts], place: Sequence[int]) -> tuple[list[Counted], Any]:
    """Join an op that runs at several shapes into one: counts added, the shape that does most of the MACs shown."""
    groups: dict[tuple[int, str], list[int]] = {}
    for index, op in enumerate(items):
        groups.setdefault((op.layer, op.name), []).append(index)
    merged = []
    group_of = np.zeros(len(items), dtype=np.intp)
    for group, members in enumerate(groups.values()):
        group_of[members] = group
        largest = max((items[index] for index in members), key=lambda op: op.macs)
        merged.append(Counted(_shape(largest), largest, total([counts[place[index]] for index in members])))
    return merged, group_of


def _shape(op: Op) -> dict[str, Any]:
    return {
        "layer": op.layer,
        "op": op.name,
        "kind": "gemm",
        "m": op.m,
        "k": op.k,
        "n": op.n,
        "batch": op.batch or op.m,
        "repeat": op.repeat,
    }


def _unit_cycles(ops: Sequence[Counted]) -> tuple[dict[str, int], dict[str, dict[str, int]], dict[str, list[int]]]:
    stalls: dict[str, int] = {}
    slots: dict[str, dict[str, int]] = {}
    busy: dict[str, list[int]] = {}
    for _, op, counts in ops:
        if op is None:
            continue
        _add(slots.setdefault(op.name, {}), _uses(counts))
        _add(stalls, {name: int(value) for name, value in counts.stalls.items()})
        if counts.unit_busy is not None and op.activation is not None:
            busy[f"{op.name}.{op.layer}"] = [int(value) for value in counts.unit_busy]
    return stalls, slots, busy


def _uses(counts: Counts) -> dict[str, int]:
    """Unit-cycles of the compute side by use: busy, and each cause of loss."""
    if counts.unit_busy is not None:
        busy = int(counts.unit_busy.sum())
    else:
        busy = counts.actions.get("mac.compute", 0) + counts.actions.get("mac.gated", 0)
    return {"busy": busy, **{cause: int(lost) for cause, lost in counts.stalls.items() if cause != "dram"}}


def _add(into: dict[str, int], more: dict[str, int]) -> None:
    for name, value in more.items():
        into[name] = into.get(name, 0) + value


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _column(values: list[Any]) -> NDArray[Any]:
    return np.array(values, dtype=object if isinstance(values[0], str) else np.int64)
