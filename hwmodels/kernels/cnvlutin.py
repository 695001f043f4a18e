"""Cnvlutin: DaDianNao whose neuron lanes run ahead over zero activations on their own.

K is cut into bricks of 16; lane ``l`` owns bricks ``b = l mod lanes`` and takes one non-zero a cycle. All lanes meet
at the end of a dot product; all filters of a pass share the schedule, so N only sets the number of passes:

    cycles(token) = passes max_l sum_{b = l mod lanes} max(e, nnz(b)),    passes = ceil(N / (filters tiles))

``e`` is 1 where an empty brick still costs its cycle, else 0 (`assumed`: the paper leaves it open). A pass of which no
output is needed is left out (`assumed`: the published design has no output side). Weights' zeros are not seen.
``sync = "none"`` is the ablation without any waiting, ``ceil(sum nnz passes / lanes)``.

Against all-ones masks the design equals itself, which equals DaDianNao where K is a multiple of 16 lanes bricks; with a
ragged K the lanes that own one brick more decide, where DaDianNao spreads the tail.

Source: Albericio et al., Cnvlutin, ISCA 2016, doi:10.1109/ISCA.2016.11.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arch import Arch
from ..counting.jit import jit, ones_between
from ..counting.output_tiles import needed_tiles
from ..counts import Compute
from ..errors import InputError
from ..kernel import ONE_BY_ONE, Kernel
from ..mapping.space import Dataflow
from ..mask import Mask
from ..op import Op
from ..reference.cnvlutin import cnvlutin_twin


class CnvlutinParams(NamedTuple):
    """``tiles`` tiles of ``filters`` x ``lanes``; ``brick`` elements; ``empty_brick_cycles`` 0 or 1; ``sync``
    ``"dot_product"`` or ``"none"``."""

    lanes: int
    filters: int
    tiles: int
    brick: int
    empty_brick_cycles: bool
    sync: str


@jit(inline=True)
def _fields_of_16(word):  # type: ignore[no-untyped-def]
    """Ones of each of the four bricks in a word, each in 16 bits."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word + (word >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)


@jit(inline=True)
def _not_empty(fields):  # type: ignore[no-untyped-def]
    """1 in each of the four fields that is not zero; they are 16 at most."""
    return ((fields + np.uint64(0x7FFF7FFF7FFF7FFF)) >> np.uint64(15)) & np.uint64(0x0001000100010001)


@jit
def _bricks_of_16(words, k, lanes, floor, passes, longest, nonzeros, busy, empty, fields, filled):  # type: ignore[no-untyped-def]
    # four lanes to a word: each brick counted by itself first, a loop that vectorises, then one sum for four lanes
    columns = lanes // 4
    bricks = (k + 15) // 16
    used = (bricks + 3) // 4
    each, more = bricks // lanes, bricks % lanes
    for row in range(words.shape[0]):
        row_words = words[row, :used]
        for place in range(used):
            counts = _fields_of_16(row_words[place])
            fields[place] = counts
            filled[place] = _not_empty(counts)
        times = passes[row]
        slowest = cost = ones = np.int64(0)
        for column in range(columns):
            found = busy_bricks = np.uint64(0)
            place = column
            while place < used:  # a range with a step that is no constant divides first
                found += fields[place]
                busy_bricks += filled[place]
                place += columns
            first = 4 * column
            for lane in range(first, first + 4):
                own = each + (1 if lane < more else 0)
                mine = np.int64(found & np.uint64(0xFFFF))
                taken = mine + floor * (own - np.int64(busy_bricks & np.uint64(0xFFFF)))
                found >>= np.uint64(16)
                busy_bricks >>= np.uint64(16)
                busy[lane] += mine * times
                slowest = max(slowest, taken)
                cost += taken
                ones += mine
        longest[row] = slowest
        nonzeros[row] = ones
        empty[row] = cost - ones


@jit
def _bricks_of_any(words, k, brick, lanes, floor, passes, longest, nonzeros, busy, empty, lane_cost, lane_nonzeros):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        for lane in range(lanes):
            lane_cost[lane] = 0
            lane_nonzeros[lane] = 0
        lane = 0
        for first in range(0, k, brick):
            last = min(first + brick, k)
            found = np.int32(ones_between(words, row, first, last))
            lane_nonzeros[lane] += found
            lane_cost[lane] += max(found, floor)
            lane = lane + 1 if lane + 1 < lanes else 0
        slowest = cost = total = np.int32(0)
        for lane in range(lanes):
            slowest = max(slowest, lane_cost[lane])
            cost += lane_cost[lane]
            total += lane_nonzeros[lane]
            busy[lane] += lane_nonzeros[lane] * passes[row]
        longest[row] = slowest
        nonzeros[row] = total
        empty[row] = cost - total


class _Schedule(NamedTuple):
    longest: NDArray[np.int64]
    nonzeros: NDArray[np.int64]
    empty: NDArray[np.int64]
    busy: NDArray[np.int64]


def _schedule(mask: Mask, params: CnvlutinParams, passes: NDArray[np.int64]) -> _Schedule:
    """Slowest lane, non-zeros and charged empty bricks of every token in one pass; each lane's busy cycles in all."""
    m, k = mask.shape
    longest, nonzeros, empty = (np.zeros(m, dtype=np.int64) for _ in range(3))
    busy = np.zeros(params.lanes, dtype=np.int64)
    # a field of 16 bits holds the ones of 4,095 bricks
    by_word = params.brick == 16 and params.lanes % 4 == 0 and k <= 4095 * 16 * params.lanes
    size, kind = (-(-k // 64), np.uint64) if by_word else (params.lanes, np.int32)
    scratch = np.zeros(size, dtype=kind), np.zeros(size, dtype=kind)
    floor = np.int32(params.empty_brick_cycles)
    start = 0
    for words in mask.blocks():
        rows = slice(start, start + len(words))
        start += len(words)
        results = passes[rows], longest[rows], nonzeros[rows], busy, empty[rows], *scratch
        if by_word:
            _bricks_of_16(words, k, params.lanes, floor, *results)
        else:
            _bricks_of_any(words, k, params.brick, params.lanes, floor, *results)
    return _Schedule(longest, nonzeros, empty, busy)


def _row_cycles(schedule: _Schedule, params: CnvlutinParams, passes: NDArray[np.int64]) -> NDArray[np.int64]:
    if params.sync == "none":
        done = np.concatenate([[0], np.cumsum(schedule.nonzeros * passes)])
        return np.diff(-(-done // params.lanes))
    return schedule.longest * passes


def _dense_cycles(op: Op, params: CnvlutinParams) -> int:
    """Cycles of one copy with all-ones masks."""
    passes = -(-op.n // (params.filters * params.tiles))
    if params.sync == "none":
        return -(-op.m * op.k * passes // params.lanes)
    stride = params.brick * params.lanes
    rest = min(op.k % stride, params.brick)
    return op.m * passes * (op.k // stride * params.brick + rest)


def count(op: Op, params: CnvlutinParams, arch: Arch) -> Compute:
    """Count a GEMM.

    Raises
    ------
    InputError
        If ``sync`` is neither ``dot_product`` nor ``none``.
    """
    if params.sync not in ("dot_product", "none"):
        raise InputError(f"arch '{arch.name}': parameter 'sync' = '{params.sync}', must be 'dot_product' or 'none'")
    passes, outputs = needed_tiles(op, params.filters * params.tiles)
    schedule = _schedule(op.activation_or_ones(), params, passes)
    op.note_token_nonzeros(schedule.nonzeros)
    row_cycles = _row_cycles(schedule, params, passes)
    cycles, busy = int(row_cycles.sum()), int(schedule.busy.sum())
    empty = 0 if params.sync == "none" else int(schedule.empty @ passes)
    executed = int(schedule.nonzeros @ outputs) * op.repeat
    effectual = op.effectual_macs
    return Compute(
        cycles=cycles * op.repeat,
        dense_cycles=_dense_cycles(op, params) * op.repeat,
        group_rows=1,
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "mac.gated": executed - effectual,
            "activation_buffer.read": busy * op.repeat,
            "dispatcher.broadcast": busy * op.repeat,
            "weight_buffer.read": executed,
            "accumulator.update": int(schedule.longest @ outputs) * op.repeat,
            "encoder.output": op.m * op.n * op.repeat,
        },
        stalls={
            "empty_brick": empty * op.repeat,
            "barrier": (cycles * params.lanes - busy - empty) * op.repeat,
        },
        unit_busy=schedule.busy * op.repeat,
    )


def dataflow(params: CnvlutinParams) -> Dataflow:
    """Lanes meet at the end of a dot product, which a cut of K would end early."""
    return Dataflow(1, params.lanes * params.brick, params.filters * params.tiles, splits_k=False)


KERNELS = [
    Kernel(
        "cnvlutin",
        CnvlutinParams,
        count,
        cnvlutin_twin,
        skips=frozenset({"activation", "output"}),
        baseline=ONE_BY_ONE,
        waits_in="cnvlutin",
        dataflow=dataflow,
    ),
]
