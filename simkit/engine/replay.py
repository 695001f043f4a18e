"""Replay: a trace's ops run through an arch's kernel and are priced by an energy table, into a Result."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from hwmodels import Arch, EnergyTable
from hwmodels.costs.pricing import Costs, costs_of
from hwmodels.registry import params_of

from ..provenance import environment, key_of
from ..results.result import COLUMNS, ENERGY, KEY, OP_COLUMNS, SHAPE_COLUMNS, Result, plain_words
from ..results.runs import Ops, arch_facts
from .inputs import PathLike, arch, as_archs, as_table, as_traces, load_trace
from .keys import kernel_sources
from .layout import SHAPE, STATIC, Tally
from .workload import Workload, build_ops, left_out

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

log = logging.getLogger(__name__)
DEFAULT_TABLE = "default_45nm"
# what is quicker than this needs no bar
DELAY_S = 0.5
FIGURES = OP_COLUMNS[len(SHAPE_COLUMNS) :]
RUN_KEY = KEY[:4]


def replay(
    traces: Trace | PathLike | Iterable[Trace | PathLike],
    archs: Arch | PathLike | Iterable[Arch | PathLike],
    *,
    table: str | EnergyTable = DEFAULT_TABLE,
    ops: Ops = None,
    weights: str = "recorded",
    batch: int | None = None,
    speculative: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Result:
    """Replay traces on archs, mask by mask.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        Traces to replay; paths may be fsspec URLs.
    archs : name, path, Arch, or iterable of them
        Archs to replay them on; a path is a YAML file.
    table : str or EnergyTable
        Energy table; counts do not depend on it.
    ops : str or iterable of str, optional
        Only these ops (``"down"``); all GEMMs by default.
    weights : str
        Which weight masks two-sided designs see: ``"recorded"`` (the trace's own), ``"dense"``, or
        ``"random:0.5"`` (an i.i.d. mask of that density: synthetic, for what-if studies).
    batch : int, optional
        Tokens of one launch: 1 as in decoding; the recorded forward passes by default. It decides how often weights
        are fetched, and over how many tokens a GPU's gather takes the union of the masks.
    speculative : int, optional
        Decoding that verifies so many consecutive tokens of a sequence at once. `batch` then counts sequences, and the
        recorded tokens are regrouped: a launch has `speculative` tokens of each of `batch` sequences; 1 is batched
        decoding token by token.
    threads : int, optional
        Kernels release the GIL; all cores by default.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Result
        One run for each trace and arch: cycles, bytes, latencies in s, energies in pJ.

    Raises
    ------
    InputError
        If a name, an op or the kind of weights is unknown, a two-sided arch gets no weight masks, or there is no trace
        or no arch.
    CorruptError
        If a trace is damaged.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "systolic_32x32"], ops="down")
    >>> result.summary().set_index("arch")["speedup"].idxmax()
    'cnvlutin'
    """
    from tqdm.auto import tqdm

    many_traces, many_archs, prices = as_traces(traces), as_archs(archs), as_table(table)
    for one in many_archs:
        # what no kernel takes, or nothing prices, is refused before any mask is read
        params_of(one)
        costs_of(one, prices)
    rows = Rows()
    runs: dict[str, Any] = {}
    with tqdm(
        total=len(many_traces) * len(many_archs), desc="replay", unit="run", disable=not progress, delay=DELAY_S
    ) as bar:
        for trace in many_traces:
            work = Workload(trace, ops, weights, batch, speculative=speculative)
            warn_left_out(trace, many_archs, weights, work.wanted)
            for one in many_archs:
                if run_key(trace, one, prices, work.wanted, weights, batch, speculative) not in runs:
                    runs.update(add_run(rows, work, one, prices, threads))
                bar.update()
    return Result(rows.frame(), {"runs": runs})


def warn_left_out(trace: Trace, archs: Iterable[Arch], weights: str, ops: list[str] | None) -> None:
    """Warn once a design of what it leaves out of a workload."""
    for line in dict.fromkeys(line for one in archs for line in left_out(trace, one, weights, ops)):
        log.warning("%s", line)


def replay_one(trace: Trace, arch: Arch, table: EnergyTable, ops: Ops, weights: str, threads: int | None) -> Result:
    """Replay one trace on one arch: one run."""
    rows = Rows()
    runs = add_run(rows, Workload(trace, ops, weights), arch, table, threads)
    return Result(rows.frame(), {"runs": runs})


def add_run(
    rows: Rows,
    work: Workload,
    arch: Arch,
    table: EnergyTable,
    threads: int | None = None,
    units: bool = True,
    base: Arch | None = None,
) -> dict[str, dict[str, Any]]:
    """Replay a workload on an arch: append its rows, and return what to know of the run by its key.

    `units` keeps the busy cycles of every PE or lane, which many runs of a large array would make bulky. `base` is the
    arch that this one is a variant of, where the caller knows it.
    """
    start = time.perf_counter()
    tally = work.count(arch, threads)
    log.debug("%s on %s: counted in %.3f s", work.trace.name, arch.name, time.perf_counter() - start)
    run = run_key(work.trace, arch, table, work.wanted, work.weights, work.batch, work.speculative)
    costs = costs_of(arch, table, base)
    totals = rows.add_run((run, work.trace.name, work.tuning, arch.name), tally, costs)
    meta = {
        "trace": work.facts,
        "arch": arch_facts(arch, base),
        "table": {"name": table.name, "hash": table.hash},
        "area_mm2": costs.area_mm2,
        "ops": work.wanted,
        "weights": work.weights,
        "batch": work.batch,
        "speculative": work.speculative,
        "kernels": kernel_sources(arch),
        "notes": left_out(work.trace, arch, work.weights, work.wanted),
        "totals": totals,
        **tally.unit_cycles(units),
        "environment": environment(),
    }
    return {run: meta}


class Rows:
    """Rows of a result as they come, in columns, expanded at the end: a sweep appends millions."""

    def __init__(self) -> None:
        self._runs: list[tuple[Sequence[Any], Tally, NDArray[np.float64]]] = []

    def add_run(self, key: Sequence[Any], tally: Tally, costs: Costs) -> dict[str, Any]:
        """Append a run, a row for each action of each op and one for its static energy; return its sums."""
        # one watt for one picosecond is one picojoule, so static power is priced per picosecond of latency
        static = costs.static_w
        prices = np.array([static if name == STATIC else costs.price(name) for name in tally.layout.actions])
        energies = tally.counts[:, None] * prices[tally.layout.action_of_row]
        self._runs.append((key, tally, energies))
        figures = {name: column.sum().item() for name, column in tally.figures.items()}
        return figures | dict(zip(ENERGY, energies.sum(axis=0).tolist(), strict=True))

    def table(self) -> pa.Table:
        """Return all rows as an Arrow table, words as dictionaries: a sweep repeats the same few a million times."""
        tallies = [tally for _, tally, _ in self._runs]
        layouts = [tally.layout for tally in tallies]
        ops = np.repeat(np.arange(sum(len(one.ops) for one in layouts)), _joined(one.rows_of_op for one in layouts))
        run_of_row = np.repeat(np.arange(len(layouts)), [len(one.counts) for one in layouts])
        columns: dict[str, Any] = {}
        for place, name in enumerate(RUN_KEY):
            columns[name] = _words([key[place] for key, _, _ in self._runs], run_of_row)
        for name in SHAPE:
            column = _joined(one.shapes[name] for one in layouts)
            columns[name] = _words(column, ops) if column.dtype == object else column[ops]
        for name in FIGURES:
            columns[name] = _joined(tally.figures[name] for tally in tallies)[ops]
        offsets = np.cumsum([0, *(len(one.actions) for one in layouts)])
        actions = _joined(one.action_of_row + start for one, start in zip(layouts, offsets, strict=False))
        for name, part in (("component", 0), ("action", 2)):
            columns[name] = _words([action.partition(".")[part] for one in layouts for action in one.actions], actions)
        columns["count"] = _joined(tally.counts for tally in tallies)
        energies = np.concatenate([np.empty((0, len(ENERGY))), *(energies for _, _, energies in self._runs)])
        columns |= {name: energies[:, place] for place, name in enumerate(ENERGY)}
        return pa.table({name: columns[name] for name in COLUMNS})

    def frame(self) -> pd.DataFrame:
        """Return all rows as pandas has them."""
        return plain_words(self.table()).to_pandas()


def _joined(columns: Iterable[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype=np.int64), *columns])


def _words(words: Iterable[str], rows: NDArray[np.int64]) -> pa.DictionaryArray:
    """Return ``words[rows]``, each word stored once."""
    place: dict[str, int] = {}
    codes = np.array([place.setdefault(str(word), len(place)) for word in words], dtype=np.int32)
    return pa.DictionaryArray.from_arrays(codes[rows], pa.array(list(place), type=pa.string()))


def run_key(
    trace: Trace,
    arch: Arch,
    table: EnergyTable,
    ops: list[str] | None,
    weights: str,
    batch: int | None = None,
    speculative: int | None = None,
) -> str:
    """Content key of a run: the same inputs and the same kernels give the same key."""
    launch = batch if speculative is None else [batch, speculative]
    return key_of(trace.hash, arch.hash, table.hash, ops, weights, launch, kernel_sources(arch))
