"""The loops of the search: tiles, orders and what each operand can do, against the front found so far."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..counting.jit import jit
from .space import holds_partial_sums, k_is_cut_in_the_array, operand_cost, output_passes


class Problem(NamedTuple):
    """What the search looks at: ``rates[numbers, 6]`` weigh traffic and exposed passes of the three operands."""

    shape: tuple[int, int, int]
    grain: tuple[int, int, int]
    splits_k: bool
    fit: NDArray[np.float64]
    buffer_of: NDArray[np.int64]
    room: NDArray[np.float64]
    rates: NDArray[np.float64]


class Work(NamedTuple):
    """Working memory: options by operand, then the combination at hand."""

    held: NDArray[np.float64]
    traffic: NDArray[np.float64]
    exposed: NDArray[np.float64]
    mode: NDArray[np.int64]
    counts: NDArray[np.int64]
    least: NDArray[np.float64]
    bounds: NDArray[np.float64]
    passes: NDArray[np.float64]
    row: NDArray[np.float64]
    used: NDArray[np.float64]
    chosen: NDArray[np.int64]


@jit
def _beaten(row, front, count, first):  # type: ignore[no-untyped-def]
    """Index of a mapping that is at most as costly in all numbers, looked for from `first` on; -1 if there is none."""
    for step in range(count):
        place = first + step
        if place >= count:
            place -= count
        beats = True
        for number in range(row.shape[0]):
            if front[place, number] > row[number]:
                beats = False
                break
        if beats:
            return place
    return -1


@jit
def _insert(row, chosen, front, what, count):  # type: ignore[no-untyped-def]
    """Add a mapping that nothing beats, dropping those that it beats; returns how many there are."""
    kept = 0
    for place in range(count):
        beats = True
        for number in range(row.shape[0]):
            if row[number] > front[place, number]:
                beats = False
                break
        if not beats:
            if kept < place:
                front[kept] = front[place]
                what[kept] = what[place]
            kept += 1
    front[kept] = row
    what[kept] = chosen
    return kept + 1


@jit
def _same_loops(place, other, trips):  # type: ignore[no-untyped-def]
    """Whether two orders agree on the loops that have more than one step."""
    for a in range(3):
        for b in range(3):
            if trips[a] > 1 and trips[b] > 1 and (place[a] < place[b]) != (other[a] < other[b]):
                return False
    return True


@jit
def _options(problem, tile, place, sums, work):  # type: ignore[no-untyped-def]
    """List what each operand can do under a tile and an order, none beaten by another and each alone in its buffer.

    Fills `work.least` with the least of each operand's traffic and exposed passes; returns whether any mapping can fit.
    """
    for operand in range(3):
        relevant = (0, 1) if operand == 0 else ((1, 2) if operand == 1 else (0, 2))
        reusing = 2 if operand == 0 else (0 if operand == 1 else 1)
        count = 0
        least_traffic, least_exposed = np.inf, np.inf
        for mode in range(4):
            elements, visits, exposed = operand_cost(
                relevant, reusing, problem.shape, tile, problem.grain, place, mode & 1, mode & 2, operand == 2
            )
            traffic = float(visits)
            if operand == 2:
                traffic = output_passes(visits, problem.fit[3], problem.fit[2])
                exposed *= traffic
            held = elements * (sums if operand == 2 else problem.fit[operand])
            beaten = held > problem.room[problem.buffer_of[operand]]
            for other in range(count):
                if (
                    work.held[operand, other] <= held
                    and work.traffic[operand, other] <= traffic
                    and work.exposed[operand, other] <= exposed
                ):
                    beaten = True
            if not beaten:
                work.held[operand, count] = held
                work.traffic[operand, count] = traffic
                work.exposed[operand, count] = exposed
                work.mode[operand, count] = mode
                count += 1
                least_traffic, least_exposed = min(least_traffic, traffic), min(least_exposed, exposed)
        work.counts[operand] = count
        if count == 0:
            return False
        work.least[operand], work.least[3 + operand] = least_traffic, least_exposed
    return True


@jit
def _bounds(problem, tile, trips, bounds):  # type: ignore[no-untyped-def]
    """Lower bounds of each operand's traffic under a tile, from what it could keep if it were alone.

    ``bounds[operand, inside]`` is for orders with none, the first, the second or both (0 ... 3) of its two loops inside
    the loop that reuses it.
    """
    for operand in range(3):
        first, second = (0, 1) if operand == 0 else ((1, 2) if operand == 1 else (0, 2))
        reusing = 2 if operand == 0 else (0 if operand == 1 else 1)
        element = min(problem.fit[2], problem.fit[3]) if operand == 2 else problem.fit[operand]
        fitting = problem.room[problem.buffer_of[operand]]
        again = float(trips[reusing])
        if operand == 2:
            again = output_passes(trips[reusing], problem.fit[3], problem.fit[2])
        whole_first = problem.shape[first] * element
        bounds[operand, :] = 1.0
        if trips[reusing] == 1:
            continue
        if trips[first] > 1 and whole_first * tile[second] > fitting:
            bounds[operand, 1] = again
        if trips[second] > 1 and tile[first] * element * problem.shape[second] > fitting:
            bounds[operand, 2] = again
        if trips[first] * trips[second] > 1 and whole_first * problem.shape[second] > fitting:
            bounds[operand, 3] = again


@jit
def _weigh(rates, passes, row):  # type: ignore[no-untyped-def]
    """Weigh traffic and exposed passes of the three operands into the numbers that are compared."""
    for number in range(row.shape[0]):
        total = 0.0
        for place in range(6):
            total += rates[number, place] * passes[place]
        row[number] = total


@jit
def _combine(problem, work, tile, order, front, what, count, last):  # type: ignore[no-untyped-def]
    """Try the options of the three operands with one another; returns the front's length and its last winner."""
    passes, row, used, chosen = work.passes, work.row, work.used, work.chosen
    for a in range(work.counts[0]):
        for w in range(work.counts[1]):
            for o in range(work.counts[2]):
                used[:] = 0.0
                used[problem.buffer_of[0]] += work.held[0, a]
                used[problem.buffer_of[1]] += work.held[1, w]
                used[problem.buffer_of[2]] += work.held[2, o]
                fits = True
                for buffer in range(used.shape[0]):
                    if used[buffer] > problem.room[buffer]:
                        fits = False
                if not fits:
                    continue
                passes[0], passes[1], passes[2] = work.traffic[0, a], work.traffic[1, w], work.traffic[2, o]
                passes[3], passes[4], passes[5] = work.exposed[0, a], work.exposed[1, w], work.exposed[2, o]
                _weigh(problem.rates, passes, row)
                found = _beaten(row, front, count, last)
                if found >= 0:
                    last = found
                    continue
                if count == front.shape[0]:
                    return -1, 0
                chosen[0], chosen[1], chosen[2], chosen[3] = tile[0], tile[1], tile[2], order
                chosen[4] = work.mode[0, a] + 4 * work.mode[1, w] + 16 * work.mode[2, o]
                count = _insert(row, chosen, front, what, count)
                last = count - 1
    return count, last


@jit
def _try_tile(problem, orders, tile, work, front, what, count, last):  # type: ignore[no-untyped-def]
    """Try all orders of a tile that could better the front; returns as `_combine`."""
    shape, grain, fit, least, row = problem.shape, problem.grain, problem.fit, work.least, work.row
    trips = (-(-shape[0] // tile[0]), -(-shape[1] // tile[1]), -(-shape[2] // tile[2]))
    share_k = max(tile[1], grain[1]) / shape[1]
    first_input = max(tile[0], grain[0]) / shape[0] * share_k
    first_weight = max(tile[2], grain[2]) / shape[2] * share_k
    least[0], least[1], least[2] = 1.0, 1.0, 1.0
    least[3], least[4], least[5] = first_input, first_weight, 0.0
    _weigh(problem.rates, least, row)
    found = _beaten(row, front, count, last)
    if found >= 0:
        return count, found
    _bounds(problem, tile, trips, work.bounds)
    for order in range(orders.shape[0]):
        place = (orders[order, 0], orders[order, 1], orders[order, 2])
        for operand in range(3):
            least[operand] = work.bounds[operand, orders[order, 3 + operand]]
        least[3], least[4], least[5] = first_input, first_weight, 0.0
        _weigh(problem.rates, least, row)
        found = _beaten(row, front, count, last)
        if found >= 0:
            last = found
            continue
        again = False
        for other in range(order):
            if _same_loops(place, (orders[other, 0], orders[other, 1], orders[other, 2]), trips):
                again = True
        cut = trips[1] > 1 and not problem.splits_k
        if again or (cut and not k_is_cut_in_the_array(shape, tile, grain, place)):
            continue
        sums = fit[3] if holds_partial_sums(shape, tile, grain, place) else fit[2]
        if not _options(problem, tile, place, sums, work):
            continue
        _weigh(problem.rates, least, row)
        found = _beaten(row, front, count, last)
        if found >= 0:
            last = found
            continue
        count, last = _combine(problem, work, tile, order, front, what, count, last)
        if count < 0:
            break
    return count, last


@jit
def search(problem, orders, m_sizes, k_sizes, n_sizes, work, front, what):  # type: ignore[no-untyped-def]
    """Fill `front`; returns its length, or -1 if it has no room.

    A few tiles far apart come first, so that the front is soon good enough to leave most others out.
    """
    count = last = 0
    fit = problem.fit
    for step in (4, 1):
        for m in m_sizes[::step]:
            for k in k_sizes[::step]:
                for n in n_sizes[::step]:
                    work.used[:] = 0.0
                    work.used[problem.buffer_of[0]] += m * k * fit[0]
                    work.used[problem.buffer_of[1]] += k * n * fit[1]
                    work.used[problem.buffer_of[2]] += m * n * fit[2]
                    fits = True
                    for buffer in range(problem.room.shape[0]):
                        if work.used[buffer] > problem.room[buffer]:
                            fits = False
                    if not fits:
                        continue
                    count, last = _try_tile(problem, orders, (m, k, n), work, front, what, count, last)
                    if count < 0:
                        return -1
    return count
