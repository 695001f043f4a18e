"""TensorDash, cycle by cycle: every lane picks its element from an explicit window of sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..mask import load
from ..op import Op

if TYPE_CHECKING:
    from ..arch import Arch


def tensordash_twin(op: Op, params: Any, arch: Arch) -> int:
    """Count the cycles of every lock-step group."""
    dense = load(op.activation_or_ones()).to_bool()
    passes = -(-op.n // (params.columns * params.tiles))
    batch = min(op.batch or op.m, op.m)
    total = 0
    for launch in range(0, op.m, batch):
        end = min(launch + batch, op.m)
        for first in range(launch, end, params.rows):
            total += group_cycles(dense[first : min(first + params.rows, end)], params)
    return total * passes * op.repeat


def group_cycles(rows: np.ndarray, params: Any) -> int:
    """Cycles of rows that move together: ``bool[rows, K]``."""
    lanes, depth = params.lanes, params.lookahead + 1
    steps = -(-rows.shape[1] // lanes)
    left = [
        [{k - s * lanes for k in range(s * lanes, min((s + 1) * lanes, len(row))) if row[k]} for s in range(steps)]
        for row in rows
    ]
    at = cycles = 0
    while at < steps:
        cycles += 1
        for row in left:
            _one_cycle(row[at : at + depth], params)
        advance = 1
        while advance < depth and all(not s for row in left for s in row[at + advance : at + advance + 1]):
            advance += 1
        at += advance
    return cycles


def levels(params: Any) -> list[list[int]]:
    """Lanes by the level in which they choose."""
    stride = params.level_stride
    whole = params.lanes // stride * stride
    together = [list(range(first, whole, stride)) for first in range(min(stride, whole))]
    return together + [[lane] for lane in range(whole, params.lanes)]


def _one_cycle(window: list[set[int]], params: Any) -> None:
    for level in levels(params):
        for lane in level:
            for ahead, aside in params.offsets:
                wanted = (lane + aside) % params.lanes
                if ahead < len(window) and wanted in window[ahead]:
                    window[ahead].remove(wanted)
                    break
