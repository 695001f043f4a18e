"""Eyeriss v2 processing element, one activation at a time against the weights of its channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import Op
from .outputs import dense_bools

if TYPE_CHECKING:
    from ..arch import Arch


def eyeriss_twin(op: Op, params: Any, arch: Arch) -> int:
    """Take every non-zero activation, then `macs` of its channel's non-zero weights a cycle."""
    activation, weight, _ = dense_bools(op)
    cycle = 0
    for token in range(op.m):
        for channel in range(op.k):
            if not activation[token, channel]:
                continue
            left = sum(1 for output in range(op.n) if weight[output, channel])
            while left > 0:
                left -= params.macs
                cycle += 1
    return cycle * op.repeat
