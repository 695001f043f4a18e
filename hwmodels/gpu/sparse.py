"""Time of activation-sparse kernels on a GPU, from the rows a launch really needs.

A launch of a few tokens gathers the union of their non-zeros. Three kernels run one after another, each started
once (``t_start = t_launch + t_pro``):

    scan     t_start + M K s / B                                  count and compact the indices
    gather   t_start + || bytes / B_eff, 2 M U n / F ||_p         U rows of n outputs
    reduce   t_start + 4 (parts + 1) M n / B_L2                   partial sums, in a fixed order

with ``bytes = U row_bytes + runs page``: neighbouring rows stream as one run, and every break opens a DRAM page
again, ``page`` bytes of bandwidth lost. ``B_eff = min(B, CTAs B_SM,DRAM)``. In the limit of all rows the gather
moves the bytes of the dense kernel.

Measured curves of this kind are straight lines ``t = a + b density`` (CATS, arXiv:2404.08763), which this form
gives for the overhead of three launches and a byte-bound gather.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..counting.jit import jit, popcount64
from .model import GemmModel
from .timing import Floats, GemmTiming, Ints


class Union(NamedTuple):
    """Rows that launches need: ``rows[launches]`` and how many runs of neighbours they form, ``runs[launches]``."""

    rows: Ints
    runs: Ints


@jit
def _union(words, starts, rows, runs):  # type: ignore[no-untyped-def]
    one = np.uint64(1)
    for group in range(starts.shape[0] - 1):
        total = 0
        begun = 0
        carry = np.uint64(0)
        for word in range(words.shape[1]):
            seen = np.uint64(0)
            for row in range(starts[group], starts[group + 1]):
                seen |= words[row, word]
            total += popcount64(seen)
            begun += popcount64(seen & ~((seen << one) | carry))
            carry = seen >> np.uint64(63)
        rows[group] = total
        runs[group] = begun


def union_rows(words: NDArray[np.uint64], starts: Ints) -> Union:
    """Count the union of each group of mask rows.

    Parameters
    ----------
    words : uint64[M, words]
        Packed masks.
    starts : int64[groups + 1]
        First row of each group, and M.

    Returns
    -------
    Union
        Elements set in any row of the group, and the runs of neighbours they form.
    """
    rows, runs = (np.zeros(len(starts) - 1, dtype=np.int64) for _ in range(2))
    _union(words, starts, rows, runs)
    return Union(rows, runs)


def bernoulli_runs(rows: Floats, total: int) -> Floats:
    """Expected runs when `rows` of `total` are set at random: ``rows (1 - rows / total) + rows / total``."""
    density = rows / total
    return np.asarray(rows * (1.0 - density) + density)


def gather_seconds(
    rows: Floats | Ints,
    runs: Floats | Ints,
    tokens: Floats | Ints | int,
    total_rows: Ints | int,
    outputs: Ints | int,
    timing: GemmTiming,
    page_bytes: float,
    kernels: int = 3,
) -> Floats:
    """Predict the gathered product ``y[M, n] = x[:, idx] W[idx, :]``.

    Parameters
    ----------
    rows, runs : float[launches]
        Rows of W in the union, and their runs of neighbours.
    tokens : int or int[launches]
        M of each launch.
    total_rows, outputs : int or int[launches]
        Rows and columns of W; a row is contiguous.
    timing : GemmTiming
        The device.
    page_bytes : float
        Bandwidth that a break in the stream costs, byte.
    kernels : int
        How many launches are charged: 3 with scan and reduction of its own, fewer where they are fused.

    Returns
    -------
    float64[launches]
        Seconds.
    """
    tokens = np.asarray(tokens, dtype=np.float64)
    used = np.asarray(rows, dtype=np.float64)
    row_bytes = outputs * timing.operand_bytes
    moved = used * row_bytes + np.asarray(runs) * page_bytes + tokens * outputs * timing.operand_bytes
    ctas = np.maximum(1.0, np.ceil(used / 32) * np.ceil(outputs / 512))
    memory = moved / np.minimum(timing.dram, np.minimum(ctas, timing.sms) * timing.sm_dram)
    compute = 2.0 * tokens * used * outputs / timing.sustained_flops
    body = (memory**timing.overlap + compute**timing.overlap) ** (1.0 / timing.overlap)
    parts = np.clip(np.ceil(2.0 * timing.sms / np.ceil(outputs / 512)), 1, np.maximum(1, np.ceil(used / 32)))
    scan = tokens * total_rows * timing.operand_bytes / timing.dram
    reduce = 4.0 * (parts + 1) * tokens * outputs / timing.l2
    return np.asarray(kernels * (timing.launch_s + timing.prologue_s) + scan + body + reduce)


@jit
def _live_blocks(words, starts, block, k, live):  # type: ignore[no-untyped-def]
    for group in range(starts.shape[0] - 1):
        count = 0
        for first in range(0, k, block):
            alive = False
            for word in range(first // 64, (min(first + block, k) - 1) // 64 + 1):
                low = max(first - word * 64, 0)
                width = min(first + block - word * 64, 64) - low
                keep = np.uint64(0xFFFFFFFFFFFFFFFF)
                if width < 64:
                    keep = ((np.uint64(1) << np.uint64(width)) - np.uint64(1)) << np.uint64(low)
                for row in range(starts[group], starts[group + 1]):
                    if words[row, word] & keep:
                        alive = True
                        break
                if alive:
                    break
            count += alive
        live[group] = count


def live_blocks(words: NDArray[np.uint64], starts: Ints, block: int, k: int) -> Ints:
    """K blocks of `block` elements that hold a non-zero in any row of a token tile, ``int64[tiles]``."""
    live = np.zeros(len(starts) - 1, dtype=np.int64)
    _live_blocks(words, starts, block, k, live)
    return live


def tile_skip_seconds(mnk: Ints, live_share: Floats, model: GemmModel, overhead: float) -> Floats:
    """Predict a GEMM that leaves out K blocks: the dense time of the K that is left, times ``1 + overhead``.

    Parameters
    ----------
    mnk : int64[ops, 3]
        Dense shapes.
    live_share : float[ops]
        Share of (token tile, K block) pairs that hold a non-zero.
    model : GemmModel
        The device.
    overhead : float
        What asking each block costs, as a share.

    Returns
    -------
    float64[ops]
        Seconds.
    """
    shapes = np.array(mnk, dtype=np.int64)
    shapes[:, 2] = np.maximum(1, np.ceil(shapes[:, 2] * live_share))
    return model.predict(shapes) * (1.0 + overhead)


def gated_mlp_seconds(
    active: Floats, runs: Floats, d_model: int, d_ff: int, model: GemmModel, page_bytes: float
) -> tuple[float, Floats]:
    """Predict one token through a gated MLP, dense and with a dense gate but sparse up and down.

    Dense: three GEMVs, the activation and the product, one launch each. Sparse: the gate's GEMV, then a gather along
    the neurons for up and one for down, each with its reduction; thresholding is fused into the gate.

    Parameters
    ----------
    active, runs : float64[points]
        Active neurons, and their runs of neighbours.
    d_model, d_ff : int
        Widths.
    model : GemmModel
        The device.
    page_bytes : float
        Bandwidth that a break in the stream costs, byte.

    Returns
    -------
    float, float64[points]
        Dense seconds, and sparse seconds of each point.
    """
    timing = model.timing
    gate, down = model.predict(np.array([[1, d_ff, d_model], [1, d_model, d_ff]]))
    element_wise = timing.launch_s + timing.prologue_s + 3 * d_ff * timing.operand_bytes / timing.dram
    gathered = gather_seconds(active, runs, 1, d_ff, d_model, timing, page_bytes, kernels=2)
    return float(2 * gate + down + 2 * element_wise), np.asarray(gate + 2 * gathered)
