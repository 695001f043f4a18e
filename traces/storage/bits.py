"""Pack boolean activations into words: one bit an element, element k of a row at bit ``k % 64`` of word ``k // 64``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def words_per_row(k: int) -> int:
    """Return the uint64 words that hold K bits."""
    return -(-k // 64)


def pack(dense: NDArray[np.bool_]) -> Words:
    """Pack ``bool[M, K]`` into ``uint64[M, ceil(K / 64)]``; bits past K are zero.

    Any numeric dtype is accepted: what differs from zero counts as one, NaN included.
    """
    mask = np.asarray(dense) if np.asarray(dense).dtype == np.bool_ else np.asarray(dense) != 0
    m, k = mask.shape
    packed = np.packbits(mask, axis=1, bitorder="little")
    short = words_per_row(k) * 8 - packed.shape[1]
    if short:
        packed = np.pad(packed, ((0, 0), (0, short)))
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64, copy=False).reshape(m, words_per_row(k))


def unpack(words: Words, k: int) -> NDArray[np.bool_]:
    """Unpack ``uint64[M, ceil(K / 64)]`` into ``bool[M, K]``."""
    rows = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(rows, axis=1, count=k, bitorder="little").view(np.bool_)


def popcount(words: Words) -> int:
    """Count the ones."""
    return int(np.bitwise_count(words).sum(dtype=np.int64))


def pack_torch(mask: Any) -> Any:
    """Pack a boolean tensor ``[..., K]`` on its own device into ``int64[..., ceil(K / 64)]``.

    torch has no general uint64 arithmetic, so the words come back as int64 with the same bits; on the host
    ``.numpy().view(numpy.uint64)`` makes them what `pack` returns.
    """
    import torch

    k = mask.shape[-1]
    padded = words_per_row(k) * 64
    bits = mask.to(torch.uint8)
    if padded != k:
        bits = torch.nn.functional.pad(bits, (0, padded - k))
    # eight 0/1 bytes seen as one integer: this multiplication gathers byte i's low bit into bit 56 + i of the product
    gathered = bits.contiguous().view(torch.int64) * 0x0102040810204080
    packed = (gathered >> 56).to(torch.uint8)
    return packed.view(torch.int64)
