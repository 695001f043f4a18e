"""GPU estimates held against measurements: public files, the stored bundles, and this machine's processor.

Every row that is scored was kept out of the fit. Public files are recognised by name, ``gemm_<dtype>_<device>...``,
``energy_<device>...`` and ``sparse_mlp_<device>...``, so more devices need no code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels import Op, PackedMask, load_arch, load_table, simulate
from hwmodels.gpu.energy import fit_energy
from hwmodels.gpu.sparse import bernoulli_runs, gated_mlp_seconds
from hwmodels.kernels.gpu import model_of

from ..errors import InputError
from ..measure.formats import import_file
from .gemm import OPERAND_BYTES, Rows, data_sheet, find_device, gpu_params, gpus, held_out, read_gemms, validate_gemms
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
CATS_WIDTHS = (4096, 14336)  # Mistral-7B's d_model and d_ff


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
    kinds = {kind: [path for path in paths if _known(path)] for kind, paths in kinds.items()}
    rows = validate_gemms(kinds["gemm"], by_model=by_model)
    for path in kinds["energy"]:
        rows += validate_energy(path)
    for path in kinds["sparse_mlp"]:
        rows += validate_sparse(path)
    return rows


def _known(path: Path) -> bool:
    """Whether a file names a known GPU; one that does not is left out aloud, the others are scored."""
    try:
        find_device(path.stem)
    except InputError as error:
        sys.stderr.write(f"left out: {error}\n")
        return False
    return True


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
            row[f"{label}joules"] = actions * 1e-12 + seconds * float(chosen.static_power.value)
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
