"""Vector ops (norms, softmax, activation, residual): what no matrix engine speeds up.

    cycles = ceil(elements / lanes)

with the lanes of the arch's vector unit, at one element each cycle. Operands are taken to be on the chip still
(fused with the GEMM before), so no DRAM traffic is charged; a GPU states its lanes from its memory bandwidth instead.
"""

from __future__ import annotations

from .arch import Arch
from .counts import Counts
from .errors import InputError


def simulate_vector(elements: int, arch: Arch) -> Counts:
    """Count a vector op of `elements` elements.

    Parameters
    ----------
    elements : int
        Elements of the op over all tokens.
    arch : Arch
        Arch with a vector unit.

    Returns
    -------
    Counts
        Cycles without stalls; DRAM bytes are 0.

    Raises
    ------
    InputError
        If there is nothing to do, or the arch has no vector unit.

    Examples
    --------
    >>> hwmodels.simulate_vector(1000, hwmodels.load_arch("cnvlutin")).actions
    {'vector.element': 1000}
    """
    if elements < 1:
        raise InputError(f"a vector op has {elements} elements, must be at least 1")
    if arch.vector_lanes is None:
        raise InputError(f"arch '{arch.name}' states no vector unit; add vector_lanes, or replay the GEMMs alone")
    lanes = float(arch.vector_lanes.value)
    if lanes <= 0:
        raise InputError(f"arch '{arch.name}': vector_lanes = {lanes:g}, must be positive")
    cycles = -int(-elements // lanes)
    return Counts(
        cycles=cycles,
        dense_cycles=cycles,
        stall_cycles=0,
        dense_stall_cycles=0,
        macs=0,
        effectual_macs=0,
        dram_bytes=0,
        actions={"vector.element": elements},
        stalls={},
    )
