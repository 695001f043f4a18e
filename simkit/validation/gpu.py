"""GPU estimates held against measurements: public files, the stored bundles, and this machine's processor.

Every row that is scored was kept out of the fit. Public files are recognised by name, ``gemm_<dtype>_<device>...``,
``energy_<device>...`` and ``sparse_mlp_<device>...``, so more devices need no code. Files and rows that cannot be
scored are left out by name on stderr, and the rest goes on; where nothing is left, that is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels import Op, PackedMask, load_arch, load_table, simulate
from hwmodels.costs.pricing import costs_of
from hwmodels.gpu.energy import fit_energy
from hwmodels.gpu.sparse import bernoulli_runs, gated_mlp_seconds
from hwmodels.kernels.gpu import GpuParams, model_of

from ..errors import InputError
from ..measure.formats import import_file
from .gemm import (
    OPERAND_BYTES,
    Rows,
    attempt,
    data_sheet,
    find_device,
    gpu_params,
    gpus,
    held_out,
    read_gemms,
    tell,
    validate_gemms,
)
from .scores import break_even, score

__all__ = [
    "curve",
    "data_sheet",
    "find_device",
    "gpu_params",
    "gpus",
    "joules_curve",
    "predictions",
    "table",
    "validate_device_cpu",
    "validate_reference",
]

TABLE = "default_45nm"
KINDS = ("gemm", "energy", "sparse_mlp")
# NVML's reading is within 5 % of the power drawn (NVML API reference, nvmlDeviceGetPowerUsage)
METER_TOLERANCE = 1.05
CATS_WIDTHS = (4096, 14336)  # Mistral-7B's d_model and d_ff


def validate_energy(path: Path) -> Rows:
    """Score the energy model on whole runs, each model family left out in turn; impossible runs are left out aloud.

    Raises
    ------
    InputError
        If it holds no energies, runs of one model family alone, or its name no known GPU.
    """
    table = import_file(path)
    device = find_device(path.stem)
    arch = load_arch(device)
    if table["joules"].isna().all():
        raise InputError(f"{path} holds no energies; it needs the columns workload, flop, op_bytes, energy_j, time_ms")
    table = _possible(path, table, gpu_params(arch))
    family = table["op"].astype(str).str.split("_").str[0].to_numpy(dtype=object)
    if len(np.unique(family)) < 2:
        raise InputError(f"{path}: fewer than two model families are left; each is scored by a fit on the others")
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


def _possible(path: Path, table: pd.DataFrame, params: GpuParams) -> pd.DataFrame:
    """Keep the runs that the device can have done: energy above zero, power and rate within its limits."""
    joules, seconds, flop = (table[name].to_numpy(np.float64) for name in ("joules", "seconds", "flop"))
    sizes = np.array([_operand_bytes(str(workload)) for workload in table["op"]])
    reasons = {
        "its energy, FLOP or bytes are missing or not positive": ~(
            (joules > 0) & (flop > 0) & (table["moved_bytes"].to_numpy(np.float64) > 0) & np.isfinite(joules)
        ),
        f"more than the board's {params.limit_w:g} W": joules / seconds > params.limit_w * METER_TOLERANCE,
        f"more than {params.peak_flops / 1e12:g} TFLOP/s at 16 bits": flop / seconds > params.peak_flops * 2 / sizes,
    }
    kept = np.ones(len(table), dtype=np.bool_)
    for reason, wrong in reasons.items():
        rows = np.flatnonzero(wrong & kept)
        if len(rows):
            listed = ", ".join(str(row + 2) for row in rows[:5]) + ", ..." * (len(rows) > 5)
            tell(f"{path.name}: {len(rows)} impossible rows ({listed}): {reason}")
        kept &= ~wrong
    return table[kept].reset_index(drop=True)


def _operand_bytes(workload: str) -> float:
    """Operand size that a workload's name tells, as ``..._pbf16_...``; the smallest where it tells none."""
    found = re.search("|".join(OPERAND_BYTES), workload)
    return OPERAND_BYTES[found[0]] if found else min(OPERAND_BYTES.values())


def curve(path: str | Path) -> pd.DataFrame:
    """Speed-up of a gated MLP against density, for a figure.

    Parameters
    ----------
    path : str or Path
        File named ``sparse_mlp_<device>...``.

    Returns
    -------
    pandas.DataFrame
        density, and the speed-up over dense: measured, calibrated, naive_roofline (bytes alone).
    """
    path = Path(path)
    table = import_file(path)
    arch = load_arch(find_device(path.stem))
    params = gpu_params(arch)
    size = next((OPERAND_BYTES[word] for word in path.stem.split("_") if word in OPERAND_BYTES), 2.0)
    model = model_of(params, int(size * 8))
    dense = table[table["op"] == "gated_mlp_dense"]["seconds"].to_numpy(np.float64)
    sparse = table[table["op"] == "gated_mlp_sparse"]
    if sparse.empty:
        raise InputError(f"{path} holds no gated MLP; it needs the columns sparsity, dense_ms, sparse_ms")
    density = sparse["density"].to_numpy(np.float64)
    d_model, d_ff = CATS_WIDTHS
    active = density * d_ff
    runs = bernoulli_runs(active, d_ff)
    dense_s, sparse_s = gated_mlp_seconds(active, runs, d_model, d_ff, model, params.page_bytes)
    return pd.DataFrame(
        {
            "density": density,
            "measured": dense / sparse["seconds"].to_numpy(np.float64),
            "calibrated": dense_s / sparse_s,
            "naive_roofline": 3.0 / (1.0 + 2.0 * density),
        }
    )


def validate_sparse(path: Path) -> Rows:
    """Score the speed-up of a gated MLP against density, predicted from the device's figures alone."""
    arch = load_arch(find_device(path.stem))
    found = curve(path)
    density, measured = found["density"].to_numpy(np.float64), found["measured"].to_numpy(np.float64)
    rows = []
    for label in ("calibrated", "naive_roofline"):
        predicted = found[label].to_numpy(np.float64)
        row = score(path.stem, label, predicted, measured, rows_fit=0)
        even = {"predicted": break_even(density, predicted), "measured": break_even(density, measured)}
        worst = 100 * float(np.abs(predicted / measured - 1).max())
        rows.append(
            {**row, "quantity": "speed-up", "device": arch.name, "break_even_density": even, "worst_percent": worst}
        )
    return rows


def validate_reference(folder: str | Path, *, by_model: bool = True) -> Rows:
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
        If the folder is missing, holds no such file, or none that can be scored.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the one that holds the public measurement files")
    kinds: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    others = []
    for path in sorted(folder.iterdir()):
        kind = next((kind for kind in KINDS if path.name.lower().startswith(f"{kind}_")), None)
        if kind is not None and path.is_file() and path.suffix.lower() in (".csv", ".parquet"):
            kinds[kind].append(path)
        elif path.suffix.lower() not in ("", ".md") and not path.name.startswith("."):
            others.append(path.name)
    if not any(kinds.values()):
        raise InputError(f"'{folder}' holds no file named gemm_*, energy_* or sparse_mlp_* (.csv or .parquet)")
    if others:
        tell(f"{', '.join(others)}: no .csv or .parquet file named gemm_*, energy_* or sparse_mlp_*")
    rows = validate_gemms(kinds["gemm"], by_model=by_model)
    for path in kinds["energy"]:
        rows += attempt(path, validate_energy)
    for path in kinds["sparse_mlp"]:
        rows += attempt(path, validate_sparse)
    if not rows:
        raise InputError(f"nothing in {folder} could be scored; the lines above say why each file was left out")
    return rows


def joules_curve(arch_name: str, k: int, n: int, densities: Sequence[float], *, seed: int = 0) -> pd.DataFrame:
    """Predict the joules of one token's down-projection against density, for a figure.

    Parameters
    ----------
    arch_name : str
        A GPU.
    k, n : int
        Reduction and outputs.
    densities : sequence of float
        Of Bernoulli masks.
    seed : int
        Of the masks.

    Returns
    -------
    pandas.DataFrame
        density, seconds and joules with the fastest kernel and dense; joules are actions and idle power.
    """
    arch = load_arch(arch_name)
    gpu_params(arch)
    dense = arch.with_(policy="dense")
    rows = []
    for density in densities:
        op = Op("down", 0, 1, k, n, activation=PackedMask.bernoulli(1, k, density, seed), batch=1)
        row: dict[str, float] = {"density": density}
        for label, chosen in (("", arch), ("dense_", dense)):
            counts = simulate(op, chosen)
            seconds = counts.latency_s(chosen.clock_hz)
            actions = sum(count * load_table(TABLE).price(chosen, name).pj for name, count in counts.actions.items())
            row[f"{label}seconds"] = seconds
            row[f"{label}joules"] = actions * 1e-12 + seconds * costs_of(chosen, load_table(TABLE)).static_w[0]
        rows.append(row)
    return pd.DataFrame(rows)


def predictions(path: str | Path) -> pd.DataFrame:
    """Fit on part of a file of GEMMs and predict the rest, for a figure.

    Parameters
    ----------
    path : str or Path
        File named ``gemm_<dtype>_<device>...``.

    Returns
    -------
    pandas.DataFrame
        m, n, k, measured and predicted seconds of the rows that were not fitted.
    """
    data = read_gemms(Path(path))
    fitted, scored = held_out(data)
    out = pd.DataFrame(data.mnk[scored], columns=["m", "n", "k"])
    return out.assign(measured=data.seconds[scored], predicted=fitted.model.predict(data.mnk[scored]))


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
    from ..measure.cpu import measure_cpu
    from .cpu import score_cpu

    return score_cpu(measure_cpu(budget_s=budget_s, seed=seed, threads=threads))
