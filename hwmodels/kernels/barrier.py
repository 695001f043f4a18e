"""An array whose rows skip zeros on their own within a tile of K and then meet, and its statistical foil.

R rows (tokens) x C columns (outputs); every row takes one non-zero a cycle, shared by all columns. After each K tile
all rows wait for the slowest:

    cycles = ceil(N / C) sum_groups sum_tiles max_row nnz(row, tile)

`statistical` is the same array as a tool that knows densities only sees it, in the way of Sparseloop: the non-zeros of
a K tile of t elements are hypergeometric, with mean t nnz / (M K), and rows are not synchronised:

    cycles = ceil(ceil(N / C) sum_groups K nnz / (M K))

What separates the two is the cost of synchronisation, which no density can show.

Source of the foil: Wu et al., Sparseloop, MICRO 2022, doi:10.1109/MICRO56248.2022.00096.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arch import Arch
from ..counting.groups import group_starts, grouped_blocks
from ..counting.jit import jit, popcount64
from ..counts import Compute
from ..kernel import ONE_BY_ONE, Kernel
from ..mapping.space import Dataflow
from ..op import Op
from ..reference.barrier import barrier_twin, statistical_twin


class BarrierParams(NamedTuple):
    """``rows`` x ``columns`` MACs; rows meet after every ``k_tile`` elements of K."""

    rows: int
    columns: int
    k_tile: int


@jit
def _slowest(words, starts, k, k_tile, counts, cycles):  # type: ignore[no-untyped-def]
    for group in range(starts.shape[0] - 1):
        total = np.int64(0)
        for first in range(0, k, k_tile):
            last = min(first + k_tile, k)
            # as `ones_between`, whose bits of the first and last word are the same for all rows: a third faster so
            begin, end = first // 64, (last + 63) // 64
            low = ~np.uint64(0) << np.uint64(first % 64)
            high = ~np.uint64(0) >> np.uint64((64 - last % 64) % 64)
            most = np.int64(0)
            for row in range(starts[group], starts[group + 1]):
                found = np.int64(0)
                for word in range(begin, end):
                    bits = words[row, word]
                    if word == begin:
                        bits &= low
                    if word == end - 1:
                        bits &= high
                    found += popcount64(bits)
                counts[0] += found
                most = max(most, found)
            total += most
        cycles[group] = total


def count(op: Op, params: BarrierParams, arch: Arch) -> Compute:
    """Count a GEMM with a barrier after each K tile."""
    starts = group_starts(op, params.rows)
    slowest = np.empty(len(starts) - 1, dtype=np.int64)
    nonzeros = np.zeros(1, dtype=np.int64)
    done = 0
    for words, local in grouped_blocks(op.activation_or_ones(), starts):
        part = slowest[done : done + len(local) - 1]
        _slowest(words, local, op.k, params.k_tile, nonzeros, part)
        done += len(part)
    return _compute(op, params, starts, slowest * -(-op.n // params.columns), int(nonzeros[0]))


def count_statistical(op: Op, params: BarrierParams, arch: Arch) -> Compute:
    """Count what a density alone says."""
    starts = group_starts(op, params.rows)
    nonzeros = op.activation_nonzeros // op.repeat
    passes = -(-op.n // params.columns)
    expected = -(-np.arange(len(starts)) * passes * nonzeros // op.m)
    return _compute(op, params, starts, np.diff(expected), nonzeros)


def _compute(
    op: Op, params: BarrierParams, starts: NDArray[np.int64], row_cycles: NDArray[np.int64], nonzeros: int
) -> Compute:
    passes = -(-op.n // params.columns)
    cycles = int(row_cycles.sum()) * op.repeat
    groups, effectual = len(starts) - 1, op.effectual_macs
    taken = nonzeros * passes * op.repeat
    return Compute(
        cycles=cycles,
        dense_cycles=groups * op.k * passes * op.repeat,
        group_rows=params.rows,
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "activation_buffer.read": taken,
            "weight_buffer.read": groups * op.k * op.n * op.repeat,
            "accumulator.update": effectual,
        },
        stalls={"barrier": max(0, cycles * params.rows * params.columns - effectual)},
    )


def dataflow(params: BarrierParams) -> Dataflow:
    """Rows meet after every K tile, so a cut there costs nothing."""
    return Dataflow(params.rows, params.k_tile, params.columns)


KERNELS = [
    Kernel(
        "tile_barrier",
        BarrierParams,
        count,
        barrier_twin,
        skips=frozenset({"activation"}),
        token_order_free=False,
        baseline=ONE_BY_ONE,
        waits_in="tile_barrier_32x32",
        dataflow=dataflow,
    ),
    Kernel(
        "statistical",
        BarrierParams,
        count_statistical,
        statistical_twin,
        skips=frozenset({"activation"}),
        additive=False,
        baseline=ONE_BY_ONE,
        dataflow=dataflow,
    ),
]
