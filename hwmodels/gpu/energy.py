"""Energy of work on a GPU: watts for being on, joules for each FLOP and byte.

    E = P_idle t + e_flop FLOP + e_byte bytes

fitted by non-negative least squares on relative error. Where power at the top clock would exceed the limit the clock
falls until it does not; dynamic power goes with ``f V^2`` and V with f:

    f / f_top = ((TDP - idle) / P_dyn)^(1/3)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from ..errors import InputError
from .timing import Floats


class EnergyModel(NamedTuple):
    """Idle power at boost clock (W), and pJ of a FLOP and of a byte."""

    idle_w: float
    flop_pj: float
    byte_pj: float

    def predict(self, seconds: Floats, flops: Floats, moved_bytes: Floats) -> Floats:
        """Joules of each run, ``float64[runs]``."""
        return self.idle_w * seconds + 1e-12 * (self.flop_pj * flops + self.byte_pj * moved_bytes)


def fit_energy(seconds: Floats, flops: Floats, moved_bytes: Floats, joules: Floats) -> EnergyModel:
    """Fit the three terms to measured runs.

    Parameters
    ----------
    seconds, flops, moved_bytes : float64[runs]
        Duration, FLOP and bytes that the operations read and write.
    joules : float64[runs]
        Measured energy.

    Returns
    -------
    EnergyModel

    Raises
    ------
    InputError
        If there are fewer runs than terms, or an energy is not positive.
    """
    if len(joules) < 4:
        raise InputError(f"{len(joules)} measured runs are too few to fit three energy terms; give at least 4")
    if not (np.asarray(joules) > 0).all():
        raise InputError(f"measured energy of run {int(np.argmin(np.asarray(joules) > 0))} is not positive")
    terms = np.stack([seconds, 1e-12 * flops, 1e-12 * moved_bytes], axis=1) / joules[:, None]
    scale = terms.max(axis=0)
    found, _ = nnls(terms / scale, np.ones(len(joules)))
    return EnergyModel(*(float(x) for x in found / scale))


def clock_share_under_limit(dynamic_w: Floats | float, idle_w: float, limit_w: float) -> Floats:
    """Share of the top clock at which idle plus dynamic power meets the limit; 1 where it never exceeds it.

    Parameters
    ----------
    dynamic_w : float64[...]
        Dynamic power at the top clock, W.
    idle_w, limit_w : float
        Idle power and power limit, W.

    Returns
    -------
    float64[...]

    Raises
    ------
    InputError
        If the limit is not above the idle power.
    """
    if limit_w <= idle_w:
        raise InputError(f"power limit {limit_w} W is not above the idle power {idle_w} W")
    room_w = limit_w - idle_w
    return np.asarray((room_w / np.maximum(dynamic_w, room_w)) ** (1.0 / 3.0))
