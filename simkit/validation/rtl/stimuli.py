"""Stimuli and expected outputs of gate-level designs: 64 traces at a density, cycle by cycle.

Each function plays the memories around the design, cycle by cycle, for all traces at once, and says from the definition
what the design must answer. Activations are i.i.d. non-zero with the given density, values uniform in 8 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .gatesim import LANES

TRACES = LANES
Bits = NDArray[np.bool_]
Ints = NDArray[np.int64]
SETTLE = 8
STEPS_A_SUM = 16


class Stimulus(NamedTuple):
    """Inputs and expected outputs of 64 traces.

    Parameters
    ----------
    inputs : dict of str to bool[64, cycles, bits]
        Input ports; what is left out is 0.
    expected : dict of str to (bool[64, cycles, bits], bool[64, cycles])
        Output ports, and where they are meant to hold.
    mac_slots : int
        MACs of the dense schedule that the counted cycles (past `SETTLE`) did, over all traces.
    """

    inputs: dict[str, Bits]
    expected: dict[str, tuple[Bits, Bits]]
    mac_slots: int


def bits(values: Ints, width: int) -> Bits:
    """Two's complement bits, lowest first: ``[..., width]``."""
    return ((values[..., None] >> np.arange(width)) & 1).astype(np.bool_)


def _flat(values: Ints, width: int) -> Bits:
    return bits(values, width).reshape(*values.shape[:2], -1)


def activations(shape: tuple[int, ...], density: float, rng: np.random.Generator) -> Ints:
    """Signed 8-bit values, non-zero with the given probability."""
    values = rng.integers(1, 128, shape) * rng.choice([-1, 1], shape)
    return np.where(rng.random(shape) < density, values, 0)


def _reset(cycles: int) -> Bits:
    reset = np.zeros((TRACES, cycles, 1), dtype=np.bool_)
    reset[:, 0] = True
    return reset


def _sums(a: Ints, b: Ints) -> Ints:
    """Dot products of consecutive `STEPS_A_SUM` steps: ``[64, sums]``."""
    steps = a.shape[1] // STEPS_A_SUM * STEPS_A_SUM
    products = (a[:, :steps] * b[:, :steps]).sum(axis=2)
    return products.reshape(TRACES, -1, STEPS_A_SUM).sum(axis=2)


def _when_valid(valid: Bits, sums: Ints, width: int = 32) -> dict[str, tuple[Bits, Bits]]:
    """Expect ``out_valid``, and under it the next sum of the trace."""
    index = np.maximum(np.cumsum(valid, axis=1) - 1, 0)
    always = np.ones_like(valid)
    values = np.take_along_axis(sums, np.minimum(index, sums.shape[1] - 1), axis=1)
    return {"out_valid": (valid[..., None], always), "psum": (bits(values, width), valid)}


def dense_pe(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """A step of 16 pairs in every cycle."""
    a = activations((TRACES, cycles, 16), density, rng)
    b = activations((TRACES, cycles, 16), 1.0, rng)
    valid: Bits = np.zeros((TRACES, cycles, 1), dtype=np.bool_)
    valid[:, 1:] = True
    step = np.arange(cycles) - 1
    last = np.broadcast_to((step % STEPS_A_SUM == STEPS_A_SUM - 1)[:, None], valid.shape)
    done = np.zeros((TRACES, cycles), dtype=np.bool_)
    done[:, 2:] = last[:, :-2, 0] & valid[:, :-2, 0]
    return Stimulus(
        {"rst": _reset(cycles), "in_valid": valid, "in_last": last, "in_a": _flat(a, 8), "in_b": _flat(b, 8)},
        _when_valid(done, _sums(a[:, 1:], b[:, 1:])),
        TRACES * (cycles - SETTLE) * 16,
    )


OFFSETS = ((0, 0), (1, -1), (1, 0), (1, 1), (1, 3), (2, -2), (2, 0), (2, 2))
LANE_ORDER = (*(lane for level in range(5) for lane in range(level, 15, 5)), 15)


def tensordash(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """A tile of one row and one column between memories that always have the next three steps."""
    steps = 3 * cycles + 3
    a = activations((TRACES, steps, 16), density, rng)
    b = activations((TRACES, steps, 16), 1.0, rng)
    trace = np.arange(TRACES)[:, None]
    first, held = np.zeros(TRACES, dtype=np.int64), np.zeros(TRACES, dtype=np.int64)
    present = np.zeros((TRACES, 3, 16), dtype=np.bool_)
    offered = np.zeros((TRACES, cycles, 3), dtype=np.int64)
    take, advance, finish = (np.zeros((TRACES, cycles), dtype=np.int64) for _ in range(3))
    for cycle in range(1, cycles):
        left = _scheduled(present)
        offered[:, cycle] = (first + held)[:, None] + np.arange(3)
        pending: Bits = np.asarray(left.any(axis=2))
        free = np.where(pending[:, 1], 1, np.where(pending[:, 2], 2, 3))
        advance[:, cycle] = np.minimum(held, free)
        first += advance[:, cycle]
        kept = held - advance[:, cycle]
        finish[:, cycle] = (held > 0) & (kept == 0) & (first % STEPS_A_SUM == 0)
        # the window ends with the sum it is working on; a new sum enters an empty window
        to_boundary = STEPS_A_SUM - (first + kept) % STEPS_A_SUM
        closed = (kept > 0) & ((first + kept) % STEPS_A_SUM == 0)
        take[:, cycle] = np.where(closed, 0, np.minimum(3 - kept, to_boundary))
        held = kept + take[:, cycle]
        slot = first[:, None] + np.arange(3)
        kept_steps = np.take_along_axis(left, np.minimum(advance[:, cycle, None] + np.arange(3), 2)[..., None], axis=1)
        fresh = a[trace, slot] != 0
        is_kept, is_held = np.arange(3) < kept[:, None], np.arange(3) < held[:, None]
        present = np.where(is_kept[..., None], kept_steps, fresh & is_held[..., None])
    done = np.zeros((TRACES, cycles), dtype=np.bool_)
    done[:, 1:] = finish[:, :-1] != 0
    valid = np.broadcast_to(np.arange(cycles)[:, None] > 0, (TRACES, cycles, 3))
    always = np.ones_like(done)
    return Stimulus(
        {
            "rst": _reset(cycles),
            "in_valid": valid,
            "in_last": offered % STEPS_A_SUM == STEPS_A_SUM - 1,
            "in_a": bits(a[trace[..., None], offered], 8).reshape(TRACES, cycles, -1),
            "in_b": bits(b[trace[..., None], offered], 8).reshape(TRACES, cycles, -1),
        },
        {"take": (bits(take, 2), always & (np.arange(cycles) > 0)), **_when_valid(done, _sums(a, b))},
        int(advance[:, SETTLE:].sum()) * 16,
    )


def _scheduled(present: Bits) -> Bits:
    """What is left of ``bool[64, 3, 16]`` after a cycle."""
    left: Bits = present.copy()
    for lane in LANE_ORDER:
        idle = np.ones(len(left), dtype=np.bool_)
        for step, shift in OFFSETS:
            found = idle & left[:, step, (lane + shift) % 16]
            left[found, step, (lane + shift) % 16] = False
            idle &= ~found
    return left


def systolic_pe(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """One PE in the middle of an array: held weight, a stream of activations, partial sums of eight rows above."""
    a = activations((TRACES, cycles), density, rng)
    weight = activations((TRACES, 1), 1.0, rng)
    above = (activations((TRACES, cycles, 8), density, rng) * activations((TRACES, 1, 8), 1.0, rng)).sum(axis=2)
    last = np.zeros_like(a)
    for cycle in range(1, cycles):
        last[:, cycle] = np.where(a[:, cycle] != 0, a[:, cycle], last[:, cycle - 1])
    load = np.broadcast_to(np.arange(cycles)[:, None] < 1, (TRACES, cycles, 1))
    sums = np.zeros_like(above)
    sums[:, 2:] = (above + a * weight)[:, 1:-1]
    settled = np.broadcast_to(np.arange(cycles) >= 2, (TRACES, cycles))
    gated = {"zero_in": (a == 0)[..., None], "a_in": bits(last, 8)}
    return Stimulus(
        {"load": load, "w_in": bits(np.broadcast_to(weight, a.shape), 8), **gated, "psum_in": bits(above, 32)},
        {"psum": (bits(sums, 32), settled)},
        TRACES * (cycles - SETTLE),
    )


def dense_systolic_pe(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """The same stream into a PE that does not look for zeros."""
    gated = systolic_pe(density, cycles, rng)
    shown = np.where(gated.inputs["zero_in"], False, gated.inputs["a_in"])
    inputs = {name: port for name, port in gated.inputs.items() if name != "zero_in"} | {"a_in": shown}
    return gated._replace(inputs=inputs)


BRICK, BRICKS = 16, 2


def cnvlutin(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """Sixteen lanes of two bricks a row, one filter; memories answer in the same cycle."""
    rows = cycles // 2 + 2
    a = activations((TRACES, rows, 16, BRICKS, BRICK), density, rng)
    weight = activations((TRACES, 16, BRICKS, BRICK), 1.0, rng)
    present = a != 0
    order = np.argsort(~present, axis=-1, kind="stable")
    counts = present.sum(axis=-1)
    t, lane = np.arange(TRACES)[:, None], np.arange(16)
    row, taken = np.zeros(TRACES, dtype=np.int64), np.zeros(TRACES, dtype=np.int64)
    slot = np.zeros((TRACES, 16), dtype=np.int64)
    spent = np.full((TRACES, 16), BRICKS)
    is_open = np.zeros(TRACES, dtype=np.bool_)
    held_brick, held_offset = (np.zeros((TRACES, 16), dtype=np.int64) for _ in range(2))
    ports = {name: np.zeros((TRACES, cycles, 16), dtype=np.int64) for name in ("count", "value", "offset", "weight")}
    take, barrier = (np.zeros((TRACES, cycles), dtype=np.bool_) for _ in range(2))
    # a row counts by the share of its cycles that fall into the counted ones, or long rows would be cut off
    rows_done, row_cycles = np.zeros((TRACES, cycles)), np.maximum(counts, 1).sum(axis=-1).max(axis=-1)
    for cycle in range(1, cycles):
        active = (spent < BRICKS) & is_open[:, None]
        rows_done[:, cycle] = is_open / row_cycles[t[:, 0], row]
        at = np.where(active, spent, 0)
        count = counts[t, row[:, None], lane, at]
        offset = order[t, row[:, None], lane, at, slot]
        ports["count"][:, cycle], ports["offset"][:, cycle] = count, offset
        ports["value"][:, cycle] = a[t, row[:, None], lane, at, offset]
        ports["weight"][:, cycle] = weight[t, lane, held_brick, held_offset]
        issue = active & (count > 0)
        held_brick, held_offset = np.where(issue, at, held_brick), np.where(issue, offset, held_offset)
        last = slot + 1 >= count
        ending = ~active | (last & (at == BRICKS - 1))
        barrier[:, cycle] = is_open & ending.all(axis=1)
        take[:, cycle] = ~is_open | barrier[:, cycle]
        slot = np.where(active & ~last, slot + 1, 0)
        spent = np.where(active & last, spent + 1, spent)
        entering = take[:, cycle]
        row = np.where(entering, taken, row)
        taken += entering
        spent[entering], slot[entering] = 0, 0
        is_open |= entering
    done = np.zeros_like(barrier)
    done[:, 2:] = barrier[:, :-2]
    sums = (a * weight[:, None]).sum(axis=(2, 3, 4))
    always = np.ones((TRACES, cycles, 1), dtype=np.bool_)
    return Stimulus(
        {
            "rst": _reset(cycles),
            "in_valid": always & ~_reset(cycles),
            "owned": np.ones((TRACES, cycles, 16 * BRICKS), dtype=np.bool_),
            "count": _flat(ports["count"], 5),
            "nm_value": _flat(ports["value"], 8),
            "nm_offset": _flat(ports["offset"], 4),
            "sb_weight": _flat(ports["weight"], 8),
        },
        {"take": (take[..., None], always[..., 0] & (np.arange(cycles) > 0)), **_when_valid(done, sums)},
        round(rows_done[:, SETTLE:].sum() * 16 * BRICKS * BRICK),
    )


CHUNK, CHUNKS, CUS = 128, 2, 2
WEIGHT_DENSITY, EIE_WEIGHT_DENSITY = 0.5, 0.1


def dense_mac(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """One 8-bit multiplier, an operand pair in every cycle; half the weights are zero, as for its skipping twin."""
    a = activations((TRACES, cycles, 1), density, rng)
    return _one_mac(density, a, activations(a.shape, WEIGHT_DENSITY, rng), 8, rng)


def dense_mac_16(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """One 16-bit multiplier at weights of which 10 % are not zero, as for its skipping twin."""
    a = activations((TRACES, cycles, 1), density, rng) * 257
    return _one_mac(density, a, activations(a.shape, EIE_WEIGHT_DENSITY, rng) * 32, 16, rng)


def _one_mac(density: float, a: Ints, b: Ints, width: int, rng: np.random.Generator) -> Stimulus:
    cycles = a.shape[1]
    wide = dense_pe(density, cycles, rng)
    inputs = wide.inputs | {"in_a": _flat(a, width), "in_b": _flat(b, width)}
    done = wide.expected["out_valid"][0][..., 0]
    return Stimulus(inputs, _when_valid(done, _sums(a[:, 1:], b[:, 1:])), TRACES * (cycles - SETTLE))


def sparten(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """Two CUs of two chunks; filters are written while the design settles, memories answer in the same cycle."""
    rows = cycles
    a = activations((TRACES, rows, CHUNKS, CHUNK), density, rng)
    weight = activations((TRACES, CUS, CHUNKS, CHUNK), WEIGHT_DENSITY, rng)
    t = np.arange(TRACES)
    cu = np.arange(CUS)
    # positions at which both are set, in the order in which a CU meets them; those past the last are -1
    match = ((a != 0)[:, :, None] & (weight != 0)[:, None]).reshape(TRACES, rows, CUS, -1)
    order = np.where(np.sort(~match, axis=-1), -1, np.argsort(~match, axis=-1, kind="stable"))
    work = match.sum(axis=-1)
    row, taken, done_in_row = (np.zeros(TRACES, dtype=np.int64) for _ in range(3))
    is_open = np.zeros(TRACES, dtype=np.bool_)
    offered, current = (np.zeros((TRACES, cycles), dtype=np.int64) for _ in range(2))
    place = np.full((TRACES, cycles, CUS), -1)
    take, barrier = (np.zeros((TRACES, cycles), dtype=np.bool_) for _ in range(2))
    rows_done = np.zeros((TRACES, cycles))
    start = CUS * CHUNKS + 1
    for cycle in range(start, cycles):
        offered[:, cycle], current[:, cycle] = taken, row
        at = np.minimum(done_in_row, order.shape[-1] - 1)
        rows_done[:, cycle] = is_open / np.maximum(work[t, row].max(axis=1), 1)
        place[:, cycle] = np.where(is_open[:, None], order[t[:, None], row[:, None], cu, at[:, None]], -1)
        barrier[:, cycle] = is_open & (done_in_row + 1 >= work[t, row].max(axis=1))
        take[:, cycle] = ~is_open | barrier[:, cycle]
        done_in_row = np.where(take[:, cycle], 0, done_in_row + 1)
        row = np.where(take[:, cycle], taken, row)
        taken += take[:, cycle]
        is_open |= take[:, cycle]
    done = np.zeros_like(barrier)
    done[:, 2:] = barrier[:, :-2]
    flat_a, flat_w = a.reshape(TRACES, rows, -1), weight.reshape(TRACES, CUS, -1)
    met = np.maximum(place, 0)
    value_a = np.where(place >= 0, flat_a[t[:, None, None], current[..., None], met], 0)
    value_w = np.where(place >= 0, flat_w[t[:, None, None], cu, met], 0)
    load = np.arange(cycles) - 1
    loading = (load >= 0) & (load < CUS * CHUNKS)
    which = np.where(loading, load, 0)
    masks = (weight != 0).reshape(TRACES, CUS * CHUNKS, CHUNK)[:, which] & loading[:, None]
    every = np.broadcast_to
    sums = (flat_a[:, :, None] * flat_w[:, None]).sum(axis=-1)
    expected = _when_valid(done, sums[..., 0])
    index = np.maximum(np.cumsum(done, axis=1) - 1, 0)
    both = bits(sums[t[:, None], np.minimum(index, rows - 1)], 32).reshape(TRACES, cycles, -1)
    return Stimulus(
        {
            "rst": _reset(cycles),
            "w_en": every(loading[:, None], (TRACES, cycles, 1)),
            "w_cu": every(bits(which // CHUNKS, 1), (TRACES, cycles, 1)),
            "w_chunk": every(bits(which % CHUNKS, 1), (TRACES, cycles, 1)),
            "w_mask": masks,
            "in_valid": every((np.arange(cycles) >= start)[:, None], (TRACES, cycles, 1)),
            "in_mask": (flat_a != 0)[t[:, None], offered],
            "value_a": _flat(value_a, 8),
            "value_w": _flat(value_w, 8),
        },
        {
            "take": (take[..., None], every(np.arange(cycles) >= start, take.shape)),
            "out_valid": expected["out_valid"],
            "psum": (both, done),
        },
        round(rows_done[:, SETTLE:].sum() * CUS * CHUNKS * CHUNK),
    )
