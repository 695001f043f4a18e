"""GPU estimates held against measurements: public files, the stored bundles, and this machine's processor.

Every row that is scored was kept out of the fit. Public files are recognised by name, ``gemm_<dtype>_<device>...``,
``energy_<device>...`` and ``sparse_mlp_<device>...``, so more devices need no code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels import Arch, load_arch
from hwmodels.gpu import DataSheet, GemmModel, carry, fit, spread
from hwmodels.gpu.energy import fit_energy
from hwmodels.gpu.foils import calibrated_roofline, naive_roofline
from hwmodels.gpu.sparse import bernoulli_runs, gated_mlp_seconds
from hwmodels.kernels.gpu import GpuParams, model_of
from hwmodels.registry import params_of

from .errors import InputError
from .measure.campaigns import gpu_devices
from .measure.formats import import_file
from .measure.scores import break_even, score

Floats = NDArray[np.float64]
Rows = list[dict[str, Any]]

# Same device and shapes measured by another framework: mean |log ratio| 4-9 % (note beside the public GEMM sets).
GEMM_FLOOR_PERCENT = (4.0, 9.0)
OPERAND_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0, "fp8": 1.0, "int8": 1.0}
CATS_WIDTHS = (4096, 14336)  # Mistral-7B's d_model and d_ff


class GemmSet(NamedTuple):
    """One file of measured GEMMs on one device."""

    name: str
    device: str
    sheet: DataSheet
    operand_bytes: float
    mnk: NDArray[np.int64]
    seconds: Floats
    groups: list[str]


def gpu_params(arch: Arch) -> GpuParams:
    """Return a GPU arch's parameters.

    Raises
    ------
    InputError
        If the arch is no GPU.
    """
    if arch.kernel != "gpu":
        raise InputError(f"arch '{arch.name}' runs kernel '{arch.kernel}', not 'gpu'; name one of {', '.join(gpus())}")
    return GpuParams(*params_of(arch))


def gpus() -> list[str]:
    """Names of the archs that are GPUs."""
    return gpu_devices()


def data_sheet(arch: Arch) -> DataSheet:
    """Pick the vendor's figures out of a GPU arch."""
    params = gpu_params(arch)
    return DataSheet(params.sms, arch.clock_hz, float(arch.memory.bandwidth.value), params.peak_flops)


def find_device(stem: str) -> str:
    """Find the GPU arch that a file name speaks of.

    Raises
    ------
    InputError
        If it names none.
    """
    words = stem.replace("-", "_").lower().split("_")
    for name in sorted(gpus(), key=len, reverse=True):
        short = name.removesuffix("_sxm").removesuffix("_64")
        if short.split("_") == [w for w in words if w in short.split("_")] or short.replace("_", "") in words:
            return name
    raise InputError(f"file name '{stem}' names no known GPU; known: {', '.join(gpus())}")


def read_gemms(path: Path) -> GemmSet:
    """Read a file of measured GEMMs named ``gemm_<dtype>_<device>...``."""
    table = import_file(path)
    device = find_device(path.stem)
    dtype = next((word for word in path.stem.split("_") if word in OPERAND_BYTES), "bf16")
    sheet = data_sheet(load_arch(device))
    size = OPERAND_BYTES[dtype]
    models = [str(op).partition(":")[0] for op in table["op"]]
    return GemmSet(
        path.stem,
        device,
        sheet._replace(flops=sheet.flops * 2.0 / size),
        size,
        table[["m", "n", "k"]].to_numpy(np.int64),
        table["seconds"].to_numpy(np.float64),
        models,
    )


def _rows(
    data: GemmSet,
    name: str,
    model: GemmModel,
    fitted: NDArray[np.int64],
    scored: NDArray[np.bool_],
    source: GemmSet | None = None,
) -> Rows:
    """Ours and both rooflines on the scored rows; the calibrated roofline is fitted on the same rows as ours."""
    base = source or data
    known = calibrated_roofline(base.mnk[fitted], base.seconds[fitted], base.sheet, base.operand_bytes)
    if source is not None:
        known = known._replace(
            flops=known.flops * data.sheet.flops / base.sheet.flops, dram=known.dram * data.sheet.dram / base.sheet.dram
        )
    shapes, measured = data.mnk[scored], data.seconds[scored]
    predictions = {
        "calibrated": model.predict(shapes),
        "naive_roofline": naive_roofline(data.sheet).predict(shapes, data.operand_bytes),
        "calibrated_roofline": known.predict(shapes, data.operand_bytes),
    }
    out = []
    for label, seconds in predictions.items():
        row = score(
            name,
            label,
            seconds,
            measured,
            rows_fit=0 if label == "naive_roofline" else len(fitted),
            tokens=shapes[:, 0],
        )
        out.append({**row, "quantity": "latency", "device": data.device, "floor_percent": GEMM_FLOOR_PERCENT})
    return out


def _own(data: GemmSet) -> tuple[Rows, GemmModel, NDArray[np.int64]]:
    fitted = spread(data.mnk)
    model = fit(data.mnk[fitted], data.seconds[fitted], data.sheet, operand_bytes=data.operand_bytes)
    scored = np.ones(len(data.mnk), dtype=np.bool_)
    scored[fitted] = False
    return _rows(data, data.name, model, fitted, scored), model, fitted


def _by_model(data: GemmSet) -> Rows:
    """Leave each model of a layers' file out in turn: fit on the others, score on it."""
    groups = np.array(data.groups)
    out: Rows = []
    for group in sorted(set(data.groups)):
        scored = groups == group
        others = np.flatnonzero(~scored)
        if len(others) < 100:
            continue
        fitted = others[spread(data.mnk[others])]
        model = fit(data.mnk[fitted], data.seconds[fitted], data.sheet, operand_bytes=data.operand_bytes)
        out += _rows(data, f"{data.name} without {group}", model, fitted, scored)
    return out


def validate_gemms(paths: list[Path], *, by_model: bool = False) -> Rows:
    """Score files of measured GEMMs, each on its own rows and carried to every other device by data sheet.

    Parameters
    ----------
    paths : list of Path
        Files that `read_gemms` takes.
    by_model : bool
        Also leave each model of a layers' file out in turn (a fit each).

    Returns
    -------
    list of dict
        As `validate_reference`.
    """
    rows: Rows = []
    sets = [read_gemms(path) for path in paths]
    fits = {}
    for data in sets:
        own, model, fitted = _own(data)
        rows += own
        fits[data.name] = (data, model, fitted)
        if by_model and len(set(data.groups)) > 1:
            rows += _by_model(data)
    anchor = next((found for found in fits.values() if found[0].device == "h100_sxm"), None)
    for data in sets if anchor else []:
        assert anchor is not None
        source, model, fitted = anchor
        if data.device != source.device:
            timing = carry(model.timing._replace(operand_bytes=data.operand_bytes), source.sheet, data.sheet)
            same_chip = data.sheet.sms == source.sheet.sms
            carried = GemmModel(timing, model.tile_family, model.correction if same_chip else None)
            everything = np.ones(len(data.mnk), dtype=np.bool_)
            rows += _rows(data, f"{data.name} carried from {source.name}", carried, fitted, everything, source)
    return rows


def validate_energy(path: Path) -> Rows:
    """Score the energy model on whole runs, each model family left out in turn."""
    table = import_file(path)
    device = find_device(path.stem)
    arch = load_arch(device)
    family = table["op"].str.split("_").str[0].to_numpy()
    names = ["seconds", "flop", "moved_bytes", "joules"]
    time, flop, moved, joules = (table[name].to_numpy(np.float64) for name in names)
    ours, two_term = np.empty(len(table)), np.empty(len(table))
    for left_out in np.unique(family):
        rest, here = family != left_out, family == left_out
        fitted = fit_energy(time[rest], flop[rest], moved[rest], joules[rest])
        ours[here] = fitted.predict(time[here], flop[here], moved[here])
        watts = float((joules[rest] / time[rest]).mean())
        two_term[here] = watts * time[here]
    limit = gpu_params(arch).limit_w
    predictions = {"calibrated": ours, "power_limit": limit * time, "mean_power": two_term}
    kept = len(table) - len(table) // len(np.unique(family))
    out = []
    for label, values in predictions.items():
        row = score(path.stem, label, values, joules, rows_fit=0 if label == "power_limit" else kept)
        out.append({**row, "quantity": "energy", "device": device, "held_out": "model family"})
    return out


def validate_sparse(path: Path) -> Rows:
    """Score the speed-up of a gated MLP against density, predicted from the device's figures alone."""
    table = import_file(path)
    arch = load_arch(find_device(path.stem))
    params = gpu_params(arch)
    size = next((OPERAND_BYTES[word] for word in path.stem.split("_") if word in OPERAND_BYTES), 2.0)
    model = model_of(params, int(size * 8))
    dense = table[table["op"] == "gated_mlp_dense"]["seconds"].to_numpy(np.float64)
    sparse = table[table["op"] == "gated_mlp_sparse"]
    density = sparse["density"].to_numpy(np.float64)
    measured = dense / sparse["seconds"].to_numpy(np.float64)
    d_model, d_ff = CATS_WIDTHS
    active = density * d_ff
    runs = bernoulli_runs(active, d_ff)
    dense_s, sparse_s = gated_mlp_seconds(active, runs, d_model, d_ff, model, params.page_bytes)
    bytes_only = 3.0 / (1.0 + 2.0 * density)
    rows = []
    for label, predicted in (("calibrated", dense_s / sparse_s), ("naive_roofline", bytes_only)):
        row = score(path.stem, label, predicted, measured, rows_fit=0)
        even = {"predicted": break_even(density, predicted), "measured": break_even(density, measured)}
        worst = 100 * float(np.abs(predicted / measured - 1).max())
        rows.append(
            {**row, "quantity": "speed-up", "device": arch.name, "break_even_density": even, "worst_percent": worst}
        )
    return rows


def validate_reference(folder: str | Path, *, by_model: bool = False) -> Rows:
    """Score the public files in a folder.

    Parameters
    ----------
    folder : str or Path
        Holds ``gemm_*``, ``energy_*`` and ``sparse_mlp_*`` files, CSV or Parquet.
    by_model : bool
        Also score layers' files with each model left out of the fit.

    Returns
    -------
    list of dict
        One for each set and model: set, model, rows_fit, rows_scored, mape_percent, p90_percent, bias_percent,
        quantity, device, and where they apply bands (by M), floor_percent (repeatability), break_even_density.
        Ours is model ``calibrated``.

    Raises
    ------
    InputError
        If the folder is missing or holds no such file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the one that holds the public measurement files")
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".csv", ".parquet")]
    kinds = {
        kind: [path for path in files if path.name.startswith(f"{kind}_")] for kind in ("gemm", "energy", "sparse_mlp")
    }
    if not any(kinds.values()):
        raise InputError(f"{folder} holds no file named gemm_*, energy_* or sparse_mlp_* (.csv or .parquet)")
    rows = validate_gemms(kinds["gemm"], by_model=by_model)
    for path in kinds["energy"]:
        rows += validate_energy(path)
    for path in kinds["sparse_mlp"]:
        rows += validate_sparse(path)
    return rows


def table(rows: Rows) -> pd.DataFrame:
    """Return the table for a paper: one line a set, mean, p90 and bias of each model."""
    frame = pd.DataFrame(rows)
    keep = ["set", "quantity", "model", "rows_fit", "rows_scored", "mape_percent", "p90_percent", "bias_percent"]
    return frame[keep].round({"mape_percent": 2, "p90_percent": 2, "bias_percent": 2})


def validate_device_cpu(*, budget_s: float = 50.0, seed: int = 0, threads: int | None = None) -> Rows:
    """Measure this machine's processor, fit on two thirds of the shapes and score on the rest.

    Parameters
    ----------
    budget_s : float
        Seconds of measuring.
    seed : int
        Which shapes.
    threads : int, optional
        Cores; 2, or 1 where the machine is busy.

    Returns
    -------
    list of dict
        As `validate_reference`, with threads, left_out (shapes whose repeats disagree) and floor_percent.

    Raises
    ------
    UnavailableError
        If the machine is too busy to measure on.
    """
    from .measure.cpu import measure_cpu, score_cpu

    return score_cpu(measure_cpu(budget_s=budget_s, seed=seed, threads=threads))


def validate_bundle(device: str, folder: str | Path | None = None) -> Rows:
    """Score a device's stored bundles; see `simkit.validate_bundle.validate_bundle`."""
    from .validate_bundle import validate_bundle as score_bundles

    return score_bundles(device, folder)
