"""The search against every mapping, each walked step by step."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from brute_mapping import DIMENSIONS, Walked, all_sizes, every_mapping, walk

from hwmodels import InputError
from hwmodels.mapping.search import Buffer, Fit, front_of
from hwmodels.mapping.space import ORDERS, Dataflow, Mapping, share_of

pytestmark = pytest.mark.slow

CASES = 1_000


def drawn(rng: Random) -> tuple[tuple[int, int, int], tuple[Buffer, ...], Fit, Dataflow]:
    shape = (rng.choice((1, 2, 3, 3, 4)), rng.choice((1, 2, 3, 4)), rng.choice((1, 2, 3, 3)))
    fit = Fit(rng.choice((0.5, 1.0, 2.0)), rng.choice((0.0, 0.5, 1.0)), rng.choice((1.0, 2.0)), rng.choice((2.0, 4.0)))
    room = [float(rng.choice((3, 5, 8, 12, 20, 40, 100))) for _ in range(2)]
    apart = (Buffer("inputs", room[0], ("activation", "output")), Buffer("weights", room[1], ("weight",)))
    together = (Buffer("buffer", sum(room), ("activation", "weight", "output")),)
    bare = (Buffer("inputs", room[0], ("activation",)), Buffer("weights", room[1], ("weight",)))
    orders = ORDERS if rng.random() < 0.5 else tuple(rng.sample(ORDERS, rng.randint(1, 3)))
    grain = [rng.choice((0, 1, 1, 2, 3)) for _ in range(3)]
    return shape, rng.choice((apart, together, bare)), fit, Dataflow(*grain, orders=orders, splits_k=rng.random() < 0.6)


def latency(cycles: float, exposed: float, moved: float, rate: float) -> float:
    return max(cycles + exposed * rate, moved * rate)


def walked_bytes(chosen: tuple[Walked, ...], fit: Fit, words: tuple[float, float, float]) -> tuple[list[float], float]:
    """Bytes moved of each operand, and bytes exposed in all."""
    moved, exposed = [], 0.0
    for name, one, word in zip(DIMENSIONS, chosen, words, strict=True):
        spilled = 2 * one.partial * fit.partial_sum / fit.output if name == "output" else 0.0
        finished = one.moved - one.partial if name == "output" else one.moved
        moved.append((finished + spilled) * word)
        share = moved[-1] / (one.moved * word) if name == "output" else 1.0
        exposed += one.exposed * word * share
    return moved, exposed


@pytest.mark.parametrize("part", range(4))
def test_the_optimum_is_that_of_every_mapping(part: int) -> None:
    rng = Random(part)
    tried = 0
    while tried < CASES // 4:
        shape, buffers, fit, dataflow = drawn(rng)
        words = (fit.activation * rng.choice((0.3, 1.0)), fit.weight, fit.output)
        prices = (rng.choice((1.0, 3.0)), 2.0, rng.choice((0.5, 2.0)))
        every = [walked_bytes(chosen, fit, words) for chosen in every_mapping(shape, buffers, fit, dataflow)]
        m, k, n = shape
        loads = [(m * k * words[0], k * n * words[1], m * n * words[2])]
        if not every:
            with pytest.raises(InputError, match="memory level"):
                front_of(shape, buffers, fit, dataflow, loads, prices)
            continue
        tried += 1
        front = front_of(shape, buffers, fit, dataflow, loads, prices)
        moved = front.traffic * loads[0]
        found = list(zip(moved.tolist(), (front.exposed * loads[0]).sum(axis=1).tolist(), strict=True))
        for cycles, rate in ((0.0, 1.0), (30.0, 0.5), (30.0, 2.0), (1e6, 1.0)):
            for objective in ("latency", "energy", "edp"):
                best = [
                    min(worth(objective, cycles, rate, bytes_, open_, prices) for bytes_, open_ in ways)
                    for ways in (every, found)
                ]
                assert best[1] == pytest.approx(best[0], rel=1e-12), (shape, buffers, fit, dataflow, objective)


def worth(
    objective: str, cycles: float, rate: float, moved: list[float], exposed: float, prices: tuple[float, float, float]
) -> float:
    time = latency(cycles, exposed, sum(moved), rate)
    energy = sum(price * size for price, size in zip(prices, moved, strict=True))
    return {"latency": time, "energy": energy, "edp": time * energy}[objective]


def test_closed_forms_equal_a_walk_of_the_loops() -> None:
    rng = Random(7)
    for _ in range(3_000):
        shape = (rng.randint(1, 7), rng.randint(1, 7), rng.randint(1, 7))
        grain = tuple(rng.randint(1, size) for size in shape)
        tile = tuple(rng.choice(all_sizes(*pair)) for pair in zip(shape, grain, strict=True))
        order = rng.choice(ORDERS)
        for name, axes in DIMENSIONS.items():
            stays, doubled = rng.random() < 0.5, rng.random() < 0.5
            flags = [frozenset({name}) if flag else frozenset() for flag in (stays, doubled)]
            share = share_of(name, shape, grain, Mapping(tile, order, *flags))
            seen = walk(name, shape, tile, grain, order, stays, doubled)
            whole = shape[axes[0]] * shape[axes[1]]
            assert share.elements == seen.held, (name, shape, tile, order, stays, doubled)
            assert share.visits * whole == seen.moved
            exposed = share.exposed * (seen.moved if name == "output" else whole)
            assert exposed == pytest.approx(seen.exposed), (name, shape, tile, grain, order, stays, doubled)


def test_room_without_end_moves_each_operand_once() -> None:
    buffers = (Buffer("inputs", inf, ("activation", "output")), Buffer("weights", inf, ("weight",)))
    for order in ORDERS:
        front = front_of((9, 7, 5), buffers, Fit(1, 1, 1, 4), Dataflow(orders=(order,)), [(63.0, 35.0, 45.0)])
        assert front.traffic.min(axis=0).tolist() == [1, 1, 1]
        # nothing but the first element of each input is waited for
        assert (front.exposed @ [63, 35, 45]).min() == pytest.approx(2)
