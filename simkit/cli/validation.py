"""Commands that validate against outside evidence: validate, measure, synth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .output import emit_json, emit_table

GATES = {
    "design": "design",
    "density": "density",
    "cells": "cells",
    "area_um2": "µm²",
    "critical_path_ns": "critical path, ns",
    "internal_pj": "internal, pJ/cycle",
    "switching_pj": "switching",
    "clock_pj": "clock",
    "leakage_pj": "leakage",
    "mac_slot_pj": "pJ/MAC slot",
    "netlist_equal": "equals its model",
}


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (validate, measure, synth):
        app.command()(command)


def validate(
    published: Annotated[bool, typer.Option("--published", help="Cycle models against published figures.")] = False,
    rtl: Annotated[bool, typer.Option("--rtl", help="Cycle models against RTL in Verilator.")] = False,
    reference: Annotated[
        Path | None,
        typer.Option(help="GPU models against a folder of CSV or Parquet files: gemm_*, energy_*, sparse_mlp_*."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="'cpu': measure here, then score.")] = None,
    bundle: Annotated[str | None, typer.Option(help="GPU models against a stored bundle of this device.")] = None,
    arch: Annotated[list[str] | None, typer.Option("--arch", "-a", help="With --rtl: only these designs.")] = None,
    trace: Annotated[str | None, typer.Option(help="With --rtl: also the masks of this trace.")] = None,
    vcd: Annotated[Path | None, typer.Option(help="With --rtl: FILE.vcd, or a folder of waveforms.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object a target, case, or set and model.")] = False,
) -> None:
    """Hold the models against published, measured and RTL truth. Exit code 1 where RTL and kernel differ."""
    from simkit.errors import InputError

    asked = [published, rtl, reference is not None, device is not None, bundle is not None]
    if sum(asked) != 1:
        raise InputError("say one of --published, --rtl, --reference DIR, --device cpu, --bundle DEVICE")
    columns: tuple[str, ...]
    if published:
        from simkit.validation.published import counted, validate_published

        rows = validate_published()
        columns = ("target", "arch", "published", "ours", "error", "verdict", "evidence", "source", "reason")
    elif rtl:
        from simkit.validation.rtl import validate_rtl

        rows = validate_rtl(arch, trace=trace, vcd=vcd)
        columns = ("arch", "build", "case", "kernel_cycles", "offset", "rtl_cycles", "cycles_equal", "values_equal")
    else:
        from simkit.validation import bundles, gpu

        if reference is not None:
            rows = gpu.validate_reference(reference)
        elif device == "cpu":
            rows = gpu.validate_device_cpu()
        elif device is not None:
            raise InputError(
                f"--device {device}: only 'cpu' is measured here; a GPU's bundle is scored by --bundle {device}"
            )
        else:
            rows = bundles.validate_bundle(str(bundle))
        columns = ("set", "model", "rows_fit", "rows_scored", "mape_percent", "p90_percent", "bias_percent")
    if not rows:
        raise InputError("nothing was scored, so nothing is proven; name other designs, devices or files")
    if as_json:
        emit_json(rows)
    else:
        emit_table(rows, {name: name.replace("_", " ") for name in columns})
    if published:
        typer.echo(counted(rows), err=as_json)
    if rtl and not all(row["cycles_equal"] and row["values_equal"] for row in rows):
        raise typer.Exit(1)


def measure(
    campaign: Annotated[str | None, typer.Argument(help="smoke, calibrate, sparse, energy, record, or import.")] = None,
    file: Annotated[Path | None, typer.Argument(help="With import: a file of another project's measurements.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or the arch of the GPU; found where left out.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of bundles; the package's own.")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds; the campaign's own by default.")] = None,
    trace: Annotated[str | None, typer.Option(help="With sparse: a trace whose masks are measured too.")] = None,
    meter: Annotated[str, typer.Option(help="What reads a GPU's energy: nvml, or zeus.")] = "nvml",
    pending: Annotated[bool, typer.Option("--pending", help="Say which campaigns lack a bundle.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Measure kernels and energy on a real device. Raw repeats go into a bundle."""
    from simkit.errors import InputError
    from simkit.measure import import_file
    from simkit.measure import measure as run
    from simkit.measure import pending as list_pending

    rows: list[dict[str, Any]]
    if pending:
        rows = [dict(row) for row in list_pending()]
    elif campaign == "import" and file is not None:
        rows = [{str(key): value for key, value in row.items()} for row in import_file(file).to_dict("records")]
    elif campaign is None or campaign == "import":
        raise InputError("say a campaign (simkit measure smoke), 'import FILE', or --pending")
    else:
        bundle = run(campaign, device=device, out=out, budget_s=budget, trace=trace, meter=meter)
        rows = [
            {"campaign": campaign, "bundle": str(bundle or ""), "state": "done" if bundle else "unfinished: run again"}
        ]
    if as_json:
        emit_json(rows)
    elif rows:
        emit_table(rows, {name: name for name in rows[0]})


def synth(
    design: Annotated[list[str] | None, typer.Argument(help="Designs; all by default.")] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Show the committed results; synthesise nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object a design and density.")] = False,
) -> None:
    """Synthesise the RTL to gates: energy per operation from toggles."""
    from simkit.validation.rtl.results import load_results
    from simkit.validation.rtl.synth import synth as run_synth

    rows = load_results()["rows"] if stored else run_synth(design or None)
    if as_json:
        emit_json(rows)
    elif rows:
        emit_table(rows, GATES)
