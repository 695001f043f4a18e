"""Output-side skipping: which outputs of a token are needed, in the tiles that a design computes at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..op import Op
from ._jit import jit, popcount64


@jit
def _needed_tiles(words, n, width, tiles, outputs):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        used = kept = 0
        for first in range(0, n, width):
            last = min(first + width, n)
            found = 0
            for word in range(first // 64, (last + 63) // 64):
                bits = words[row, word]
                if word * 64 < first:
                    bits &= ~np.uint64(0) << np.uint64(first - word * 64)
                if last - word * 64 < 64:
                    bits &= (np.uint64(1) << np.uint64(last - word * 64)) - np.uint64(1)
                found += popcount64(bits)
            if found > 0:
                used += 1
                kept += last - first
        tiles[row] = used
        outputs[row] = kept


def needed_tiles(op: Op, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tiles of `width` outputs that each token has to compute.

    A design that computes `width` outputs in lock-step can leave out a tile of which no output is needed; a tile with
    one needed output is computed whole.

    Parameters
    ----------
    op : Op
        Its output mask (M, N) says what is needed; None means everything.
    width : int
        Outputs computed together.

    Returns
    -------
    tiles : int64[M]
        Tiles computed, at most ``ceil(N / width)``.
    outputs : int64[M]
        Outputs in those tiles, at most N.
    """
    if op.output is None:
        return np.full(op.m, -(-op.n // width), dtype=np.int64), np.full(op.m, op.n, dtype=np.int64)
    tiles = np.zeros(op.m, dtype=np.int64)
    outputs = np.zeros(op.m, dtype=np.int64)
    start = 0
    for block in op.output.blocks():
        stop = start + len(block)
        _needed_tiles(block, op.n, width, tiles[start:stop], outputs[start:stop])
        start = stop
    return tiles, outputs
