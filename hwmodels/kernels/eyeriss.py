"""Eyeriss v2 processing element: every pair of a non-zero activation and a non-zero weight of its channel, once.

    cycles = sum_{m, c : x[m, c] != 0} ceil(nnz(W[:, c]) / macs)

With ``macs = 1`` this is ``sum_c nnz(X[:, c]) nnz(W[:, c])``, the count of the published runs; the element's second
multiplier is left to ``macs = 2``. Weights are stored by channel for all tokens, so outputs that a token does not need
cannot be left out.

Source: Chen et al., Eyeriss v2, IEEE JETCAS 2019, doi:10.1109/JETCAS.2019.2910232.
"""

from __future__ import annotations

from typing import NamedTuple

from ..arch import Arch
from ..counting.nonzeros import column_counts, weighted_row_counts
from ..counts import Compute
from ..kernel import ONE_BY_ONE, Kernel
from ..mapping.space import Dataflow
from ..op import Op
from ..reference.eyeriss import eyeriss_twin


class EyerissParams(NamedTuple):
    """``macs`` weights of one channel that meet an activation in one cycle."""

    macs: int


def count(op: Op, params: EyerissParams, arch: Arch) -> Compute:
    """Count a GEMM on one processing element."""
    if op.weight is None:
        row_cycles = op.token_nonzeros * -(-op.n // params.macs)
        executed = op.activation_nonzeros * op.n
    else:
        weights_of = column_counts(op.weight)
        activation = op.activation_or_ones()
        row_cycles = weighted_row_counts(activation, -(-weights_of // params.macs))
        pairs = row_cycles if params.macs == 1 else weighted_row_counts(activation, weights_of)
        executed = int(pairs.sum()) * op.repeat
    cycles = int(row_cycles.sum()) * op.repeat
    effectual = op.effectual_macs
    return Compute(
        cycles=cycles,
        dense_cycles=op.m * op.k * -(-op.n // params.macs) * op.repeat,
        group_rows=1,
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "mac.gated": executed - effectual,
            "iact_spad.read": op.activation_nonzeros,
            "weight_buffer.read": executed,
            "address_spad.read": 2 * op.activation_nonzeros,
            "accumulator.update": executed,
        },
        stalls={"odd_weight": cycles * params.macs - executed},
    )


# entries of the scratchpads for activations and for partial sums
ACTIVATIONS, PARTIAL_SUMS = 16, 32


def dataflow(params: EyerissParams) -> Dataflow:
    """What the scratchpads hold at once; every pair of non-zeros counts alone, so a cut of K costs nothing."""
    return Dataflow(1, ACTIVATIONS, PARTIAL_SUMS)


KERNELS = [
    Kernel(
        "eyeriss_v2_pe",
        EyerissParams,
        count,
        eyeriss_twin,
        skips=frozenset({"activation", "weight"}),
        two_sided=True,
        baseline=ONE_BY_ONE,
        dataflow=dataflow,
    )
]
