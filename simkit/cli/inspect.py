"""Commands that inspect: ls, show, plot, report, doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from . import completion
from .listing import SHOWN, catalogue
from .output import emit_json, emit_table


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (ls, show, plot, report, doctor):
        app.command()(command)


def ls(
    kind: Annotated[
        str,
        typer.Argument(help="archs, tunings, models, datasets, tables or figures.", autocompletion=completion.kinds),
    ] = "archs",
    as_json: Annotated[bool, typer.Option("--json", help="One object each.")] = False,
) -> None:
    """List what there is."""
    rows = catalogue(kind)
    if as_json:
        emit_json(rows)
    else:
        emit_table(rows, {key: key for key in rows[0]}, title=kind)


def show(
    kind: Annotated[
        str,
        typer.Argument(
            help="arch, tuning, model, dataset, table, or mapping of an arch.", autocompletion=completion.kind
        ),
    ],
    name: Annotated[str, typer.Argument(help="Its name, or a YAML path for an arch.", autocompletion=completion.names)],
    trace: Annotated[str | None, typer.Argument(help="For a mapping: whose ops.")] = None,
    op: Annotated[str | None, typer.Option("--op", help="For a mapping: M,K,N of one dense op instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Show one thing whole, every number with its source and status.

    An arch is shown with the area, power and prices that its structure gives, beside those it states.
    """
    import hwmodels
    import simkit as sk
    import traces
    from hwmodels.errors import nearest
    from simkit.errors import InputError

    kind = kind.removesuffix("s")
    if kind == "mapping":
        _show_mapping(name, trace, op, as_json)
        return
    if trace is not None or op is not None:
        raise InputError(f"a trace and --op go with 'simkit show mapping', not with '{kind}'")
    if kind == "arch":
        from hwmodels.costs.report import given_and_derived

        shown = sk.arch(name)
        facts = shown.model_dump(mode="json") | {"sides": shown.sides, "derived": given_and_derived(shown)}
    elif kind == "table":
        facts = hwmodels.load_table(name).model_dump(mode="json")
    elif kind in ("tuning", "model", "dataset"):
        facts = traces.describe(kind, name)
    else:
        raise InputError(f"cannot show '{kind}'" + nearest(kind, SHOWN))
    if as_json:
        emit_json(facts)
        return
    if kind == "arch" and facts["vector_lanes"] is None:
        facts["vector_lanes"] = "none stated: vector ops are left out of replays"
    heading = "  ".join(str(facts.get(key, "")) for key in ("name", "title") if facts.get(key))
    typer.echo(heading)
    if facts.get("description"):
        typer.echo(facts["description"])
    derived = facts.pop("derived", None) if kind == "arch" else None
    rows = _prices(facts) if kind == "table" else list(_fields(facts))
    names = dict.fromkeys(name for row in rows for name in row)
    emit_table(rows, {name: name for name in names})
    if derived is not None:
        _show_derived(derived)


def _show_derived(derived: dict[str, Any]) -> None:
    """Given beside derived figures; then parts, and what each source says of the arch's MAC."""
    if derived["why_not"]:
        typer.echo(f"no derived costs: {derived['why_not']}")
        return
    compared = ("figure", "given", "derived", "error")
    for title, rows in (("Given and derived", derived["totals"]), ("Price of an action, pJ", derived["prices"])):
        emit_table(
            [{name: _short(row[name], name) for name in compared} for row in rows], _as_is(compared), title=title
        )
    parts = tuple(derived["parts"][0])
    emit_table(
        [{name: _short(row[name], name) for name in parts} for row in derived["parts"]], _as_is(parts), title="Parts"
    )
    sources = ("source", "pj", "area_um2", "status")
    rows = [{name: _short(row[name], name) for name in sources} for row in derived["mac"]]
    emit_table(rows, _as_is(sources), title="Integer MAC of the activations' width by source")
    for warning in derived["warnings"]:
        typer.echo(f"warning: {warning}")


def _as_is(names: tuple[str, ...]) -> dict[str, str]:
    return {name: name.replace("_", " ") for name in names}


def _short(value: Any, name: str) -> str:
    if value is None:
        return ""
    if name == "error":
        return f"{value:+.0%}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_mapping(name: str, trace: str | None, op: str | None, as_json: bool) -> None:
    import simkit as sk
    from simkit.engine import workload
    from simkit.errors import InputError

    if (trace is None) == (op is None):
        raise InputError("show mapping needs a trace or --op M,K,N, one of the two; e.g. --op 512,1536,384")
    arch = sk.arch(name)
    if op is not None:
        found = [workload.explain_shape(arch, op)]
    else:
        found = workload.Workload(sk.load_trace(str(trace))).explain(arch)
    if as_json:
        emit_json(found[0] if op is not None else found)
        return
    lines = []
    for one in found:
        tile, cycles = one["mapping"]["tile"], one["cycles"]
        moved = {f"{row['operand']} (byte)": f"{row['bytes']:,.0f}" for row in one["traffic"]}
        lines.append(
            {
                "op": f"{one['op']['name']}.{one['layer']}" if "layer" in one else one["op"]["name"],
                "M,K,N": ",".join(str(one["op"][side]) for side in "mkn"),
                "tile": ",".join(str(size) for size in tile.values()),
                "order": one["mapping"]["order"],
                "stays": " ".join(one["mapping"]["stays"]),
                **moved,
                "stall": f"{cycles['stall']:,}",
                "binds": cycles["binds"],
            }
        )
    emit_table(lines, {key: key for key in lines[0]}, title=f"mappings on {arch.name}")


def _prices(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of an energy table, one each row."""
    if table["extends"]:
        typer.echo(f"extends {', '.join(table['extends'])}")
    lines = []
    for name, row in table["rows"].items():
        figure = row["energy"]
        origin = {key: figure[key] for key in ("status", "source", "note")}
        node = f"{row['node_nm']:g}" if row["node_nm"] else "off chip"
        span = _span(figure, lambda end: f"{end:g}")
        lines.append(
            {"row": name, "pJ": f"{figure['value']:g}", "range": span, "per": row["per"], "node (nm)": node, **origin}
        )
    return lines


def _span(figure: dict[str, Any], written: Callable[[Any], str]) -> str:
    ends = [figure.get(end) for end in ("low", "high")]
    return "" if ends == [None, None] else " .. ".join("" if end is None else written(end) for end in ends)


def _fields(tree: dict[str, Any], prefix: str = "") -> Iterator[dict[str, str]]:
    """Lines of anything else, one each field; figures with their units."""
    from hwmodels.arch import with_unit

    for key, value in tree.items():
        if key in ("name", "title", "description") and not prefix:
            continue
        if isinstance(value, dict) and {"value", "source", "status"} <= value.keys():
            written = partial(with_unit, prefix + key)
            figure = {"value": written(value["value"]), "range": _span(value, written)}
            yield {"field": prefix + key, **figure, **{name: value[name] for name in ("status", "source", "note")}}
        elif prefix == "actions.":
            rows = " + ".join(f"{times:g} {row}" for row, times in value["rows"].items())
            yield {"field": prefix + key, "value": rows, "note": value["note"]}
        elif isinstance(value, dict) and value:
            yield from _fields(value, f"{prefix}{key}.")
        elif key == "levels" and value:
            for level in value:
                yield from _fields(level, f"{prefix}{key}.{level['name']}.")
        elif value not in (None, "", [], {}):
            yield {"field": prefix + key, "value": str(value)}


def plot(
    figure: Annotated[
        str,
        typer.Argument(help="speedup, energy ...: 'simkit ls figures'.", autocompletion=completion.figures),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG, PDF or SVG.")],
    inputs: Annotated[list[str] | None, typer.Argument(help="Results (Parquet), traces or a table.")] = None,
    style: Annotated[str | None, typer.Option(help="ieee, acm or slides.", autocompletion=completion.styles)] = None,
    op: Annotated[list[str] | None, typer.Option(help="Only these ops; repeat for several.")] = None,
    arch: Annotated[str | None, typer.Option("--arch", "-a", help="For utilisation: whose units.")] = None,
    layer: Annotated[int | None, typer.Option(help="For coactivation: which layer.")] = None,
    x: Annotated[str | None, typer.Option(help="For pareto: a column.")] = None,
    y: Annotated[str | None, typer.Option(help="For pareto: a column.")] = None,
) -> None:
    """Draw a figure into a file."""
    from simkit.plots.catalogue import draw_to_file

    options = {"arch": arch, "layer": layer, "x": x, "y": y}
    typer.echo(draw_to_file(figure, inputs or [], out, style=style, ops=op or None, options=options))


def report(
    result: Annotated[Path, typer.Argument(help="Result (Parquet).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Heading.")] = "Replay report",
    trace: Annotated[
        list[str] | None, typer.Option("--trace", help="A trace whose density is mapped too; repeat for several.")
    ] = None,
) -> None:
    """Write one self-contained HTML page about a result."""
    import simkit as sk

    typer.echo(sk.report(result, out, title=title, traces=trace or ()))


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False) -> None:
    """Say what this installation has, and what it lacks."""
    from simkit.doctor import examine

    rows = examine()
    if as_json:
        emit_json(rows)
    else:
        emit_table(rows, {"what": "what", "state": "state", "detail": "detail"})
    if any(row["state"] == "broken" for row in rows):
        raise typer.Exit(1)
