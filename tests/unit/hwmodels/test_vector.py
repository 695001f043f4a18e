"""Vector ops and counts that are added."""

from __future__ import annotations

import numpy as np
import pytest

import hwmodels
from hwmodels.counts import Counts, total


def test_lanes_decide_the_cycles() -> None:
    arch = hwmodels.load_arch("systolic_32x32")
    counts = hwmodels.simulate_vector(1000, arch)
    assert (counts.cycles, counts.dense_cycles, counts.stall_cycles) == (32, 32, 0)  # ceil(1000 / 32)
    assert counts.actions == {"vector.element": 1000}
    assert hwmodels.load_table("default_45nm").price(arch, "vector.element").pj > 0


def test_bad_input_names_the_field() -> None:
    arch = hwmodels.load_arch("systolic_32x32")
    with pytest.raises(hwmodels.InputError, match="0 elements"):
        hwmodels.simulate_vector(0, arch)
    with pytest.raises(hwmodels.InputError, match="vector_lanes = 0, must be positive"):
        hwmodels.simulate_vector(5, arch.with_(vector_lanes=0))
    with pytest.raises(hwmodels.InputError, match="states no vector unit"):
        hwmodels.simulate_vector(5, hwmodels.load_arch("sponge"))


def test_total_adds_every_count() -> None:
    def counts(scale: int) -> Counts:
        numbers = [scale * value for value in (1, 2, 3, 4, 5, 6, 7)]
        busy = np.array([scale, 0])
        return Counts(*numbers, actions={"a.b": scale, f"only.{scale}": 1}, stalls={"x": scale}, unit_busy=busy)

    both = total([counts(1), counts(10)])
    assert (both.cycles, both.dense_cycles, both.stall_cycles, both.dense_stall_cycles) == (11, 22, 33, 44)
    assert (both.macs, both.effectual_macs, both.dram_bytes) == (55, 66, 77)
    assert both.actions == {"a.b": 11, "only.1": 1, "only.10": 1}
    assert both.stalls == {"x": 11}
    assert both.unit_busy is not None
    assert both.unit_busy.tolist() == [11, 0]
