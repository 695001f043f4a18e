"""The search for a mapping: every shipped design, and the shapes of small models."""

from __future__ import annotations

from itertools import product
from time import process_time
from typing import Any

import numpy as np

from hwmodels import Compute, Op, list_archs, load_arch
from hwmodels.mapping import search
from hwmodels.memory import movement
from hwmodels.registry import kernel_of

SHAPES = [(289, 384, 384), (289, 384, 1536), (289, 1536, 384), (34, 32, 34), (1, 576, 1536), (512, 3072, 768)]
LIMIT_S, TRIES = 0.010, 5


def test_a_new_shape_is_mapped_in_ten_milliseconds(benchmark: Any) -> None:
    archs = [load_arch(name) for name in list_archs()]
    archs = [arch for arch in archs if kernel_of(arch).name not in ("gpu", "sponge")]

    def searches(arch: Any, op: Op) -> float:
        """Least processor time of a search, of several."""
        compute = Compute(op.m, op.m, 1, np.ones(op.m, dtype=np.int64), {})
        found = []
        for _ in range(TRIES):
            search._front_of.cache_clear()
            start = process_time()
            movement(op, arch, compute)
            found.append((process_time() - start) / search._front_of.cache_info().misses)
        return min(found)

    def all_pairs() -> dict[str, float]:
        return {
            f"{arch.name} {m},{k},{n}": searches(arch, Op("x", 0, m, k, n))
            for arch, (m, k, n) in product(archs, SHAPES)
        }

    took = benchmark.pedantic(all_pairs, rounds=1, warmup_rounds=1)
    benchmark.extra_info["slowest_s"] = max(took.values())
    assert {name: round(1e3 * seconds, 1) for name, seconds in took.items() if seconds > LIMIT_S} == {}
