"""Exhaustive search for mappings: first the front that no bandwidth can leave, then the best of it.

A launch whose computing takes C cycles, with S exposed bytes and B bytes in all at x cycles a byte, takes

    latency = max(C + S x, B x)

because what is not exposed is transferred beside the computing of its neighbours: computing waits only for the
exposed bytes, and otherwise for a bus that never rests. Latency grows with S and with B, energy with the bytes of each
operand, and neither depends on the mapping in another way. So the best mapping at any bandwidth, clock and price is on
the front of those that fit the buffers and that no other beats in every S, B and energy asked for; a sweep of
bandwidths searches it once. Where launches differ in bytes, a mapping that is beaten at the extremes is beaten at all,
as S and B are linear in the bytes.

The search leaves out an order of a tile as soon as a mapping found beats the least that it could cost, which loses
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .front import Problem, Work, search
from .levels import OPERANDS
from .space import (
    RELEVANT,
    REUSING,
    Dataflow,
    Mapping,
    holds_partial_sums,
    k_is_cut_in_the_array,
    output_passes,
    places,
    share_of,
    sizes,
)

Objective = Literal["balanced", "latency", "energy", "edp"]
FIRST_ROOM = 64


class Buffer(NamedTuple):
    """One buffer of a stage: its name, bytes, and the operands it holds."""

    name: str
    size_bytes: float
    holds: tuple[str, ...]


class Fit(NamedTuple):
    """Room that an element of each operand takes, bytes, metadata included.

    Parameters
    ----------
    activation, weight, output : float
        Inputs, weights, and finished outputs; 0 for weights that live on the chip anyway.
    partial_sum : float
        An output that is not finished.
    """

    activation: float
    weight: float
    output: float
    partial_sum: float


class Front(NamedTuple):
    """Mappings none of which another beats.

    Parameters
    ----------
    mappings : list of Mapping
        In order of the search.
    traffic : float64[mappings, 3]
        Passes over activation, weight and output that cross the stage's upper edge.
    exposed : float64[mappings, 3]
        Passes that nothing hides.
    """

    mappings: list[Mapping]
    traffic: NDArray[np.float64]
    exposed: NDArray[np.float64]


def front_of(
    shape: tuple[int, int, int],
    buffers: Sequence[Buffer],
    fit: Fit,
    dataflow: Dataflow,
    loads: Sequence[tuple[float, float, float]],
    prices: tuple[float, float, float] | None = None,
) -> Front:
    """Find the front of all mappings of a launch that fit the buffers.

    Parameters
    ----------
    shape : (int, int, int)
        M, K, N of a launch.
    buffers : sequence of Buffer
        Buffers side by side; an operand that none holds needs no room.
    fit : Fit
        Room of an element, bytes.
    dataflow : Dataflow
        What the design fixes.
    loads : sequence of (float, float, float)
        Bytes of one pass over activation, weight and output; several where launches differ: their extremes.
    prices : (float, float, float), optional
        pJ of moving one byte of each operand; without them, mappings are not compared by energy.

    Raises
    ------
    InputError
        If no tile fits; it names the buffer.
    """
    return _front_of(shape, tuple(buffers), fit, dataflow, tuple(loads), prices)


@lru_cache(maxsize=4096)
def _front_of(
    shape: tuple[int, int, int],
    buffers: tuple[Buffer, ...],
    fit: Fit,
    dataflow: Dataflow,
    loads: tuple[tuple[float, float, float], ...],
    prices: tuple[float, float, float] | None,
) -> Front:
    grain = dataflow.grain(*shape)
    tried = [np.array(sizes(*pair), dtype=np.int64) for pair in zip(shape, grain, strict=True)]
    orders = np.array([[*places(order), *_inside(order)] for order in dataflow.orders], dtype=np.int64)
    holder = {operand: place for place, buffer in enumerate(buffers) for operand in buffer.holds}
    buffer_of = np.array([holder.get(operand, len(buffers)) for operand in OPERANDS], dtype=np.int64)
    room = np.array([*(buffer.size_bytes for buffer in buffers), np.inf])
    rates = _rates(loads, prices)
    problem = Problem(shape, grain, dataflow.splits_k, np.array(fit), buffer_of, room, rates)
    work = _work(len(rates), len(room))
    space, count = FIRST_ROOM, -1
    while count < 0:
        numbers, what = np.empty((space, len(rates))), np.empty((space, 5), dtype=np.int64)
        count = search(problem, orders, *tried, work, numbers, what)
        space *= 8
    if count == 0:
        raise InputError(_too_small(buffers, fit, grain))
    mappings = [_named(row, dataflow.orders) for row in what[:count].tolist()]
    passes = [passes_of(mapping, shape, grain, fit) for mapping in mappings]
    return Front(mappings, np.array([one[0] for one in passes]), np.array([one[1] for one in passes]))


def _inside(order: str) -> list[int]:
    """Which loops of each operand lie inside the one that reuses it: 1 for its first, 2 for its second, 3 for both."""
    place = places(order)
    return [
        sum(bit << at for at, bit in enumerate(place[axis] > place[REUSING[operand]] for axis in RELEVANT[operand]))
        for operand in OPERANDS
    ]


def _rates(
    loads: Sequence[tuple[float, float, float]], prices: tuple[float, float, float] | None
) -> NDArray[np.float64]:
    nothing = (0.0, 0.0, 0.0)
    rows: list[tuple[float, ...]] = [row for load in loads for row in ((*load, *nothing), (*nothing, *load))]
    if prices is not None:
        rows += [(*(price * size for price, size in zip(prices, load, strict=True)), *nothing) for load in loads]
    return np.array(sorted(set(rows)), dtype=np.float64)


def _work(numbers: int, buffers: int) -> Work:
    return Work(
        held=np.zeros((3, 4)),
        traffic=np.zeros((3, 4)),
        exposed=np.zeros((3, 4)),
        mode=np.zeros((3, 4), dtype=np.int64),
        counts=np.zeros(3, dtype=np.int64),
        least=np.zeros(6),
        bounds=np.zeros((3, 4)),
        passes=np.zeros(6),
        row=np.zeros(numbers),
        used=np.zeros(buffers),
        chosen=np.zeros(5, dtype=np.int64),
    )


def passes_of(
    mapping: Mapping, shape: tuple[int, int, int], grain: tuple[int, int, int], fit: Fit
) -> tuple[list[float], list[float]]:
    """Traffic and exposed passes of activation, weight and output under a mapping."""
    traffic, exposed = [], []
    for operand in OPERANDS:
        share = share_of(operand, shape, grain, mapping)
        passes = float(share.visits)
        if operand == "output":
            passes = float(output_passes(share.visits, fit.partial_sum, fit.output))
        traffic.append(passes)
        exposed.append(share.exposed * (passes if operand == "output" else 1.0))
    return traffic, exposed


def by_hand(
    mapping: Mapping,
    shape: tuple[int, int, int],
    buffers: Sequence[Buffer],
    fit: Fit,
    dataflow: Dataflow,
) -> Front:
    """Check a mapping given by hand; a tile is cut to a smaller launch.

    Raises
    ------
    InputError
        If the dataflow forbids its order, tile or cut of K, or a buffer is too small for it.
    """
    grain = dataflow.grain(*shape)
    tile = tuple(min(pair) for pair in zip(mapping.tile, shape, strict=True))
    mapping = mapping._replace(tile=(tile[0], tile[1], tile[2]))
    if mapping.order not in dataflow.orders:
        allowed = ", ".join(dataflow.orders)
        raise InputError(f"mapping.order '{mapping.order}' is forbidden by the dataflow, which allows {allowed}")
    for letter, size, whole, unit in zip("mkn", tile, shape, grain, strict=True):
        if size < whole and size % unit and size not in sizes(whole, unit):
            raise InputError(
                f"mapping.tile.{letter} = {size} does not fit the dataflow, which takes {unit} at once; give a multiple"
            )
    place = places(mapping.order)
    if tile[1] < shape[1] and not dataflow.splits_k and not k_is_cut_in_the_array(shape, mapping.tile, grain, place):
        raise InputError(
            f"mapping.tile.k = {tile[1]} cuts K = {shape[1]}, which the dataflow allows only with k as the innermost "
            f"loop and a tile of at most m = {grain[0]}, n = {grain[2]}; leave k out"
        )
    rooms = _rooms_used(mapping, shape, grain, fit)
    for buffer in buffers:
        used = sum(rooms[operand] for operand in buffer.holds)
        if used > buffer.size_bytes:
            raise InputError(
                f"mapping.tile m = {tile[0]}, k = {tile[1]}, n = {tile[2]} does not fit memory level '{buffer.name}': "
                f"it takes {used:g} byte of {buffer.size_bytes:g}"
            )
    traffic, exposed = passes_of(mapping, shape, grain, fit)
    return Front([mapping], np.array([traffic]), np.array([exposed]))


def _rooms_used(
    mapping: Mapping, shape: tuple[int, int, int], grain: tuple[int, int, int], fit: Fit
) -> dict[str, float]:
    """Bytes that each operand takes under a mapping."""
    sums = holds_partial_sums(shape, mapping.tile, grain, places(mapping.order))
    size = {
        "activation": fit.activation,
        "weight": fit.weight,
        "output": fit.partial_sum if sums else fit.output,
    }
    return {name: share_of(name, shape, grain, mapping).elements * size[name] for name in OPERANDS}


def _named(row: list[int], orders: Sequence[str]) -> Mapping:
    m, k, n, order, modes = row
    stays = frozenset(operand for place, operand in enumerate(OPERANDS) if modes >> 2 * place & 1)
    doubled = frozenset(operand for place, operand in enumerate(OPERANDS) if modes >> 2 * place & 2)
    return Mapping((m, k, n), orders[order], stays, doubled)


def _too_small(buffers: Sequence[Buffer], fit: Fit, grain: tuple[int, int, int]) -> str:
    for buffer in buffers:
        least = sum(getattr(fit, operand) for operand in buffer.holds)
        if least > buffer.size_bytes:
            return (
                f"no tile fits memory level '{buffer.name}': one element of each of {', '.join(buffer.holds)} takes "
                f"{least:g} byte, it has {buffer.size_bytes:g}"
            )
    names = "', '".join(buffer.name for buffer in buffers)
    return f"no tile that the dataflow allows fits memory levels '{names}'; the array takes {grain} (M, K, N) at once"
