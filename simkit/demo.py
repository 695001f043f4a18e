"""The demo: tune, record, replay and compare on real weights and real text.

Every stage leaves a finished artefact or nothing; run again, the demo goes on at the first one that is missing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import whole
from .results.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from traces import Trace

MODEL = "minilm-l6"
DATA = "vader-movie"
TUNINGS = ("lora", "relu-lora", "relu-lora-density-low", "relu-lora-density-high")
ARCHS = ("systolic_32x32", "cnvlutin", "tensordash", "eie", "h100_sxm")
SEQUENCES = 256
# EIE and the other two-sided designs would gain from pruned weights too; the demo's weights are dense, and it says so.
WEIGHTS = "dense"

Row = dict[str, Any]


def run_demo(out: Path, progress: bool = True) -> list[Row]:
    """Run all stages into `out`.

    Parameters
    ----------
    out : Path
        Folder for tunings, traces, result, figures, report.
    progress : bool
        Say on stderr what is being done.

    Returns
    -------
    list of dict
        The rows of ``summary.json``: one for each tuning.
    """
    import traces

    start = time.monotonic()
    _say(f"demo: {MODEL} on {DATA}, into {out}", progress)
    recorded: list[Trace] = []
    for index, name in enumerate(TUNINGS, 1):
        _say(f"[{index}/{len(TUNINGS)}] {name}", progress)
        adapter = out / "tunings" / name
        traces.tune(model=MODEL, data=DATA, tuning=name, out=adapter, progress=progress)
        path = out / "traces" / f"{name}.zarr"
        trace = traces.record(model=MODEL, adapter=adapter, data=DATA, limit=SEQUENCES, out=path, progress=progress)
        recorded.append(trace)
    result = _replay(recorded, out, progress)
    rows = summarise(result)
    _write_json(out / "summary.json", rows)
    _say("figures and report", progress)
    _figures(result, recorded, out / "figures")
    from .report.page import report

    page = report(result, out / "report.html", title=f"{MODEL} tuned on {DATA}, replayed", traces=recorded)
    _say(f"done in {time.monotonic() - start:.0f} s; open {page}", progress)
    return rows


def _replay(recorded: Sequence[Trace], out: Path, progress: bool) -> Result:
    from .explore.sweep import sweep

    _say(f"replay on {', '.join(ARCHS)}", progress)
    result = sweep(recorded, ARCHS, weights=WEIGHTS, out=out / "runs", progress=progress)
    result.save(out / "result.parquet")
    return result


def summarise(result: Result) -> list[Row]:
    """Build the table: one object a tuning, with accuracy, density and one object an arch.

    Cycles, speed-ups, energies and watts come twice: of the down-projections, whose input the tuning made sparse,
    and of the whole model with its vector ops, where Amdahl's law bites.
    """
    scopes = {"down": result.summary("down"), "model": result.summary()}
    rows: dict[str, Row] = {}
    for scope, table in scopes.items():
        for line in table.to_dict("records"):
            meta = result.meta["runs"][line["run"]]
            row = rows.setdefault(line["tuning"], _head(line["tuning"], meta))
            arch = row["archs"].setdefault(line["arch"], {"run": line["run"], "hash": meta["arch"]["hash"]})
            arch[scope] = {
                "cycles": int(line["cycles"]),
                "dense_cycles": int(line["dense_cycles"]),
                "stall_cycles": int(line["stall_cycles"]),
                "speedup": line["speedup"],
                "energy_per_token_pj": line["energy_per_token_pj"],
                "energy_per_token_low_pj": line["energy_low_per_token_pj"],
                "energy_per_token_high_pj": line["energy_high_per_token_pj"],
                "power_w": line["power_w"],
                "latency_s": line["latency_s"],
            }
            if scope == "down":
                row["density"] = line["density"]
    return list(rows.values())


def _head(tuning: str, meta: dict[str, Any]) -> Row:
    trace, measured = meta["trace"], meta["trace"]["measurements"]
    return {
        "model": MODEL,
        "tuning": tuning,
        "accuracy": measured["accuracy"],
        "accuracy_se": measured["accuracy_se"],
        "density": None,
        "tokens": trace["tokens"],
        "archs": {},
        "provenance": {
            "trace_hash": trace["hash"],
            "table_hash": meta["table"]["hash"],
            "kernels": meta["kernels"],
            "weights": meta["weights"],
            "recorded": trace["provenance"],
            "replayed": meta["environment"],
        },
    }


def _figures(result: Result, recorded: Sequence[Trace], folder: Path) -> None:
    from . import plots
    from .plots.catalogue import save

    runs = sorted(result.meta["runs"])
    drawn: dict[str, Callable[[], Axes]] = {
        "density": lambda: plots.density_by_layer(recorded),
        "speedup": lambda: plots.speedup_bars(result, ops="down"),
        "energy": lambda: plots.energy_breakdown(result, ops="down"),
        "tradeoff": lambda: plots.accuracy_energy(result, ops="down"),
    }
    for name, draw in drawn.items():
        for ending in ("png", "pdf"):
            save(draw(), folder / f"{name}.{ending}", keywords=runs)


def _write_json(path: Path, rows: Sequence[Row]) -> None:
    with whole(path) as partial:
        partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _say(text: str, shown: bool) -> None:
    if not shown:
        return
    sys.stderr.write(f"== {text}\n")
    sys.stderr.flush()
