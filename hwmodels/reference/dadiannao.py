"""DaDianNao, one cycle for every slice of lanes that the filters in flight consume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import Op

if TYPE_CHECKING:
    from ..arch import Arch


def dadiannao_twin(op: Op, params: Any, arch: Arch) -> int:
    """Step through tokens, groups of filters, and slices of the reduction."""
    cycle = 0
    for _ in range(op.m):
        outputs_left = op.n
        while outputs_left > 0:
            elements_left = op.k
            while elements_left > 0:
                elements_left -= params.lanes
                cycle += 1
            outputs_left -= params.filters * params.tiles
    return cycle * op.repeat
