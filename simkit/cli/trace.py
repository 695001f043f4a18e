"""``simkit trace``: look at, check and convert stored traces."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .out import emit_json, emit_table

app = typer.Typer(help="Inspect, verify, import and export traces.", no_args_is_help=True, rich_markup_mode=None)


def trace_info(trace: Any) -> dict[str, Any]:
    """Facts of a trace as one object."""
    return {
        "name": trace.name,
        "path": str(trace.path),
        "hash": trace.hash,
        "tokens": trace.n_tokens,
        **trace.attrs,
        "sites": [
            {"site": s.name, "layer": s.layer, "op": s.op, "k": s.k, "n": s.n, "density": s.density()}
            for s in trace.sites.values()
        ],
    }


def print_info(trace: Any, as_json: bool) -> None:
    """Print facts of a trace."""
    facts = trace_info(trace)
    if as_json:
        emit_json(facts)
        return
    columns = {"site": "site", "layer": "layer", "op": "op", "k": "K", "n": "N", "density": "density"}
    emit_table(facts["sites"], columns, title=f"{trace.name}: {trace.n_tokens:,} real tokens, {trace.hash[:16]}")


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="Trace.")],
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Show a trace's sites, densities and origin."""
    import simkit as sk

    print_info(sk.load_trace(path), as_json)


@app.command(name="import")
def import_(
    masks: Annotated[str, typer.Argument(help="NPZ: arrays NAME (M, K), and NAME_weight (N, K) for weights.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Trace to write.")],
    n: Annotated[int | None, typer.Option("--n", help="Outputs N, where no weight mask says it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Make a trace of anybody's masks."""
    import traces

    print_info(traces.import_masks(masks, out, n=n), as_json)


@app.command()
def verify(
    path: Annotated[str, typer.Argument(help="Trace.")],
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Read every chunk against its checksum; exit code 3 names a damaged one."""
    import simkit as sk

    trace = sk.load_trace(path)
    trace.verify()
    if as_json:
        emit_json({"name": trace.name, "hash": trace.hash, "intact": True})
    else:
        typer.echo(f"{path}: intact, {trace.hash}")
