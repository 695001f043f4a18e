"""One self-contained HTML page about a result: no network, untrusted names escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..engine.inputs import PathLike, as_traces
from ..errors import InputError
from ..files import whole
from ..results.citations import cite
from ..results.columns import view
from ..results.result import Given, Result, as_result
from ..results.tables import table
from .charts import MAX_ROWS, chart_data, charts, sparse_ops
from .facts import arch_rows, run_facts, trace_rows, validation_rows

if TYPE_CHECKING:
    from traces import Trace


def report(
    result: Given,
    out: str | os.PathLike[str] = "report.html",
    *,
    title: str = "Replay report",
    traces: Trace | PathLike | Iterable[Trace | PathLike] = (),
) -> Path:
    """Write one self-contained HTML page about a result.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays.
    out : path
        HTML file; written whole or not at all.
    title : str
        Heading.
    traces : path, Trace, or iterable of them, optional
        Adds the map of density over layers and token positions.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the result is empty.
    StorageError
        If the file cannot be written.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", "cnvlutin", ops="down")
    >>> sk.report(result, "page.html", title="One design").name  # doctest: +SKIP
    'page.html'
    """
    opened = as_result(result)
    if opened.frame.empty:
        raise InputError("the result has no rows; replay at least one trace on one arch")
    page = render(opened, title, [] if traces == () else as_traces(traces))
    with whole(out) as partial:
        partial.write_text(page, encoding="utf-8")
    return Path(out)


def render(result: Result, title: str, traces: Sequence[Trace]) -> str:
    """Return the page as text. Scripts run by their hash alone, so that no name in the data can run as one."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    scripts = [_template("vendor/plot.min.js"), _template("report.js")]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    # "<" cannot end the element early, and JSON has another spelling for it
    data = json.dumps(chart_data(result, traces), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
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
    return resources.files("simkit").joinpath(f"report/templates/{name}").read_text(encoding="utf-8")


def _lead(result: Result) -> str:
    traces = {str(result.meta["runs"][run]["trace"]["hash"]): label for run, label in result.labels()["trace"].items()}
    names, archs = list(traces.values()), list(dict.fromkeys(result.labels()["arch"]))
    return (
        f"{_count(len(names), 'trace')} ({', '.join(names)}) replayed mask by mask on "
        f"{_count(len(archs), 'design')} ({', '.join(archs)}). Speed-up is the latency of the design's own dense "
        "baseline over its latency with the masks, DRAM stalls included."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _sections(result: Result, traces: Sequence[Trace]) -> Iterator[dict[str, Any]]:
    only = sparse_ops(result)
    tables = [summary_table(result, None, "The whole model" if only else "")]
    if only:
        tables.insert(0, summary_table(result, only, "Down-projections: the GEMMs whose input the tuning made sparse"))
    yield _section("summary", "Summary", tables=tables)
    yield _section("figures", "Figures", charts=charts(result, traces))
    count = len(result.ops)
    texts = [] if count <= MAX_ROWS else [f"The first {MAX_ROWS:,} of {count:,} rows."]
    yield _section("layers", "Layer by layer", texts=texts, data="layers")
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
    frame = result.summary(ops, measured=True)
    names = [name for name in view("report") if name in frame and not frame[name].isna().all()]
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
