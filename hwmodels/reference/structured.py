"""Structured sparsity, step by step: weights are compressed element by element before they are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..op import Op
from .outputs import dense_bools, launches

if TYPE_CHECKING:
    from ..arch import Arch


def two_four_twin(op: Op, params: Any, arch: Arch) -> int:
    """Hand every output tile to the next free core; a core takes its tile slice by slice of K."""
    _, weight, _ = dense_bools(op)
    slots = _compressed(weight, [(2, 4)])
    cycle = 0
    for first, stop in launches(op, op.m):
        tiles = sum(1 for _ in range(first, stop, params.tile_m) for _ in range(0, op.n, params.tile_n))
        while tiles > 0:
            tiles -= params.cores
            for _ in range(0, slots, params.tile_k):
                cycle += params.tile_m * params.tile_n * params.tile_k // params.macs
    return cycle * op.repeat


def highlight_twin(op: Op, params: Any, arch: Arch) -> int:
    """Try every pattern, keep the shortest, then step through tokens, passes and lanes."""
    _, weight, _ = dense_bools(op)
    slots = min(
        _compressed(weight, [(params.g0, h0), (params.g1, h1)])
        for h0 in range(params.g0, params.h0 + 1)
        for h1 in range(params.g1, params.h1 + 1)
    )
    cycle = 0
    for _ in range(op.m):
        for _ in range(0, op.n, params.outputs):
            for _ in range(0, slots, params.g0 * params.g1):
                cycle += 1
    return cycle * op.repeat


def _compressed(weight: NDArray[np.bool_], ranks: list[tuple[int, int]]) -> int:
    """Slots along K that the pattern needs, all of K where a filter breaks it. Ranks go from the inner one outwards."""
    k = weight.shape[1]
    span = kept = 1
    for g, h in ranks:
        used = weight.reshape(len(weight), -1) if span == 1 else _any_by(weight, span)
        for first in range(0, used.shape[1], h):
            if used[:, first : first + h].sum(axis=1).max() > g:
                return k
        span *= h
        kept *= g
    return min(k, -(-k // span) * kept)


def _any_by(weight: NDArray[np.bool_], span: int) -> NDArray[np.bool_]:
    columns = [weight[:, first : first + span].any(axis=1) for first in range(0, weight.shape[1], span)]
    return np.stack(columns, axis=1)
