"""Two results side by side: pairing, ratios, stalls, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from plain_result import ARCHS, plain_result
from typer.testing import CliRunner

from simkit import diff
from simkit.cli import app
from simkit.errors import InputError
from simkit.results.result import Result


def only(result: Result, **keep: str) -> Result:
    frame = result.frame
    for column, value in keep.items():
        frame = frame[frame[column] == value]
    runs = set(frame["run"])
    return Result(frame, {"runs": {run: meta for run, meta in result.meta["runs"].items() if run in runs}})


def renamed(result: Result, name: str, cycles: int) -> Result:
    frame = result.frame.assign(arch=name, cycles=result.frame["cycles"] * cycles)
    runs = {run: {**meta, "stalls": {"barrier": 7}} for run, meta in result.meta["runs"].items()}
    return Result(frame, {"runs": runs})


def test_equal_results_differ_nowhere() -> None:
    result = plain_result()
    found = diff(result, result)
    assert set(found["arch"]) == set(ARCHS)
    assert len(found) == len(result.meta["runs"]) * found["quantity"].nunique()
    assert set(found["ratio"].dropna()) == {1.0}
    assert (found["a"] == found["b"]).all()


def test_a_changed_design_is_paired_with_what_it_was() -> None:
    one = only(plain_result(), arch="cnvlutin")
    found = diff(one, renamed(one, "cnvlutin[lanes=32]", 3))
    assert set(found["arch"]) == {"cnvlutin -> cnvlutin[lanes=32]"}
    assert len(set(found["trace"])) == 2
    by = found.set_index(["trace", "quantity"])
    for trace in set(found["trace"]):
        assert by.loc[(trace, "cycles"), "ratio"] == 3.0
        assert by.loc[(trace, "energy_pj"), "ratio"] == 1.0
        assert by.loc[(trace, "stall: barrier"), "b"] == 7
    assert "stall: barrier" not in set(diff(one, one, ops="down")["quantity"])  # causes are known for whole runs alone


def test_traces_of_one_arch_are_paired_by_it() -> None:
    one = only(plain_result(), arch="eie")
    lora, relu = (only(one, tuning=name) for name in ("lora", "relu"))
    found = diff(lora, relu).set_index("quantity")
    assert set(found["arch"]) == {"eie"}
    assert " -> " in found["trace"].iloc[0]
    assert found.loc["cycles", "ratio"] < 1


def test_runs_that_cannot_be_told_apart_are_refused() -> None:
    result = plain_result()
    both = renamed(only(result, arch="eie"), "x", 1)
    with pytest.raises(InputError, match="cannot be paired"):
        diff(result, Result(both.frame.assign(trace="other"), both.meta))


def test_command(tmp_path: Path) -> None:
    one = only(plain_result(), arch="cnvlutin")
    a, b = one.save(tmp_path / "a.parquet"), renamed(one, "cnvlutin[lanes=32]", 3).save(tmp_path / "b.parquet")
    done = CliRunner().invoke(app, ["diff", str(a), str(b)])
    assert done.exit_code == 0, done.output
    assert "cnvlutin -> cnvlutin[lanes=32]" in done.output
    assert "stall: barrier" in done.output
    assert '"ratio": 3.0' in CliRunner().invoke(app, ["diff", str(a), str(b), "--op", "down", "--json"]).output
