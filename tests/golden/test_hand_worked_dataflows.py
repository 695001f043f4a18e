"""The other dataflows on cases small enough to work by hand, with the working."""

from __future__ import annotations

import numpy as np
import pytest

from hwmodels import Op, PackedMask, load_arch, simulate


def packed(*rows: str) -> PackedMask:
    return PackedMask.from_bool(np.array([[c == "1" for c in row.replace(" ", "")] for row in rows]))


def cycles(arch: str, op: Op, **params: object) -> tuple[int, int]:
    counts = simulate(op, load_arch(arch).with_(**params))
    return counts.cycles, counts.dense_cycles


def test_systolic() -> None:
    op = Op("hand", 0, 3, 4, 2)
    # 2 x 2 PEs keep weights: 2 folds of K by 1 of N, each 2 R + C + T - 2 = 4 + 2 + 3 - 2 = 7
    assert cycles("systolic_32x32", op, rows=2, columns=2) == (14, 14)
    # they keep outputs: 2 folds of T by 1 of N, each R + C + K - 2 = 2 + 2 + 4 - 2 = 6
    assert cycles("systolic_32x32_os", op, rows=2, columns=2) == (12, 12)


def test_dadiannao() -> None:
    # 2 tokens, 5 elements in slices of 2 (3), 3 outputs in groups of 2 (2): 2 * 3 * 2
    assert cycles("dadiannao", Op("hand", 0, 2, 5, 3, packed("10000", "00000")), lanes=2, filters=2, tiles=1) == (
        12,
        12,
    )


@pytest.mark.parametrize(("empty", "expected"), [(True, 3), (False, 2)])
def test_cnvlutin(empty: bool, expected: int) -> None:
    # bricks of 2 to lanes 0 1 0 1 hold 2 1 0 1: lane 0 takes 2 and the empty brick, lane 1 takes 1 + 1
    op = Op("hand", 0, 1, 8, 1, packed("11 01 00 10"))
    assert cycles("cnvlutin", op, lanes=2, brick=2, filters=1, tiles=1, empty_brick_cycles=empty) == (expected, 4)


def test_cnvlutin_waits_at_every_dot_product_and_leaves_out_passes() -> None:
    params = {"lanes": 2, "brick": 2, "filters": 1, "tiles": 1, "empty_brick_cycles": False}
    # lane 0 has 2 then 0, lane 1 has 0 then 2: each token takes 2 though every lane works only 2 cycles in all
    rows = packed("11 00", "00 11")
    assert cycles("cnvlutin", Op("hand", 0, 2, 4, 1, rows), **params) == (4, 4)
    # without waiting 4 non-zeros over 2 lanes take 2
    assert cycles("cnvlutin", Op("hand", 0, 2, 4, 1, rows), **params, sync="none") == (2, 4)
    # 2 outputs are 2 passes; the first token needs both, the second only one
    needed = packed("11", "01")
    assert cycles("cnvlutin", Op("hand", 0, 2, 4, 2, rows, output=needed), **params) == (2 * 2 + 2, 8)


def test_eyeriss() -> None:
    # channels have 2, 1, 0 activations and 1, 3, 2 weights: 2 * 1 + 1 * 3 + 0 * 2
    op = Op("hand", 0, 2, 3, 3, packed("110", "100"), packed("110", "011", "011"))
    assert cycles("eyeriss_v2_pe", op) == (5, 18)
    # two weights a cycle: 2 * 1 + 1 * 2
    assert cycles("eyeriss_v2_pe", op, macs=2) == (4, 12)


FILTERS = packed("1111", "1000", "0111", "0001")


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        # matches with 1110 are 3 1 2 0; two CUs: max(3, 1) + max(2, 0)
        ("sparten_unbalanced", 5),
        # by density A C B D; A with D, C with B: max(3 + 0, 2 + 1)
        ("sparten_gb_s", 3),
        # one chunk: the same pairs
        ("sparten", 3),
    ],
)
def test_sparten(arch: str, expected: int) -> None:
    op = Op("hand", 0, 1, 4, 4, packed("1110"), FILTERS)
    assert cycles(arch, op, clusters=1, units=2) == (expected, 8)


def test_sparten_pairs_anew_in_every_chunk() -> None:
    # non-zeros of filters A B C D in two chunks of 64: (3, 1) (0, 3) (0, 2) (1, 0); the token has the first chunk only
    chunks = {0: ("111", "1"), 1: ("", "111"), 2: ("", "11"), 3: ("1", "")}
    weight = packed(*("".join(part.ljust(64, "0") for part in parts) for parts in chunks.values()))
    op = Op("hand", 0, 1, 128, 4, packed("1" * 64 + "0" * 64), weight)
    # whole filters: A (4) with D (1), B (3) with C (2): max(3 + 1, 0 + 0)
    assert cycles("sparten_gb_s", op, clusters=1, units=2, chunk=64)[0] == 4
    # first chunk: A (3) with C (0), D (1) with B (0): max(3, 1)
    assert cycles("sparten", op, clusters=1, units=2, chunk=64)[0] == 3


def test_sparten_clusters_take_turns() -> None:
    # tokens with 3, 1, 2 non-zeros to clusters 0 1 0: max(3 + 2, 1)
    rows = packed("1110", "0100", "1010")
    assert cycles("sparten_one_sided", Op("hand", 0, 3, 4, 1, rows), clusters=2, units=1) == (5, 8)
    # launched one by one they queue up: 3 + 1 + 2
    assert cycles("sparten_one_sided", Op("hand", 0, 3, 4, 1, rows, batch=1), clusters=2, units=1) == (6, 12)


def test_dstc() -> None:
    # k = 0 has 3 activations and 2 weights: ceil(3/2) ceil(2/2) = 2 steps; k = 1 has 1 and 3: 1 * 2 = 2
    op = Op("hand", 0, 4, 2, 4, packed("11", "10", "10", "00"), packed("11", "11", "01", "00"))
    assert cycles("dstc", op, tile=4, step_m=2, step_n=2, units=1) == (4, 8)
    assert cycles("dstc", op, tile=4, step_m=2, step_n=2, units=3) == (2, 3)


SCNN = {"pes": 2, "inputs": 2, "weights": 2, "banks": 4, "outputs": 2}


def test_scnn_banks() -> None:
    # PE 0 holds tokens 0 and 2: products (0, n) and (2, n) both fall into banks n and 4 + n mod 4 = n: 2 cycles.
    # PE 1 holds token 1 of its own three: 1 cycle. Dense, PE 0 takes tokens 0, 1 together (1) and token 2 (1)
    op = Op("hand", 0, 6, 1, 2, packed("1", "0", "1", "0", "1", "0"), packed("1", "1"))
    assert cycles("scnn", op, **SCNN) == (2, 2)


def test_scnn_waits_at_every_channel() -> None:
    # channel 0 keeps PE 0 busy, channel 1 PE 1: 1 + 1 cycles though each PE works 1 cycle
    op = Op("hand", 0, 2, 2, 2, packed("10", "01"), packed("11", "11"))
    assert cycles("scnn", op, **SCNN) == (2, 2)
    # three weights of a group of two and one more group: ceil(2/2) + ceil(1/2) rounds a channel
    op = Op("hand", 0, 2, 1, 3, packed("1", "1"), packed("1", "1", "1"))
    assert cycles("scnn", op, **SCNN) == (2, 2)


@pytest.mark.parametrize(("filters", "expected"), [(("1010 1100", "0000 0011"), 4), (("1110 0000", "0000 0011"), 8)])
def test_two_four(filters: tuple[str, str], expected: int) -> None:
    # tiles of 2 x 2 x 4 at 4 multiply-adds take 4 cycles; K = 8 is two of them, or one when two of four are zero
    op = Op("hand", 0, 2, 8, 2, None, packed(*filters))
    assert cycles("nvidia_2_4", op, cores=1, macs=4, tile_m=2, tile_n=2, tile_k=4) == (expected, 8)


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ("1000 0100", 2),  # one of two in a block, one of two blocks: 8 / 4
        ("1010 0100", 4),  # one of two in a block, but both blocks: 8 / 2
        ("1110 0100", 8),  # two in a block: dense
    ],
)
def test_highlight(filter_: str, expected: int) -> None:
    op = Op("hand", 0, 1, 8, 1, None, packed(filter_))
    assert cycles("highlight", op, outputs=1, g0=1, h0=2, g1=1, h1=2) == (expected, 8)


def test_sponge() -> None:
    # 3 weights, 2 inputs, 2 outputs of 4 byte; share 3/4 * 2/2 of 4 multiplications
    counts = simulate(Op("hand", 0, 1, 2, 2, packed("11"), packed("11", "10")), load_arch("sponge"))
    assert counts.dram_bytes == 4 * (3 + 2 + 2)
    assert counts.actions == {"dram.transfer": 28, "multiplier.compute": 3}
    assert counts.cycles == 0
