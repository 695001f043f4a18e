"""Stimulus of the EIE processing element: queue, pipeline and row sums played by the definition."""

from __future__ import annotations

from typing import Any

import numpy as np

from .stimuli import EIE_WEIGHT_DENSITY, SETTLE, TRACES, Ints, Stimulus, _reset, bits

RING, COLUMNS, LOCALS, EIE_PES = 8, 8, 6, 64
ENTRIES_A_COLUMN = EIE_WEIGHT_DENSITY * 2**LOCALS


def eie(density: float, cycles: int, rng: np.random.Generator) -> Stimulus:
    """One PE at a matrix of 10 % weights in 64 local rows; a broadcast arrives while the queue has room.

    Columns whose activation is zero are never broadcast, so the PE always works; density sets how many MACs of the
    dense schedule its cycles stand for. At density 0 it idles while the scan passes a column of each PE a cycle.
    """
    columns = rng.permuted(np.tile(np.arange(2**COLUMNS - 1), (TRACES, 4)), axis=1)
    values = rng.integers(1, 2**15, columns.shape) * rng.choice([-1, 1], columns.shape)
    counts = rng.poisson(ENTRIES_A_COLUMN, (TRACES, 2**COLUMNS - 1))
    first = np.concatenate([np.zeros((TRACES, 1), dtype=np.int64), np.cumsum(counts, axis=1)], axis=1)
    entries = rng.integers(0, 256, (TRACES, int(first.max()) + 1)) & 0x3F  # runs of 0 to 3 keep rows below 64
    codebook = np.concatenate([[0], rng.integers(-(2**12), 2**12, 15)])
    t = np.arange(TRACES)
    pushed, popped, left, at = (np.zeros(TRACES, dtype=np.int64) for _ in range(4))
    names = (
        "push",
        "column",
        "value",
        "ptr_first",
        "ptr_end",
        "run",
        "code",
        "full",
        "ent_at",
        "issue",
        "fresh",
        "held",
    )
    log = {name: np.zeros((TRACES, cycles), dtype=np.int64) for name in names}
    for cycle in range(1, cycles):
        empty = pushed == popped
        full = pushed - popped == RING - 1
        pop = (left == 0) & ~empty
        column = columns[t, np.where(empty, 0, popped)]
        begin, end = first[t, column], first[t, column + 1]
        issue = np.where(pop, end > begin, left > 0)
        where = np.where(pop, begin, at)
        push = ~full & (density > 0)
        now: list[Any] = [push, columns[t, pushed], values[t, pushed], begin, end]
        now += [entries[t, where] >> 4, entries[t, where] & 15, full, where, issue, pop]
        now += [values[t, np.where(pop, popped, np.maximum(popped - 1, 0))]]
        for name, value in zip(names, now, strict=True):
            log[name][:, cycle] = value
        left = np.where(issue, np.where(pop, end - begin, left) - 1, left)
        at = np.where(issue, where + 1, at)
        popped += pop
        pushed += push
    columns_done = log["fresh"][:, SETTLE:].sum() / density if density else TRACES * (cycles - SETTLE) * EIE_PES
    return _eie_ports(log, codebook)._replace(mac_slots=int(columns_done * 2**LOCALS))


def _eie_ports(log: dict[str, Ints], codebook: Ints) -> Stimulus:
    """Play pipeline, codebook and row sums behind the issued entries."""
    traces, cycles = log["issue"].shape
    t = np.arange(traces)
    issue = log["issue"] != 0
    row = np.zeros((traces, cycles), dtype=np.int64)
    code, sums = np.zeros((traces, cycles), dtype=np.int64), np.zeros((traces, 2**LOCALS), dtype=np.int64)
    written = np.zeros((traces, cycles), dtype=np.int64)
    held, reached = np.zeros(traces, dtype=np.int64), np.zeros(traces, dtype=np.int64)
    stored = np.zeros((traces, cycles + 5, 2**LOCALS), dtype=np.int64)
    for cycle in range(cycles):
        code[:, cycle] = held
        held = np.where(issue[:, cycle], log["code"][:, cycle], held)
        following = np.where(log["fresh"][:, cycle] != 0, 0, reached + 1) + log["run"][:, cycle]
        reached = np.where(issue[:, cycle], following % 2**LOCALS, reached)
        row[:, cycle] = reached
        product = log["held"][:, cycle] * codebook[log["code"][:, cycle]]
        sums[t, reached] += np.where(issue[:, cycle], product, 0)
        written[:, cycle] = sums[t, reached]
        # the write is at the end of the fourth stage, four cycles after the issue
        stored[:, cycle + 5] = sums
    late = {delay: np.maximum(np.arange(cycles) - delay, 0) for delay in (2, 4)}
    read_at = row[:, late[2]]
    read = np.take_along_axis(stored[:, :cycles], read_at[..., None], axis=2)[..., 0]
    valid = issue[:, late[4]] & (np.arange(cycles) >= 4)
    always = np.broadcast_to(np.arange(cycles) > 0, issue.shape)
    inputs = {
        "rst": _reset(cycles),
        "push": (log["push"] != 0)[..., None],
        "push_column": bits(log["column"], COLUMNS),
        "push_value": bits(log["value"], 16),
        "ptr_first": bits(log["ptr_first"], 12),
        "ptr_end": bits(log["ptr_end"], 12),
        "ent_run": bits(log["run"], 4),
        "ent_code": bits(log["code"], 4),
        "weight": bits(codebook[code], 16),
        "rd_sum": bits(read, 32),
    }
    expected = {
        "full": ((log["full"] != 0)[..., None], always),
        "ent_at": (bits(log["ent_at"], 12), issue),
        "sum_we": (valid[..., None], always),
        "sum_at": (bits(row[:, late[4]], LOCALS), valid),
        "sum_data": (bits(written[:, late[4]], 32), valid),
    }
    return Stimulus(inputs, expected, 0)
