"""Dual-side sparse tensor core, one outer-product step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..op import Op
from .outputs import dense_bools, launches

if TYPE_CHECKING:
    from ..arch import Arch

Bools = NDArray[np.bool_]


def dstc_twin(op: Op, params: Any, arch: Arch) -> int:
    """Walk warp tiles and k; take the non-zeros of both sides in steps, `units` steps a cycle."""
    activation, weight, needed = dense_bools(op)
    cycle = 0
    for launch in launches(op, op.m):
        steps = _steps(activation, weight, needed, launch, params)
        while steps > 0:
            steps -= params.units
            cycle += 1
    return cycle * op.repeat


def _steps(activation: Bools, weight: Bools, needed: Bools, launch: tuple[int, int], params: Any) -> int:
    steps = 0
    n, k = weight.shape
    for first in range(*launch, params.tile):
        stop = min(first + params.tile, launch[1])
        for output in range(0, n, params.tile):
            outputs = slice(output, output + params.tile)
            if not needed[first:stop, outputs].any():
                continue
            for channel in range(k):
                rows = int(activation[first:stop, channel].sum())
                columns = int(weight[outputs, channel].sum())
                for _ in range(0, rows, params.step_m):
                    for _ in range(0, columns, params.step_n):
                        steps += 1
    return steps
