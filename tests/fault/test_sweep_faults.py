"""A sweep on a real dask cluster with TLS: killed workers and a restarted scheduler lose nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import simkit as sk
from simkit.explore.cluster import Cluster
from simkit.explore.grid import Plan, make_plan
from simkit.explore.sweep import Sweep, run_plan

pytest.importorskip("distributed", reason="needs dask.distributed: pip install 'zeroskip[cluster]'")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


class Machines:
    """A scheduler and workers as processes of their own, on loopback."""

    def __init__(self, folder: Path):
        from distributed.security import Security

        made = Security.temporary()
        self.files = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
        for name, text in zip(self.files, (made.tls_ca_file, made.tls_client_cert, made.tls_client_key), strict=True):
            self.files[name].write_text(str(text))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    def cluster(self, return_s: float = 90.0) -> Cluster:
        files = {name: str(path) for name, path in self.files.items()}
        # a loaded machine takes its time to start a scheduler
        return Cluster(self.address, **files, connect_s=90.0, return_s=return_s)

    def _run(self, module: str, *args: str) -> subprocess.Popen[bytes]:
        tls = ["--tls-ca-file", str(self.files["ca"]), "--tls-cert", str(self.files["cert"])]
        command = [sys.executable, "-m", f"distributed.cli.{module}", *args, *tls, "--tls-key", str(self.files["key"])]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*command, "--no-dashboard"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def start_scheduler(self) -> None:
        self.scheduler = self._run(
            "dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--protocol", "tls"
        )

    def start_worker(self) -> None:
        self.workers.append(self._run("dask_worker", self.address, "--nthreads", "1", "--no-nanny"))

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            if process is not None:
                process.kill()
                process.wait()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def trace_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    import traces

    folder = tmp_path_factory.mktemp("faults")
    rng = np.random.default_rng(3)
    np.savez(folder / "m.npz", **{f"site{i}": rng.random((600, 512)) < 0.2 for i in range(3)})
    traces.import_masks(folder / "m.npz", folder / "t.zarr", n=64)
    return folder / "t.zarr"


@pytest.fixture(scope="module")
def plan(trace_path: Path) -> Plan:
    fields = {"lanes": list(range(1, 41)), "brick": [8, 16, 24, 32]}
    return make_plan([str(trace_path)], [("cnvlutin", {})], tables=["default_45nm"], fields=fields)


class Running:
    """A sweep in a thread, with faults put in from outside."""

    def __init__(self, plan: Plan, folder: Path, cluster: Cluster):
        self.seen: list[str] = []
        self.done: Sweep | None = None
        self.error: BaseException | None = None
        self._args = plan, folder, cluster
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def _go(self) -> None:
        plan, folder, cluster = self._args
        try:
            self.done = run_plan(plan, folder, scheduler=cluster, on_event=self._note)
        except BaseException as error:
            self.error = error

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "point":
            self.seen.append(event["run"])
            # a batch is a second of work on a large trace; this one is small, and the faults need time to strike
            time.sleep(0.02)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < until, "the sweep does not get on"
            assert self._thread.is_alive(), self.error
            time.sleep(0.05)

    def join(self) -> Sweep:
        self._thread.join(timeout=180)
        if self.error is not None:
            raise self.error
        assert self.done is not None
        return self.done


def check_whole(done: Sweep, plan: Plan, tmp_path: Path) -> None:
    """Every point there, none twice, the same as without a cluster."""
    assert not done.failed
    assert len(done.runs) == len(set(done.runs)) == plan.count() == 160
    assert not list(tmp_path.rglob("*.part"))
    result = done.parts.load(done.runs)
    assert not result.frame.duplicated(["run", "layer", "op", "component", "action"]).any()
    for run in (0, 80, 159):
        point = list(plan.points())[run]
        alone = sk.replay(plan.traces[0], plan.arch(point))
        rows = result.frame[result.frame["run"] == done.runs[run]].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone.frame, check_dtype=False)


def test_killed_worker_and_restarted_scheduler_lose_nothing(machines: Machines, plan: Plan, tmp_path: Path) -> None:
    machines.start_scheduler()
    machines.start_worker()
    machines.start_worker()
    folder = tmp_path / "parts"
    running = Running(plan, folder, machines.cluster())

    running.wait_for(lambda: len(running.seen) >= 5)
    machines.workers[0].kill()
    after_kill = len(running.seen)
    running.wait_for(lambda: len(running.seen) >= after_kill + 10)

    assert machines.scheduler is not None
    machines.scheduler.kill()
    machines.scheduler.wait()
    kept = set(folder.glob("*.parquet"))
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    assert kept
    machines.workers[1].kill()
    time.sleep(1)
    machines.start_scheduler()
    machines.start_worker()

    done = running.join()
    check_whole(done, plan, tmp_path)
    answered = set(running.seen[:after_kill])
    for path, stamp in stamps.items():
        meta = sk.load_result(path).meta["runs"]
        if answered & set(meta):
            assert path.stat().st_mtime_ns == stamp, "a finished part was written again"
    again = run_plan(plan, folder, processes=0)
    assert again.computed == 0


def test_scheduler_that_stays_away_is_one_clear_line_and_the_sweep_goes_on(
    machines: Machines, plan: Plan, tmp_path: Path
) -> None:
    machines.start_scheduler()
    machines.start_worker()
    folder = tmp_path / "parts"
    running = Running(plan, folder, machines.cluster(return_s=1.0))
    running.wait_for(lambda: len(running.seen) >= 5)
    machines.stop()
    with pytest.raises(
        sk.errors.UnavailableError, match=r"no scheduler answers at tls://.*points that are done are kept"
    ):
        running.join()
    stored = len(list(folder.glob("*.parquet")))
    assert stored
    done = run_plan(plan, folder, processes=0)
    check_whole(done, plan, tmp_path)
    assert done.computed < plan.count()


def test_client_without_our_certificate_is_turned_away(machines: Machines, plan: Plan, tmp_path: Path) -> None:
    from distributed.security import Security

    machines.start_scheduler()
    stranger = Security.temporary()
    files = {name: tmp_path / f"other-{name}.pem" for name in ("ca", "cert", "key")}
    for path, text in zip(
        files.values(), (stranger.tls_ca_file, stranger.tls_client_cert, stranger.tls_client_key), strict=True
    ):
        path.write_text(str(text))
    cluster = Cluster(machines.address, **{name: str(path) for name, path in files.items()}, connect_s=3.0)
    with pytest.raises(sk.errors.UnavailableError, match="no scheduler answers"):
        run_plan(plan, tmp_path / "parts", scheduler=cluster)
    assert not list((tmp_path / "parts").glob("*.parquet"))


def test_traces_are_not_shipped(plan: Plan, tmp_path: Path) -> None:
    from simkit.explore.worker import job_of

    job = json.dumps(job_of(plan, tmp_path))
    masks = sum(site.mask().words().nbytes for site in plan.traces[0].sites.values())
    assert str(plan.traces[0].path) in job
    assert len(job) < 20_000 < masks
