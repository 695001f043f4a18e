"""EIE, cycle by cycle: a scanning broadcaster, a FIFO in front of each PE, PEs that take an entry a cycle."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..mask import load
from ..op import Op

if TYPE_CHECKING:
    from ..arch import Arch


def eie_twin(op: Op, params: Any, arch: Arch) -> int:
    """Sum the cycles of every token."""
    lines = _lines(op, params)
    bias = [len(range(pe, op.n, params.pes)) if params.bias else 0 for pe in range(params.pes)]
    tokens = load(op.activation_or_ones()).to_bool()
    total = sum(token(row, [*lines, bias], params.fifo_depth, params.drain) for row in tokens)
    return total * op.repeat


def eie_balanced_twin(op: Op, params: Any, arch: Arch) -> int:
    """Share out the entries of every token one by one."""
    lines = _lines(op, params)
    total = 0
    for row in load(op.activation_or_ones()).to_bool():
        left = sum(sum(lines[column]) for column in np.flatnonzero(row))
        while left > 0:
            left -= params.pes
            total += 1
    return total * op.repeat


def _lines(op: Op, params: Any) -> list[list[int]]:
    weights = op.weight_or_ones().to_bool()
    return [
        [encoded_length(weights[pe :: params.pes, column], params.index_bits) for pe in range(params.pes)]
        for column in range(op.k)
    ]


def encoded_length(column: NDArray[np.bool_], index_bits: int) -> int:
    """Entries of one PE's share of a column: write each out, with a padding zero whenever the run overflows."""
    length = zeros = 0
    for present in column:
        if present or zeros == (1 << index_bits) - 1:
            length += 1
            zeros = 0
        else:
            zeros += 1
    # zeros after the last non-zero are not stored, so neither are paddings among them
    trailing = len(column) - 1 - max(np.flatnonzero(column), default=-1)
    return length - int(trailing) // (1 << index_bits)


def token(active: NDArray[np.bool_], lines: list[list[int]], fifo_depth: int, drain: int) -> int:
    """Cycles of one token; the last of `lines` is the bias."""
    pes = len(lines[0])
    scan = _scan_order(active, pes)
    queues: list[deque[tuple[int, int]]] = [deque() for _ in range(pes)]
    free_at = [0] * pes
    cycle, item, ready = 0, 0, 1
    while item < len(scan) or any(queues):
        cycle += 1
        if item < len(scan) and cycle >= ready + scan[item][1] and all(len(q) < fifo_depth - 1 for q in queues):
            for pe, queue in enumerate(queues):
                queue.append((lines[scan[item][0]][pe], cycle))
            item, ready = item + 1, cycle + 1
        for pe, queue in enumerate(queues):
            if queue and queue[0][1] < cycle and free_at[pe] <= cycle:
                entries, _ = queue.popleft()
                free_at[pe] = cycle + max(1, entries)
    return max(free_at) + drain


def _scan_order(active: NDArray[np.bool_], pes: int) -> list[tuple[int, int]]:
    """Columns in order of the scan, each with the bubbles before it; the bias line comes last."""
    order = []
    bubbles = 0
    for first in range(0, len(active), pes):
        slots = active[first : first + pes]
        for slot in np.flatnonzero(slots):
            order.append((first + int(slot), bubbles))
            bubbles = 0
        if not (len(slots) == pes and slots[-1]):
            bubbles += 1
    return [*order, (len(active), bubbles)]
