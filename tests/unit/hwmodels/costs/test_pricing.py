"""Stated, scaled and derived costs of an arch and its variants."""

from __future__ import annotations

import pickle

import pytest

from hwmodels import Arch, arch_from_yaml, list_archs, load_arch, load_table
from hwmodels.costs.design import design
from hwmodels.costs.pricing import Costs, costs_of
from hwmodels.errors import InputError

TABLE = load_table("default_45nm")
BARE = """
name: bare
title: A systolic array that states no cost
kernel: systolic
source: chosen
params:
  rows: {value: 16, source: chosen, status: assumed}
  columns: {value: 16, source: chosen, status: assumed}
  stationary: {value: weight, source: chosen, status: assumed}
clock: {value: 700 MHz, source: chosen, status: assumed}
node: {value: 45 nm, source: chosen, status: assumed}
bits:
  activation: {value: 8, source: chosen, status: assumed}
  weight: {value: 8, source: chosen, status: assumed}
  accumulator: {value: 32, source: chosen, status: assumed}
memory:
  bandwidth: {value: 25.6 GB/s, source: chosen, status: assumed}
  burst: {value: 64 byte, source: chosen, status: assumed}
  activation_buffer: {value: 64 KiB, source: chosen, status: assumed}
  weight_buffer: {value: 64 KiB, source: chosen, status: assumed}
  weights: streamed
"""


def costs(arch: Arch) -> Costs:
    return costs_of(arch, TABLE)


@pytest.mark.parametrize("name", list_archs())
def test_an_arch_as_stated_costs_what_it_states(name: str) -> None:
    arch = load_arch(name)
    found = costs(arch)
    for action in arch.actions:
        assert found.price(action) == pytest.approx(TABLE.price(arch, action)), action
    assert arch.static_power is not None
    assert found.static_w[0] == float(arch.static_power.value)
    if arch.area is not None:
        assert found.area_mm2 == float(arch.area.value)


def test_a_variant_moves_what_is_stated_as_its_parts_move() -> None:
    base = load_arch("dadiannao")
    wide = base.with_(lanes=32)
    old, new = design(base), design(wide)
    found = costs(wide)
    assert found.area_mm2 == pytest.approx(67.7 * new.area_mm2 / old.area_mm2)
    assert found.static_w[0] == pytest.approx(1.6 * new.static_w / old.static_w)
    assert found.static_w[2] == pytest.approx(3.2 * new.static_w / old.static_w)
    ratio = new.prices["activation_buffer.read"].pj / old.prices["activation_buffer.read"].pj
    assert ratio != 1
    stated = TABLE.price(base, "activation_buffer.read")
    assert found.price("activation_buffer.read") == pytest.approx(tuple(ratio * pj for pj in stated))


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ({"bits__activation": 8, "bits__weight": 8}, "mac.compute"),
        ({"memory__weight_buffer": "2 MiB"}, "weight_buffer.read"),
        ({"node": "16 nm"}, "mac.compute"),
        ({"voltage": "0.75 V"}, "mac.compute"),
    ],
)
def test_bits_buffers_node_and_supply_change_price_and_static_power(change: dict[str, object], action: str) -> None:
    base = load_arch("dadiannao")
    variant = base.with_(**change)
    assert costs(variant).price(action).pj < costs(base).price(action).pj
    assert costs(variant).static_w[0] < 1.6
    assert costs(variant).price("dram.transfer") == costs(base).price("dram.transfer")
    # the published rows stay selectable
    stated = costs(variant.with_(costs="stated"))
    assert stated.static_w[0] == 1.6
    assert stated.area_mm2 == 67.7
    assert stated.price(action) == TABLE.price(variant, action)


def test_what_a_variant_states_itself_is_taken_as_it_is() -> None:
    variant = load_arch("dadiannao").with_(lanes=32, static_power="5 W", area="80 mm^2")
    assert costs(variant).static_w == (5.0, 5.0, 5.0)
    assert costs(variant).area_mm2 == 80.0


def test_derived_costs_leave_the_papers_figures_aside() -> None:
    arch = load_arch("eie").with_(costs="derived")
    found, own = costs(arch), design(load_arch("eie"))
    assert found.price("mac.compute") == own.prices["mac.compute"]
    assert found.area_mm2 == pytest.approx(own.area_mm2)
    assert found.static_w[0] == pytest.approx(own.static_w)
    assert found.price("mac.compute").pj != costs(load_arch("eie")).price("mac.compute").pj


def test_an_arch_that_states_nothing_has_all_its_costs() -> None:
    arch = arch_from_yaml(BARE, "bare.yaml")
    found, own = costs(arch), design(arch)
    for action in ("mac.compute", "mac.gated", "weight_buffer.read", "accumulator.update", "dram.transfer"):
        assert found.price(action) == own.prices[action]
        assert found.price(action).pj > 0
    assert found.area_mm2 == pytest.approx(own.area_mm2)
    assert found.static_w[0] == pytest.approx(own.static_w)
    wider = costs(arch.with_(rows=32))
    assert wider.area_mm2 is not None
    assert wider.area_mm2 > own.area_mm2


def test_a_variant_of_an_own_yaml_knows_its_base() -> None:
    text = BARE + "area: {value: 2 mm^2, source: chosen, status: assumed}\n"
    arch = arch_from_yaml(text, "bare.yaml")
    variant = pickle.loads(pickle.dumps(arch.with_(rows=32).with_(columns=32)))
    assert variant.base == arch
    found = costs(variant)
    assert found.area_mm2 == pytest.approx(2 * design(variant).area_mm2 / design(arch).area_mm2)


def test_variants_of_variants_are_scaled_from_what_is_stated() -> None:
    first = load_arch("dadiannao").with_(lanes=32)
    second = first.with_(clock="500 MHz")
    at_once = load_arch("dadiannao").with_(lanes=32, clock="500 MHz")
    # a worker of a sweep knows the arch that it varies as fields alone
    told = costs_of(second, TABLE, Arch.model_validate(first.model_dump()))
    for found in (costs(second), told):
        assert found.area_mm2 == costs(at_once).area_mm2
        assert found.static_w == costs(at_once).static_w
    assert costs(at_once).static_w[0] < costs(first).static_w[0]


def test_what_cannot_be_priced_says_so() -> None:
    arch = load_arch("eie").model_copy(update={"static_power": None, "costs": "stated"})
    with pytest.raises(InputError, match="states no static_power; add it, or set costs: derived"):
        _ = costs(arch).static_w
    with pytest.raises(InputError, match=r"'mac\.imagined' is counted but has no price"):
        costs(load_arch("eie")).price("mac.imagined")
    with pytest.raises(InputError, match="clock 9 GHz is above"):
        costs(load_arch("eie").with_(clock="9 GHz"))


def test_the_clock_is_checked_where_costs_are_stated_too() -> None:
    with pytest.raises(InputError, match="clock 9 GHz is above"):
        costs(load_arch("eie").with_(clock="9 GHz", costs="stated"))


def test_what_a_kernel_without_structure_cannot_follow_is_refused() -> None:
    with pytest.raises(InputError, match="which follow no supply; leave voltage out"):
        costs(load_arch("h100_sxm").with_(voltage="0.8 V"))
    with pytest.raises(InputError, match="no structure to derive costs from; set costs to scaled or stated"):
        costs(load_arch("h100_sxm").with_(costs="derived"))


def test_an_unknown_way_of_costing_is_refused() -> None:
    with pytest.raises(InputError, match="'scaled', 'stated' or 'derived'"):
        load_arch("eie").with_(costs="guessed")
