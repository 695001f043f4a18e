"""The junction: a Trace's ops through an Arch's kernel, priced by an EnergyTable, into a Result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import hwmodels
from hwmodels import Arch, Counts, EnergyTable
from hwmodels.energy import Price

from .errors import InputError
from .provenance import environment, key_of, model_sources
from .result import COLUMNS, ENERGY, Result
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
            work = Workload(trace, ops, weights)
            for one in many_archs:
                if run_key(trace, one, prices, work.wanted, weights) not in runs:
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
    run = run_key(work.trace, arch, table, work.wanted, work.weights)
    key = {"run": run, "trace": work.trace.name, "tuning": work.tuning, "arch": arch.name}
    first = len(rows)
    priced = {name: table.price(arch, name) for name in {name for one in counted for name in one.counts.actions}}
    for one in counted:
        rows.add(key | one.shape, one.counts, arch, priced)
    meta = {
        "trace": work.facts,
        "arch": {"name": arch.name, "hash": arch.hash, "kernel": arch.kernel, "source": arch.source},
        "table": {"name": table.name, "hash": table.hash},
        "ops": work.wanted,
        "weights": work.weights,
        "kernels": model_sources(),
        "totals": rows.totals(first, counted, arch),
        **_unit_cycles(counted, units),
        "environment": environment(),
    }
    return {run: meta}


class Rows:
    """Rows of a result, column by column: a sweep appends millions."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}

    def __len__(self) -> int:
        return len(self.columns["run"])

    def frame(self) -> pd.DataFrame:
        """Return all rows."""
        return pd.DataFrame(self.columns, columns=COLUMNS)

    def add(self, key: dict[str, Any], counts: Counts, arch: Arch, priced: dict[str, Price]) -> None:
        """Append one op: a row for each of its actions, and one for static energy."""
        for name, count in counts.actions.items():
            component, _, action = name.partition(".")
            self._energy(component, action, count, *priced[name])
        # one watt for one picosecond is one picojoule, so static power is priced per picosecond of latency
        latency = counts.latency_s(arch.clock_hz)
        watts = float(arch.static_power.value)
        low, high = (watts if end is None else end for end in (arch.static_power.low, arch.static_power.high))
        self._energy("static", "picosecond", round(latency * 1e12), watts, low, high)
        times = len(counts.actions) + 1
        for name, value in (key | _figures(counts, arch)).items():
            self.columns[name] += [value] * times

    def _energy(self, component: str, action: str, count: int, pj: float, low: float, high: float) -> None:
        columns = self.columns
        columns["component"].append(component)
        columns["action"].append(action)
        columns["count"].append(count)
        columns["energy_pj"].append(count * pj)
        columns["energy_low_pj"].append(count * low)
        columns["energy_high_pj"].append(count * high)

    def totals(self, first: int, counted: Sequence[Counted], arch: Arch) -> dict[str, Any]:
        """Sum the ops counted, and the energies of all rows from `first` on."""
        figures = [_figures(one.counts, arch) for one in counted]
        sums = {name: sum(one[name] for one in figures) for name in figures[0]}
        return sums | {name: sum(self.columns[name][first:]) for name in ENERGY}


def _figures(counts: Counts, arch: Arch) -> dict[str, Any]:
    return {
        "macs": counts.macs,
        "effectual_macs": counts.effectual_macs,
        "cycles": counts.cycles,
        "dense_cycles": counts.dense_cycles,
        "stall_cycles": counts.stall_cycles,
        "dense_stall_cycles": counts.dense_stall_cycles,
        "latency_s": counts.latency_s(arch.clock_hz),
        "dense_latency_s": counts.dense_latency_s(arch.clock_hz),
        "dram_bytes": counts.dram_bytes,
    }


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


def run_key(trace: Trace, arch: Arch, table: EnergyTable, ops: list[str] | None, weights: str) -> str:
    """Content key of a run: the same inputs and the same kernels give the same key."""
    return key_of(trace.hash, arch.hash, table.hash, ops, weights, model_sources())


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
