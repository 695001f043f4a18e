"""Cnvlutin, stepped cycle by cycle: every lane works through its own queue of bricks."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..op import Op
from .outputs import dense_bools, tiles_needed

if TYPE_CHECKING:
    from ..arch import Arch


def cnvlutin_twin(op: Op, params: Any, arch: Arch) -> int:
    """Run every pass of every token until its last lane is done."""
    activation, _, needed = dense_bools(op)
    width = params.filters * params.tiles
    cycle = waiting = 0
    for token in range(op.m):
        for _ in range(tiles_needed(needed[token], width)):
            if params.sync == "none":
                waiting += int(activation[token].sum())
            else:
                cycle += _dot_product(activation[token], params)
    while waiting > 0:
        waiting -= params.lanes
        cycle += 1
    return cycle * op.repeat


def _dot_product(row: NDArray[np.bool_], params: Any) -> int:
    queues: list[deque[int]] = [deque() for _ in range(params.lanes)]
    for index, first in enumerate(range(0, len(row), params.brick)):
        work = int(row[first : first + params.brick].sum())
        if work or params.empty_brick_cycles:
            queues[index % params.lanes].append(max(work, 1))
    cycle = 0
    while any(queues):
        for queue in queues:
            if queue:
                queue[0] -= 1
                if queue[0] == 0:
                    queue.popleft()
        cycle += 1
    return cycle
