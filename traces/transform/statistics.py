"""Statistics of masks: unions, co-activation, hot neurons, runs, overlap between tokens, entropy.

A mask is anything with ``shape`` and ``blocks(rows)`` of packed words, such as ``site.mask()``; it is read once, block
by block, and never unpacked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..storage.bits import Words, words_per_row
from ..storage.jit import jit, lowest_one, popcount64

BLOCK = 4096
FEW_ONES = 12  # in a word: up to here its ones are walked over, beyond it its runs are counted all at once


@jit
def _column_counts(words: Any, counts: Any) -> None:
    """counts[k] += ones in column k; carry-save adders take seven rows at a time before any bit is looked at."""
    rows, width = words.shape
    for w in range(width):
        r = 0
        while r < rows:
            # the planes hold, bit by bit, a three-digit binary count of up to seven rows
            p0 = np.uint64(0)
            p1 = np.uint64(0)
            p2 = np.uint64(0)
            for i in range(r, min(r + 7, rows)):
                x = words[i, w]
                carry = p0 & x
                p0 ^= x
                carry2 = p1 & carry
                p1 ^= carry
                p2 |= carry2
            for plane in range(3):
                left = p0 if plane == 0 else (p1 if plane == 1 else p2)
                while left:
                    counts[w * 64 + lowest_one(left)] += 1 << plane
                    left &= left - np.uint64(1)
            r += 7


@jit
def _union_counts(words: Any, size: int) -> int:
    """Ones left when each `size` consecutive rows are joined by OR."""
    rows, width = words.shape
    total = 0
    for first in range(0, rows, size):
        for w in range(width):
            joined = np.uint64(0)
            for r in range(first, min(first + size, rows)):
                joined |= words[r, w]
            total += popcount64(joined)
    return total


@jit
def _tile_counts(words: Any, size: int, tile: int) -> int:
    """Tiles of `size` rows by `tile` words that hold at least one non-zero."""
    rows, width = words.shape
    total = 0
    for first in range(0, rows, size):
        for w in range(0, width, tile):
            found = False
            for r in range(first, min(first + size, rows)):
                for i in range(w, min(w + tile, width)):
                    if words[r, i]:
                        found = True
                        break
                if found:
                    break
            total += found
    return total


@jit
def _overlap(words: Any, before: Any, both: Any, either: Any) -> None:
    """both[r], either[r]: ones in row r and / or the row before it."""
    rows, width = words.shape
    for r in range(rows):
        common = 0
        joined = 0
        for w in range(width):
            last = before[w] if r == 0 else words[r - 1, w]
            common += popcount64(words[r, w] & last)
            joined += popcount64(words[r, w] | last)
        both[r] = common
        either[r] = joined


@jit
def _runs(words: Any, k: int, histogram: Any) -> None:
    """histogram[i, length] += runs of zeros of that length within a row; the last bin takes all that are longer.

    The four lines are added up afterwards: neighbouring runs then seldom wait for one another's count. Length 0, a one
    beside a one, is counted too, for a branch would cost more.
    """
    rows, width = words.shape
    longest = histogram.shape[1] - 1
    one = np.uint64(1)
    for r in range(rows):
        zeros = 0  # the run that reaches into this word
        for w in range(width):
            x = words[r, w]
            if popcount64(x) < FEW_ONES:
                last = w * 64 - zeros - 1
                while x:
                    here = w * 64 + lowest_one(x)
                    histogram[here & 3, min(here - last - 1, longest)] += 1
                    last = here
                    x &= x - one
                zeros = w * 64 + 63 - last
            else:
                first = lowest_one(x)
                histogram[0, min(zeros + first, longest)] += 1
                below = x  # every bit up to the highest one
                for shift in (1, 2, 4, 8, 16, 32):
                    below |= below >> np.uint64(shift)
                zeros = 64 - popcount64(below)
                inner = ~x & below & ~((one << np.uint64(first)) - one)
                length, alive = 0, popcount64(inner & ~(inner << one))
                while inner:  # each turn shortens every run by one: what is gone had this length
                    length += 1
                    inner &= inner >> one
                    left = popcount64(inner & ~(inner << one))
                    histogram[length & 3, min(length, longest)] += alive - left
                    alive = left
        histogram[0, min(zeros - (width * 64 - k), longest)] += 1


@jit
def _pairs(columns: Any, out: Any) -> None:
    """out[i, j] = ones in both columns; columns are packed along the tokens."""
    count, width = columns.shape
    for i in range(count):
        for j in range(i, count):
            total = 0
            for w in range(width):
                total += popcount64(columns[i, w] & columns[j, w])
            out[i, j] = total
            out[j, i] = total


def neuron_counts(mask: Any) -> NDArray[np.int64]:
    """Return ``int64[K]``: in how many rows each neuron is non-zero."""
    k = mask.shape[1]
    counts = np.zeros(words_per_row(k) * 64, dtype=np.int64)
    for block in mask.blocks(BLOCK):
        _column_counts(block, counts)
    return counts[:k]


def token_counts(mask: Any) -> NDArray[np.int64]:
    """Return ``int64[M]``: how many neurons are non-zero in each row."""
    parts = [np.bitwise_count(block).sum(axis=1, dtype=np.int64) for block in mask.blocks(BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def union_density(mask: Any, batch: int) -> float:
    """Return the density of the union of each `batch` consecutive rows: the share of weight rows a batch must load.

    With independent tokens it would be the mean over neurons of ``1 - (1 - p)^batch``.

    Raises
    ------
    InputError
        If `batch` is below 1 or the mask has no rows.
    """
    rows, k = _checked(mask, batch, "batch")
    # whole groups only cross no block's edge if blocks are a multiple of the batch
    size = batch * max(1, BLOCK // batch)
    ones = sum(int(_union_counts(block, batch)) for block in mask.blocks(size))
    return ones / (-(-rows // batch) * k)


def tile_density(mask: Any, rows: int, columns: int) -> float:
    """Return the share of tiles of `rows` tokens by `columns` neurons (a multiple of 64) that hold any non-zero."""
    total, k = _checked(mask, rows, "rows")
    if columns < 64 or columns % 64:
        raise InputError(f"columns = {columns}: must be a multiple of 64, the neurons in a word")
    tile = columns // 64
    found = sum(int(_tile_counts(block, rows, tile)) for block in mask.blocks(rows * max(1, BLOCK // rows)))
    return found / (math.ceil(total / rows) * math.ceil(words_per_row(k) / tile))


def temporal_overlap(mask: Any) -> NDArray[np.float64]:
    """Return ``float64[M - 1]``: Jaccard index of each row's non-zeros and the former row's; 1 where both are empty."""
    before = np.zeros(words_per_row(mask.shape[1]), dtype=np.uint64)
    parts = []
    for block in mask.blocks(BLOCK):
        both, either = np.zeros(len(block), dtype=np.int64), np.zeros(len(block), dtype=np.int64)
        _overlap(block, before, both, either)
        parts.append(np.where(either > 0, both / np.maximum(either, 1), 1.0))
        before = block[-1]
    return np.concatenate(parts)[1:] if parts else np.zeros(0)


def zero_runs(mask: Any, longest: int = 256) -> NDArray[np.int64]:
    """Return ``int64[longest + 1]``: how many runs of zeros of each length rows have; the last bin is open."""
    histogram = np.zeros((4, longest + 1), dtype=np.int64)
    for block in mask.blocks(BLOCK):
        _runs(block, mask.shape[1], histogram)
    histogram[:, 0] = 0
    joined: NDArray[np.int64] = histogram.sum(axis=0)
    return joined


def coactivation(mask: Any, neurons: NDArray[np.int64] | None = None, limit: int = 256) -> NDArray[np.int64]:
    """Return how often each pair of neurons is non-zero together: ``int64[n, n]``, counts of one on the diagonal.

    Parameters
    ----------
    mask : Mask
        What to look at.
    neurons : int64[n], optional
        Which neurons; the `limit` hottest by default.
    limit : int
        How many of the hottest.
    """
    chosen = np.argsort(-neuron_counts(mask), kind="stable")[:limit] if neurons is None else np.asarray(neurons)
    parts = []
    for block in mask.blocks(BLOCK):
        bits = (block[:, chosen // 64] >> (chosen % 64).astype(np.uint64)) & np.uint64(1)
        packed = np.packbits(bits.astype(np.bool_).T, axis=1, bitorder="little")
        parts.append(np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).copy().view(np.uint64))
    columns = np.concatenate(parts, axis=1) if parts else np.zeros((len(chosen), 0), dtype=np.uint64)
    out = np.zeros((len(chosen), len(chosen)), dtype=np.int64)
    _pairs(np.ascontiguousarray(columns), out)
    return out


def hot_neurons(mask: Any, share: float = 0.9) -> NDArray[np.int64]:
    """Return the fewest neurons, hottest first, that hold `share` of all non-zeros."""
    if not 0 < share <= 1:
        raise InputError(f"share = {share}: must be in (0, 1]")
    return _hot(neuron_counts(mask), share)


def _hot(counts: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    order = np.argsort(-counts, kind="stable")
    reached = np.cumsum(counts[order])
    if not reached[-1]:
        return order[:0]
    return order[: int(np.searchsorted(reached, share * reached[-1])) + 1]


def entropy_bits(mask: Any) -> float:
    """Return the sum over neurons of M H(p), H(p) = -p log2 p - (1 - p) log2(1 - p), in bits."""
    return _entropy(neuron_counts(mask), mask.shape[0])


def _entropy(counts: NDArray[np.int64], m: int) -> float:
    p = counts / max(1, m)
    q = np.stack([p, 1 - p])
    return float(-(q * np.log2(np.where(q > 0, q, 1))).sum() * m)


@dataclass(frozen=True)
class MaskSummary:
    """The figures of one mask."""

    density: float
    union_density: dict[int, float]
    hot_share: float
    overlap: float
    mean_zero_run: float
    entropy_per_bit: float


def summarise(mask: Any, batches: tuple[int, ...] = (2, 8, 32)) -> MaskSummary:
    """Return density, union densities, share of neurons with 90 % of the ones, mean overlap, mean run, entropy."""
    m, k = mask.shape
    counts, runs, overlap = neuron_counts(mask), zero_runs(mask, max(256, k)), temporal_overlap(mask)
    return MaskSummary(
        density=float(counts.sum() / (m * k)),
        union_density={b: union_density(mask, b) for b in batches},
        hot_share=len(_hot(counts, 0.9)) / k,
        overlap=float(overlap.mean()) if len(overlap) else 1.0,
        mean_zero_run=float((runs * np.arange(len(runs))).sum() / max(1, runs.sum())),
        entropy_per_bit=_entropy(counts, m) / (m * k),
    )


def _checked(mask: Any, size: int, what: str) -> tuple[int, int]:
    rows, k = mask.shape
    if size < 1:
        raise InputError(f"{what} = {size}: must be at least 1")
    if not rows:
        raise InputError("the mask has no rows; record at least one token")
    return rows, k


def as_mask(words: Words, k: int) -> Any:
    """Wrap packed words in memory, for the functions here."""

    class _InMemory:
        shape = (len(words), k)

        def blocks(self, rows: int = BLOCK) -> Any:
            return (words[i : i + rows] for i in range(0, len(words), rows))

    return _InMemory()
