"""Costs of whole archs: sums of parts, a price for every counted action, and what a change of structure changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwmodels import Arch, Op, PackedMask, list_archs, load_arch, load_table, simulate
from hwmodels.costs.design import design
from hwmodels.costs.families import FAMILIES, has_structure, register, structure_of
from hwmodels.costs.interconnect import CLOCK_TREE
from hwmodels.costs.structure import Builder, Structure, macros_of
from hwmodels.errors import InputError
from hwmodels.registry import kernel_of

DERIVED = [name for name in list_archs() if has_structure(load_arch(name))]


def test_only_gpus_lack_a_structure() -> None:
    assert {load_arch(name).kernel for name in list_archs() if name not in DERIVED} == {"gpu"}


@pytest.mark.parametrize("name", DERIVED)
def test_area_and_leakage_are_sums_and_every_part_is_above_zero(name: str) -> None:
    found = design(load_arch(name))
    assert found.area_mm2 == pytest.approx(sum(part.area_mm2 for part in found.parts))
    assert found.leakage_w == pytest.approx(sum(part.leakage_w for part in found.parts))
    dynamic = sum(watts for part, watts in found.peak.items() if part not in ("clock_tree", "dram"))
    assert found.static_w == pytest.approx(found.leakage_w + CLOCK_TREE * dynamic)
    assert found.peak_w == pytest.approx(dynamic * (1 + CLOCK_TREE) + found.peak["dram"] + found.leakage_w)
    for part in found.parts:
        if part.kind not in ("wire", "interface"):
            assert part.read_pj > 0, part.name
            assert part.area_mm2 > 0 or part.name == "mac_gated", part.name
    assert all(price.low <= price.pj <= price.high for price in found.prices.values())


@pytest.mark.parametrize("name", DERIVED)
def test_every_counted_action_has_a_price_by_construction(name: str) -> None:
    arch = load_arch(name)
    kernel = kernel_of(arch)
    weight = PackedMask.bernoulli(32, 128, 0.5, 2)
    op = Op("x", 0, 8, 128, 32, PackedMask.bernoulli(8, 128, 0.5, 1), weight if kernel.two_sided else None)
    counted = set(simulate(op, arch).actions)
    prices = design(arch).prices
    assert counted | set(arch.actions) <= set(prices)
    assert all(prices[action].pj > 0 for action in counted)


@pytest.mark.parametrize(
    ("name", "lanes"), [("dadiannao", "lanes"), ("systolic_32x32", "rows"), ("eie", "pes"), ("sparten", "clusters")]
)
def test_more_lanes_cost_area_and_leakage(name: str, lanes: str) -> None:
    arch = load_arch(name)
    small, large = design(arch), design(arch.with_(**{lanes: 4 * arch.param(lanes)}))
    assert large.area_mm2 > small.area_mm2
    assert large.leakage_w > small.leakage_w
    assert large.static_w > small.static_w


def test_fewer_bits_change_price_area_and_traffic_together() -> None:
    arch = load_arch("dadiannao")
    narrow = arch.with_(bits__activation=8, bits__weight=8)
    wide, thin = design(arch), design(narrow)
    assert thin.prices["mac.compute"].pj == pytest.approx(0.5608 / 2.2 * wide.prices["mac.compute"].pj, rel=1e-6)
    assert thin.prices["weight_buffer.read"].pj < 0.75 * wide.prices["weight_buffer.read"].pj
    assert thin.area_mm2 < wide.area_mm2
    op = Op("x", 0, 16, 256, 256, PackedMask.bernoulli(16, 256, 0.5, 1))
    assert simulate(op, narrow).dram_bytes == pytest.approx(simulate(op, arch).dram_bytes / 2, rel=0.05)


def test_a_bigger_buffer_costs_more_per_access_area_and_leakage() -> None:
    sizes = [
        design(load_arch("systolic_32x32").with_(memory__weight_buffer=size))
        for size in ("64 KiB", "256 KiB", "4 MiB", "1 GiB")
    ]
    for small, large in itertools.pairwise(sizes):
        assert small.prices["weight_buffer.read"].pj < large.prices["weight_buffer.read"].pj
        assert small.area_mm2 < large.area_mm2
        assert small.leakage_w < large.leakage_w


def test_a_lower_supply_saves_energy_and_leakage_off_chip_apart() -> None:
    arch = load_arch("systolic_32x32")
    nominal, low = design(arch), design(arch.with_(voltage="0.8 V"))
    assert low.prices["mac.compute"].pj < 0.7 * nominal.prices["mac.compute"].pj
    assert low.leakage_w == pytest.approx(0.8**3 * nominal.leakage_w)
    assert low.prices["dram.transfer"] == nominal.prices["dram.transfer"]
    assert low.area_mm2 == nominal.area_mm2
    table = load_table("default_45nm")
    variant = arch.with_(voltage="0.8 V")
    assert table.price(variant, "mac.compute").pj == pytest.approx(low.prices["mac.compute"].pj)
    assert table.price(variant, "dram.transfer") == table.price(arch, "dram.transfer")


def test_a_clock_above_the_supply_is_refused() -> None:
    with pytest.raises(InputError, match=r"clock 3 GHz is above .* set clock to"):
        design(load_arch("systolic_32x32").with_(clock="3 GHz"))
    with pytest.raises(InputError, match="outside the energy fit"):
        design(load_arch("systolic_32x32").with_(voltage="3 V"))


def test_a_memory_too_slow_for_the_clock_is_a_warning_with_a_remedy() -> None:
    fast = design(load_arch("systolic_32x32").with_(memory__weight_buffer="16 MiB", stationary="output"))
    (found,) = (line for line in fast.warnings if line.startswith("weight_buffer"))
    assert "times the banks, or a lower clock" in found
    slow = design(load_arch("systolic_32x32").with_(clock="20 MHz", memory__bandwidth="0.1 GB/s"))
    assert slow.warnings == ()


def test_the_node_shrinks_all_but_the_interface() -> None:
    arch = load_arch("systolic_32x32")
    at_45, at_7 = design(arch), design(arch.with_(node="7 nm"))
    assert at_7.area_mm2 < at_45.area_mm2
    assert at_7.prices["mac.compute"].pj < 0.1 * at_45.prices["mac.compute"].pj
    interface = {part.name: part.area_mm2 for part in at_7.parts}["interface"]
    assert interface == {part.name: part.area_mm2 for part in at_45.parts}["interface"]


def test_an_unknown_kernel_says_what_to_register() -> None:
    arch = load_arch("systolic_32x32").model_copy(update={"kernel": "mine", "name": "mine"})
    with pytest.raises(InputError, match=r"kernel 'mine' states no structure .* hwmodels.costs.families.register"):
        structure_of(arch)

    @register("mine")
    def mine(arch: Arch) -> Structure:
        builder = Builder("arch 'mine'", 45.0)
        builder.regfile("word", 1, 8)
        builder.action("word.read", ("word", "read", 8), peak=1.0)
        return builder.structure()

    try:
        assert design(arch).prices["word.read"].pj == pytest.approx(0.072)
    finally:
        del FAMILIES["mine"]


def test_an_action_of_a_part_that_is_not_there_is_refused() -> None:
    builder = Builder("arch 'a'", 45.0)
    builder.action("mac.compute", ("mac", "read", 1.0))
    with pytest.raises(InputError, match=r"action 'mac\.compute' uses a part 'mac' that the arch lacks"):
        builder.structure()
    with pytest.raises(InputError, match="must be above 0"):
        builder.memory("buffer", "sram", 0, 64)


def test_wide_memories_stand_side_by_side_and_small_ones_take_the_smallest_macro() -> None:
    assert macros_of("sram", 65536, 128) == (1, 1, 65536, 128)
    assert macros_of("sram", 65536, 512) == (4, 1, 16384, 128)
    assert macros_of("sram", 100, 8) == (1, 1, 1024, 64)
    assert macros_of("sram", 2**30, 64) == (1, 64, 2**24, 64)
    assert np.prod(macros_of("edram", 2**21, 4096)[:1]) == 16
