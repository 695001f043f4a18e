"""The GPU kernel, launch by launch and tiling by tiling, from the definition."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..gpu.correction import TILE_COLUMNS, TILE_ROWS, Correction
from ..gpu.model import load_correction
from ..gpu.timing import MAX_SPLIT_WAVES, MIN_SPLIT_K, SPLITS, TILE_FAMILIES
from ..mask import load
from ..op import Op
from .outputs import launches

if TYPE_CHECKING:
    from ..arch import Arch


def _norm(times: list[float], p: float) -> float:
    longest = max(times)
    return longest * sum((t / longest) ** p for t in times) ** (1.0 / p)


def gemm_seconds(m: int, n: int, k: int, p: Any, size: float) -> float:
    """Dense time: try every tile and split."""
    best = math.inf
    for (bm, bn), parts in product(TILE_FAMILIES[p.tile_family].tolist(), SPLITS.tolist()):
        blocks = math.ceil(m / bm) * math.ceil(n / bn)
        length = k / parts
        if parts > 1 and (length < MIN_SPLIT_K or blocks * parts > MAX_SPLIT_WAVES * p.sms):
            continue
        ctas = blocks * parts
        waves = math.ceil(ctas / p.sms)
        moved = size * (m * k + n * k + m * n)
        times = [
            waves * length * 2.0 * bm * bn / p.sm_flops,
            waves * length * (bm + bn) * size / p.sm_fill,
            length * p.step_s,
            ctas * length * (bm + bn) * size / p.l2,
            moved / p.dram,
            moved / (min(ctas, p.sms) * p.sm_dram),
            2.0 * m * n * k / p.sustained_flops,
        ]
        seconds = p.launch_s + waves * p.prologue_s + _norm(times, p.overlap)
        if parts > 1:
            seconds += p.split_s + 8.0 * parts * m * n / p.split
        best = min(best, seconds)
    return best * math.exp(_correction(m, n, k, load_correction(p.correction)))


def _correction(m: int, n: int, k: int, found: Correction | None) -> float:
    if found is None:
        return 0.0

    def place(m: int, n: int, k: int) -> list[float]:
        waves = math.ceil(m / TILE_ROWS) * math.ceil(n / TILE_COLUMNS) / found.sms
        return [math.log2(m), math.log2(n), math.log2(k), math.log2(waves), waves % 1 if waves > 0.3 else 0.0]

    here, total = place(m, n, k), 0.0
    for anchor, weight in zip(found.anchors.tolist(), found.weights.tolist(), strict=True):
        gaps = zip(here, place(*anchor), found.scales.tolist(), strict=True)
        total += weight / (1.0 + sum(((a - b) / scale) ** 2 for a, b, scale in gaps) / 4.0) ** 2
    return total


def _gather(needed: Any, tokens: int, total: int, width: int, p: Any, size: float) -> float:
    used = [index for index in range(total) if needed[:, index].any()]
    runs = sum(1 for i, index in enumerate(used) if i == 0 or index != used[i - 1] + 1)
    ctas = max(1, math.ceil(len(used) / 32) * math.ceil(width / 512))
    moved = len(used) * width * size + runs * p.page_bytes + tokens * width * size
    memory = moved / min(p.dram, min(ctas, p.sms) * p.sm_dram)
    compute = 2.0 * tokens * len(used) * width / p.sustained_flops
    parts = min(max(math.ceil(2 * p.sms / math.ceil(width / 512)), 1), max(1, math.ceil(len(used) / 32)))
    scan = tokens * total * size / p.dram
    reduce = 4.0 * (parts + 1) * tokens * width / p.l2
    return 3 * (p.launch_s + p.prologue_s) + scan + _norm([memory, compute], p.overlap) + reduce


def _tile_skip(active: Any, n: int, p: Any, size: float) -> float:
    tokens, k = active.shape
    tiles = [active[first : first + p.skip_rows] for first in range(0, tokens, p.skip_rows)]
    blocks = range(0, k, p.skip_block)
    live = sum(bool(tile[:, first : first + p.skip_block].any()) for tile in tiles for first in blocks)
    share = live / (len(tiles) * len(blocks))
    return gemm_seconds(tokens, n, max(1, math.ceil(k * share)), p, size) * (1.0 + p.skip_overhead)


def gpu_twin(op: Op, params: Any, arch: Arch) -> int:
    """Cycles of all launches, each by the fastest kernel its policy allows."""
    size = int(arch.bits["activation"].value) / 8
    active = None if op.activation is None else load(op.activation).to_bool()
    needed = None if op.output is None else load(op.output).to_bool()
    cycles = 0
    for first, stop in launches(op, op.batch or op.m):
        tokens = stop - first
        masked = (active is not None or needed is not None) and op.repeat == 1
        times = []
        if params.policy in ("gather", "best") and masked:
            mask, total, width = (active, op.k, op.n) if active is not None else (needed, op.n, op.k)
            assert mask is not None
            times.append(_gather(mask[first:stop], tokens, total, width, params, size))
        if params.policy in ("tile_skip", "best") and masked and active is not None:
            times.append(_tile_skip(active[first:stop], op.n, params, size))
        if params.policy in ("dense", "best") or not times:
            times.append(gemm_seconds(tokens * op.shared, op.n * op.groups, op.k, params, size))
        cycles += int(np.ceil(min(times) * arch.clock_hz))
    return cycles
