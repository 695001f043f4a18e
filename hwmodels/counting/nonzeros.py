"""Counting kernels: non-zeros by row, by column, and over pairs of rows."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..mask import Mask, PackedMask, Words, words_per_row
from .jit import jit, popcount64, trailing_zeros64


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
def _weighted_row_counts(words, planes, shifts, out):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        total = np.int64(0)
        for bit in range(planes.shape[0]):
            found = np.int64(0)
            for word in range(words.shape[1]):
                found += popcount64(words[row, word] & planes[bit, word])
            total += found << shifts[bit]
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
def _add_eight_rows(words, row, planes, carry):  # type: ignore[no-untyped-def]
    """Add eight rows to counters of one, two and four; ``carry`` gets the eights (Harley and Seal's adder tree)."""
    a, b, c, d = words[row], words[row + 1], words[row + 2], words[row + 3]
    e, f, g, h = words[row + 4], words[row + 5], words[row + 6], words[row + 7]
    ones, twos, fours = planes[0], planes[1], planes[2]
    for w in range(carry.shape[0]):
        x = ones[w] ^ a[w]
        two_a = (ones[w] & a[w]) | (x & b[w])
        one = x ^ b[w]
        x = one ^ c[w]
        two_b = (one & c[w]) | (x & d[w])
        one = x ^ d[w]
        x = one ^ e[w]
        two_c = (one & e[w]) | (x & f[w])
        one = x ^ f[w]
        x = one ^ g[w]
        two_d = (one & g[w]) | (x & h[w])
        ones[w] = x ^ h[w]
        x = twos[w] ^ two_a
        four_a = (twos[w] & two_a) | (x & two_b)
        two = x ^ two_b
        x = two ^ two_c
        four_b = (two & two_c) | (x & two_d)
        twos[w] = x ^ two_d
        x = fours[w] ^ four_a
        carry[w] = (fours[w] & four_a) | (x & four_b)
        fours[w] = x ^ four_b


@jit
def _add_rows(words, row, last, planes, carry):  # type: ignore[no-untyped-def]
    """Add eight rows, or one where fewer are left, to bit-sliced counters: ``planes[d]`` holds bit d of 64 counters
    a word. ``carry`` gets what the last plane gives off; returns the rows added."""
    eight = planes.shape[0] >= 3 and row + 8 <= last
    if eight:
        _add_eight_rows(words, row, planes, carry)
    else:
        carry[:] = words[row]
    for depth in range(3 if eight else 0, planes.shape[0]):
        plane = planes[depth]
        for word in range(carry.shape[0]):
            out = plane[word] & carry[word]
            plane[word] ^= carry[word]
            carry[word] = out
    return 8 if eight else 1


@jit
def _carried_masks(words, starts, planes, carry, masks):  # type: ignore[no-untyped-def]
    """Rounds of a step that is a power of two: counters that start one short of it carry at elements 1, step + 1 ..."""
    step = 1 << planes.shape[0]
    masks[:] = np.uint64(0)
    for group in range(starts.shape[0] - 1):
        first, last = starts[group], starts[group + 1]
        planes[:] = ~np.uint64(0)
        row = first
        while row < last:
            # a column carries at most once in `step` rows
            found = masks[group, (row - first) // step]
            row += _add_rows(words, row, last, planes, carry)
            for word in range(carry.shape[0]):
                found[word] |= carry[word]


@jit
def _compared_masks(words, starts, step, planes, carry, equal, masks):  # type: ignore[no-untyped-def]
    """Rounds of any step: count, then compare every column's count with each multiple of the step."""
    for group in range(starts.shape[0] - 1):
        planes[:] = np.uint64(0)
        row = starts[group]
        while row < starts[group + 1]:
            row += _add_rows(words, row, starts[group + 1], planes, carry)
        for part in range(masks.shape[1]):
            floor = part * step
            above = masks[group, part]
            above[:] = np.uint64(0)
            equal[:] = ~np.uint64(0)
            for depth in range(planes.shape[0] - 1, -1, -1):
                plane = planes[depth]
                if (floor >> depth) & 1:
                    for word in range(equal.shape[0]):
                        equal[word] &= plane[word]
                else:
                    for word in range(equal.shape[0]):
                        above[word] |= equal[word] & plane[word]
                        equal[word] &= ~plane[word]


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


# a layer's weights meet many batches and designs
_COLUMNS: WeakKeyDictionary[PackedMask, NDArray[np.int64]] = WeakKeyDictionary()


def column_counts(mask: Mask) -> NDArray[np.int64]:
    """Non-zeros of each column, ``int64[K]``, not to be written to; kept while a mask in memory lives."""
    if not isinstance(mask, PackedMask):
        return _column_counts(mask)
    if mask not in _COLUMNS:
        _COLUMNS[mask] = _column_counts(mask)
        _COLUMNS[mask].flags.writeable = False
    return _COLUMNS[mask]


def _column_counts(mask: Mask) -> NDArray[np.int64]:
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
    planes, shifts = bit_planes(weights)
    out = np.zeros(mask.shape[0], dtype=np.int64)
    start = 0
    for block in mask.blocks():
        _weighted_row_counts(block, planes, shifts, out[start : start + len(block)])
        start += len(block)
    return out


def bit_planes(weights: NDArray[np.int64]) -> tuple[Words, NDArray[np.int64]]:
    """Cut non-negative weights of columns into packed bit planes; planes without a bit are left out.

    Returns
    -------
    planes : uint64[planes, words]
        ``w[k] = sum_p planes[p, k] << shifts[p]``.
    shifts : int64[planes]
        Weight of each plane.
    """
    used = int(np.bitwise_or.reduce(weights, initial=0))
    shifts = np.array([bit for bit in range(used.bit_length()) if used >> bit & 1], dtype=np.int64)
    digits = (weights[None, :] >> shifts[:, None]) & 1
    return PackedMask.from_bool(digits.astype(np.bool_)).words, shifts


def round_masks(words: Words, starts: NDArray[np.int64], step: int) -> Words:
    """Rounds of `step` that columns take, group by group of rows, as masks to be counted.

    Parameters
    ----------
    words : uint64[M, words]
        Packed rows.
    starts : int64[groups + 1]
        First row of every group, and M.
    step : int
        Non-zeros taken at once.

    Returns
    -------
    uint64[groups, rounds, words]
        Bit k is set in ``ceil(nnz / step)`` of the masks ``[g, :]``, nnz being the non-zeros of column k in group g.
    """
    largest = int((starts[1:] - starts[:-1]).max())
    width = words.shape[1]
    masks = np.empty((len(starts) - 1, -(-largest // step), width), dtype=np.uint64)
    carry = np.empty(width, np.uint64)
    if step & (step - 1) == 0:
        _carried_masks(words, starts, np.empty((step.bit_length() - 1, width), np.uint64), carry, masks)
        return masks
    planes = np.empty((max(largest.bit_length(), 3), width), dtype=np.uint64)
    _compared_masks(words, starts, step, planes, carry, np.empty(width, np.uint64), masks)
    return masks


def weighted_counts(words: Words, planes: Words, shifts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Like `weighted_row_counts`, with rows in memory and weights cut already."""
    out = np.zeros(len(words), dtype=np.int64)
    _weighted_row_counts(words, planes, shifts, out)
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
