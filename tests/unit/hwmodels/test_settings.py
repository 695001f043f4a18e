"""What is set is checked when it is set: types of the kernel's parameters, units, ranges, and one list of fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwmodels import EnergyTable, InputError, Op, PackedMask, arch_from_yaml, list_archs, load_arch, register, simulate
from hwmodels.arch import Arch
from hwmodels.config import from_yaml, packaged
from hwmodels.kernel import ONE_BY_ONE
from hwmodels.registry import arch_faults, built_in, kernel_of, kernels
from hwmodels.statistical import statistical_cycles
from hwmodels.units import parse

YAML = packaged("archs")["cnvlutin"]
OP = Op("x", 0, 8, 64, 24, PackedMask.bernoulli(8, 64, 0.1, 1), PackedMask.bernoulli(24, 64, 0.5, 2))


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        (
            "eie",
            "bias",
            {False: ("false", "no", "off", "0", "False", 0, False, np.False_), True: ("true", "1", 1, True)},
        ),
        ("cnvlutin", "empty_brick_cycles", {False: ("false", "0"), True: ("true", "yes", "ON")}),
    ],
)
def test_booleans_are_read_by_the_parameters_type(name: str, field: str, words: dict[bool, tuple[Any, ...]]) -> None:
    for value, spellings in words.items():
        for spelling in spellings:
            arch = load_arch(name).with_(**{field: spelling})
            assert arch.param(field) is value, spelling
            assert simulate(OP, arch).cycles == simulate(OP, load_arch(name).with_(**{field: value})).cycles
    for spelling in ("tru", "2", 2, 0.5, "", None, -1):
        with pytest.raises(InputError, match=f"parameter '{field}' = .*, must be true or false"):
            load_arch(name).with_(**{field: spelling})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clock": 700.0}, r"clock: 700\.0 has no unit; write it as text with a unit of clock, e\.g\. \"1 GHz\""),
        ({"clock": 700}, "clock: 700 has no unit"),
        ({"clock": "700"}, "clock: '700' is not a quantity of clock"),
        ({"clock": "700 Hz"}, "'700 Hz' is 700 hertz, must be from 1000 to"),
        ({"clock": "-1 GHz"}, "'-1 GHz' is -1e"),
        ({"clock": "1 mHz"}, "did you mean '1 MHz'"),
        ({"clock": "1 ghz"}, "did you mean '1 GHz'"),
        ({"clock": "nan GHz"}, "is not a quantity of clock"),
        ({"clock": "1e999 Hz"}, "is inf hertz"),
        ({"clock": "9**9**9 Hz"}, "is not a quantity of clock"),
        ({"clock": True}, "True has no unit"),
        ({"clock": None}, "None has no unit"),
        ({"memory__bandwidth": 1e20}, "has no unit"),
        ({"memory__bandwidth": "1e20 B/s"}, r"is 1e\+20 byte / second, must be from 1 to"),
        ({"memory__bandwidth": "100 GHz"}, "is not a bandwidth"),
        ({"memory__weight_buffer": "64 KB"}, "did you mean '64 kB' or '64 KiB'"),
        ({"static_power": "-1 W"}, "must be from 0"),
        ({"node": "0 nm"}, "must be from 0.1"),
        ({"voltage": 0.8}, "has no unit"),
        ({"voltage": "-1 V"}, "must be from 0.01 to 100 volt"),
        ({"voltage": "900 V"}, "must be from 0.01 to 100 volt"),
        ({"voltage": "0.8 v"}, "did you mean '0.8 V'"),
        ({"costs": "guessed"}, "Input should be 'scaled', 'stated' or 'derived'"),
        ({"area": "-3 mm^2"}, "must be from"),
        ({"vector_lanes": -2}, "vector_lanes = -2, must be positive"),
        ({"vector_lanes": "many"}, "must be a number without unit"),
        ({"vector_lanes": float("nan")}, "must be positive"),
        ({"bits__activation": 8.5}, "bits.activation = 8.5, must be a whole number"),
        ({"bits__weight": float("inf")}, "bits.weight = inf, must be a whole number"),
        ({"memory__index_bits": 0}, "index_bits = 0, must be a whole number"),
        ({"memory__weights": "rented"}, "Input should be 'streamed' or 'resident'"),
        ({"lanes": 2**31 - 1}, "must be at most 1,048,576"),
        ({"lanes": "16.5"}, "must be a whole number"),
        ({"lanes": True}, "must be a whole number"),
        ({"lanes": "9" * 5000}, "must be at most"),
        ({"sync": 3}, "parameter 'sync' = 3, must be text"),
        ({"name": "x"}, "has no field 'name'"),
        ({"kernel": "eie"}, "has no field 'kernel'"),
        ({"actions": {}}, "has no field 'actions'"),
    ],
)
def test_what_does_not_fit_is_refused_when_set(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_arch("cnvlutin").with_(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "fast", True])
def test_numbers_of_a_gpu_are_finite(value: Any) -> None:
    with pytest.raises(InputError, match=r"parameter 'dram' = .*, must be a finite number"):
        load_arch("h100_sxm").with_(dram=value)


def test_text_of_a_command_line_becomes_the_parameters_type() -> None:
    arch = load_arch("cnvlutin").with_(lanes="32", vector_lanes="64", bits__activation="8", sync="none")
    assert (arch.param("lanes"), arch.vector_lanes.value, arch.bits["activation"].value) == (32, 64, 8)  # type: ignore[union-attr]
    assert load_arch("cnvlutin").with_(lanes=np.int64(32)).hash == load_arch("cnvlutin").with_(lanes=32).hash
    assert load_arch("h100_sxm").with_(dram="3e12").param("dram") == 3e12


@pytest.mark.parametrize("name", ["cnvlutin", "sponge", "eyeriss_v2_pe", "h100_sxm"])
def test_every_settable_field_can_be_set_and_no_other(name: str) -> None:
    base = load_arch(name)
    values = {
        "clock": "1 GHz",
        "node": "28 nm",
        "voltage": "0.9 V",
        "costs": "stated",
        "static_power": "1 W",
        "area": "10 mm^2",
        "memory.bandwidth": "10 GB/s",
        "memory.weights": "resident",
        "memory.activation_format": "dense",
        "memory.weight_format": "dense",
        "memory.index_bits": 3,
        "vector_lanes": 7,
        "memory.weight_fetch": "needed",
        "mapping.search": "edp",
        "mapping.tile": {"m": 4},
        "mapping.order": "mnk",
        "mapping.stays": [],
        "mapping.doubled": ["activation", "weight", "output"],
    }
    for field in base.settable():
        default = base.param(field) if field in base.params else "64 KiB" if field.startswith("memory.") else 8
        changed = base.with_(**{field.replace(".", "__"): values.get(field, default)})
        assert changed.variant_of == name, field
    fields = {field.partition(".")[0] for field in base.settable()} - set(base.params)
    identity = {"name", "title", "description", "kernel", "source", "params", "actions", "skips", "variant_of"}
    assert fields == set(Arch.model_fields) - identity


def test_a_field_that_was_not_stated_becomes_an_assumed_figure() -> None:
    lanes = load_arch("eyeriss_v2_pe").with_(vector_lanes=16).vector_lanes
    assert lanes is not None
    assert (lanes.value, lanes.status, lanes.note) == (16, "assumed", "was not stated")


def test_all_faults_of_a_file_come_at_once() -> None:
    text = (
        YAML.replace("title: ", "tilte: ")
        .replace("606 MHz", "606")
        .replace("25.6 GB/s", "25.6 GHz")
        .replace("  weights: resident", "  weights: rented")
    )
    with pytest.raises(InputError) as caught:
        arch_from_yaml(text, "mine.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for line, says in zip(
        lines,
        ("mine.yaml:2: tilte: unknown field; did you mean 'title'", "clock: 606", "memory.bandwidth", "memory.weights"),
        strict=True,
    ):
        assert says in line
        assert line.startswith("mine.yaml:")


def test_all_parameters_that_a_kernel_refuses_come_at_once() -> None:
    text = (
        YAML.replace("  brick: {value: 16", "  bricks: {value: 16")
        .replace("lanes: {value: 16", "lanes: {value: 0", 1)
        .replace("empty_brick_cycles: {value: true", "empty_brick_cycles: {value: perhaps")
    )
    with pytest.raises(InputError) as caught:
        arch_from_yaml(text, "mine.yaml")
    assert [line.split(": ", 2)[2] for line in str(caught.value).splitlines()] == [
        "parameter 'lanes' = 0, must be a whole number of at least 1",
        "unknown parameter 'bricks'; did you mean 'brick' or 'empty_brick_cycles'?",
        "parameter 'empty_brick_cycles' = 'perhaps', must be true or false",
    ]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("int16_mac: 1}", "int16_mac: -1}", r"actions\.mac\.compute\.rows\.int16_mac: .* greater than or equal to 0"),
        ("int16_mac: 1}", "int16_mac: .inf}", r"rows\.int16_mac: .* finite"),
        ("clock: {value: 606 MHz", "clock: {value: 606.0", r"clock: 606\.0 has no unit"),
        ("vector_lanes: {value: 256", "vector_lanes: {value: lots", "vector_lanes = 'lots', must be positive"),
    ],
)
def test_numbers_of_a_file_are_held_to_their_range(old: str, new: str, says: str) -> None:
    assert old in YAML
    with pytest.raises(InputError, match=says):
        arch_from_yaml(YAML.replace(old, new, 1), "mine.yaml")


@pytest.mark.parametrize("node", ["-45", ".nan", "1e9"])
def test_a_row_of_an_impossible_node_is_refused(node: str) -> None:
    row = f"{{energy: {{value: 1 pJ, source: x, status: assumed}}, node_nm: {node}, per: op}}"
    with pytest.raises(InputError, match=r"t\.yaml:4: rows\.a\.node_nm: "):
        from_yaml(EnergyTable, f"name: t\ntitle: t\nrows:\n  a: {row}\n", "t.yaml")


def test_plain_floats_of_a_stored_arch_are_read_again() -> None:
    arch = load_arch("cnvlutin").with_(clock="1 GHz")
    assert Arch.model_validate(arch.model_dump(mode="json")).hash == arch.hash
    broken = arch.model_dump(mode="json")
    broken["clock"]["value"] = 700.0
    with pytest.raises(ValueError, match="must be from 1000"):
        Arch.model_validate(broken)


def test_a_range_holds_its_value() -> None:
    with pytest.raises(InputError, match=r"static_power: value 1\.67 is not from low = 2 to high = 3\.34"):
        arch_from_yaml(YAML.replace("low: 0.84 W", "low: 2 W"), "mine.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [*a]", "alias 'a' contains itself"),
        ("x: " + "[" * 50 + "]" * 50, "nested more than 40 levels deep"),
        ("\n".join([f"{'- ' * 60}x"]), "nested more than 40 levels deep"),
        (
            "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)),
            "aliases",
        ),
        ("clock: 9" + "9" * 5000, "not YAML that can be read"),
        ("when: 2001-99-99", "not YAML that can be read"),
        ("title: a\x07b", "not YAML that can be read"),
        ("x: " + "a" * 1_000_001, "at most 1,000,000 are read"),
    ],
)
def test_files_without_bound_end_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        arch_from_yaml(text, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml")
    assert "\n" not in str(caught.value)


def test_anchors_of_honest_files_work() -> None:
    text = YAML.replace("lanes: {value: 16, source", "lanes: &same {value: 16, source").replace(
        "  filters: {value: 16, source: chen2014dadiannao, status: published}", "  filters: *same"
    )
    assert "*same" in text
    assert arch_from_yaml(text, "mine.yaml").param("filters") == 16


@pytest.mark.parametrize("name", list_archs())
def test_sidedness_is_stated_and_is_the_kernels(name: str) -> None:
    arch = load_arch(name)
    assert arch.skips is not None
    assert set(arch.skips) == kernel_of(arch).skips
    assert list(arch_faults(arch)) == []


def test_sidedness_in_words_and_held_to_the_kernel() -> None:
    words = {name: load_arch(name).sides for name in ("systolic_32x32", "cnvlutin", "nvidia_2_4", "sparten")}
    assert words == {
        "systolic_32x32": "dense",
        "cnvlutin": "one-sided (activation, output)",
        "nvidia_2_4": "one-sided (weight)",
        "sparten": "two-sided (activation, weight, output)",
    }
    with pytest.raises(InputError, match=r"mine\.yaml:5: skips: .* but zeros of activation, output save cycles"):
        arch_from_yaml(YAML.replace("skips: [activation, output]", "skips: [weight]"), "mine.yaml")
    silent = arch_from_yaml(YAML.replace("skips: [activation, output]\n", ""), "mine.yaml")
    assert (silent.sides, silent.hash) == (words["cnvlutin"], load_arch("cnvlutin").hash)


def test_a_kernel_without_a_density_baseline_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(kernels())
    monkeypatch.setattr("hwmodels.registry.kernels", lambda: known)
    dstc = built_in()["dstc"]
    register(replace(dstc, name="mine", baseline=None))
    mine = Arch.model_validate(load_arch("dstc").model_dump() | {"name": "mine", "kernel": "mine"})
    with pytest.raises(InputError, match="kernel 'mine' declares no density baseline"):
        statistical_cycles(OP, mine)
    register(replace(dstc, name="mine"))
    op = Op("x", 0, 256, 512, 256, PackedMask.bernoulli(256, 512, 0.1, 1), PackedMask.bernoulli(256, 512, 0.5, 2))
    assert statistical_cycles(op, mine) == statistical_cycles(op, load_arch("dstc"))
    register(replace(dstc, name="mine", baseline=ONE_BY_ONE))
    assert statistical_cycles(op, mine) < statistical_cycles(op, load_arch("dstc"))


def test_quantities() -> None:
    assert parse("3.35 TB/s", "bandwidth") == 3.35e12
    assert parse("64kB", "size") == 64_000
    assert parse("64 KiB", "size") == 65_536
    assert parse("70.74 mm^2", "area") == parse("70.74 mm²", "area") == parse("70.74 mm**2", "area") == 70.74
    assert parse("8 Gbit/s", "bandwidth") == 1e9
    assert parse("5 /s", "rate") == 5
