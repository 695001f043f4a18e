"""EIE: sparse weights spread over PEs by row, non-zero activations broadcast through a FIFO in front of each PE.

Output n lives in PE ``n mod pes``. A column of W is stored in each PE as (run length, weight) entries; a run longer
than the index can say is broken by padding zeros, which cost a cycle each. A scan finds one non-zero activation a
cycle; a memory row (`pes` activations) costs a bubble more unless its last slot is non-zero. With s[j, p] entries of
the j-th broadcast column in PE p, W[j] the cycle of its broadcast, P[j, p] when PE p takes it, D = fifo_depth - 1:

    W[j]    = max(scan_j, max_p P[j - D, p] + 1)
    P[j, p] = max(W[j] + 1, P[j - 1, p] + max(1, s[j - 1, p]))
    cycles  = max_p (P[last, p] + max(1, s[last, p])) + drain

The last line broadcast carries the bias. An empty column costs a cycle; read-after-write hazards are bypassed.

`eie_balanced` is the ideal beside it: no FIFO limit and all PEs equally loaded, ``ceil(entries / pes)`` a token, which
is what the paper calls theoretical time.

Source: Han et al., EIE, ISCA 2016, doi:10.1109/ISCA.2016.30; timing after the authors' simulator.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..arch import Arch
from ..counting.jit import aligned, jit, trailing_zeros64
from ..counting.nonzeros import column_counts, row_counts, weighted_row_counts
from ..counts import Compute
from ..errors import InputError
from ..kernel import ONE_BY_ONE, Kernel
from ..mapping.space import WHOLE, Dataflow
from ..mask import Mask, OnesMask, PackedMask, Words, load
from ..op import Op
from ..reference.eie import eie_balanced_twin, eie_twin

Entries = NDArray[np.uint16]


class EieParams(NamedTuple):
    """``fifo_depth`` counts the ring's slots, of which one stays free; ``bias`` adds an entry an output at the end."""

    pes: int
    fifo_depth: int
    index_bits: int
    drain: int
    bias: bool


class EieBalancedParams(NamedTuple):
    """``pes`` PEs with ``index_bits`` of run length an entry."""

    pes: int
    index_bits: int


@jit
def _encode(words, pes, longest, entries, following):  # type: ignore[no-untyped-def]
    """Entries of every column in every PE, ``entries[p, column]``; `following` is scratch, the row after the last."""
    for output in range(words.shape[0]):
        pe = output % pes
        local = np.int32(output // pes)
        for word in range(words.shape[1]):
            rest = words[output, word]
            while rest:
                column = word * 64 + trailing_zeros64(rest)
                run = local - following[pe, column]
                entries[pe, column] += np.uint16(1 + run // longest)
                following[pe, column] = local + 1
                rest &= rest - np.uint64(1)


@jit
def _tokens(words, k, takes, history, drain, finish, cycles):  # type: ignore[no-untyped-def]
    """Cycles of every token; `takes` is max(1, entries), its last line the bias."""
    pes = finish.shape[0]
    for row in range(words.shape[0]):
        finish[:] = 0
        history[:] = -1
        slot = 0
        scan, row_end, full_tail = 1, pes, False
        latest = np.int32(0)
        for word in range(words.shape[1] + 1):
            rest = words[row, word] if word < words.shape[1] else np.uint64(1)
            while rest:
                column = word * 64 + trailing_zeros64(rest) if word < words.shape[1] else k
                rest &= rest - np.uint64(1)
                place = column if column < k else -(-k // pes) * pes
                while place >= row_end:
                    scan += 0 if full_tail else 1
                    full_tail = False
                    row_end += pes
                full_tail = place == row_end - 1
                broadcast = max(scan, history[slot] + 1)
                scan = broadcast + 1
                history[slot] = max(broadcast + 1, latest)
                slot = slot + 1 if slot + 1 < history.shape[0] else 0
                soonest = np.int32(broadcast + 1)
                latest = np.int32(0)
                for pe in range(pes):
                    ready = np.int32(max(finish[pe], soonest) + np.int32(takes[column, pe]))
                    finish[pe] = ready
                    latest = max(latest, ready)
        cycles[row] = latest + drain


@jit
def _busy(times, entries, busy):  # type: ignore[no-untyped-def]
    """Add the entries that each PE processed, ``sum_j times_j s[j, p]``; returns how many empty columns it met."""
    empty = 0
    for column in range(entries.shape[0]):
        often = times[column]
        zeros = 0
        for pe in range(entries.shape[1]):
            found = np.int64(entries[column, pe])
            busy[pe] += often * found
            zeros += found == 0
        empty += often * zeros
    return empty


_TABLES: WeakKeyDictionary[Any, dict[tuple[int, int], Entries]] = WeakKeyDictionary()


def entries_table(weight: Mask, pes: int, index_bits: int) -> Entries:
    """Entries of every column in every PE, ``uint16[K, pes]``, padding zeros included; kept while the mask lives.

    Parameters
    ----------
    weight : Mask
        Non-zeros of W by output, (N, K).
    pes : int
        PEs that share the rows.
    index_bits : int
        Width of the run length; a run of z zeros takes ``floor(z / 2^index_bits)`` padding entries.
    """
    kept = _TABLES.setdefault(weight, {})
    if (pes, index_bits) not in kept:
        words = load(weight).words
        table = np.zeros((pes, words.shape[1] * 64), dtype=np.uint16)
        _encode(words, pes, 1 << index_bits, table, np.zeros(table.shape, dtype=np.int32))
        kept[pes, index_bits] = np.ascontiguousarray(table[:, : weight.shape[1]].T)
    return kept[pes, index_bits]


def token_cycles(words: Words, k: int, entries: Entries, fifo_depth: int, drain: int) -> NDArray[np.int64]:
    """Cycles of every token.

    Parameters
    ----------
    words : uint64[tokens, ceil(K / 64)]
        Packed activation masks.
    k : int
        Elements in a row.
    entries : uint16[K + 1, pes]
        Entries of each column in each PE; the last line is the bias.
    fifo_depth, drain : int
        Slots of the ring, cycles after the last entry.

    Returns
    -------
    int64[tokens]
    """
    cycles = np.empty(len(words), dtype=np.int64)
    history = np.empty(fifo_depth - 1, dtype=np.int64)
    finish = aligned(entries.shape[1], np.int32)
    # the loop over PEs is only fast along contiguous memory, and an empty column takes a cycle like one with one entry
    takes = np.maximum(entries, 1, out=aligned(entries.shape, np.uint16))
    _tokens(np.ascontiguousarray(words), k, takes, history, drain, finish, cycles)
    return cycles


def _dense_entries(n: int, pes: int) -> Entries:
    """Rows of each PE."""
    return ((n - np.arange(pes) + pes - 1) // pes).astype(np.uint16)


def _table(op: Op, params: EieParams) -> Entries:
    dense = _dense_entries(op.n, params.pes)
    if op.weight is None or isinstance(op.weight, OnesMask):
        body = np.broadcast_to(dense, (op.k, params.pes))
    else:
        body = entries_table(op.weight, params.pes, params.index_bits)
    table: Entries = aligned((op.k + 1, params.pes), np.uint16)
    table[:-1] = body
    if params.bias:
        table[-1] = dense
    return table


def _check(op: Op, pes: int, arch: Arch) -> None:
    if -(-op.n // pes) > np.iinfo(np.uint16).max:
        raise InputError(f"arch '{arch.name}': parameter 'pes' = {pes} is too few for N = {op.n} outputs; use more PEs")


def count(op: Op, params: EieParams, arch: Arch) -> Compute:
    """Count a sparse matrix-vector product a token."""
    _check(op, params.pes, arch)
    if params.fifo_depth < 2:
        raise InputError(f"arch '{arch.name}': parameter 'fifo_depth' = {params.fifo_depth}, the ring needs at least 2")
    entries = _table(op, params)
    activation = op.activation_or_ones()
    ones = PackedMask.ones(1, op.k).words
    # without a mask all tokens are equal, and one stands for them
    blocks = [ones] if op.activation is None else activation.blocks()
    cycles = np.concatenate([token_cycles(block, op.k, entries, params.fifo_depth, params.drain) for block in blocks])
    cycles = np.repeat(cycles, op.m // len(cycles))
    dense_line = _dense_entries(op.n, params.pes)
    dense_table = np.broadcast_to(dense_line, (op.k + 1, params.pes)).copy()
    dense_table[-1] = entries[-1]
    dense = int(token_cycles(ones, op.k, dense_table, params.fifo_depth, params.drain)[0])
    times = np.append(column_counts(activation), op.m)
    busy = np.zeros(params.pes, dtype=np.int64)
    empty = int(_busy(times, entries, busy))
    total = int(cycles.sum())
    processed = int(busy.sum()) * op.repeat
    effectual = op.effectual_macs
    return Compute(
        cycles=total * op.repeat,
        dense_cycles=dense * op.m * op.repeat,
        group_rows=1,
        row_cycles=cycles,
        actions={
            "mac.compute": effectual,
            "mac.padding": processed - effectual,
            "pe.empty": empty * op.repeat,
        },
        stalls={
            "empty_column": empty * op.repeat,
            "drain": params.drain * params.pes * op.m * op.repeat,
            "imbalance": (total - params.drain * op.m) * params.pes * op.repeat - processed - empty * op.repeat,
        },
        unit_busy=busy * op.repeat,
    )


def count_balanced(op: Op, params: EieBalancedParams, arch: Arch) -> Compute:
    """Count the ideal: every token's entries over all PEs, no waiting."""
    _check(op, params.pes, arch)
    activation = op.activation_or_ones()
    if op.weight is None or isinstance(op.weight, OnesMask):
        entries = row_counts(activation) * op.n
    else:
        per_column = entries_table(op.weight, params.pes, params.index_bits).sum(axis=1, dtype=np.int64)
        entries = weighted_row_counts(activation, per_column)
    cycles = -(-entries // params.pes)
    processed, effectual = int(entries.sum()) * op.repeat, op.effectual_macs
    return Compute(
        cycles=int(cycles.sum()) * op.repeat,
        dense_cycles=-(-op.k * op.n // params.pes) * op.m * op.repeat,
        group_rows=1,
        row_cycles=cycles,
        actions={"mac.compute": effectual, "mac.padding": processed - effectual},
        stalls={
            "padding": processed - effectual,
            "rounding": int(cycles.sum()) * params.pes * op.repeat - processed,
        },
    )


def dataflow(params: EieParams | EieBalancedParams) -> Dataflow:
    """A non-zero activation is broadcast to all outputs; a row of the activation memory has one for each PE."""
    return Dataflow(1, params.pes, WHOLE, splits_k=False)


KERNELS = [
    Kernel(
        "eie",
        EieParams,
        count,
        eie_twin,
        skips=frozenset({"activation", "weight"}),
        two_sided=True,
        baseline=ONE_BY_ONE,
        waits_in="eie",
        dataflow=dataflow,
    ),
    Kernel(
        "eie_balanced",
        EieBalancedParams,
        count_balanced,
        eie_balanced_twin,
        skips=frozenset({"activation", "weight"}),
        two_sided=True,
        baseline=ONE_BY_ONE,
        dataflow=dataflow,
    ),
]
