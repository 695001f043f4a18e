"""Estimate of a sweep's duration, from a few points that are replayed."""

from __future__ import annotations

import time
from typing import Any

from ..engine.replay import Rows, add_run
from ..engine.workload import Workload
from .grid import Plan, Point

START_S = 5.0


def estimate(plan: Plan, processes: int) -> dict[str, Any]:
    """Time the first point of every arch on the first trace, and scale by points, distinct counts and tokens.

    Returns
    -------
    dict
        ``points``, ``counts`` (distinct sets of kernel parameters, each of which reads the masks), ``seconds`` on
        `processes` processes of this machine.
    """
    tokens = [trace.n_tokens for trace in plan.traces]
    firsts: dict[int, Point] = {}
    points: dict[tuple[int, int], int] = {}
    distinct: set[tuple[Any, ...]] = set()
    for point in plan.points():
        firsts.setdefault(point.arch, point)
        points[point.arch, point.trace] = points.get((point.arch, point.trace), 0) + 1
        params = plan.variants[point.arch].arch.params
        counted = tuple(pair for pair in point.fields if pair[0] in params)
        distinct.add((point.arch, point.trace, point.weights, counted))
    costs = {arch: _time(plan, point) for arch, point in firsts.items()}
    share = {trace: count / tokens[0] for trace, count in enumerate(tokens)}
    seconds = sum(costs[arch][0] * share[trace] for arch, trace, *_ in distinct)
    seconds += sum(costs[arch][1] * share[trace] * count for (arch, trace), count in points.items())
    start = START_S if processes else 0.0
    total = sum(points.values())
    return {"points": total, "counts": len(distinct), "seconds": start + seconds / max(1, processes)}


def _time(plan: Plan, point: Point) -> tuple[float, float]:
    """Seconds of a point whose masks must be read and counted, and of one that differs in clock or memory alone."""
    arch, table = plan.arch(point), plan.tables[point.table]
    seconds = []
    work = None
    # the first round compiles the kernels, the second reads masks, the third finds its counts known
    for fresh in (True, True, False):
        start = time.perf_counter()
        if fresh or work is None:
            work = Workload(plan.traces[0], plan.ops, point.weights, hold=True)
        add_run(Rows(), work, arch, table, threads=1)
        seconds.append(time.perf_counter() - start)
    return max(0.0, seconds[1] - seconds[2]), seconds[2]
