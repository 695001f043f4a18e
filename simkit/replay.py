"""The junction: a Trace's ops through an Arch's kernel, priced by an EnergyTable, into a Result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import hwmodels
from hwmodels import Arch, Counts, EnergyTable

from .errors import InputError
from .provenance import environment, key_of, model_sources
from .result import COLUMNS, ENERGY, KEY, OP_COLUMNS, SHAPE_COLUMNS, Result
from .workload import Counted, Workload, build_ops

if TYPE_CHECKING:
    from traces import Trace

__all__ = [
    "DEFAULT_TABLE",
    "Rows",
    "Workload",
    "add_run",
    "arch",
    "build_ops",
    "load_trace",
    "replay",
    "replay_one",
    "run_key",
]

DEFAULT_TABLE = "default_45nm"
SHAPE = ("layer", "op", *SHAPE_COLUMNS)
FIGURES = OP_COLUMNS[len(SHAPE_COLUMNS) :]
LATENCY = FIGURES.index("latency_s")
STATIC = "static.picosecond"


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """Open a stored trace (lazily): a local path or any fsspec URL."""
    import traces

    return traces.open_trace(str(path))


def arch(name: str | os.PathLike[str], **changes: Any) -> Arch:
    """Load an arch by name or YAML path; keywords change its fields as `Arch.with_` does.

    Raises
    ------
    InputError
        If the name is unknown, or the YAML has a wrong field, key or unit.
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"no arch file at {path}; 'simkit ls archs' lists the names that ship")
        loaded = hwmodels.arch_from_yaml(path.read_text(encoding="utf-8"), str(path))
    else:
        loaded = hwmodels.load_arch(text)
    return loaded.with_(**changes) if changes else loaded


def replay(
    traces: Trace | Sequence[Trace],
    archs: Arch | str | Sequence[Arch | str],
    *,
    table: str | EnergyTable = DEFAULT_TABLE,
    ops: Iterable[str] | None = None,
    weights: str = "recorded",
    batch: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Result:
    """Replay traces on archs, mask by mask.

    Parameters
    ----------
    traces : Trace or sequence
        What was recorded.
    archs : Arch, name, or sequence
        Where to run it.
    table : str or EnergyTable
        Prices; counts do not depend on it.
    ops : iterable of str, optional
        Only these ops (``["down"]``); all GEMMs by default.
    weights : str
        Which weight masks two-sided designs see: ``"recorded"`` (the trace's own), ``"dense"``, or
        ``"random:0.5"`` (an i.i.d. mask of that density: synthetic, for what-if studies).
    batch : int, optional
        Tokens of one launch: 1 as in decoding; the recorded forward passes by default. It decides how often weights
        are fetched, and over how many tokens a GPU's gather takes the union of the masks.
    threads : int, optional
        Kernels release the GIL; all cores by default.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Result
        One run for each trace and arch.
    """
    from tqdm.auto import tqdm

    many_traces = list(traces) if isinstance(traces, Iterable) else [traces]
    listed = [archs] if isinstance(archs, (str, Arch)) else list(archs)
    many_archs = [arch(one) if isinstance(one, str) else one for one in listed]
    prices = hwmodels.load_table(table) if isinstance(table, str) else table
    rows = Rows()
    runs: dict[str, Any] = {}
    with tqdm(total=len(many_traces) * len(many_archs), desc="replay", unit="run", disable=not progress) as bar:
        for trace in many_traces:
            work = Workload(trace, ops, weights, batch)
            for one in many_archs:
                if run_key(trace, one, prices, work.wanted, weights, batch) not in runs:
                    runs.update(add_run(rows, work, one, prices, threads))
                bar.update()
    return Result(rows.frame(), {"runs": runs})


def replay_one(
    trace: Trace, arch: Arch, table: EnergyTable, ops: Iterable[str] | None, weights: str, threads: int | None
) -> Result:
    """Replay one trace on one arch: one run."""
    rows = Rows()
    runs = add_run(rows, Workload(trace, ops, weights), arch, table, threads)
    return Result(rows.frame(), {"runs": runs})


def add_run(
    rows: Rows, work: Workload, arch: Arch, table: EnergyTable, threads: int | None = None, units: bool = True
) -> dict[str, dict[str, Any]]:
    """Replay a workload on an arch: append its rows, and return what to know of the run by its key.

    `units` keeps the busy cycles of every PE or lane, which many runs of a large array would make bulky.
    """
    counted = work.count(arch, threads)
    run = run_key(work.trace, arch, table, work.wanted, work.weights, work.batch)
    totals = rows.add_run((run, work.trace.name, work.tuning, arch.name), counted, arch, table)
    meta = {
        "trace": work.facts,
        "arch": {"name": arch.name, "hash": arch.hash, "kernel": arch.kernel, "source": arch.source},
        "table": {"name": table.name, "hash": table.hash},
        "ops": work.wanted,
        "weights": work.weights,
        "kernels": model_sources(),
        "totals": totals,
        **_unit_cycles(counted, units),
        "environment": environment(),
    }
    return {run: meta}


class Rows:
    """Rows of a result as they come, expanded at the end: a sweep appends millions."""

    def __init__(self) -> None:
        self._ops: list[tuple[Any, ...]] = []
        self._rows_of_op: list[int] = []
        self._names: list[str] = []
        self._counts: list[int] = []
        self._energies: list[NDArray[np.float64]] = []

    def add_run(self, key: Sequence[Any], counted: Sequence[Counted], arch: Arch, table: EnergyTable) -> dict[str, Any]:
        """Append a run, a row for each action of each op and one for its static energy; return its sums."""
        priced = {name: table.price(arch, name) for name in {name for one in counted for name in one.counts.actions}}
        # one watt for one picosecond is one picojoule, so static power is priced per picosecond of latency
        watts = float(arch.static_power.value)
        low, high = (watts if end is None else end for end in (arch.static_power.low, arch.static_power.high))
        prices = np.array([*priced.values(), (watts, low, high)], dtype=np.float64)
        place = {name: index for index, name in enumerate([*priced, STATIC])}
        clock, first_op, first_row = arch.clock_hz, len(self._ops), len(self._names)
        for shape, _, counts in counted:
            figures = _figures(counts, clock)
            self._ops.append((*key, *map(shape.__getitem__, SHAPE), *figures))
            self._rows_of_op.append(len(counts.actions) + 1)
            self._names += [*counts.actions, STATIC]
            self._counts += [*counts.actions.values(), round(figures[LATENCY] * 1e12)]
        skip = len(key) + len(SHAPE)
        sums = (sum(column) for column in list(zip(*self._ops[first_op:], strict=True))[skip:])
        rows = [place[name] for name in self._names[first_row:]]
        energies = np.array(self._counts[first_row:], dtype=np.float64)[:, None] * prices[rows]
        self._energies.append(energies)
        return dict(zip(FIGURES, sums, strict=True)) | dict(zip(ENERGY, energies.sum(axis=0).tolist(), strict=True))

    def frame(self) -> pd.DataFrame:
        """Return all rows."""
        ops = pd.DataFrame(self._ops, columns=[*KEY, *SHAPE_COLUMNS, *FIGURES])
        frame = ops.loc[ops.index.repeat(self._rows_of_op)].reset_index(drop=True)
        split = {name: name.partition(".") for name in set(self._names)}
        frame["component"] = [split[name][0] for name in self._names]
        frame["action"] = [split[name][2] for name in self._names]
        frame["count"] = self._counts
        frame[ENERGY] = np.concatenate([np.empty((0, 3)), *self._energies])
        return frame[COLUMNS]


def _figures(counts: Counts, clock_hz: float) -> tuple[Any, ...]:
    """Figures of an op in the order of `FIGURES`."""
    return (
        counts.macs,
        counts.effectual_macs,
        counts.cycles,
        counts.dense_cycles,
        counts.stall_cycles,
        counts.dense_stall_cycles,
        counts.latency_s(clock_hz),
        counts.dense_latency_s(clock_hz),
        counts.dram_bytes,
    )


def _unit_cycles(counted: Sequence[Counted], units: bool) -> dict[str, Any]:
    """Lost unit-cycles by cause, unit-cycles by op and use, and the busy cycles of each unit."""
    stalls: dict[str, int] = {}
    slots: dict[str, dict[str, int]] = {}
    busy: dict[str, list[int]] = {}
    for _, op, counts in counted:
        if op is None:
            continue
        _add(slots.setdefault(op.name, {}), _slots(counts))
        _add(stalls, {name: int(value) for name, value in counts.stalls.items()})
        if units and counts.unit_busy is not None and op.activation is not None:
            busy[f"{op.name}.{op.layer}"] = [int(value) for value in counts.unit_busy]
    return {"stalls": stalls, "slots": slots, "unit_busy": busy}


def run_key(
    trace: Trace, arch: Arch, table: EnergyTable, ops: list[str] | None, weights: str, batch: int | None = None
) -> str:
    """Content key of a run: the same inputs and the same kernels give the same key."""
    return key_of(trace.hash, arch.hash, table.hash, ops, weights, batch, model_sources())


def _slots(counts: Counts) -> dict[str, int]:
    """Unit-cycles of the compute side by use: busy, and each cause of loss."""
    if counts.unit_busy is not None:
        busy = int(counts.unit_busy.sum())
    else:
        busy = counts.actions.get("mac.compute", 0) + counts.actions.get("mac.gated", 0)
    return {"busy": busy, **{cause: int(lost) for cause, lost in counts.stalls.items() if cause != "dram"}}


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value
