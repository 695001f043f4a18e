"""TensorDash and EIE on cases small enough to work by hand, with the working."""

from __future__ import annotations

import numpy as np
import pytest

from hwmodels import Op, PackedMask, load_arch, simulate
from hwmodels.kernels.eie import entries_table, token_cycles

# Four lanes that choose one after the other and may look one step ahead, at the lanes beside them.
FOUR_LANES = load_arch("tensordash").with_(
    lanes=4,
    rows=1,
    columns=1,
    tiles=1,
    lookahead=1,
    offsets=[[0, 0], [1, -1], [1, 0], [1, 1]],
    level_stride=3,
)


def packed(*rows: str) -> PackedMask:
    return PackedMask.from_bool(np.array([[c == "1" for c in row.replace(" ", "")] for row in rows]))


@pytest.mark.parametrize(
    ("rows", "steps", "cycles"),
    [
        # lanes 0, 3 have work; lane 1 takes step 1 lane 0, lane 2 takes step 1 lane 1: both steps done at once
        (1, ("1001 1100",), 1),
        # as above, but lane 2 of step 1 is left over, and lane 2 took lane 1 (lower d first)
        (1, ("1001 1110",), 2),
        # a full step leaves nobody idle to look ahead
        (1, ("1111 1000",), 2),
        # lanes 1, 2, 3 reach step 1 lanes 0..2, 1..3, 2..0: lane 1 takes 0, lane 2 takes 1, lane 3 takes 2; 3 is left
        (1, ("1000 1111",), 2),
        # three steps: cycle 1 does step 0 and takes step 1 whole (lane 1 takes 0), cycle 2 does step 2
        (1, ("1001 1000 0110",), 2),
        # an empty row still takes a cycle for each window it crosses: 2 steps a cycle
        (1, ("0000 0000 0000 0000",), 2),
        # alone the first row takes 1 cycle, the second 2; together both wait
        (2, ("1001 1100", "1111 1000"), 2),
    ],
)
def test_tensordash(rows: int, steps: tuple[str, ...], cycles: int) -> None:
    mask = packed(*steps)
    m, k = mask.shape
    counts = simulate(Op("hand", 0, m, k, 1, mask), FOUR_LANES.with_(rows=rows))
    assert counts.cycles == cycles
    assert counts.dense_cycles == k // 4


def test_tensordash_passes_over_the_outputs() -> None:
    # 3 outputs on 1 column and 2 tiles: 2 passes of the 1-cycle schedule
    counts = simulate(Op("hand", 0, 1, 8, 3, packed("1001 1100")), FOUR_LANES.with_(tiles=2))
    assert (counts.cycles, counts.dense_cycles) == (2, 4)


def test_run_lengths_of_four_bits() -> None:
    # One PE. Column 0: ones in rows 0 and 17, 16 zeros between: 15 zeros and a padding zero, so 3 entries.
    # Column 1: a one in row 16 after 16 zeros: padding and the one, 2 entries. Column 2: row 15 only: 1 entry.
    weight = np.zeros((40, 4), dtype=bool)
    weight[[0, 17], 0] = weight[16, 1] = weight[15, 2] = True
    mask = PackedMask.from_bool(weight)
    assert entries_table(mask, pes=1, index_bits=4)[:, 0].tolist() == [3, 2, 1, 0]
    # Two PEs halve every run: row 17 is the ninth of PE 1, row 16 the ninth of PE 0.
    assert entries_table(mask, pes=2, index_bits=4).tolist() == [[1, 1], [1, 0], [0, 1], [0, 0]]


ENTRIES = np.array([[2, 1], [1, 1], [0, 2], [1, 1], [0, 0]], dtype=np.uint16)


def test_eie_waits_for_its_fifo() -> None:
    # Two PEs, ring of 2 (one usable slot), all four activations non-zero, memory rows of two.
    # j   scan  W = max(scan, max P[j-1] + 1)   P = max(W + 1, P[j-1] + max(1, s[j-1]))
    # 0   1     1                               2, 2
    # 1   2     3                               max(4, 2 + 2), max(4, 2 + 1) = 4, 4
    # 2   4     5                               6, 6
    # 3   6     7                               8, max(8, 6 + 2) = 8
    # bias 8    9                               10, 10    end: 10 + 1, drain 6
    words = packed("1111").words
    assert token_cycles(words, 4, ENTRIES, fifo_depth=2, drain=6).tolist() == [17]
    # With room for three, nobody waits for the FIFO: W = 1, 2, 3, 4, 5 and
    # P of PE 0: 2, 4, 5, 6, 7 (+1 = 8); PE 1: 2, 3, 4, 6, 7 (+1 = 8)
    assert token_cycles(words, 4, ENTRIES, fifo_depth=4, drain=6).tolist() == [14]


def test_eie_scans_a_bubble_for_each_row_that_ends_empty() -> None:
    # 1000: column 0 at cycle 1, a bubble at the end of each of the two rows, bias at 4, taken at 5: 5 + 1 + 6
    assert token_cycles(packed("1000").words, 4, ENTRIES, fifo_depth=2, drain=6).tolist() == [12]
    # 0100: column 1 at cycle 1 fills the last slot of row 0, so one bubble: bias at 3, taken at 4
    assert token_cycles(packed("0100").words, 4, ENTRIES, fifo_depth=2, drain=6).tolist() == [11]
    # 0000: two bubbles, bias at 3
    assert token_cycles(packed("0000").words, 4, ENTRIES, fifo_depth=2, drain=6).tolist() == [11]
