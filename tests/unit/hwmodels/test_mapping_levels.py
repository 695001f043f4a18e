"""Memory levels: derived from the flat fields, or stated as a list."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from hwmodels import Arch, InputError, Op, arch_from_yaml, diff, load_arch, simulate
from hwmodels.config import packaged
from hwmodels.hierarchy import levels_of
from hwmodels.memory import bytes_per_cycle

SOURCE = "source: chosen, status: assumed"
TOP = f"""
    - name: dram
      kind: lpddr5
      bandwidth: {{value: 25.6 GB/s, {SOURCE}}}
      burst: {{value: 64 byte, {SOURCE}}}
      holds: [activation, weight, output]"""
BUFFERS = f"""
    - name: inputs
      kind: sram
      size: {{value: 64 KiB, {SOURCE}}}
      count: {{value: 4, {SOURCE}}}
      holds: [activation, output]
    - name: weights
      kind: sram
      size: {{value: 256 KiB, {SOURCE}}}
      width: {{value: 128, {SOURCE}}}
      banks: {{value: 4, {SOURCE}}}
      holds: [weight]"""


def with_levels(levels: str, rest: str = "  weights: streamed\n") -> Arch:
    """systolic_32x32, its memory stated as a list."""
    text = packaged("archs")["systolic_32x32"]
    head, _, tail = text.partition("memory:\n")
    actions = tail[tail.index("actions:") :]
    return arch_from_yaml(f"{head}memory:\n{rest}  levels:{levels}\n{actions}", "own.yaml")


def test_levels_are_derived_from_the_flat_fields() -> None:
    dram, inputs, weights = levels_of(load_arch("dadiannao"))
    assert (dram.size_bytes, dram.bytes_per_s, dram.burst_bytes) == (inf, 25.6e9, 64)
    assert (inputs.name, inputs.size_bytes, inputs.holds) == ("activation_buffer", 4 << 20, {"activation", "output"})
    assert (weights.name, weights.size_bytes, weights.bytes_per_s) == ("weight_buffer", 32 << 20, inf)


def test_a_list_counts_as_the_flat_fields_it_says() -> None:
    listed, flat = with_levels(TOP + BUFFERS), load_arch("systolic_32x32")
    assert float(listed.memory.activation_buffer.value) == 256 * 1024
    op = Op("x", 0, 100, 300, 200)
    assert simulate(op, listed).actions == simulate(op, flat).actions
    assert simulate(op, listed).stall_cycles == simulate(op, flat).stall_cycles
    # four banks of 16 byte at 700 MHz outrun the DRAM, one does not
    assert levels_of(listed)[2].bytes_per_s == 4 * 16 * 700e6
    assert bytes_per_cycle(listed.with_(**{"memory.levels.weights.banks": 1})) == pytest.approx(16)


def test_a_list_is_changed_by_the_names_of_its_levels() -> None:
    listed = with_levels(TOP + BUFFERS)
    wide = listed.with_(**{"memory.levels.dram.bandwidth": "1 GB/s", "memory.levels.inputs.size": "1 KiB"})
    assert float(wide.memory.bandwidth.value) == 1e9
    assert float(wide.memory.activation_buffer.value) == 4096
    assert diff(listed, wide)["memory.levels.dram.bandwidth"] == (25.6e9, 1e9)
    assert "memory.levels.weights.size" in listed.settable()
    assert Arch.model_validate(wide.model_dump()) == wide
    with pytest.raises(InputError, match=r"set memory\.levels\.NAME\.FIELD \(NAME is one of dram, inputs, weights\)"):
        listed.with_(memory__bandwidth="1 GB/s")


@pytest.mark.parametrize(
    ("levels", "rest", "message"),
    [
        (BUFFERS, "  weights: streamed\n", "memory.levels has no top"),
        (TOP, "  weights: streamed\n", "no level below 'dram' holds 'activation'"),
        (TOP + BUFFERS + BUFFERS, "  weights: streamed\n", "two memory levels are named 'inputs'"),
        (TOP.replace(", output", "") + BUFFERS, "  weights: streamed\n", "'dram' is the top and must hold"),
        (TOP + BUFFERS.replace("kind: sram", "kind: hbm3", 1), "  weights: streamed\n", "which is off chip"),
        (TOP + BUFFERS.replace("[weight]", "[weight, weight]"), "  weights: streamed\n", "names an operand twice"),
        (
            TOP + BUFFERS.replace("64 KiB", "0 byte"),
            "  weights: streamed\n",
            "size: '0 byte' is 0 byte, must be from",
        ),
        (
            TOP + BUFFERS,
            f"  weights: streamed\n  burst: {{value: 32 byte, {SOURCE}}}\n",
            "memory.burst and memory.levels are both given",
        ),
        (TOP.replace("burst", "bursts") + BUFFERS, "  weights: streamed\n", "unknown field; did you mean 'burst'"),
    ],
)
def test_a_list_that_is_no_hierarchy_is_refused(levels: str, rest: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_levels(levels, rest)


def test_a_level_must_hold_a_word_of_each_of_its_operands() -> None:
    tiny = with_levels(TOP + BUFFERS.replace("64 KiB", "1 byte").replace("value: 4,", "value: 1,", 1))
    with pytest.raises(InputError, match="'inputs' of 1 byte cannot hold one word of activation and one of output"):
        simulate(Op("x", 0, 1, 1, 1), tiny)


def test_a_tile_without_a_search_needs_no_order() -> None:
    data: dict[str, Any] = load_arch("dadiannao").model_dump()
    with pytest.raises(ValueError, match=r"mapping\.order needs mapping\.tile"):
        Arch.model_validate({**data, "mapping": {"order": "nkm"}})
    with pytest.raises(ValueError, match=r"mapping\.tile\.m = 0, must be at least 1"):
        Arch.model_validate({**data, "mapping": {"tile": {"m": 0}}})


def test_levels_are_checked_when_set_and_all_faults_of_a_file_come_at_once() -> None:
    listed = with_levels(TOP + BUFFERS)
    for field, value, says in [
        ("weights.size", 4096, "memory.levels.weights.size: .*unit"),
        ("weights.banks", 2.5, r"level 'weights': banks = 2\.5, must be a whole number"),
        ("weights.width", "wide", r"memory\.levels\.weights\.width = 'wide', must be a number without unit"),
        ("inputs.burst", "1 byte", r"has no field 'memory\.levels\.inputs\.burst'"),
    ]:
        with pytest.raises(InputError, match=says) as caught:
            listed.with_(**{f"memory.levels.{field}": value})
        assert "\n" not in str(caught.value)
    wrong = (TOP + BUFFERS).replace("64 KiB", "64").replace("burst", "bursts")
    with pytest.raises(InputError) as caught:
        with_levels(wrong, "  weights: streamed\n  weight_fetch: some\n")
    told = str(caught.value)
    assert len(told.splitlines()) == 3
    assert "memory.levels.0.bursts: unknown field; did you mean 'burst'" in told
    assert "memory.levels.1.size: " in told
    assert "memory.weight_fetch: " in told
