"""A loop nest walked step by step, and every mapping tried: what the closed forms and the search must equal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from hwmodels.mapping.search import Buffer, Fit
from hwmodels.mapping.space import Dataflow

Shape = tuple[int, int, int]
DIMENSIONS = {"activation": (0, 1), "weight": (1, 2), "output": (0, 2)}


class Walked(NamedTuple):
    """One operand after a walk: most elements held, elements loaded (or written), exposed, and partial sums."""

    held: int
    moved: int
    exposed: float
    partial: int


def steps(shape: Shape, tile: Shape, order: str) -> Iterator[Shape]:
    """Yield the (m, k, n) tile indices in the order of the loops."""
    trips = [-(-size // part) for size, part in zip(shape, tile, strict=True)]
    axes = ["mkn".index(letter) for letter in order]
    for index in product(*(range(trips[axis]) for axis in axes)):
        at = [0, 0, 0]
        for axis, value in zip(axes, index, strict=True):
            at[axis] = value
        yield at[0], at[1], at[2]


@cache
def walk(operand: str, shape: Shape, tile: Shape, grain: Shape, order: str, stays: bool, doubled: bool) -> Walked:
    """Walk the nest for one operand, keeping a set of its tiles, and count what crosses the buffer's edge."""
    axes = DIMENSIONS[operand]
    (reusing,) = {0, 1, 2} - set(axes)
    outside = [axis for axis in axes if order.index("mkn"[axis]) < order.index("mkn"[reusing])]

    def size(at: tuple[int, ...], least: Shape = (0, 0, 0)) -> int:
        sides = [
            min(max(tile[axis], least[axis]), shape[axis] - place * tile[axis])
            for axis, place in zip(axes, at, strict=True)
        ]
        return sides[0] * sides[1]

    present: dict[tuple[int, ...], int] = {}
    visited: set[tuple[int, ...]] = set()
    scope: tuple[int, ...] | None = None
    most = moved = partial = slices = loads = 0
    first, first_of_slices = 0, 0.0
    for at in steps(shape, tile, order):
        place = tuple(at[axis] for axis in axes)
        here = tuple(at[axis] for axis in outside) if stays else place
        if place not in present:
            opens = here != scope
            if opens:
                present.clear()
                scope, slices = here, slices + 1
            present[place] = size(place)
            loads += 1
            moved += size(place)
            first = first or size(place, grain)
            if opens:
                # a slice opens with the part of its inner dimensions that the array takes at once, at least
                first_of_slices += opening(place, axes, outside, shape, tile, grain)
            if place in visited:
                partial += size(place)
            visited.add(place)
        most = max(most, sum(present.values()))
    changes = loads > 1 and (not stays or slices > 1)
    if stays and loads == len(visited) and loads > 1 and not repeats(operand, shape, tile, order):
        # nothing is used again: staying would only waste room, and the operand passes through
        return walk(operand, shape, tile, grain, order, False, doubled)
    room = most + (largest(shape, tile, axes) if doubled and changes else 0)
    output = operand == "output"
    if loads == 1:
        exposed = 0.0 if output else float(moved)
    elif doubled or not changes:
        exposed = 0.0 if output else float(first)
    elif stays:
        exposed = first_of_slices
    else:
        exposed = float(moved)
    return Walked(room, moved, exposed, partial)


def opening(
    place: tuple[int, ...], axes: tuple[int, ...], outside: list[int], shape: Shape, tile: Shape, grain: Shape
) -> float:
    """Elements that a slice waits for at its start."""
    total = 1.0
    for axis, index in zip(axes, place, strict=True):
        if axis in outside:
            total *= min(tile[axis], shape[axis] - index * tile[axis])
        else:
            total *= min(max(tile[axis], grain[axis]), shape[axis])
    return total


def largest(shape: Shape, tile: Shape, axes: tuple[int, ...]) -> int:
    return min(tile[axes[0]], shape[axes[0]]) * min(tile[axes[1]], shape[axes[1]])


@cache
def repeats(operand: str, shape: Shape, tile: Shape, order: str) -> bool:
    """Whether an operand that keeps one tile alone loads any tile twice."""
    axes = DIMENSIONS[operand]
    last, seen = None, set()
    for at in steps(shape, tile, order):
        place = tuple(at[axis] for axis in axes)
        if place != last and place in seen:
            return True
        last = place
        seen.add(place)
    return False


def all_sizes(size: int, grain: int) -> list[int]:
    """Every multiple of the grain, the whole, and the grain's halves: no size is left out for being no better."""
    grain = min(size, grain)
    found = {min(size, part) for part in range(grain, size + grain, grain)}
    while grain > 1:
        grain = -(-grain // 2)
        found.add(grain)
    return sorted(found)


def every_mapping(
    shape: Shape, buffers: tuple[Buffer, ...], fit: Fit, dataflow: Dataflow
) -> Iterator[tuple[Walked, Walked, Walked]]:
    """Yield what each mapping that fits comes to, operand by operand."""
    grain = dataflow.grain(*shape)
    for tile in product(*(all_sizes(*pair) for pair in zip(shape, grain, strict=True))):
        for order in dataflow.orders:
            alone = k_in_array(shape, tile, grain, order)
            if tile[1] < shape[1] and not dataflow.splits_k and not alone:
                continue
            sums = fit.partial_sum if tile[1] < shape[1] and not alone else fit.output
            room = {"activation": fit.activation, "weight": fit.weight, "output": sums}
            modes = list(product((False, True), repeat=2))
            ways = {name: {walk(name, shape, tile, grain, order, *mode) for mode in modes} for name in DIMENSIONS}
            for chosen in product(*ways.values()):
                held = dict(zip(DIMENSIONS, chosen, strict=True))
                if all(sum(held[o].held * room[o] for o in one.holds) <= one.size_bytes for one in buffers):
                    yield chosen


def k_in_array(shape: Shape, tile: Shape, grain: Shape, order: str) -> bool:
    """Whether every output is finished before the next is begun, and none needs more sums than the array has."""
    seen: list[tuple[int, int]] = []
    for m, _, n in steps(shape, tile, order):
        if not seen or seen[-1] != (m, n):
            seen.append((m, n))
    return len(seen) == len(set(seen)) and tile[0] <= grain[0] and tile[2] <= grain[2]
