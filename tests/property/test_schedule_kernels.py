"""TensorDash and EIE kernels against their cycle-by-cycle twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import InputError, OnesMask, Op, PackedMask, load_arch, simulate
from hwmodels.registry import kernel_of, params_of

SLOW = settings(max_examples=35, deadline=None)


@st.composite
def masks(draw: st.DrawFn, rows: st.SearchStrategy[int], columns: st.SearchStrategy[int]) -> PackedMask:
    """Masks of mixed density, with empty and full rows among the others."""
    shape = draw(rows), draw(columns)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    densities = rng.choice([0.0, 0.05, 0.3, 0.7, 1.0], size=(shape[0], 1))
    return PackedMask.from_bool(rng.random(shape) < densities)


@SLOW
@given(
    mask=masks(st.integers(1, 40), st.integers(1, 150)),
    lanes=st.sampled_from([4, 7, 16, 24, 32, 64]),
    rows=st.integers(1, 20),
    lookahead=st.integers(1, 3),
    batch=st.integers(0, 12),
    n=st.integers(1, 40),
)
def test_tensordash_equals_its_twin(
    mask: PackedMask, lanes: int, rows: int, lookahead: int, batch: int, n: int
) -> None:
    offsets = [[0, 0], [1, -1], [1, 0], [1, 1], [2, -1], [2, 0], [2, 1], [3, 0]]
    arch = load_arch("tensordash").with_(
        lanes=lanes, rows=rows, lookahead=lookahead, offsets=offsets, level_stride=3, columns=4, tiles=2
    )
    m, k = mask.shape
    op = Op("x", 0, m, k, n, mask, batch=batch, repeat=2)
    counts = simulate(op, arch)
    assert counts.cycles == kernel_of(arch).twin(op, params_of(arch), arch)
    assert counts.unit_busy is not None
    passes = -(-n // 8)
    assert counts.unit_busy.sum() == mask.popcount() * passes * 2
    lost = sum(count for name, count in counts.stalls.items() if name != "dram")
    assert counts.cycles * lanes * rows == counts.unit_busy.sum() + lost


@SLOW
@given(
    activation=masks(st.integers(1, 4), st.integers(1, 60)),
    n=st.integers(1, 90),
    pes=st.integers(1, 9),
    fifo_depth=st.integers(2, 9),
    index_bits=st.integers(1, 4),
    bias=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_eie_equals_its_twin(
    activation: PackedMask, n: int, pes: int, fifo_depth: int, index_bits: int, bias: bool, seed: int
) -> None:
    m, k = activation.shape
    density = np.random.default_rng(seed).choice([0.02, 0.2, 0.9])
    weight = PackedMask.bernoulli(n, k, float(density), seed)
    op = Op("x", 0, m, k, n, activation, weight)
    arch = load_arch("eie").with_(pes=pes, fifo_depth=fifo_depth, index_bits=index_bits, bias=bias)
    counts = simulate(op, arch)
    assert counts.cycles == kernel_of(arch).twin(op, params_of(arch), arch)
    busy = counts.actions.get("mac.compute", 0) + counts.actions.get("mac.padding", 0)
    assert counts.unit_busy is not None
    # with a bias, its entries are among the padding: they are work, but no MAC of the product
    assert counts.unit_busy.sum() == busy
    assert counts.effectual_macs == counts.actions.get("mac.compute", 0)
    assert counts.cycles * pes == busy + sum(n for name, n in counts.stalls.items() if name != "dram")

    balanced = load_arch("eie_balanced").with_(pes=pes, index_bits=index_bits)
    ideal = simulate(op, balanced)
    assert ideal.cycles == kernel_of(balanced).twin(op, params_of(balanced), balanced)
    assert ideal.cycles <= counts.cycles
    lost = sum(n for name, n in ideal.stalls.items() if name != "dram")
    assert ideal.cycles * pes == ideal.effectual_macs + lost


@SLOW
@given(mask=masks(st.integers(1, 24), st.integers(1, 200)), rows=st.sampled_from([1, 4, 16]))
def test_tensordash_stays_between_its_bounds(mask: PackedMask, rows: int) -> None:
    """A lane takes one element a cycle and the window moves three steps at most.

    That rows in lock-step never finish before the slowest of them alone is *not* a bound: a greedy claim that comes
    later can be the better one.
    """
    m, k = mask.shape
    together = simulate(Op("x", 0, m, k, 1, mask), load_arch("tensordash").with_(rows=rows))
    assert together.cycles <= together.dense_cycles
    assert 3 * together.cycles >= together.dense_cycles
    ones = np.bitwise_count(mask.words).sum(axis=1, dtype=np.int64)
    fullest = [int(ones[first : first + rows].max()) for first in range(0, m, rows)]
    assert together.cycles >= sum(-(-count // 16) for count in fullest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lanes": 65}, "at most 64 lanes"),
        ({"lanes": 0}, "'lanes' = 0"),
        ({"level_stride": 2}, "make it at least 5"),
        ({"offsets": [[1, 0]]}, "must begin with"),
    ],
)
def test_tensordash_names_the_wrong_field(change: dict[str, object], message: str) -> None:
    op = Op("x", 0, 4, 64, 8, PackedMask.bernoulli(4, 64, 0.5, 0))
    with pytest.raises(InputError, match=message):
        simulate(op, load_arch("tensordash").with_(**change))


@pytest.mark.parametrize("name", ["eie", "eie_balanced"])
def test_dense_weights_may_be_said_in_three_ways(name: str) -> None:
    activation = PackedMask.bernoulli(5, 130, 0.4, 3)
    arch = load_arch(name).with_(pes=6)
    kernel, params = kernel_of(arch), params_of(arch)
    counted = [
        kernel.count(Op("x", 0, 5, 130, 47, activation, weight), params, arch)
        for weight in (None, OnesMask(47, 130), PackedMask.ones(47, 130))
    ]
    assert len({(one.cycles, one.dense_cycles, str(one.actions), str(one.stalls)) for one in counted}) == 1


def test_eie_needs_weights_and_a_fifo() -> None:
    mask = PackedMask.bernoulli(4, 64, 0.5, 0)
    op = Op("x", 0, 4, 64, 8, mask, PackedMask.ones(8, 64))
    with pytest.raises(InputError, match="fifo_depth"):
        simulate(op, load_arch("eie").with_(fifo_depth=1))
    with pytest.raises(InputError, match="no weight"):
        simulate(replace(op, weight=None), load_arch("eie"))
