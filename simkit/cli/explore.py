"""Commands that explore designs: sweep, search, timeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import completion
from .output import emit_json, emit_table, plain
from .verbosity import progress

# more points than this want a yes
MANY = 100_000
SHOWN = 20
POINT = {"arch": "arch", "trace": "trace", "table": "table", "weights": "weights"}
Spec = Annotated[Path, typer.Argument(help="YAML spec.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for all results; out/<spec> by default.")]
Json = Annotated[bool, typer.Option("--json", help="One event a line: start, point, done.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (sweep, search, timeline):
        app.command()(command)


def sweep(
    spec: Spec,
    out: Out = None,
    processes: Annotated[int | None, typer.Option(help="Worker processes; 0 for none.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="dask.distributed: tcp://HOST:PORT or tls://HOST:PORT.")] = None,
    tls_ca: Annotated[str | None, typer.Option(help="Certificate authority of a tls:// scheduler (PEM).")] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Our certificate (PEM).")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Our key (PEM).")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="Fix a field, e.g. lanes=32.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be done, and how long it takes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=f"Go ahead with more than {MANY:,} points.")] = False,
    as_json: Json = False,
) -> None:
    """Replay traces on every point of a design space. Run again, it resumes."""
    from simkit.explore.cluster import Cluster
    from simkit.explore.grid import plan_of
    from simkit.explore.spec import load_spec
    from simkit.explore.sweep import run_plan, write_points

    from .pipeline import parse_changes

    loaded = load_spec(spec)
    fixed = {name: [value] for name, value in parse_changes(change or []).items()}
    changed = loaded.model_copy(update={"fields": {**loaded.fields, **fixed}})
    plan = plan_of(changed, most=None if yes or dry_run else MANY)
    if dry_run:
        _dry_run(plan, processes, as_json)
        return
    folder = out or Path("out") / spec.stem
    where = Cluster(scheduler, tls_ca, tls_cert, tls_key) if scheduler else None
    done = run_plan(
        plan,
        folder / "parts",
        progress=progress(),
        processes=processes,
        scheduler=where,
        on_event=_print_event if as_json else None,
    )
    table = done.table()
    stored = write_points(table, folder / "points.parquet")
    if not as_json:
        _print_points(done)
        typer.echo(f"{_points(len(done.runs))}, {done.computed:,} computed in {done.seconds:.1f} s; all in {stored}")
    if done.failed:
        typer.echo(f"simkit: {_points(len(done.failed))} failed: {done.failed[0]['reason']}", err=True)
        raise typer.Exit(1)


def _print_event(event: dict[str, Any]) -> None:
    typer.echo(json.dumps(event, default=plain))


def _dry_run(plan: Any, processes: int | None, as_json: bool) -> None:
    from itertools import islice

    from simkit.explore.estimate import estimate
    from simkit.explore.sweep import default_processes

    count = default_processes(plan.count(), processes)
    expected = estimate(plan, count)
    if as_json:
        for point in plan.points():
            _print_event({"event": "planned", **plan.facts(point)})
        _print_event({"event": "estimate", "processes": count, **expected})
        return
    rows = [{**facts, **facts["fields"]} for facts in map(plan.facts, islice(plan.points(), SHOWN))]
    names = dict.fromkeys(name for row in rows for name in row["fields"])
    more = f", the first {SHOWN}" if expected["points"] > SHOWN else ""
    columns = {**_telling(POINT, rows), **{name: name for name in names}}
    emit_table(rows, columns, title=f"{_points(expected['points'])}{more}")
    typer.echo(
        f"about {_duration(expected['seconds'])} on {count or 'this one'} process{'es' if count > 1 else ''}: "
        f"{_points(expected['points'])} of {expected['counts']:,} distinct counts"
    )


def _telling(columns: dict[str, str], rows: list[dict[str, Any]]) -> dict[str, str]:
    """Leave out columns that say the same in every row."""
    return {key: name for key, name in columns.items() if len({row.get(key) for row in rows}) > 1 or key == "arch"}


def _points(count: int) -> str:
    return f"{count:,} point{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _print_points(done: Any) -> None:
    """Print all points where they are few, otherwise those with the lowest energy-delay product."""
    from simkit.results.columns import printable, view

    table = done.table()
    title = _points(len(table))
    if len(table) > SHOWN and "energy_delay_js" in table:
        table = table.nsmallest(SHOWN, "energy_delay_js")
        title += f"; the {SHOWN} of lowest energy-delay product"
    given = {run: facts["point"]["fields"] for run, facts in done.parts.runs.items()}
    given |= {facts["run"]: facts["fields"] for facts in done.failed}
    rows = [{**row, **given[row["run"]]} for row in table.head(SHOWN).to_dict("records")]
    names = dict.fromkeys(name for row in rows for name in given[row["run"]])
    kept = [name for name in view("points") if name not in POINT and name in table and table[name].notna().any()]
    shown, headings = printable(table.head(SHOWN), kept)
    rows = [{**line, **row, **{name: line[name] for name in kept}} for line, row in zip(shown, rows, strict=True)]
    reasons = {"reason": "failed because"} if any(row.get("reason") for row in rows) else {}
    columns = {**_telling(POINT, rows), **{name: name for name in names}, **headings, **reasons}
    emit_table(rows, columns, title=title)


def search(
    spec: Spec,
    out: Out = None,
    trials: Annotated[int | None, typer.Option(help="Finished trials to reach; the spec's by default.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that search at once; more may be started by hand.")] = 1,
    storage: Annotated[str | None, typer.Option(help="Database URL; sqlite in the folder by default.")] = None,
    helper: Annotated[int, typer.Option(hidden=True)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the Pareto front as JSON.")] = False,
) -> None:
    """Look for the Pareto front of a design space with Optuna. Run again, it resumes."""
    from simkit.explore.search import SearchSpec, run_search, write_front
    from simkit.explore.spec import load_spec
    from simkit.results.columns import printable

    loaded = load_spec(spec, SearchSpec)
    folder = out or Path("out") / spec.stem
    found = run_search(
        loaded,
        folder,
        trials=trials,
        workers=workers,
        storage=storage,
        progress=progress(),
        spec_path=spec,
        helper=helper,
    )
    if helper:
        return
    files = write_front(found, folder)
    front = found.table[found.table["front"]]
    if as_json:
        emit_json(front.to_dict("records"))
        return
    rows, headings = printable(front, found.objectives)
    columns = {name: name for name in ["number", "arch", "trace", *found.fields]} | headings
    emit_table(rows, columns, title=f"Pareto front of {len(found.table):,} trials")
    typer.echo("; ".join(str(path) for path in files))


def timeline(
    trace: Annotated[str, typer.Argument(help="Trace.")],
    arch: Annotated[str, typer.Option("--arch", "-a", help="Arch name or YAML.", autocompletion=completion.archs)],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file; open it at ui.perfetto.dev.")],
    op: Annotated[str | None, typer.Option(help="Op; the first with a recorded mask by default.")] = None,
    layer: Annotated[int, typer.Option(help="Layer.")] = 0,
    tokens: Annotated[int, typer.Option(help="Draw only so many tokens.")] = 256,
    change: Annotated[list[str] | None, typer.Option("--set", help="Change a field, e.g. lanes=32.")] = None,
    weights: Annotated[str, typer.Option(help="recorded, dense, or random:DENSITY (synthetic).")] = "recorded",
) -> None:
    """Draw what PEs or SMs, stalls and DRAM do over time in a layer."""
    import simkit as sk
    from simkit.engine.replay import warn_left_out

    from .pipeline import parse_changes

    loaded, recorded = sk.arch(arch, **parse_changes(change or [])), sk.load_trace(trace)
    warn_left_out(recorded, [loaded], weights, [op] if op else None)
    typer.echo(sk.timeline(recorded, loaded, out, op=op, layer=layer, tokens=tokens, weights=weights))
