"""Many replays, each kept as soon as it is done, on this machine's processes or a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hwmodels import Arch, EnergyTable
from traces.fetch import cache_folder

from ..engine.inputs import PathLike, as_archs, as_list, as_traces
from ..engine.replay import DEFAULT_TABLE, DELAY_S, Rows
from ..errors import InputError
from ..files import clear_dead, whole
from ..results.columns import derived
from ..results.result import Result
from ..results.runs import Ops, trace_labels
from .grid import Plan, Point, make_plan
from .parts import Parts, write_part
from .pool import DEATHS, Feed, LocalPool
from .worker import Worker, job_of

if TYPE_CHECKING:
    from traces import Trace

    from .cluster import Cluster

log = logging.getLogger(__name__)
Json = dict[str, Any]
Event = Callable[[Json], None]
Batches = Generator[tuple[str, Any], None, None]
# starting processes takes seconds, which fewer points do not repay
IN_PROCESS = 64


def sweep(
    traces: Trace | PathLike | Iterable[Trace | PathLike],
    archs: Arch | PathLike | Iterable[Arch | PathLike],
    *,
    table: str | EnergyTable | Sequence[str | EnergyTable] = DEFAULT_TABLE,
    ops: Ops = None,
    weights: str | Sequence[str] = "recorded",
    fields: Mapping[str, Any] | None = None,
    together: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    constraints: str | Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    processes: int | None = None,
    scheduler: str | Cluster | None = None,
) -> Result:
    """Replay every trace on every variant of every arch; a finished point is never computed again.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        Traces to replay.
    archs : name, path, Arch, or iterable of them
        Archs to vary; a path is a YAML file.
    table : str, EnergyTable or sequence
        Energy table; several are one more axis.
    ops : str or iterable of str, optional
        Only these ops.
    weights : str or sequence of str
        As in `simkit.replay`; several are one more axis.
    fields : mapping of str to a value, a sequence of values or a range, optional
        Values of arch fields, crossed: ``{"lanes": [8, 16], "memory.bandwidth": ["25 GB/s", "100 GB/s"]}``; a list, one
        value, or a range ``{"from": 4, "to": 64, "points": 5, "scale": "log"}``.
    together : mapping or sequence of mappings, optional
        Sets of fields that change at once, crossed with the rest:
        ``[{"lanes": 8, "filters": 8}, {"lanes": 16, "filters": 16}]``.
    constraints : str or sequence of str
        Expressions that a point must fulfil, such as ``"lanes * tiles <= 256"``; see `simkit.explore.expression`.
    out : path, optional
        Folder for the parts, Parquet files named by content key; the user's cache by default.
    progress : bool
        Show a bar on stderr.
    processes : int, optional
        Worker processes; 0 replays in this one, which kernels need that `hwmodels.register` added here. By default
        one for each core, and 0 for fewer than 64 points.
    scheduler : str or Cluster, optional
        Address of a ``dask.distributed`` scheduler to use instead; workers must see the traces and `out`.

    Returns
    -------
    Result
        All points that could be replayed, in the order of the grid; ``meta["failed"]`` tells the others, with reasons.
        Swept fields are columns of `Result.summary`, `Result.ops` and `Result.pivot`: plain numbers in base units.

    Raises
    ------
    InputError
        On unknown names or fields, an empty grid, or a value that does not fit its field.
    UnavailableError
        If the scheduler cannot be reached.

    Examples
    --------
    >>> result = sk.sweep("minilm_relu_small.zarr", "cnvlutin", ops="down", fields={"lanes": [8, 16]}, progress=False)
    >>> result.summary()["lanes"].tolist()
    [8, 16]
    >>> result.pivot("lanes", "trace", "cycles").shape
    (2, 1)
    """
    plan = make_plan(
        as_traces(traces),
        [(one, {}) for one in as_archs(archs)],
        tables=[table] if isinstance(table, (str, EnergyTable)) else list(table),
        ops=ops,
        weights=as_list(weights),
        fields=fields,
        together=[together] if isinstance(together, Mapping) else together,
        constraints=as_list(constraints),
    )
    folder = Path(out) if out is not None else cache_folder() / "runs"
    done = run_plan(plan, folder, progress=progress, processes=processes, scheduler=scheduler)
    result = done.parts.load([run for run in done.runs if run in done.parts.runs])
    if done.failed:
        result.meta["failed"] = done.failed
    return result


@dataclass
class Sweep:
    """What a sweep came to.

    Parameters
    ----------
    parts : Parts
        The folder, read.
    runs : list of str
        Content key of every point, in the order of the plan.
    failed : list of dict
        Points that failed: trace, arch, table, weights, fields, reason.
    computed : int
        Points that were not there before.
    seconds : float
        Wall time.
    """

    parts: Parts
    runs: list[str]
    failed: list[Json] = field(default_factory=list)
    computed: int = 0
    seconds: float = 0.0

    def table(self) -> pd.DataFrame:
        """One row for each point, failed ones with their reason; see `points`."""
        runs = {run: self.parts.runs[run] for run in self.runs if run in self.parts.runs}
        return points({"runs": runs, "failed": self.failed}, order=self.runs)


def run_plan(
    plan: Plan,
    folder: Path,
    *,
    progress: bool = False,
    processes: int | None = None,
    scheduler: str | Cluster | None = None,
    on_event: Event | None = None,
) -> Sweep:
    """Replay what is missing of a plan into a folder of parts; parameters as in `sweep`."""
    from tqdm.auto import tqdm

    start = time.monotonic()
    tell = on_event or (lambda event: None)
    parts = Parts(folder)
    parts.refresh()
    total = plan.count()
    runs: dict[Point, str] = {}
    reasons: dict[str, str] = {}
    tell({"event": "start", "points": total, "stored": len(parts.runs), "folder": str(folder)})
    log.info("sweep of %s points into %s, which holds %s runs", f"{total:,}", folder, f"{len(parts.runs):,}")
    work = _workers(plan, folder, total, processes, scheduler)
    stored: deque[Point] = deque()
    feed = Feed(_missing(plan, parts, runs, stored))

    def tell_stored() -> None:
        while stored:
            point = stored.popleft()
            tell({**_point_event(plan, point, {"run": runs[point], "reason": "", "seconds": 0.0}), "stored": True})

    with (
        tqdm(total=total, desc="sweep", unit="point", disable=not progress, delay=DELAY_S) as bar,
        contextlib.closing(work(feed)) as batches,
    ):
        for kind, content in batches:
            if kind == "lost":
                content = _give_up(plan, folder, content)
            for point, answer in content:
                runs[point] = answer["run"]
                if answer["reason"]:
                    reasons[answer["run"]] = answer["reason"]
                tell(_point_event(plan, point, answer))
            tell_stored()
            bar.update(len(runs) - bar.n)
        tell_stored()
        bar.update(len(runs) - bar.n)
    clear_dead(folder)  # begun by workers that a cluster lost on this machine
    parts.refresh()
    _check_shared(parts, runs.values(), reasons)
    order = [runs[point] for point in plan.points()]
    failed = [{"run": run, **parts.failed[run]} for run in dict.fromkeys(order) if run in parts.failed]
    done = Sweep(parts, order, failed, feed.given, time.monotonic() - start)
    log.info("%s points computed in %.1f s, %d failed", f"{done.computed:,}", done.seconds, len(failed))
    tell({"event": "done", "points": total, "computed": done.computed, "failed": len(failed), "seconds": done.seconds})
    return done


def _missing(plan: Plan, parts: Parts, runs: dict[Point, str], stored: deque[Point]) -> Iterator[Point]:
    """Yield the points that no part has, noting the others and their runs."""
    for point in plan.points():
        if parts.runs:
            run = plan.run(point)
            if run in parts.runs:
                runs[point] = run
                stored.append(point)
                continue
        yield point


def _workers(
    plan: Plan, folder: Path, total: int, processes: int | None, scheduler: str | Cluster | None
) -> Callable[[Feed], Batches]:
    job = job_of(plan, folder)
    if scheduler is not None:
        from .cluster import Cluster

        cluster = Cluster(scheduler) if isinstance(scheduler, str) else scheduler
        cluster.check()
        return lambda feed: cluster.run(job, feed)
    if count := default_processes(total, processes):
        log.info("%d worker processes", count)
        return LocalPool(job, count).run
    return lambda feed: _here(Worker(job, plan, threads=None), feed)


def default_processes(points: int, processes: int | None = None) -> int:
    """Processes for a sweep of so many points: one for each core, none for a few points; or what was said."""
    if processes is None:
        return 0 if points < IN_PROCESS else os.cpu_count() or 1
    if processes < 0:
        raise InputError(f"processes = {processes}, must be 0 (in this process) or more")
    return processes


def _here(worker: Worker, feed: Feed) -> Batches:
    """Replay in this process, one part a point."""
    while points := feed.take():
        for point in points:
            yield "points", [(point, worker.run([point], units=True)[0])]


def _give_up(plan: Plan, folder: Path, lost: Sequence[Point]) -> list[tuple[Point, Json]]:
    """Keep points whose workers died as failed."""
    reason = f"{DEATHS} worker processes died on this point; out of memory? Use fewer processes, or only some ops"
    failed = {
        plan.run(point): {**plan.facts(point), "values": plan.plain_fields(point), "reason": reason} for point in lost
    }
    write_part(folder, Rows(), {}, failed)
    return [(point, {"run": plan.run(point), "reason": reason, "seconds": 0.0}) for point in lost]


def _point_event(plan: Plan, point: Point, answer: Json) -> Json:
    status = {"status": "failed", "reason": answer["reason"]} if answer["reason"] else {"status": "ok"}
    facts = {"run": answer["run"], **plan.facts(point), **status, "seconds": answer["seconds"]}
    return {"event": "point", "stored": False, **facts}


def _check_shared(parts: Parts, runs: Iterable[str], reasons: Mapping[str, str]) -> None:
    for run in runs:
        if run not in parts.runs and run not in reasons and run not in parts.failed:
            raise InputError(
                f"a worker finished run {run}, but {parts.folder} does not have it; give an --out that this machine "
                "and the workers share"
            )


def points(meta: Mapping[str, Any], order: Sequence[str] | None = None) -> pd.DataFrame:
    """Lay the runs of a result out as a table: one row for each, swept fields as columns.

    Parameters
    ----------
    meta : mapping
        ``Result.meta``.
    order : sequence of str, optional
        Runs in the order wanted.

    Returns
    -------
    DataFrame
        run, trace, tuning, arch, variant, table, weights, a column for each swept field (plain numbers: Hz, byte,
        byte/s ...), status, reason, notes (what the design left out), the sums over all ops (cycles, energy_pj ...),
        area_mm2, what was measured of the tuning (accuracy ...), and every column that `simkit.results.columns`
        derives. Traces of one name are told apart as in `Result.labels`.
    """
    runs = meta["runs"]
    traces = {str(facts["trace"]["hash"]): facts["trace"] for facts in runs.values()}
    held = list(traces.values())
    tunings = dict(zip(traces, trace_labels(held), strict=True))
    names = dict(zip(traces, trace_labels(held, [str(trace["name"]) for trace in held]), strict=True))
    rows = {}
    for run, facts in runs.items():
        key = str(facts["trace"]["hash"])
        rows[run] = _ok_row(run, facts, names[key], tunings[key])
    for facts in meta.get("failed", []):
        rows[facts["run"]] = {
            **{name: facts[name] for name in ("run", "trace", "arch", "table", "weights")},
            **facts.get("values", facts["fields"]),
            "status": "failed",
            "reason": facts["reason"],
        }
    listed = [rows[run] for run in dict.fromkeys(order if order is not None else rows) if run in rows]
    table = pd.DataFrame(listed)
    if not any(row["status"] == "ok" for row in listed):
        return table
    # figures of failed points are missing; what was measured of a tuning does not stand in for what was replayed
    return derived(table).drop(columns="tokens")


def _ok_row(run: str, facts: Json, trace: str, tuning: str) -> Json:
    point = facts.get("point", {})
    measured = facts["trace"].get("measurements", {})
    return {
        "run": run,
        "trace": trace,
        "tuning": f"{tuning} (synthetic weights)" if facts["weights"].startswith("random") else tuning,
        "arch": point.get("arch", facts["arch"]["name"]),
        "variant": facts["arch"]["name"],
        "table": facts["table"]["name"],
        "weights": facts["weights"],
        **point.get("values", {}),
        "status": "ok",
        "reason": "",
        "notes": "; ".join(facts.get("notes", [])),
        "tokens": facts["trace"]["tokens"],
        "area_mm2": point.get("area_mm2"),
        **{name: value for name, value in measured.items() if isinstance(value, (int, float))},
        **facts["totals"],
    }


def write_points(table: pd.DataFrame, path: Path) -> Path:
    """Write a table of points as Parquet, whole or not at all; values of several types stand as text."""
    for name in filter(lambda one: pd.api.types.is_object_dtype(table[one]), table.columns):
        given = table[name].dropna()
        if len(set(map(type, given))) > 1:
            table = table.assign(**{name: given.map(str)})
    with whole(path) as partial, partial.open("wb") as file:
        table.to_parquet(file, index=False)
    return path
