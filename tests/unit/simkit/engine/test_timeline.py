"""Timelines: slices that add up to the model's counts, in Chrome's trace format."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwmodels
import simkit as sk
from hwmodels import Op, PackedMask
from simkit.engine.timeline import DRAM, STALLS, UNITS, draw, timeline
from simkit.errors import InputError

# Trace Event Format: what an event of each phase holds, and the argument of each kind of metadata
FIELDS = {
    "X": ({"ph", "name", "pid", "tid", "ts", "dur"}, {"args"}),
    "C": ({"ph", "name", "pid", "tid", "ts", "args"}, set()),
    "M": ({"ph", "name", "pid", "tid", "args"}, set()),
}
METADATA = {
    "process_name": ("name", str),
    "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}


def op(m: int = 40, k: int = 200, n: int = 48, batch: int = 16, weight: bool = False) -> Op:
    mask = PackedMask.bernoulli(n, k, 0.5, 2) if weight else None
    return Op("down", 0, m, k, n, PackedMask.bernoulli(m, k, 0.3, 1), mask, batch=batch)


def slices(drawn: dict[str, Any], process: int, name: str | None = None) -> list[dict[str, Any]]:
    events = [e for e in drawn["traceEvents"] if e["ph"] == "X" and e["pid"] == process]
    return [e for e in events if name is None or e["name"] == name]


@pytest.mark.parametrize("bandwidth", ["0.2 GB/s", "2 GB/s", "2 TB/s"])
@pytest.mark.parametrize("name", ["cnvlutin", "tensordash", "systolic_32x32", "dadiannao"])
def test_time_adds_up_to_cycles_and_stalls(name: str, bandwidth: str) -> None:
    arch = sk.arch(name, memory__bandwidth=bandwidth, memory__activation_buffer="1 KiB")
    counts = hwmodels.simulate(op(), arch)
    drawn = draw(op(), arch)
    groups = slices(drawn, UNITS, "group")
    stalled = sum(e["dur"] for e in slices(drawn, STALLS))
    # the model rounds the stall up to whole cycles
    assert counts.stall_cycles - 1 <= stalled <= counts.stall_cycles + 1e-3
    end = max(e["ts"] + e["dur"] for e in drawn["traceEvents"] if e["ph"] == "X" and e["pid"] != DRAM)
    assert end == pytest.approx(counts.cycles + stalled, abs=0.1)
    assert sum(e["args"]["tokens"] for e in groups) == 40
    assert all(a["ts"] + a["dur"] <= b["ts"] + 2e-3 for a, b in pairwise(groups))


def test_each_unit_is_busy_as_long_as_the_model_counts() -> None:
    for name, weight in (("cnvlutin", False), ("tensordash", False), ("eie", True)):
        arch = sk.arch(name)
        counts = hwmodels.simulate(op(weight=weight), arch)
        assert counts.unit_busy is not None
        busy = np.zeros(len(counts.unit_busy))
        for event in slices(draw(op(weight=weight), arch), UNITS, "busy"):
            busy[event["tid"] - 2] += event["dur"]
        lost = sum(count for cause, count in counts.stalls.items() if cause != "dram")
        copies = (counts.unit_busy.sum() + lost) / (counts.cycles * len(busy))
        assert busy * round(copies) == pytest.approx(counts.unit_busy, abs=1.0), name


def test_no_unit_is_busy_beyond_its_group() -> None:
    arch = sk.arch("cnvlutin", memory__bandwidth="1 GB/s")
    drawn = draw(op(), arch)
    ends = {e["ts"]: e["ts"] + e["dur"] for e in slices(drawn, UNITS, "group")}
    for event in slices(drawn, UNITS, "busy"):
        assert event["ts"] + event["dur"] <= ends[event["ts"]] + 2e-3


def test_dram_moves_the_bytes_of_the_model() -> None:
    arch = sk.arch("cnvlutin", memory__bandwidth="3 GB/s", memory__activation_buffer="1 KiB")
    counts = hwmodels.simulate(op(), arch)
    drawn = draw(op(), arch)
    per_cycle = 3e9 / arch.clock_hz
    moved = sum(e["dur"] for e in slices(drawn, DRAM)) * per_cycle
    assert moved == pytest.approx(counts.dram_bytes, rel=1e-3)
    tiles = {e["args"]["token"]: e["args"] for e in slices(drawn, DRAM)}
    assert sum(t["input_bytes"] + t["weight_bytes"] + t["output_bytes"] for t in tiles.values()) == counts.dram_bytes


@pytest.mark.parametrize("name", ["systolic_32x32", "cnvlutin", "h100_sxm"])
def test_copies_that_share_an_operand_are_drawn_as_one_group(name: str) -> None:
    arch = sk.arch(name, memory__bandwidth="3 GB/s")
    grouped = Op("scores", 0, 5, 64, 48, repeat=8, shared=4, has_weight=False)
    counts = hwmodels.simulate(grouped, arch)
    drawn = draw(grouped, arch)
    facts = drawn["otherData"]
    assert facts["shape"] == "M 5, K 64, N 48, 4 copies"
    if name == "h100_sxm":
        assert facts["cycles"] == hwmodels.simulate(Op("x", 0, 20, 64, 48), arch).cycles
        return
    assert 2 * facts["cycles"] == counts.cycles
    assert counts.stall_cycles - 2 <= 2 * facts["stall_cycles"] <= counts.stall_cycles
    tiles = {e["args"]["token"]: e["args"] for e in slices(drawn, DRAM)}
    moved = sum(t["input_bytes"] + t["weight_bytes"] + t["output_bytes"] for t in tiles.values())
    assert 2 * moved == counts.dram_bytes


def test_blocks_of_a_gpu_fill_waves_of_sms() -> None:
    arch = sk.arch("h100_sxm")
    big = Op("up", 0, 4096, 1024, 4096, batch=4096)
    drawn = draw(big, arch)
    (launch,) = slices(drawn, UNITS, "launch")
    blocks = slices(drawn, UNITS, "block")
    rows, columns = launch["args"]["tile"]
    assert len(blocks) == -(-4096 // rows) * -(-4096 // columns) * launch["args"]["split"]
    assert max(e["tid"] for e in blocks) == 1 + 132
    waves = -(-len(blocks) // 132)
    assert sorted({round(e["ts"], 3) for e in blocks})[-1] == pytest.approx(
        launch["dur"] * (waves - 1) / waves, rel=1e-6
    )
    assert launch["dur"] == hwmodels.simulate(big, arch).cycles


def test_file_is_chrome_trace_json(plain_trace_path: Path, tmp_path: Path) -> None:
    path = timeline(sk.load_trace(plain_trace_path), sk.arch("cnvlutin"), tmp_path / "t.json", tokens=10)
    drawn = json.loads(path.read_text())
    assert drawn["otherData"]["shape"].startswith("M 10,")
    names = {e["args"]["name"] for e in drawn["traceEvents"] if e["ph"] == "M" and e["name"] == "process_name"}
    assert names == {"cnvlutin: PEs or lanes", "stalls", "DRAM"}
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


@pytest.mark.parametrize("arch", ["cnvlutin", "tensordash", "systolic_32x32", "h100_sxm"])
def test_events_keep_to_the_trace_event_format(arch: str) -> None:
    bandwidth = {} if arch == "h100_sxm" else {"memory__bandwidth": "1 GB/s"}
    drawn = json.loads(json.dumps(draw(op(), sk.arch(arch, **bandwidth)), allow_nan=False))
    assert drawn.keys() == {"traceEvents", "displayTimeUnit", "otherData"}
    assert drawn["displayTimeUnit"] in ("ms", "ns")
    named: set[tuple[str, int, int]] = set()
    threads: dict[tuple[int, int], list[tuple[float, float]]] = {}
    counters: dict[tuple[int, str], list[float]] = {}
    for event in drawn["traceEvents"]:
        needed, allowed = FIELDS[event["ph"]]
        assert needed <= event.keys() <= needed | allowed
        # 0 is no thread of its own in Perfetto
        assert all(type(event[name]) is int and event[name] > 0 for name in ("pid", "tid"))
        if event["ph"] == "M":
            key, kind = METADATA[event["name"]]
            assert event["args"].keys() == {key}
            assert type(event["args"][key]) is kind
            named.add((event["name"], event["pid"], event["tid"] * event["name"].startswith("thread")))
            continue
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
            counters.setdefault((event["pid"], event["name"]), []).append(event["ts"])
        else:
            assert event["dur"] >= 0
            threads.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for (process, thread), lines in threads.items():
        assert {("process_name", process, 0), ("thread_name", process, thread)} <= named
        assert all(one[1] <= other[0] + 2e-3 for one, other in pairwise(lines)), "slices of a thread overlap"
    assert all(times == sorted(times) for times in counters.values())
    assert len(named) == sum(event["ph"] == "M" for event in drawn["traceEvents"]), "named twice"


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ({"op": "dwon"}, "no op 'dwon'; did you mean 'down'"),
        ({"layer": 9}, "no layer 9; it has 0 to 1"),
        ({"tokens": 0}, "tokens = 0, must be at least 1"),
    ],
)
def test_bad_requests(plain_trace_path: Path, tmp_path: Path, args: dict[str, Any], wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        timeline(sk.load_trace(plain_trace_path), sk.arch("cnvlutin"), tmp_path / "t.json", **args)
    assert not list(tmp_path.iterdir())


def test_too_many_slices_are_refused() -> None:
    with pytest.raises(InputError, match="too many to look at; draw fewer with --tokens"):
        draw(Op("x", 0, 100_000, 64, 16, PackedMask.ones(100_000, 64)), sk.arch("cnvlutin"))


@pytest.mark.parametrize("bandwidth", ["2 GB/s", "3.1 GB/s"])
def test_slices_of_a_track_never_overlap(small_trace_path: Path, tmp_path: Path, bandwidth: str) -> None:
    arch = sk.arch("cnvlutin", memory__bandwidth=bandwidth)
    events = json.loads(sk.timeline(small_trace_path, arch, tmp_path / "t.json", tokens=64).read_text())["traceEvents"]
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "X":
            tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for slices in tracks.values():
        for (_, end), (begin, _) in pairwise(sorted(slices)):
            assert begin >= end - 1e-6
