"""The sponge-examples estimate: energy alone, from counts of non-zeros, as if every word came from DRAM once.

    E = 1950 pJ (nz_params + nz_in + nz_out) + 3.7 pJ (nz_params / params) (nz_in / in) MACs

summed over layers; 1950 pJ is the middle of a DRAM access, 3.7 pJ a 32-bit multiply (45 nm). A baseline to compare
with, not a design: it has no cycles, and it knows no reuse beyond one read of everything.

The authors' tool pools the counts of all leaf modules, activation functions included, before it takes the shares:
`pooled_energy_pj` does that. As an arch, the estimate is taken op by op, where an activation function is no op.

Sources: Shumailov et al., Sponge Examples, EuroS&P 2021, arXiv:2006.03463; Horowitz, ISSCC 2014,
doi:10.1109/ISSCC.2014.6757323.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..arch import Arch
from ..counts import Compute
from ..kernel import ONE_BY_ONE, Kernel
from ..op import Op
from ..reference.sponge import sponge_twin

MEMORY_PJ = 1950.0
MULTIPLY_PJ = 3.7


class SpongeParams(NamedTuple):
    """``word_bytes`` of a parameter or activation."""

    word_bytes: int


class Module(NamedTuple):
    """Counts of one leaf module: totals, and non-zeros of each."""

    params: int
    inputs: int
    outputs: int
    macs: int
    nonzero_params: float
    nonzero_inputs: float
    nonzero_outputs: float


def pooled_energy_pj(modules: Sequence[Module], skip: bool = True) -> float:
    """Estimate the energy of a list of modules the way the authors' tool does.

    Parameters
    ----------
    modules : sequence of Module
        Every leaf module of the network.
    skip : bool
        False for hardware that neither compresses nor skips zeros.

    Returns
    -------
    float
        pJ.
    """
    total = Module(*(sum(column) for column in zip(*modules, strict=True)))
    if not skip:
        return MEMORY_PJ * (total.params + total.inputs + total.outputs) + MULTIPLY_PJ * total.macs
    share = total.nonzero_params / total.params * total.nonzero_inputs / total.inputs
    words = total.nonzero_params + total.nonzero_inputs + total.nonzero_outputs
    return MEMORY_PJ * words + MULTIPLY_PJ * share * total.macs


def mlp_modules(tokens: int, d_model: int, d_ff: int, density: float) -> list[Module]:
    """List an MLP's up-projection, activation function (its output has `density`) and down-projection, with biases."""
    weights, wide, narrow = d_model * d_ff, tokens * d_ff, tokens * d_model
    up, down = weights + d_ff, weights + d_model
    return [
        Module(up, narrow, wide, tokens * weights, up, narrow, wide),
        Module(0, wide, wide, 0, 0, wide, density * wide),
        Module(down, wide, narrow, tokens * weights, down, density * wide, narrow),
    ]


def count(op: Op, params: SpongeParams, arch: Arch) -> Compute:
    """Count words and multiplications of one op; parameters are read once a launch of the copies that share them."""
    launches = op.launches
    outputs = op.m * op.n * op.repeat if op.output is None else op.output.popcount() * op.repeat
    words = op.weight_nonzeros // op.shared * launches // op.repeat + op.activation_nonzeros + outputs
    pairs = op.weight_nonzeros // op.repeat * op.activation_nonzeros // op.repeat
    return Compute(
        cycles=0,
        dense_cycles=0,
        group_rows=op.m,
        row_cycles=np.zeros(op.launches // op.repeat, dtype=np.int64),
        actions={"multiplier.compute": round(pairs / op.k) * op.repeat},
        dram_bytes=words * params.word_bytes,
    )


KERNELS = [
    Kernel(
        "sponge",
        SpongeParams,
        count,
        sponge_twin,
        skips=frozenset({"activation", "weight", "output"}),
        has_cycles=False,
        baseline=ONE_BY_ONE,
    ),
]
