"""Pack a tensor in memory in one pass over its bits: no comparison's result is ever written out."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..storage.bits import Words, words_per_row
from ..storage.jit import jit

# for each torch dtype: the integer of its width, the bits of the magnitude, and those of infinity (no bool has them)
FORMATS = {
    "float32": ("int32", 0x7FFFFFFF, 0x7F800000),
    "bfloat16": ("int16", 0x7FFF, 0x7F80),
    "float16": ("int16", 0x7FFF, 0x7C00),
    "float64": ("int64", 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
    "bool": ("uint8", 1, 2),
}


@jit
def _pack_bits(bits: Any, magnitude: Any, low: Any, high: Any, words: Any) -> Any:
    """Bit of each element: whether ``low < bits & magnitude <= high``; floats of one sign are ordered as integers.

    Returns the largest magnitude: one more operation on values that are in registers, where another pass would read
    them all from memory.
    """
    rows, columns = bits.shape
    kind = bits.dtype.type  # numba would compute in 64 bits otherwise
    largest = kind(0)
    for r in range(rows):
        for w in range(columns // 64):
            word = np.uint64(0)
            for i in range(64):
                size = kind(bits[r, w * 64 + i] & magnitude)
                word |= np.uint64((size > low) & (size <= high)) << np.uint64(i)
                largest = max(largest, size)
            words[r, w] = word
        if columns % 64:
            first = columns // 64 * 64
            word = np.uint64(0)
            for i in range(columns - first):
                size = kind(bits[r, first + i] & magnitude)
                word |= np.uint64((size > low) & (size <= high)) << np.uint64(i)
                largest = max(largest, size)
            words[r, first // 64] = word
    return largest


@jit
def _count_from(bits: Any, magnitude: Any, least: Any) -> int:
    """Count the elements whose magnitude is `least` or above."""
    total = 0
    rows, columns = bits.shape
    for r in range(rows):
        found = np.uint32(0)
        for i in range(columns):
            found += np.uint32((bits[r, i] & magnitude) >= least)
        total += int(found)
    return total


def limits(values: Any, threshold: float) -> tuple[Any, int, int, int]:
    """Return a tensor's bits as integers, the magnitude's bits, and the bounds of what counts as non-zero.

    Above zero everything counts, NaN included; above a threshold NaN does not, as in ``values.abs() > threshold``.
    """
    import torch

    integer, magnitude, infinity = FORMATS[str(values.dtype).removeprefix("torch.")]
    kind = getattr(torch, integer)
    if not threshold:
        return values.view(kind), magnitude, 0, magnitude
    return values.view(kind), magnitude, _bits_of(threshold, values.dtype, kind), infinity


@cache
def _bits_of(threshold: float, dtype: Any, kind: Any) -> int:
    import torch

    return int(torch.tensor(threshold, dtype=dtype).view(kind).item())


def pack_cpu(values: Any, threshold: float = 0.0) -> tuple[Words, int]:
    """Pack where a 2-D tensor on the CPU is not zero, or its magnitude above a threshold.

    Parameters
    ----------
    values : tensor (M, K)
        Of any format in `FORMATS`.
    threshold : float
        Zero for every non-zero element, NaN included.

    Returns
    -------
    words : uint64[M, ceil(K / 64)]
    non_finite : int
        How many elements are NaN or infinite.
    """
    bits, magnitude, low, high = limits(values.detach().contiguous(), threshold)
    words = np.zeros((bits.shape[0], words_per_row(bits.shape[1])), dtype=np.uint64)
    array = bits.numpy()
    array = array.view(f"u{array.itemsize}")
    kind = array.dtype.type
    infinity = kind(FORMATS[str(values.dtype).removeprefix("torch.")][2])
    largest = _pack_bits(array, kind(magnitude), kind(low), kind(high), words)
    return words, int(_count_from(array, kind(magnitude), infinity)) if largest >= infinity else 0
