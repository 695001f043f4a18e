"""The report's interactive figures: what each offers to choose, and the tables they and the reader look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import InputError
from ..results.columns import COLUMNS, maximised
from ..results.result import Result
from ..results.runs import arch_of, labels_of_traces
from .facts import layer_table

if TYPE_CHECKING:
    from traces import Trace

# More rows than this are cut, with a note: a browser sorts this many at once, and the Parquet file has them all.
MAX_ROWS = 3000
# positions of a density map are gathered into so many columns
BINS = 48
LABELS = {
    **{name: column.axis()[0] for name, column in COLUMNS.items()},
    "op": "op",
    "layer": "layer",
    "part": "part",
    "position": "token position",
    "density": "density of MACs",
    "energy_per_token": COLUMNS["energy_per_token_pj"].axis()[0],
    "energy_low": COLUMNS["energy_low_per_token_pj"].axis()[0],
    "energy_high": COLUMNS["energy_high_per_token_pj"].axis()[0],
    # counts as they are: a browser shortens its ticks
    **{name: COLUMNS[name].title for name in ("cycles", "dense_cycles", "stall_cycles")},
    "energy": COLUMNS["energy_pj"].axis()[0],
    "latency_ms": COLUMNS["latency_s"].axis()[0],
    "share": "share of the time (%)",
    "intensity": "dense MACs per DRAM byte",
    "rate": "dense MACs per second",
    "nonzeros": "share of non-zeros",
    "m": "M",
    "k": "K",
    "n": "N",
}
LAYER_COLUMNS = (
    "tuning", "arch", "layer", "op", "m", "k", "n", "density", "cycles", "dense_cycles", "stall_cycles", "speedup",
    "latency_ms", "energy",
)  # fmt: skip
RUN_COLUMNS = (
    "scope", "arch", "tuning", "density", "speedup", "energy_per_token", "energy_low", "energy_high", "power_w",
    "cycles", "accuracy",
)  # fmt: skip
Choice = tuple[str, list[tuple[str, str]]]


def sparse_ops(result: Result) -> str | None:
    """Name the ops that the tuning made sparse, where there are others beside them."""
    ops = set(result.frame["op"])
    return "down" if "down" in ops and len(ops) > 1 else None


def charts(result: Result, traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """List the figures in order: kind, title, a hint, and what can be chosen."""
    only = sparse_ops(result)
    whole = ("all", "the whole model")
    scope: Choice = ("scope", [("down", "down-projections"), whole] if only else [whole])
    measured = any("accuracy" in run["trace"].get("measurements", {}) for run in result.meta["runs"].values())
    figures = [(name, LABELS[name]) for name in ("energy_per_token", "speedup", "density", "cycles", "power_w")]
    accuracy = [("accuracy", LABELS["accuracy"])] if measured else []
    table = result.ops
    archs = [(name, name) for name in sorted(dict.fromkeys(table["arch"]), key=lambda arch: _is_dense(table, arch))]
    ops = [(op, op) for op in sorted(set(table["op"]), key=lambda op: (op != "down", op))]
    metrics = [(name, LABELS[name]) for name in ("density", "speedup", "energy", "cycles", "stall_cycles")]
    found = [
        _chart(
            "speedup", "Speed-up over each design's own dense baseline",
            "Latencies, DRAM stalls included. Hover or tap a bar for its figures.", scope,
        ),
        _chart(
            "energy", "Energy per token, and where it goes",
            "Whiskers span the ranges of the energy table; static energy is leakage over the latency.", scope,
        ),
        _chart(
            "tradeoff", "Trade-off between tunings and designs",
            "A line joins the tunings of one design; the dashed steps are the Pareto front of all.",
            ("x", figures), ("y", accuracy + [f for f in figures if f[0] != "energy_per_token"]), scope,
        ),
        _chart("time", "Where the time goes", "Lost unit-cycles by cause, and waiting for DRAM.", scope),
        _chart(
            "layers", "Layer by layer", "Hover or tap a marker for its figures.",
            ("y", metrics), ("arch", archs), ("op", ops),
        ),
        _chart(
            "roofline", "Roofline",
            "The line is what the design does on dense GEMMs; a marker above it is work that was skipped.",
            ("arch", archs),
        ),
    ]  # fmt: skip
    if traces:
        sparsest = sorted(traces, key=lambda trace: sum(site.density() for site in trace.sites.values()))
        names = [(name, name) for name in labels_of_traces(sparsest)]
        hint = "Share of non-zeros at the input of the down-projections, averaged over the recorded sequences."
        found.append(_chart("map", "Density by layer and token position", hint, ("tuning", names)))
    return found


def _chart(kind: str, title: str, hint: str, *choices: Choice) -> dict[str, Any]:
    return {"kind": kind, "title": title, "hint": hint, "choices": [c for c in choices if c[1]]}


def _is_dense(ops: pd.DataFrame, arch: str) -> bool:
    """Whether an arch gained nothing: those that did are offered first."""
    rows = ops[ops["arch"] == arch]
    return bool((rows["cycles"] >= rows["dense_cycles"]).all())


def chart_data(result: Result, traces: Sequence[Trace]) -> dict[str, Any]:
    """Tables behind the figures, columns first; words are stored once."""
    from ..plots.style import PALETTE

    runs, energy, time = [], [], []
    for scope, ops in (("down", sparse_ops(result)), ("all", None)):
        if scope == "down" and ops is None:
            continue
        runs.append(_runs(result, ops).assign(scope=scope))
        energy.append(_energy(result, ops).assign(scope=scope))
        time.append(_time(result, ops).assign(scope=scope))
    layers = layer_table(result).rename(columns={"energy_uj": "energy"}).head(MAX_ROWS)
    roofs, points = _rooflines(result)
    return {
        "labels": LABELS,
        "palette": PALETTE,
        "more": maximised(),
        "roofs": roofs,
        "runs": _packed(pd.concat(runs), RUN_COLUMNS),
        "energy": _packed(pd.concat(energy), ("scope", "arch", "tuning", "part", "energy_per_token")),
        "time": _packed(pd.concat(time), ("scope", "arch", "tuning", "part", "share")),
        "layers": _packed(layers, LAYER_COLUMNS),
        "roofline": _packed(points, ("arch", "tuning", "op", "intensity", "rate")),
        "map": _packed(_positions(traces), ("tuning", "layer", "position", "nonzeros")),
    }


def _runs(result: Result, ops: str | None) -> pd.DataFrame:
    table = result.summary(ops, measured=True)
    names = {
        "energy_per_token": "energy_per_token_pj",
        "energy_low": "energy_low_per_token_pj",
        "energy_high": "energy_high_per_token_pj",
    }
    return table.assign(**{name: table[column] / 1e3 for name, column in names.items()})


def _energy(result: Result, ops: str | None) -> pd.DataFrame:
    from ..plots.energy import per_token

    stack, _ = per_token(result, ops)
    return _long(stack / 1e3, "energy_per_token")


def _time(result: Result, ops: str | None) -> pd.DataFrame:
    from ..plots.speedup import stall_shares

    try:
        shares = stall_shares(result, ops)
    except InputError:
        return pd.DataFrame(columns=["arch", "tuning", "part", "share"])  # estimates of energy alone
    return _long(shares * 100, "share")


def _long(stack: pd.DataFrame, value: str) -> pd.DataFrame:
    """Turn rows (arch, tuning) by parts into one row each; the order of the parts stays."""
    table = stack.reset_index().melt(id_vars=["arch", "tuning"], var_name="part", value_name=value)
    return table[table[value] > 0]


def _rooflines(result: Result) -> tuple[dict[str, dict[str, float]], pd.DataFrame]:
    """Peak and bandwidth of each design that is known here, and its ops."""
    from ..plots.roofline import op_points, peak_macs_per_s

    roofs = {}
    for run, name in result.labels()["arch"].items():
        if name in roofs:
            continue
        try:
            arch = arch_of(result.meta["runs"][run])
            peak = peak_macs_per_s(arch)
        except InputError:
            continue  # of another version, or one whose dense GEMM cannot be asked for
        roofs[name] = {"peak": _plain(peak), "bandwidth": _plain(float(arch.memory.bandwidth.value))}
    return roofs, op_points(result)


def _positions(traces: Sequence[Trace]) -> pd.DataFrame:
    from ..plots.density import position_densities

    rows = []
    for trace, label in zip(traces, labels_of_traces(traces), strict=True):
        try:
            edges, levels, grid, _ = position_densities(trace, "down", BINS)
        except InputError:
            continue  # a trace without that site
        for row, level in enumerate(levels):
            for column, value in enumerate(grid[row]):
                if np.isfinite(value):
                    rows.append((label, level, int(edges[column]), float(value)))
    return pd.DataFrame(rows, columns=["tuning", "layer", "position", "nonzeros"])


def _packed(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    for name in columns:
        if name not in table or (len(table) and table[name].isna().all()):
            continue
        values = table[name].tolist()
        if any(isinstance(value, str) for value in values):
            words = list(dict.fromkeys(map(str, values)))
            place = {word: index for index, word in enumerate(words)}
            packed[name] = {"words": words, "at": [place[str(value)] for value in values]}
        else:
            packed[name] = [_plain(value) for value in values]
    return packed


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
