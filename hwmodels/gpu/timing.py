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
from collections.abc import Callable
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
WAVE_TABLE = 1024
THREADED_OPS = 50_000


def _tiles(rows: tuple[int, ...], columns: tuple[int, ...], most: int) -> Ints:
    pairs = {(a, b) for a in rows for b in columns if a * b <= most}
    return np.array(sorted(pairs | {(b, a) for a, b in pairs}, key=lambda t: -t[0] * t[1]), dtype=np.int64)


# Tile families: which CTA tiles a library generation brings along, largest first.
TILE_FAMILIES: dict[str, Ints] = {
    "fine": _tiles((64, 128, 192, 256), (8, 16, 32, 64, 96, 128, 160, 192, 256), 256 * 192),
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
    overlap : float
        p: 1 adds the times up, infinity takes the longest.
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
    overlap: float


@jit
def _predict(mnk, tiles, sides, splits, p, out, tile_out, split_out):  # type: ignore[no-untyped-def]
    # powers of the p-norm factor: waves, splits and CTAs are small integers, so theirs come from tables
    power, size, unit = p.overlap, p.operand_bytes, 1e6  # microseconds keep the powers far from underflow
    wave_power = np.arange(WAVE_TABLE).astype(np.float64) ** power
    split_power = splits.astype(np.float64) ** -power
    rate = np.empty(tiles.shape[0])
    rate_power = np.empty(tiles.shape[0])
    for j in range(tiles.shape[0]):
        bm, bn = sides[tiles[j, 0]], sides[tiles[j, 1]]
        compute, fill = 2.0 * bm * bn / p.sm_flops, (bm + bn) * size / p.sm_fill
        rate[j] = unit * max(compute, fill)
        rate_power[j] = (unit * compute) ** power + (unit * fill) ** power
    rows, columns = np.empty(len(sides), np.int64), np.empty(len(sides), np.int64)
    for i in range(mnk.shape[0]):
        m, n, k = mnk[i, 0], mnk[i, 1], mnk[i, 2]
        for side in range(len(sides)):
            rows[side], columns[side] = -(-m // sides[side]), -(-n // sides[side])
        moved = unit * size * (float(m) * k + float(n) * k + float(m) * n)
        dram, sustained = moved / p.dram, unit * 2.0 * m * n * k / p.sustained_flops
        floor = max(dram, sustained)
        fixed = dram**power + sustained**power
        starved, starved_power = moved / p.sm_dram, (moved / p.sm_dram) ** power
        k_power = float(k) ** power
        step_power = (unit * p.step_s) ** power * k_power
        best = np.inf
        for j in range(tiles.shape[0]):
            a, b = tiles[j, 0], tiles[j, 1]
            blocks = rows[a] * columns[b]
            l2 = unit * blocks * float(k) * (sides[a] + sides[b]) * size / p.l2  # the same for every split
            l2_power = -1.0
            for s in range(splits.shape[0]):
                parts = splits[s]
                ctas = blocks * parts
                if parts > 1 and (parts * MIN_SPLIT_K > k or ctas > MAX_SPLIT_WAVES * p.sms):
                    break
                waves = (ctas + p.sms - 1) // p.sms
                outside = unit * (p.launch_s + waves * p.prologue_s)
                if parts > 1:
                    outside += unit * (p.split_s + 8.0 * parts * m * n / p.split)
                working = min(ctas, p.sms)
                longest = max(floor, waves * rate[j] * k / parts, l2, starved / working)
                if longest + outside >= best:
                    continue
                if l2_power < 0.0:
                    l2_power = l2**power
                waved = wave_power[waves] if waves < WAVE_TABLE else float(waves) ** power
                few = wave_power[working] if working < WAVE_TABLE else float(working) ** power
                total = fixed + l2_power + starved_power / few
                total += split_power[s] * (step_power + waved * k_power * rate_power[j])
                seconds = outside + total ** (1.0 / power)
                if seconds < best:
                    best = seconds
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
