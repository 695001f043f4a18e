"""Laws of costs: larger and wider is never cheaper, energy falls with voltage, area adds up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import list_archs, load_arch
from hwmodels.costs.design import design
from hwmodels.costs.families import has_structure
from hwmodels.costs.sram import CELLS, macro
from hwmodels.costs.structure import Builder, Part
from hwmodels.costs.voltage import nominal_supply_v

pytestmark = pytest.mark.slow

SLACK = 1 + 1e-9
BUFFERED = [name for name in list_archs() if has_structure(load_arch(name)) and name != "sponge"]
# sizes at which every cell has widths of 128 and 256 bit
SIZES = st.integers(2**16, 2**21)
NODES = st.sampled_from([7, 14, 22, 28, 32, 40, 45, 65, 90])


def memory(size: int, width: int, count: int = 1) -> Part:
    builder = Builder("arch 'a'", 45.0)
    builder.memory("buffer", "sram", size, width, count)
    return builder.parts["buffer"]


@given(st.sampled_from(CELLS), NODES, SIZES, SIZES, st.integers(128, 256))
def test_a_bigger_memory_is_never_cheaper(cell: str, node: float, one: int, other: int, width: int) -> None:
    small, large = (macro(cell, node, size, width) for size in sorted((one, other)))
    assert small.read_pj <= large.read_pj * SLACK
    assert small.write_pj <= large.write_pj * SLACK
    assert small.leakage_w <= large.leakage_w * SLACK
    assert small.area_mm2 <= large.area_mm2 * SLACK


@given(st.sampled_from(CELLS), NODES, SIZES, st.integers(128, 256), st.integers(128, 256))
def test_a_wider_access_is_never_cheaper(cell: str, node: float, size: int, one: int, other: int) -> None:
    narrow, wide = (macro(cell, node, size, width) for width in sorted((one, other)))
    assert narrow.read_pj <= wide.read_pj * SLACK
    assert narrow.write_pj <= wide.write_pj * SLACK


@given(SIZES, SIZES, st.integers(8, 2048))
def test_a_bigger_buffer_of_macros_is_never_cheaper(one: int, other: int, width: int) -> None:
    small, large = (memory(size, width) for size in sorted((one, other)))
    assert small.read_pj <= large.read_pj * SLACK
    assert small.write_pj <= large.write_pj * SLACK
    assert small.area_mm2 <= large.area_mm2 * SLACK
    assert small.leakage_w <= large.leakage_w * SLACK


@given(SIZES, st.integers(1, 8))
def test_area_and_leakage_are_additive_in_instances(size: int, count: int) -> None:
    one, many = memory(size, 64), memory(size, 64, count)
    assert many.area_mm2 == count * one.area_mm2
    assert many.leakage_w == count * one.leakage_w
    assert many.read_pj == one.read_pj


@given(st.sampled_from(BUFFERED), st.sampled_from(["activation_buffer", "weight_buffer"]), st.integers(2, 64))
@settings(deadline=None)
def test_a_bigger_buffer_never_makes_an_arch_cheaper(name: str, buffer: str, times: int) -> None:
    arch = load_arch(name)
    size = float(getattr(arch.memory, buffer).value)
    small, large = design(arch), design(arch.with_(**{f"memory__{buffer}": f"{times * size} byte"}))
    assert small.area_mm2 <= large.area_mm2 * SLACK
    assert small.leakage_w <= large.leakage_w * SLACK
    assert all(small.prices[action].pj <= large.prices[action].pj * SLACK for action in small.prices)


@given(st.sampled_from(["dadiannao", "eie", "sparten", "tensordash_tile", "systolic_32x32"]), st.data())
def test_energy_and_leakage_fall_with_voltage(name: str, data: st.DataObject) -> None:
    arch = load_arch(name)
    nominal = nominal_supply_v(float(arch.node.value))
    shares = sorted(data.draw(st.lists(st.floats(0.8, 1.4), min_size=2, max_size=2)))
    low, high = (design(arch.with_(voltage=f"{share * nominal} V")) for share in shares)
    assert low.leakage_w <= high.leakage_w * SLACK
    assert all(low.prices[action].pj <= high.prices[action].pj * SLACK for action in low.prices)
