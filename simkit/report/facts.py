"""Tables of the report: traces, archs, layers, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

import hwmodels

from ..results.columns import COLUMNS, derived
from ..results.result import Result
from ..results.runs import arch_of, trace_labels

TRACES = {
    "name": "trace",
    "model": "model",
    "data": "data",
    "tuning": "tuning",
    "method": "method",
    "accuracy": COLUMNS["accuracy"].title,
    "accuracy_se": "± SE",
    "density": COLUMNS["density"].title,
    "tokens": "real tokens",
    "sequences": "sequences",
    "synthetic": "masks",
    "train_seconds": COLUMNS["train_seconds"].heading(),
    "trainable_parameters": COLUMNS["trainable_parameters"].title,
    "hash": "hash",
}
ARCHS = {
    "name": COLUMNS["arch"].title,
    "title": "what it is",
    "clock": "clock (MHz)",
    "node": "node (nm)",
    "bandwidth": "DRAM (GB/s)",
    "measured": "measured",
    "published": "published",
    "assumed": "assumed",
    "source": "source",
    "hash": "hash",
}

CHECKS = {
    "name": COLUMNS["arch"].title,
    "checks": "published figures",
    "exact": "exact",
    "within": "within band",
    "off": "off",
    "worst": "largest error (%)",
    "measured": "on measurements by others",
    "note": "note",
}

LAYERS = (
    "tuning", "arch", "layer", "op", "m", "k", "n", "density", "cycles", "dense_cycles", "stall_cycles", "speedup",
    "latency_ms", "energy_uj",
)  # fmt: skip
UNCHECKED = "no published or measured figure is held against this configuration"
Table = tuple[pd.DataFrame, dict[str, str]]


def trace_rows(result: Result) -> Table:
    """One row for each trace, and its headings."""
    traces = {str(meta["trace"]["hash"]): meta["trace"] for meta in result.meta["runs"].values()}
    names = trace_labels(list(traces.values()), [str(trace["name"]) for trace in traces.values()])
    rows = {}
    for name, trace in zip(names, traces.values(), strict=True):
        measured = trace.get("measurements", {})
        tuning = trace.get("tuning", {})
        rows[trace["hash"]] = {
            "name": name,
            "model": _name(trace.get("model")),
            "data": _name(trace.get("data")),
            "tuning": tuning.get("name"),
            "method": tuning.get("method"),
            "tokens": trace["tokens"],
            "sequences": _plain(_inner(trace.get("data"), "sequences")),
            "synthetic": "synthetic" if trace.get("synthetic") else "recorded",
            "hash": str(trace["hash"])[:16],
            **{
                key: _plain(measured.get(key))
                for key in ("accuracy", "accuracy_se", "density", "train_seconds", "trainable_parameters")
            },
        }
    return pd.DataFrame(list(rows.values())).convert_dtypes(), TRACES


def _name(value: Any) -> str | None:
    if isinstance(value, dict):
        return str(value.get("name", "")) or None
    return None if value is None else str(value)


def _inner(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else None


def arch_rows(result: Result) -> Table:
    """One row for each design: its main figures, and how many of its numbers are measured, published, assumed."""
    rows = {}
    for run, label in result.labels()["arch"].items():
        meta = result.meta["runs"][run]
        if label in rows:
            continue
        row: dict[str, Any] = {"name": label, **{key: meta["arch"][key] for key in ("source", "hash")}}
        try:
            arch = arch_of(meta)
        except ValueError as error:  # of an earlier version
            rows[label] = row | {"title": str(error)}
            continue
        counted = pd.Series(list(statuses(arch.model_dump()))).value_counts()
        rows[label] = row | {
            "title": arch.title,
            "clock": arch.clock_hz / 1e6,
            "node": float(arch.node.value),
            "bandwidth": float(arch.memory.bandwidth.value) / 1e9,
            **{status: int(counted.get(status, 0)) for status in ("measured", "published", "assumed")},
        }
    return pd.DataFrame(list(rows.values())), ARCHS


def statuses(tree: Any) -> Iterator[str]:
    """Yield the status of every figure in a configuration."""
    if isinstance(tree, dict):
        if isinstance(tree.get("status"), str):
            yield tree["status"]
        for value in tree.values():
            yield from statuses(value)


def validation_rows(result: Result) -> Table:
    """How the designs in a result fared against published figures, one row each, and the headings."""
    from .evidence import design_status

    rows: dict[str, dict[str, Any]] = {}
    for run, label in result.labels()["arch"].items():
        kept = result.meta["runs"][run]["arch"]
        name = _checked(kept)
        key = label if name is None else name
        note = "not the configuration that ships under this name" if kept["name"] in hwmodels.list_archs() else ""
        own = {"checks": 0, "exact": 0, "within": 0, "off": 0, "worst": None, "measured": "", "note": note or UNCHECKED}
        rows.setdefault(key, {"name": key, **(own if name is None else design_status(name))})
    return pd.DataFrame(list(rows.values())), CHECKS


def _checked(kept: dict[str, Any]) -> str | None:
    """Name of the arch that ships here whose checks hold for the arch of a run, or for what it is a variant of."""
    whole = str(kept["name"])
    known = hwmodels.list_archs()
    if whole in known:
        return whole if "base" not in kept or hwmodels.load_arch(whole).hash == kept["hash"] else None
    origin = whole.partition("[")[0]
    if "base" not in kept:
        return origin if origin in known else None
    base = hwmodels.Arch.model_validate(kept["base"])
    return origin if origin in known and hwmodels.load_arch(origin).hash == base.hash else None


def layer_table(result: Result) -> pd.DataFrame:
    """One row for each run, layer and op: tuning, arch, shape, and the figures of `simkit.results.columns`."""
    tokens = {run: meta["trace"]["tokens"] for run, meta in result.meta["runs"].items()}
    ops = result.ops
    table = derived(ops.assign(tokens=ops["run"].map(tokens)))
    table = table.assign(latency_ms=table["latency_s"] * 1e3, energy_uj=table["energy_pj"] / 1e6)
    return table[list(LAYERS)]


def run_facts(result: Result) -> list[tuple[str, str]]:
    """Hashes of every run, then versions and machine."""
    facts: list[tuple[str, str]] = []
    for run, meta in result.meta["runs"].items():
        trace, arch, table = meta["trace"], meta["arch"], meta["table"]
        text = (
            f"trace {trace['name']} {str(trace['hash'])[:16]}, arch {arch['name']} {arch['hash']}, "
            f"table {table['name']} {table['hash']}, kernels {meta['kernels']}, weights {meta['weights']}"
        )
        facts.append((f"run {run}", text))
    first = next(iter(result.meta["runs"].values()))["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    git = first.get("git") or {}
    commit = f"{git['commit']}{' (modified)' if git.get('modified') else ''}" if git.get("commit") else "not from git"
    return [*facts, ("packages", versions), ("Python", str(first["python"])), ("source", commit)] + [
        (name, str(first[name])) for name in ("platform", "cpu")
    ]
