"""Counting kernels: non-zeros by row, by column, and over pairs of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..mask import Mask, PackedMask
from ._jit import jit, popcount64, trailing_zeros64


@jit
def _row_counts(words, out):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        total = 0
        for word in range(words.shape[1]):
            total += popcount64(words[row, word])
        out[row] = total


@jit
def _add_column_counts(words, out):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        for word in range(words.shape[1]):
            rest = words[row, word]
            while rest:
                out[word * 64 + trailing_zeros64(rest)] += 1
                rest &= rest - np.uint64(1)


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
    out = np.zeros(-(-k // 64) * 64, dtype=np.int64)
    for block in mask.blocks():
        _add_column_counts(block, out)
    return out[:k]


def needed_macs(activation: Mask, weight: PackedMask, output: Mask) -> int:
    """MACs with both operands non-zero and the output needed, ``sum_{m,n} o[m,n] popcount(a[m] & w[n])``."""
    total = 0
    for rows, needed in zip(activation.blocks(), output.blocks(), strict=True):
        out = np.zeros(len(rows), dtype=np.int64)
        _needed_pairs(rows, weight.words, needed, out)
        total += int(out.sum())
    return total
