"""The statistical foil, the array it stands for, and what lies between the two."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import Op, PackedMask, load_arch, simulate
from hwmodels.registry import kernel_of, params_of
from hwmodels.statistical import expected_rounds, statistical_cycles


def exact_density(m: int, k: int, density: float, seed: int) -> PackedMask:
    """Draw a mask with exactly ``floor(density M K)`` non-zeros, as the hypergeometric model has it."""
    flat = np.zeros(m * k, dtype=bool)
    flat[: int(density * m * k)] = True
    return PackedMask.from_bool(np.random.default_rng(seed).permutation(flat).reshape(m, k))


@pytest.mark.parametrize(("density", "statistical", "factor"), [(0.3, 353_895, 495_936 / 353_895), (0.1, None, 1.82)])
def test_the_gap_of_the_example(density: float, statistical: int | None, factor: float) -> None:
    # 512 x 3072 x 768 on 1024 MACs; the non-zeros are rounded down, so the foil may be one cycle lower
    op = Op("down", 0, 512, 3072, 768, exact_density(512, 3072, density, 0))
    foil = simulate(op, load_arch("statistical_32x32")).cycles
    exact = simulate(op, load_arch("tile_barrier_32x32")).cycles
    if statistical is not None:
        assert foil == pytest.approx(statistical, abs=1)
    assert exact / foil == pytest.approx(factor, rel=0.005)
    assert statistical_cycles(op, load_arch("tile_barrier_32x32")) == foil


@pytest.mark.parametrize(("tile", "nonzeros", "step"), [(8, 20, 3), (32, 40, 8), (50, 1, 2), (5, 50, 4), (7, 0, 2)])
def test_expected_rounds_is_the_hypergeometric_mean(tile: int, nonzeros: int, step: int) -> None:
    population = 50
    exact = sum(
        Fraction(ceil(n / step) * comb(tile, n) * comb(population - tile, nonzeros - n), comb(population, nonzeros))
        for n in range(min(tile, nonzeros) + 1)
    )
    assert expected_rounds(population, nonzeros, tile, step) == pytest.approx(float(exact))


def test_a_window_bounds_the_foil() -> None:
    op = Op("x", 0, 64, 960, 256, PackedMask.bernoulli(64, 960, 0.05, 1))
    arch = load_arch("tensordash")
    assert statistical_cycles(op, arch) == simulate(op, arch).dense_cycles / 3


def test_dense_operands_leave_no_gap() -> None:
    op = Op("x", 0, 64, 256, 256, PackedMask.ones(64, 256), PackedMask.ones(256, 256))
    for name in ("tensordash", "tile_barrier_32x32", "statistical_32x32", "eie"):
        counts = simulate(op, load_arch(name))
        assert statistical_cycles(op, load_arch(name)) == counts.dense_cycles == counts.cycles


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 12),
    k=st.integers(1, 140),
    rows=st.integers(1, 6),
    k_tile=st.integers(1, 150),
    batch=st.integers(0, 5),
    density=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_kernels_equal_their_twins(
    m: int, k: int, rows: int, k_tile: int, batch: int, density: float, seed: int
) -> None:
    op = Op("x", 0, m, k, 10, PackedMask.bernoulli(m, k, density, seed), batch=batch, repeat=2)
    for name in ("tile_barrier_32x32", "statistical_32x32"):
        arch = load_arch(name).with_(rows=rows, columns=4, k_tile=k_tile)
        counts = simulate(op, arch)
        assert counts.cycles == kernel_of(arch).twin(op, params_of(arch), arch)
        if name == "tile_barrier_32x32":
            assert counts.cycles * rows * 4 == counts.effectual_macs + counts.stalls["barrier"]
