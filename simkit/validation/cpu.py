"""The processor's measurement fitted on part of its shapes and scored on the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hwmodels.gpu.calibrate import MIN_ROWS, DataSheet, Launches, fit, fit_gather, predict_gathers
from hwmodels.gpu.foils import calibrated_roofline, naive_roofline
from hwmodels.gpu.timing import GemmTiming

from ..errors import UnavailableError
from ..measure.cpu import MAX_SPREAD, CpuMeasurement, DenseShape, Floats, SparseShape, spread_of
from .scores import score


def cpu_sheet(shapes: Sequence[DenseShape], seconds: Floats, threads: int) -> DataSheet:
    """Peak rates that the calibration itself reached: no data sheet knows a virtual machine's share."""
    mnk = np.array(shapes, dtype=np.float64)
    moved = 4.0 * (mnk[:, 0] * mnk[:, 2] + mnk[:, 1] * mnk[:, 2] + mnk[:, 0] * mnk[:, 1])
    flops = float((2.0 * mnk.prod(axis=1) / seconds).max())
    return DataSheet(sms=threads, clock_hz=2e9, dram=float((moved / seconds).max()), flops=flops)


def cpu_start(sheet: DataSheet) -> GemmTiming:
    """Where the fit of a processor starts: its own peaks, and microseconds to wake two threads."""
    core = sheet.flops / sheet.sms
    return GemmTiming(
        sms=sheet.sms,
        operand_bytes=4.0,
        launch_s=4e-6,
        prologue_s=5e-8,
        step_s=1e-9,
        split_s=5e-6,
        sm_flops=core,
        sustained_flops=sheet.flops,
        sm_fill=sheet.dram * 8,
        l2=sheet.dram * 8,
        dram=sheet.dram,
        sm_dram=sheet.dram / sheet.sms,
        split=sheet.dram,
        overlap=2,
    )


def _launches(shapes: Sequence[SparseShape]) -> Launches:
    columns = np.array([(s.rows, s.runs, s.m, s.k, s.n) for s in shapes]).T
    return Launches(
        columns[0].astype(float), columns[1].astype(float), columns[2].astype(float),
        columns[3].astype(np.int64), columns[4].astype(np.int64),
    )  # fmt: skip


class _Split(NamedTuple):
    """Shapes of one kind that passed their own check, the first part to fit and the rest to score."""

    fit: list[Any]
    fit_s: Floats
    rest: list[Any]
    rest_s: Floats
    facts: dict[str, Any]


def _split(shapes: Sequence[Any], raw: Floats, held_out: float, threads: int) -> _Split:
    spread = spread_of(raw)
    sane = np.flatnonzero(spread <= MAX_SPREAD)
    cut = round(len(sane) * (1 - held_out))
    kept, seconds = [shapes[int(i)] for i in sane], raw.min(axis=0)[sane]
    facts = {
        "floor_percent": 100 * float(spread[sane].mean()) if len(sane) else float("nan"),
        "left_out": len(shapes) - len(sane),
        "quantity": "latency",
        "device": "cpu",
        "threads": threads,
    }
    return _Split(kept[:cut], seconds[:cut], kept[cut:], seconds[cut:], facts)


def score_cpu(found: CpuMeasurement, *, held_out: float = 1 / 3) -> list[dict[str, Any]]:
    """Fit on part of the shapes, score on the others.

    Shapes are drawn in random order, so the first two thirds calibrate. No shape (and no shape with its density) is
    in both parts. Shapes whose own repeats disagree are left out of both and counted.

    Parameters
    ----------
    found : CpuMeasurement
        All shapes.
    held_out : float
        Share that is scored.

    Returns
    -------
    list of dict
        Rows of `scores.score`, with floor_percent (how far two halves of the repeats are apart), left_out, threads.

    Raises
    ------
    UnavailableError
        If the machine was too busy for most shapes to be measured.
    """
    dense, sparse = _halves(found, held_out)
    sheet = cpu_sheet(dense.fit, dense.fit_s, found.threads)
    return _score_dense(dense, sheet) + _score_gathers(sparse, sheet)


def predictions(found: CpuMeasurement, *, held_out: float = 1 / 3) -> pd.DataFrame:
    """Measured and predicted seconds of the shapes that were not fitted, dense and gathered, for a figure."""
    dense, sparse = _halves(found, held_out)
    sheet = cpu_sheet(dense.fit, dense.fit_s, found.threads)
    ours = np.concatenate([_predict_dense(dense, sheet), _predict_gathers(sparse, sheet)])
    return pd.DataFrame({"measured": np.concatenate([dense.rest_s, sparse.rest_s]), "predicted": ours})


def _halves(found: CpuMeasurement, held_out: float) -> tuple[_Split, _Split]:
    dense = _split(found.dense, found.dense_raw, held_out, found.threads)
    sparse = _split(found.sparse, found.sparse_raw, held_out, found.threads)
    if min(len(dense.fit), len(sparse.fit)) < MIN_ROWS:
        raise UnavailableError(
            f"only {len(dense.fit)} dense and {len(sparse.fit)} sparse shapes could be timed steadily; "
            "other work keeps the processor busy, measure again when it is idle"
        )
    return dense, sparse


def _predict_dense(data: _Split, sheet: DataSheet) -> Floats:
    known, rest = np.array(data.fit, dtype=np.int64), np.array(data.rest, dtype=np.int64)
    model = fit(known, data.fit_s, sheet, operand_bytes=4.0, families=("micro",), start=cpu_start(sheet))
    return model.predict(rest)


def _predict_gathers(data: _Split, sheet: DataSheet) -> Floats:
    start = cpu_start(sheet)._replace(sustained_flops=sheet.flops / 4)
    return predict_gathers(_launches(data.rest), *fit_gather(_launches(data.fit), data.fit_s, start, 256.0))


def _score_dense(data: _Split, sheet: DataSheet) -> list[dict[str, Any]]:
    known, rest = np.array(data.fit, dtype=np.int64), np.array(data.rest, dtype=np.int64)
    predictions = {
        "calibrated": _predict_dense(data, sheet),
        "naive_roofline": naive_roofline(sheet).predict(rest, 4.0),
        "calibrated_roofline": calibrated_roofline(known, data.fit_s, sheet, 4.0).predict(rest, 4.0),
    }
    return [
        {**score("cpu dense", label, p, data.rest_s, rows_fit=len(known), tokens=rest[:, 0]), **data.facts}
        for label, p in predictions.items()
    ]


def _score_gathers(data: _Split, sheet: DataSheet) -> list[dict[str, Any]]:
    rest = _launches(data.rest)
    moved = rest.rows * rest.outputs * 4.0
    naive = np.maximum(moved / sheet.dram, 2.0 * rest.tokens * rest.rows * rest.outputs / sheet.flops)
    tokens = rest.tokens.astype(np.int64)
    return [
        {**score("cpu gather", label, p, data.rest_s, rows_fit=len(data.fit), tokens=tokens), **data.facts}
        for label, p in (("calibrated", _predict_gathers(data, sheet)), ("naive_roofline", naive))
    ]


def from_frames(frames: Sequence[pd.DataFrame], threads: int) -> CpuMeasurement:
    """Rebuild a measurement from stored rows of `CpuMeasurement.frame`; passes are cut to the fewest of any group.

    Groups are mixed, because they were measured at different times and the last shapes are those that are scored; a
    shape that two groups drew is kept once, so that it cannot be fitted and scored.
    """
    every = pd.concat(frames, ignore_index=True).drop_duplicates(["op", "m", "n", "k", "density"])
    every = every.sample(frac=1.0, random_state=0)
    passes = int(every["raw_seconds"].map(len).min())
    raw = {op: part["raw_seconds"] for op, part in every.groupby("op")}
    dense, gathers = every[every["op"] == "dense"], every[every["op"] == "gather"]
    return CpuMeasurement(
        [DenseShape(int(r.m), int(r.n), int(r.k)) for r in dense.itertuples()],
        np.array([list(r)[:passes] for r in raw["dense"]]).T,
        [
            SparseShape(int(r.m), int(r.n), int(r.k), float(r.density), int(r.rows), int(r.runs))
            for r in gathers.itertuples()
        ],
        np.array([list(r)[:passes] for r in raw["gather"]]).T,
        None,
        threads,
    )
