"""Problems as bench writes, and sums read back: one pair of functions a design (register maps: see the RTL's tops)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .build import Case, writes
from .cases import WEIGHTS, Problem

Ints = NDArray[np.int64]
Params = Mapping[str, int]

# room for pipeline registers and barriers beyond any schedule
SLACK_CYCLES = 256


def _region(number: int, *fields: tuple[Ints | int, int]) -> Ints:
    """Compose addresses: region in bits 31:28, each field shifted to its place; fields broadcast."""
    address = np.asarray(number << 28, dtype=np.int64)
    for value, shift in fields:
        address = address + (np.asarray(value, dtype=np.int64) << shift)
    return address


def _padded(values: Ints, *shape: int) -> Ints:
    return np.pad(values, [(0, wanted - have) for have, wanted in zip(values.shape, shape, strict=True)])


def _words(values: Ints) -> Ints:
    """Pack 8-bit values along the last axis into 64-bit words."""
    short = -values.shape[-1] % 8
    widened = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, short)])
    return np.ascontiguousarray(widened.astype(np.int8)).view(np.int64)


def _reads(count: int) -> NDArray[np.uint32]:
    return np.arange(count, dtype=np.uint32)


def tensordash(problem: Problem, params: Params) -> Case:
    """Steps of 16 elements: every group of rows in turn on side A, the weights once on side B."""
    rows, cols = params["ROWS"], params["COLS"]
    m, k = problem.activation.shape
    groups, steps = -(-m // rows), -(-k // 16)
    a = _padded(problem.activation, groups * rows, steps * 16).reshape(groups, rows, steps, 16)
    b = _padded(problem.weight, cols, steps * 16).reshape(cols, steps, 16)
    a_words = _words(a.transpose(0, 2, 1, 3).reshape(groups * steps, rows * 16))
    b_words = _words(b.transpose(1, 0, 2).reshape(steps, cols * 16))
    step = np.arange(groups * steps)
    loads = writes(
        (_region(0, (step[:, None], 8), (np.arange(rows * 2), 0)), a_words),
        (_region(1, (np.arange(steps)[:, None], 8), (np.arange(cols * 2), 0)), b_words),
        (_region(2, (step, 8)), step % steps == steps - 1),
        (_region(3), np.asarray(groups * steps)),
    )
    return Case(loads, _reads(groups * rows * cols), groups * steps + SLACK_CYCLES)


def tensordash_sums(words: Ints, problem: Problem, params: Params) -> Ints:
    """Sums ``int64[M, N]``."""
    table = words.reshape(-1, params["COLS"])
    return table[: problem.activation.shape[0], : problem.weight.shape[0]]


def systolic(problem: Problem, params: Params) -> Case:
    """Folds of ROWS x COLS weights; every reduction fold streams all tokens."""
    rows, cols = params["ROWS"], params["COLS"]
    (m, k), n = problem.activation.shape, problem.weight.shape[0]
    k_folds, n_folds = -(-k // rows), -(-n // cols)
    a = _padded(problem.activation, m, k_folds * rows).reshape(m, k_folds, rows)
    w = _padded(problem.weight, n_folds * cols, k_folds * rows).reshape(n_folds, cols, k_folds, rows)
    a_words = _words(a.transpose(1, 0, 2).reshape(k_folds * m, rows))
    w_words = _words(w.transpose(0, 2, 3, 1).reshape(n_folds * k_folds * rows, cols))
    loads = writes(
        (_region(0, (np.arange(len(a_words))[:, None], 8), (np.arange(a_words.shape[1]), 0)), a_words),
        (_region(1, (np.arange(len(w_words))[:, None], 8), (np.arange(w_words.shape[1]), 0)), w_words),
        (_region(3, (np.arange(3), 0)), np.array([m, k_folds, k_folds * n_folds])),
    )
    cycles = k_folds * n_folds * (2 * rows + cols + m)
    return Case(loads, _reads(n_folds * m * cols), cycles + SLACK_CYCLES)


def systolic_sums(words: Ints, problem: Problem, params: Params) -> Ints:
    """Sums ``int64[M, N]``."""
    m, n = problem.activation.shape[0], problem.weight.shape[0]
    return words.reshape(-1, m, params["COLS"]).transpose(1, 0, 2).reshape(m, -1)[:, :n]


def cnvlutin(problem: Problem, params: Params) -> Case:
    """Zero-free bricks (value, offset) with their counts; synapses at every (brick, offset)."""
    m, k = problem.activation.shape
    bricks = -(-k // 16)
    a = _padded(problem.activation, m, bricks * 16).reshape(m, bricks, 16)
    present = a != 0
    row, brick, offset = np.nonzero(present)
    slot = np.cumsum(present, axis=2)[row, brick, offset] - 1
    index = np.arange(bricks)
    synapse = _padded(problem.weight, params["FILTERS"], bricks * 16).reshape(-1, bricks, 16)
    filters = np.arange(params["FILTERS"])[:, None, None]
    loads = writes(
        (
            _region(0, (row, 12), (brick % 16, 8), (brick // 16, 4), (slot, 0)),
            (offset << 8) | (a[row, brick, offset] & 255),
        ),
        (
            _region(1, (filters, 12), (index[:, None] % 16, 8), (index[:, None] // 16, 4), (np.arange(16), 0)),
            synapse & 255,
        ),
        (_region(2, (np.arange(m)[:, None], 12), (index % 16, 8), (index // 16, 4)), present.sum(axis=2)),
        (_region(3, (np.arange(2), 0)), np.array([m, bricks])),
    )
    return Case(loads, _reads(m * params["FILTERS"]), m * (bricks * 16 + 1) + SLACK_CYCLES)


def cnvlutin_sums(words: Ints, problem: Problem, params: Params) -> Ints:
    """Sums ``int64[M, N]``."""
    return words.reshape(-1, params["FILTERS"])[:, : problem.weight.shape[0]]


def sparten(problem: Problem, params: Params) -> Case:
    """Masks and packed values, chunk by chunk of 128."""
    m, cus = problem.activation.shape[0], params["CUS"]
    chunks = params["CHUNKS"]
    a = _padded(problem.activation, m, chunks * 128).reshape(m, chunks, 128)
    w = _padded(problem.weight, cus, chunks * 128).reshape(cus, chunks, 128)
    loads = writes(
        *_packed_chunks(0, a),
        *_packed_chunks(1, w),
        _chunk_masks(2, a),
        _chunk_masks(4, w),
        (_region(3), np.asarray(m)),
    )
    return Case(loads, _reads(m * cus), m * (chunks * 128 + 1) + SLACK_CYCLES)


def _packed_chunks(region: int, values: Ints) -> list[tuple[Ints, Ints]]:
    owner, chunk, place = np.nonzero(values)
    packed = np.cumsum(values != 0, axis=2)[owner, chunk, place] - 1
    return [(_region(region, (owner, 12), (chunk, 8), (packed, 0)), values[owner, chunk, place] & 255)]


def _chunk_masks(region: int, values: Ints) -> tuple[Ints, Ints]:
    owners, chunks, _ = values.shape
    words = np.packbits(values != 0, axis=2, bitorder="little").view(np.int64)
    at = _region(region, (np.arange(owners)[:, None, None], 12), (np.arange(chunks)[:, None], 8), (np.arange(2), 0))
    return at, words


def sparten_sums(words: Ints, problem: Problem, params: Params) -> Ints:
    """Sums ``int64[M, N]``."""
    return words.reshape(-1, params["CUS"])[:, : problem.weight.shape[0]]


def eie_entries(weight: Ints, pes: int) -> tuple[list[Ints], list[Ints]]:
    """Compress a matrix for EIE.

    Parameters
    ----------
    weight : int64[N, columns]
        Values out of the codebook; row i goes to PE ``i mod pes``.
    pes : int
        Processing elements.

    Returns
    -------
    pointers, entries : per PE
        ``int64[columns + 1]`` first entry of each column; ``int64[n]`` entries, ``run << 4 | code``, padding included.
    """
    pointers, entries = [], []
    for pe in range(pes):
        starts, packed = [0], []
        for column in weight[pe::pes].T:
            reached = -1
            for row in np.flatnonzero(column):
                while row - reached > 16:
                    packed.append(15 << 4)
                    reached += 16
                code = int(np.searchsorted(WEIGHTS, column[row])) + 1
                packed.append((int(row) - reached - 1) << 4 | code)
                reached = int(row)
            starts.append(len(packed))
        pointers.append(np.array(starts, dtype=np.int64))
        entries.append(np.array(packed, dtype=np.int64))
    return pointers, entries


def eie(problem: Problem, params: Params) -> Case:
    """One activation row; the last column of the weights is the bias line."""
    pes = params["PES"]
    slots = problem.activation[0]
    rows = -(-len(slots) // pes)
    act = _padded(np.append(_padded(slots, rows * pes), 1), (rows + 1) * pes).reshape(rows + 1, pes)
    pointers, entries = eie_entries(with_bias(problem.weight), pes)
    return eie_case(act, pointers, entries, len(slots), -(-problem.weight.shape[0] // pes))


def eie_case(act: Ints, pointers: list[Ints], entries: list[Ints], columns: int, locals_: int) -> Case:
    """Load EIE: ``act`` is int64[rows + 1, pes] with the bias line last; the rest as from `eie_entries`."""
    pes = act.shape[1]
    slot = np.arange(pes)
    parts = [
        (_region(0, (slot, 22), (np.arange(len(act))[:, None], 0)), act),
        (_region(3, (np.arange(2), 0)), np.array([len(act), columns])),
        (_region(4, (np.arange(16), 0)), np.concatenate([[0], WEIGHTS])),
        (_region(5, (slot[:, None], 22), (np.arange(locals_), 0)), np.zeros((pes, locals_), dtype=np.int64)),
    ]
    for pe in range(pes):
        parts.append((_region(1, (pe, 22), (np.arange(len(pointers[pe])), 0)), pointers[pe]))
        parts.append((_region(2, (pe, 22), (np.arange(len(entries[pe])), 0)), entries[pe]))
    reads = (np.arange(locals_)[:, None] + (slot << 16)).ravel().astype(np.uint32)
    busy = sum(len(packed) for packed in entries) + act.size + len(act) * 2
    return Case(writes(*parts), reads, busy * 2 + SLACK_CYCLES)


def eie_sums(words: Ints, problem: Problem, params: Params) -> Ints:
    """Sums ``int64[1, N]`` less the bias."""
    outputs = problem.weight.shape[0]
    return (words[:outputs] - _bias(outputs)).reshape(1, -1)


def with_bias(weight: Ints) -> Ints:
    """Append the column of the bias line, an entry for every output."""
    return np.column_stack([weight, _bias(len(weight))])


def _bias(outputs: int) -> Ints:
    return np.resize(WEIGHTS, outputs)
