"""Our own bundles scored: GEMMs, gathers and joules of one device, on rows that were not fitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels import load_arch
from hwmodels.gpu import fit, spread
from hwmodels.gpu.calibrate import MIN_ROWS, DataSheet, Launches, fit_gather, predict_gathers
from hwmodels.gpu.energy import fit_energy
from hwmodels.gpu.foils import calibrated_roofline, naive_roofline
from hwmodels.kernels.gpu import model_of

from ..errors import InputError
from ..measure.bundle import bundle_path, read_bundle
from .gemm import data_sheet, gpu_params, tell
from .scores import break_even, score

if TYPE_CHECKING:
    from ..measure.cpu import CpuMeasurement

Rows = list[dict[str, Any]]
TOO_FEW = {
    "calibrate": f"fewer than {2 * MIN_ROWS} usable GEMMs",
    "sparse": "usable gathers of fewer than two shapes",
    "energy": "usable energies of fewer than two kinds of work",
}


def validate_bundle(device: str, folder: str | Path | None = None) -> Rows:
    """Score a device's bundles.

    Parameters
    ----------
    device : str
        GPU arch, or ``cpu``.
    folder : str or Path, optional
        Where bundles lie; the package's own by default.

    Returns
    -------
    list of dict
        As `simkit.validation.gpu.validate_reference`; measurements that failed their own check are left out and
        counted.

    Raises
    ------
    InputError
        If the device has no bundle, or none with enough usable rows; a bundle without them is left out aloud.
    CorruptError
        If one is damaged or of another schema.
    """
    where = Path(folder) if folder is not None else None
    have = [name for name in ("calibrate", "sparse", "energy") if bundle_path(device, name, where).exists()]
    if not have:
        raise InputError(f"no bundle for {device}; run: simkit measure calibrate --device {device}")
    if device == "cpu":
        return _cpu(read_bundle(device, "calibrate", where)[0])
    scorers = {"calibrate": _gemms, "sparse": _sparse, "energy": _energy}
    rows: Rows = []
    for name in have:
        scored = scorers[name](device, read_bundle(device, name, where)[0])
        if not scored:
            tell(f"bundle {name} of {device}: {TOO_FEW[name]}")
        rows += scored
    if not rows:
        raise InputError(
            f"no bundle of {device} could be scored ({', '.join(have)}); measure again: simkit measure {have[0]} "
            f"--device {device}"
        )
    return rows


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that passed their own check."""
    return frame[(frame["flaw"] == "") & frame["seconds"].notna()].reset_index(drop=True)


def _sheet(device: str) -> DataSheet:

    return data_sheet(load_arch(device))


class _Held(NamedTuple):
    """GEMMs of a bundle: which rows were fitted and scored, and what each model says of the scored ones."""

    good: pd.DataFrame
    mnk: NDArray[np.int64]
    fitted: NDArray[np.int64]
    scored: NDArray[np.int64]
    predictions: dict[str, NDArray[np.float64]]


def _hold(device: str, gemms: pd.DataFrame) -> _Held | None:
    """Fit on two thirds of the shapes, at most 400, and predict the rest; None where too few are usable."""
    good = usable(gemms)
    if len(good) < 2 * MIN_ROWS:
        return None
    mnk = good[["m", "n", "k"]].to_numpy(np.int64)
    seconds = good["seconds"].to_numpy(np.float64)
    fitted = spread(mnk, len(mnk) * 2 // 3 if len(mnk) < 600 else 400)
    scored = np.setdiff1d(np.arange(len(mnk)), fitted)
    sheet = _sheet(device)
    predictions = {
        "calibrated": fit(mnk[fitted], seconds[fitted], sheet).predict(mnk[scored]),
        "naive_roofline": naive_roofline(sheet).predict(mnk[scored]),
        "calibrated_roofline": calibrated_roofline(mnk[fitted], seconds[fitted], sheet).predict(mnk[scored]),
    }
    return _Held(good, mnk, fitted, scored, predictions)


def _gemms(device: str, frame: pd.DataFrame) -> Rows:
    gemms = frame[frame["op"] == "gemm"]
    held = _hold(device, gemms)
    if held is None:
        return []
    seconds, tokens = held.good["seconds"].to_numpy(np.float64)[held.scored], held.mnk[held.scored, 0]
    facts = {"quantity": "latency", "device": device, "left_out": len(gemms) - len(held.good)}
    facts["floor_percent"] = _floor(held.good["raw_seconds"])
    return [
        {**score(f"{device} gemm", name, p, seconds, rows_fit=len(held.fitted), tokens=tokens), **facts}
        for name, p in held.predictions.items()
    ]


def bundle_predictions(device: str, folder: str | Path | None = None) -> pd.DataFrame:
    """Predicted and measured seconds of a device's stored rows that were not fitted, for a figure.

    Parameters
    ----------
    device : str
        GPU arch, or ``cpu``.
    folder : str or Path, optional
        Where bundles lie; the package's own by default.

    Returns
    -------
    pandas.DataFrame
        measured and predicted, s.

    Raises
    ------
    InputError
        If the device has no calibration bundle, or too few of its rows are usable.
    """
    frame = read_bundle(device, "calibrate", Path(folder) if folder is not None else None)[0]
    if device == "cpu":
        from .cpu import predictions

        return predictions(_cpu_measurement(frame))
    held = _hold(device, frame[frame["op"] == "gemm"])
    if held is None:
        raise InputError(f"the bundle of {device} has fewer than {2 * MIN_ROWS} usable GEMMs; measure again")
    measured = held.good["seconds"].to_numpy(np.float64)[held.scored]
    return pd.DataFrame({"measured": measured, "predicted": held.predictions["calibrated"]})


def _floor(raw: pd.Series) -> float:
    halves = [(np.median(r[::2]), np.median(r[1::2])) for r in raw if r is not None and len(r) > 3]
    return 100 * float(np.mean([abs(np.log(a / b)) for a, b in halves])) if halves else float("nan")


def _launches(frame: pd.DataFrame) -> Launches:
    rows, runs, tokens = (frame[name].to_numpy(np.float64) for name in ("rows", "runs", "m"))
    return Launches(rows, runs, tokens, frame["k"].to_numpy(np.int64), frame["n"].to_numpy(np.int64))


def _sparse(device: str, frame: pd.DataFrame) -> Rows:
    """Fit the gather on all shapes but one (K, N), score on that one, in turn."""
    cold = frame[(frame["kernel"] == "gather_gemv") & (frame["heat"] == "cold")]
    good = usable(cold)
    shapes = sorted({(int(k), int(n)) for k, n in zip(good["k"], good["n"], strict=True)})
    if len(shapes) < 2:
        return []
    arch = load_arch(device)

    params = gpu_params(arch)
    start = model_of(params, 16).timing
    predicted = np.empty(len(good))
    for k, n in shapes:
        here = ((good["k"] == k) & (good["n"] == n)).to_numpy()
        timing, page = fit_gather(
            _launches(good[~here]), good["seconds"].to_numpy(np.float64)[~here], start, params.page_bytes
        )
        predicted[here] = predict_gathers(_launches(good[here]), timing, page)
    seconds = good["seconds"].to_numpy(np.float64)
    naive = good["rows"].to_numpy() * good["n"].to_numpy() * 2.0 / _sheet(device).dram
    fitted = len(good) - len(good) // len(shapes)
    facts = {"quantity": "latency", "device": device, "left_out": len(cold) - len(good), "held_out": "shape"}
    even = _break_even(frame, good, predicted)
    tokens: NDArray[np.int64] = good["m"].to_numpy(np.int64)
    return [
        {
            **score(f"{device} gather", "calibrated", predicted, seconds, rows_fit=fitted, tokens=tokens),
            **facts,
            **even,
        },
        {**score(f"{device} gather", "naive_roofline", naive, seconds, rows_fit=0, tokens=tokens), **facts},
    ]


def _break_even(frame: pd.DataFrame, good: pd.DataFrame, predicted: NDArray[np.float64]) -> dict[str, Any]:
    """Break-even density at batch 1 of each shape, predicted and measured, over the measured dense time."""
    dense = usable(frame[(frame["kernel"] == "dense") & (frame["heat"] == "cold") & (frame["m"] == 1)])
    out = {}
    for row in dense.itertuples():
        here = ((good["k"] == row.k) & (good["n"] == row.n) & (good["m"] == 1)).to_numpy()
        if here.sum() > 2:
            density = good["density"].to_numpy(np.float64)[here]
            measured = row.seconds / good["seconds"].to_numpy(np.float64)[here]
            out[f"{row.k}x{row.n}"] = {
                "predicted": break_even(density, row.seconds / predicted[here]),
                "measured": break_even(density, measured),
            }
    return {"break_even_density": out}


def _energy(device: str, frame: pd.DataFrame) -> Rows:
    """Fit the three terms on all kinds of work but one, score on that one, in turn."""
    good = usable(frame[frame["joules"].notna()])
    kinds = (good["op"] + " " + good.get("kernel", pd.Series("", index=good.index)).fillna("")).to_numpy()
    if len(set(kinds)) < 2:
        return []
    known = good.reindex(columns=["m", "n", "k", "rows", "bytes", "seconds", "joules"]).fillna(0.0)
    m, n, k, rows, copied, seconds, joules = (known[name].to_numpy(np.float64) for name in known)
    active = np.where(rows > 0, rows, k)
    flop = 2.0 * m * n * active
    moved = 2.0 * (m * k + active * n + m * n) + 2.0 * copied
    predicted = np.empty(len(good))
    for kind in set(kinds):
        rest, here = kinds != kind, kinds == kind
        predicted[here] = fit_energy(seconds[rest], flop[rest], moved[rest], joules[rest]).predict(
            seconds[here], flop[here], moved[here]
        )
    fitted = len(good) - len(good) // len(set(kinds))
    row = score(f"{device} energy", "calibrated", predicted, joules, rows_fit=fitted)
    return [
        {**row, "quantity": "energy", "device": device, "held_out": "kind of work", "left_out": len(frame) - len(good)}
    ]


def _cpu(frame: pd.DataFrame) -> Rows:
    from .cpu import score_cpu

    return score_cpu(_cpu_measurement(frame))


def _cpu_measurement(frame: pd.DataFrame) -> CpuMeasurement:
    """Join the groups of shapes of a stored processor bundle into one measurement."""
    from .cpu import from_frames

    groups = frame[frame["flaw"] == ""]
    if groups.empty:
        raise InputError("no group of shapes in the processor's bundle is usable; measure again on a machine at rest")
    # a machine that grew busy was measured with fewer threads from there on
    groups = groups[groups["threads"] == groups["threads"].mode().max()]
    columns = [name for name in groups.columns if name.startswith("shape_")]
    parts = [
        pd.DataFrame({name.removeprefix("shape_"): list(row[name]) for name in columns}) for _, row in groups.iterrows()
    ]
    return from_frames(parts, int(groups["threads"].iloc[0]))
