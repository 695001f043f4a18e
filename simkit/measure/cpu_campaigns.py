"""Campaigns on this machine's processor."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from ..errors import InputError, UnavailableError
from ..provenance import environment
from .cpu import gather_matmul, measure_cpu, rapl_joules
from .points import CPU_CAMPAIGNS, Campaign, Point, Row

GROUP = 50  # shapes measured side by side in one point
GROUPS = 3
CHECK_TOLERANCE = 1e-4


def cpu_campaign(name: str, budget_s: float) -> Campaign:
    """Points of a campaign on the processor.

    Raises
    ------
    InputError
        If the campaign makes no sense there.
    """
    if name not in CPU_CAMPAIGNS:
        raise InputError(
            f"campaign '{name}' is for GPUs; on the processor 'calibrate' measures dense and sparse together"
        )
    if name == "record":
        from .record_campaign import measure_record, record_points

        return Campaign(record_points(), lambda point: measure_record(point, "cpu"), _facts())
    if name == "smoke":
        return Campaign([{"op": "check", "m": m, "k": 768, "n": 200} for m in (1, 4)], _check, _facts())
    if name == "energy":
        return Campaign([{"op": "rapl", "seconds": 5.0}], _energy, _facts())
    share = budget_s / GROUPS
    points: list[Point] = [{"op": "shapes", "seed": seed} for seed in range(GROUPS)]
    return Campaign(points, lambda point: _shapes(point, share), _facts())


def _facts() -> dict[str, Any]:
    return {"cpu": environment()["cpu"], "load": os.getloadavg()[0]}


def _check(point: Point) -> Row:
    """Compare the gather with fp64, its output poisoned first."""
    rng = np.random.default_rng()
    x = rng.standard_normal((point["m"], point["k"]), dtype=np.float32)
    weight = rng.standard_normal((point["k"], point["n"]), dtype=np.float32)
    index = np.flatnonzero(rng.random(point["k"]) < 0.3)
    out = np.full((point["m"], point["n"]), np.nan, dtype=np.float32)
    gather_matmul(x, index, weight, out)
    begun = time.perf_counter()
    gather_matmul(x, index, weight, out)
    seconds = time.perf_counter() - begun
    wanted = x[:, index].astype(np.float64) @ weight[index].astype(np.float64)
    error = float(np.linalg.norm(out - wanted) / np.linalg.norm(wanted))
    return {
        "seconds": seconds,
        "error": error,
        "flaw": "" if error <= CHECK_TOLERANCE else f"off by {error:.1e} of fp64",
    }


def _shapes(point: Point, budget_s: float) -> Row:
    load = os.getloadavg()[0]
    found = measure_cpu(dense=GROUP, sparse=GROUP, budget_s=budget_s, seed=1000 + 2 * point["seed"])
    frame = found.frame()
    columns = {f"shape_{name}": frame[name].tolist() for name in frame.columns}
    return {
        **columns,
        "load": load,
        "threads": found.threads,
        "joules": found.joules,
        "seconds": float(frame["seconds"].sum()),
    }


def _energy(point: Point) -> Row:
    """Joules of the packages over a few seconds of work; needs a readable counter."""
    before, begun = rapl_joules(), time.perf_counter()
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((64, 1024)), rng.standard_normal((1024, 1024))
    calls = 0
    while time.perf_counter() - begun < point["seconds"]:
        x @ weight
        calls += 1
    seconds, joules = time.perf_counter() - begun, rapl_joules() - before
    if joules <= 0:
        raise UnavailableError("the RAPL counter did not move; energy of the processor is not measured")
    return {"seconds": seconds / calls, "joules": joules / calls}
