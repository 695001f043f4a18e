"""TensorDash: a lane without work claims a later element of its own or a neighbouring lane.

A step is `lanes` consecutive elements of K. Each row (one token's dot product) has a window of ``lookahead + 1`` steps.
Every cycle, level by level, an idle lane l takes the first element still there at (step h, lane (l + d) mod lanes)
over the offsets (h, d) in order of priority. The R rows of a tile share the dense operand, so they move together by

    advance = min over the rows of (1 + leading empty steps), at most lookahead + 1

    cycles = sum over groups of R rows of (schedule cycles) * ceil(N / (columns tiles)),  dense: ceil(K / lanes)

One schedule, driven by activations alone, serves all output columns; tiles split the columns. Zero weights only gate.

Source: Mahmoud et al., TensorDash, MICRO 2020, doi:10.1109/MICRO50266.2020.00069.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arch import Arch
from ..counting.groups import group_starts, grouped_blocks
from ..counting.jit import jit
from ..counts import Compute
from ..errors import InputError
from ..kernel import DensityBaseline, Kernel
from ..mapping.space import Dataflow
from ..mask import Words
from ..op import Op
from ..reference.tensordash import tensordash_twin

COUNTER_BITS = 48
PACKS = 16  # 64-bit words that one pass over the claims handles: 64 rows of 16 lanes


class TensorDashParams(NamedTuple):
    """Shape and interconnect.

    Parameters
    ----------
    lanes : int
        Multipliers of a PE, at most 64; a step is as many elements of K.
    rows : int
        Rows (tokens) in lock-step.
    columns, tiles : int
        Outputs that a tile works on at once, and tiles that split N.
    lookahead : int
        Steps after the current one that the window holds; offsets beyond it are unused.
    offsets : list of [h, d]
        Where a lane looks, in order of priority; the first is [0, 0].
    level_stride : int
        Lanes l, l + stride, l + 2 stride ... choose in the same level; what is left over gets a level a lane.
    """

    lanes: int
    rows: int
    columns: int
    tiles: int
    lookahead: int
    offsets: list[list[int]]
    level_stride: int


class Wiring(NamedTuple):
    """Parameters as the kernel wants them: rotations within packed fields of `lanes` bits."""

    lanes: int
    ahead: NDArray[np.int64]
    right: NDArray[np.uint64]
    left: NDArray[np.uint64]
    straight: NDArray[np.uint64]
    wrapped: NDArray[np.uint64]
    levels: NDArray[np.uint64]


class Scratch(NamedTuple):
    """Working memory of the kernel, and where each row of a group lives in the packs.

    ``lines[group, word, step]`` are the elements of a group's rows by step, with empty steps at the end for the window
    to run into.
    """

    window: Words
    lines: Words
    busy: Words
    idle: Words
    position: NDArray[np.int64]
    pack: NDArray[np.int64]
    shift: Words
    mask: Words
    first_pack: NDArray[np.int64]
    last_pack: NDArray[np.int64]


@jit
def _claim(base, scratch, wiring, counters):  # type: ignore[no-untyped-def]
    """One cycle of PACKS packs from `base`: step 0 is used up, idle lanes claim, working lanes are counted.

    The innermost loops have a constant length and no branch, so that they become vector instructions. Counters are
    bit-sliced: word j holds bit j of 64 counts.
    """
    busy, idle = scratch.busy, scratch.idle
    # slices spare the loops the check for negative indices, which would keep them from vectorising
    window = scratch.window[:, base : base + PACKS]
    now = window[0]
    for pack in range(PACKS):
        busy[pack] = now[pack]
        now[pack] = np.uint64(0)
    for level in range(wiring.levels.shape[0]):
        members = wiring.levels[level]
        anyone = np.uint64(0)
        for pack in range(PACKS):
            idle[pack] = members & ~busy[pack]
            anyone |= idle[pack]
        if anyone == 0:
            continue
        for option in range(wiring.ahead.shape[0]):
            step = window[wiring.ahead[option]]
            right, left = wiring.right[option], wiring.left[option]
            straight, wrapped = wiring.straight[option], wiring.wrapped[option]
            anyone = np.uint64(0)
            for pack in range(PACKS):
                there = step[pack]
                taken = (((there >> right) & straight) | ((there << left) & wrapped)) & idle[pack]
                step[pack] = there & ~(((taken & straight) << right) | ((taken & wrapped) >> left))
                idle[pack] &= ~taken
                anyone |= idle[pack]
            if anyone == 0:
                break
        for pack in range(PACKS):
            busy[pack] |= members & ~idle[pack]
    for pack in range(PACKS):
        carry = busy[pack]
        place = 0
        while carry:
            counters[place], carry = counters[place] ^ carry, counters[place] & carry
            place += 1


@jit
def _lay_out(words, starts, bits, lanes, scratch):  # type: ignore[no-untyped-def]
    """Cut the rows of groups side by side into steps, each element where the window wants it: one pass, in order."""
    lines, pack, shift = scratch.lines, scratch.pack, scratch.shift
    rows = pack.shape[0] // scratch.position.shape[0]
    field = ~np.uint64(0) >> np.uint64(64 - lanes)
    lines[:] = np.uint64(0)
    for group in range(starts.shape[0] - 1):
        base = scratch.first_pack[group]
        for row in range(starts[group], starts[group + 1]):
            slot = group * rows + row - starts[group]
            line, left = lines[group, pack[slot] - base], shift[slot]
            mine = words[row]
            for step in range(-(-bits // lanes)):
                word, offset = step * lanes >> 6, np.uint64(step * lanes & 63)
                value = mine[word] >> offset
                if (step * lanes & 63) + lanes > 64 and word + 1 < mine.shape[0]:
                    value |= mine[word + 1] << (np.uint64(64) - offset)
                line[step] |= (value & field) << left


@jit
def _fill(groups, scratch):  # type: ignore[no-untyped-def]
    """Load the first window of groups side by side."""
    window, lines, first_pack = scratch.window, scratch.lines, scratch.first_pack
    window[:] = np.uint64(0)
    scratch.position[:groups] = 0
    for group in range(groups):
        for word in range(first_pack[group], scratch.last_pack[group]):
            for ahead in range(window.shape[0]):
                window[ahead, word] |= lines[group, word - first_pack[group], ahead]


@jit
def _move(steps, scratch, cycles):  # type: ignore[no-untyped-def]
    """Advance every group's window by 1 + its leading empty steps and refill it; returns the groups still running."""
    window, position, lines, mask = scratch.window, scratch.position, scratch.lines, scratch.mask
    first_pack, last_pack = scratch.first_pack, scratch.last_pack
    depth = window.shape[0]
    running = 0
    for group in range(cycles.shape[0]):
        if position[group] >= steps:
            continue
        cycles[group] += 1
        begin, end = first_pack[group], last_pack[group]
        advance = 1
        while advance < depth:
            left = np.uint64(0)
            for word in range(begin, end):
                left |= window[advance, word] & mask[group, word]
            if left:
                break
            advance += 1
        at = position[group] + advance
        position[group] = at
        if at >= steps:
            continue
        running += 1
        for word in range(begin, end):
            mine, others = mask[group, word], ~mask[group, word]
            line = lines[group, word - begin]
            for ahead in range(depth - advance):
                window[ahead, word] = (window[ahead, word] & others) | (window[ahead + advance, word] & mine)
            for ahead in range(depth - advance, depth):
                window[ahead, word] = (window[ahead, word] & others) | line[at + ahead]
    return running


@jit
def _schedule(words, starts, bits, wiring, scratch, counters, cycles):  # type: ignore[no-untyped-def]
    """Schedule consecutive groups, as many side by side as fit the packs, to share the bit operations."""
    cycles[:] = 0
    steps = -(-bits // wiring.lanes)
    together = scratch.position.shape[0]
    for first in range(0, starts.shape[0] - 1, together):
        last = min(first + together, starts.shape[0] - 1)
        _lay_out(words, starts[first : last + 1], bits, wiring.lanes, scratch)
        _fill(last - first, scratch)
        running = 1
        while running:
            for base in range(0, scratch.window.shape[1], PACKS):
                _claim(base, scratch, wiring, counters)
            running = _move(steps, scratch, cycles[first:last])


def _wiring(params: TensorDashParams, arch: Arch) -> Wiring:
    lanes, stride = params.lanes, params.level_stride
    if lanes > 64:
        raise InputError(f"arch '{arch.name}': parameter 'lanes' = {lanes}, at most 64 lanes are modelled")
    if any(len(pair) != 2 for pair in params.offsets):
        raise InputError(f"arch '{arch.name}': parameter 'offsets' takes pairs [h, d], steps ahead and lanes aside")
    offsets = [(int(h), int(d)) for h, d in params.offsets]
    if not offsets or offsets[0] != (0, 0) or any(h < 1 for h, _ in offsets[1:]):
        raise InputError(
            f"arch '{arch.name}': parameter 'offsets' must begin with [0, 0] and look ahead after it (h >= 1)"
        )
    offsets = [(h, d) for h, d in offsets[1:] if h <= params.lookahead]
    for ahead in {h for h, _ in offsets}:
        reach = [d for h, d in offsets if h == ahead]
        if max(reach) - min(reach) >= min(stride, lanes):
            raise InputError(
                f"arch '{arch.name}': parameter 'level_stride' = {stride}: two lanes of a level could claim the same "
                f"element at step {ahead}; make it at least {max(reach) - min(reach) + 1}"
            )
    right = [d % lanes for _, d in offsets]
    whole = lanes // stride * stride
    members = [range(level, whole, stride) for level in range(min(stride, whole))]
    members += [range(lane, lane + 1) for lane in range(whole, lanes)]
    return Wiring(
        lanes=lanes,
        ahead=np.array([h for h, _ in offsets], dtype=np.int64),
        right=np.array(right, dtype=np.uint64),
        left=np.array([(lanes - shift) % lanes for shift in right], dtype=np.uint64),
        straight=np.array([_fields(range(lanes - shift), lanes) for shift in right], dtype=np.uint64),
        wrapped=np.array([_fields(range(lanes - shift, lanes), lanes) for shift in right], dtype=np.uint64),
        levels=np.array([_fields(level, lanes) for level in members], dtype=np.uint64),
    )


def _fields(chosen: range, lanes: int) -> int:
    """Mask with the chosen lanes set in every field of a 64-bit word."""
    one = sum(1 << lane for lane in chosen)
    return sum(one << field * lanes for field in range(64 // lanes))


def _scratch(lanes: int, rows: int, depth: int, steps: int) -> Scratch:
    fields = 64 // lanes
    packs = -(-rows // (fields * PACKS)) * PACKS
    together = max(1, packs * fields // rows)
    slot = np.arange(together * rows)
    mask = np.zeros((together, packs), dtype=np.uint64)
    field = np.uint64((1 << lanes) - 1)
    shift = (slot % fields * lanes).astype(np.uint64)
    np.bitwise_or.at(mask, (slot // rows, slot // fields), field << shift)
    begin = np.arange(together) * rows
    first_pack, last_pack = begin // fields, (begin + rows - 1) // fields + 1
    span = int((last_pack - first_pack).max())
    return Scratch(
        window=np.zeros((depth, packs), dtype=np.uint64),
        lines=np.zeros((together, span, steps + depth), dtype=np.uint64),
        busy=np.zeros(PACKS, dtype=np.uint64),
        idle=np.zeros(PACKS, dtype=np.uint64),
        position=np.zeros(together, dtype=np.int64),
        pack=slot // fields,
        shift=shift,
        mask=mask,
        first_pack=first_pack,
        last_pack=last_pack,
    )


def count(op: Op, params: TensorDashParams, arch: Arch) -> Compute:
    """Count a GEMM; see the module for the schedule."""
    wiring = _wiring(params, arch)
    lanes, rows = params.lanes, params.rows
    starts = group_starts(op, rows)
    group_cycles = np.empty(len(starts) - 1, dtype=np.int64)
    counters = np.zeros(COUNTER_BITS, dtype=np.uint64)
    scratch = _scratch(lanes, rows, params.lookahead + 1, -(-op.k // lanes))
    done = 0
    for words, local in grouped_blocks(op.activation_or_ones(), starts):
        part = group_cycles[done : done + len(local) - 1]
        _schedule(words, local, op.k, wiring, scratch, counters, part)
        done += len(part)
    return _tally(op, params, starts, group_cycles, _lane_totals(counters, lanes))


def _lane_totals(counters: Words, lanes: int) -> NDArray[np.int64]:
    """Sum the vertical counters of all fields by lane: bit i of word j counts 2^j for lane ``i mod lanes``."""
    bits = np.unpackbits(counters.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    used = bits[:, : 64 // lanes * lanes].reshape(len(counters), -1, lanes).sum(axis=1, dtype=np.int64)
    return (used << np.arange(len(counters))[:, None]).sum(axis=0)


def _tally(
    op: Op,
    params: TensorDashParams,
    starts: NDArray[np.int64],
    group_cycles: NDArray[np.int64],
    lane_busy: NDArray[np.int64],
) -> Compute:
    passes = -(-op.n // (params.columns * params.tiles))
    lanes, steps = params.lanes, -(-op.k // params.lanes)
    sizes = np.diff(starts)
    row_steps = int((group_cycles * sizes).sum())
    claimed = int(lane_busy.sum())
    slots = row_steps * lanes * op.n * op.repeat
    effectual = op.effectual_macs
    row_cycles = group_cycles * passes
    unit_cycles = lanes * passes * op.repeat
    return Compute(
        cycles=int(row_cycles.sum()) * op.repeat,
        dense_cycles=len(sizes) * steps * passes * op.repeat,
        group_rows=params.rows,
        row_cycles=row_cycles,
        actions={
            "mac.compute": effectual,
            "mac.gated": slots - effectual,
            "mux.select": slots,
            "activation_buffer.read": op.m * op.k * passes * op.repeat,
            "weight_buffer.read": len(sizes) * op.k * op.n * op.repeat,
            "accumulator.update": row_steps * op.n * op.repeat,
        },
        stalls={
            "idle_lane": (row_steps * lanes - claimed) * passes * op.repeat,
            "empty_row": int((group_cycles * (params.rows - sizes)).sum()) * unit_cycles,
        },
        unit_busy=lane_busy * passes * op.repeat,
    )


def dataflow(params: TensorDashParams) -> Dataflow:
    """The window looks ahead over K, and not across a cut."""
    return Dataflow(params.rows, params.lanes, params.columns * params.tiles, splits_k=False)


KERNELS = [
    Kernel(
        "tensordash",
        TensorDashParams,
        count,
        tensordash_twin,
        skips=frozenset({"activation"}),
        token_order_free=False,
        baseline=DensityBaseline(most=lambda params: params.lookahead + 1),
        waits_in="tensordash_tile",
        dataflow=dataflow,
    )
]
