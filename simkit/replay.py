"""The junction: a Trace's ops through an Arch's kernel, priced by an EnergyTable, into a Result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import hwmodels
from hwmodels import Arch, Counts, EnergyTable, Mask, OnesMask, Op, PackedMask
from hwmodels.counts import total

from .errors import InputError
from .provenance import environment, key_of, model_sources
from .result import COLUMNS, Result, concat

if TYPE_CHECKING:
    from traces import OpSpec, Trace

DEFAULT_TABLE = "default_45nm"


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """Open a stored trace (lazily): a local path or any fsspec URL."""
    import traces

    return traces.open_trace(path)


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
    pairs = [(trace, one) for trace in many_traces for one in many_archs]
    bar = tqdm(pairs, desc="replay", unit="run", disable=not progress, leave=False)
    parts = [replay_one(trace, one, prices, ops, weights, threads) for trace, one in bar]
    return concat(parts)


def replay_one(
    trace: Trace, arch: Arch, table: EnergyTable, ops: Iterable[str] | None, weights: str, threads: int | None
) -> Result:
    """Replay one trace on one arch: one run."""
    wanted = sorted(ops) if ops is not None else None
    run = run_key(trace, arch, table, wanted, weights)
    items = list(build_ops(trace, wanted, weights))
    vectors = [] if arch.vector_lanes is None else vector_specs(trace, wanted)
    if not items and not vectors:
        known = sorted({spec.op for spec in trace.ops() if spec.kind == "gemm"})
        raise InputError(f"trace '{trace.name}' has none of the ops {wanted}; it has {', '.join(known)}")
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        counted = list(pool.map(lambda op: _simulate_once(op, arch), items))
    merged = _merge(items, counted)
    tuning = str(trace.attrs.get("tuning", {}).get("name", "") or trace.name)
    key = {"run": run, "trace": trace.name, "tuning": tuning, "arch": arch.name}
    rows = [row for op, counts in merged for row in _rows(key | _shape(op), counts, arch, table)]
    for spec in vectors:
        shape = {"layer": spec.layer, "op": spec.op, "kind": "vector", "m": spec.m, "k": 1, "n": 1, "batch": spec.m}
        counts = hwmodels.simulate_vector(spec.m * spec.repeat, arch)
        rows += _rows({**key, **shape, "repeat": spec.repeat}, counts, arch, table)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return Result(frame, {"runs": {run: _run_meta(trace, arch, table, wanted, weights, merged)}})


def vector_specs(trace: Trace, ops: list[str] | None = None) -> list[OpSpec]:
    """Return the trace's vector ops (norms, softmax, activation, residual)."""
    return [spec for spec in trace.ops() if spec.kind == "vector" and (ops is None or spec.op in ops)]


def _merge(items: Sequence[Op], counted: Sequence[Counts]) -> list[tuple[Op, Counts]]:
    """Join an op that runs at several shapes into one: counts added, the shape that does most of the MACs shown."""
    groups: dict[tuple[int, str], list[tuple[Op, Counts]]] = {}
    for op, counts in zip(items, counted, strict=True):
        groups.setdefault((op.layer, op.name), []).append((op, counts))
    return [
        (max((op for op, _ in parts), key=lambda op: op.macs), total([counts for _, counts in parts]))
        for parts in groups.values()
    ]


def run_key(trace: Trace, arch: Arch, table: EnergyTable, ops: list[str] | None, weights: str) -> str:
    """Content key of a run: the same inputs and the same kernels give the same key."""
    return key_of(trace.hash, arch.hash, table.hash, ops, weights, model_sources())


def build_ops(trace: Trace, ops: list[str] | None = None, weights: str = "recorded") -> Iterable[Op]:
    """Turn a trace's op list into hardware ops with the recorded masks."""
    for spec in trace.ops():
        if spec.kind != "gemm" or (ops is not None and spec.op not in ops):
            continue
        site = trace.sites[spec.input_site] if spec.input_site else None
        output = trace.sites[spec.output_site] if spec.output_site else None
        recorded = site.weight_mask() if site else None
        yield Op(
            name=spec.op,
            layer=spec.layer,
            m=spec.m,
            k=spec.k,
            n=spec.n,
            activation=site.mask() if site else None,
            weight=weight_mask(weights, spec.n, spec.k, recorded) if spec.has_weight else None,
            output=output.mask() if output else None,
            batch=spec.tokens_per_pass,
            repeat=spec.repeat,
            has_weight=spec.has_weight,
        )


def weight_mask(weights: str, n: int, k: int, recorded: Mask | None) -> Mask | None:
    """Choose the weight mask (N, K) of one op; see `replay` for the words.

    Raises
    ------
    InputError
        If the word is unknown or the density is not in (0, 1].
    """
    if weights == "recorded":
        return recorded
    if weights == "dense":
        return OnesMask(n, k)
    kind, _, text = weights.partition(":")
    try:
        density = float(text)
    except ValueError:
        density = 0.0
    if kind != "random" or not 0 < density <= 1:
        raise InputError(f"weights '{weights}' is not known; say recorded, dense, or random:DENSITY (e.g. random:0.5)")
    return PackedMask.bernoulli(n, k, density, seed=n * 1_000_003 + k)


# Dense GEMMs of one shape recur in every layer and trace; masks never go in here, so entries are a few integers.
_DENSE: dict[tuple[Any, ...], Counts] = {}


def _simulate_once(op: Op, arch: Arch) -> Counts:
    dense_weight = isinstance(op.weight, OnesMask)
    if op.activation is not None or op.output is not None or (op.weight is not None and not dense_weight):
        return hwmodels.simulate(op, arch)
    key = (arch.hash, op.m, op.k, op.n, op.batch, op.repeat, op.phase, op.has_weight, dense_weight)
    if key not in _DENSE:
        _DENSE[key] = hwmodels.simulate(op, arch)
    return _DENSE[key]


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


def _rows(key: dict[str, Any], counts: Counts, arch: Arch, table: EnergyTable) -> list[dict[str, Any]]:
    latency = counts.latency_s(arch.clock_hz)
    own = {
        **key,
        "macs": counts.macs,
        "effectual_macs": counts.effectual_macs,
        "cycles": counts.cycles,
        "dense_cycles": counts.dense_cycles,
        "stall_cycles": counts.stall_cycles,
        "dense_stall_cycles": counts.dense_stall_cycles,
        "latency_s": latency,
        "dense_latency_s": counts.dense_latency_s(arch.clock_hz),
        "dram_bytes": counts.dram_bytes,
    }
    rows = []
    for name, count in counts.actions.items():
        component, _, action = name.partition(".")
        price = table.price(arch, name)
        rows.append(own | _energy(component, action, count, price.pj, price.low, price.high))
    # one watt for one picosecond is one picojoule, so static power is priced per picosecond of latency
    static = arch.static_power
    watts = float(static.value)
    low, high = (watts if end is None else end for end in (static.low, static.high))
    rows.append(own | _energy("static", "picosecond", round(latency * 1e12), watts, low, high))
    return rows


def _energy(component: str, action: str, count: int, pj: float, low: float, high: float) -> dict[str, Any]:
    return {
        "component": component,
        "action": action,
        "count": count,
        "energy_pj": count * pj,
        "energy_low_pj": count * low,
        "energy_high_pj": count * high,
    }


def _run_meta(
    trace: Trace,
    arch: Arch,
    table: EnergyTable,
    ops: list[str] | None,
    weights: str,
    merged: list[tuple[Op, Counts]],
) -> dict[str, Any]:
    stalls: dict[str, int] = {}
    slots: dict[str, dict[str, int]] = {}
    busy: dict[str, list[int]] = {}
    for op, counts in merged:
        _add(slots.setdefault(op.name, {}), _slots(counts))
        _add(stalls, {name: int(value) for name, value in counts.stalls.items()})
        if counts.unit_busy is not None and op.activation is not None:
            busy[f"{op.name}.{op.layer}"] = [int(value) for value in counts.unit_busy]
    return {
        "trace": {"name": trace.name, "hash": trace.hash, "tokens": trace.n_tokens, **trace.attrs},
        "arch": {"name": arch.name, "hash": arch.hash, "kernel": arch.kernel, "source": arch.source},
        "table": {"name": table.name, "hash": table.hash},
        "ops": ops,
        "weights": weights,
        "kernels": model_sources(),
        "stalls": stalls,
        "slots": slots,
        "unit_busy": busy,
        "environment": environment(),
    }


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
