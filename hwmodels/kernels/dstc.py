"""Dual-side sparse tensor core: outer products of the non-zeros of a column of A and a row of B.

A warp tile is ``tile`` tokens x ``tile`` outputs. For every k its nA non-zero activations and nB non-zero weights take
``ceil(nA / step_m) ceil(nB / step_n)`` outer-product steps. A launch's tiles are spread evenly over the units:

    cycles(launch) = ceil(sum_tiles sum_k ceil(nA / step_m) ceil(nB / step_n) / units)

A tile of which no output is needed is left out (`assumed`: the published design has no output side).

Source: Wang et al., Dual-side Sparse Tensor Core, ISCA 2021, doi:10.1109/ISCA52012.2021.00088.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arch import Arch
from ..counting.groups import group_starts, grouped_blocks
from ..counting.jit import jit, popcount64
from ..counting.nonzeros import bit_planes, column_counts, round_masks, weighted_counts
from ..counting.output_tiles import grouped_tiles
from ..counts import Compute
from ..kernel import DensityBaseline, Kernel
from ..mapping.space import Dataflow
from ..mask import PackedMask, load, words_per_row
from ..op import Op
from ..reference.dstc import dstc_twin


class DstcParams(NamedTuple):
    """Warp tiles of ``tile`` x ``tile`` outputs, steps of ``step_m`` x ``step_n``, ``units`` side by side."""

    tile: int
    step_m: int
    step_n: int
    units: int


@jit
def _dot_needed(activation, weight, needed, out):  # type: ignore[no-untyped-def]
    """``out[g]``: pairs of a round of group g and a round of a needed tile that meet in a column, all columns."""
    for group in range(activation.shape[0]):
        total = np.int64(0)
        for tile in range(weight.shape[0]):
            if needed[group, tile]:
                for mine in range(activation.shape[1]):
                    for theirs in range(weight.shape[1]):
                        for word in range(activation.shape[2]):
                            total += popcount64(activation[group, mine, word] & weight[tile, theirs, word])
        out[group] = total


def _group_steps(op: Op, params: DstcParams, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Outer-product steps of every group of tokens over all its tiles, one copy of the op."""
    out = np.empty(len(starts) - 1, dtype=np.int64)
    needed = weight = None
    columns = 1
    if op.output is not None:
        needed = grouped_tiles(op.output, starts, params.tile)
        weight = round_masks(op.weight_or_ones().words, _edges(op, params), params.step_n)
        planes, shifts = bit_planes(np.zeros(op.k, dtype=np.int64))
    elif op.weight is None:
        columns = _dense_columns(op, params)
        planes, shifts = np.full((1, words_per_row(op.k)), ~np.uint64(0)), np.zeros(1, dtype=np.int64)
    else:
        masks = round_masks(load(op.weight).words, _edges(op, params), params.step_n)
        planes, shifts = bit_planes(column_counts(PackedMask(masks.reshape(-1, masks.shape[2]), op.k)))
    first = 0
    for words, local in grouped_blocks(op.activation_or_ones(), starts):
        groups = slice(first, first + len(local) - 1)
        first = groups.stop
        masks = round_masks(words, local, params.step_m)
        if needed is None or weight is None:
            flat = weighted_counts(masks.reshape(-1, masks.shape[2]), planes, shifts)
            out[groups] = flat.reshape(len(masks), -1).sum(axis=1) * columns
        else:
            _dot_needed(masks, weight, needed[groups], out[groups])
    return out


def _edges(op: Op, params: DstcParams) -> NDArray[np.int64]:
    """First output of every tile, and N."""
    return np.append(np.arange(0, op.n, params.tile), op.n)


def _dense_cycles(op: Op, params: DstcParams) -> int:
    """Cycles of one copy with all-ones masks."""
    per_round = _dense_columns(op, params) * op.k
    batch = min(op.batch or op.m, op.m)
    launches, rest = divmod(op.m, batch)

    def launch(rows: int) -> int:
        full, left = divmod(rows, params.tile)
        rounds = full * -(-params.tile // params.step_m) + -(-left // params.step_m)
        return -(-rounds * per_round // params.units)

    return launches * launch(batch) + launch(rest)


def _dense_columns(op: Op, params: DstcParams) -> int:
    """Rounds of dense weights in one channel, over all tiles."""
    full, rest = divmod(op.n, params.tile)
    return full * -(-params.tile // params.step_n) + -(-rest // params.step_n)


@jit
def _spread(steps, starts, batch, units, cycles):  # type: ignore[no-untyped-def]
    """Cycles by group when a launch's steps are dealt evenly to the units, whole cycles only at its end."""
    done = np.int64(0)
    for group in range(steps.shape[0]):
        if starts[group] % batch == 0:
            done = np.int64(0)
        before = (done + units - 1) // units
        done += steps[group]
        cycles[group] = (done + units - 1) // units - before


def count(op: Op, params: DstcParams, arch: Arch) -> Compute:
    """Count a GEMM."""
    starts = group_starts(op, params.tile)
    steps = _group_steps(op, params, starts)
    row_cycles = np.empty_like(steps)
    _spread(steps, starts, op.batch or op.m, params.units, row_cycles)
    cycles = int(row_cycles.sum()) * op.repeat
    effectual = op.effectual_macs
    total = int(steps.sum()) * op.repeat
    tiles_n = -(-op.n // params.tile)
    weight_reads = op.weight_nonzeros * (len(starts) - 1)
    return Compute(
        cycles=cycles,
        dense_cycles=_dense_cycles(op, params) * op.repeat,
        group_rows=params.tile,
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "activation_buffer.read": op.activation_nonzeros * tiles_n,
            "weight_buffer.read": weight_reads,
            "bitmap.read": (op.m * tiles_n + op.n * (len(starts) - 1)) * words_per_row(op.k) * 64 * op.repeat,
            "accumulator.update": total * params.step_m * params.step_n,
        },
        stalls={
            "fragment": total * params.step_m * params.step_n - effectual,
            "uneven_units": cycles * params.units - total,
        },
    )


def _granule(params: DstcParams, op: Op, side: str) -> tuple[int, int]:
    """Non-zeros of a tile's column are taken in steps of the outer product; needed outputs one by one."""
    if side == "output":
        return 1, 1
    return params.tile, params.step_m if side == "activation" else params.step_n


def dataflow(params: DstcParams) -> Dataflow:
    """Outer products add up over K one by one."""
    return Dataflow(params.tile, 1, params.tile)


KERNELS = [
    Kernel(
        "dstc",
        DstcParams,
        count,
        dstc_twin,
        skips=frozenset({"activation", "weight", "output"}),
        two_sided=True,
        token_order_free=False,
        baseline=DensityBaseline(_granule),
        waits_in="dstc",
        dataflow=dataflow,
    )
]
