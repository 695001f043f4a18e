"""DaDianNao: dense, 16 tiles of 16 filters x 16 neuron lanes; zeros cost as much time as anything else.

    cycles = M ceil(K / lanes) ceil(N / (filters tiles))

Zero activations gate multipliers at best; zero weights and outputs that are not needed are not seen.

Source: Chen et al., DaDianNao, MICRO 2014, doi:10.1109/MICRO.2014.58.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arch import Arch
from ..counts import Compute
from ..kernel import ONE_BY_ONE, Kernel
from ..mapping.space import Dataflow
from ..op import Op
from ..reference.dadiannao import dadiannao_twin


class DaDianNaoParams(NamedTuple):
    """``tiles`` tiles, each of ``filters`` dot products over ``lanes`` elements a cycle."""

    lanes: int
    filters: int
    tiles: int


def count(op: Op, params: DaDianNaoParams, arch: Arch) -> Compute:
    """Count a GEMM; masks only decide which MACs are gated."""
    steps, passes = -(-op.k // params.lanes), -(-op.n // (params.filters * params.tiles))
    per_token = steps * passes
    cycles = op.m * per_token * op.repeat
    effectual = op.effectual_macs
    slots = cycles * params.lanes * params.filters * params.tiles
    return Compute(
        cycles=cycles,
        dense_cycles=cycles,
        group_rows=1,
        row_cycles=np.full(op.m, per_token, dtype=np.int64),
        actions={
            "mac.compute": effectual,
            "mac.gated": op.macs - effectual,
            "activation_buffer.read": op.m * op.k * passes * op.repeat,
            "weight_buffer.read": op.macs,
            "accumulator.update": op.m * op.n * steps * op.repeat,
            "activation_buffer.write": op.m * op.n * op.repeat,
        },
        stalls={"ragged_edge": slots - op.macs},
    )


def dataflow(params: DaDianNaoParams) -> Dataflow:
    """Any order: no step waits for another."""
    return Dataflow(1, params.lanes, params.filters * params.tiles)


KERNELS = [
    Kernel(
        "dadiannao", DaDianNaoParams, count, dadiannao_twin, skips=frozenset(), baseline=ONE_BY_ONE, dataflow=dataflow
    )
]
