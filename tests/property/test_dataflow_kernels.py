"""Kernels against their cycle-by-cycle twins where lanes, bricks, chunks, tiles and banks are small and odd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_strategies import ops

from hwmodels import Op, PackedMask, load_arch, simulate
from hwmodels.registry import kernel_of, params_of, seen_by

CASES: list[tuple[str, dict[str, Any]]] = [
    ("systolic_32x32", {"rows": 3, "columns": 5}),
    ("systolic_32x32_os", {"rows": 3, "columns": 5}),
    ("dadiannao", {"lanes": 3, "filters": 2, "tiles": 2}),
    ("cnvlutin", {"lanes": 3, "filters": 2, "tiles": 2}),
    ("cnvlutin", {"lanes": 3, "filters": 2, "tiles": 1, "brick": 5}),
    ("cnvlutin", {"lanes": 2, "filters": 1, "tiles": 3, "brick": 100, "empty_brick_cycles": False}),
    ("cnvlutin", {"lanes": 5, "filters": 2, "tiles": 2, "sync": "none"}),
    ("eyeriss_v2_pe", {"macs": 3}),
    ("sparten_unbalanced", {"clusters": 3, "units": 2, "chunk": 64}),
    ("sparten_gb_s", {"clusters": 3, "units": 2, "chunk": 64}),
    ("sparten", {"clusters": 3, "units": 2, "chunk": 64}),
    ("sparten", {"clusters": 2, "units": 5, "chunk": 128}),
    ("sparten", {"clusters": 2, "units": 3, "chunk": 64, "sync": "none"}),
    ("sparten_one_sided", {"clusters": 3, "units": 4}),
    ("sparten_one_sided", {"clusters": 3, "units": 4, "sync": "none"}),
    ("dstc", {"tile": 3, "step_m": 2, "step_n": 3, "units": 2}),
    ("dstc", {"tile": 9, "step_m": 4, "step_n": 1, "units": 5}),
    ("nvidia_2_4", {"cores": 2, "macs": 8, "tile_m": 4, "tile_n": 2, "tile_k": 4}),
    ("highlight", {"outputs": 3, "g0": 1, "h0": 3, "g1": 1, "h1": 2}),
    ("scnn", {"pes": 3, "inputs": 3, "weights": 2, "banks": 4, "accumulators": 8, "outputs": 2}),
    ("scnn", {"pes": 2, "inputs": 2, "weights": 4, "banks": 6, "accumulators": 60, "outputs": 6}),
]


@pytest.mark.parametrize(("name", "changes"), CASES, ids=lambda case: str(case).replace(" ", ""))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_kernel_equals_twin(name: str, changes: dict[str, Any], data: st.DataObject) -> None:
    arch = load_arch(name).with_(**changes)
    kernel, params = kernel_of(arch), params_of(arch)
    op = data.draw(ops(kernel, max_n=20), label="op")
    counts = simulate(op, arch)
    assert counts.cycles == kernel.twin(seen_by(kernel, op, arch), params, arch)
    assert counts.cycles <= counts.dense_cycles + kernel.overhead(op, params)
    assert kernel.twin(op.dense(), params, arch) == counts.dense_cycles
    assert min(counts.stalls.values()) >= 0


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), groups=st.integers(1, 6), blocks=st.integers(1, 5))
def test_conforming_weights_are_found(seed: int, groups: int, blocks: int) -> None:
    """Weights drawn to keep a pattern run at its speed; one weight more in one block, and they do not."""
    rng = np.random.default_rng(seed)
    k = 4 * blocks
    weight = np.zeros((groups, k), dtype=bool)
    for row in range(groups):
        for first in range(0, k, 4):
            weight[row, first + rng.choice(4, size=2, replace=False)] = True
    arch = load_arch("nvidia_2_4").with_(cores=1, macs=1, tile_m=1, tile_n=1, tile_k=1)

    def cycles(mask: np.ndarray) -> int:
        return simulate(Op("x", 0, 1, k, groups, None, PackedMask.from_bool(mask)), arch).cycles

    assert cycles(weight) == groups * k // 2
    row, block = int(rng.integers(groups)), int(rng.integers(blocks)) * 4
    weight[row, block + int(np.flatnonzero(~weight[row, block : block + 4])[0])] = True
    assert cycles(weight) == groups * k
