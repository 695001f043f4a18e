"""Energy between technology nodes, after Stillmaker and Baas.

    E(to) = E(from) f_to(V_to) / f_from(V_from),   f(V) = a V^2 + b V + c

Coefficients are the paper's energy fits, 180 nm to 7 nm: bulk CMOS down to 65 nm, high-performance (HP) devices
below; R^2 > 0.95 against circuit simulation. Its example comes out as the authors corrected it: 1 pJ at 65 nm and
1.3 V is 0.1755 pJ at 32 nm and 0.9 V.

Source: A. Stillmaker, B. Baas, "Scaling equations for the accurate prediction of CMOS device performance from
180 nm to 7 nm", Integration 58 (2017) 74-81, doi:10.1016/j.vlsi.2017.02.002.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from .errors import InputError


class Fit(NamedTuple):
    """Energy fit of a node: ``a V^2 + b V + c``, and the nominal supply of its device model, V."""

    a: float
    b: float
    c: float
    nominal_v: float


FITS = {
    180.0: Fit(0.0, 24.64, -17.98, 1.8),
    130.0: Fit(7.171, -6.709, 2.904, 1.3),
    90.0: Fit(4.762, -4.781, 2.092, 1.2),
    65.0: Fit(3.755, -4.398, 1.975, 1.1),
    45.0: Fit(1.018, -0.3107, 0.1539, 1.0),
    32.0: Fit(0.8367, -0.4341, 0.1701, 0.9),
    20.0: Fit(0.373, -0.1582, 0.04104, 0.9),
    16.0: Fit(0.2958, -0.1241, 0.03024, 0.85),
    14.0: Fit(0.2363, -0.09675, 0.02239, 0.8),
    10.0: Fit(0.2068, -0.09311, 0.02375, 0.75),
    7.0: Fit(0.1776, -0.09097, 0.02447, 0.7),
}


@lru_cache(maxsize=1024)
def energy_factor(from_nm: float, to_nm: float, from_v: float | None = None, to_v: float | None = None) -> float:
    """Energy of one operation at `to_nm` relative to `from_nm`.

    Parameters
    ----------
    from_nm, to_nm : float
        Nodes, nm, from 7 to 180. Between two nodes of the paper (28, 22, 12 nm ...) the fit is interpolated
        log-log at nominal supply, which is ours, not the paper's.
    from_v, to_v : float, optional
        Supplies, V; nominal of the node where not given.

    Returns
    -------
    float
        Dimensionless factor; 1 for equal nodes and supplies.

    Raises
    ------
    InputError
        If a node is outside 7 ... 180 nm, or a supply outside half to 1.5 times the nominal one, or given
        for a node that the paper does not have.
    """
    if from_nm == to_nm and from_v == to_v:
        return 1.0
    return _relative_energy(to_nm, to_v) / _relative_energy(from_nm, from_v)


def _relative_energy(node_nm: float, supply_v: float | None) -> float:
    fit = FITS.get(float(node_nm))
    if fit is not None:
        volts = fit.nominal_v if supply_v is None else supply_v
        if not 0.5 * fit.nominal_v <= volts <= 1.5 * fit.nominal_v:
            raise InputError(
                f"supply {volts} V at {node_nm:g} nm is outside the fit; use {0.5 * fit.nominal_v:g} to "
                f"{1.5 * fit.nominal_v:g} V"
            )
        return fit.a * volts**2 + fit.b * volts + fit.c
    known = sorted(FITS)
    if not known[0] <= node_nm <= known[-1]:
        raise InputError(
            f"no energy scaling for node {node_nm:g} nm; use one from {known[0]:g} to {known[-1]:g} nm, "
            "the range of Stillmaker and Baas"
        )
    if supply_v is not None:
        raise InputError(
            f"no published fit at {node_nm:g} nm for a supply of {supply_v} V; leave the supply out, or use "
            + ", ".join(f"{node:g}" for node in known)
            + " nm"
        )
    above = next(node for node in known if node > node_nm)
    below = known[known.index(above) - 1]
    share = math.log(node_nm / below) / math.log(above / below)
    low, high = _relative_energy(below, None), _relative_energy(above, None)
    return float(low * (high / low) ** share)
