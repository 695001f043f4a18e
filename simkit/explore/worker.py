"""Worker of a sweep: opens traces by path, replays points, writes each batch as one part.

``python -m simkit.explore.worker`` serves one process of the local pool: a JSON object a line comes in on stdin (first
the job, then lists of points), one goes out on stdout. A cluster calls `run_batch` instead.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwmodels import Arch, EnergyTable

from ..engine.inputs import load_trace
from ..engine.keys import kernel_sources
from ..engine.replay import Rows, add_run
from ..engine.workload import Workload
from ..errors import CorruptError, InputError
from ..provenance import key_of
from .grid import Plan, Point, Variants, plain_value
from .parts import write_part

# masks of this many workloads stay in memory
WORKLOADS = 4
Json = dict[str, Any]


def job_of(plan: Plan, folder: Path) -> Json:
    """Describe a plan to workers: traces by path and hash, archs and tables whole."""
    return {
        "traces": [[str(trace.path), trace.hash] for trace in plan.traces],
        "archs": [variants.arch.model_dump(mode="json") for variants in plan.variants],
        "tables": [table.model_dump(mode="json") for table in plan.tables],
        "ops": plan.ops,
        "folder": str(folder.resolve()),
        "sources": sorted({kernel_sources(variants.arch) for variants in plan.variants}),
    }


class Worker:
    """Replays points of one job.

    Parameters
    ----------
    job : dict
        From `job_of`.
    plan : Plan, optional
        The plan itself, where the worker runs in its process.
    threads : int, optional
        Threads for the ops of a point.

    Raises
    ------
    InputError
        If a trace is not the one the sweep began with, or this process has other models.
    """

    def __init__(self, job: Json, plan: Plan | None = None, threads: int | None = 1):
        self.threads = threads
        self.folder = Path(job["folder"])
        self.plan = plan or _load_plan(job)
        self._workloads: OrderedDict[tuple[int, str], Workload] = OrderedDict()

    def run(self, points: Sequence[Point], units: bool = False) -> list[Json]:
        """Replay points, keep them as one part, and say of each what came out."""
        rows = Rows()
        runs: Json = {}
        failed: Json = {}
        answers = []
        for point in points:
            start = time.perf_counter()
            run, reason = self._replay(rows, point, units, runs)
            if reason:
                failed[run] = {**self.plan.facts(point), "values": self.plan.plain_fields(point), "reason": reason}
            answers.append({"run": run, "reason": reason, "seconds": time.perf_counter() - start})
        write_part(self.folder, rows, runs, failed)
        return answers

    def _replay(self, rows: Rows, point: Point, units: bool, runs: Json) -> tuple[str, str]:
        try:
            arch = self.plan.arch(point)
            base = self.plan.variants[point.arch].arch
            found = add_run(rows, self._work(point), arch, self.plan.tables[point.table], self.threads, units, base)
        except MemoryError:
            return self.plan.run(point), "out of memory; use fewer processes, or only some ops"
        except Exception as error:
            text = " ".join(str(error).split())
            expected = getattr(error, "exit_code", None) is not None
            return self.plan.run(point), text if expected else f"{type(error).__name__}: {text}"
        ((run, meta),) = found.items()
        meta["point"] = {
            **self.plan.facts(point),
            "values": {name: plain_value(arch, name) for name, _ in point.fields},
            "area_mm2": meta["area_mm2"],
        }
        runs[run] = meta
        return run, ""

    def _work(self, point: Point) -> Workload:
        key = (point.trace, point.weights)
        if key not in self._workloads:
            while len(self._workloads) >= WORKLOADS:
                self._workloads.popitem(last=False)
            self._workloads[key] = Workload(self.plan.traces[point.trace], self.plan.ops, point.weights, hold=True)
        self._workloads.move_to_end(key)
        return self._workloads[key]


def _load_plan(job: Json) -> Plan:
    archs = [Arch.model_validate(data) for data in job["archs"]]
    if job["sources"] != sorted({kernel_sources(arch) for arch in archs}):
        raise InputError(
            f"{socket.gethostname()} has other models than the sweep; install the same version of zeroskip"
        )
    traces = [load_trace(path) for path, _ in job["traces"]]
    for trace, (path, wanted) in zip(traces, job["traces"], strict=True):
        if trace.hash != wanted:
            raise CorruptError(f"{path} is not the trace that the sweep began with; start it again")
    return Plan(
        traces=traces,
        variants=[Variants(arch) for arch in archs],
        tables=[EnergyTable.model_validate(data) for data in job["tables"]],
        ops=job["ops"],
    )


def to_json(point: Point) -> list[Any]:
    """Point as JSON."""
    return [point.trace, point.arch, [list(pair) for pair in point.fields], point.table, point.weights]


def from_json(data: Sequence[Any]) -> Point:
    """Point from JSON."""
    trace, arch, fields, table, weights = data
    return Point(trace, arch, tuple((name, value) for name, value in fields), table, weights)


_workers: dict[str, Worker] = {}


def run_batch(job: Json, batch: Sequence[Any]) -> list[Json]:
    """Run one batch of points; what was opened and counted for a job is kept for its next batch."""
    key = key_of(job)
    if key not in _workers:
        _workers.clear()
        _workers[key] = Worker(job)
    return _workers[key].run([from_json(data) for data in batch])


def main() -> None:
    """Serve the local pool until stdin ends."""
    # what anything prints goes to stderr: stdout is for answers alone
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if worker is None:
                worker, done = Worker(message), []
            else:
                done = worker.run([from_json(data) for data in message])
            answer: Json = {"done": done}
        except Exception as error:
            answer = {"error": str(error), "exit_code": getattr(error, "exit_code", 1)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
