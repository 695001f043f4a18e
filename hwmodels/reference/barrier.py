"""The array with a barrier after each K tile, stepped; and its foil, summed over the hypergeometric distribution."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb
from typing import TYPE_CHECKING, Any

from ..mask import load
from ..op import Op

if TYPE_CHECKING:
    from ..arch import Arch


def barrier_twin(op: Op, params: Any, arch: Arch) -> int:
    """Let every row of a group take one non-zero a cycle until all are through the tile."""
    mask = load(op.activation_or_ones()).to_bool()
    cycles = 0
    for group in _groups(op, params.rows):
        for first in range(0, op.k, params.k_tile):
            left = [int(mask[row, first : first + params.k_tile].sum()) for row in group]
            while any(left):
                cycles += 1
                left = [max(0, nonzeros - 1) for nonzeros in left]
    return cycles * -(-op.n // params.columns) * op.repeat


def statistical_twin(op: Op, params: Any, arch: Arch) -> int:
    """Sum the mean of the hypergeometric distribution of every tile's non-zeros."""
    population, nonzeros = op.m * op.k, op.activation_nonzeros // op.repeat
    ways = comb(population, nonzeros)
    expected = Fraction(0)
    for _ in _groups(op, params.rows):
        for first in range(0, op.k, params.k_tile):
            tile = min(params.k_tile, op.k - first)
            expected += sum(
                n * Fraction(comb(tile, n) * comb(population - tile, nonzeros - n), ways)
                for n in range(min(tile, nonzeros) + 1)
            )
    return ceil(expected * -(-op.n // params.columns)) * op.repeat


def _groups(op: Op, rows: int) -> list[range]:
    batch = min(op.batch or op.m, op.m)
    return [
        range(first, min(first + rows, launch + batch, op.m))
        for launch in range(0, op.m, batch)
        for first in range(launch, min(launch + batch, op.m), rows)
    ]
