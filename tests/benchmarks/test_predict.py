"""Predicted GEMMs a second where no two shapes are alike."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from hwmodels import load_arch
from hwmodels.kernels.gpu import model_of
from hwmodels.registry import params_of

from .conftest import LINES, Line

OPS = 1_000_000


def test_a_million_gemms(benchmark: Any) -> None:
    rng = np.random.default_rng(0)
    shapes = np.exp(rng.uniform(0, np.log(16384), (OPS, 3))).astype(np.int64)
    model = model_of(params_of(load_arch("h100_sxm")), 16)
    start = time.perf_counter()
    model.predict(shapes[:10])
    first = time.perf_counter() - start
    benchmark.pedantic(lambda: model.predict(shapes), rounds=5)
    stats = benchmark.stats.stats
    median = statistics.median(stats.data)
    LINES.append(Line("gpu timing", "1e6 GEMMs, all cores", stats.min, median, "one second", 1.0, 1.0, None, first))
    assert stats.min <= 10.0
