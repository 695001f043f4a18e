"""Predicted GEMMs a second where no two shapes are alike."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwmodels import load_arch
from hwmodels.gpu import timing
from hwmodels.kernels.gpu import model_of
from hwmodels.registry import params_of

from .conftest import LINES, Line

OPS = 1_000_000


def distinct_shapes() -> NDArray[np.int64]:
    """GEMMs spread evenly over the logarithms of m, n and k."""
    return np.exp(np.random.default_rng(0).uniform(0, np.log(16384), (OPS, 3))).astype(np.int64)


def test_a_million_gemms(benchmark: Any) -> None:
    shapes = distinct_shapes()
    model = model_of(params_of(load_arch("h100_sxm")), 16)
    start = time.perf_counter()
    model.predict(shapes[:10])
    first = time.perf_counter() - start
    benchmark.pedantic(lambda: model.predict(shapes), rounds=5)
    stats = benchmark.stats.stats
    median = statistics.median(stats.data)
    LINES.append(Line("gpu timing", "1e6 GEMMs, all cores", stats.min, median, "one second", 1.0, 1.0, None, first))
    assert stats.min <= 10.0


@pytest.mark.benchmark(timer=time.thread_time)
def test_a_million_gemms_on_one_core(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = distinct_shapes()
    model = model_of(params_of(load_arch("h100_sxm")), 16)
    monkeypatch.setattr(timing, "THREADED_OPS", OPS + 1)  # one thread, whose own clock leaves other processes out
    model.predict(shapes[:10])
    benchmark.pedantic(lambda: model.predict(shapes), rounds=5)
    stats = benchmark.stats.stats
    median = statistics.median(stats.data)
    LINES.append(Line("gpu timing", "1e6 GEMMs, one core", stats.min, median, "1 s", 1.0, 10.0, None, 0.0))
    assert stats.min <= 10.0
