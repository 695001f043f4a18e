"""On-chip wires: energy of a bit over a distance, of a broadcast to many tiles, and of the clock tree.

Source of the wire energy: S. W. Keckler et al., "GPUs and the future of parallel computing", IEEE Micro 31(5) (2011)
7-17, doi:10.1109/MM.2011.89: 310 pJ for 256 bits over 10 mm at 40 nm, 0.9 V, and 200 (150 in a low-power variant) at
10 nm; recalled, so assumed. Source of the clock tree: the power breakdowns of EIE and DaDianNao.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from ..errors import InputError, nearest

Topology = Literal["unicast", "tree", "neighbour"]
# pJ per bit and mm, half of the bits toggling: node in nm -> energy
WIRE_PJ_PER_BIT_MM = {40.0: 310 / 2560, 10.0: 175 / 2560}

# Power of the clock network over all other dynamic power of the chip without its interfaces. EIE: 1.874 of 9.157 mW a
# PE; DaDianNao: .71 of 7.97 W. The value is their geometric mean, assumed; the range is the two.
CLOCK_TREE_LOW = 0.71 / (7.97 - 0.71)
CLOCK_TREE_HIGH = 1.874 / (9.157 - 1.874)
CLOCK_TREE = math.sqrt(CLOCK_TREE_LOW * CLOCK_TREE_HIGH)


def wire_pj_per_bit_mm(node_nm: float) -> float:
    """Energy of one bit over 1 mm, pJ, a power law in the node through the two published ones.

    Raises
    ------
    InputError
        If the node is not above 0.
    """
    if node_nm <= 0:
        raise InputError(f"node {node_nm:g} nm must be above 0")
    low, high = sorted(WIRE_PJ_PER_BIT_MM)
    exponent = math.log(WIRE_PJ_PER_BIT_MM[high] / WIRE_PJ_PER_BIT_MM[low]) / math.log(high / low)
    return WIRE_PJ_PER_BIT_MM[high] * (node_nm / high) ** exponent


def path_mm(area_mm2: float, targets: int, topology: str) -> float:
    """Length of wire that one bit drives to reach `targets` tiles that share an area.

    Parameters
    ----------
    area_mm2 : float
        Area over which the tiles lie, mm2; a square of side ``L``.
    targets : int
        Tiles, 1 or more.
    topology : {"unicast", "tree", "neighbour"}
        ``unicast``: a path of its own from the middle to each, ``targets L / 2``. ``tree``: paid once over an H-tree,
        ``L / 2 + 3/2 L (sqrt(targets) - 1)``, or the unicast where that is shorter. ``neighbour``: handed on from tile
        to tile, ``targets`` hops of ``L / sqrt(targets)``.

    Returns
    -------
    float
        mm.

    Raises
    ------
    InputError
        On an unknown topology, no targets, or a negative area.
    """
    if targets < 1 or area_mm2 < 0:
        raise InputError(
            f"a broadcast needs at least 1 target and an area of at least 0, not {targets}, {area_mm2:g} mm2"
        )
    side = math.sqrt(area_mm2)
    if topology == "unicast":
        return targets * side / 2
    if topology == "tree":
        return min(targets * side / 2, side / 2 + 1.5 * side * (math.sqrt(targets) - 1))
    if topology == "neighbour":
        return math.sqrt(targets) * side
    raise InputError(f"unknown topology '{topology}'" + nearest(topology, get_args(Topology)))


def broadcast_pj(bits: float, area_mm2: float, targets: int, topology: str, node_nm: float) -> float:
    """Energy of `bits` delivered to every one of `targets` tiles, pJ."""
    return bits * wire_pj_per_bit_mm(node_nm) * path_mm(area_mm2, targets, topology)
