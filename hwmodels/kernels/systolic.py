"""Systolic array (TPU-like): zeros gate multipliers, never time.

R x C PEs, M = T tokens, K reduction, N outputs. Weight-stationary: weights of an R x C fold (R of K, C of N) are
loaded, then all T tokens stream through:

    cycles = ceil(K / R) ceil(N / C) (2 R + C + T - 2)

Output-stationary: an R x C fold (R of T, C of N) accumulates over K:

    cycles = ceil(T / R) ceil(N / C) (R + C + K - 2)

Sums leave by the bottom edge behind the last operands. The paper's equation charges R cycles more for that in every
dataflow; SCALE-Sim 3's demand matrices, which both fold times here equal, hide it.

Source: Samajdar et al., SCALE-Sim, doi:10.1109/ISPASS48437.2020.00016.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arch import Arch
from ..counting.groups import group_starts
from ..counts import Compute
from ..errors import InputError
from ..kernel import ONE_BY_ONE, Kernel
from ..mapping.space import Dataflow
from ..op import Op
from ..reference.systolic import systolic_twin


class SystolicParams(NamedTuple):
    """``rows`` x ``columns`` PEs; ``stationary`` is ``"weight"`` or ``"output"``."""

    rows: int
    columns: int
    stationary: str


def fold_cycles(params: SystolicParams, tokens: int, k: int, n: int) -> int:
    """Cycles of one launch of `tokens` tokens."""
    rows, columns = params.rows, params.columns
    if params.stationary == "output":
        return -(-tokens // rows) * -(-n // columns) * (rows + columns + k - 2)
    return -(-k // rows) * -(-n // columns) * (2 * rows + columns + tokens - 2)


def count(op: Op, params: SystolicParams, arch: Arch) -> Compute:
    """Count a GEMM; masks only decide which MACs are gated."""
    if params.stationary not in ("weight", "output"):
        raise InputError(f"arch '{arch.name}': parameter 'stationary' = {params.stationary!r}; say weight or output")
    batch = min(op.batch or op.m, op.m)
    starts = group_starts(op, batch)
    by_size = {int(size): fold_cycles(params, int(size), op.k, op.n) for size in np.unique(np.diff(starts))}
    row_cycles = np.array([by_size[int(size)] for size in np.diff(starts)], dtype=np.int64)
    cycles = int(row_cycles.sum()) * op.repeat
    passes_n, passes_k = -(-op.n // params.columns), -(-op.k // params.rows)
    effectual = op.effectual_macs
    return Compute(
        cycles=cycles,
        dense_cycles=cycles,
        group_rows=batch,
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "mac.gated": op.macs - effectual,
            "activation_buffer.read": op.m * op.k * passes_n * op.repeat,
            "weight_buffer.read": op.k * op.n * op.launches,
            "accumulator.update": op.m * op.n * passes_k * op.repeat,
        },
        stalls={"fill_drain": cycles * params.rows * params.columns - op.macs},
    )


def dataflow(params: SystolicParams) -> Dataflow:
    """Weight-stationary: all tokens stream past a weight before the next. Output-stationary: a fold sees all of K."""
    if params.stationary == "output":
        return Dataflow(params.rows, 1, params.columns, splits_k=False)
    return Dataflow(1, params.rows, params.columns, orders=("knm", "nkm"))


KERNELS = [
    Kernel("systolic", SystolicParams, count, systolic_twin, skips=frozenset(), baseline=ONE_BY_ONE, dataflow=dataflow)
]
