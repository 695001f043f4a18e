"""One self-contained HTML page about a result: no network, untrusted names escaped."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .cite import cite
from .errors import InputError
from .report_facts import SUMMARY, arch_rows, layer_table, run_facts, trace_rows, validation_rows
from .result import Result
from .tables import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from traces import Trace

# A table of more rows is cut, with a note: a browser sorts this many at once, and the Parquet file has them all.
MAX_ROWS = 3000
LABELS = {
    "arch": "design",
    "tuning": "tuning",
    "op": "op",
    "layer": "layer",
    "accuracy": "held-out accuracy",
    "density": "density of MACs",
    "speedup": "speed-up over dense (×)",
    "energy_per_token": "energy per token (nJ)",
    "power_w": "power (W)",
    "cycles": "cycles",
    "stall_cycles": "DRAM stall cycles",
    "energy": "energy (µJ)",
    "latency_ms": "latency (ms)",
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
        Adds the density figures.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the result is empty.
    """
    if result.frame.empty:
        raise InputError("the result has no rows; replay at least one trace on one arch")
    page = render(result, title, traces)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(result: Result, title: str, traces: Sequence[Trace]) -> str:
    """Return the page as text. Scripts run by their hash alone, so that no name in the data can run as one."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    scripts = [_template("vendor/plot.min.js"), _template("report.js")]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    # "<" cannot end the element early, and JSON has another spelling for it
    data = json.dumps(_chart_data(result), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.from_string(_template("report.html.j2")).render(
        title=title,
        lead=_lead(result),
        css=Markup(_template("report.css")),
        script_hashes=Markup(" ".join(f"'sha256-{digest}'" for digest in hashes)),
        scripts=[Markup(script) for script in scripts],
        data=Markup(data),
        sections=list(_sections(result, traces)),
    )


def _template(name: str) -> str:
    return resources.files("simkit").joinpath(f"templates/{name}").read_text(encoding="utf-8")


def _lead(result: Result) -> str:
    runs = result.meta["runs"].values()
    names = list(dict.fromkeys(str(run["trace"]["name"]) for run in runs))
    archs = list(dict.fromkeys(str(run["arch"]["name"]) for run in runs))
    return (
        f"{_count(len(names), 'trace')} ({', '.join(names)}) replayed mask by mask on "
        f"{_count(len(archs), 'design')} ({', '.join(archs)}). Speed-up is the latency of the design's own dense "
        "baseline over its latency with the masks, DRAM stalls included."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _sections(result: Result, traces: Sequence[Trace]) -> Iterator[dict[str, Any]]:
    only = _sparse_ops(result)
    tables = [summary_table(result, None, "The whole model" if only else "")]
    if only:
        tables.insert(0, summary_table(result, only, "Down-projections: the GEMMs whose input the tuning made sparse"))
    yield _section("summary", "Summary", tables=tables)
    yield _section("explore", "Explore", charts=_charts(result))
    yield _section("figures", "Figures", figures=list(_figures(result, traces, only)))
    layers = layer_table(result)
    texts = [] if len(layers) <= MAX_ROWS else [f"The first {MAX_ROWS:,} of {len(layers):,} rows."]
    columns = {name: name.replace("_", " ") for name in layers}
    columns |= {"m": "M", "k": "K", "n": "N", "speedup": "speed-up", "latency_ms": "latency (ms)"}
    columns |= {"energy_uj": "energy (µJ)", "arch": "design"}
    yield _section("layers", "Layer by layer", texts=texts, tables=[table_of(layers.head(MAX_ROWS), columns)])
    yield _section("traces", "Models and traces", tables=[table_of(*trace_rows(result))])
    yield _section("designs", "Designs and how far they were validated", **_designs(result))
    yield _section("provenance", "Provenance", facts=run_facts(result))
    yield _section("sources", "Sources", code=cite(result))


def _section(name: str, title: str, **parts: Any) -> dict[str, Any]:
    return {"id": name, "title": title, "tables": [], "texts": [], **parts}


def _designs(result: Result) -> dict[str, Any]:
    tables = [table_of(*arch_rows(result))]
    checks, columns = validation_rows(result)
    if len(checks):
        tables.append(table_of(checks, columns, "Checks against what others measured or published"))
    text = "Every number in a design has a source; the counts say how many were measured, published, or assumed."
    return {"tables": tables, "texts": [text]}


def _sparse_ops(result: Result) -> str | None:
    ops = set(result.frame["op"])
    return "down" if "down" in ops and len(ops) > 1 else None


def with_accuracy(result: Result, table: pd.DataFrame) -> pd.DataFrame:
    """Add the held-out accuracy that was measured for each run's tuning, with its standard error."""
    from .plots.tradeoff import with_measured

    return with_measured(result, table, ["accuracy", "accuracy_se"])


def table_of(
    frame: pd.DataFrame, columns: dict[str, str], caption: str = "", text: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Shape a table for the template: headings, and cells with their text and their sortable value."""
    kept = {name: title for name, title in columns.items() if name in frame and not frame[name].isna().all()}
    heads = [{"title": title, "number": pd.api.types.is_numeric_dtype(frame[name])} for name, title in kept.items()]
    values = list(frame[list(kept)].itertuples(index=False))
    shown = [[_text(value) for value in row] for row in values] if text is None else text.itertuples(index=False)
    rows = [
        [{"value": value, "text": cell} for value, cell in zip(row, cells, strict=True)]
        for row, cells in zip(values, shown, strict=True)
    ]
    return {"columns": heads, "rows": rows, "caption": caption}


def summary_table(result: Result, ops: str | None, caption: str) -> dict[str, Any]:
    """The runs as papers print them: digits by standard error, ranges in brackets."""
    frame = with_accuracy(result, result.summary(ops))
    names = [name for name in SUMMARY if name in frame and not frame[name].isna().all()]
    made = table(frame, names)
    return table_of(frame, dict(zip(names, made.text.columns, strict=True)), caption, made.text)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.4g}"
    return f"{value:,}"


def _figures(result: Result, traces: Sequence[Trace], only: str | None) -> Iterator[dict[str, str]]:
    from . import plots

    part = "the down-projections" if only else "all ops"
    drawn: list[tuple[str, Callable[[], Axes]]] = []
    if traces:
        drawn.append(("Density of the down-projection's input by layer", lambda: plots.density_by_layer(traces)))
        sparsest = min(traces, key=lambda trace: sum(site.density() for site in trace.sites.values()))
        text = f"Density by layer and token position, {plots.density.tuning_name(sparsest)}"
        drawn.append((text, lambda: plots.density_map(sparsest)))
    drawn += [
        (f"Speed-up of {part} over the design's dense baseline", lambda: plots.speedup_bars(result, ops=only)),
        ("Speed-up in cycles against density, layer by layer", lambda: plots.speedup_density(result)),
        (
            f"Energy per token of {part} by component; whiskers span the energy table's ranges",
            lambda: plots.energy_breakdown(result, ops=only),
        ),
        (f"Where the time of {part} goes", lambda: plots.stall_breakdown(result, ops=only)),
        (f"Accuracy against energy per token of {part}", lambda: plots.accuracy_energy(result, ops=only)),
        ("Roofline: above the line is work that was skipped", lambda: plots.roofline(result)),
    ]
    for text, draw in drawn:
        try:
            yield _figure(draw(), text)
        except InputError:
            continue  # not every result has accuracies, DRAM traffic or archs that are known here


def _figure(ax: Axes, alt: str) -> dict[str, str]:
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from .plots.style import rc

    buffer = io.BytesIO()
    with mpl.rc_context(rc()):
        ax.figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(ax.figure)  # type: ignore[arg-type]
    return {"alt": alt, "svg": base64.b64encode(buffer.getvalue()).decode()}


def _charts(result: Result) -> list[dict[str, Any]]:
    measured = any("accuracy" in run["trace"].get("measurements", {}) for run in result.meta["runs"].values())
    figures = [(name, LABELS[name]) for name in ("energy_per_token", "speedup", "density", "cycles", "power_w")]
    accuracy = [("accuracy", LABELS["accuracy"])] if measured else []
    scopes = (
        [("all", "the whole model")]
        if not _sparse_ops(result)
        else [("down", "down-projections"), ("all", "the whole model")]
    )
    archs = list(dict.fromkeys(result.frame["arch"]))
    layers = layer_table(result)
    ops = sorted(set(layers["op"]), key=lambda op: (op != "down", op))
    metrics = ("density", "speedup", "energy", "cycles", "stall_cycles")
    return [
        {
            "kind": "tradeoff",
            "title": "Trade-off between tunings and designs",
            "hint": "Hover or tap a marker for its figures. A line joins the tunings of one design.",
            "choices": [
                ("x", figures),
                ("y", accuracy + [f for f in figures if f[0] != "energy_per_token"]),
                ("scope", scopes),
            ],
        },
        {
            "kind": "layers",
            "title": "Layer by layer",
            "hint": "Hover or tap a marker for its figures.",
            "choices": [
                ("y", [(name, LABELS[name]) for name in metrics]),
                ("arch", [(name, name) for name in sorted(archs, key=lambda a: _is_dense(result, a))]),
                ("op", [(name, name) for name in ops]),
            ],
        },
    ]


def _is_dense(result: Result, arch: str) -> bool:
    """Whether a design gained nothing: those that did are offered first."""
    rows = result.ops[result.ops["arch"] == arch]
    return bool((rows["cycles"] >= rows["dense_cycles"]).all())


def _chart_data(result: Result) -> dict[str, Any]:
    from .plots.style import PALETTE

    only = _sparse_ops(result)
    runs = []
    for scope, ops in (("down", only), ("all", None)):
        if scope == "down" and not only:
            continue
        table = with_accuracy(result, result.summary(ops))
        table = table.assign(scope=scope, energy_per_token=table["energy_per_token_pj"] / 1e3)
        kept = ["scope", "arch", "tuning", "density", "speedup", "energy_per_token", "power_w", "cycles", "accuracy"]
        runs += _records(table, kept)
    layers = layer_table(result).rename(columns={"energy_uj": "energy"}).head(MAX_ROWS)
    kept = ["arch", "tuning", "layer", "op", "density", "speedup", "energy", "cycles", "stall_cycles"]
    return {"labels": LABELS, "palette": PALETTE[:6], "runs": runs, "layers": _records(layers, kept)}


def _records(table: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows = table[[name for name in columns if name in table]].to_dict("records")
    return [{str(key): _json(value) for key, value in row.items()} for row in rows]


def _json(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
