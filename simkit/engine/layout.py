"""Columnar counts of a workload on one arch, so that a sweep can reprice thousands of variants.

Bandwidth and clock change the stalls, and which of its mappings an op runs under; all the rest is laid out once as a
`Layout` and shared by every variant that differs in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwmodels import Arch, Counts, Op
from hwmodels.counts import total
from hwmodels.mapping.launches import Ways, best_rows
from hwmodels.memo import Moved, counts_of
from hwmodels.memory import bytes_per_cycle

from ..results.result import SHAPE_COLUMNS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
SHAPE = ("layer", "op", *SHAPE_COLUMNS)
STATIC = "static.picosecond"
# what depends on the mapping that a bandwidth makes the best
MOVED = ("dram.transfer", "weight_buffer.fill", "activation_buffer.fill")


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
        ops, self._group = _merged(items, [_with_all_moved(one, counts_of(one, arch)) for one in moved], place)
        self.ops = [*ops, *vectors]
        self.shapes = {name: _column([one.shape[name] for one in self.ops]) for name in SHAPE}
        names = ("macs", "effectual_macs", "cycles", "dense_cycles")
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
        self._settle(arch)

    def _settle(self, arch: Arch) -> None:
        """Take what the mappings move at this arch out of the counts: `at` adds what they move at another."""
        moved = self._waits.at(arch).moved
        self._dram_bytes = _ints([one.counts.dram_bytes for one in self.ops]) - self._by_op(moved[0])
        self._moved_rows = []
        for action, column in zip(MOVED, moved, strict=True):
            code = self.actions.index(action) if action in self.actions else -1
            rows = np.flatnonzero(self.action_of_row == code)
            ops = np.repeat(np.arange(len(self.ops)), self.rows_of_op)[rows]
            self._moved_rows.append((rows, ops))
            self.counts[rows] -= self._by_op(column)[ops]

    def at(self, arch: Arch) -> Tally:
        """Add the stalls of a bandwidth and a clock, and what the mappings move that are the best there."""
        found = self._waits.at(arch)
        counts = self.counts.copy()
        for (rows, ops), column in zip(self._moved_rows, found.moved, strict=True):
            counts[rows] += self._by_op(column)[ops]
        dram_bytes = self._dram_bytes + self._by_op(found.moved[0])
        stalls = self._by_op(found.stalls), self._by_op(found.dense_stalls)
        return Tally(self, counts, dram_bytes, stalls, arch.clock_hz)

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

    def __init__(self, layout: Layout, counts: Ints, dram_bytes: Ints, stalls: tuple[Ints, Ints], clock_hz: float):
        self.layout = layout
        known = layout.figures
        stall_cycles, dense_stall_cycles = stalls
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
            "dram_bytes": dram_bytes,
        }
        self.counts = counts
        self.counts[layout.static_rows] = np.rint(latency_s * 1e12)

    def unit_cycles(self, units: bool) -> dict[str, Any]:
        """As `Layout.unit_cycles`, with these stalls."""
        return self.layout.unit_cycles(units, int(self.figures["stall_cycles"].sum()))


class _Found(NamedTuple):
    """Stall cycles of each distinct op and of its dense baseline, and what it moves: a column for each of `MOVED`."""

    stalls: Ints
    dense_stalls: Ints
    moved: tuple[Ints, Ints, Ints]


class _Waits:
    """Launches of many ops end to end, so that one pass over them finds the mappings, stalls and bytes of all.

    The dense baseline of an op without masks, and of its like in every layer, is the same: each is there once.
    """

    def __init__(self, moved: Sequence[Moved]):
        self._known: dict[tuple[bytes, ...], int] = {}
        parts: list[Ways] = []
        self._copies = _ints([0 if one.movement is None else one.movement.copies for one in moved])
        pairs = [self._pair(one, parts) for one in moved]
        self._own, self._dense = (np.array([pair[side] for pair in pairs], dtype=np.intp) for side in (0, 1))
        self._objective = parts[0].objective if parts else "latency"
        self._fill = _end_to_end([one.tiles.fill for one in parts])
        self._bytes = _end_to_end([one.tiles.bytes for one in parts])
        self._busy = _end_to_end([one.tiles.busy for one in parts])
        self._filled = _end_to_end([one.fetched for one in parts]), _end_to_end([one.loaded for one in parts])
        starts = np.cumsum([0, *(len(one.mapping) for one in parts)])
        firsts = [one.first + start for one, start in zip(parts, starts, strict=False)]
        self._first = np.concatenate([np.zeros(0, dtype=np.int64), *firsts])
        ends = np.cumsum([0, *(len(one.first) for one in parts)]).tolist()
        self._spans = [slice(a, b) for a, b in pairwise(ends)]

    def _pair(self, one: Moved, parts: list[Ways]) -> tuple[int, int]:
        if one.movement is None:
            return 0, 0
        return self._add(one.movement.ways, parts), self._add(one.movement.dense, parts)

    def _add(self, ways: Ways, parts: list[Ways]) -> int:
        tiles = ways.tiles
        columns = tiles.fill, tiles.bytes, tiles.busy, ways.fetched, ways.loaded, ways.first
        key = tuple(column.tobytes() for column in columns)
        if key not in self._known:
            self._known[key] = len(parts)
            parts.append(ways)
        return self._known[key]

    def at(self, arch: Arch) -> _Found:
        """Stall cycles and bytes at a bandwidth and a clock, exactly as `hwmodels.memory.join` has them."""
        none = np.zeros(len(self._copies), dtype=np.int64)
        if not self._copies.any():
            return _Found(none, none, (none, none, none))
        rate = bytes_per_cycle(arch)
        stall = self._fill / rate + np.maximum(0.0, (self._bytes - self._fill) / rate - self._busy)
        rows = self._rows(stall)
        # added op by op: another order of addition may fall on the other side of a whole cycle
        waits = np.ceil(self._sums(stall[rows])).astype(np.int64)
        dram = self._sums(self._bytes[rows]).astype(np.int64)
        fetched, loaded = (np.rint(self._sums(column[rows])).astype(np.int64) for column in self._filled)
        own, copies = self._own, self._copies
        moved = dram[own] * copies, fetched[own] * copies, loaded[own] * copies
        return _Found(waits[own] * copies, waits[self._dense] * copies, moved)

    def _rows(self, stall: Floats) -> Ints:
        """Row that each launch chooses: as `Ways.rows_at`, for all at once."""
        if len(self._first) == len(stall):
            return self._first
        return best_rows(self._objective, self._bytes, stall, self._busy, self._first)

    def _sums(self, by_launch: Floats) -> Floats:
        return np.array([by_launch[span].sum() for span in self._spans])


def _end_to_end(columns: Sequence[Floats]) -> Floats:
    return np.concatenate([np.zeros(0), *columns])


def _with_all_moved(one: Moved, counts: Counts) -> Counts:
    """Give every action that some mapping of the op takes a row, be it 0 at this bandwidth."""
    if one.movement is None:
        return counts
    ways = one.movement.ways
    most = (ways.tiles.bytes.max(), ways.fetched.max(), ways.loaded.max())
    missing = {name: 0 for name, size in zip(MOVED, most, strict=True) if size >= 0.5 and name not in counts.actions}
    return replace(counts, actions={**counts.actions, **missing}) if missing else counts


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
