"""A grid of ten thousand points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simkit.engine.replay import DEFAULT_TABLE
from simkit.explore.grid import make_plan
from simkit.explore.sweep import run_plan

SMALL = Path(__file__).resolve().parents[1] / "data" / "minilm_relu_small.zarr"
# an array that gates its multipliers: all it counts of a mask is the popcount
ARCH = "systolic_32x32"
POINTS, LIMIT_S, PROCESSES = 10_000, 60.0, 2


def test_ten_thousand_points(benchmark: Any, tmp_path: Path) -> None:
    fields = {
        "clock": [f"{500 + step} MHz" for step in range(100)],
        "memory.bandwidth": [f"{20 + step} GB/s" for step in range(POINTS // 100)],
    }
    plan = make_plan([SMALL], [(ARCH, {})], tables=[DEFAULT_TABLE], ops=["down"], fields=fields)
    done = benchmark.pedantic(run_plan, (plan, tmp_path), {"processes": PROCESSES}, rounds=1)
    assert (done.computed, done.failed) == (POINTS, [])
    benchmark.extra_info["points_per_s"] = POINTS / done.seconds
    assert done.seconds <= LIMIT_S


def test_ten_thousand_points_of_buffers_and_bandwidth(benchmark: Any, tmp_path: Path) -> None:
    sizes = [f"{16 << step} KiB" for step in range(5)]
    fields = {
        "memory.activation_buffer": sizes,
        "memory.weight_buffer": sizes,
        "rows": [8, 16, 32, 64],
        "memory.bandwidth": [f"{20 + step} GB/s" for step in range(POINTS // 100)],
    }
    plan = make_plan([SMALL], [(ARCH, {})], tables=[DEFAULT_TABLE], ops=None, fields=fields)
    done = benchmark.pedantic(run_plan, (plan, tmp_path), {"processes": PROCESSES}, rounds=1)
    assert (done.computed, done.failed) == (POINTS, [])
    benchmark.extra_info["points_per_s"] = POINTS / done.seconds
    assert done.seconds <= LIMIT_S
