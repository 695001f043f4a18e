"""Energy of work on a GPU: watts for being on, joules for each FLOP and byte.

    E = P_idle t + e_flop FLOP + e_byte bytes

fitted by non-negative least squares on relative error.

No clock is solved for here. What the power limit takes away is in the timing model's ``sustained_flops``, which is
measured under that limit; a second slow-down for power above it makes an H200 carried from an H100 5.8 % off in place
of 5.5 %. Only devices that nobody measured have their rate lowered by a predicted power, in their own YAML: dynamic
power goes with ``f V^2`` and V with f, so ``f / f_top = ((TDP - idle) / P_dyn)^(1/3)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    from scipy.optimize import nnls

    if len(joules) < 4:
        raise InputError(f"{len(joules)} measured runs are too few to fit three energy terms; give at least 4")
    if not (np.asarray(joules) > 0).all():
        raise InputError(f"measured energy of run {int(np.argmin(np.asarray(joules) > 0))} is not positive")
    terms = np.stack([seconds, 1e-12 * flops, 1e-12 * moved_bytes], axis=1) / joules[:, None]
    scale = terms.max(axis=0)
    found, _ = nnls(terms / scale, np.ones(len(joules)))
    return EnergyModel(*(float(x) for x in found / scale))
