"""``simkit diff``: two results side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import emit_json, emit_table


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(diff)


def diff(
    a: Annotated[str, typer.Argument(help="Result (Parquet) before.")],
    b: Annotated[str, typer.Argument(help="Result (Parquet) after.")],
    op: Annotated[list[str] | None, typer.Option(help="Only these ops; repeat for several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object a pair of runs and quantity.")] = False,
) -> None:
    """Say what a change did: two results, ratios, stalls by cause."""
    from simkit.results.diff import QUANTITIES
    from simkit.results.diff import diff as compare
    from simkit.results.result import load_result

    found = compare(load_result(a), load_result(b), op or None)
    rows = [{str(key): value for key, value in row.items()} for row in found.to_dict("records")]
    if as_json:
        emit_json(rows)
        return
    told = [{**row, "quantity": QUANTITIES.get(row["quantity"], row["quantity"].replace("_", " "))} for row in rows]
    emit_table(told, {"trace": "trace", "arch": "design", "quantity": "quantity", "a": "a", "b": "b", "ratio": "b / a"})
