"""Systolic array, stepped cycle by cycle: operands move one PE a cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import Op

if TYPE_CHECKING:
    from ..arch import Arch


def systolic_twin(op: Op, params: Any, arch: Arch) -> int:
    """Count the cycles of every fold by stepping loads and skewed streams."""
    total = 0
    batch = min(op.batch or op.m, op.m)
    for first in range(0, op.m, batch):
        tokens = min(batch, op.m - first)
        if params.stationary == "output":
            folds, streamed, load = -(-tokens // params.rows), op.k, 0
        else:
            folds, streamed, load = -(-op.k // params.rows), tokens, params.rows
        for _ in range(folds * -(-op.n // params.columns)):
            total += load + _fold(params.rows, params.columns, streamed)
    return total * op.repeat


def _fold(rows: int, columns: int, streamed: int) -> int:
    """One fold after its load: the skewed wave front crosses the array; sums leave right behind it."""
    finished = 0
    wave = 0
    while finished < streamed:
        # element s enters row r at wave s + r and leaves the last column C - 1 waves later
        if wave - (rows - 1) - (columns - 1) == finished:
            finished += 1
        wave += 1
    return wave
