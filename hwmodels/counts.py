"""Result of a simulation: integer counts, from which joules are derived later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Compute:
    """What a kernel counted for one op, before the memory side.

    Parameters
    ----------
    cycles, dense_cycles : int
        Compute cycles with the op's masks, and of the dense baseline.
    group_rows : int
        Rows that share a schedule (lock-step); `row_cycles` has one entry for each such group.
    row_cycles : int64[groups]
        Cycles by group of rows, in order; sums to `cycles` for one copy of the op.
    actions : dict of str to int
        ``"component.action"`` -> how often, compute side only.
    stalls : dict of str to int
        Lost unit-cycles by cause (barrier, empty, fifo_full ...).
    unit_busy : int64[units], optional
        Busy cycles of each PE or lane.
    dram_bytes : int, optional
        Given by a kernel whose time already holds the memory side: no stalls are added to it.

    Examples
    --------
    >>> compute = hwmodels.Compute(6, 8, 4, np.array([4, 2]), {"mac.compute": 40})
    >>> int(compute.row_cycles.sum()) == compute.cycles
    True
    """

    cycles: int
    dense_cycles: int
    group_rows: int
    row_cycles: NDArray[np.int64]
    actions: dict[str, int]
    stalls: dict[str, int] = field(default_factory=dict)
    unit_busy: NDArray[np.int64] | None = None
    dram_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of one op on one arch.

    `cycles` are compute cycles, what the published cycle counts speak of; `stall_cycles` are those in which compute
    waits for DRAM. Latency is both.

    Parameters
    ----------
    cycles, dense_cycles : int
        Compute cycles with the op's masks, and of the dense baseline.
    stall_cycles, dense_stall_cycles : int
        Cycles in which compute waits for DRAM.
    macs, effectual_macs : int
        Multiply-accumulates of the dense GEMM, and those that a perfect skipper would do.
    dram_bytes : int
        Bytes moved from and to DRAM.
    actions : dict of str to int
        ``"component.action"`` -> how often.
    stalls : dict of str to int
        Lost unit-cycles by cause.
    unit_busy : int64[units], optional
        Busy cycles of each PE or lane.

    Examples
    --------
    >>> op = hwmodels.Op("down", 0, m=4, k=64, n=16, activation=hwmodels.PackedMask.bernoulli(4, 64, 0.25, seed=0))
    >>> counts = hwmodels.simulate(op, hwmodels.load_arch("cnvlutin"))
    >>> counts.latency_s(606e6) < counts.dense_latency_s(606e6)
    True
    """

    cycles: int
    dense_cycles: int
    stall_cycles: int
    dense_stall_cycles: int
    macs: int
    effectual_macs: int
    dram_bytes: int
    actions: dict[str, int]
    stalls: dict[str, int]
    unit_busy: NDArray[np.int64] | None = None

    def latency_s(self, clock_hz: float) -> float:
        """Seconds: ``(cycles + stall_cycles) / clock``."""
        return (self.cycles + self.stall_cycles) / clock_hz

    def dense_latency_s(self, clock_hz: float) -> float:
        """Seconds of the dense baseline on the same memory."""
        return (self.dense_cycles + self.dense_stall_cycles) / clock_hz


def total(parts: Sequence[Counts]) -> Counts:
    """Add counts of one op that ran at several shapes (attention over sequences of several lengths)."""
    if len(parts) == 1:
        return parts[0]
    busy = [part.unit_busy for part in parts if part.unit_busy is not None]
    return Counts(
        cycles=sum(part.cycles for part in parts),
        dense_cycles=sum(part.dense_cycles for part in parts),
        stall_cycles=sum(part.stall_cycles for part in parts),
        dense_stall_cycles=sum(part.dense_stall_cycles for part in parts),
        macs=sum(part.macs for part in parts),
        effectual_macs=sum(part.effectual_macs for part in parts),
        dram_bytes=sum(part.dram_bytes for part in parts),
        actions=_added([part.actions for part in parts]),
        stalls=_added([part.stalls for part in parts]),
        unit_busy=np.sum(busy, axis=0) if len(busy) == len(parts) else None,
    )


def _added(many: Sequence[Mapping[str, int]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for one in many:
        for name, value in one.items():
            out[name] = out.get(name, 0) + value
    return out
