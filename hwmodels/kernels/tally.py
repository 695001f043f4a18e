"""Counting kernels: non-zeros by row, by column, and over pairs of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..mask import Mask, PackedMask, Words, words_per_row
from ._jit import jit, popcount64, trailing_zeros64


@jit
def _row_counts(words, out):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        total = 0
        for word in range(words.shape[1]):
            total += popcount64(words[row, word])
        out[row] = total


@jit
def byte_column_counts(words, first, last, planes):  # type: ignore[no-untyped-def]
    """Count ones by column over at most 255 rows, 64 columns a word at once.

    ``planes[b, w]`` holds eight byte counters; byte ``j`` counts column ``64 w + 8 j + b``.
    """
    ones = np.uint64(0x0101010101010101)
    planes[:] = np.uint64(0)
    for row in range(first, last):
        for bit in range(8):
            for word in range(words.shape[1]):
                planes[bit, word] += (words[row, word] >> np.uint64(bit)) & ones


@jit
def _add_column_counts(words, planes, out):  # type: ignore[no-untyped-def]
    for first in range(0, words.shape[0], 255):
        byte_column_counts(words, first, min(first + 255, words.shape[0]), planes)
        for word in range(words.shape[1]):
            for bit in range(8):
                counters = planes[bit, word]
                for byte in range(8):
                    found = (counters >> np.uint64(8 * byte)) & np.uint64(255)
                    out[word * 64 + byte * 8 + bit] += np.int64(found)


@jit
def _weighted_row_counts(words, planes, out):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        total = np.int64(0)
        for bit in range(planes.shape[0]):
            found = np.int64(0)
            for word in range(words.shape[1]):
                found += popcount64(words[row, word] & planes[bit, word])
            total += found << np.int64(bit)
        out[row] = total


@jit
def _needed_pairs(activation, weight, needed, out):  # type: ignore[no-untyped-def]
    for row in range(activation.shape[0]):
        total = 0
        for word in range(needed.shape[1]):
            rest = needed[row, word]
            while rest:
                column = word * 64 + trailing_zeros64(rest)
                for k in range(activation.shape[1]):
                    total += popcount64(activation[row, k] & weight[column, k])
                rest &= rest - np.uint64(1)
        out[row] = total


@jit
def _column_rounds(words, starts, step, planes, counters, rounds):  # type: ignore[no-untyped-def]
    for group in range(starts.shape[0] - 1):
        byte_column_counts(words, starts[group], starts[group + 1], planes)
        for bit in range(8):
            # slices spare the inner loop the check for negative indices, which would keep it from vectorising
            found, out = counters[bit], rounds[group, bit]
            out[:] = 0
            for floor in range(0, starts[group + 1] - starts[group], step):
                for column in range(found.shape[0]):
                    out[column] += np.uint8(found[column] > np.uint8(floor))


def row_counts(mask: Mask) -> NDArray[np.int64]:
    """Non-zeros of each row, ``int64[M]``."""
    out = np.zeros(mask.shape[0], dtype=np.int64)
    start = 0
    for block in mask.blocks():
        _row_counts(block, out[start : start + len(block)])
        start += len(block)
    return out


def column_counts(mask: Mask) -> NDArray[np.int64]:
    """Non-zeros of each column, ``int64[K]``."""
    k = mask.shape[1]
    width = words_per_row(k)
    out = np.zeros(width * 64, dtype=np.int64)
    planes = np.empty((8, width), dtype=np.uint64)
    for block in mask.blocks():
        _add_column_counts(block, planes, out)
    return out[:k]


def weighted_row_counts(mask: Mask, weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum a non-negative weight over each row's non-zeros, ``sum_k x[m, k] w[k]``: ``int64[M]``.

    The weights are cut into bit planes, so that a sum is a few popcounts: ``sum_b 2^b popcount(x & plane_b)``.
    """
    depth = max(int(weights.max(initial=0)).bit_length(), 1)
    digits = (weights[None, :] >> np.arange(depth)[:, None]) & 1
    planes = PackedMask.from_bool(digits.astype(np.bool_)).words
    out = np.zeros(mask.shape[0], dtype=np.int64)
    start = 0
    for block in mask.blocks():
        _weighted_row_counts(block, planes, out[start : start + len(block)])
        start += len(block)
    return out


def column_rounds(words: Words, starts: NDArray[np.int64], step: int) -> NDArray[np.uint8]:
    """Rounds of `step` that each group of rows needs for a column's non-zeros, ``ceil(nnz / step)``.

    Parameters
    ----------
    words : uint64[M, words]
        Packed rows.
    starts : int64[groups + 1]
        First row of every group, and M; a group has at most 255 rows, the range of a byte counter.
    step : int
        Non-zeros taken at once.

    Returns
    -------
    uint8[groups, 8, 8 words]
        In the order of the byte counters: ``[g, b, 8 w + j]`` is column ``64 w + 8 j + b``; see `in_column_order`.
    """
    width = words.shape[1]
    planes = np.empty((8, width), dtype=np.uint64)
    out = np.empty((len(starts) - 1, 8, width * 8), dtype=np.uint8)
    _column_rounds(words, starts, step, planes, planes.view(np.uint8), out)
    return out


def in_column_order(by_bit: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn ``[..., 8, 8 words]`` of the byte counters into ``[..., 64 words]`` by column."""
    shape = by_bit.shape
    split = by_bit.reshape(*shape[:-1], shape[-1] // 8, 8)
    return np.moveaxis(split, -3, -1).reshape(*shape[:-2], -1)


def needed_macs(activation: Mask, weight: PackedMask, output: Mask) -> int:
    """MACs with both operands non-zero and the output needed, ``sum_{m,n} o[m,n] popcount(a[m] & w[n])``."""
    total = 0
    for rows, needed in zip(activation.blocks(), output.blocks(), strict=True):
        out = np.zeros(len(rows), dtype=np.int64)
        _needed_pairs(rows, weight.words, needed, out)
        total += int(out.sum())
    return total
