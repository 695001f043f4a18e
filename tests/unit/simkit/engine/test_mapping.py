"""Mappings in replays, sweeps and on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hwmodels
import simkit as sk
from hwmodels import Op, PackedMask
from hwmodels.memo import Memo
from simkit.engine.layout import Layout
from simkit.engine.workload import Workload

SMALL = Path(__file__).resolve().parents[3] / "data" / "minilm_relu_small.zarr"


def simkit(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "simkit", *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("search", ["balanced", "latency", "energy", "edp"])
def test_a_layout_finds_at_every_bandwidth_the_mapping_that_a_fresh_count_finds(search: str) -> None:
    base = hwmodels.load_arch("systolic_32x32").with_(
        memory__activation_buffer="16 KiB", memory__weight_buffer="16 KiB", mapping__search=search
    )
    ops = [
        Op("a", 0, 200, 500, 300, PackedMask.bernoulli(200, 500, 0.2, 1), batch=64),
        Op("b", 0, 37, 300, 700, PackedMask.bernoulli(37, 300, 0.6, 2)),
        Op("c", 1, 16, 64, 16, repeat=12, has_weight=False),
    ]
    memo = Memo()
    layout = Layout(ops, range(3), [memo.move(op, base) for op in ops], [], base)
    seen = set()
    for bandwidth in ("1 MB/s", "1 GB/s", "5 GB/s", "20 GB/s", "100 GB/s", "1 TB/s"):
        arch = base.with_(memory__bandwidth=bandwidth)
        tally = layout.at(arch)
        fresh = [hwmodels.simulate(op, arch) for op in ops]
        assert tally.figures["dram_bytes"].tolist() == [one.dram_bytes for one in fresh]
        assert tally.figures["stall_cycles"].tolist() == [one.stall_cycles for one in fresh]
        assert tally.figures["dense_stall_cycles"].tolist() == [one.dense_stall_cycles for one in fresh]
        names = [layout.actions[code] for code in layout.action_of_row]
        counted = [(name, int(count)) for name, count in zip(names, tally.counts, strict=True) if "static" not in name]
        assert counted == [pair for one in fresh for pair in one.actions.items()]
        seen.add(tuple(tally.figures["dram_bytes"].tolist()))
    # less bandwidth is worth fewer bytes; bytes alone are the same at any
    assert (len(seen) > 1) == (search != "energy")


def test_weights_of_a_whole_trace_share_the_chip(plain_trace_path: Path) -> None:
    trace = sk.load_trace(plain_trace_path)
    # 96 x 24 and 130 x 50 weights of 2 byte: 4,608 and 13,000 byte
    arch = hwmodels.load_arch("dadiannao").with_(lanes=1, filters=1, tiles=1)

    def resident(size: str) -> list[bool]:
        found = Workload(trace).residences(arch.with_(memory__weight_buffer=size))
        return [own.on_chip for own, _ in found]

    assert resident("17608 byte") == [True, True]
    assert resident("17607 byte") == [True, False]
    # alone on the chip, either would fit
    assert resident("4608 byte") == [False, False]
    stall = [sk.replay(trace, arch.with_(memory__weight_buffer=size)).ops for size in ("17608 byte", "17607 byte")]
    assert stall[0]["dram_bytes"].tolist()[0] == stall[1]["dram_bytes"].tolist()[0]
    assert stall[1]["dram_bytes"].tolist()[1] >= stall[0]["dram_bytes"].tolist()[1] + 13_000


def test_ops_left_out_of_a_replay_live_on_the_chip_all_the_same() -> None:
    trace = sk.load_trace(SMALL)
    arch = hwmodels.load_arch("dadiannao").with_(memory__weight_buffer="6 MiB")
    whole, part = Workload(trace), Workload(trace, ["down"])
    everywhere = [own for op, (own, _) in zip(whole.items, whole.residences(arch), strict=True) if op.name == "down"]
    assert {own.on_chip for own in everywhere} == {True, False}
    assert [own for own, _ in part.residences(arch)] == everywhere


def test_show_mapping_of_one_shape() -> None:
    done = simkit("show", "mapping", "dadiannao", "--op", "512,1536,384", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["cycles"]["compute"] == 512 * 96 * 2
    assert shown["cycles"]["binds"] == "compute"
    moved = {row["operand"]: row for row in shown["traffic"]}
    # 16-bit inputs and outputs cross once, weights live on the chip
    assert [moved[name]["bytes"] for name in ("activation", "weight", "output")] == [1_572_864, 0, 393_216]
    assert moved["activation"]["macs_per_byte"] == 512 * 1536 * 384 / 1_572_864
    assert shown["mapping"]["spills"] == []
    for level in shown["levels"][1:]:
        assert level["used_bytes"] <= level["size_bytes"]


def test_show_mapping_of_a_trace(plain_trace_path: Path) -> None:
    done = simkit("show", "mapping", "systolic_32x32", str(plain_trace_path), "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert [(one["layer"], one["op"]["k"]) for one in shown] == [(one.layer, one.k) for one in _items(plain_trace_path)]
    table = simkit("show", "mapping", "systolic_32x32", str(plain_trace_path)).stdout
    assert "mappings on systolic_32x32" in table


def _items(path: Path) -> list[Op]:
    return Workload(sk.load_trace(path)).items


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("systolic_32x32",), "show mapping needs a trace or --op M,K,N"),
        (("systolic_32x32", "--op", "4,5"), "--op '4,5' is not M,K,N: three whole numbers of at least 1"),
        (("systolic_32x32", "--op", "4,0,5"), "three whole numbers of at least 1"),
        (("h100_sxm", "--op", "4,5,6"), "kernel 'gpu' times memory itself and has no mapping"),
    ],
)
def test_what_has_no_mapping_is_one_line(args: tuple[str, ...], message: str) -> None:
    done = simkit("show", "mapping", *args)
    assert done.returncode == 2
    assert done.stderr.startswith("simkit: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_mapping_needs_an_arch_not_a_table() -> None:
    done = simkit("show", "arch", "dadiannao", "--op", "1,2,3")
    assert done.returncode == 2
    assert "--op go with 'simkit show mapping', not with 'arch'" in done.stderr
