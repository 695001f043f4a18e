"""Bit-packed masks: which elements of a matrix are non-zero.

Layout: ``uint64[rows, ceil(K / 64)]``; element *k* of a row is bit ``k % 64`` of word ``k // 64``;
bits past K are zero. One bit an element is what a zero-skip design sees, and is 16 times smaller than bf16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Words = NDArray[np.uint64]
BLOCK_ROWS = 4096


@runtime_checkable
class Mask(Protocol):
    """Anything that streams packed rows: in memory, or lazily from a stored trace.

    Examples
    --------
    >>> isinstance(hwmodels.PackedMask.ones(2, 64), hwmodels.Mask)
    True
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K): rows and elements in a row."""
        ...

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Words]:
        """Yield consecutive row blocks ``uint64[rows, words]``; only the last may be shorter."""
        ...

    def popcount(self) -> int:
        """Count the non-zero elements."""
        ...


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask held in memory.

    Parameters
    ----------
    words : uint64[M, ceil(K / 64)]
        Packed rows.
    k : int
        Elements in a row.

    Raises
    ------
    InputError
        If the words do not fit K, or a bit past K is set.

    Examples
    --------
    >>> mask = hwmodels.PackedMask.from_bool(np.eye(3, dtype=bool))
    >>> mask.shape, mask.popcount(), mask.words.dtype
    ((3, 3), 3, dtype('uint64'))
    """

    words: Words
    k: int

    def __post_init__(self) -> None:
        if self.words.ndim != 2 or self.words.dtype != np.uint64 or self.words.shape[1] != words_per_row(self.k):
            raise InputError(
                f"mask words are {self.words.dtype}{list(self.words.shape)}, expected "
                f"uint64[rows, {words_per_row(self.k)}] for K = {self.k}; pack with PackedMask.from_bool"
            )
        tail = self.k % 64
        if tail and self.words.size and int((self.words[:, -1] >> np.uint64(tail)).max()):
            raise InputError(f"mask has bits set past K = {self.k}; clear them before use")

    @classmethod
    def from_bool(cls, dense: NDArray[np.bool_]) -> PackedMask:
        """Pack ``bool[M, K]``."""
        m, k = dense.shape
        padded = np.zeros((m, words_per_row(k) * 64), dtype=np.bool_)
        padded[:, :k] = dense
        return cls(np.packbits(padded, axis=1, bitorder="little").view(np.uint64), k)

    @classmethod
    def ones(cls, m: int, k: int) -> PackedMask:
        """Return the mask of a dense (M, K) matrix."""
        row = cls.from_bool(np.ones((1, k), dtype=np.bool_)).words
        return cls(np.repeat(row, m, axis=0), k)

    @classmethod
    def bernoulli(cls, m: int, k: int, density: float, seed: int) -> PackedMask:
        """Draw an i.i.d. mask of the given density: synthetic, for what-if studies and tests."""
        return cls.from_bool(np.random.default_rng(seed).random((m, k)) < density)

    def to_bool(self) -> NDArray[np.bool_]:
        """Unpack to ``bool[M, K]``."""
        bits = np.unpackbits(np.ascontiguousarray(self.words).view(np.uint8), axis=1, bitorder="little")
        return bits[:, : self.k].astype(np.bool_)

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return self.words.shape[0], self.k

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Words]:
        """Yield views of `rows` rows each."""
        for start in range(0, self.words.shape[0], rows):
            yield self.words[start : start + rows]

    def popcount(self) -> int:
        """Count the non-zero elements."""
        return int(np.bitwise_count(self.words).sum(dtype=np.int64))

    @property
    def density(self) -> float:
        """Share of non-zeros."""
        return self.popcount() / (self.words.shape[0] * self.k)


@dataclass(frozen=True)
class OnesMask:
    """A dense (M, K) matrix as a mask that takes no memory.

    Parameters
    ----------
    m, k : int
        Rows, and elements in a row.

    Examples
    --------
    >>> hwmodels.OnesMask(2, 64).popcount()
    128
    """

    m: int
    k: int

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return self.m, self.k

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Words]:
        """Yield blocks of ones."""
        block = PackedMask.ones(min(rows, self.m), self.k).words
        for start in range(0, self.m, rows):
            yield block[: min(rows, self.m - start)]

    def popcount(self) -> int:
        """M K."""
        return self.m * self.k


def words_per_row(k: int) -> int:
    """Return the uint64 words that hold K bits."""
    return -(-k // 64)


def load(mask: Mask) -> PackedMask:
    """Bring a whole mask into memory (weights; small activations)."""
    if isinstance(mask, PackedMask):
        return mask
    blocks = list(mask.blocks())
    if not blocks:
        return PackedMask(np.zeros((0, words_per_row(mask.shape[1])), dtype=np.uint64), mask.shape[1])
    return PackedMask(np.ascontiguousarray(np.concatenate(blocks)), mask.shape[1])
