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

from ..errors import InputError
from ..kernels._jit import jit

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
    out = 1.0
    while power > 0:
        if power & 1:
            out *= value
        value *= value
        power >>= 1
    return out


@jit
def _predict(mnk, tiles, sides, splits, p, out, tile_out, split_out):  # type: ignore[no-untyped-def]
    # The p-norm's power is whole, so tilings are compared by multiplications alone; a root is taken only of a better
    # one. The tile with the least bound comes first, which rules out most others.
    power, size, unit = p.overlap, p.operand_bytes, 1e6  # microseconds keep the powers far from underflow
    root, per_sm, launch, prologue = 1.0 / power, 1.0 / p.sms, unit * p.launch_s, unit * p.prologue_s
    share, per_side = 1.0 / splits, 1.0 / sides
    mixed, l2_rate, bound = np.empty(len(tiles)), np.empty(len(tiles)), np.empty(len(tiles))
    for j in range(len(tiles)):
        bm, bn = sides[tiles[j, 0]], sides[tiles[j, 1]]
        compute, fill = unit * 2.0 * bm * bn / p.sm_flops, unit * (bm + bn) * size / p.sm_fill
        mixed[j] = (_raise(compute, power) + _raise(fill, power)) ** root
        l2_rate[j] = unit * (bm + bn) * size / p.l2
    to_dram, to_sustained, to_starved = unit * size / p.dram, unit * 2.0 / p.sustained_flops, unit * size / p.sm_dram
    to_split = unit * 8.0 / p.split
    per_working = 1.0 / np.maximum(np.arange(p.sms + 1), 1)
    rows, columns = np.empty(len(sides), np.int64), np.empty(len(sides), np.int64)
    for i in range(mnk.shape[0]):
        m, n, k = mnk[i, 0], mnk[i, 1], float(mnk[i, 2])
        for side in range(len(sides)):
            # a multiplication for a division: half a unit keeps the quotient clear of whole numbers
            rows[side] = int((m + sides[side] - 0.5) * per_side[side])
            columns[side] = int((n + sides[side] - 0.5) * per_side[side])
        outputs = float(m) * n
        elements = (float(m) + n) * k + outputs
        dram, sustained, starved = elements * to_dram, to_sustained * outputs * k, elements * to_starved
        floor = max(dram, sustained, starved * per_sm)
        fixed = _raise(dram, power) + _raise(sustained, power)
        first, least = 0, np.inf
        for j in range(len(tiles)):
            blocks = rows[tiles[j, 0]] * columns[tiles[j, 1]] * k
            bound[j] = launch + prologue + max(floor, blocks * l2_rate[j], blocks * mixed[j] * per_sm)
            if bound[j] < least:
                first, least = j, bound[j]
        best = np.inf
        for turn in range(-1, len(tiles)):
            j = first if turn < 0 else turn
            if turn == first or bound[j] >= best:
                continue
            blocks = rows[tiles[j, 0]] * columns[tiles[j, 1]]
            whole = fixed + _raise(blocks * k * l2_rate[j], power)  # L2 traffic is the same for every split
            reach = bound[j] - launch - prologue
            for s in range(len(splits)):
                parts = splits[s]
                ctas = blocks * parts
                if parts > 1 and (parts * MIN_SPLIT_K > k or ctas > MAX_SPLIT_WAVES * p.sms):
                    break
                waves = int((ctas + p.sms - 1 + 1e-6) * per_sm)
                outside = launch + waves * prologue
                if parts > 1:
                    outside += unit * p.split_s + to_split * parts * outputs
                if outside + reach >= best:
                    break  # what lies outside the norm only grows with the split
                length = k * share[s]
                total = whole + _raise(waves * length * mixed[j], power) + _raise(length * unit * p.step_s, power)
                total += _raise(starved * per_working[min(ctas, p.sms)], power)
                if best < np.inf and total >= _raise(best - outside, power):
                    continue
                best = outside + total**root
                tile_out[i] = j
                split_out[i] = parts
        out[i] = best / unit


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
    sides, places = np.unique(tiles, return_inverse=True)
    seconds = np.empty(len(shapes))
    chosen, split = np.zeros(len(shapes), dtype=np.int64), np.ones(len(shapes), dtype=np.int64)
    where = places.reshape(tiles.shape)

    def run(part: slice) -> None:
        _predict(shapes[part], where, sides, SPLITS, timing, seconds[part], chosen[part], split[part])

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
