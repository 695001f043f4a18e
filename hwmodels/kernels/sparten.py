"""SparTen: clusters of compute units (CUs) that multiply where the bitmaps of both operands meet.

All CUs of a cluster share one token's activations; each holds its own filters (outputs), and the cluster goes on when
its slowest CU is done:

    time(token, group) = max_cu sum_{filters of cu} sum_chunks popcount(mask_x & mask_w)

Clusters take (token, group) items in turn without waiting for each other; a launch ends with its last cluster.
One-sided SparTen sees zeros of the activation only, so its CUs are always balanced.

Greedy balancing puts two filters on each CU, a dense one with a sparse one: ``gb_s`` by the density of whole filters,
``gb_h`` anew in every chunk. Filters are sorted by density first and grouped in that order (`assumed`: the order across
groups). Outputs that a token does not need are left out; their CU waits. ``sync = "none"`` is the ablation without any
waiting, ``ceil(work / all CUs)``.

Source: Gondimalla et al., SparTen, MICRO 2019, doi:10.1145/3352460.3358291.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arch import Arch
from ..counting.groups import group_starts
from ..counting.jit import jit, popcount64
from ..counting.output_tiles import needed_tiles
from ..counts import Compute
from ..errors import InputError
from ..kernel import ONE_BY_ONE, Kernel
from ..mapping.space import Dataflow
from ..mask import Words
from ..op import Op
from ..reference.sparten import sparten_one_sided_twin, sparten_twin

# elements that are broadcast together; one-sided, it has no part in the cycles
CHUNK = 128
BALANCING = ("none", "gb_s", "gb_h")
SYNC = ("cluster", "none")


class SparTenParams(NamedTuple):
    """``clusters`` of ``units`` CUs; ``chunk`` elements; ``balancing`` none, gb_s or gb_h; ``sync`` cluster or none."""

    clusters: int
    units: int
    chunk: int
    balancing: str
    sync: str


class OneSidedParams(NamedTuple):
    """``clusters`` of ``units`` CUs; ``sync`` cluster or none."""

    clusters: int
    units: int
    sync: str


@jit
def _work(words, first_row, starts, filters, units, slots, needed, source, has_output, clusters, clock, busy, work):  # type: ignore[no-untyped-def]
    """Run rows of ``words`` through ``filters[group cu slot, word]``; ``clock[launch, cluster]`` gets the cycles.

    ``source[group cu slot, word]`` is the output that a piece of filter belongs to, -1 for padding.
    """
    groups = filters.shape[0] // (units * slots)
    launch = 0
    for row in range(words.shape[0]):
        token = first_row + row
        while token >= starts[launch + 1]:
            launch += 1
        item = (token - starts[launch]) * groups
        for group in range(groups):
            cluster = (item + group) % clusters
            slowest = np.int64(0)
            for unit in range(units):
                done = np.int64(0)
                for slot in range(slots):
                    place = (group * units + unit) * slots + slot
                    if has_output:
                        for word in range(words.shape[1]):
                            output = source[place, word]
                            if output >= 0 and (needed[row, output // 64] >> np.uint64(output % 64)) & np.uint64(1):
                                done += popcount64(words[row, word] & filters[place, word])
                    else:
                        for word in range(words.shape[1]):
                            done += popcount64(words[row, word] & filters[place, word])
                busy[cluster, unit] += done
                work[token] += done
                slowest = max(slowest, done)
            clock[launch, cluster] += slowest


@jit
def _deal(starts, nonzeros, groups, outputs, clock, idle):  # type: ignore[no-untyped-def]
    """Deal ``groups[token]`` items of ``nonzeros[token]`` cycles to clusters in turn; CUs without an output idle.

    A token's items go to neighbouring clusters, so only the ends of the range are noted, and summed up at the end.
    """
    clusters, units = idle.shape
    for launch in range(starts.shape[0] - 1):
        edges = clock[launch]
        everyone = np.int64(0)
        cluster = 0
        for token in range(starts[launch], starts[launch + 1]):
            cost, items = nonzeros[token], groups[token]
            if items >= clusters:
                everyone += items // clusters * cost
                items %= clusters
            edges[cluster] += cost
            after = cluster + items
            if after >= clusters:
                after -= clusters
                everyone += cost
            edges[after] -= cost
            # every tile but the last is full
            if outputs[token] < groups[token] * units:
                last = after - 1 if after > 0 else clusters - 1
                for unit in range(outputs[token] - (groups[token] - 1) * units, units):
                    idle[last, unit] += cost
            cluster = after
        total = everyone
        for cluster in range(clusters):
            total += edges[cluster]
            edges[cluster] = total


class _Placement(NamedTuple):
    """Filters by ``[group cu slot, word]``, the output each word comes from (-1: padding), slots of a CU."""

    filters: Words
    source: NDArray[np.int64]
    slots: int


def _placement(weight: Words, params: SparTenParams) -> _Placement:
    """Lay filters out on CUs; balancing is nothing but an order of (pieces of) filters."""
    n, width = weight.shape
    slots = 1 if params.balancing == "none" else 2
    per_group = params.units * slots
    groups = -(-n // per_group)
    per_word = np.bitwise_count(weight).astype(np.int64)
    order = np.arange(n) if slots == 1 else np.argsort(-per_word.sum(axis=1), kind="stable")
    source = np.full((groups * per_group, width), -1, dtype=np.int64)
    words_per_chunk = params.chunk // 64 if params.balancing == "gb_h" else max(width, 1)
    chunk_of = np.arange(width) // words_per_chunk
    density = np.add.reduceat(per_word, np.arange(0, width, words_per_chunk), axis=1)
    for group in range(groups):
        members = order[group * per_group : (group + 1) * per_group]
        ranking = (
            np.argsort(-density[members], axis=0, kind="stable") if slots == 2 else np.arange(len(members))[:, None]
        )
        places = group * per_group + _places(len(members), slots)
        source[places] = members[ranking[:, chunk_of]]
    filters = np.where(source >= 0, weight[source, np.arange(width)], np.uint64(0))
    return _Placement(np.ascontiguousarray(filters), source, slots)


def _places(filters: int, slots: int) -> NDArray[np.int64]:
    """Place of the i-th densest filter of a group: densest and sparsest share a CU, and so on inwards."""
    rank = np.arange(filters)
    if slots == 1:
        return rank
    units = -(-filters // 2)
    return np.where(rank < units, rank * 2, (filters - 1 - rank) * 2 + 1)


def _finish(
    op: Op, clock: NDArray[np.int64], work: NDArray[np.int64], params: SparTenParams | OneSidedParams
) -> NDArray[np.int64]:
    """Cycles by launch: the last cluster's, or perfectly shared work."""
    if params.sync == "cluster":
        return np.asarray(clock.max(axis=1))
    per_launch = np.add.reduceat(work, group_starts(op, op.m)[:-1])
    done = np.concatenate([[0], np.cumsum(per_launch)])
    return np.diff(-(-done // (params.clusters * params.units)))


def _check(arch: Arch, name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"arch '{arch.name}': parameter '{name}' = '{value}', must be one of {', '.join(allowed)}")


def _dense_cycles(op: Op, params: SparTenParams | OneSidedParams, slots: int) -> int:
    """Cycles of one copy with all-ones masks."""
    if params.sync == "none":
        return -(-op.m * op.k * op.n // (params.clusters * params.units))
    per_group = params.units * slots
    groups = -(-op.n // per_group)
    if slots == 1 or op.n % per_group != 1:
        launches, rest = divmod(op.m, op.batch or op.m)
        rounds = launches * -(-(op.batch or op.m) * groups // params.clusters) + -(-rest * groups // params.clusters)
        return rounds * slots * op.k
    starts = group_starts(op, op.m)
    items = np.diff(starts) * groups
    # the last group has a single filter, which leaves half a round to the clusters that get it
    clock = np.zeros((len(starts) - 1, params.clusters), dtype=np.int64)
    for launch, count_items in enumerate(items):
        times = np.where(np.arange(count_items) % groups == groups - 1, 1, slots) * op.k
        np.add.at(clock[launch], np.arange(count_items) % params.clusters, times)
    return int(clock.max(axis=1).sum())


def _result(
    op: Op,
    params: SparTenParams | OneSidedParams,
    row_cycles: NDArray[np.int64],
    dense: int,
    busy: NDArray[np.int64],
    fetched: int,
) -> Compute:
    cycles, executed = int(row_cycles.sum()) * op.repeat, int(busy.sum()) * op.repeat
    effectual = op.effectual_macs
    return Compute(
        cycles=cycles,
        dense_cycles=dense * op.repeat,
        group_rows=op.m,
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "mac.gated": executed - effectual,
            "activation_buffer.read": fetched * op.repeat,
            "weight_buffer.read": executed,
            "prefix_sum.match": executed,
            "accumulator.update": executed,
        },
        stalls={"imbalance": cycles * params.clusters * params.units - executed},
        unit_busy=busy.ravel() * op.repeat,
    )


def count(op: Op, params: SparTenParams, arch: Arch) -> Compute:
    """Count a GEMM on the two-sided design.

    Raises
    ------
    InputError
        If ``balancing`` or ``sync`` is unknown, or ``chunk`` is not a multiple of 64.
    """
    _check(arch, "balancing", params.balancing, BALANCING)
    _check(arch, "sync", params.sync, SYNC)
    if params.chunk % 64:
        raise InputError(f"arch '{arch.name}': parameter 'chunk' = {params.chunk}, must be a multiple of 64")
    placed = _placement(op.weight_or_ones().words, params)
    starts = group_starts(op, op.m)
    clock = np.zeros((len(starts) - 1, params.clusters), dtype=np.int64)
    busy = np.zeros((params.clusters, params.units), dtype=np.int64)
    work = np.zeros(op.m, dtype=np.int64)
    outputs = None if op.output is None else op.output.blocks()
    first = 0
    for words in op.activation_or_ones().blocks():
        needed = words[:1] if outputs is None else next(outputs)
        _work(
            words, first, starts, placed.filters, params.units, placed.slots, needed, placed.source,
            outputs is not None, params.clusters, clock, busy, work,
        )  # fmt: skip
        first += len(words)
    groups = len(placed.filters) // (params.units * placed.slots)
    fetched = op.activation_nonzeros // op.repeat * groups
    return _result(op, params, _finish(op, clock, work, params), _dense_cycles(op, params, placed.slots), busy, fetched)


def count_one_sided(op: Op, params: OneSidedParams, arch: Arch) -> Compute:
    """Count a GEMM on the one-sided design.

    Raises
    ------
    InputError
        If ``sync`` is unknown.
    """
    _check(arch, "sync", params.sync, SYNC)
    groups, outputs = needed_tiles(op, params.units)
    nonzeros = op.token_nonzeros
    starts = group_starts(op, op.m)
    clock = np.zeros((len(starts) - 1, params.clusters), dtype=np.int64)
    idle = np.zeros((params.clusters, params.units), dtype=np.int64)
    _deal(starts, nonzeros, groups, outputs, clock, idle)
    busy = clock.sum(axis=0)[:, None] - idle
    row_cycles = _finish(op, clock, nonzeros * outputs, params)
    return _result(op, params, row_cycles, _dense_cycles(op, params, 1), busy, int(nonzeros @ groups))


def dataflow(params: SparTenParams) -> Dataflow:
    """A cluster meets when its slowest unit has a whole dot product."""
    return Dataflow(1, params.chunk, params.units, splits_k=False)


def one_sided_dataflow(params: OneSidedParams) -> Dataflow:
    """As `dataflow`, with the published chunk."""
    return Dataflow(1, CHUNK, params.units, splits_k=False)


KERNELS = [
    Kernel(
        "sparten",
        SparTenParams,
        count,
        sparten_twin,
        skips=frozenset({"activation", "weight", "output"}),
        two_sided=True,
        token_order_free=False,
        baseline=ONE_BY_ONE,
        waits_in="sparten",
        dataflow=dataflow,
    ),
    Kernel(
        "sparten_one_sided",
        OneSidedParams,
        count_one_sided,
        sparten_one_sided_twin,
        skips=frozenset({"activation", "output"}),
        token_order_free=False,
        baseline=ONE_BY_ONE,
        dataflow=one_sided_dataflow,
    ),
]
