"""Rows in the groups that hardware runs together, streamed from masks of any size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..mask import BLOCK_ROWS, Mask, Words
from ..op import Op


def group_starts(op: Op, rows: int) -> NDArray[np.int64]:
    """First row of every lock-step group, and M at the end: ``int64[groups + 1]``.

    A group is at most `rows` consecutive rows of one launch; a launch of ``op.batch`` rows starts a new group.
    """
    batch = min(op.batch or op.m, op.m)
    if batch == op.m:
        starts = np.arange(-(-op.m // rows) + 1, dtype=np.int64) * rows
        starts[-1] = op.m
        return starts
    within = np.arange(0, batch, rows, dtype=np.int64)
    launches = np.arange(0, op.m, batch, dtype=np.int64)
    starts = (launches[:, None] + within[None, :]).ravel()
    return np.append(starts[starts < op.m], op.m)


def grouped_blocks(mask: Mask, starts: NDArray[np.int64]) -> Iterator[tuple[Words, NDArray[np.int64]]]:
    """Stream a mask in blocks that hold whole groups.

    Yields
    ------
    words : uint64[rows, words]
        Consecutive rows.
    local : int64[groups + 1]
        Starts of the groups within `words`, and its length.
    """
    held: list[Words] = []
    first = done = group = 0
    for block in mask.blocks(BLOCK_ROWS):
        if len(block) == starts[-1]:
            yield np.ascontiguousarray(block), starts
            return
        held.append(block)
        done += len(block)
        last = int(np.searchsorted(starts, done, side="right")) - 1
        if last == group:
            continue
        words = held[0] if len(held) == 1 else np.concatenate(held)
        cut = int(starts[last]) - first
        yield np.ascontiguousarray(words[:cut]), starts[group : last + 1] - first
        held = [words[cut:]] if cut < len(words) else []
        first, group = int(starts[last]), last
