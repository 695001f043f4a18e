"""Fit the timing model to measured GEMMs, and carry it to a device that was not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .correction import fit_correction
from .model import GemmModel
from .sparse import gather_seconds
from .timing import TILE_FAMILIES, Floats, GemmTiming, Ints, check_shapes, predict

FITTED = (
    "launch_s", "prologue_s", "step_s", "split_s", "sm_flops", "sustained_flops", "sm_fill", "l2", "dram", "sm_dram",
    "split",
)  # fmt: skip
# Where a Hopper data sheet and one round number each put the search; a weak prior holds what the rows do not tell.
START = GemmTiming(
    sms=132, operand_bytes=2.0, launch_s=5e-7, prologue_s=2e-6, step_s=1.3e-9, split_s=2e-6, sm_flops=8e12,
    sustained_flops=8e14, sm_fill=1.3e11, l2=1.2e13, dram=3e12, sm_dram=4e10, split=4e12, overlap=6,
)  # fmt: skip
PRIOR_WEIGHT = 0.03
ROBUST_SCALE = 0.05
MIN_ROWS = 40
OVERLAPS = (2, 4, 6)
GPU_FAMILIES = ("fine", "coarse")
MOST_ROWS = 400


class DataSheet(NamedTuple):
    """What a vendor prints: SMs, top clock (Hz), DRAM byte/s, dense FLOP/s at the operands' width."""

    sms: int
    clock_hz: float
    dram: float
    flops: float


def spread(mnk: object, count: int = MOST_ROWS) -> Ints:
    """Choose calibration rows by shape alone: every so many-th in order of m, then of n k.

    Parameters
    ----------
    mnk : int[rows, 3]
        All shapes.
    count : int
        How many to choose, at most half of the rows.

    Returns
    -------
    int64[count]
        Row numbers, ascending.
    """
    shapes = check_shapes(mnk)
    count = min(count, max(1, len(shapes) // 2))
    order = np.lexsort((shapes[:, 1] * shapes[:, 2], shapes[:, 0]))
    return np.sort(order[((np.arange(count) + 0.5) / count * len(order)).astype(np.int64)])


def fit(
    mnk: object,
    seconds: Floats,
    sheet: DataSheet,
    *,
    operand_bytes: float = 2.0,
    families: Sequence[str] = GPU_FAMILIES,
    start: GemmTiming | None = None,
) -> GemmModel:
    """Fit the closed form and its correction to measured GEMMs.

    The closed form is a robust least-squares fit on log time for each tile family and each whole power of the norm;
    the one with the least cost is kept. The search starts from `START` carried to the device by its data sheet.

    Parameters
    ----------
    mnk : int[rows, 3]
        Calibration shapes; a few hundred, `MOST_ROWS` are enough.
    seconds : float[rows]
        Measured times.
    sheet : DataSheet
        The device.
    operand_bytes : float
        2 for bf16 and fp16.
    families : sequence of str
        Tile families to try.
    start : GemmTiming, optional
        Where the search starts, and what holds it where rows tell nothing.

    Returns
    -------
    GemmModel

    Raises
    ------
    InputError
        If rows are too few or a time is not positive.
    """
    shapes, measured = check_shapes(mnk), np.asarray(seconds, dtype=np.float64)
    if len(shapes) < MIN_ROWS:
        raise InputError(f"{len(shapes)} measured GEMMs are too few to fit 12 parameters; give at least {MIN_ROWS}")
    if not (np.isfinite(measured).all() and (measured > 0).all()):
        raise InputError(f"measured time of GEMM {int(np.argmin(measured > 0))} is not a positive number of seconds")
    first = start or carry(START._replace(operand_bytes=operand_bytes), HOPPER, sheet)
    starts = [(first._replace(overlap=overlap), family) for family in families for overlap in OVERLAPS]
    fits = [(*_fit_form(shapes, measured, start, family), family) for start, family in starts]
    timing, _, family = min(fits, key=lambda found: found[1])
    residual = np.log(measured / predict(shapes, timing, TILE_FAMILIES[family]))
    return GemmModel(timing, family, fit_correction(shapes, residual, sheet.sms))


def _fit_form(shapes: Ints, measured: Floats, start: GemmTiming, family: str) -> tuple[GemmTiming, float]:
    from scipy.optimize import least_squares

    first = np.log([getattr(start, name) for name in FITTED])

    def timing_at(z: Floats) -> GemmTiming:
        values: dict[str, Any] = dict(zip(FITTED, map(float, np.exp(z)), strict=True))
        return start._replace(**values)

    def misfit(z: Floats) -> Floats:
        error = np.log(predict(shapes, timing_at(z), TILE_FAMILIES[family]) / measured)
        return np.concatenate([error, PRIOR_WEIGHT * (z - first)])

    found = least_squares(
        misfit,
        first,
        bounds=(first - 5.0, first + 5.0),
        loss="soft_l1",
        f_scale=ROBUST_SCALE,
        diff_step=1e-3,
        max_nfev=25,
        x_scale=0.3,
    )
    return timing_at(found.x), float(found.cost)


def carry(timing: GemmTiming, source: DataSheet, target: DataSheet) -> GemmTiming:
    """Scale a timing model to another device by data sheets alone.

    Latencies go with the clock; what an SM does, with its FLOP/s or its clock; L2 with SMs times clock; DRAM with its
    bandwidth. What one SM can draw from DRAM is requests in flight over latency, and stays.

    Parameters
    ----------
    timing : GemmTiming
        Fitted on `source`.
    source, target : DataSheet
        The two devices.

    Returns
    -------
    GemmTiming
    """
    clock = target.clock_hz / source.clock_hz
    flops = target.flops / source.flops
    fabric = clock * target.sms / source.sms
    return timing._replace(
        sms=target.sms,
        prologue_s=timing.prologue_s / clock,
        step_s=timing.step_s / clock,
        sm_flops=timing.sm_flops * flops * source.sms / target.sms,
        sustained_flops=timing.sustained_flops * flops,
        sm_fill=timing.sm_fill * clock,
        l2=timing.l2 * fabric,
        dram=timing.dram * target.dram / source.dram,
        split=timing.split * fabric,
    )


class Launches(NamedTuple):
    """Measured gathers: union rows and runs, tokens, rows and columns of W, each ``[launches]``."""

    rows: Floats
    runs: Floats
    tokens: Floats
    total_rows: Ints
    outputs: Ints


def predict_gathers(launches: Launches, timing: GemmTiming, page_bytes: float) -> Floats:
    """Seconds of each gather, `sparse.gather_seconds` over launches of many shapes."""
    return gather_seconds(*launches, timing, page_bytes)  # type: ignore[arg-type]


GATHER_FITTED = ("launch_s", "dram", "sm_dram", "sustained_flops")


def fit_gather(launches: Launches, seconds: Floats, start: GemmTiming, page_bytes: float) -> tuple[GemmTiming, float]:
    """Fit the gather's start, bandwidth, rate and the cost of a break to measured launches.

    Parameters
    ----------
    launches : Launches
        Calibration launches.
    seconds : float64[launches]
        Measured times.
    start : GemmTiming
        First guess; what is not in `GATHER_FITTED` is kept.
    page_bytes : float
        First guess, byte.

    Returns
    -------
    GemmTiming, float
        Fitted timing and page.
    """
    fits = [_fit_gather(launches, seconds, start._replace(overlap=overlap), page_bytes) for overlap in OVERLAPS]
    return min(fits, key=lambda found: found[1])[0]


def _fit_gather(
    launches: Launches, seconds: Floats, start: GemmTiming, page_bytes: float
) -> tuple[tuple[GemmTiming, float], float]:
    from scipy.optimize import least_squares

    first = np.log([*(getattr(start, name) for name in GATHER_FITTED), page_bytes])

    def at(z: Floats) -> tuple[GemmTiming, float]:
        values = [float(x) for x in np.exp(z)]
        found: dict[str, Any] = dict(zip(GATHER_FITTED, values, strict=False))
        return start._replace(**found), values[-1]

    def misfit(z: Floats) -> Floats:
        error = np.log(predict_gathers(launches, *at(z)) / seconds)
        return np.concatenate([error, PRIOR_WEIGHT * (z - first)])

    bounds = (first - 6.0, first + 6.0)
    found = least_squares(misfit, first, bounds=bounds, loss="soft_l1", f_scale=ROBUST_SCALE, diff_step=1e-3)
    return at(found.x), float(found.cost)


HOPPER = DataSheet(sms=132, clock_hz=1.98e9, dram=3.35e12, flops=989e12)  # what START describes: an H100 SXM
