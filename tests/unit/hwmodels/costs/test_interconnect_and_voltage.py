"""Wires by length and topology; energy, leakage and clock by supply voltage."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from hwmodels.costs.interconnect import CLOCK_TREE, broadcast_pj, path_mm, wire_pj_per_bit_mm
from hwmodels.costs.voltage import (
    PUBLISHED,
    check_clock,
    clock_ratio,
    energy_ratio,
    leakage_ratio,
    least_supply_v,
    max_clock_hz,
    nominal_supply_v,
)
from hwmodels.errors import InputError
from hwmodels.scaling import FITS, energy_factor


def test_the_published_wire() -> None:
    assert wire_pj_per_bit_mm(40) * 256 * 10 == pytest.approx(310)
    assert 150 <= wire_pj_per_bit_mm(10) * 256 * 10 <= 200


def test_multicast_is_paid_once_or_by_every_tile() -> None:
    area = 4.0
    assert path_mm(area, 16, "unicast") == pytest.approx(16 * 1.0)
    assert path_mm(area, 16, "tree") == pytest.approx(1 + 1.5 * 2 * 3)
    assert path_mm(area, 16, "neighbour") == pytest.approx(8.0)
    assert path_mm(area, 1, "tree") == path_mm(area, 1, "unicast") == pytest.approx(1.0)
    assert broadcast_pj(16, area, 64, "tree", 45) < broadcast_pj(16, area, 64, "unicast", 45)


def test_a_larger_array_makes_a_longer_wire() -> None:
    assert broadcast_pj(16, 4.0, 16, "tree", 45) == pytest.approx(2 * broadcast_pj(16, 1.0, 16, "tree", 45))


def test_bad_wires_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'tree'"):
        path_mm(1.0, 4, "tre")
    with pytest.raises(InputError, match="at least 1 target"):
        path_mm(1.0, 0, "tree")


def test_the_clock_tree_lies_between_its_two_sources() -> None:
    assert 0.0978 < CLOCK_TREE < 0.2574


def test_energy_follows_the_fits_at_their_nodes() -> None:
    assert energy_ratio(45, 0.9) == pytest.approx(energy_factor(45, 45, 1.0, 0.9))
    assert energy_ratio(45, 1.0) == 1.0
    assert energy_ratio(32, 0.72) == pytest.approx(energy_factor(32, 32, 0.9, 0.72))


@pytest.mark.parametrize("node", [*FITS, 28, 22, 12])
def test_energy_and_leakage_fall_with_voltage_and_the_clock_rises(node: float) -> None:
    nominal = nominal_supply_v(node)
    supplies = [nominal * share / 20 for share in range(10, 31)]
    for low, high in pairwise(supplies):
        assert 0 < energy_ratio(node, low) < energy_ratio(node, high)
        assert leakage_ratio(node, low) < leakage_ratio(node, high)
        assert max_clock_hz(node, low) < max_clock_hz(node, high)


def test_the_alpha_power_law_meets_the_published_pairs() -> None:
    for chip in PUBLISHED:
        ours = clock_ratio(chip.low[0], chip.high[0])
        assert 0.75 < ours / (chip.high[1] / chip.low[1]) < 1.3, chip.source
    # a clock in proportion to the supply, the usual wrong guess, is far outside
    simba = PUBLISHED[2]
    assert simba.high[0] / simba.low[0] < 0.5 * simba.high[1] / simba.low[1]


def test_a_clock_that_the_supply_does_not_allow_names_the_remedy() -> None:
    check_clock("arch 'a'", 606e6, 28, None)
    with pytest.raises(
        InputError, match=r"arch 'a': clock 3 GHz is above the 1\.55 GHz .* at 1 V; set clock to 1.55 GHz"
    ):
        check_clock("arch 'a'", 3e9, 45, None)
    with pytest.raises(InputError, match=r"or voltage to 0\.\d+ V"):
        check_clock("arch 'a'", 1.2e9, 45, 0.6)
    needed = least_supply_v(45, 1.2e9)
    check_clock("arch 'a'", 1.2e9, 45, needed)
    assert max_clock_hz(45, needed) == pytest.approx(1.2e9, rel=1e-3)
    assert math.isinf(least_supply_v(45, 30e9))


@pytest.mark.parametrize("volts", [0.3, 2.0])
def test_a_supply_outside_the_fit_names_the_range(volts: float) -> None:
    with pytest.raises(InputError, match=r"use 0\.5 to 1\.5 V"):
        energy_ratio(45, volts)


def test_a_supply_below_the_threshold_is_refused() -> None:
    with pytest.raises(InputError, match="threshold"):
        clock_ratio(1.0, 0.2)
