"""``simkit compare``: tuning methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import emit_json, emit_table

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(help="Compare tuning methods.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Compare tuning methods."""


@app.command()
def methods(
    model: Annotated[str, typer.Option(help="Packaged, hub or local model.")] = "minilm-l6",
    data: Annotated[str | None, typer.Option(help="Data set; the named set's own by default.")] = None,
    tuning: Annotated[list[str] | None, typer.Option(help="Name or YAML file; repeat for several.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each tuning.")] = 3,
    samples: Annotated[
        int | None, typer.Option(help="Training rows for every tuning alike, one epoch; the named set's by default.")
    ] = None,
    test_samples: Annotated[
        int | None, typer.Option(help="Held-out rows for the accuracy; the named set's number by default.")
    ] = None,
    arch: Annotated[list[str] | None, typer.Option("--arch", "-a", help="Designs; repeat for several.")] = None,
    sequences: Annotated[int, typer.Option(help="Held-out sequences that are replayed.")] = 64,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of all runs, table and figures; out/methods/MODEL.")
    ] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Show the results that come with the package.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object each tuning.")] = False,
) -> None:
    """Tune, record and replay a set of methods over seeds. A stopped comparison resumes."""
    from simkit.explore import methods

    folder = methods.methods_folder(model, out)
    if stored:
        rows = methods.stored_methods(model)
    else:
        rows = methods.compare(
            model,
            data,
            tuning,
            seeds=seeds,
            archs=arch or methods.ARCHS,
            samples=samples,
            test_samples=test_samples,
            sequences=sequences,
            out=folder,
        )
        settings = {"seeds": seeds, "samples": samples, "test_samples": test_samples, "sequences": sequences}
        methods.save_methods(rows, folder / f"methods_{Path(model).name}.parquet", settings)
    objects = methods.aggregate(rows)
    _files(rows, objects, folder if not stored else None)
    if as_json:
        emit_json(objects)
    else:
        emit_table(_lines(objects), _columns(objects), title=_title(objects))


def _files(rows: pd.DataFrame, objects: list[dict[str, Any]], out: Path | None) -> None:
    """Write the figures and the table of a comparison that was run."""
    if out is None:
        return
    from simkit import plots
    from simkit.explore import methods
    from simkit.plots.catalogue import save
    from simkit.results import tables

    table = methods.flat(objects)
    figures = {"density": None} | {f"energy-{arch}": arch for arch in table["arch"].unique()}
    for name, arch in figures.items():
        for ending in ("png", "pdf"):
            drawn = plots.methods_front(table, arch=arch)
            save(drawn, out / f"methods-{name}.{ending}", keywords=sorted(set(rows["trace_hash"])))
    printed = tables.methods_table(table)
    (out / "methods.tex").write_text(printed.to_latex(), encoding="utf-8")
    (out / "methods.md").write_text(printed.to_markdown(), encoding="utf-8")
    typer.echo(f"figures and tables: {out}/methods-*.png, .pdf, methods.tex, methods.md", err=True)


def _title(objects: list[dict[str, Any]]) -> str:
    first = objects[0]
    return (
        f"{first['model']} on {first['data']}: mean over seeds ± standard error (binomial with one seed); x and pJ "
        "ratio are of the whole model, against the untuned one run dense on the same design"
    )


def _columns(objects: list[dict[str, Any]]) -> dict[str, str]:
    score = ("perplexity",) if "perplexity" in objects[0] else ()
    columns = {name: name for name in ("tuning", "seeds", *score, "accuracy", "density", "trainable")} | {"train": "s"}
    for arch in objects[0]["archs"]:
        columns |= {f"{arch}.speedup": f"{arch} x", f"{arch}.energy": "pJ ratio"}
    return columns


def _lines(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = []
    for item in objects:
        line = {
            "tuning": item["tuning"],
            "seeds": item["seeds"],
            "accuracy": f"{item['accuracy']:.3f} ± {item['accuracy_se']:.3f}",
            "density": f"{item['density']:.3f}",
            "trainable": item["trainable_parameters"],
            "train": f"{item['train_seconds']:.0f}",
        }
        if "perplexity" in item:
            line["perplexity"] = f"{item['perplexity']:.1f}"
        for arch, values in item["archs"].items():
            line |= {f"{arch}.speedup": f"{values['speedup']:.2f}", f"{arch}.energy": f"{values['energy_ratio']:.2f}"}
        lines.append(line)
    return lines
