"""Area of one circuit at several technology nodes."""

from __future__ import annotations

import math

from ..errors import InputError

# Area of a 6T cell, um2, recalled from the foundries' announcements, so assumed. Below 22 nm the square of the node's
# name would promise a third of what these cells take.
BITCELL_UM2 = {22.0: 0.092, 16.0: 0.074, 14.0: 0.0588, 10.0: 0.0312, 7.0: 0.027}
LARGEST_NM = 180.0


def area_factor(from_nm: float, to_nm: float) -> float:
    """Area at `to_nm` over area at `from_nm`: the square of the node down to 22 nm, SRAM cells below (assumed).

    Raises
    ------
    InputError
        If a node lies outside 7 to 180 nm.
    """
    return _relative_area(to_nm) / _relative_area(from_nm)


def _relative_area(node_nm: float) -> float:
    nodes = sorted(BITCELL_UM2)
    if not nodes[0] <= node_nm <= LARGEST_NM:
        raise InputError(f"no area scaling for node {node_nm:g} nm; use one from {nodes[0]:g} to {LARGEST_NM:g} nm")
    if node_nm >= nodes[-1]:
        return BITCELL_UM2[nodes[-1]] * (node_nm / nodes[-1]) ** 2
    above = next(node for node in nodes if node > node_nm)
    below = nodes[nodes.index(above) - 1]
    share = math.log(node_nm / below) / math.log(above / below)
    return float(BITCELL_UM2[below] * (BITCELL_UM2[above] / BITCELL_UM2[below]) ** share)
