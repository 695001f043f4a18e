"""The cost of tuning: time, energy and memory of a training step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import emit_json, emit_table

COLUMNS = {
    "arch": "arch",
    "step_s": "s / step",
    "step_j": "J / step",
    "backward_time": "backward's time",
    "backward_energy": "backward's energy",
    "tokens_per_s": "tokens / s",
}


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(cost)


def cost(
    model: Annotated[str, typer.Option(help="Packaged, hub or local model.")],
    tuning: Annotated[
        list[str], typer.Option(help="Name of a tuning, YAML file, or folder of a finished one; repeat.")
    ],
    arch: Annotated[list[str] | None, typer.Option("--arch", "-a", help="Arch name or YAML; repeat.")] = None,
    batch: Annotated[int, typer.Option(help="Sequences in a step.")] = 32,
    length: Annotated[int, typer.Option(help="Tokens of each, padding included.")] = 64,
    data: Annotated[str | None, typer.Option(help="Training data, for tunings that choose on it.")] = None,
    task: Annotated[str | None, typer.Option(help="Task; what the model is for by default.")] = None,
    masks: Annotated[str | None, typer.Option(help="Trace whose middle batch is the step, zeros and all.")] = None,
    weights: Annotated[str, typer.Option(help="recorded, dense, random:DENSITY ..., as for replay.")] = "recorded",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the result as Parquet.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object for each tuning and arch.")] = False,
) -> None:
    """Estimate time, energy and memory of a training step."""
    import simkit as sk
    from simkit.results.result import concat
    from simkit.results.runs import tell_apart

    costs = [
        sk.tuning_cost(
            model,
            one,
            arch or ["h100_sxm"],
            batch=batch,
            length=length,
            data=data,
            task=task,
            masks=masks,
            weights=weights,
        )
        for one in tuning
    ]
    if out is not None:
        concat(found.result for found in costs).save(out)
    rows = []
    names = tell_apart([one.step.name.removesuffix("-step") for one in costs], [[one.step.hash[:6]] for one in costs])
    for name, found in zip(names, costs, strict=True):
        memory = {f"{part}_bytes": size for part, size in found.memory.items()}
        macs = {f"{part}_macs": count for part, count in found.macs.items()}
        facts = {"tuning": name, **found.step.attrs["step"]}
        trained = {"trainable_parameters": found.step.attrs["trainable_parameters"]}
        rows += [facts | trained | row | macs | memory for row in found.rows()]
    if as_json:
        emit_json(rows)
        return
    emit_table(rows, {"tuning": "tuning"} | COLUMNS, title=f"one training step of {model}")
    work = {"tuning": "tuning", "trainable_parameters": "trained", **{f"{p}_macs": f"{p} MACs" for p in found.macs}}
    sizes = {f"{name}_bytes": f"{name} bytes" for name in found.memory}
    once = [row for place, row in enumerate(rows) if row["tuning"] not in {r["tuning"] for r in rows[:place]}]
    emit_table(once, work, title="work and memory")
    emit_table(once, {"tuning": "tuning"} | sizes)
