"""Time of a dense GEMM on a GPU: the best of many tilings, each bound by whatever it runs out of first.

For ``Y[m, n] = X[m, k] W[k, n]`` a library picks a tile ``bm x bn`` and splits k in S. With ``C`` thread blocks
(CTAs) in ``w = ceil(C / SMs)`` waves, every resource takes its own time and the p-norm joins them:

    t = t_launch + w t_pro + || w (k/S) 2 bm bn / F_SM,          tensor cores of one SM
                                w (k/S) (bm + bn) s / B_SM,      operands into one SM
                                (k/S) t_step,                    latency of one step along k
                                C (k/S) (bm + bn) s / B_L2,      operands out of L2
                                bytes / B,                       DRAM
                                bytes / (min(C, SMs) B_SM,DRAM), DRAM seen from the SMs that work
                                2 m n k / F ||_p                 sustained by the power limit
        + [S > 1] (t_split + 8 S m n / B_split)

and t is the minimum over tiles and splits. ``s`` is the operand's size in bytes.

The form is a roofline (Williams et al., doi:10.1145/1498765.1498785) with wave and tile quantisation added.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..counting.jit import jit
from ..errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SPLITS = np.array([1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32], dtype=np.int64)
MIN_SPLIT_K = 128  # a shorter share of k is not worth a second pass in any library seen
MAX_SPLIT_WAVES = 4
THREADED_OPS = 50_000


# Recent libraries bring dozens; these are the ones that the model ever prefers by more than a hair.
FINE = (
    (256, 192), (160, 256), (192, 192), (256, 128), (192, 160), (192, 128), (128, 160), (192, 96), (128, 128),
    (64, 256), (128, 96), (160, 64), (128, 64), (32, 256), (64, 96), (32, 192), (64, 64), (16, 192), (64, 32),
    (8, 256), (8, 192), (8, 128), (64, 16), (64, 8),
)  # fmt: skip


def _both_ways(pairs: Iterable[tuple[int, int]]) -> Ints:
    every = {*pairs, *((b, a) for a, b in pairs)}
    return np.array(sorted(every, key=lambda t: (-t[0] * t[1], t)), dtype=np.int64)


def _tiles(rows: tuple[int, ...], columns: tuple[int, ...], most: int) -> Ints:
    return _both_ways([(a, b) for a in rows for b in columns if a * b <= most])


# Tile families: which CTA tiles a library generation brings along, largest first.
TILE_FAMILIES: dict[str, Ints] = {
    "fine": _both_ways(FINE),
    "coarse": _tiles((64, 128, 256), (64, 128), 256 * 128),
    "micro": _tiles((1, 8, 32, 128), (16, 64, 128), 128 * 128),  # register and cache blocks of a processor
}


class GemmTiming(NamedTuple):
    """Parameters of the timing model, SI units.

    Parameters
    ----------
    sms : int
        Streaming multiprocessors.
    operand_bytes : float
        s, bytes of one element.
    launch_s, prologue_s, step_s, split_s : float
        Start of a kernel, of a wave, one step along k, and of the reduction of a split.
    sm_flops, sustained_flops : float
        F_SM, peak of one SM; F, of the whole chip under its power limit, FLOP/s.
    sm_fill, l2, dram, sm_dram, split : float
        B_SM, B_L2, B, B_SM,DRAM and B_split, byte/s.
    overlap : int
        p: 1 adds the times up, a large one takes the longest.
    """

    sms: int
    operand_bytes: float
    launch_s: float
    prologue_s: float
    step_s: float
    split_s: float
    sm_flops: float
    sustained_flops: float
    sm_fill: float
    l2: float
    dram: float
    sm_dram: float
    split: float
    overlap: int


@jit(inline=True)
def _raise(value, power):  # type: ignore[no-untyped-def]
    square = value * value
    if power == 6:
        return square * (square * square)
    if power == 4:
        return square * square
    out = 1.0
    while power > 0:
        if power & 1:
            out *= value
        value *= value
        power >>= 1
    return out


class _Rates(NamedTuple):
    """What does not depend on the shape, in microseconds, which keep powers far from underflow."""

    mixed: Floats  # of an SM, for one element of k of each tile: multiplication and operands joined
    l2: Floats  # of the L2, likewise
    tile: Floats  # both at full use of the chip, joined: the least that a tile can cost
    fixed: Floats  # launch, prologue, step, split
    byte: Floats  # DRAM, one SM's DRAM, split
    flop: float


def _rates(timing: GemmTiming, rows: Floats, columns: Floats) -> _Rates:
    p, unit, size = timing.overlap, 1e6, timing.operand_bytes
    compute, fill = unit * 2.0 * rows * columns / timing.sm_flops, unit * (rows + columns) * size / timing.sm_fill
    mixed, l2 = (compute**p + fill**p) ** (1.0 / p), unit * (rows + columns) * size / timing.l2
    return _Rates(
        mixed,
        l2,
        (l2**p + (mixed / timing.sms) ** p) ** (1.0 / p),
        unit * np.array([timing.launch_s, timing.prologue_s, timing.step_s, timing.split_s]),
        unit * np.array([size / timing.dram, size / timing.sm_dram, 8.0 / timing.split]),
        unit * 2.0 / timing.sustained_flops,
    )


@jit(unchecked=True)
def _tile_grid(m, n, rows, columns, per_row, per_column, blocks):  # type: ignore[no-untyped-def]
    for j in range(len(blocks)):
        # a multiplication for a division: half a unit keeps the quotient clear of whole numbers
        blocks[j] = np.floor((m + rows[j] - 0.5) * per_row[j]) * np.floor((n + columns[j] - 0.5) * per_column[j])


@jit(unchecked=True)
def _unsplit(blocks, k, starved, sms, power, rates, outside, shared, totals):  # type: ignore[no-untyped-def]
    """What lies outside the norm, its L2 term and its sum, of each tile with k whole; the tile of the least sum."""
    launch, prologue = rates.fixed[0], rates.fixed[1]
    per_sm, mixed, l2 = 1.0 / sms, rates.mixed, rates.l2
    for j in range(len(blocks)):
        waves = np.floor((blocks[j] + sms - 1 + 1e-6) * per_sm)
        outside[j] = launch + waves * prologue
        shared[j] = _raise(blocks[j] * k * l2[j], power)
        totals[j] = shared[j] + _raise(waves * k * mixed[j], power) + _raise(starved / min(blocks[j], sms), power)
    least = 0
    for j in range(len(totals)):
        if totals[j] < totals[least]:
            least = j
    return least


@jit(unchecked=True)
def _count_better(outside, totals, whole, best, power):  # type: ignore[no-untyped-def]
    """How many tiles take less than `best`; a loop without a branch, for most shapes have none."""
    found = 0
    for j in range(len(totals)):
        found += whole + totals[j] < _raise(max(best - outside[j], 0.0), power)
    return found


@jit(unchecked=True)
def _with_split(best, blocks, l2, fixed, starved, outputs, k, splits, sms, power, rates):  # type: ignore[no-untyped-def]
    """Least time of any tile with k split, if it is below `best`; with the tile, -1 where there is none, and split."""
    launch, prologue, step, split = rates.fixed
    split_byte, mixed, per_tile = rates.byte[2], rates.mixed, rates.tile
    found, found_parts = -1, 1
    cheapest = launch + prologue + split + split_byte * splits[1] * outputs
    if k < splits[1] * MIN_SPLIT_K or cheapest >= best:
        return best, found, found_parts
    floor, root, per_sm = fixed + _raise(starved / sms, power), 1.0 / power, 1.0 / sms
    most = max(_raise(best - cheapest, power) - floor, 0.0) ** root / k
    thinnest = max(1.0 / splits[-1], MIN_SPLIT_K / k)
    for j in range(len(blocks)):
        # no split does less than this, at full use of the chip or in one thin wave
        if blocks[j] * per_tile[j] >= most or thinnest * mixed[j] >= most:
            continue
        least, before = floor + _raise(blocks[j] * k * per_tile[j], power), best
        for s in range(1, len(splits)):
            parts = splits[s]
            ctas, length = blocks[j] * parts, k / parts
            if parts * MIN_SPLIT_K > k or ctas > MAX_SPLIT_WAVES * sms:
                break
            waves = np.floor((ctas + sms - 1 + 1e-6) * per_sm)
            outside = launch + waves * prologue + split + split_byte * parts * outputs
            own = waves * length * mixed[j]
            if own >= best - outside:
                continue
            inside = _raise(best - outside, power)
            if least >= inside:
                break  # what lies outside the norm only grows with the split
            dram = starved / min(ctas, sms)
            total = fixed + l2[j] + _raise(own, power) + _raise(length * step, power) + _raise(dram, power)
            if total < inside:
                best, found, found_parts = outside + total**root, j, parts
        if best < before:
            most = max(_raise(best - cheapest, power) - floor, 0.0) ** root / k
    return best, found, found_parts


@jit(unchecked=True)
def _predict(mnk, rows, columns, splits, sms, power, rates, out, tile_out, split_out):  # type: ignore[no-untyped-def]
    # The p-norm's power is whole, so tilings are compared by multiplications alone; a root is taken only of a better
    # one. Tiles with k whole come first: most shapes gain nothing from a split, and need not look at any.
    root, count, per_row, per_column = 1.0 / power, len(rows), 1.0 / rows, 1.0 / columns
    blocks, outside, shared, totals = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    for i in range(mnk.shape[0]):
        m, n, k = float(mnk[i, 0]), float(mnk[i, 1]), float(mnk[i, 2])
        outputs = m * n
        elements = (m + n) * k + outputs
        starved = elements * rates.byte[1]
        fixed = _raise(elements * rates.byte[0], power) + _raise(outputs * k * rates.flop, power)
        _tile_grid(m, n, rows, columns, per_row, per_column, blocks)
        whole = fixed + _raise(k * rates.fixed[2], power)
        first = _unsplit(blocks, k, starved, sms, power, rates, outside, shared, totals)
        best = outside[first] + (whole + totals[first]) ** root
        tile_out[i] = first
        better = _count_better(outside, totals, whole, best, power)
        # a root raised again may fall on either side of its own sum
        own = whole + totals[first] < _raise(best - outside[first], power)
        for j in range(count if better > own else 0):
            if outside[j] < best and whole + totals[j] < _raise(best - outside[j], power):
                best = outside[j] + (whole + totals[j]) ** root
                tile_out[i] = j
        best, j, parts = _with_split(best, blocks, shared, fixed, starved, outputs, k, splits, sms, power, rates)
        split_out[i] = parts
        if j >= 0:
            tile_out[i] = j
        out[i] = 1e-6 * best


def check_shapes(mnk: object) -> Ints:
    """Return ``int64[ops, 3]`` of (m, n, k), or say what is wrong with it.

    Raises
    ------
    InputError
        If the array has another shape or an extent below 1.
    """
    shapes = np.atleast_2d(np.asarray(mnk))
    if shapes.ndim != 2 or shapes.shape[1] != 3 or not np.issubdtype(shapes.dtype, np.integer):
        raise InputError(f"GEMM shapes are {shapes.dtype}{list(shapes.shape)}, expected integers [ops, 3] of (m, n, k)")
    if shapes.size and int(shapes.min()) < 1:
        row = int(np.argmin(shapes.min(axis=1)))
        raise InputError(f"GEMM {row}: (m, n, k) = {tuple(int(x) for x in shapes[row])}, each must be at least 1")
    return np.ascontiguousarray(shapes, dtype=np.int64)


class Tiling(NamedTuple):
    """What `predict` chose for each op: seconds, tile rows and columns, split of k."""

    seconds: Floats
    tile: Ints
    split: Ints


def explain(mnk: object, timing: GemmTiming, tiles: Ints) -> Tiling:
    """Predict GEMM times and say which tiling gave them.

    Parameters
    ----------
    mnk : int[ops, 3]
        m (tokens), n (outputs), k (reduction).
    timing : GemmTiming
        The device.
    tiles : int64[tiles, 2]
        A tile family.

    Returns
    -------
    Tiling
        ``seconds[ops]``, ``tile[ops, 2]``, ``split[ops]``.
    """
    shapes = check_shapes(mnk)
    rows, columns = np.ascontiguousarray(tiles.T, dtype=np.float64)
    rates = _rates(timing, rows, columns)
    seconds = np.empty(len(shapes))
    chosen, split = np.zeros(len(shapes), dtype=np.int64), np.ones(len(shapes), dtype=np.int64)

    def run(part: slice) -> None:
        results = seconds[part], chosen[part], split[part]
        _predict(shapes[part], rows, columns, SPLITS, timing.sms, timing.overlap, rates, *results)

    in_chunks(run, len(shapes))
    return Tiling(seconds, tiles[chosen], split)


def in_chunks(run: Callable[[slice], None], count: int) -> None:
    """Call a function that releases the GIL on slices of ``range(count)``, on all cores where it pays."""
    if count < THREADED_OPS:
        run(slice(0, count))
        return
    edges = np.linspace(0, count, (os.cpu_count() or 1) * 4 + 1).astype(int)
    with ThreadPoolExecutor() as pool:
        list(pool.map(run, [slice(int(a), int(b)) for a, b in pairwise(edges)]))


def predict(mnk: object, timing: GemmTiming, tiles: Ints) -> Floats:
    """Seconds of each GEMM, ``float64[ops]``; see `explain`."""
    return explain(mnk, timing, tiles).seconds
