"""Search: the front of a design space, on a study that goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hwmodels
import simkit as sk
from simkit.errors import InputError, UnavailableError
from simkit.explore.search import Found, SearchSpec, run_search, write_front
from simkit.explore.spec import load_spec
from simkit.explore.sweep import points

pytest.importorskip("optuna", reason="needs Optuna: pip install 'zeroskip[search]'")
# 5 x 3 x 2 = 30 points: small enough to know the whole front
FIELDS: dict[str, list[Any]] = {
    "lanes": [4, 8, 16, 32, 64],
    "clock": ["250 MHz", "500 MHz", "1 GHz"],
    "memory.bandwidth": ["1 GB/s", "25 GB/s"],
}


def spec_of(path: Path, **more: Any) -> SearchSpec:
    given = {"traces": str(path), "archs": ["cnvlutin"], "fields": FIELDS, "objectives": ["latency", "energy"]}
    return SearchSpec.model_validate({**given, **more})


@pytest.fixture(scope="module")
def grid(plain_trace_path: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Every point of the space."""
    out = tmp_path_factory.mktemp("grid")
    return points(sk.sweep([plain_trace_path], ["cnvlutin"], fields=FIELDS, out=out, progress=False).meta)


def dominated(row: pd.Series, table: pd.DataFrame, columns: list[str]) -> bool:
    """Whether another point is nowhere worse and somewhere better."""
    better = (table[columns] <= row[columns]).all(axis=1) & (table[columns] < row[columns]).any(axis=1)
    return bool(better.any())


@pytest.mark.slow
def test_front_is_that_of_the_points_tried(plain_trace_path: Path, grid: pd.DataFrame, tmp_path: Path) -> None:
    found = run_search(spec_of(plain_trace_path), tmp_path, trials=8)
    assert len(found.table) == 8
    assert found.objectives == ["latency_s", "energy_per_token_pj"]
    for _, row in found.table.iterrows():
        assert row["front"] == (not dominated(row, found.table, found.objectives))
        swept = grid[grid["run"] == row["run"]].iloc[0]
        assert row["latency_s"] == swept["latency_s"]
        assert row["lanes"] == swept["lanes"]


def test_a_sweeps_spec_is_searched_for_cycles_and_energy(plain_trace_path: Path, tmp_path: Path) -> None:
    spec = SearchSpec.model_validate({"traces": str(plain_trace_path), "archs": ["cnvlutin"], "fields": FIELDS})
    found = run_search(spec, tmp_path, trials=2)
    assert found.objectives == ["cycles", "energy_per_token_pj"]


@pytest.mark.slow
def test_a_search_finds_the_best_design(plain_trace_path: Path, grid: pd.DataFrame, tmp_path: Path) -> None:
    found = run_search(spec_of(plain_trace_path, objectives=["energy_delay_js"]), tmp_path, trials=25)
    ranks = grid["energy_delay_js"].rank()
    best = found.table["energy_delay_js"].min()
    assert ranks[grid["energy_delay_js"] == best].iloc[0] <= 3


def test_limits_and_constraints_keep_designs_out_of_the_front(plain_trace_path: Path, tmp_path: Path) -> None:
    spec = spec_of(plain_trace_path, limits=['latency_s <= "1 ms"', "cycles < 1e6"], constraints=["lanes <= 16"])
    found = run_search(spec, tmp_path, trials=10)
    table = found.table
    allowed = (table["latency_s"] <= 1e-3) & (table["cycles"] < 1e6) & (table["lanes"] <= 16)
    assert allowed.any()
    assert not allowed.all()
    assert (table["feasible"] == allowed).all()
    assert not table[table["front"]]["lanes"].gt(16).any()


def test_area_follows_the_structure_where_the_spec_says_nothing(plain_trace_path: Path, tmp_path: Path) -> None:
    table = run_search(spec_of(plain_trace_path, objectives=["latency", "area"]), tmp_path, trials=8).table
    at_one_rate = table[table["memory.bandwidth"] == table["memory.bandwidth"].mode()[0]]
    area = at_one_rate.groupby("lanes")["area_mm2"].first()
    assert len(area) > 1
    assert area.is_monotonic_increasing
    assert area.is_unique


def test_a_stated_area_does_not_grow_by_itself(plain_trace_path: Path, tmp_path: Path) -> None:
    arch = tmp_path / "stated.yaml"
    text = resources.files("hwmodels").joinpath("archs/cnvlutin.yaml").read_text(encoding="utf-8")
    arch.write_text(text + "costs: stated\n", encoding="utf-8")
    spec = spec_of(plain_trace_path, objectives=["latency", "area"], archs=[str(arch)])
    with pytest.raises(InputError, match=r"varies 'lanes'; say how it grows, e.g. area: 70.74 \* lanes / 16"):
        run_search(spec, tmp_path, trials=2)


def test_area_grows_as_the_spec_says(plain_trace_path: Path, tmp_path: Path) -> None:
    spec = spec_of(plain_trace_path, objectives=["latency", "area"], area="70.74 * lanes / 16")
    found = run_search(spec, tmp_path, trials=6)
    assert np.allclose(found.table["area_mm2"], 70.74 * found.table["lanes"] / 16)


@pytest.mark.slow
def test_a_search_goes_on_where_it_was(plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(plain_trace_path, sampler="random")
    first = run_search(spec, tmp_path, trials=8)
    again = run_search(spec, tmp_path, trials=11)
    assert len(again.table) == 11
    pd.testing.assert_frame_equal(again.table[again.table["number"] < 8][["run"]], first.table[["run"]])
    # trials that come later choose anew, and do not repeat the first ones
    chosen = [tuple(row) for row in again.table[["lanes", "clock", "memory.bandwidth"]].to_numpy()]
    assert chosen[8:11] != chosen[0:3]
    monkeypatch.setattr("simkit.explore.search.Objective.__call__", lambda *_: pytest.fail("searched again"))
    assert len(run_search(spec, tmp_path, trials=11).table) == 11


def test_failing_points_do_not_end_a_search(plain_trace_path: Path, tmp_path: Path) -> None:
    spec = spec_of(plain_trace_path, fields={"lanes": [0, 8, 16], "clock": FIELDS["clock"]}, sampler="random")
    found = run_search(spec, tmp_path, trials=6)
    assert len(found.table) == 6
    assert (found.table["lanes"] > 0).all()


def test_a_space_of_failing_points_is_one_clear_line(plain_trace_path: Path, tmp_path: Path) -> None:
    spec = spec_of(plain_trace_path, fields={"lanes": [0, -1]})
    with pytest.raises(InputError, match="parameter 'lanes' = 0, must be a whole number of at least 1"):
        run_search(spec, tmp_path, trials=2)


@pytest.mark.slow
def test_two_processes_share_a_study(plain_trace_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"traces: {plain_trace_path}\narchs: cnvlutin\nobjectives: [cycles, energy]\n"
        "fields: {lanes: [4, 8, 16, 32], clock: {from: 100 MHz, to: 1 GHz, points: 10}}\n"
    )
    command = [sys.executable, "-m", "simkit", "search", str(path), "--out", str(tmp_path / "o"), "-q", "--json"]
    done = subprocess.run(
        [*command, "--trials", "16", "--workers", "2"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    front = json.loads(done.stdout)
    assert front
    assert all(row["front"] and row["feasible"] for row in front)
    assert {p.name for p in (tmp_path / "o").iterdir()} >= {"study.db", "trials.parquet", "front.png", "front.pdf"}
    numbers = pd.read_parquet(tmp_path / "o" / "trials.parquet")["number"]
    assert 16 <= len(numbers) <= 18
    assert numbers.is_unique


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"objectives": ["latency", "accuracy"]}, "has no measured accuracy; record it from a tuning"),
        ({"limits": ["pwer_w < 3"]}, "unknown name 'pwer_w'; did you mean 'power_w'"),
        ({"area": "3 * lanez"}, "unknown name 'lanez'; did you mean 'lanes'"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    plain_trace_path: Path, tmp_path: Path, more: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(InputError, match=wanted):
        run_search(spec_of(plain_trace_path, **more), tmp_path, trials=2)


def test_bad_search_specs(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    for line, wanted in {
        "objectives: [latencyy]": "unknown objective 'latencyy'; did you mean 'latency'",
        "objectives: []": "objectives",
        "objectives: [energy, energy_per_token_pj]": "an objective is there twice",
        "trials: 0": "trials",
        "sampler: annealing": "sampler",
    }.items():
        path.write_text(f"traces: t.zarr\narchs: cnvlutin\n{line}\n")
        with pytest.raises(hwmodels.InputError, match=wanted):
            load_spec(path, SearchSpec)


def test_a_study_of_another_spec_is_refused(plain_trace_path: Path, tmp_path: Path) -> None:
    run_search(spec_of(plain_trace_path), tmp_path, trials=1)
    with pytest.raises(InputError, match="holds a search of another spec"):
        run_search(spec_of(plain_trace_path, fields={"lanes": [4, 8]}), tmp_path, trials=1)


def test_database_that_cannot_be_opened(plain_trace_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot open the database sqlite:////no/such"):
        run_search(spec_of(plain_trace_path), tmp_path, trials=1, storage="sqlite:////no/such/folder/s.db")


def test_front_figure_needs_two_objectives(plain_trace_path: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"run": ["a", "b"], "feasible": True, "front": True, "latency_s": [1.0, 2.0]})
    files = write_front(Found(table, ["latency_s"], []), tmp_path)
    assert [path.name for path in files] == ["trials.parquet"]
