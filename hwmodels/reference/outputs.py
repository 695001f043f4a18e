"""Output-side skipping, tile by tile, from the definition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..mask import load
from ..op import Op


def dense_bools(op: Op) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Unpack an op: activation (M, K), weight (N, K), needed outputs (M, N)."""
    needed = np.ones((op.m, op.n), dtype=np.bool_) if op.output is None else load(op.output).to_bool()
    return load(op.activation_or_ones()).to_bool(), op.weight_or_ones().to_bool(), needed


def tiles_needed(needed_row: NDArray[np.bool_], width: int) -> int:
    """Tiles of `width` outputs with at least one needed output."""
    return sum(bool(needed_row[first : first + width].any()) for first in range(0, len(needed_row), width))


def launches(op: Op, rows: int) -> list[tuple[int, int]]:
    """Groups of at most `rows` consecutive tokens that never cross a launch, as (first, stop)."""
    batch = min(op.batch or op.m, op.m)
    groups = []
    for launch in range(0, op.m, batch):
        end = min(launch + batch, op.m)
        groups += [(first, min(first + rows, end)) for first in range(launch, end, rows)]
    return groups
