"""Rooflines to be compared with: what a prediction must beat to be worth its parameters.

Source: Williams, Waterman, Patterson, Roofline, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .calibrate import DataSheet
from .timing import Floats, check_shapes


class Roofline(NamedTuple):
    """``t = launch_s + max(2 m n k / flops, bytes / dram)``."""

    launch_s: float
    flops: float
    dram: float

    def predict(self, mnk: object, operand_bytes: float = 2.0) -> Floats:
        """Seconds of each GEMM, ``float64[ops]``."""
        m, n, k = check_shapes(mnk).astype(np.float64).T
        moved = operand_bytes * (m * k + n * k + m * n)
        return np.asarray(self.launch_s + np.maximum(2.0 * m * n * k / self.flops, moved / self.dram))


def naive_roofline(sheet: DataSheet) -> Roofline:
    """Roofline of the data sheet: no launch, all FLOP/s and all bandwidth reached."""
    return Roofline(0.0, sheet.flops, sheet.dram)


def calibrated_roofline(mnk: object, seconds: Floats, sheet: DataSheet, operand_bytes: float = 2.0) -> Roofline:
    """Fit the roofline's three numbers to measured GEMMs (robust least squares on log time)."""
    from scipy.optimize import least_squares

    first = np.log([2e-6, sheet.flops, sheet.dram])

    def misfit(z: Floats) -> Floats:
        return np.log(Roofline(*np.exp(z)).predict(mnk, operand_bytes) / seconds)

    found = least_squares(misfit, first, loss="soft_l1", f_scale=0.1)
    return Roofline(*(float(x) for x in np.exp(found.x)))
