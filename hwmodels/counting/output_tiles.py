"""Output-side skipping: which outputs of a token are needed, in the tiles that a design computes at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..mask import Mask
from ..op import Op
from .groups import grouped_blocks
from .jit import jit, ones_between


@jit
def _needed_tiles(words, n, width, tiles, outputs):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        for first in range(0, n, width):
            last = min(first + width, n)
            if ones_between(words, row, first, last) > 0:
                tiles[row] += 1
                outputs[row] += last - first


@jit
def _grouped_tiles(words, starts, n, width, needed):  # type: ignore[no-untyped-def]
    for group in range(starts.shape[0] - 1):
        for row in range(starts[group], starts[group + 1]):
            for tile in range(needed.shape[1]):
                if ones_between(words, row, tile * width, min(tile * width + width, n)) > 0:
                    needed[group, tile] = True


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


def grouped_tiles(output: Mask, starts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Which tiles of `width` outputs any token of a group needs: ``bool[groups, ceil(N / width)]``.

    Parameters
    ----------
    output : Mask
        Needed outputs (M, N).
    starts : int64[groups + 1]
        First row of every group, and M.
    width : int
        Outputs computed together.
    """
    n = output.shape[1]
    needed = np.zeros((len(starts) - 1, -(-n // width)), dtype=np.bool_)
    first = 0
    for words, local in grouped_blocks(output, starts):
        _grouped_tiles(words, local, n, width, needed[first : first + len(local) - 1])
        first += len(local) - 1
    return needed
