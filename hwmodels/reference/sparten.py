"""SparTen, chunk by chunk: every CU counts the matches of its filters' bitmaps with the token's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..op import Op
from .outputs import dense_bools, launches, tiles_needed

if TYPE_CHECKING:
    from ..arch import Arch


def sparten_twin(op: Op, params: Any, arch: Arch) -> int:
    """Two-sided: lay filters on CUs, run every token through every group, deal the groups to clusters."""
    activation, weight, needed = dense_bools(op)
    groups = _layout(weight, params)
    cycles = work = 0
    for first, stop in launches(op, op.m):
        clock = [0] * params.clusters
        item = 0
        for token in range(first, stop):
            for units in groups:
                spent = [
                    sum(
                        int((activation[token, chunk] & weight[filter_, chunk]).sum())
                        for chunk, filters in _with_chunks(unit, op.k, params)
                        for filter_ in filters
                        if needed[token, filter_]
                    )
                    for unit in units
                ]
                clock[item % params.clusters] += max(spent)
                work += sum(spent)
                item += 1
        cycles += max(clock)
    return _shared(work, params) * op.repeat if params.sync == "none" else cycles * op.repeat


def sparten_one_sided_twin(op: Op, params: Any, arch: Arch) -> int:
    """One-sided: every CU takes all the token's non-zeros."""
    activation, _, needed = dense_bools(op)
    cycles = work = 0
    for first, stop in launches(op, op.m):
        clock = [0] * params.clusters
        item = 0
        for token in range(first, stop):
            time = int(activation[token].sum())
            for output in range(0, op.n, params.units):
                tile = needed[token, output : output + params.units]
                if tiles_needed(tile, params.units):
                    clock[item % params.clusters] += time
                    work += time * len(tile)
                    item += 1
        cycles += max(clock)
    return _shared(work, params) * op.repeat if params.sync == "none" else cycles * op.repeat


def _shared(work: int, params: Any) -> int:
    cycle = 0
    while work > 0:
        work -= params.clusters * params.units
        cycle += 1
    return cycle


def _chunks(k: int, params: Any) -> list[slice]:
    return [slice(first, min(first + params.chunk, k)) for first in range(0, k, params.chunk)]


def _with_chunks(unit: list[list[int]], k: int, params: Any) -> list[tuple[slice, list[int]]]:
    """Pair every chunk of K with the filters that a CU works on in it."""
    return list(zip(_chunks(k, params), unit, strict=True))


def _layout(weight: NDArray[np.bool_], params: Any) -> list[list[list[list[int]]]]:
    """Filters of ``[group][cu][chunk]``."""
    n, k = weight.shape
    chunks = _chunks(k, params)
    if params.balancing == "none":
        return [
            [[[filter_] for _ in chunks] for filter_ in range(first, min(first + params.units, n))]
            for first in range(0, n, params.units)
        ]
    order = sorted(range(n), key=lambda f: (-int(weight[f].sum()), f))
    groups = []
    for first in range(0, n, 2 * params.units):
        members = order[first : first + 2 * params.units]
        cus: list[list[list[int]]] = [[] for _ in range((len(members) + 1) // 2)]
        for chunk in chunks:
            where = chunk if params.balancing == "gb_h" else slice(0, k)
            density = {filter_: int(weight[filter_, where].sum()) for filter_ in members}
            ranked = sorted(members, key=density.__getitem__, reverse=True)
            while ranked:
                densest = ranked.pop(0)
                cus[(len(members) + 1) // 2 - (len(ranked) + 2) // 2].append(
                    [densest, ranked.pop()] if ranked else [densest]
                )
        groups.append(cus)
    return groups
