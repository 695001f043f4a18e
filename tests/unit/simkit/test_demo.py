"""The demo's table, from a real trace."""

from __future__ import annotations

from pathlib import Path

import pytest

import simkit as sk
from simkit import demo
from simkit.cli import pipeline


@pytest.fixture(scope="module")
def result(small_trace_path: Path):
    return sk.replay(sk.load_trace(small_trace_path), demo.ARCHS, weights=demo.WEIGHTS)


def test_rows_hold_both_scopes_of_every_arch(result, small_trace_path: Path) -> None:
    (row,) = demo.summarise(result)
    assert list(row["archs"]) == list(demo.ARCHS)
    for scope, table in (("down", result.summary("down")), ("model", result.summary())):
        for line in table.itertuples():
            entry = row["archs"][line.arch][scope]
            assert entry["cycles"] == line.cycles
            assert entry["energy_per_token_pj"] == line.energy_per_token_pj
    trace = sk.load_trace(small_trace_path)
    real = sum(site.mask().popcount() for site in trace.sites.values())
    assert row["density"] == pytest.approx(real / (6 * trace.n_tokens * 1536))
    assert row["accuracy"] == trace.attrs["measurements"]["accuracy"]
    assert row["provenance"]["trace_hash"] == trace.hash


def test_zero_skip_designs_gain_and_the_dense_array_does_not(result) -> None:
    (row,) = demo.summarise(result)
    down = {arch: scopes["down"]["speedup"] for arch, scopes in row["archs"].items()}
    assert down["systolic_32x32"] == 1.0
    assert min(down["cnvlutin"], down["eie"]) > 1.5
    assert down["tensordash"] > 1.0  # 289 tokens leave it waiting for DRAM
    assert row["archs"]["cnvlutin"]["model"]["speedup"] < down["cnvlutin"]


def test_printed_table_has_a_line_for_each_arch(result, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline._demo_table(demo.summarise(result))
    printed = capsys.readouterr().out
    assert all(arch in printed for arch in demo.ARCHS)
    assert "speed-up (model)" in printed
