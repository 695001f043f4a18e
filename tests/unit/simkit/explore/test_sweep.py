"""Sweeps: every point once, kept whole, the same by whichever road."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import simkit as sk
from hwmodels import registry
from simkit import cli
from simkit.errors import StorageError, VersionError
from simkit.explore.cluster import Cluster
from simkit.explore.grid import make_plan
from simkit.explore.parts import Parts
from simkit.explore.pool import DEATHS, Feed, LocalPool
from simkit.explore.sweep import points, run_plan
from simkit.results.result import load_meta, load_result
from traces.files import MACHINE

GRID: dict[str, list[Any]] = {
    "lanes": [8, 16],
    "clock": ["500 MHz", "1 GHz"],
    "memory.bandwidth": ["1 GB/s", "25 GB/s"],
}


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the archs that were replayed in this process."""
    import simkit.explore.worker as worker

    seen: list[str] = []
    real = worker.add_run
    monkeypatch.setattr(
        worker, "add_run", lambda rows, work, arch, *rest: seen.append(arch.name) or real(rows, work, arch, *rest)
    )
    return seen


def test_sweep_equals_replay_of_every_variant(plain_trace_path: Path, tmp_path: Path) -> None:
    trace = sk.load_trace(plain_trace_path)
    result = sk.sweep([trace], ["cnvlutin"], fields=GRID, out=tmp_path, progress=False)
    archs = [
        sk.arch("cnvlutin", **{"lanes": lanes, "clock": clock, "memory.bandwidth": bandwidth})
        for lanes in GRID["lanes"]
        for clock in GRID["clock"]
        for bandwidth in GRID["memory.bandwidth"]
    ]
    wanted = sk.replay(trace, archs)
    pd.testing.assert_frame_equal(result.frame, wanted.frame, check_dtype=False)
    assert list(result.meta["runs"]) == list(wanted.meta["runs"])


def test_a_point_is_computed_once(plain_trace_path: Path, tmp_path: Path, counting: list[str]) -> None:
    first = sk.sweep([plain_trace_path], ["cnvlutin", "dadiannao"], out=tmp_path, progress=False)
    assert len(counting) == 2
    again = sk.sweep([plain_trace_path], ["dadiannao", "cnvlutin", "systolic_32x32"], out=tmp_path, progress=False)
    assert counting[2:] == ["systolic_32x32"]
    assert list(again.frame["arch"].unique()) == ["dadiannao", "cnvlutin", "systolic_32x32"]
    one = again.frame[again.frame["arch"] == "cnvlutin"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, first.frame[first.frame["arch"] == "cnvlutin"].reset_index(drop=True))


@pytest.mark.slow
def test_processes_give_the_same(plain_trace_path: Path, tmp_path: Path) -> None:
    trace = sk.load_trace(plain_trace_path)
    here = sk.sweep([trace], ["cnvlutin"], fields=GRID, out=tmp_path / "here", progress=False, processes=0)
    there = sk.sweep([trace], ["cnvlutin"], fields=GRID, out=tmp_path / "there", progress=False, processes=2)
    pd.testing.assert_frame_equal(here.frame, there.frame)
    assert len(list((tmp_path / "there").glob("*.parquet"))) < len(here.meta["runs"])
    assert not list(tmp_path.rglob("*.part"))


def test_a_failed_point_is_a_row_with_its_reason(plain_trace_path: Path, tmp_path: Path, counting: list[str]) -> None:
    result = sk.sweep([plain_trace_path], ["cnvlutin"], fields={"lanes": [8, 0]}, out=tmp_path, progress=False)
    (failed,) = result.meta["failed"]
    assert failed["fields"] == {"lanes": 0}
    assert "parameter 'lanes' = 0, must be a whole number of at least 1" in failed["reason"]
    table = points(result.meta)
    assert table["status"].tolist() == ["ok", "failed"]
    assert table["lanes"].tolist() == [8, 0]
    # a finished point is not counted again, and one whose value does not fit is never counted
    again = sk.sweep([plain_trace_path], ["cnvlutin"], fields={"lanes": [8, 0]}, out=tmp_path, progress=False)
    assert counting == ["cnvlutin[lanes=8]"]
    assert again.meta["failed"] == [failed]


def test_an_unexpected_error_fails_its_point_alone(
    plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    kernel = registry.kernels()["cnvlutin"]

    def broken(op: Any, params: Any, arch: Any) -> Any:
        if params.lanes == 8:
            raise ZeroDivisionError("in the kernel")
        return kernel.count(op, params, arch)

    monkeypatch.setitem(registry.kernels(), "cnvlutin", replace(kernel, count=broken))
    result = sk.sweep([plain_trace_path], ["cnvlutin"], fields={"lanes": [8, 16]}, out=tmp_path, progress=False)
    assert len(result.meta["runs"]) == 1
    assert result.meta["failed"][0]["reason"] == "ZeroDivisionError: in the kernel"


def test_points_table_has_plain_fields_and_sums(plain_trace_path: Path, tmp_path: Path) -> None:
    result = sk.sweep([plain_trace_path], ["cnvlutin"], fields=GRID, out=tmp_path, progress=False)
    table = points(result.meta).set_index("run")
    assert sorted(table["memory.bandwidth"].unique()) == [1e9, 25e9]
    assert sorted(table["clock"].unique()) == [5e8, 1e9]
    energy = result.frame.groupby("run")["energy_pj"].sum()
    cycles = result.ops.groupby("run")["cycles"].sum()
    assert np.allclose(table["energy_pj"], energy[table.index])
    assert (table["cycles"] == cycles[table.index]).all()
    # the published area is of 16 lanes; other lanes and links change it as their parts do
    area = table.set_index(["lanes", "memory.bandwidth"])["area_mm2"]
    assert (area[8] < area[16]).all()
    assert (area[:, 1e9] < area[:, 25e9]).all()


def test_a_clock_above_the_supply_fails_its_points_and_says_what_would_do(
    plain_trace_path: Path, tmp_path: Path
) -> None:
    fields = {"clock": ["1 GHz", "3 GHz"]}
    result = sk.sweep([plain_trace_path], ["cnvlutin"], fields=fields, out=tmp_path, progress=False)
    (failed,) = result.meta["failed"]
    assert "clock 3 GHz is above the 1.6 GHz that 28 nm reaches" in failed["reason"]
    assert "set clock to 1.6 GHz or less" in failed["reason"]


def test_a_front_of_lanes_has_a_knee(plain_trace_path: Path, tmp_path: Path) -> None:
    """More lanes are faster, larger and, beyond what the work fills, dearer in energy."""
    fields = {"lanes": [2, 4, 8, 16, 32, 64]}
    result = sk.sweep([plain_trace_path], ["cnvlutin"], fields=fields, out=tmp_path, progress=False)
    table = points(result.meta).sort_values("lanes")
    assert (np.diff(table["area_mm2"]) > 0).all()
    assert table["latency_s"].iloc[0] > table["latency_s"].iloc[-1]
    energy = table["energy_pj"].to_numpy()
    assert 0 < energy.argmin() < len(energy) - 1


def test_area_is_kept_where_no_parameter_changes(plain_trace_path: Path, tmp_path: Path) -> None:
    result = sk.sweep([plain_trace_path], ["cnvlutin"], fields={"clock": ["1 GHz"]}, out=tmp_path, progress=False)
    assert points(result.meta)["area_mm2"].tolist() == [sk.arch("cnvlutin").area.value]


# --- parts


def test_damaged_part_is_computed_again(
    plain_trace_path: Path, tmp_path: Path, counting: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    first = sk.sweep([plain_trace_path], ["cnvlutin", "dadiannao"], out=tmp_path, progress=False)
    victim = min(tmp_path.glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-30])
    with caplog.at_level(logging.WARNING):
        again = sk.sweep([plain_trace_path], ["cnvlutin", "dadiannao"], out=tmp_path, progress=False)
    assert len(counting) == 3
    assert "damaged" in caplog.text
    pd.testing.assert_frame_equal(again.frame, first.frame)


def test_part_of_another_version_is_refused(plain_trace_path: Path, tmp_path: Path) -> None:
    sk.sweep([plain_trace_path], ["cnvlutin"], out=tmp_path, progress=False)
    (part,) = tmp_path.glob("*.parquet")
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({b"zeroskip": b'{"schema": "zeroskip.result/99", "runs": {}}'}), part)
    with pytest.raises(VersionError, match=r"written by another version \(schema zeroskip.result/99.*write elsewhere"):
        sk.sweep([plain_trace_path], ["cnvlutin"], out=tmp_path, progress=False)


def test_shared_facts_are_stored_once(plain_trace_path: Path, tmp_path: Path) -> None:
    result = sk.sweep([plain_trace_path], ["cnvlutin"], fields=GRID, out=tmp_path / "parts", progress=False)
    stored = result.save(tmp_path / "all.parquet")
    raw = json.loads(pq.read_metadata(stored).metadata[b"zeroskip"])
    assert len(raw["shared"]) == 3  # trace, arch, environment
    assert all(set(run["shared"]) == {"trace", "environment"} for run in raw["runs"].values())
    assert load_result(stored).meta == load_meta(stored) == json.loads(json.dumps(result.meta))


def test_full_disk_is_one_clear_line(plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StorageError, match=r"No space left on device; free some space and run the same command"):
        sk.sweep([plain_trace_path], ["cnvlutin"], out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


# --- the feed and the pool


def test_feed_gives_up_a_point_after_three_deaths() -> None:
    feed = Feed(iter(["a", "b"]))
    batch = feed.take()
    assert batch == ["a", "b"]
    lost: list[str] = []
    taken = []
    lost += feed.died(batch)
    while batch := feed.take():
        taken.append(batch)
        if batch == ["a"]:
            lost += feed.died(batch)
    assert lost == ["a"]
    assert taken.count(["a"]) == DEATHS - 1
    assert taken.count(["b"]) == 1


def test_feed_grows_batches_to_a_second_of_work() -> None:
    feed = Feed(iter(range(10_000)))
    feed.finished([{"seconds": 0.01}] * len(feed.take()))
    assert 80 <= len(feed.take()) <= 120
    feed.finished([{"seconds": 30.0}] * 100)
    assert len(feed.take()) == 1


@pytest.mark.slow
def test_a_point_that_kills_its_worker_is_given_up(
    plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lanes value of a million million, were it let through, asks for more memory than the worker may have."""
    monkeypatch.setattr(registry, "MOST_WHOLE", 10**15)
    (tmp_path / "sitecustomize.py").write_text("from hwmodels import registry\nregistry.MOST_WHOLE = 10**15\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    plan = make_plan(
        [str(plain_trace_path)], [("cnvlutin", {})], tables=["default_45nm"], fields={"lanes": [8, 10**12, 16]}
    )
    done = run_plan(plan, tmp_path / "out", processes=1)
    assert [one["fields"]["lanes"] for one in done.failed] == [10**12]
    assert "memory" in done.failed[0]["reason"]
    assert set(done.table()["status"]) == {"ok", "failed"}
    assert len(done.parts.runs) == 2


def test_what_a_killed_worker_had_begun_to_write_goes_with_it(tmp_path: Path) -> None:
    pool = LocalPool({"folder": str(tmp_path)}, 1)
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    own, other = (tmp_path / f".a.parquet.0.{MACHINE}.{pid}.part" for pid in (process.pid, f"1{process.pid}"))
    for path in (own, other):
        path.write_bytes(b"half")
    pool._end(process)
    assert not own.exists()
    assert other.exists()  # another machine's, or one still at work


@pytest.mark.slow
def test_killed_local_worker_loses_nothing(plain_trace_path: Path, tmp_path: Path) -> None:
    killed = []

    def kill_once(event: dict[str, Any]) -> None:
        if event["event"] == "point" and not killed:
            me = str(os.getpid())
            found = subprocess.run(
                ["pgrep", "-P", me, "-f", "simkit.explore.worker"], capture_output=True, text=True, check=True
            )
            killed.append(int(found.stdout.split()[0]))
            os.kill(killed[0], signal.SIGKILL)

    fields = {"lanes": list(range(1, 21)), "clock": ["500 MHz", "1 GHz", "1.5 GHz"]}
    plan = make_plan([str(plain_trace_path)], [("cnvlutin", {})], tables=["default_45nm"], fields=fields)
    done = run_plan(plan, tmp_path, processes=1, on_event=kill_once)
    assert killed
    assert len(done.parts.runs) == 60
    assert not done.failed


def test_worker_that_cannot_start_is_one_clear_line(
    plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(sk.errors.UnavailableError, match=r"ended 3 times as it started.*--processes 0"):
        sk.sweep([plain_trace_path], ["cnvlutin"], out=tmp_path, progress=False, processes=1)


# --- the command


def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["simkit", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def spec(plain_trace_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(
        f"traces: {plain_trace_path}\narchs: [cnvlutin, dadiannao]\nfields:\n  clock: [500 MHz, 1 GHz]\n"
        "  memory.bandwidth: {from: 1 GB/s, to: 100 GB/s, points: 3, scale: log}\n"
    )
    return path


def test_command_prints_events_and_goes_on(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("sweep", spec, "--out", tmp_path / "o", "--json", "-q")
    code, out, _ = run_cli(monkeypatch, capsys, *args)
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [event["event"] for event in events] == ["start", *["point"] * 12, "done"]
    assert events[1]["fields"].keys() == {"clock", "memory.bandwidth"}
    assert not any(event["stored"] for event in events[1:-1])
    code, out, _ = run_cli(monkeypatch, capsys, *args)
    again = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in again] == ["start", *["point"] * 12, "done"]
    assert all(event["stored"] for event in again[1:-1])
    assert {event["run"] for event in again[1:-1]} == {event["run"] for event in events[1:-1]}
    assert again[-1]["computed"] == 0
    table = pd.read_parquet(tmp_path / "o" / "points.parquet")
    assert len(table) == 12
    assert len(load_result(tmp_path / "o" / "parts").meta["runs"]) == 12


SMALL_TRACE = Path(__file__).parents[3] / "data" / "minilm_relu_small.zarr"


@pytest.mark.parametrize("ops", [["down"], None], ids=["6 GEMMs", "134 GEMMs and the vector ops"])
def test_a_point_costs_two_milliseconds(ops: list[str] | None, tmp_path: Path) -> None:
    """Beyond the masks, which are counted once: CPU time, as other processes may have the cores."""
    from simkit.explore.worker import Worker, job_of

    bandwidths = [f"{value} GB/s" for value in range(1, 402)]
    fields = {"memory.bandwidth": bandwidths}
    plan = make_plan([str(SMALL_TRACE)], [("cnvlutin", {})], tables=["default_45nm"], ops=ops, fields=fields)
    points = list(plan.points())
    worker = Worker(job_of(plan, tmp_path), plan)
    worker.run(points[:1])
    costs = []
    for first in range(1, 401, 100):
        start = time.process_time()
        answers = worker.run(points[first : first + 100])
        costs.append((time.process_time() - start) / 100)
        assert not any(answer["reason"] for answer in answers)
    assert len(load_result(tmp_path).meta["runs"]) == 401
    assert min(costs) <= 2e-3


def test_command_tells_failed_points_by_its_exit_code(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(spec.read_text().replace(", dadiannao", "") + "  lanes: [8, 0, 16, -1]\n")
    code, out, err = run_cli(monkeypatch, capsys, "sweep", spec, "--out", tmp_path / "o", "-q")
    assert code == 1
    assert "simkit: 12 points failed: arch 'cnvlutin'" in err
    assert "failed because" in out


def test_a_field_without_a_value_that_fits_is_refused(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_cli(monkeypatch, capsys, "sweep", spec, "--out", tmp_path / "o", "-q", "--set", "lanes=0")
    assert code == 2
    assert err == "simkit: error: arch 'cnvlutin': parameter 'lanes' = 0, must be a whole number of at least 1\n"
    assert not (tmp_path / "o").exists()


def test_dry_run_prints_points_and_computes_none(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_cli(monkeypatch, capsys, "sweep", spec, "--out", tmp_path / "o", "--dry-run")
    assert code == 0
    assert "12 points" in out
    assert "12 points of 2 distinct counts" in out
    assert not (tmp_path / "o").exists()
    code, out, _ = run_cli(monkeypatch, capsys, "sweep", spec, "--dry-run", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == [*["planned"] * 12, "estimate"]
    assert events[-1]["seconds"] > 0


@pytest.mark.parametrize(
    ("text", "args", "code", "wanted"),
    [
        ("fields: {lanes: {from: 1, to: 1000000, points: 1000000}}", (), 2, "1,000,000 points; look at it with"),
        ("fields: {lanez: [3]}", (), 2, "has no field 'lanez'; did you mean 'lanes'"),
        ("fields: {lanes: []}", (), 2, "give at least one value"),
        ("fields: {lanes: [4]}", ("--scheduler", "tcp://127.0.0.1:9"), 4, "no scheduler answers at tcp://127.0.0.1:9"),
        ("fields: {lanes: [4]}", ("--scheduler", "127.0.0.1:9"), 2, "write tcp://HOST:PORT or tls://HOST:PORT"),
        ("fields: {lanes: [4]}", ("--scheduler", "tls://127.0.0.1:9"), 2, "needs --tls-ca, --tls-cert and --tls-key"),
        ("fields: {lanes: [4]}", ("--processes", "-1"), 2, "processes = -1"),
    ],
)  # fmt: skip
def test_bad_commands(
    plain_trace_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    args: tuple[str, ...],
    code: int,
    wanted: str,
) -> None:
    monkeypatch.setattr(Cluster.__init__, "__defaults__", (None, None, None, 0.2, 0.2))
    path = tmp_path / "s.yaml"
    path.write_text(f"traces: {plain_trace_path}\narchs: cnvlutin\n{text}\n")
    found, out, err = run_cli(monkeypatch, capsys, "sweep", path, "--out", tmp_path / "o", "-q", *args)
    lines = [line for line in err.splitlines() if line.startswith("simkit: error:")]
    assert found == code
    assert len(lines) == 1
    assert wanted in lines[0]
    assert out == ""
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.slow
def test_ctrl_c_leaves_a_sweep_that_goes_on(spec: Path, tmp_path: Path) -> None:
    spec.write_text(spec.read_text() + "  lanes: {from: 1, to: 400, points: 400}\n")
    command = [sys.executable, "-m", "simkit", "sweep", str(spec), "--out", str(tmp_path / "o"), "-q", "--json"]
    process = subprocess.Popen(
        [*command, "--processes", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background of a shell inherits SIGINT as ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    assert json.loads(lines[-1])["event"] == "point"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command resumes" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.part"))
    parts = Parts(tmp_path / "o" / "parts")
    parts.refresh()
    assert parts.runs
    time.sleep(0.5)
    before = len(parts.runs)
    parts.refresh()
    assert len(parts.runs) == before


def test_a_point_that_stands_in_two_parts_is_loaded_once(plain_trace_path: Path, tmp_path: Path) -> None:
    trace = sk.load_trace(plain_trace_path)
    sk.replay(trace, ["cnvlutin", "dadiannao"]).save(tmp_path / "a.parquet")
    sk.replay(trace, ["dadiannao", "systolic_32x32"]).save(tmp_path / "b.parquet")
    parts = Parts(tmp_path)
    parts.refresh()
    frame = parts.load(parts.runs).frame
    assert set(frame["arch"]) == {"cnvlutin", "dadiannao", "systolic_32x32"}
    assert not frame.duplicated(["run", "layer", "op", "component", "action"]).any()
