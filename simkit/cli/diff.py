"""``simkit diff``: two results side by side."""

from __future__ import annotations

from typing import Annotated, Any

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
    from simkit.results.diff import diff as compare
    from simkit.results.result import load_result

    found = compare(load_result(a), load_result(b), op or None)
    rows = [{str(key): value for key, value in row.items()} for row in found.to_dict("records")]
    if as_json:
        emit_json(rows)
        return
    told = [_told(row) for row in rows]
    emit_table(told, {"trace": "trace", "arch": "arch", "quantity": "quantity", "a": "a", "b": "b", "ratio": "b / a"})
    if unpaired := found.attrs["unpaired"]:
        more = f" and {len(unpaired) - 3:,} more" if len(unpaired) > 3 else ""
        typer.echo(f"simkit: in one of the results alone: {', '.join(unpaired[:3])}{more}", err=True)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Name a quantity and show both values in one unit."""
    import pandas as pd

    from simkit.results.columns import column_of

    column, values = column_of(row["quantity"]), pd.Series([row["a"], row["b"]], dtype=float)
    factor = column.unit_of(values)[1]
    return {**row, "quantity": column.heading(values), "a": row["a"] * factor, "b": row["b"] * factor}
