"""What the report's tables say: traces, designs, layers, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from ..results.result import Result

SUMMARY = (
    "tuning",
    "arch",
    "accuracy",
    "density",
    "cycles",
    "stall_cycles",
    "speedup",
    "energy_per_token_pj",
    "power_w",
)
TRACES = {
    "name": "trace",
    "model": "model",
    "data": "data",
    "tuning": "tuning",
    "method": "method",
    "accuracy": "accuracy",
    "accuracy_se": "± SE",
    "density": "density",
    "tokens": "real tokens",
    "sequences": "sequences",
    "synthetic": "masks",
    "train_seconds": "tuning time (s)",
    "trainable_parameters": "trainable parameters",
    "hash": "hash",
}
ARCHS = {
    "name": "design",
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
    "name": "design",
    "checks": "published figures",
    "exact": "exact",
    "within": "within band",
    "off": "off",
    "worst": "largest error (%)",
    "measured": "on measurements by others",
    "note": "note",
}

Table = tuple[pd.DataFrame, dict[str, str]]


def trace_rows(result: Result) -> Table:
    """One row for each trace, and its headings."""
    rows = {}
    for meta in result.meta["runs"].values():
        trace = meta["trace"]
        measured = trace.get("measurements", {})
        tuning = trace.get("tuning", {})
        rows[trace["hash"]] = {
            "name": trace["name"],
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
    from ..plots._data import arch_of

    rows = {}
    for meta in result.meta["runs"].values():
        own = meta["arch"]
        if own["name"] in rows:
            continue
        row: dict[str, Any] = {key: own[key] for key in ("name", "source", "hash")}
        try:
            arch = arch_of(meta)
        except ValueError:  # of another version, or a file that is not here
            rows[own["name"]] = row | {"title": "not known to this installation"}
            continue
        counted = pd.Series(list(statuses(arch.model_dump()))).value_counts()
        rows[own["name"]] = row | {
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

    names = dict.fromkeys(str(meta["arch"]["name"]).partition("[")[0] for meta in result.meta["runs"].values())
    rows = [{"name": name, **design_status(name)} for name in names]
    return pd.DataFrame(rows), CHECKS


def layer_table(result: Result) -> pd.DataFrame:
    """One row for each tuning, design, layer and op."""
    ops = result.ops
    return pd.DataFrame(
        {
            "tuning": ops["tuning"],
            "arch": ops["arch"],
            "layer": ops["layer"],
            "op": ops["op"],
            "m": ops["m"],
            "k": ops["k"],
            "n": ops["n"],
            "density": ops["effectual_macs"] / ops["macs"],
            "cycles": ops["cycles"],
            "dense_cycles": ops["dense_cycles"],
            "stall_cycles": ops["stall_cycles"],
            "speedup": ops["dense_latency_s"] / ops["latency_s"],
            "latency_ms": ops["latency_s"] * 1e3,
            "energy_uj": ops["energy_pj"] / 1e6,
        }
    )


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
