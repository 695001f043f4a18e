"""Costs of memories that an arch states as levels."""

from __future__ import annotations

import pytest

from hwmodels import Arch, Op, PackedMask, arch_from_yaml, load_arch, simulate
from hwmodels.config import packaged
from hwmodels.costs.design import Design, design
from hwmodels.costs.structure import Part

SOURCE = "source: chosen, status: assumed"
TOP = f"""
    - name: dram
      kind: KIND
      bandwidth: {{value: 25.6 GB/s, {SOURCE}}}
      burst: {{value: 64 byte, {SOURCE}}}
      holds: [activation, weight, output]"""


def level(name: str, holds: str, kind: str = "sram", size: str = "256 KiB", **counts: int) -> str:
    """YAML of one level."""
    lines = [f"name: {name}", f"kind: {kind}", f"size: {{value: {size}, {SOURCE}}}", f"holds: [{holds}]"]
    lines += [f"{field}: {{value: {value}, {SOURCE}}}" for field, value in counts.items()]
    return "\n    - " + "\n      ".join(lines)


def with_levels(*levels: str, top: str = "lpddr5") -> Arch:
    """systolic_32x32, its memory stated as a list."""
    head, _, tail = packaged("archs")["systolic_32x32"].partition("memory:\n")
    listed = TOP.replace("KIND", top) + "".join(levels)
    text = f"{head}memory:\n  weights: streamed\n  levels:{listed}\n{tail[tail.index('actions:') :]}"
    return arch_from_yaml(text, "own.yaml")


def part(found: Design, name: str) -> Part:
    """Find a part by name."""
    return next(one for one in found.parts if one.name == name)


def test_levels_that_say_what_the_flat_fields_say_cost_the_same() -> None:
    flat = design(load_arch("systolic_32x32"))
    listed = design(with_levels(level("inputs", "activation, output"), level("weights", "weight")))
    assert listed.area_mm2 == pytest.approx(flat.area_mm2)
    assert listed.leakage_w == pytest.approx(flat.leakage_w)
    assert listed.prices == flat.prices


def test_count_banks_width_and_kind_come_from_the_level() -> None:
    inputs = level("inputs", "activation, output")
    one = part(design(with_levels(inputs, level("weights", "weight", width=128))), "weight_buffer")
    split = part(
        design(with_levels(inputs, level("weights", "weight", size="64 KiB", width=128, banks=2, count=2))),
        "weight_buffer",
    )
    assert (one.instances, one.width_bits, split.instances, split.width_bits) == (1, 128, 4, 128)
    # an access opens a bank of 32 KiB
    assert split.read_pj < one.read_pj
    edram = part(design(with_levels(inputs, level("weights", "weight", "edram", "4 MiB"))), "weight_buffer")
    sram = part(design(with_levels(inputs, level("weights", "weight", "sram", "4 MiB"))), "weight_buffer")
    assert edram.kind == "edram"
    assert edram.area_mm2 < sram.area_mm2
    small = part(design(with_levels(inputs, level("weights", "weight", "regfile", "1 KiB", width=64))), "weight_buffer")
    assert (small.kind, small.width_bits) == ("regfile", 64)


def test_one_level_of_both_operands_is_paid_for_once() -> None:
    shared = design(with_levels(level("all", "activation, weight, output", width=128)))
    both, again = part(shared, "activation_buffer"), part(shared, "weight_buffer")
    assert (again.area_mm2, again.leakage_w) == (0, 0)
    assert both.area_mm2 > 0
    assert again.read_pj == both.read_pj > 0


def test_the_top_decides_the_interface() -> None:
    buffers = level("inputs", "activation, output"), level("weights", "weight")
    areas = {kind: part(design(with_levels(*buffers, top=kind)), "interface").area_mm2 for kind in ("ddr4", "hbm3")}
    assert areas["hbm3"] < areas["ddr4"]


def test_every_action_of_a_design_with_levels_has_a_price() -> None:
    arch = with_levels(level("all", "activation, weight, output", size="64 KiB"))
    counted = simulate(Op("x", 0, 64, 512, 256, PackedMask.bernoulli(64, 512, 0.5, 1)), arch).actions
    prices = design(arch).prices
    assert {"activation_buffer.fill", "weight_buffer.fill"} <= set(counted) <= set(prices)
    assert all(prices[action].pj > 0 for action in counted)
