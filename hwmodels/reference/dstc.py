"""Dual-side sparse tensor core, one outer-product step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import Op
from .outputs import dense_bools, launches

if TYPE_CHECKING:
    from ..arch import Arch


def dstc_twin(op: Op, params: Any, arch: Arch) -> int:
    """Walk warp tiles and k; take the non-zeros of both sides in steps, `units` steps a cycle."""
    activation, weight, needed = dense_bools(op)
    steps = 0
    for first, stop in launches(op, params.tile):
        for output in range(0, op.n, params.tile):
            outputs = slice(output, output + params.tile)
            if not needed[first:stop, outputs].any():
                continue
            for k in range(op.k):
                rows = int(activation[first:stop, k].sum())
                columns = int(weight[outputs, k].sum())
                for _ in range(0, rows, params.step_m):
                    for _ in range(0, columns, params.step_n):
                        steps += 1
    cycle = 0
    while steps > 0:
        steps -= params.units
        cycle += 1
    return cycle * op.repeat
