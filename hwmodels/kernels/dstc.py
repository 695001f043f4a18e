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
from ..counts import Compute
from ..mask import PackedMask, load, words_per_row
from ..op import Op
from ..reference.dstc import dstc_twin
from ..registry import Kernel
from ._jit import jit, popcount64
from .outputs import grouped_tiles
from .rows import group_starts, grouped_blocks
from .tally import bit_planes, column_counts, round_masks, weighted_counts


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
    edges = np.append(np.arange(0, op.n, params.tile), op.n)
    out = np.empty(len(starts) - 1, dtype=np.int64)
    needed = weight = None
    if op.output is not None:
        needed = grouped_tiles(op.output, starts, params.tile)
        weight = round_masks(op.weight_or_ones().words, edges, params.step_n)
        planes, shifts = bit_planes(np.zeros(op.k, dtype=np.int64))
    elif op.weight is None:
        rounds = int((-(-np.diff(edges) // params.step_n)).sum())
        planes, shifts = bit_planes(np.full(op.k, rounds))
    else:
        masks = round_masks(load(op.weight).words, edges, params.step_n)
        planes, shifts = bit_planes(column_counts(PackedMask(masks.reshape(-1, masks.shape[2]), op.k)))
    first = 0
    for words, local in grouped_blocks(op.activation_or_ones(), starts):
        groups = slice(first, first + len(local) - 1)
        first = groups.stop
        masks = round_masks(words, local, params.step_m)
        if needed is None or weight is None:
            flat = weighted_counts(masks.reshape(-1, masks.shape[2]), planes, shifts)
            out[groups] = flat.reshape(len(masks), -1).sum(axis=1)
        else:
            _dot_needed(masks, weight, needed[groups], out[groups])
    return out


def _dense_group_steps(op: Op, params: DstcParams, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    full, rest = divmod(op.n, params.tile)
    columns = full * -(-params.tile // params.step_n) + -(-rest // params.step_n)
    return -(-np.diff(starts) // params.step_m) * columns * op.k


def _spread(steps: NDArray[np.int64], first_of_launch: NDArray[np.bool_], units: int) -> NDArray[np.int64]:
    """Cycles by group when a launch's steps are dealt evenly to the units, whole cycles only at its end."""
    after = np.cumsum(steps)
    before = after - steps
    launch = np.cumsum(first_of_launch) - 1
    at_start = before[first_of_launch][launch]
    return -(-(after - at_start) // units) + (before - at_start) // -units


def count(op: Op, params: DstcParams, arch: Arch) -> Compute:
    """Count a GEMM."""
    starts = group_starts(op, params.tile)
    steps = _group_steps(op, params, starts)
    first_of_launch = starts[:-1] % (op.batch or op.m) == 0
    row_cycles = _spread(steps, first_of_launch, params.units)
    dense_steps = np.add.reduceat(_dense_group_steps(op, params, starts), np.flatnonzero(first_of_launch))
    dense = int((-(-dense_steps // params.units)).sum())
    effectual = op.effectual_macs
    total = int(steps.sum()) * op.repeat
    tiles_n = -(-op.n // params.tile)
    weight_reads = op.weight_nonzeros * (len(starts) - 1)
    return Compute(
        cycles=int(row_cycles.sum()) * op.repeat,
        dense_cycles=dense * op.repeat,
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
            "uneven_units": int(row_cycles.sum()) * op.repeat * params.units - total,
        },
    )


KERNELS = [
    Kernel(
        "dstc",
        DstcParams,
        count,
        dstc_twin,
        skips=frozenset({"activation", "weight", "output"}),
        two_sided=True,
        token_order_free=False,
    )
]
