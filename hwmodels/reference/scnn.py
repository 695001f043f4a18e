"""SCNN, product by product: every cartesian product is sorted into its accumulator banks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..op import Op
from .outputs import dense_bools, launches

if TYPE_CHECKING:
    from ..arch import Arch


def scnn_twin(op: Op, params: Any, arch: Arch) -> int:
    """Walk launches, groups of filters and channels; all PEs meet at every channel."""
    activation, weight, needed = dense_bools(op)
    cycle = 0
    for first, stop in launches(op, params.pes * max(params.accumulators // params.outputs, 1)):
        tile = -(-(stop - first) // params.pes)
        for output in range(0, op.n, params.outputs):
            filters = slice(output, output + params.outputs)
            if not needed[first:stop, filters].any():
                continue
            for channel in range(op.k):
                weights = np.flatnonzero(weight[filters, channel])
                cycle += max(
                    _element(activation[start : min(start + tile, stop), channel], weights, params)
                    for start in range(first, stop, tile)
                )
    return cycle * op.repeat


def _element(column: NDArray[np.bool_], weights: NDArray[np.intp], params: Any) -> int:
    """Cycles of one PE for one channel."""
    tokens = np.flatnonzero(column)
    cycle = 0
    for i in range(0, len(tokens), params.inputs):
        for f in range(0, len(weights), params.weights):
            banks = Counter(
                int(token * params.outputs + output) % params.banks
                for token in tokens[i : i + params.inputs]
                for output in weights[f : f + params.weights]
            )
            cycle += max(1, max(banks.values()))
    return cycle
