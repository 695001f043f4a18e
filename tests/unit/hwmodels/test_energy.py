"""Energy tables: every row sourced and ranged, prices summed and scaled as they say."""

from __future__ import annotations

import pytest

from hwmodels import InputError, load_arch, load_table
from hwmodels.arch import Action
from hwmodels.config import from_yaml
from hwmodels.energy import EnergyTable, list_tables
from hwmodels.scaling import energy_factor

DEFAULT = load_table("default_45nm")


@pytest.mark.parametrize("name", list_tables())
def test_rows_have_origin_and_a_range_around_the_value(name: str) -> None:
    for row_name, row in load_table(name).rows.items():
        figure = row.energy
        assert figure.source, row_name
        assert figure.value > 0, row_name
        low = figure.value if figure.low is None else figure.low
        high = figure.value if figure.high is None else figure.high
        assert low <= figure.value <= high, row_name
        if figure.status == "assumed":
            assert figure.note or " " in figure.source, f"{row_name}: an assumption without its reason"


def test_published_figures() -> None:
    assert DEFAULT.row("int8_mac").energy.value == 0.5608
    assert DEFAULT.row("horowitz.int_mul_32").energy.value == 3.1
    assert DEFAULT.row("dram_hbm2.bit").energy.value == 3.9
    blocks = ("spmat_read", "ptr_read", "arithm", "act_rw", "queue")
    total = sum(DEFAULT.row(f"eie.{block}").energy.value for block in blocks)
    assert total == pytest.approx(DEFAULT.row("eie.pe").energy.value, rel=1e-3)
    # 64 PEs at 800 MHz are the chip's published 0.59 W
    assert 64 * 800e6 * total * 1e-12 == pytest.approx(0.59, rel=0.01)
    # 4096 multipliers at 606 MHz are DaDianNao's 15.97 W
    assert 4096 * 606e6 * DEFAULT.row("dadiannao.mac_slot").energy.value * 1e-12 == pytest.approx(15.97, rel=1e-3)


def test_generic_rows_restate_their_sources() -> None:
    for size, width in (("8KB", 64), ("64KB", 128), ("256KB", 256)):
        for kind in ("read", "write"):
            word = DEFAULT.row(f"cacti7.sram_{size}_{width}bit_45nm.{kind}").energy.value
            assert DEFAULT.row(f"sram_{size}.bit_{kind}").energy.value == pytest.approx(word / width, rel=2e-3)
    assert DEFAULT.row("register_bit").energy.value * 8 == pytest.approx(
        DEFAULT.row("accelergy.register_8bit").energy.value
    )


def test_measured_overhead_is_that_of_the_gates() -> None:
    gates = load_table("gates_osu018")
    slot = gates.row("gates.tensordash_pe_d100").energy.value - gates.row("gates.dense_pe_d100").energy.value
    assert DEFAULT.row("tensordash.slot_overhead").energy.value == pytest.approx(slot, rel=0.1)


def test_cacti_scales_as_the_fit_says_within_a_factor_of_two() -> None:
    # two independent sources for the same step: CACTI's own 22 nm, and the 45 nm figure scaled
    for size, width in (("8KB", 64), ("64KB", 128), ("256KB", 256)):
        at_45, at_22 = (DEFAULT.row(f"cacti7.sram_{size}_{width}bit_{node}nm.read").energy.value for node in (45, 22))
        assert 0.5 < at_45 * energy_factor(45, 22) / at_22 < 2


def test_price_is_linear_and_scales_with_the_node() -> None:
    arch = load_arch("systolic_32x32")
    one = DEFAULT.price(arch, "mac.compute")
    actions = {**arch.actions, "mac.compute": Action(rows={"int8_mac": 3.0})}
    tripled = arch.model_copy(update={"actions": actions})
    assert DEFAULT.price(tripled, "mac.compute").pj == pytest.approx(3 * one.pj)
    assert DEFAULT.price(tripled, "mac.compute").low == pytest.approx(3 * one.low)
    small = arch.with_(node="16 nm")
    assert DEFAULT.price(small, "mac.compute").pj == pytest.approx(one.pj * energy_factor(45, 16))
    assert DEFAULT.price(small, "dram.transfer") == DEFAULT.price(arch, "dram.transfer")


def test_own_rows_go_before_those_extended() -> None:
    text = """
name: mine
title: Mine
extends: [default_45nm]
rows:
  int8_mac: {energy: {value: 2 pJ, source: test, status: assumed}, node_nm: 45, per: op}
"""
    mine = from_yaml(EnergyTable, text, "mine.yaml")
    arch = load_arch("systolic_32x32")
    assert mine.price(arch, "mac.compute").pj == 2.0
    assert mine.price(arch, "mac.gated") == DEFAULT.price(arch, "mac.gated")


def test_errors_name_row_and_remedy() -> None:
    arch = load_arch("systolic_32x32")
    with pytest.raises(InputError, match="did you mean 'int8_mac'"):
        DEFAULT.row("int8_mc")
    with pytest.raises(InputError, match=r"action 'mac\.imagined' is counted but has no price"):
        DEFAULT.price(arch, "mac.imagined")
    negative = """
name: bad
title: Bad
extends: [default_45nm]
rows:
  int8_mac: {energy: {value: -1 pJ, source: test, status: assumed}, node_nm: 45, per: op}
"""
    with pytest.raises(InputError, match="'-1 pJ' is -1 picojoule, must be from 0"):
        from_yaml(EnergyTable, negative, "bad.yaml")
