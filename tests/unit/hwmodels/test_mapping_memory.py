"""Ops on archs under their mapping, against every mapping walked step by step."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from random import Random
from typing import Any

import numpy as np
import pytest
from brute_mapping import every_mapping
from test_mapping_search import walked_bytes

from hwmodels import Arch, InputError, Op, PackedMask, load_arch, simulate
from hwmodels.explain import explain
from hwmodels.mapping.residency import Residence, residences
from hwmodels.mapping.search import Buffer, Fit
from hwmodels.memory import bytes_per_cycle, model_residences, movement
from hwmodels.registry import kernel_of, params_of


def one_byte(name: str, **changes: Any) -> Arch:
    """An arch with 8-bit words in bursts of 1 byte, 1 byte a cycle, and weights that stream."""
    fields = {
        "clock": "1 GHz",
        "memory__bandwidth": "1 GB/s",
        "memory__burst": "1 byte",
        "memory__weights": "streamed",
        "bits__activation": 8,
        "bits__weight": 8,
        **changes,
    }
    return load_arch(name).with_(**fields)


@pytest.mark.parametrize("objective", ["balanced", "latency", "energy", "edp"])
def test_an_op_moves_what_the_best_of_all_mappings_moves(objective: str) -> None:
    rng = Random(objective)
    small = {"lanes": 1, "filters": 1, "tiles": 2}
    compared = 0
    for _ in range(60):
        m, k, n = rng.randint(1, 5), rng.randint(1, 4), rng.randint(1, 4)
        sizes = rng.choice((4, 8, 12, 24)), rng.choice((2, 4, 6, 16))
        arch = one_byte(
            "dadiannao",
            memory__activation_buffer=f"{sizes[0]} byte",
            memory__weight_buffer=f"{sizes[1]} byte",
            memory__bandwidth=f"{rng.choice((0.5, 1, 4))} GB/s",
            mapping__search=objective,
            **small,
        )
        counts = simulate(Op("x", 0, m, k, n), arch)
        buffers = (Buffer("a", sizes[0], ("activation", "output")), Buffer("w", sizes[1], ("weight",)))
        fit = Fit(1.0, 1.0, 1.0, 4.0)
        rate = bytes_per_cycle(arch)
        found = []
        for chosen in every_mapping((m, k, n), buffers, fit, arch.dataflow):
            moved, exposed = walked_bytes(chosen, fit, (1.0, 1.0, 1.0))
            stall = max(exposed / rate, sum(moved) / rate - counts.cycles)
            found.append((sum(moved), stall, (counts.cycles + stall) * sum(moved)))
        least = [min(one[place] for one in found) for place in range(3)]
        if objective == "energy":
            assert counts.dram_bytes == least[0]
        elif objective == "balanced":
            near = [moved for moved, stall, _ in found if counts.cycles + stall <= 1.01 * (counts.cycles + least[1])]
            assert counts.dram_bytes == min(near)
        elif objective == "latency":
            assert counts.stall_cycles == ceil(least[1] - 1e-9)
        else:
            worth = (counts.cycles + counts.stall_cycles) * counts.dram_bytes
            assert least[2] * (1 - 1e-12) <= worth <= least[2] + counts.dram_bytes
        compared += 1
    assert compared == 60


@pytest.mark.parametrize("search", ["balanced", "latency", "edp"])
def test_a_larger_buffer_is_not_slower(search: str) -> None:
    op = Op("x", 0, 512, 1536, 384, PackedMask.bernoulli(512, 1536, 0.1, 1))
    base = load_arch("dadiannao").with_(mapping__search=search)
    sizes = ("4 byte", "64 byte", "1 KiB", "16 KiB", "64 KiB", "256 KiB", "4 MiB", "1 GiB")
    stalls = [simulate(op, base.with_(memory__activation_buffer=size)).stall_cycles for size in sizes]
    assert stalls == sorted(stalls, reverse=True)
    # weights live on the chip, and a token's first 16 inputs of 16 bit are all that nothing hides
    assert stalls[-1] == 1
    with pytest.raises(InputError, match="of 1 byte cannot hold one word of activation and one of output"):
        simulate(op, base.with_(memory__activation_buffer="1 byte"))


def test_only_needed_weight_rows_are_fetched() -> None:
    mask = np.zeros((4, 10), dtype=bool)
    mask[0, [1, 3]] = mask[1, [3, 4]] = mask[2, 9] = True
    arch = one_byte("systolic_32x32", memory__burst="8 byte", memory__weight_fetch="needed")
    # launches of two tokens: rows 1, 3, 4 are needed, then row 9; a row of 12 weights takes two bursts
    op = Op("x", 0, 4, 10, 12, PackedMask.from_bool(mask), batch=2)
    ways = movement(op, arch, kernel_of(arch).count(op, params_of(arch), arch)).ways.at(1.0)
    assert ways.tiles.weights.tolist() == [3 * 16, 1 * 16]
    assert ways.fetched.tolist() == [3 * 12, 1 * 12]
    # the dense baseline needs all: 120 byte in one piece
    assert simulate(op.dense(), arch).actions["weight_buffer.fill"] == 2 * 120
    full = replace(op, activation=PackedMask.ones(4, 10))
    assert simulate(full, arch).dram_bytes == simulate(op.dense(), arch).dram_bytes


def test_copies_that_share_their_second_operand_fetch_it_once() -> None:
    arch = one_byte("systolic_32x32")
    apart = simulate(Op("scores", 0, 3, 32, 20, repeat=8, has_weight=False), arch)
    together = simulate(Op("scores", 0, 3, 32, 20, repeat=8, shared=4, has_weight=False), arch)
    assert apart.actions["weight_buffer.fill"] == 8 * 32 * 20
    assert together.actions["weight_buffer.fill"] == 2 * 32 * 20
    assert together.actions["activation_buffer.fill"] == apart.actions["activation_buffer.fill"] == 8 * 3 * 32
    assert together.cycles == apart.cycles


def test_weights_of_a_model_stay_as_far_as_they_fit() -> None:
    assert residences([4, 4, 4], 12, 2, False) == [Residence(True, 12)] * 3
    assert [one.on_chip for one in residences([4, 4, 4], 12, 2, True)] == [True, True, False]
    # the second is too large for what the first and the stream leave; the third is not
    assert [one.on_chip for one in residences([4, 8, 4], 11, 2, False)] == [True, False, True]
    arch = one_byte("dadiannao", memory__weights="resident", memory__weight_buffer="10 KiB")
    ops = [Op(f"x{place}", 0, 4, 64, 64) for place in range(4)]
    where = model_residences(ops, arch)
    # two tiles of 16 x 64 weights are kept for streaming: 8 KiB are left for two ops of 4 KiB
    assert [one.on_chip for one in where] == [True, True, False, False]
    assert where[2].taken_bytes == 8192
    moved = [
        movement(op, arch, kernel_of(arch).count(op, params_of(arch), arch), own).ways.at(1.0)
        for op, own in zip(ops, where, strict=True)
    ]
    assert [float(one.fetched.sum()) for one in moved] == [0, 0, 4096, 4096]


def by_hand(**spec: Any) -> Arch:
    data = one_byte("systolic_32x32", memory__activation_buffer="8 KiB", memory__weight_buffer="8 KiB").model_dump()
    return Arch.model_validate({**data, "mapping": spec})


def test_a_mapping_by_hand_is_what_runs() -> None:
    op = Op("x", 0, 16, 128, 64)
    arch = by_hand(tile={"m": 4, "n": 32}, order="nkm")
    counts = simulate(op, arch)
    # two columns of 32 outputs: every input passes twice, weights and outputs once
    assert counts.actions["activation_buffer.fill"] == 2 * 16 * 128
    assert counts.dram_bytes == 2 * 16 * 128 + 128 * 64 + 16 * 64
    shown = explain(op, arch)
    assert shown["search"] == "by hand"
    assert shown["mapping"]["tile"] == {"m": 4, "k": 128, "n": 32}
    assert {row["operand"]: row["bytes"] for row in shown["traffic"]} == {
        "activation": 4096.0,
        "weight": 8192.0,
        "output": 1024.0,
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"tile": {"m": 4}, "order": "mnk"}, "mapping.order 'mnk' is forbidden by the dataflow, which allows knm, nkm"),
        ({"tile": {"n": 48}, "order": "nkm"}, "mapping.tile.n = 48 does not fit the dataflow, which takes 32 at once"),
        ({"tile": {"m": 4}, "order": "nkm", "stays": ["weight"]}, None),
        ({"tile": {"m": 64}, "order": "nkm"}, "does not fit memory level 'activation_buffer': it takes"),
    ],
)
def test_a_mapping_by_hand_is_checked(spec: dict[str, Any], message: str | None) -> None:
    op = Op("x", 0, 64, 128, 64)
    if message is None:
        assert simulate(op, by_hand(**spec)).dram_bytes > 0
        return
    with pytest.raises(InputError, match=message):
        simulate(op, by_hand(**spec))


def test_k_is_not_cut_by_hand_where_a_barrier_would_follow() -> None:
    data = one_byte("cnvlutin").model_dump() | {"mapping": {"tile": {"k": 256}, "order": "kmn"}}
    with pytest.raises(InputError, match=r"mapping.tile.k = 256 cuts K = 512, .* leave k out"):
        simulate(Op("x", 0, 4, 512, 8), Arch.model_validate(data))
