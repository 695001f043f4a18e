"""Commands of the main pipeline: demo, tune, record, replay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import completion
from .output import emit_json, emit_table
from .verbosity import progress


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (demo, tune, record, replay):
        app.command()(command)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything the demo makes.")] = Path("out/demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Tune a real transformer four ways, record, replay and report."""
    from simkit.demo import run_demo

    rows = run_demo(out, progress=progress())
    if as_json:
        emit_json(rows)
    else:
        _demo_table(rows)


def _demo_table(rows: Sequence[dict[str, Any]]) -> None:
    lines = []
    for row in rows:
        for arch, scopes in row["archs"].items():
            down, model = scopes["down"], scopes["model"]
            lines.append(
                {
                    "model": row["tuning"],
                    "accuracy": f"{row['accuracy']:.3f} ± {row['accuracy_se']:.3f}",
                    "density": f"{row['density']:.3f}",
                    "arch": arch,
                    "cycles": down["cycles"],
                    "speedup": f"{down['speedup']:.2f}",
                    "energy": f"{down['energy_per_token_pj'] / 1e3:,.0f}",
                    "power": f"{down['power_w']:.3g}",
                    "model_speedup": f"{model['speedup']:.2f}",
                    "model_energy": f"{model['energy_per_token_pj'] / 1e3:,.0f}",
                }
            )
    columns = {
        "model": "tuning",
        "accuracy": "accuracy",
        "density": "density",
        "arch": "arch",
        "cycles": "cycles",
        "speedup": "speed-up",
        "energy": "nJ/token",
        "power": "W",
        "model_speedup": "speed-up (model)",
        "model_energy": "nJ/token (model)",
    }
    emit_table(
        lines,
        columns,
        title="Down-projections, whose input the tuning made sparse; the last two columns are the whole model",
    )


def tune(
    model: Annotated[str, typer.Option(help="Packaged, hub or local model.")],
    data: Annotated[str, typer.Option(help="Packaged or hub data set, or a CSV/JSONL/Parquet file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the adapter, its log and measurements.")],
    tuning: Annotated[str, typer.Option(help="Name of a tuning ('simkit ls tunings') or a YAML file.")] = "lora",
    text: Annotated[str | None, typer.Option(help="Text column of a file or hub data set.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column of a file or hub data set.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; the tuning's own by default.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only this many training examples.")] = None,
    task: Annotated[str | None, typer.Option(help="Task; what the model is for by default.")] = None,
    init: Annotated[Path | None, typer.Option(help="Folder of a finished tuning to start from.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Folder of a finished tuning to distil from.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Site pattern for a model whose family is unknown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Tune a model; a stopped run resumes."""
    import traces

    result = traces.tune(
        model=model,
        data=data,
        tuning=tuning,
        out=out,
        text=text,
        label=label,
        seed=seed,
        limit=limit,
        task=task,
        init=init,
        teacher=teacher,
        sites=site,
        progress=progress(),
    )
    if as_json:
        emit_json(result.measurements)
    else:
        rows = [{"what": name, "value": value} for name, value in result.measurements.items()]
        emit_table(rows, {"what": "measured", "value": "value"}, title=f"{result.tuning.name} in {out}")


def record(
    model: Annotated[str, typer.Option(help="Packaged, hub or local model.")],
    data: Annotated[str, typer.Option(help="Packaged or hub data set, or a CSV/JSONL/Parquet file.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Where the trace goes: T.zarr or an fsspec URL.")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of simkit tune, or of the peft library.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Sequences to record; 256 unless --tokens or --seconds is given.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Stop after the sequence that reaches as many tokens.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after as many seconds of forward passes.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Only these: numbers as 0,3,5-7, or a glob over site names.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences in a forward pass.")] = 32,
    max_length: Annotated[
        int, typer.Option(help="Tokens kept of a text, or patches and class token of an image.")
    ] = 64,
    task: Annotated[str | None, typer.Option(help="Which head to load; what the model is for by default.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts, or of paths of images or WAV files.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column of a file or hub data set.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Site pattern for a model whose family is unknown.")] = None,
    new_tokens: Annotated[int, typer.Option(help="Tokens to decode after each prompt, with a KV cache.")] = 0,
    threshold: Annotated[list[float] | None, typer.Option(help="Also record |a| > this; repeat for several.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also record what INT8 leaves non-zero.")] = False,
    values: Annotated[str | None, typer.Option(help="Also keep the values: bf16 or int8.")] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Also keep the zeros of pruned weights.")] = False,
    mlp_inputs: Annotated[bool, typer.Option("--mlp-inputs", help="Also record what enters the MLP blocks.")] = False,
    adapters: Annotated[bool, typer.Option("--adapters", help="Also record which parts of adapters are used.")] = False,
    histogram: Annotated[bool, typer.Option("--histogram", help="Also count magnitudes by powers of two.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU where there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; as loaded by default.")] = None,
    allow_non_finite: Annotated[
        bool, typer.Option("--allow-non-finite", help="Count NaN and infinity as non-zeros in place of stopping.")
    ] = False,
    merge: Annotated[bool, typer.Option(help="Fold adapters into the weights.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print facts of the trace as JSON.")] = False,
) -> None:
    """Record a model's activation masks over held-out data. a stopped run resumes."""
    import traces

    from .trace import print_info

    made = traces.record(
        model=model,
        adapter=adapter,
        data=data,
        out=out,
        limit=limit,
        tokens=tokens,
        seconds=seconds,
        layers=layers,
        batch_size=batch_size,
        max_length=max_length,
        task=task,
        text=text,
        label=label,
        sites=site,
        new_tokens=new_tokens,
        thresholds=threshold or (),
        int8=int8,
        values=values,
        weights=weights,
        mlp_inputs=mlp_inputs,
        adapters=adapters,
        histogram=histogram,
        device=device,
        dtype=dtype,
        allow_non_finite=allow_non_finite,
        merge=merge,
        progress=progress(),
    )
    print_info(made, as_json)


def replay(
    traces: Annotated[list[str], typer.Argument(help="Traces: paths or URLs.")],
    arch: Annotated[
        list[str],
        typer.Option("--arch", "-a", help="Arch name or YAML; repeat for several.", autocompletion=completion.archs),
    ],
    table: Annotated[
        str, typer.Option(help="Energy table ('simkit ls tables').", autocompletion=completion.tables)
    ] = "default_45nm",
    op: Annotated[list[str] | None, typer.Option(help="Only these ops; repeat for several.")] = None,
    weights: Annotated[
        str, typer.Option(help="recorded, dense, or random:DENSITY (synthetic); for designs that skip zero weights.")
    ] = "recorded",
    batch: Annotated[int | None, typer.Option(help="Tokens of one launch: 1 as in decoding.")] = None,
    speculative: Annotated[
        int | None, typer.Option(help="Tokens of a sequence decoded at once; --batch then counts sequences.")
    ] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="Change a field, e.g. lanes=32.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the result as Parquet.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; all cores by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object for each trace, arch, layer and op.")] = False,
) -> None:
    """Replay traces on archs, mask by mask: cycles, joules, watts."""
    import simkit as sk
    from simkit.results.columns import printable, view

    loaded = [sk.load_trace(path) for path in traces]
    archs = [sk.arch(name, **parse_changes(change or [])) for name in arch]
    result = sk.replay(
        loaded,
        archs,
        table=table,
        ops=op or None,
        weights=weights,
        batch=batch,
        speculative=speculative,
        threads=threads,
        progress=progress(),
    )
    if out is not None:
        result.save(out)
    if as_json:
        emit_json(result.ops.to_dict("records"))
    else:
        emit_table(*printable(result.summary(), view("print")))
        for note in dict.fromkeys(note for run in result.meta["runs"].values() for note in run["notes"]):
            typer.echo(f"note: {note}")


def parse_changes(words: list[str]) -> dict[str, object]:
    """Read ``field=value`` words; each field turns the text into its own type."""
    from simkit.errors import InputError

    changes: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise InputError(f"--set {word}: write it as field=value, e.g. --set lanes=32")
        # a figure of nine thousand digits is no number of lanes
        whole = value.strip().lstrip("-").isdigit() and len(value) < 20
        changes[name.strip()] = int(value) if whole else value.strip()
    return changes
