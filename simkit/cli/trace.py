"""``simkit trace``: look at, check and convert stored traces."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .output import emit_json, emit_table

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
    kind = "synthetic, " * bool(facts.get("synthetic"))
    title = f"{trace.name}: {kind}{trace.n_tokens:,} real tokens, {trace.hash[:16]}"
    emit_table(facts["sites"], columns, title=title)


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
    masks: Annotated[
        str,
        typer.Argument(
            help="NPZ (NumPy or SciPy sparse), NPY, PT, SAFETENSORS or CSV of rows (M, K), or a folder of NPY and CSV "
            "(DNNsim's act-*, wgt-*)."
        ),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Trace to write.")],
    n: Annotated[int | None, typer.Option("--n", help="Outputs N, where no weight mask says it.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Only these arrays; repeat for several.")] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether line 1 of a CSV names columns.")
    ] = None,
    index: Annotated[
        bool | None, typer.Option("--index/--no-index", help="Whether column 1 of a CSV numbers or names rows.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Import masks from another tool as a trace."""
    import traces

    made = traces.import_masks(masks, out, n=n, sites=site or None, header=header, index=index)
    print_info(made, as_json)


@app.command()
def verify(
    path: Annotated[str, typer.Argument(help="Trace.")],
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Read every chunk against its checksum. Exit code 3 names a damaged one."""
    import simkit as sk

    trace = sk.load_trace(path)
    trace.verify()
    if as_json:
        emit_json({"name": trace.name, "hash": trace.hash, "intact": True})
    else:
        typer.echo(f"{path}: intact, {trace.hash}")


@app.command(name="slice")
def slice_(
    path: Annotated[str, typer.Argument(help="Trace.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Trace to write.")],
    sequences: Annotated[int | None, typer.Option(help="How many sequences; all that follow by default.")] = None,
    first: Annotated[int, typer.Option(help="The first of them.")] = 0,
    site: Annotated[list[str] | None, typer.Option(help="Only these sites; repeat for several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Cut some sequences or sites out of a trace."""
    import simkit as sk
    import traces

    cut = traces.slice_trace(sk.load_trace(path), out, sequences=sequences, first=first, sites=site or None)
    print_info(cut, as_json)


@app.command()
def merge(
    paths: Annotated[list[str], typer.Argument(help="Traces of the same sites, in order.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Trace to write.")],
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Join traces of the same model, one after the other."""
    import simkit as sk
    import traces

    print_info(traces.merge_traces([sk.load_trace(path) for path in paths], out), as_json)


@app.command()
def export(
    path: Annotated[str, typer.Argument(help="Trace.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="NPZ file, or folder for the files of other formats.")],
    form: Annotated[str, typer.Option("--format", help="npz, npy, csv, scalesim (sizes), sparseloop (lossy).")] = "npz",
    padding: Annotated[bool, typer.Option("--padding", help="Padding tokens too.")] = False,
) -> None:
    """Write a trace for another tool."""
    import simkit as sk
    import traces

    for made in traces.export_trace(sk.load_trace(path), out, format=form, real_only=not padding):
        typer.echo(made)


@app.command()
def synthesise(
    path: Annotated[str, typer.Argument(help="Trace whose statistics are matched.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Trace to write; it is marked synthetic.")],
    density: Annotated[float | None, typer.Option(help="Another mean density, for what-if studies.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Draw a synthetic trace with the statistics of a real one. Densities of neurons, token skew, correlation."""
    import simkit as sk
    import traces

    print_info(traces.synthesise(sk.load_trace(path), out, density=density, seed=seed), as_json)


@app.command()
def stats(
    path: Annotated[str, typer.Argument(help="Trace.")],
    as_json: Annotated[bool, typer.Option("--json", help="One object a site.")] = False,
) -> None:
    """Show unions, overlap, entropy and hot neurons of every site. Unions are over batches, overlap between tokens."""
    import simkit as sk
    from traces.transform.statistics import summarise

    rows = []
    for name, site in sk.load_trace(path).sites.items():
        facts = asdict(summarise(site.mask()))
        unions = facts.pop("union_density")
        rows.append({"site": name, **facts, **{f"union_{batch}": value for batch, value in unions.items()}})
    if as_json:
        emit_json(rows)
    else:
        emit_table(rows, {key: key.replace("_", " ") for key in rows[0]})
