"""Measured GEMMs scored: each file on rows its fit did not see, and carried from an H100 by data sheet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels import Arch, load_arch
from hwmodels.gpu import DataSheet, GemmModel, carry, fit, spread
from hwmodels.gpu.calibrate import MIN_ROWS
from hwmodels.gpu.foils import calibrated_roofline, naive_roofline
from hwmodels.kernels.gpu import GpuParams, model_of
from hwmodels.registry import params_of

from ..errors import InputError
from ..measure.formats import import_file
from ..measure.points import gpu_devices
from .scores import score

Floats = NDArray[np.float64]
Rows = list[dict[str, Any]]

# Same device and shapes measured by another framework: mean |log ratio| 4-9 % (note beside the public GEMM sets).
GEMM_FLOOR_PERCENT = (4.0, 9.0)
OPERAND_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0, "fp8": 1.0, "int8": 1.0}
# what files call them besides
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32"} | {n: n for n in OPERAND_BYTES}
ANCHOR = "h100_sxm"  # the device that the others are carried from


Found = TypeVar("Found")


class GemmSet(NamedTuple):
    """Measured GEMMs of one file, on one device and of one data type."""

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
    words = stem.replace("-", "_").replace(" ", "_").lower().split("_")
    for name in sorted(gpus(), key=len, reverse=True):
        short = name.removesuffix("_sxm").removesuffix("_64")
        if short.split("_") == [w for w in words if w in short.split("_")] or short.replace("_", "") in words:
            return name
    raise InputError(f"file name '{stem}' names no known GPU; known: {', '.join(gpus())}")


def tell(text: str) -> None:
    """Say on stderr what is not scored."""
    sys.stderr.write(f"left out: {text}\n")


def attempt(path: Path, read: Callable[[Path], list[Found]]) -> list[Found]:
    """Read or score a file; one that cannot be used is left out aloud, so that the others go on."""
    try:
        return read(path)
    except Exception as error:
        if getattr(error, "exit_code", None) is None:  # no error of ours
            raise
        tell(str(error) if path.stem in str(error) else f"{path.name}: {error}")
        return []


def gemm_sets(path: Path) -> list[GemmSet]:
    """Read a file of measured GEMMs, a set for each data type in it.

    Parameters
    ----------
    path : Path
        Named ``gemm_<dtype>_<device>...``. The rows' own data type and device, where they have them, go before the
        name's: rows of another device, and of a data type that has no model, are left out aloud.

    Raises
    ------
    InputError
        If it holds no GEMM, or its name no known GPU.
    """
    table = import_file(path)
    device = find_device(path.stem)
    if table[["m", "n", "k"]].isna().any(axis=None):
        raise InputError(
            f"{path} holds no GEMMs with m, n and k; name it after what it holds: energy_* or sparse_mlp_*"
        )
    table = _of_device(table, device, path)
    words = path.stem.lower().split("_")
    named = next((word for word in words if word in OPERAND_BYTES), None)
    if named is None and table["dtype"].isna().any():
        sys.stderr.write(f"{path.name}: taken as bf16, for neither its name nor its rows say a data type\n")
    given = table["dtype"].astype(object).where(table["dtype"].notna(), named or "bf16").astype(str)
    sheet, sets = data_sheet(load_arch(device)), []
    for label, rows in table.groupby(given, sort=True):
        dtype = DTYPES.get(str(label).lower())
        if dtype is None:
            tell(
                f"{path.name}: {len(rows)} rows of data type '{label}', which has no model; known: {', '.join(DTYPES)}"
            )
            continue
        size = OPERAND_BYTES[dtype]
        sets.append(
            GemmSet(
                path.stem if dtype == (named or dtype) and given.nunique() == 1 else f"{path.stem} {label}",
                device,
                sheet._replace(flops=sheet.flops * 2.0 / size),
                size,
                rows[["m", "n", "k"]].to_numpy(np.int64),
                rows["seconds"].to_numpy(np.float64),
                [str(op).partition(":")[0] for op in rows["op"]],
            )
        )
    return sets


def _of_device(table: pd.DataFrame, device: str, path: Path) -> pd.DataFrame:
    """Keep the rows that name no device, or the file's."""
    kept = np.ones(len(table), dtype=np.bool_)
    for label in table["device"].dropna().unique():
        try:
            same = not str(label).strip() or find_device(str(label)) == device
        except InputError:
            same = False
        if not same:
            rows = (table["device"] == label).to_numpy()
            tell(f"{path.name}: {int(rows.sum())} rows of device '{label}', for the file's name says {device}")
            kept &= ~rows
    return table[kept]


def read_gemms(path: Path) -> GemmSet:
    """Read a file of measured GEMMs of one data type, named ``gemm_<dtype>_<device>...``.

    Raises
    ------
    InputError
        If it holds none that can be scored, or several data types.
    """
    sets = gemm_sets(path)
    named = [one for one in sets if one.name == path.stem] or sets
    if len(named) != 1:
        held = ", ".join(one.name.removeprefix(path.stem).strip() for one in sets) or "none that has a model"
        raise InputError(f"{path}: data types {held}; give a file of one")
    return named[0]


class Fitted(NamedTuple):
    """A model with the rows it was fitted on."""

    name: str
    sheet: DataSheet
    operand_bytes: float
    model: GemmModel
    mnk: NDArray[np.int64]
    seconds: Floats


def shipped() -> Fitted:
    """Return the H100 model that ships, with its calibration shapes; their times are the model's own."""
    arch = load_arch(ANCHOR)
    model = model_of(gpu_params(arch), 16)
    assert model.correction is not None
    shapes = model.correction.anchors
    return Fitted(ANCHOR, data_sheet(arch), 2.0, model, shapes, model.predict(shapes))


def _rows(data: GemmSet, name: str, model: GemmModel, base: Fitted, scored: NDArray[np.bool_]) -> Rows:
    """Ours and both rooflines on the scored rows; the calibrated roofline is fitted on the same rows as ours."""
    known = calibrated_roofline(base.mnk, base.seconds, base.sheet, base.operand_bytes)
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
        rows_fit = 0 if label == "naive_roofline" else len(base.mnk)
        row = score(name, label, seconds, measured, rows_fit=rows_fit, tokens=shapes[:, 0])
        out.append({**row, "quantity": "latency", "device": data.device, "floor_percent": GEMM_FLOOR_PERCENT})
    return out


def fit_rows(data: GemmSet, rows: NDArray[np.int64]) -> Fitted:
    """Fit on the named rows of a set."""
    mnk, seconds = data.mnk[rows], data.seconds[rows]
    model = fit(mnk, seconds, data.sheet, operand_bytes=data.operand_bytes)
    return Fitted(data.name, data.sheet, data.operand_bytes, model, mnk, seconds)


def held_out(data: GemmSet) -> tuple[Fitted, NDArray[np.bool_]]:
    """Fit on rows chosen by shape alone; return the model and a mask of the rows that are left to score.

    Raises
    ------
    InputError
        If the rows are too few for both.
    """
    if len(data.mnk) < 2 * MIN_ROWS:
        raise InputError(
            f"'{data.name}' holds {len(data.mnk)} measured GEMMs, too few to fit and to score a model; give at least "
            f"{2 * MIN_ROWS}"
        )
    rows = spread(data.mnk)
    scored = np.ones(len(data.mnk), dtype=np.bool_)
    scored[rows] = False
    return fit_rows(data, rows), scored


def _by_model(data: GemmSet) -> Rows:
    """Leave each model of a layers' file out in turn: fit on the others, score on it."""
    groups = np.array(data.groups)
    out: Rows = []
    for group in sorted(set(data.groups)):
        others = np.flatnonzero(groups != group)
        if len(others) >= 2 * MIN_ROWS:
            fitted = fit_rows(data, others[spread(data.mnk[others])])
            out += _rows(data, f"{data.name} without {group}", fitted.model, fitted, groups == group)
    return out


def _carried(data: GemmSet, base: Fitted) -> Rows:
    """Score a set by another device's model, scaled by data sheet; shapes the model was fitted on are left out."""
    timing = carry(base.model.timing._replace(operand_bytes=data.operand_bytes), base.sheet, data.sheet)
    same_chip = data.sheet.sms == base.sheet.sms
    model = GemmModel(timing, base.model.tile_family, base.model.correction if same_chip else None)
    scored = np.ones(len(data.mnk), dtype=np.bool_)
    if data.device == ANCHOR:
        seen = {tuple(shape) for shape in base.mnk.tolist()}
        scored = np.array([tuple(shape) not in seen for shape in data.mnk.tolist()], dtype=np.bool_)
    if not scored.any():
        tell(f"{data.name}: the model of {base.name} was fitted on each of its shapes")
        return []
    return _rows(data, f"{data.name} carried from {base.name}", model, base, scored)


def validate_gemms(paths: list[Path], *, by_model: bool = False) -> Rows:
    """Score files of measured GEMMs, each on its own rows and carried from an H100 by data sheet.

    Parameters
    ----------
    paths : list of Path
        Files that `gemm_sets` takes; one too small to fit is scored by the model that ships alone, one that cannot be
        read is left out aloud.
    by_model : bool
        Also leave each model of a layers' file out in turn (a fit each).

    Returns
    -------
    list of dict
        As `simkit.validation.gpu.validate_reference`.
    """
    rows: Rows = []
    anchor: Fitted | None = None
    sets = [one for path in paths for one in attempt(path, gemm_sets)]
    for data in sets:
        if len(data.mnk) < 2 * MIN_ROWS:
            continue
        fitted, scored = held_out(data)
        rows += _rows(data, data.name, fitted.model, fitted, scored)
        if anchor is None and data.device == ANCHOR:
            anchor = fitted
        if by_model and len(set(data.groups)) > 1:
            rows += _by_model(data)
    for data in sets:
        if data.device != ANCHOR:
            rows += _carried(data, anchor or shipped())
        elif len(data.mnk) < 2 * MIN_ROWS:
            rows += _carried(data, shipped())
    return rows
