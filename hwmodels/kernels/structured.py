"""Structured weight sparsity: NVIDIA's 2:4 tensor cores, and HighLight's hierarchical G:H blocks.

Both gain only where the weights keep the pattern; zeros of activations gate multipliers at best.

2:4: of four weights along K at most two are non-zero, so K shrinks to ``ceil(K / 4) 2``; weights that do not conform
run as dense. Output tiles are dealt to the tensor cores in waves:

    cycles = ceil(ceil(M / tile_m) ceil(N / tile_n) / cores) ceil(K' / tile_k) tile_m tile_n tile_k / macs

HighLight: G0 of H0 weights in a block and G1 of H1 blocks are non-zero; the sparsest pattern in range that the weights
keep is used, dense time times ``G0 / H0 G1 / H1``:

    cycles = M ceil(N / outputs) ceil(K' / (G0 G1)),    K' = min(K, ceil(K / (H0 H1)) G0 G1)

Sources: Mishra et al., Accelerating sparse deep neural networks, arXiv:2104.08378; Wu et al., HighLight, MICRO 2023,
doi:10.1145/3613424.3623786.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arch import Arch
from ..counting.groups import group_starts
from ..counting.jit import jit
from ..counts import Compute
from ..errors import InputError
from ..kernel import ONE_BY_ONE, Kernel
from ..mapping.space import Dataflow
from ..mask import Mask
from ..op import Op
from ..reference.structured import highlight_twin, two_four_twin


class TwoFourParams(NamedTuple):
    """``cores`` tensor cores of ``macs`` multiply-adds a cycle on tiles of ``tile_m`` x ``tile_n`` x ``tile_k``."""

    cores: int
    macs: int
    tile_m: int
    tile_n: int
    tile_k: int


class HighLightParams(NamedTuple):
    """``outputs`` in parallel; ``g0`` of up to ``h0`` weights in ``g1`` of up to ``h1`` blocks."""

    outputs: int
    g0: int
    h0: int
    g1: int
    h1: int


@jit
def _conforms(words, k, g0, h0, g1, h1):  # type: ignore[no-untyped-def]
    for row in range(words.shape[0]):
        blocks = 0
        for first in range(0, k, h0):
            if first % (h0 * h1) == 0:
                blocks = 0
            found = 0
            for element in range(first, min(first + h0, k)):
                if (words[row, element // 64] >> np.uint64(element % 64)) & np.uint64(1):
                    found += 1
            if found > 0:
                blocks += 1
            if found > g0 or blocks > g1:
                return False
    return True


def conforms(weight: Mask | None, g0: int, h0: int, g1: int = 1, h1: int = 1) -> bool:
    """Tell whether every block of `h0` weights has at most `g0` non-zeros, and of `h1` blocks at most `g1` have any."""
    if weight is None:
        return g0 >= h0 and g1 >= h1
    return all(_conforms(words, weight.shape[1], g0, h0, g1, h1) for words in weight.blocks())


def count_two_four(op: Op, params: TwoFourParams, arch: Arch) -> Compute:
    """Count a GEMM on dense or 2:4 tensor cores.

    Raises
    ------
    InputError
        If a tile is not a whole number of cycles.
    """
    if params.tile_m * params.tile_n * params.tile_k % params.macs:
        raise InputError(f"arch '{arch.name}': parameter 'macs' = {params.macs} does not divide the tile")
    kept = -(-op.k // 4) * 2 if conforms(op.weight, 2, 4) else op.k
    batch = min(op.batch or op.m, op.m)
    launches = np.diff(group_starts(op, batch))
    waves = -(-(-(-launches // params.tile_m) * -(-op.n // params.tile_n)) // params.cores)
    step = params.tile_m * params.tile_n * params.tile_k // params.macs
    row_cycles = waves * -(-min(kept, op.k) // params.tile_k) * step
    dense = int(waves.sum()) * -(-op.k // params.tile_k) * step * op.repeat
    executed = op.m * op.n * min(kept, op.k) * op.repeat
    reads = int((-(-launches // params.tile_m)).sum()) * op.repeat
    slots = int(row_cycles.sum()) * op.repeat * params.cores * params.macs
    effectual = op.effectual_macs
    return Compute(
        cycles=int(row_cycles.sum()) * op.repeat,
        dense_cycles=dense,
        group_rows=batch,
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "mac.gated": executed - effectual,
            "activation_buffer.read": op.m * op.k * -(-op.n // params.tile_n) * op.repeat,
            "weight_buffer.read": reads * min(kept, op.k) * op.n,
            "accumulator.update": op.m * op.n * -(-min(kept, op.k) // params.tile_k) * op.repeat,
        },
        stalls={"wave_and_edge": slots - executed},
    )


def count_highlight(op: Op, params: HighLightParams, arch: Arch) -> Compute:
    """Count a GEMM at the sparsest pattern that its weights keep.

    Raises
    ------
    InputError
        If a pattern asks for more non-zeros than its block holds.
    """
    for g, h in (("g0", "h0"), ("g1", "h1")):
        if getattr(params, g) > getattr(params, h):
            raise InputError(
                f"arch '{arch.name}': parameter '{g}' = {getattr(params, g)}, must be at most '{h}' = "
                f"{getattr(params, h)}"
            )
    h0, h1 = highlight_pattern(op.weight, params)
    lanes = params.g0 * params.g1
    kept = min(op.k, -(-op.k // (h0 * h1)) * lanes)
    passes = -(-op.n // params.outputs)
    per_token = passes * -(-kept // lanes)
    executed = op.m * op.n * kept * op.repeat
    effectual = op.effectual_macs
    cycles = op.m * per_token * op.repeat
    return Compute(
        cycles=cycles,
        dense_cycles=op.m * passes * -(-op.k // lanes) * op.repeat,
        group_rows=1,
        row_cycles=np.full(op.m, per_token, dtype=np.int64),
        actions={
            "mac.compute": effectual,
            "mac.gated": executed - effectual,
            "activation_buffer.read": op.m * op.k * passes * op.repeat,
            "weight_buffer.read": op.n * kept * op.launches,
            "weight_register.read": executed,
            "accumulator.update": op.m * op.n * -(-kept // lanes) * op.repeat,
            "mux.select": executed,
        },
        stalls={"edge": cycles * params.outputs * lanes - executed},
    )


def highlight_pattern(weight: Mask | None, params: HighLightParams) -> tuple[int, int]:
    """Return (H0, H1) of the sparsest pattern in range that the weights keep; (G0, G1) is dense."""
    ranges = [(h0, h1) for h0 in range(params.g0, params.h0 + 1) for h1 in range(params.g1, params.h1 + 1)]
    for h0, h1 in sorted(ranges, key=lambda pair: (-pair[0] * pair[1], pair)):
        if conforms(weight, params.g0, h0, params.g1, h1):
            return h0, h1
    return params.g0, params.g1


def two_four_dataflow(params: TwoFourParams) -> Dataflow:
    """Tiles of a tensor core; of four elements of K at most two are computed on."""
    return Dataflow(params.tile_m, 2 * params.tile_k, params.tile_n)


def highlight_dataflow(params: HighLightParams) -> Dataflow:
    """Blocks of blocks along K, whatever the pattern."""
    return Dataflow(1, params.h0 * params.h1, params.outputs, splits_k=False)


KERNELS = [
    Kernel(
        "nvidia_2_4",
        TwoFourParams,
        count_two_four,
        two_four_twin,
        skips=frozenset({"weight"}),
        baseline=ONE_BY_ONE,
        dataflow=two_four_dataflow,
    ),
    Kernel(
        "highlight",
        HighLightParams,
        count_highlight,
        highlight_twin,
        skips=frozenset({"weight"}),
        baseline=ONE_BY_ONE,
        dataflow=highlight_dataflow,
    ),
]
