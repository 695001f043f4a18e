"""The memory side, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import Arch, InputError, OnesMask, Op, PackedMask, load_arch, simulate
from hwmodels.counting.run_lengths import run_entries
from hwmodels.memory import bytes_per_cycle, group_order, movement, stored_bits, traffic
from hwmodels.reference.eie import encoded_length
from hwmodels.registry import kernel_of, params_of


def slow(**changes: object) -> Arch:
    """Systolic array at 1 byte a cycle, with bursts of 1 byte unless changed."""
    fields = {"clock": "1 GHz", "memory__bandwidth": "1 GB/s", "memory__burst": "1 byte", **changes}
    return load_arch("systolic_32x32").with_(**fields)


@pytest.mark.parametrize(
    ("form", "bits"),
    [("dense", 100 * 8), ("bitmap", 30 * 8 + 100), ("offset", 30 * 12), ("csc", 30 * 12), ("two_four", 50 * 10)],
)
def test_stored_bits(form: str, bits: float) -> None:
    assert float(stored_bits(30, 100, form, 8, 4)) == bits


def test_traffic_follows_the_masks() -> None:
    op = Op("x", 0, 2, 16, 3, PackedMask.bernoulli(2, 16, 0.5, 1), PackedMask.bernoulli(3, 16, 0.5, 2))
    moved = traffic(op, load_arch("sparten"))
    nonzeros = op.activation.to_bool().sum(axis=1)
    assert list(moved.activation_bytes) == [n + 2 for n in nonzeros]
    assert moved.weight_bytes == op.weight.popcount() + 3 * 16 / 8
    assert moved.output_bytes_per_token == 3


def test_one_launch_by_hand() -> None:
    # 4 tokens of 8 byte in, 16 weights, 2 byte out a token. The array takes the weights at once and 8 byte of a token
    # after another: these 24 are waited for; 24 more come in and 8 go out beside 98 cycles of computing
    counts = simulate(Op("x", 0, 4, 8, 2), slow())
    assert counts.cycles == 2 * 32 + 32 + 4 - 2
    assert counts.dram_bytes == 32 + 16 + 8
    assert counts.stall_cycles == 24
    assert counts.actions["dram.transfer"] == 56
    assert counts.actions["weight_buffer.fill"] == 16
    assert counts.actions["activation_buffer.fill"] == 32


def test_bursts_are_moved_whole() -> None:
    counts = simulate(Op("x", 0, 4, 8, 2), slow(memory__burst="64 byte"))
    assert counts.dram_bytes == 3 * 64


def test_a_weight_stationary_array_streams_its_activations_again() -> None:
    op = Op("x", 0, 8, 64, 64)
    small = slow(memory__activation_buffer="256 byte", memory__weight_buffer="1 KiB", mapping__search="energy")
    # every token passes a weight before the next comes, so weights are fetched once. 1 KiB holds K x 16 of them: four
    # columns of outputs, each of which loads the 512 byte of inputs, too many for 256 byte. Half of K x 32 outputs
    # would load them twice, and write 512 unfinished sums of 4 byte and read them again
    counts = simulate(op, small)
    assert counts.actions["weight_buffer.fill"] == 4096
    assert counts.actions["activation_buffer.fill"] == 4 * 512
    roomy = slow(memory__activation_buffer="2 KiB", memory__weight_buffer="1 KiB", mapping__search="energy")
    assert simulate(op, roomy).actions["activation_buffer.fill"] == 512
    assert "weight_buffer.fill" not in simulate(op, slow(memory__weights="resident")).actions


def test_resident_weights_that_do_not_fit_are_fetched() -> None:
    op = Op("x", 0, 8, 64, 64, batch=4)
    tight = slow(memory__weights="resident", memory__weight_buffer="4 KiB")
    assert "weight_buffer.fill" not in simulate(op, tight).actions
    short = slow(memory__weights="resident", memory__weight_buffer="4095 byte")
    assert simulate(op, short).actions["weight_buffer.fill"] == 2 * 4096


def test_run_lengths_are_broken_by_padding_zeros() -> None:
    # 2 bits say runs up to 3. Zeros before each one: 0, then 3 (fits), then 4 (a padding), then 9 (two paddings);
    # those after the last one are not stored
    row = [1, 0, 0, 0, 1, 0, 0, 0, 0, 1, *[0] * 9, 1, 0, 0, 0, 0, 0]
    mask = PackedMask.from_bool(np.array([row, [0] * len(row), [1] * len(row)], dtype=bool))
    assert run_entries(mask, 2).tolist() == [4 + 1 + 2, 0, len(row)]
    arch = slow(
        memory__index_bits={"value": 2, "source": "test", "status": "assumed"},
        memory__activation_format="csc",
        memory__weight_format="csc",
    )
    moved = traffic(Op("x", 0, 3, len(row), 3, mask, mask), arch)
    assert list(moved.activation_bytes) == [7 * 10 / 8, 0, len(row) * 10 / 8]
    assert moved.weight_bytes == (7 + len(row)) * 10 / 8


def test_a_run_length_needs_its_width() -> None:
    with pytest.raises(InputError, match="index_bits is missing"):
        slow(memory__activation_format="csc")


@settings(max_examples=50, deadline=None)
@given(density=st.floats(0.01, 1), seed=st.integers(0, 2**32), bits=st.integers(1, 5))
def test_run_lengths_equal_an_encoder(density: float, seed: int, bits: int) -> None:
    mask = PackedMask.bernoulli(3, 150, density, seed)
    expected = [encoded_length(row, bits) for row in mask.to_bool()]
    assert run_entries(mask, bits).tolist() == expected
    assert run_entries(OnesMask(3, 150), bits).tolist() == run_entries(PackedMask.ones(3, 150), bits).tolist()


def test_decode_fetches_weights_for_every_token() -> None:
    together = simulate(Op("x", 0, 4, 64, 64), slow())
    one_by_one = simulate(Op("x", 0, 4, 64, 64, batch=1), slow())
    assert one_by_one.actions["weight_buffer.fill"] == 4 * together.actions["weight_buffer.fill"]
    assert one_by_one.stall_cycles > together.stall_cycles


def test_latency_is_compute_and_stalls() -> None:
    counts = simulate(Op("x", 0, 4, 8, 2), slow())
    assert counts.latency_s(1e9) == pytest.approx((counts.cycles + counts.stall_cycles) * 1e-9)
    assert counts.dense_latency_s(1e9) == pytest.approx((counts.dense_cycles + counts.dense_stall_cycles) * 1e-9)


def test_a_dense_run_stalls_as_its_dense_baseline_at_launches_of_unlike_length() -> None:
    arch = load_arch("systolic_32x32")
    op = Op("down", 0, 289, 1536, 384, activation=PackedMask.bernoulli(289, 1536, 0.2, 1), batch=100)
    counts = simulate(op, arch)
    assert counts.stall_cycles > 0
    assert (counts.cycles, counts.stall_cycles) == (counts.dense_cycles, counts.dense_stall_cycles)


def test_a_group_of_copies_moves_its_shared_operand_once() -> None:
    # 6 copies of 1 token over 8 x 2: each 8 byte in, 16 shared, 2 out. Three to a group are one launch of three tokens:
    # the array takes the 16 at once and the first token's 8; the other 16 come and 6 leave beside computing
    apart = simulate(Op("x", 0, 1, 8, 2, repeat=6, has_weight=False), slow())
    grouped = simulate(Op("x", 0, 1, 8, 2, repeat=6, shared=3, has_weight=False), slow())
    assert apart.dram_bytes == 6 * (8 + 16 + 2)
    assert grouped.dram_bytes == 2 * (3 * 8 + 16 + 3 * 2)
    assert grouped.stall_cycles == grouped.dense_stall_cycles == 2 * 24
    assert grouped.actions["weight_buffer.fill"] == 2 * 16
    assert grouped.actions["activation_buffer.fill"] == apart.actions["activation_buffer.fill"] == 48
    assert (grouped.cycles, grouped.macs) == (apart.cycles, apart.macs)


def test_a_shared_operand_that_does_not_fit_streams_once_for_each_tile_of_the_group() -> None:
    # 2 KiB hold two slices of 64 x 16, not the 4096 byte: each tile of the group's four tokens walks all slices anew
    arch = load_arch("dadiannao").with_(bits__activation=8, bits__weight=8, memory__weight_buffer="2 KiB")
    op = Op("x", 0, 1, 64, 64, repeat=8, shared=4, has_weight=False)
    for tokens, tiles in ((1, 4), (2, 2), (3, 2), (4, 1)):
        cut = arch.with_(mapping__tile={"m": tokens, "n": 16}, mapping__order="mnk")
        assert simulate(op, cut).actions["weight_buffer.fill"] == 2 * tiles * 4096
    # searched, all four tokens pass a slice before the next comes
    assert simulate(op, arch).actions["weight_buffer.fill"] == 2 * 4096


def test_launches_of_a_group_keep_to_their_own_rows() -> None:
    # rows 1, 2 and 3 in launches of two: with two copies the group's rows are 1 2 1 2 3 3
    mask = PackedMask.from_bool(np.arange(8) < np.array([[1], [2], [3]]))
    op = Op("x", 0, 3, 8, 2, mask, batch=2, repeat=2, shared=2, has_weight=False)
    assert list(group_order(op)) == [0, 1, 0, 1, 2, 2]
    arch = load_arch("sparten").with_(memory__burst="1 byte")
    tiles = movement(op, arch, kernel_of(arch).count(op, params_of(arch), arch)).ways.at(bytes_per_cycle(arch)).tiles
    bits = traffic(op, arch).activation_bytes
    assert list(tiles.inputs) == [np.ceil(2 * (bits[0] + bits[1])), np.ceil(2 * bits[2])]


def test_what_shares_an_operand_divides_the_copies() -> None:
    with pytest.raises(InputError, match="op 'x': 4 copies share a second operand, but repeat = 6 is no multiple"):
        Op("x", 0, 1, 8, 2, repeat=6, shared=4)
    with pytest.raises(InputError, match="op 'x': shared = 0, must be at least 1"):
        Op("x", 0, 1, 8, 2, shared=0)


def test_an_estimate_without_time_reads_a_shared_operand_once_too() -> None:
    arch = load_arch("sponge")
    apart = simulate(Op("x", 0, 1, 8, 2, repeat=6, has_weight=False), arch)
    grouped = simulate(Op("x", 0, 1, 8, 2, repeat=6, shared=3, has_weight=False), arch)
    word = apart.dram_bytes // (6 * (8 + 16 + 2))
    assert grouped.dram_bytes == word * (6 * (8 + 2) + 2 * 16)
