"""One self-contained HTML page about a result: no network, untrusted names escaped."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .cite import cite
from .errors import InputError
from .result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from traces import Trace

SUMMARY = {
    "tuning": "tuning",
    "accuracy": "accuracy",
    "arch": "arch",
    "density": "density of MACs",
    "cycles": "cycles",
    "dense_cycles": "dense cycles",
    "stall_cycles": "stall cycles",
    "speedup": "speed-up",
    "energy_per_token_pj": "pJ per token",
    "energy_low_per_token_pj": "low",
    "energy_high_per_token_pj": "high",
    "power_w": "W",
}
LAYERS = {
    "tuning": "tuning",
    "arch": "arch",
    "layer": "layer",
    "op": "op",
    "m": "M",
    "k": "K",
    "n": "N",
    "density": "density",
    "cycles": "cycles",
    "dense_cycles": "dense cycles",
    "latency_s": "latency (s)",
    "energy_pj": "energy (pJ)",
}


def write_report(
    result: Result, out: str | os.PathLike[str], *, title: str = "Replay report", traces: Sequence[Trace] = ()
) -> Path:
    """Write the page.

    Parameters
    ----------
    result : Result
        Replays.
    out : path
        HTML file; written whole or not at all.
    title : str
        Heading.
    traces : sequence of Trace, optional
        Adds the density figure.

    Raises
    ------
    InputError
        If the result is empty.
    """
    from jinja2 import Environment

    if result.frame.empty:
        raise InputError("the result has no rows; replay at least one trace on one arch")
    text = resources.files("simkit").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    page = template.render(title=title, lead=_lead(result), sections=list(_sections(result, traces)))
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _lead(result: Result) -> str:
    runs = result.meta["runs"].values()
    names = list(dict.fromkeys(str(run["trace"]["name"]) for run in runs))
    archs = list(dict.fromkeys(str(run["arch"]["name"]) for run in runs))
    return (
        f"{len(names)} traces ({', '.join(names)}) replayed mask by mask on {len(archs)} designs ({', '.join(archs)}). "
        "Speed-up is latency of the design's own dense baseline over latency with the masks, DRAM stalls included."
    )


def _sections(result: Result, traces: Sequence[Trace]) -> Any:
    down = result.summary("down") if "down" in set(result.frame["op"]) else None
    yield _section("summary", "Whole model", table=table_of(with_accuracy(result, result.summary()), SUMMARY))
    if down is not None and len(set(result.frame["op"])) > 1:
        text = "The GEMMs whose input the tuning made sparse."
        yield _section("down", "Down-projections", text=text, table=table_of(with_accuracy(result, down), SUMMARY))
    yield _section("figures", "Figures", figures=list(_figures(result, traces)))
    layers = result.ops.assign(density=lambda ops: ops["effectual_macs"] / ops["macs"])
    yield _section("layers", "Layer by layer", table=table_of(layers, LAYERS))
    yield _section("provenance", "Provenance", facts=_facts(result))
    yield _section("sources", "Sources", code=cite(result))


def _section(name: str, title: str, **parts: Any) -> dict[str, Any]:
    return {"id": name, "title": title, **parts}


def with_accuracy(result: Result, table: pd.DataFrame) -> pd.DataFrame:
    """Add the held-out accuracy that was measured for each run's tuning, where there is one."""
    runs = result.meta["runs"]
    found = [runs[run]["trace"].get("measurements", {}).get("accuracy", float("nan")) for run in table["run"]]
    return table.assign(accuracy=found)


def table_of(frame: pd.DataFrame, columns: dict[str, str]) -> dict[str, Any]:
    """Shape a table for the template: headings, and cells with their text and their sortable value."""
    kept = {name: title for name, title in columns.items() if name in frame and not frame[name].isna().all()}
    heads = [{"title": title, "number": pd.api.types.is_numeric_dtype(frame[name])} for name, title in kept.items()]
    rows = [
        [{"value": value, "text": _text(value)} for value in line] for line in frame[list(kept)].itertuples(index=False)
    ]
    return {"columns": heads, "rows": rows}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.4g}"
    return f"{value:,}"


def _figures(result: Result, traces: Sequence[Trace]) -> Any:
    from . import plots

    ops = set(result.frame["op"])
    only = "down" if "down" in ops else None
    part = "the down-projections" if only else "the model"
    if traces:
        yield _figure(plots.density_by_layer(traces), "Density of the down-projection's input by layer")
    yield _figure(plots.speedup_bars(result, ops=only), f"Speed-up of {part} over the design's dense baseline")
    yield _figure(
        plots.energy_breakdown(result, ops=only), f"Energy per token of {part} by component; whiskers: ranges"
    )
    try:
        yield _figure(plots.accuracy_energy(result, ops=only), f"Accuracy against energy per token of {part}")
    except InputError:
        return


def _figure(ax: Axes, alt: str) -> dict[str, str]:
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(ax.figure)  # type: ignore[arg-type]
    return {"alt": alt, "svg": base64.b64encode(buffer.getvalue()).decode()}


def _facts(result: Result) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for run, meta in result.meta["runs"].items():
        trace, arch, table = meta["trace"], meta["arch"], meta["table"]
        facts.append(
            (
                f"run {run}",
                f"trace {trace['name']} {str(trace['hash'])[:16]}, arch {arch['name']} {arch['hash']}, "
                f"table {table['name']} {table['hash']}, kernels {meta['kernels']}",
            )
        )
    first = next(iter(result.meta["runs"].values()))["environment"]
    facts += [(name, str(version)) for name, version in first["versions"].items()]
    facts += [(name, str(first[name])) for name in ("python", "platform", "cpu", "git")]
    return facts
