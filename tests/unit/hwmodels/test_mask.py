"""Packed masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwmodels import InputError, Mask, OnesMask, PackedMask
from hwmodels.counting.groups import group_starts, grouped_blocks
from hwmodels.counting.nonzeros import (
    column_counts,
    column_rounds,
    in_column_order,
    needed_macs,
    round_masks,
    row_counts,
    weighted_row_counts,
)
from hwmodels.counting.output_tiles import grouped_tiles, needed_tiles
from hwmodels.mask import load
from hwmodels.op import Op

ANY_TIME = settings(max_examples=40, deadline=None)  # the first call compiles
BOOLS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 140)))


@ANY_TIME
@given(dense=BOOLS)
def test_pack_and_unpack(dense: np.ndarray) -> None:
    mask = PackedMask.from_bool(dense)
    assert mask.shape == dense.shape
    assert (mask.to_bool() == dense).all()
    assert mask.popcount() == dense.sum()
    assert mask.density == pytest.approx(dense.mean())
    # element k is bit k % 64 of word k // 64
    row, k = dense.shape[0] - 1, dense.shape[1] - 1
    assert bool(int(mask.words[row, k // 64]) >> (k % 64) & 1) == dense[row, k]


@ANY_TIME
@given(dense=BOOLS, rows=st.integers(1, 5))
def test_blocks_cover_the_mask(dense: np.ndarray, rows: int) -> None:
    mask = PackedMask.from_bool(dense)
    blocks = list(mask.blocks(rows))
    assert all(len(block) == rows for block in blocks[:-1])
    assert (np.concatenate(blocks) == mask.words).all()


def test_ones_take_no_memory() -> None:
    ones = OnesMask(5, 70)
    assert isinstance(ones, Mask)
    assert ones.popcount() == 350
    assert load(ones).to_bool().all()
    assert [len(block) for block in ones.blocks(2)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("words", "k", "says"),
    [
        (np.zeros((2, 1), np.int64), 60, "uint64"),
        (np.zeros((2, 2), np.uint64), 60, r"expected uint64\[rows, 1\] for K = 60; pack with"),
        (np.full((2, 1), 2**63, np.uint64), 60, "bits set past K = 60; clear them"),
    ],
)
def test_bad_words(words: np.ndarray, k: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        PackedMask(words, k)


@ANY_TIME
@given(dense=BOOLS, data=st.data())
def test_counts(dense: np.ndarray, data: st.DataObject) -> None:
    mask = PackedMask.from_bool(dense)
    m, k = dense.shape
    weights = data.draw(hnp.arrays(np.int64, k, elements=st.integers(0, 1000)))
    assert (row_counts(mask) == dense.sum(1)).all()
    assert (column_counts(mask) == dense.sum(0)).all()
    assert (weighted_row_counts(mask, weights) == (dense * weights).sum(1)).all()
    step, group = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 7))
    starts = np.append(np.arange(0, m, group), m)
    rounds = in_column_order(column_rounds(mask.words, starts, step).astype(np.int64))[:, :k]
    expected = -(-np.add.reduceat(dense.astype(int), starts[:-1], axis=0) // step)
    masks = round_masks(mask.words, starts, step)
    unpacked = PackedMask(masks.reshape(-1, masks.shape[2]), k).to_bool().reshape(*masks.shape[:2], k)
    assert (unpacked.sum(axis=1) == expected).all()
    assert (rounds == expected).all()


def test_column_counts_of_many_rows() -> None:
    # byte counters are emptied before they overflow
    assert (column_counts(PackedMask.ones(1000, 70)) == 1000).all()


def test_needed_macs() -> None:
    rng = np.random.default_rng(3)
    x, w, o = rng.random((5, 90)) < 0.4, rng.random((7, 90)) < 0.5, rng.random((5, 7)) < 0.5
    pairs = needed_macs(PackedMask.from_bool(x), PackedMask.from_bool(w), PackedMask.from_bool(o))
    assert pairs == ((x.astype(int) @ w.T) * o).sum()


@ANY_TIME
@given(m=st.integers(1, 30), batch=st.integers(0, 9), rows=st.integers(1, 7))
def test_groups_never_cross_a_launch(m: int, batch: int, rows: int) -> None:
    op = Op("x", 0, m, 8, 1, batch=batch)
    starts = group_starts(op, rows)
    assert starts[0] == 0
    assert starts[-1] == m
    sizes = np.diff(starts)
    assert sizes.min() >= 1
    assert sizes.max() <= rows
    launch = min(batch or m, m)
    assert (starts[:-1] // launch == (starts[1:] - 1) // launch).all()
    mask = PackedMask.bernoulli(m, 8, 0.5, m)
    pieces = list(grouped_blocks(mask, starts))
    assert (np.concatenate([words for words, _ in pieces]) == mask.words).all()
    assert sum(len(local) - 1 for _, local in pieces) == len(starts) - 1


@ANY_TIME
@given(dense=hnp.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(60, 140))), width=st.integers(1, 90))
def test_needed_tiles(dense: np.ndarray, width: int) -> None:
    m, n = dense.shape
    op = Op("x", 0, m, 8, n, output=PackedMask.from_bool(dense))
    firsts = range(0, n, width)
    expected = np.array([[row[first : first + width].any() for first in firsts] for row in dense])
    sizes = np.array([min(width, n - first) for first in firsts])
    tiles, outputs = needed_tiles(op, width)
    assert (tiles == expected.sum(axis=1)).all()
    assert (outputs == (expected * sizes).sum(axis=1)).all()
    starts = group_starts(op, 3)
    grouped = grouped_tiles(op.output, starts, width)
    assert (grouped == np.logical_or.reduceat(expected, starts[:-1], axis=0)).all()


def test_tile_that_ends_one_short_of_a_word() -> None:
    # element 63 belongs to the second tile alone
    dense = np.zeros((1, 126), dtype=bool)
    dense[0, 63] = True
    tiles, outputs = needed_tiles(Op("x", 0, 1, 8, 126, output=PackedMask.from_bool(dense)), 63)
    assert (int(tiles[0]), int(outputs[0])) == (1, 63)
