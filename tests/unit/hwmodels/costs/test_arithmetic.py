"""Arithmetic by widths and types: through the sourced points, by the stated laws, and against our netlists."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hwmodels.costs.arithmetic import adder, gated_mac, gates, mac, mac_sources, multiplier, register_file
from hwmodels.errors import InputError
from hwmodels.scaling import energy_factor


@pytest.mark.parametrize(
    ("kind", "add", "mul"),
    [("int8", 0.03, 0.2), ("int32", 0.1, 3.1), ("fp16", 0.4, 1.1), ("fp32", 0.9, 3.7)],
)
def test_horowitz_points_come_out(kind: str, add: float, mul: float) -> None:
    assert adder(kind).pj == pytest.approx(add)
    assert multiplier(kind, kind).pj == pytest.approx(mul)
    assert multiplier(kind, kind).status == "published"


def test_accelergys_macs_come_out_and_horowitz_is_the_low_end() -> None:
    assert mac("int8", "int8", "int32").pj == pytest.approx(0.5608)
    assert mac("int16", "int16", "int32").pj == pytest.approx(2.2)
    assert mac("int8", "int8", "int32").low_pj == pytest.approx(0.2 + 0.1)
    assert gated_mac("int16", "int16").pj == pytest.approx(0.066)


def test_a_multiplier_goes_by_the_product_of_its_widths() -> None:
    assert multiplier("int4", "int16").pj == pytest.approx(multiplier("int8", "int8").pj)
    assert multiplier("int8", "int32").area_um2 == pytest.approx(multiplier("int16", "int16").area_um2)
    assert multiplier("int16", "int16").pj == pytest.approx(0.787, abs=0.001)
    assert multiplier("int4", "int4").status == "assumed"


def test_an_adder_goes_by_its_width() -> None:
    assert adder("int64").pj == pytest.approx(2 * adder("int32").pj)
    assert adder("int16").pj == pytest.approx(0.05)


def test_fewer_bits_are_cheaper_in_energy_and_area() -> None:
    widths = [mac(f"int{bits}", f"int{bits}", "int32") for bits in (2, 4, 8, 12, 16, 24, 32)]
    floats = [mac(kind, kind, "fp32") for kind in ("fp8_e5m2", "fp8", "bf16", "fp16", "fp32")]
    for costs in (widths, floats):
        for small, large in pairwise(costs):
            assert small.pj < large.pj
            assert small.area_um2 < large.area_um2


def test_three_sources_of_a_mac_are_listed_and_their_order_is_known() -> None:
    sources = mac_sources(8)
    assert [one.source.split()[0] for one in sources] == ["horowitz2014", "wu2019accelergy", "gate-level"]
    horowitz, accelergy, netlist = (one.pj for one in sources)
    assert horowitz == pytest.approx(0.3)
    assert accelergy == pytest.approx(0.5608)
    # a synthesised MAC with its registers and clock pins, brought from 180 nm to 45 nm
    assert netlist == pytest.approx(34.88 * energy_factor(180, 45), rel=0.01)
    assert horowitz < accelergy < netlist < 2.5 * accelergy
    assert sources[2].area_um2 == pytest.approx(29932 / 16)


def test_a_register_file_goes_through_its_points() -> None:
    assert register_file(1, 8).pj == pytest.approx(0.072)
    assert register_file(24, 16).pj == pytest.approx(0.167)
    assert register_file(224, 16).pj == pytest.approx(0.477)
    assert register_file(64, 16).area_um2 == pytest.approx(2 * register_file(32, 16).area_um2)


def test_energy_and_area_fall_with_the_node() -> None:
    for build in (lambda node: mac("int8", "int8", "int32", node), lambda node: gates(100, node)):
        costs = [build(node) for node in (65, 45, 28, 16, 7)]
        assert all(a.pj > b.pj and a.area_um2 > b.area_um2 for a, b in pairwise(costs))


@pytest.mark.parametrize("kind", ["int0", "int65", "fp17", "float", "8"])
def test_an_unknown_format_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match="unknown number format"):
        multiplier(kind, "int8")
