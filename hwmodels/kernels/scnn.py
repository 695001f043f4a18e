"""SCNN: every PE multiplies 4 non-zero activations by 4 non-zero weights of one channel, all pairs at once.

Tokens are cut over the PEs in consecutive runs (the planar tiles of the paper), weights are broadcast in groups of
``outputs`` filters. For one channel k and one group, a PE with nA and nW non-zeros takes

    sum over ceil(nA / inputs) x ceil(nW / weights) products of max(1, most products into one accumulator bank)

and all PEs wait for the slowest at every channel. Product (t, n) goes to bank ``(t outputs + n) mod banks`` with t and
n counted within the PE's tile (`assumed`: the paper does not give the hash). As ``outputs`` divides ``banks``, products
meet in a bank only if their tokens agree mod ``banks / outputs``; so conflicts depend on the activations alone and the
sum is a product of two counts:

    cycles = sum_k (max_pe conflicts(pe, k)) (sum_groups ceil(nW(group, k) / weights))

The design does poorly on a matrix times a vector, and that is the point of having it: with one token one PE of 64
works, with one activation against four weights. A group of filters that no token of the launch needs is left out.

Bank conflicts may cost more than the zeros save; `overhead` says by how much at most.

Source: Parashar et al., SCNN, ISCA 2017, doi:10.1145/3079856.3080254.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arch import Arch
from ..counting.groups import group_starts, grouped_blocks
from ..counting.jit import jit, trailing_zeros64
from ..counting.nonzeros import column_rounds, in_column_order
from ..counting.output_tiles import grouped_tiles
from ..counts import Compute
from ..errors import InputError
from ..kernel import DensityBaseline, Kernel
from ..mapping.space import WHOLE, Dataflow
from ..mask import load, words_per_row
from ..op import Op
from ..reference.scnn import scnn_twin


class ScnnParams(NamedTuple):
    """``pes`` of ``inputs`` x ``weights`` multipliers, ``accumulators`` sums in ``banks``, ``outputs`` in a group."""

    pes: int
    inputs: int
    weights: int
    banks: int
    accumulators: int
    outputs: int


@jit
def _conflicts(words, starts, pes, inputs, period, weight_rounds, seen, state, cycles, busy, rounds):  # type: ignore[no-untyped-def]
    """Cycles of every group of rows; busy cycles and conflict-free rounds of every PE.

    Scratch: ``seen[column, token mod period]``, ``state[0..4, column]`` = non-zeros and fullest bank of the open round,
    cycles and rounds so far, slowest PE.
    """
    taken, fullest, spent, done, slowest = state[0], state[1], state[2], state[3], state[4]
    for group in range(starts.shape[0] - 1):
        first, last = starts[group], starts[group + 1]
        tile = (last - first + pes - 1) // pes
        costs = weight_rounds[min(group, weight_rounds.shape[0] - 1)]
        slowest[:] = 0
        for pe in range((last - first + tile - 1) // tile):
            spent[:] = 0
            done[:] = 0
            for row in range(first + pe * tile, min(first + pe * tile + tile, last)):
                place = (row - first) % tile % period
                for word in range(words.shape[1]):
                    rest = words[row, word]
                    while rest:
                        column = word * 64 + trailing_zeros64(rest)
                        rest &= rest - np.uint64(1)
                        seen[column, place] += 1
                        fullest[column] = max(fullest[column], seen[column, place])
                        taken[column] += 1
                        if taken[column] == inputs:
                            spent[column] += fullest[column]
                            done[column] += 1
                            taken[column] = fullest[column] = 0
                            seen[column, :] = 0
            for column in range(spent.shape[0]):
                if taken[column]:
                    spent[column] += fullest[column]
                    done[column] += 1
                    taken[column] = fullest[column] = 0
                    seen[column, :] = 0
                slowest[column] = max(slowest[column], spent[column])
                busy[pe] += spent[column] * costs[column]
                rounds[pe] += done[column] * costs[column]
        total = np.int64(0)
        for column in range(slowest.shape[0]):
            total += slowest[column] * costs[column]
        cycles[group] = total


def _weight_rounds(op: Op, params: ScnnParams, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """``int64[1 or groups, columns]``: rounds of weights by channel, over the groups of filters that are needed."""
    edges = np.append(np.arange(0, op.n, params.outputs), op.n)
    columns = words_per_row(op.k) * 64
    if op.weight is None:
        by_filters = np.repeat(-(-np.diff(edges) // params.weights)[:, None], columns, axis=1)
    else:
        rounds = column_rounds(load(op.weight).words, edges, params.weights)
        by_filters = in_column_order(rounds.astype(np.int64))
    if op.output is None:
        return by_filters.sum(axis=0, keepdims=True)
    return grouped_tiles(op.output, starts, params.outputs).astype(np.int64) @ by_filters


def _group_rows(params: ScnnParams) -> int:
    """Tokens whose partial sums fit the accumulators of all PEs."""
    return params.pes * max(params.accumulators // params.outputs, 1)


def _dense_cycles(op: Op, params: ScnnParams) -> int:
    """Cycles of one copy with all-ones masks: runs of consecutive tokens meet as few banks as possible."""
    tile = -(-np.diff(group_starts(op, _group_rows(params))) // params.pes)
    period = params.banks // params.outputs
    per_channel = tile // params.inputs * -(-params.inputs // period) + -(-(tile % params.inputs) // period)
    full, rest = divmod(op.n, params.outputs)
    weight_rounds = full * -(-params.outputs // params.weights) + -(-rest // params.weights)
    return int(per_channel.sum()) * op.k * weight_rounds


def _check(arch: Arch, params: ScnnParams) -> None:
    if params.banks % params.outputs:
        raise InputError(
            f"arch '{arch.name}': parameter 'banks' = {params.banks}, must be a multiple of 'outputs' = "
            f"{params.outputs}"
        )
    if params.outputs > 255:
        raise InputError(f"arch '{arch.name}': parameter 'outputs' = {params.outputs}, must be at most 255")


def count(op: Op, params: ScnnParams, arch: Arch) -> Compute:
    """Count a GEMM.

    Raises
    ------
    InputError
        If ``banks`` is not a multiple of ``outputs``, or ``outputs`` exceeds 255.
    """
    _check(arch, params)
    starts = group_starts(op, _group_rows(params))
    weight_rounds = _weight_rounds(op, params, starts)
    period = params.banks // params.outputs
    columns = words_per_row(op.k) * 64
    seen = np.zeros((columns, period), dtype=np.int32)
    state = np.zeros((5, columns), dtype=np.int64)
    row_cycles = np.zeros(len(starts) - 1, dtype=np.int64)
    busy, rounds = np.zeros(params.pes, dtype=np.int64), np.zeros(params.pes, dtype=np.int64)
    first = 0
    for words, local in grouped_blocks(op.activation_or_ones(), starts):
        groups = slice(first, first + len(local) - 1)
        costs = weight_rounds if len(weight_rounds) == 1 else weight_rounds[groups]
        _conflicts(
            words, local, params.pes, params.inputs, period, costs, seen, state, row_cycles[groups], busy, rounds
        )  # fmt: skip
        first = groups.stop
    return _result(op, params, row_cycles, busy * op.repeat, int(rounds.sum()) * op.repeat)


def _result(op: Op, params: ScnnParams, row_cycles: NDArray[np.int64], busy: NDArray[np.int64], rounds: int) -> Compute:
    cycles, effectual = int(row_cycles.sum()) * op.repeat, op.effectual_macs
    return Compute(
        cycles=cycles,
        dense_cycles=_dense_cycles(op, params) * op.repeat,
        group_rows=_group_rows(params),
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "activation_buffer.read": rounds * params.inputs,
            "weight_buffer.read": rounds * params.weights,
            "crossbar.route": effectual,
            "accumulator.update": effectual,
        },
        stalls={
            "barrier": cycles * params.pes - int(busy.sum()),
            "bank_conflict": int(busy.sum()) - rounds,
        },
        unit_busy=busy,
    )


def overhead(op: Op, params: ScnnParams) -> int:
    """Cycles that bank conflicts may add: a round of scattered tokens costs at most one more than its span needs."""
    return _dense_cycles(op, params) * op.repeat


def _granule(params: ScnnParams, op: Op, side: str) -> tuple[int, int]:
    """Vectors of non-zero activations of a PE's tokens, and of non-zero weights of an output group."""
    if side == "activation":
        return -(-min(op.batch or op.m, op.m) // params.pes), params.inputs
    return (params.outputs, params.weights) if side == "weight" else (1, 1)


def dataflow(params: ScnnParams) -> Dataflow:
    """The tokens of a launch are dealt to the PEs; all meet at every channel."""
    return Dataflow(WHOLE, 1, params.outputs)


KERNELS = [
    Kernel(
        "scnn",
        ScnnParams,
        count,
        scnn_twin,
        skips=frozenset({"activation", "weight", "output"}),
        two_sided=True,
        overhead=overhead,
        token_order_free=False,
        baseline=DensityBaseline(_granule),
        waits_in="scnn",
        dataflow=dataflow,
    )
]
