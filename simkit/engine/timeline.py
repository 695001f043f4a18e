"""Chrome-trace JSON of one layer on one arch: every PE, lane or SM, the stalls, and the DRAM. Opens in Perfetto.

One microsecond in the viewer is one cycle, so that lengths read as cycles. Groups of tokens follow one another as the
model runs them; what a unit does within a group is drawn busy first, idle after, since a model counts how long a unit
works in a group and not when. Transfers lie where the memory model has them: a tile's fill before its launch, the rest
beside its compute, and what does not fit there is a stall.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwmodels import Arch, Compute, Mask, Op, PackedMask
from hwmodels.counting.groups import group_starts
from hwmodels.kernel import Kernel
from hwmodels.mapping.launches import Tiles
from hwmodels.mask import load
from hwmodels.memory import bytes_per_cycle, group_order, movement
from hwmodels.registry import kernel_of, params_of, seen_by

from ..errors import InputError
from ..files import whole
from ..results.runs import op_list
from .inputs import PathLike, as_arch, as_trace
from .workload import build_ops

if TYPE_CHECKING:
    from traces import Trace

Event = dict[str, Any]
UNITS, STALLS, DRAM = 1, 2, 3
# a thread 0 is, to Perfetto, the one whose number is the process's: it would lie on another
FIRST = 1
# a viewer is slow beyond a few million slices
MOST_SLICES = 1_000_000


def timeline(
    trace: Trace | PathLike,
    arch: Arch | PathLike,
    out: str | os.PathLike[str],
    *,
    op: str | None = None,
    layer: int = 0,
    tokens: int = 256,
    weights: str = "recorded",
) -> Path:
    """Write the timeline of one op of one layer.

    Parameters
    ----------
    trace : path or Trace
        Trace with the masks.
    arch : name, path or Arch
        Arch to run the op on.
    out : path
        JSON file to write, whole or not at all; ui.perfetto.dev opens it.
    op : str, optional
        The first op of the layer with a recorded mask by default.
    layer : int
        Which layer.
    tokens : int
        Only the first so many tokens.
    weights : str
        As in `simkit.replay`.

    Returns
    -------
    Path
        The file: Chrome-trace JSON in which 1 us is one cycle.

    Raises
    ------
    InputError
        If there is no such op or layer, or the timeline would be too large to look at.
    StorageError
        If the file cannot be written.

    Examples
    --------
    >>> sk.timeline("minilm_relu_small.zarr", "cnvlutin", "layer0.json", op="down", tokens=32).name
    'layer0.json'
    """
    if tokens < 1:
        raise InputError(f"tokens = {tokens}, must be at least 1")
    opened, loaded = as_trace(trace), as_arch(arch)
    drawn = draw(_first_tokens(_find(opened, op, layer, weights), tokens), loaded)
    drawn["otherData"] |= {"trace": opened.name, "trace_hash": opened.hash}
    with whole(out) as partial:
        partial.write_text(json.dumps(drawn, separators=(",", ":")) + "\n", encoding="utf-8")
    return Path(out)


def draw(op: Op, arch: Arch) -> dict[str, Any]:
    """Lay an op out in time on an arch: a Chrome-trace object, ``ts`` and ``dur`` in cycles.

    One copy is drawn, or one group of copies that share their second operand.
    """
    kernel = kernel_of(arch)
    group = replace(seen_by(kernel, op, arch), repeat=op.shared)
    op = _stacked(group, side_by_side=kernel.name == "gpu")
    compute = kernel.count(op, params_of(arch), arch)
    starts = group_starts(op, compute.group_rows)
    if compute.dram_bytes is None:
        counted = compute if op is group else kernel.count(group, params_of(arch), arch)
        rate = bytes_per_cycle(arch)
        clock = _Clock(movement(group, arch, counted).ways.at(rate).tiles, rate)
    else:
        clock = _Clock(None, 0.0)
    done = np.append(0, np.cumsum(compute.row_cycles))
    begin, end = clock.wall(done[:-1], after=True), clock.wall(done[1:], after=False)
    units = _units(op, arch, kernel, compute, starts, begin, end)
    events = _names(arch, kernel, sorted({event["tid"] for event in units} - {FIRST}))
    events += units
    events += clock.events()
    facts = {
        "arch": arch.name,
        "op": f"{op.name} of layer {op.layer}",
        "shape": f"M {group.m}, K {op.k}, N {op.n}" + f", {group.shared} copies" * (group.shared > 1),
        "cycles": int(compute.cycles),
        "stall_cycles": round(clock.stalled, 3),
        "clock_hz": arch.clock_hz,
        "time": "1 us in the viewer is 1 cycle",
    }
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": facts}


def _find(trace: Trace, name: str | None, layer: int, weights: str) -> Op:
    known = {spec.op for spec in trace.ops() if spec.kind == "gemm"}
    ops = list(build_ops(trace, op_list(name, known, f"trace '{trace.name}'"), weights))
    here = [op for op in ops if op.layer == layer]
    if not here:
        layers = sorted({op.layer for op in ops if op.layer >= 0})
        raise InputError(f"trace '{trace.name}' has no layer {layer}; it has {layers[0]} to {layers[-1]}")
    return next((op for op in here if op.activation is not None or op.output is not None), here[0])


def _stacked(group: Op, side_by_side: bool) -> Op:
    """Return a group of copies as one op over all their rows, launch by launch; `side_by_side` in the same launches."""
    if group.shared == 1:
        return group
    order, batch = group_order(group), min(group.batch or group.m, group.m)

    def stack(mask: Mask | None) -> Mask | None:
        return mask if mask is None else PackedMask(load(mask).words[order], mask.shape[1])

    return replace(
        group,
        m=len(order),
        activation=stack(group.activation),
        output=stack(group.output),
        batch=batch * group.shared if side_by_side else batch,
        repeat=1,
        shared=1,
    )


def _first_tokens(op: Op, tokens: int) -> Op:
    return _rows(op, 0, min(tokens, op.m), batch=op.batch)


def _rows(op: Op, first: int, last: int, batch: int = 0) -> Op:
    """Return the op over tokens first ... last - 1 alone."""

    def cut(mask: Mask | None) -> Mask | None:
        return mask if mask is None else PackedMask(load(mask).words[first:last].copy(), mask.shape[1])

    return replace(op, m=last - first, activation=cut(op.activation), output=cut(op.output), batch=batch)


class _Clock:
    """Turns compute cycles into wall cycles, stalls put in where the memory model has them."""

    def __init__(self, tiles: Tiles | None, bytes_per_cycle: float):
        self._tiles, self._rate = tiles, bytes_per_cycle
        if tiles is None:
            return
        self._fill = tiles.fill / bytes_per_cycle
        self._body = (tiles.bytes - tiles.fill) / bytes_per_cycle
        self._late = np.maximum(0.0, self._body - tiles.busy)
        self._edges = np.append(0.0, np.cumsum(tiles.busy))
        # stall before each tile computes: every fill up to it, and the lateness of those before
        self._before = np.cumsum(self._fill) + np.append(0.0, np.cumsum(self._late)[:-1])

    @property
    def stalled(self) -> float:
        """Stall cycles in all."""
        return 0.0 if self._tiles is None else float((self._fill + self._late).sum())

    def wall(self, cycles: NDArray[np.int64], after: bool) -> NDArray[np.float64]:
        """Wall time of compute times; at a border of two tiles, `after` the stall between them or before it."""
        if self._tiles is None:
            return cycles.astype(np.float64)
        # borders are sums of quotients: half a cycle is far above their error, and cycles are whole
        nudged = cycles + (0.5 if after else -0.5)
        tile = np.clip(np.searchsorted(self._edges, nudged, side="right") - 1, 0, len(self._before) - 1)
        return cycles + self._before[tile]

    def events(self) -> list[Event]:
        """Stalls, transfers and the bandwidth in use."""
        if self._tiles is None:
            return []
        events: list[Event] = []
        tiles = self._tiles
        for tile in range(len(tiles.starts)):
            start = self._edges[tile] + self._before[tile]
            fill, body, late = self._fill[tile], self._body[tile], self._late[tile]
            about = {
                "token": int(tiles.starts[tile]),
                "input_bytes": int(tiles.inputs[tile]),
                "weight_bytes": int(tiles.weights[tile]),
                "output_bytes": int(tiles.outputs[tile]),
            }
            if fill > 0:
                events.append(_slice("fill", STALLS, FIRST, start - fill, fill))
                events.append(_slice("fill", DRAM, FIRST, start - fill, fill, about))
            if body > 0:
                events.append(_slice("transfer", DRAM, FIRST, start, body, about))
            if late > 0:
                events.append(_slice("wait for DRAM", STALLS, FIRST, start + tiles.busy[tile], late))
            if fill + body > 0:
                events.append(_counter(start - fill, self._rate))
                events.append(_counter(start + body, 0.0))
        return events


def _units(
    op: Op,
    arch: Arch,
    kernel: Kernel,
    compute: Compute,
    starts: NDArray[np.int64],
    begin: NDArray[np.float64],
    end: NDArray[np.float64],
) -> list[Event]:
    """Slices of the units: SMs where the kernel is a GPU's, units where it counts them, else the array as one."""
    if kernel.name == "gpu":
        return _sms(op, arch, np.diff(starts), begin, end)
    busy = _busy_by_group(op, arch, kernel, compute, starts)
    events = [
        _slice("group", UNITS, FIRST, a, b - a, {"tokens": int(rows), "first_token": int(first)})
        for a, b, rows, first in zip(begin, end, np.diff(starts), starts, strict=False)
    ]
    if busy is None:
        return events
    _check_size(busy.size)
    # lanes that several rows of PEs share count the work of them all
    lost = sum(count for cause, count in compute.stalls.items() if cause != "dram")
    copies = max(1, round((busy.sum() + lost) / (compute.cycles * busy.shape[1])))
    for group, unit in zip(*np.nonzero(busy), strict=True):
        events.append(_slice("busy", UNITS, FIRST + 1 + int(unit), begin[group], busy[group, unit] / copies))
    return events


def _busy_by_group(
    op: Op, arch: Arch, kernel: Kernel, compute: Compute, starts: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Busy cycles of every unit in every group, ``int64[groups, units]``; None where the model does not say."""
    if compute.unit_busy is None:
        return None
    _check_size(len(compute.unit_busy) * (len(starts) - 1))
    params = params_of(arch)
    alone = [kernel.count(_rows(op, int(a), int(b)), params, arch) for a, b in pairwise(starts)]
    busy = np.stack([one.unit_busy for one in alone if one.unit_busy is not None])
    # groups that lean on one another do not add up, and are not drawn by unit
    adds_up = np.array_equal(busy.sum(axis=0), compute.unit_busy) and sum(o.cycles for o in alone) == compute.cycles
    return busy if adds_up else None


def _sms(
    op: Op, arch: Arch, tokens: NDArray[np.int64], begin: NDArray[np.float64], end: NDArray[np.float64]
) -> list[Event]:
    """Thread blocks of each launch in waves over the SMs, by the tiling that the timing model takes for its shape."""
    from hwmodels.kernels.gpu import model_of

    params = params_of(arch)
    model = model_of(params, int(arch.bits["activation"].value))
    shapes = np.stack([tokens, np.full_like(tokens, op.n), np.full_like(tokens, op.k)], axis=1)
    tiling = model.explain(shapes)
    blocks = -(-tokens // tiling.tile[:, 0]) * -(-op.n // tiling.tile[:, 1]) * tiling.split
    _check_size(int(blocks.sum()))
    events = []
    for launch, count in enumerate(blocks):
        waves = -(-int(count) // params.sms)
        length = (end[launch] - begin[launch]) / waves
        about = {"tile": [int(side) for side in tiling.tile[launch]], "split": int(tiling.split[launch])}
        events.append(_slice("launch", UNITS, FIRST, begin[launch], end[launch] - begin[launch], about))
        for block in range(int(count)):
            wave, sm = divmod(block, params.sms)
            events.append(_slice("block", UNITS, FIRST + 1 + sm, begin[launch] + wave * length, length))
    return events


def _check_size(slices: int) -> None:
    if slices > MOST_SLICES:
        raise InputError(f"the timeline would have {slices:,} slices, too many to look at; draw fewer with --tokens")


def _names(arch: Arch, kernel: Kernel, units: list[int]) -> list[Event]:
    """Names and order of the processes, and of the threads that hold slices."""
    unit, group = ("SM", "launches") if kernel.name == "gpu" else ("PE or lane", "groups of tokens")
    named = {UNITS: f"{arch.name}: {unit}s".replace("PE or", "PEs or"), STALLS: "stalls", DRAM: "DRAM"}
    threads = {(UNITS, FIRST): group, (STALLS, FIRST): "compute waits", (DRAM, FIRST): "transfers"}
    threads |= {(UNITS, place): f"{unit} {place - FIRST - 1}" for place in units}
    events = [_meta("process_name", process, {"name": name}) for process, name in named.items()]
    events += [_meta("process_sort_index", process, {"sort_index": process}) for process in named]
    for (process, thread), name in threads.items():
        events.append(_meta("thread_name", process, {"name": name}, thread))
        events.append(_meta("thread_sort_index", process, {"sort_index": thread}, thread))
    return events


def _meta(name: str, process: int, args: dict[str, Any], thread: int = FIRST) -> Event:
    return {"ph": "M", "name": name, "pid": process, "tid": thread, "args": args}


def _slice(name: str, process: int, thread: int, start: float, length: float, args: Event | None = None) -> Event:
    # both ends are rounded, not the length: a slice then ends where the next one begins, never a step behind it
    begin, end = _us(start), _us(start + length)
    event = {"ph": "X", "name": name, "pid": process, "tid": thread, "ts": begin, "dur": round(end - begin, 3)}
    return event | {"args": args} if args else event


def _counter(at: float, rate: float) -> Event:
    return {
        "ph": "C",
        "name": "byte / cycle",
        "pid": DRAM,
        "tid": FIRST,
        "ts": _us(at),
        "args": {"value": round(rate, 3)},
    }


def _us(cycles: float) -> float:
    # viewers keep whole nanoseconds, here thousandths of a cycle
    return round(round(float(cycles), 6), 3)  # in two steps, so that equal times with unlike errors round alike
