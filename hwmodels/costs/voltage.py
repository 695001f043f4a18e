"""Supply voltage: dynamic energy, leakage and the highest clock.

Energy follows the fits of Stillmaker and Baas (`scaling.FITS`), relative to the node's nominal supply; between their
nodes the ratio is interpolated log-log at equal shares of the nominal supply. Memories and wires take the ratio of
logic (assumed). Leakage power is taken as ``V^3``: the supply itself, and a sub-threshold current that rises through
drain-induced barrier lowering (assumed). The clock follows the alpha-power law,

    f(V) = f_nominal  g(V) / g(V_nominal),   g(V) = (V - V_t)^alpha / V

of T. Sakurai, A. R. Newton, IEEE JSSC 25 (1990) 584, doi:10.1109/4.52187. `PUBLISHED` holds what chips reached at two
supplies; alpha = 2 and V_t = 0.28 V fit their ratios within 30 %.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..errors import InputError
from ..scaling import FITS

ALPHA = 2.0
THRESHOLD_V = 0.28
LEAKAGE_EXPONENT = 3.0
# shares of the nominal supply over which the energy fits hold
LEAST_SHARE, MOST_SHARE = 0.5, 1.5


class Shmoo(NamedTuple):
    """Clocks of one chip at two supplies: (V, Hz) twice, with the node and where it stands."""

    node_nm: float
    low: tuple[float, float]
    high: tuple[float, float]
    source: str


# Recalled from the papers, so assumed.
PUBLISHED = (
    Shmoo(65.0, (0.95, 3.16e9), (1.2, 5.1e9), "Vangal et al. 2008, 80 cores, JSSC 43(1)"),
    Shmoo(65.0, (0.82, 100e6), (1.17, 250e6), "Chen et al. 2017, Eyeriss, JSSC 52(1)"),
    Shmoo(16.0, (0.42, 161e6), (1.2, 2.0e9), "Shao et al. 2019, Simba, MICRO-52"),
)

# Clock that dense datapaths reached at about the nominal supply: throughput processors on the market by node, recalled
# from their data sheets, so assumed. A design may state less; more needs a higher supply.
NOMINAL_CLOCK_HZ = {65.0: 1.35e9, 45.0: 1.55e9, 28.0: 1.60e9, 16.0: 1.90e9, 7.0: 2.25e9, 5.0: 2.60e9}


def nominal_supply_v(node_nm: float) -> float:
    """Nominal supply of a node, V: of `scaling.FITS`, linear between its nodes.

    Raises
    ------
    InputError
        If the node lies outside 7 to 180 nm.
    """
    below, above, share = _around(node_nm)
    return FITS[below].nominal_v * (1 - share) + FITS[above].nominal_v * share


def energy_ratio(node_nm: float, supply_v: float) -> float:
    """Dynamic energy of an operation at `supply_v` over that at the nominal supply.

    Raises
    ------
    InputError
        If node or supply lies outside the fits; the message names the range.
    """
    share_v = _share_of_nominal(node_nm, supply_v)
    below, above, share = _around(node_nm)
    low, high = (_fit_ratio(node, share_v) for node in (below, above))
    return low ** (1 - share) * high**share


def leakage_ratio(node_nm: float, supply_v: float) -> float:
    """Leakage power at `supply_v` over that at the nominal supply, ``(V / V_nominal)^3`` (assumed)."""
    return float(_share_of_nominal(node_nm, supply_v) ** LEAKAGE_EXPONENT)


def clock_ratio(from_v: float, to_v: float) -> float:
    """Clock at `to_v` over that at `from_v` by the alpha-power law.

    Raises
    ------
    InputError
        If a supply is not above the threshold.
    """
    for supply in (from_v, to_v):
        if supply <= THRESHOLD_V:
            raise InputError(f"supply {supply:g} V is not above the threshold of {THRESHOLD_V:g} V; raise the voltage")
    return _speed(to_v) / _speed(from_v)


def max_clock_hz(node_nm: float, supply_v: float | None = None) -> float:
    """Highest clock at a supply (nominal if None), Hz."""
    nominal = nominal_supply_v(node_nm)
    return _nominal_clock_hz(node_nm) * clock_ratio(nominal, nominal if supply_v is None else supply_v)


def least_supply_v(node_nm: float, clock_hz: float) -> float:
    """Lowest supply at which `clock_hz` is reached, V; infinite if none within the energy fits does."""
    nominal = nominal_supply_v(node_nm)
    low, high = max(LEAST_SHARE * nominal, THRESHOLD_V * 1.001), MOST_SHARE * nominal
    if max_clock_hz(node_nm, high) < clock_hz:
        return math.inf
    if max_clock_hz(node_nm, low) >= clock_hz:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if max_clock_hz(node_nm, middle) >= clock_hz else (middle, high)
    return high


def check_clock(what: str, clock_hz: float, node_nm: float, supply_v: float | None) -> None:
    """Refuse a clock that the supply does not allow.

    Raises
    ------
    InputError
        Naming the highest clock, and the supply that would do.
    """
    limit = max_clock_hz(node_nm, supply_v)
    if clock_hz <= limit * (1 + 1e-9):
        return
    at = nominal_supply_v(node_nm) if supply_v is None else supply_v
    needed = least_supply_v(node_nm, clock_hz)
    remedy = f"set clock to {limit / 1e9:.3g} GHz or less"
    if math.isfinite(needed):
        remedy += f", or voltage to {math.ceil(needed * 1000) / 1000:g} V"
    raise InputError(
        f"{what}: clock {clock_hz / 1e9:.4g} GHz is above the {limit / 1e9:.3g} GHz that {node_nm:g} nm reaches at "
        f"{at:.3g} V; {remedy}"
    )


def _speed(supply_v: float) -> float:
    return float((supply_v - THRESHOLD_V) ** ALPHA / supply_v)


def _nominal_clock_hz(node_nm: float) -> float:
    nodes = sorted(NOMINAL_CLOCK_HZ)
    place = min(max(1, sum(node < node_nm for node in nodes)), len(nodes) - 1)
    low, high = nodes[place - 1], nodes[place]
    exponent = math.log(NOMINAL_CLOCK_HZ[high] / NOMINAL_CLOCK_HZ[low]) / math.log(high / low)
    return float(NOMINAL_CLOCK_HZ[low] * (node_nm / low) ** exponent)


def _share_of_nominal(node_nm: float, supply_v: float) -> float:
    nominal = nominal_supply_v(node_nm)
    share = supply_v / nominal
    if not LEAST_SHARE - 1e-9 <= share <= MOST_SHARE + 1e-9:
        raise InputError(
            f"supply {supply_v:g} V at {node_nm:g} nm is outside the energy fit; use {LEAST_SHARE * nominal:.3g} to "
            f"{MOST_SHARE * nominal:.3g} V"
        )
    return share


def _fit_ratio(node: float, share: float) -> float:
    a, b, c, nominal = FITS[node]
    volts = share * nominal
    # below its vertex the parabola would rise again (65 nm), and the line of 180 nm turn negative: a square law goes on
    least = -b / (2 * a) if a else 0.85 * nominal
    held = max(volts, least)
    return (a * held**2 + b * held + c) / (a * nominal**2 + b * nominal + c) * (volts / held) ** 2


def _around(node_nm: float) -> tuple[float, float, float]:
    known = sorted(FITS)
    if not known[0] <= node_nm <= known[-1]:
        raise InputError(f"no supply known for node {node_nm:g} nm; use one from {known[0]:g} to {known[-1]:g} nm")
    above = next(node for node in known if node >= node_nm)
    if above == node_nm:
        return above, above, 0.0
    below = known[known.index(above) - 1]
    return below, above, math.log(node_nm / below) / math.log(above / below)
