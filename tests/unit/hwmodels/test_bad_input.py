"""Bad input: one clear line that names the field and the remedy, before any work."""

from __future__ import annotations

from typing import Any

import pytest

from hwmodels import EnergyTable, InputError, Op, PackedMask, arch_from_yaml, load_arch, load_table, simulate
from hwmodels.config import from_yaml, packaged

YAML = packaged("archs")["cnvlutin"]
TABLE = """
name: t
title: t
rows:
  int16_mac: {energy: {value: 1 pJ, source: x, status: assumed}, node_nm: 45, per: op}
"""


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"k": 0}, "op 'x': k = 0, must be at least 1"),
        ({"m": 0}, "op 'x': m = 0"),
        ({"n": -1}, "op 'x': n = -1"),
        ({"repeat": 0}, "op 'x': repeat = 0"),
        ({"activation": PackedMask.ones(2, 9)}, r"activation mask has shape \(2, 9\).*needs \(2, 8\)"),
        ({"weight": PackedMask.ones(8, 3)}, r"weight mask has shape \(8, 3\).*needs \(3, 8\)"),
        ({"output": PackedMask.ones(3, 2)}, r"output mask has shape \(3, 2\).*needs \(2, 3\)"),
    ],
)
def test_op(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Op("x", 0, **{"m": 2, "k": 8, "n": 3, **fields})


@pytest.mark.parametrize("name", ["sparten", "dstc", "scnn", "eyeriss_v2_pe"])
def test_weight_mask_missing(name: str) -> None:
    op = Op("down", 4, 2, 8, 3, PackedMask.ones(2, 8))
    with pytest.raises(
        InputError, match=f"arch '{name}' .* op 'down' of layer 4 has no weight mask; record one, prune"
    ):
        simulate(op, load_arch(name))


def test_attention_needs_no_weight_mask() -> None:
    op = Op("scores", 0, 4, 8, 3, PackedMask.bernoulli(4, 8, 0.5, 1), has_weight=False)
    for name in ("sparten", "dstc", "scnn", "eyeriss_v2_pe"):
        counts = simulate(op, load_arch(name))
        assert counts.effectual_macs == op.activation_nonzeros * 3


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("cnvlutin", {"lanes": 0}, "parameter 'lanes' = 0, must be a whole number of at least 1"),
        ("cnvlutin", {"brick": 2.5}, "parameter 'brick' = 2.5"),
        ("cnvlutin", {"sync": "row"}, "parameter 'sync' = 'row', must be 'dot_product' or 'none'"),
        ("eie", {"fifo_depth": 0}, "parameter 'fifo_depth' = 0"),
        ("sparten", {"chunk": 100}, "parameter 'chunk' = 100, must be a multiple of 64"),
        ("sparten", {"balancing": "gb"}, "parameter 'balancing' = 'gb', must be one of none, gb_s, gb_h"),
        ("sparten_one_sided", {"sync": "x"}, "parameter 'sync' = 'x', must be one of cluster, none"),
        ("scnn", {"banks": 30}, "parameter 'banks' = 30, must be a multiple of 'outputs' = 8"),
        ("scnn", {"outputs": 512, "banks": 512}, "parameter 'outputs' = 512, must be at most 255"),
        ("nvidia_2_4", {"macs": 300}, "parameter 'macs' = 300 does not divide the tile"),
        ("highlight", {"g0": 5}, "parameter 'g0' = 5, must be at most 'h0' = 4"),
    ],
)
def test_parameters(name: str, changes: dict[str, Any], says: str) -> None:
    op = Op("x", 0, 2, 8, 3, PackedMask.ones(2, 8), PackedMask.ones(3, 8))
    with pytest.raises(InputError, match=says):
        simulate(op, load_arch(name).with_(**changes))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "kernel: cnvlutin",
            "kernel: cnvlutine",
            "field 'kernel': unknown kernel 'cnvlutine'; did you mean 'cnvlutin'",
        ),
        ("  brick: {value: 16", "  bricks: {value: 16", "unknown parameter 'bricks'; did you mean 'brick'"),
    ],
)
def test_arch_does_not_fit_its_kernel(old: str, new: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        arch_from_yaml(YAML.replace(old, new), "mine.yaml")


def test_missing_parameter() -> None:
    text = "\n".join(line for line in YAML.splitlines() if not line.startswith("  brick:"))
    with pytest.raises(InputError, match="parameter 'brick' of kernel 'cnvlutin' is missing"):
        arch_from_yaml(text, "mine.yaml")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("title: ", "tilte: ", "mine.yaml:2: tilte: unknown field; did you mean 'title'"),
        ("clock: {value: 606 MHz", "clock: {value: 606", "clock.*has no unit"),
        ("clock: {value: 606 MHz", "clock: {value: 606 kg", "is not a clock"),
        ("node: {", "node: {value: 3 nm}\nnode: {", "duplicate|found duplicate key"),
        ("kernel: cnvlutin\n", "", "kernel: field is missing; add it"),
        ("  weights: resident", "  weights: rented", "memory.weights"),
        (
            "bits:\n  activation: {value: 16",
            "bits:\n  activation: {value: 0",
            "bits.activation = 0, must be a whole number of at least 1",
        ),
    ],
)
def test_yaml(old: str, new: str, says: str) -> None:
    assert old in YAML
    with pytest.raises(InputError, match=says) as caught:
        arch_from_yaml(YAML.replace(old, new), "mine.yaml")
    assert str(caught.value).startswith("mine.yaml:")
    assert "\n" not in str(caught.value)


def test_not_yaml_at_all() -> None:
    with pytest.raises(InputError, match=r"mine\.yaml:1"):
        arch_from_yaml("- a\n- b\n", "mine.yaml")
    with pytest.raises(InputError, match=r"mine\.yaml:"):
        arch_from_yaml("a: [1, 2\n", "mine.yaml")


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="unknown arch 'cnvlutim'; did you mean 'cnvlutin'"):
        load_arch("cnvlutim")
    with pytest.raises(InputError, match="unknown energy table 'default_54nm'; did you mean 'default_45nm'"):
        load_table("default_54nm")
    with pytest.raises(InputError, match="arch 'cnvlutin' has no field 'lane'; did you mean 'lanes'"):
        load_arch("cnvlutin").with_(lane=3)


def test_energy_rows() -> None:
    with pytest.raises(InputError, match=r"t\.yaml:5: rows\.int16_mac\.energy: '-1 pJ' is -1 picojoule"):
        from_yaml(EnergyTable, TABLE.replace("1 pJ", "-1 pJ"), "t.yaml")
    table = from_yaml(EnergyTable, TABLE, "t.yaml")
    with pytest.raises(InputError, match=r"action 'mac\.computed' is counted but has no price; add it under 'actions'"):
        table.price(load_arch("cnvlutin"), "mac.computed")
    with pytest.raises(InputError, match="energy table 't' has no row 'int16_mac_gated'; did you mean 'int16_mac'"):
        table.price(load_arch("cnvlutin"), "mac.gated")


@pytest.mark.parametrize("changes", [{"clock": "0 Hz"}, {"memory__bandwidth": "0 GB/s"}])
def test_nothing_moves(changes: dict[str, str]) -> None:
    with pytest.raises(InputError, match="must be from 1"):
        load_arch("cnvlutin").with_(**changes)
