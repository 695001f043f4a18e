"""Entries of the compressed formats that store a run length with each value."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..mask import Mask, OnesMask
from .jit import jit, trailing_zeros64


@jit
def _run_entries(words, shift, out):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        total = np.int64(0)
        following = np.int64(0)
        for word in range(words.shape[1]):
            rest = words[row, word]
            while rest:
                place = word * 64 + trailing_zeros64(rest)
                total += 1 + ((place - following) >> shift)
                following = place + 1
                rest &= rest - np.uint64(1)
        out[row] = total


_KNOWN: WeakKeyDictionary[Any, dict[int, NDArray[np.int64]]] = WeakKeyDictionary()


def run_entries(mask: Mask, index_bits: int) -> NDArray[np.int64]:
    """Entries of each row, padding zeros included: ``sum over non-zeros of 1 + floor(zeros before it / 2^index_bits)``.

    Parameters
    ----------
    mask : Mask
        (M, K).
    index_bits : int
        Width of the run length; a run that does not fit is broken by zeros that are stored as values.

    Returns
    -------
    int64[M]
        Kept while the mask lives.
    """
    if isinstance(mask, OnesMask):
        return np.full(mask.m, mask.k, dtype=np.int64)
    known = _KNOWN.setdefault(mask, {})
    if index_bits not in known:
        out = np.zeros(mask.shape[0], dtype=np.int64)
        start = 0
        for block in mask.blocks():
            _run_entries(block, index_bits, out[start : start + len(block)])
            start += len(block)
        known[index_bits] = out
    return known[index_bits]
