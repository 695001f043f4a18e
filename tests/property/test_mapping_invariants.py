"""What must hold for the mapping of any op on every arch there is, found by globbing the archs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_strategies import ops

from hwmodels import Arch, Op, list_archs, load_arch, simulate
from hwmodels.mapping.launches import Ways
from hwmodels.memo import Memo, Moved
from hwmodels.memory import bytes_per_cycle, traffic
from hwmodels.registry import kernel_of

pytestmark = pytest.mark.slow

FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
OBJECTIVES = ("latency", "energy", "edp", "balanced")


def has_mapping(name: str) -> bool:
    arch = load_arch(name)
    kernel = kernel_of(arch)
    op = Op("x", 0, 1, 1, 1)
    return Memo().move(replace(op, weight=op.weight_or_ones()) if kernel.two_sided else op, arch).movement is not None


ARCHS = [name for name in list_archs() if has_mapping(name)]


def moved(op: Op, arch: Arch) -> Moved:
    found = Memo().move(op, arch)
    assert found.movement is not None
    return found


def worth(op: Op, arch: Arch) -> tuple[float, float, float]:
    """Latency in seconds, bytes moved, and what the search has least of, launch by launch."""
    found = moved(op, arch)
    rate = bytes_per_cycle(arch)
    ways: Ways = found.movement.ways.at(rate)
    tiles = ways.tiles
    stall = tiles.fill / rate + np.maximum(0.0, (tiles.bytes - tiles.fill) / rate - tiles.busy)
    cycles = tiles.busy + stall
    return float(cycles.sum()) / arch.clock_hz, float(tiles.bytes.sum()), float((cycles * tiles.bytes).sum())


def drawn_buffers(data: st.DataObject) -> dict[str, Any]:
    small, large = (sorted(data.draw(st.tuples(*[st.integers(16, 4096)] * 2))) for _ in range(2))
    return {
        "memory__activation_buffer": (f"{small[0]} byte", f"{small[1]} byte"),
        "memory__weight_buffer": (f"{large[0]} byte", f"{large[1]} byte"),
        "memory__bandwidth": ("2 GB/s", "30 GB/s"),
    }


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_more_memory_and_bandwidth_never_cost(name: str, objective: str, data: st.DataObject) -> None:
    base = load_arch(name).with_(mapping__search=objective, memory__burst="1 byte")
    op = data.draw(ops(kernel_of(base)), label="op")
    fields = drawn_buffers(data)
    poor = base.with_(**{field: pair[0] for field, pair in fields.items()})
    before = worth(op, poor)
    for field, (_, more) in fields.items():
        after = worth(op, poor.with_(**{field: more}))
        if objective == "balanced":
            # as quick as the quickest, to a hundredth
            assert after[0] <= before[0] * 1.01 * (1 + 1e-12), field
        else:
            place = OBJECTIVES.index(objective)
            assert after[place] <= before[place] * (1 + 1e-12), field


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_traffic_is_between_once_and_no_reuse(name: str, data: st.DataObject) -> None:
    arch = load_arch(name).with_(memory__burst="1 byte")
    op = data.draw(ops(kernel_of(arch)), label="op")
    buffers = {field: pair[0] for field, pair in drawn_buffers(data).items()}
    arch = arch.with_(**buffers)
    found = moved(op, arch)
    ways = found.movement.ways.at(bytes_per_cycle(arch))
    once = traffic(found.op, arch)
    sums = int(arch.bits["accumulator"].value) / 8
    # copies that share their second operand are one launch of all their rows
    rows = op.m * op.shared
    inputs, outputs = once.activation_bytes.sum() * op.shared, once.output_bytes_per_token * rows
    launches = len(ways.first)
    assert inputs <= ways.tiles.inputs.sum() <= np.ceil(once.activation_bytes + 1).sum() * op.shared * op.n
    # a partial sum is written and read again at most once for each element of K but the last
    assert outputs <= ways.tiles.outputs.sum() <= np.ceil(outputs + launches) + rows * op.n * 2 * sums * (op.k - 1) + 1
    resident = arch.memory.weights == "resident" and once.weight_bytes <= float(arch.memory.weight_buffer.value)
    if resident:
        assert not ways.tiles.weights.any()
    else:
        assert once.weight_bytes * launches <= ways.tiles.weights.sum() <= np.ceil(once.weight_bytes + 1) * rows


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_fills_are_what_the_level_above_gives(name: str, data: st.DataObject) -> None:
    arch = load_arch(name).with_(memory__burst="1 byte")
    op = data.draw(ops(kernel_of(arch)), label="op")
    arch = arch.with_(**{field: pair[0] for field, pair in drawn_buffers(data).items()})
    counts, found = simulate(op, arch), moved(op, arch)
    tiles = found.movement.ways.at(bytes_per_cycle(arch)).tiles
    once = traffic(found.op, arch)
    written = once.output_bytes_per_token * op.m * op.shared
    read_back = (tiles.outputs.sum() - written) / 2
    given_off = tiles.inputs.sum() + tiles.weights.sum() + read_back
    fills = sum(counts.actions.get(f"{side}_buffer.fill", 0) for side in ("activation", "weight"))
    # the top gives whole bursts, here of a byte, a launch; fills are rounded to bytes once an op
    slack = (2 + 3 * len(tiles.starts) * max(op.m * op.shared, op.k, op.n)) * op.repeat
    assert abs(fills - given_off * found.movement.copies) <= slack
    assert counts.dram_bytes == int(tiles.bytes.sum()) * found.movement.copies


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_bandwidth_without_end_leaves_no_stall(name: str, objective: str, data: st.DataObject) -> None:
    arch = load_arch(name).with_(memory__bandwidth="1e9 GB/s", mapping__search=objective)
    op = data.draw(ops(kernel_of(arch)), label="op")
    # the widest bandwidth an arch may state moves these ops in a fraction of a cycle; a stall of any length, however
    # short, is a started cycle
    found = moved(op, arch).movement.ways.at(bytes_per_cycle(arch)).tiles
    assert (found.fill / bytes_per_cycle(arch)).sum() < 1e-3
    assert simulate(op, arch).stall_cycles <= op.repeat


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_buffers_without_end_move_each_operand_once(name: str, objective: str, data: st.DataObject) -> None:
    roomy = {"memory__activation_buffer": "1e18 byte", "memory__weight_buffer": "1e18 byte"}
    arch = load_arch(name).with_(memory__weights="streamed", mapping__search=objective, **roomy)
    op = data.draw(ops(kernel_of(arch)), label="op")
    found = moved(op, arch)
    tiles, once = found.movement.ways.at(bytes_per_cycle(arch)).tiles, traffic(found.op, arch)
    burst = float(arch.memory.burst.value)
    starts = tiles.starts
    inputs = np.ceil(np.add.reduceat(once.activation_bytes, starts) * op.shared / burst) * burst
    outputs = np.ceil(once.output_bytes_per_token * np.diff(np.append(starts, op.m)) * op.shared / burst) * burst
    weights = np.ceil(once.weight_bytes / burst) * burst * len(starts)
    assert tiles.inputs.sum() == inputs.sum()
    assert tiles.outputs.sum() == outputs.sum()
    assert tiles.weights.sum() == weights
