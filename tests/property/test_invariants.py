"""What must hold for every arch there is, found by globbing the archs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_strategies import Streamed, mask, ops

from hwmodels import Arch, Counts, Op, PackedMask, list_archs, load_arch, load_table, simulate
from hwmodels.counting.groups import group_starts
from hwmodels.kernel import Kernel
from hwmodels.mask import load
from hwmodels.registry import kernel_of, params_of

ARCHS = list_archs()
FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


def known(name: str) -> tuple[Arch, Kernel]:
    arch = load_arch(name)
    return arch, kernel_of(arch)


def drawn(data: st.DataObject, kernel: Kernel, **limits: int) -> Op:
    return data.draw(ops(kernel, **limits), label="op")


def ones(op: Op) -> Op:
    """The same op with masks that are there, and all ones."""
    return replace(
        op,
        activation=PackedMask.ones(op.m, op.k),
        weight=PackedMask.ones(op.n, op.k),
        output=PackedMask.ones(op.m, op.n),
    )


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_all_ones_is_dense(name: str, data: st.DataObject) -> None:
    arch, kernel = known(name)
    op = drawn(data, kernel)
    full = simulate(ones(op), arch)
    without = simulate(replace(op.dense(), weight=ones(op).weight if kernel.two_sided else None), arch)
    assert full.cycles == full.dense_cycles
    assert full.stall_cycles <= full.dense_stall_cycles or arch.memory.activation_format != "dense"
    assert without.cycles == without.dense_cycles == full.dense_cycles == simulate(op, arch).dense_cycles
    assert full.effectual_macs == full.macs == op.m * op.k * op.n * op.repeat
    assert without.actions.get("mac.compute") == full.actions.get("mac.compute")


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_effectual_macs(name: str, data: st.DataObject) -> None:
    arch, kernel = known(name)
    op = drawn(data, kernel)
    x = load(op.activation_or_ones()).to_bool()
    # a design does not see the masks that it cannot use
    w = op.weight_or_ones().to_bool() | ("weight" not in kernel.skips)
    needed = np.ones((op.m, op.n)) if op.output is None or "output" not in kernel.skips else load(op.output).to_bool()
    products = (x.astype(np.int64) @ w.T.astype(np.int64)) * needed
    counts = simulate(op, arch)
    assert counts.effectual_macs == products.sum() * op.repeat
    one_sided = simulate(replace(op, weight=ones(op).weight, output=None), arch)
    assert one_sided.effectual_macs == int(x.sum()) * op.n * op.repeat


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_skipping_never_costs_more_than_declared(name: str, data: st.DataObject) -> None:
    arch, kernel = known(name)
    op = drawn(data, kernel)
    counts = simulate(op, arch)
    assert 0 <= counts.cycles <= counts.dense_cycles + kernel.overhead(op, params_of(arch))
    assert min(counts.actions.values(), default=0) >= 0
    assert min(counts.stalls.values(), default=0) >= 0
    if counts.unit_busy is not None:
        assert counts.unit_busy.min() >= 0


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_kernel_equals_its_twin(name: str, data: st.DataObject) -> None:
    arch, kernel = known(name)
    op = drawn(data, kernel, max_n=24)
    params = params_of(arch)
    compute = kernel.count(op, params, arch)
    assert compute.cycles == kernel.twin(op, params, arch)
    if kernel.additive:
        assert compute.row_cycles.sum() * op.repeat == compute.cycles
    assert len(compute.row_cycles) == len(group_starts(op, compute.group_rows)) - 1


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_energy_is_linear_in_counts(name: str, data: st.DataObject) -> None:
    arch, kernel = known(name)
    op = replace(drawn(data, kernel), repeat=1, shared=1)
    once = simulate(op, arch)
    table = load_table("default_45nm")
    if kernel.additive:
        thrice = simulate(replace(op, repeat=3), arch)
        assert thrice.cycles == 3 * once.cycles
        assert {name: 3 * count for name, count in once.actions.items()} == thrice.actions
        assert energy_pj(arch, thrice) == pytest.approx(3 * energy_pj(arch, once), rel=1e-12)
    for action in once.actions:
        price = table.price(arch, action)
        assert 0 <= price.low <= price.pj <= price.high


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data(), shared=st.integers(2, 4))
def test_copies_that_share_an_operand_move_it_once(name: str, data: st.DataObject, shared: int) -> None:
    arch, kernel = known(name)
    op = replace(drawn(data, kernel), repeat=3 * shared, shared=1, activation=None, output=None)
    apart, together = simulate(op, arch), simulate(replace(op, shared=shared), arch)
    assert (together.macs, together.effectual_macs) == (apart.macs, apart.effectual_macs)
    assert together.dram_bytes <= apart.dram_bytes
    assert together.stall_cycles <= apart.stall_cycles
    if kernel.name != "gpu":  # whose cycles hold the memory side
        assert (together.cycles, together.dense_cycles) == (apart.cycles, apart.dense_cycles)
    if op.m * op.k <= 64 and apart.actions.get("weight_buffer.fill"):  # whole in half of any buffer
        launches = op.launches // op.repeat
        assert apart.actions["weight_buffer.fill"] - together.actions["weight_buffer.fill"] == pytest.approx(
            apart.actions["weight_buffer.fill"] * (1 - 1 / shared), abs=op.repeat * launches
        )


def energy_pj(arch: Arch, counts: Counts) -> float:
    table = load_table("default_45nm")
    return sum(count * table.price(arch, action).pj for action, count in counts.actions.items())


@pytest.mark.parametrize("name", [name for name in ARCHS if known(name)[1].additive])
@FEW
@given(data=st.data(), batch=st.integers(1, 5), launches=st.integers(1, 3))
def test_concatenated_launches_add_up(name: str, data: st.DataObject, batch: int, launches: int) -> None:
    arch, kernel = known(name)
    second = replace(drawn(data, kernel), batch=batch)
    rng = np.random.default_rng(launches)
    m = batch * launches
    first = replace(
        second,
        m=m,
        activation=mask(rng, m, second.k),
        output=None if second.output is None else mask(rng, m, second.n),
    )
    both = replace(
        second,
        m=m + second.m,
        activation=stacked(first.activation, second.activation),
        output=None if second.output is None else stacked(first.output, second.output),
    )
    counted = [simulate(op, arch) for op in (first, second, both)]
    assert counted[2].cycles == counted[0].cycles + counted[1].cycles
    assert counted[2].dense_cycles == counted[0].dense_cycles + counted[1].dense_cycles
    assert counted[2].dram_bytes == counted[0].dram_bytes + counted[1].dram_bytes
    for action, count in counted[2].actions.items():
        # buffer fills are rounded to bytes once an op, and so are an estimate's multiplications
        parts = counted[0].actions.get(action, 0) + counted[1].actions.get(action, 0)
        rounded = action.endswith(".fill") or not kernel.has_cycles
        assert abs(count - parts) <= (second.repeat if rounded else 0), action


def stacked(first: PackedMask, second: PackedMask) -> PackedMask:
    return PackedMask(np.concatenate([first.words, second.words]), first.k)


@pytest.mark.parametrize("name", [name for name in ARCHS if known(name)[1].token_order_free])
@FEW
@given(data=st.data())
def test_order_of_tokens_is_free(name: str, data: st.DataObject) -> None:
    arch, kernel = known(name)
    op = replace(drawn(data, kernel), batch=0)
    order = np.random.default_rng(op.m).permutation(op.m)
    shuffled = replace(
        op,
        activation=PackedMask(load(op.activation_or_ones()).words[order], op.k),
        output=None if op.output is None else PackedMask(load(op.output).words[order], op.n),
    )
    before, after = simulate(op, arch), simulate(shuffled, arch)
    assert (after.cycles, after.effectual_macs) == (before.cycles, before.effectual_macs)
    assert after.actions == before.actions


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_blocks_of_rows_change_nothing(name: str, data: st.DataObject) -> None:
    arch, kernel = known(name)
    op = drawn(data, kernel)
    parts = {
        field: Streamed(value)
        for field in ("activation", "output")
        if isinstance(value := getattr(op, field), PackedMask)
    }
    whole, streamed = simulate(op, arch), simulate(replace(op, **parts), arch)
    assert (streamed.cycles, streamed.stall_cycles) == (whole.cycles, whole.stall_cycles)
    assert streamed.actions == whole.actions
    assert streamed.stalls == whole.stalls


@pytest.mark.parametrize("name", [name for name in ARCHS if "sync" in load_arch(name).params])
def test_without_synchronisation_only_density_counts(name: str) -> None:
    arch, kernel = known(name)
    free = arch.with_(sync="none")
    op = Op("iid", 0, 256, 4096, 512, PackedMask.bernoulli(256, 4096, 0.3, 7))
    op = replace(op, weight=PackedMask.ones(op.n, op.k) if kernel.two_sided else None)
    counts, synchronised = simulate(op, free), simulate(op, arch)
    density = op.activation_nonzeros / (op.m * op.k)
    assert counts.cycles / counts.dense_cycles == pytest.approx(density, rel=1e-3)
    assert synchronised.cycles >= counts.cycles


@pytest.mark.parametrize("name", ARCHS)
@FEW
@given(data=st.data())
def test_memory_side_adds_up(name: str, data: st.DataObject) -> None:
    arch, kernel = known(name)
    op = drawn(data, kernel)
    counts = simulate(op, arch)
    faster = simulate(op, arch.with_(memory__bandwidth="1e6 GB/s"))
    assert counts.dram_bytes >= 0
    assert counts.stalls.get("dram", 0) == counts.stall_cycles
    assert faster.stall_cycles <= counts.stall_cycles
    assert faster.dram_bytes == counts.dram_bytes
    if counts.dram_bytes:
        assert "dram.transfer" in arch.actions
