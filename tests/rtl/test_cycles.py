"""Kernels equal to RTL: every case of every design, to the cycle and to the bit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import hwmodels
from simkit.validation.rtl.build import Outcome, build, run_cases
from simkit.validation.rtl.cases import KINDS, Shape, draw, from_masks
from simkit.validation.rtl.designs import DESIGNS
from simkit.validation.rtl.encode import eie_case
from simkit.validation.rtl.tools import SOURCES
from simkit.validation.rtl.validate import _waveform_path, compare, validate_rtl, write_waveform

pytestmark = pytest.mark.slow  # builds with Verilator
CASES = 220
GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden"
TRACE = Path(__file__).parents[1] / "data" / "minilm_relu_small.zarr"
BUILDS = [(design, params) for design in DESIGNS.values() for params in design.builds]


def _name(value: object) -> str:
    return getattr(value, "kernel", None) or ",".join(f"{k}={v}" for k, v in dict(value).items())  # type: ignore[call-overload]


@pytest.mark.parametrize(("design", "params"), BUILDS, ids=_name)
def test_kernel_equals_rtl(verilator, design, params):
    if design.arch not in hwmodels.list_archs():
        pytest.skip(f"arch '{design.arch}' is not there")
    limits = design.limits(params)
    problems = draw(-(-CASES // len(design.builds)), limits, seed=7)
    rng = np.random.default_rng(11)
    whole = [(f"largest-{d}", rng.random((limits.m, limits.k)) < d) for d in (0.0, 0.3, 1.0)]
    rows = compare(design, params, build(design.source, design.top, params), problems + from_masks(whole, limits, 3))
    wrong = [row for row in rows if not (row["cycles_equal"] and row["values_equal"])]
    assert not wrong, f"{len(wrong)} of {len(rows)} cases differ, the first: {wrong[0]}"
    assert {row["case"].split("-")[0] for row in rows} == {*KINDS, "largest"}
    if design.kernel != "systolic":
        assert len({row["rtl_cycles"] for row in rows}) > 20


def _vectors(kind: str):
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden vectors at {GOLDEN}")
    return json.loads((GOLDEN / "cycles.json").read_text())[kind], np.load(GOLDEN / "vectors.npz")


def test_tensordash_rtl_equals_independent_vectors(verilator):
    """Cycles of a model by another hand, itself equal to other RTL of the same design."""
    cases, vectors = _vectors("tensordash")
    rng = np.random.default_rng(5)
    for params in DESIGNS["tensordash"].builds:
        design, mine = DESIGNS["tensordash"], [case for case in cases if case["rows"] == params["ROWS"]]
        assert len(mine) == 30
        masks = [(case["case"], np.unpackbits(vectors[case["case"]], axis=1)[:, : case["k"]] != 0) for case in mine]
        problems = from_masks(masks, Shape(params["ROWS"], 1024, params["COLS"]), int(rng.integers(99)))
        outcomes = run_cases(
            build(design.source, design.top, params), [design.load(problem, params) for problem in problems]
        )
        for case, problem, outcome in zip(mine, problems, outcomes, strict=True):
            assert outcome.cycles == case["cycles"] + design.constant, case
            np.testing.assert_array_equal(design.sums(outcome.words, problem, params), problem.expected)


def _reference_sums(act, entries, pointers, locals_):
    """Walk the compressed columns one entry at a time."""
    codebook = np.array([0, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8])
    pes = act.shape[1]
    values = np.append(act[:-1].ravel(), act[-1, 0])
    sums = np.zeros((pes, locals_), dtype=np.int64)
    for column in np.flatnonzero(values):
        for pe in range(pes):
            row = -1
            for entry in entries[pe][pointers[pe][column] : pointers[pe][column + 1]]:
                row = (row + 1 + (int(entry) >> 4)) % locals_
                sums[pe, row] += values[column] * codebook[entry & 15]
    return sums


def test_eie_rtl_equals_the_authors_simulator(verilator):
    """64 PEs, ring 8: vectors that reproduce the published simulator's cycles."""
    cases, vectors = _vectors("eie")
    mine = [case for case in cases if case["ring"] == 8]
    assert len(mine) == 9
    rng = np.random.default_rng(3)
    loaded, sums = [], []
    for case in mine:
        mask = np.unpackbits(vectors[case["case"] + "_act"])[: case["k"]].astype(np.int64)
        counts = vectors[case["case"] + "_entries"].astype(np.int64)
        act = np.zeros((case["k"] // 64 + 1, 64), dtype=np.int64)
        act[:-1] = (mask * rng.integers(1, 100, case["k"])).reshape(-1, 64)
        act[-1, 0] = 1
        pointers = [np.concatenate([[0], np.cumsum(counts[:, pe])]) for pe in range(64)]
        entries = [rng.integers(0, 256, int(pointer[-1])) for pointer in pointers]
        loaded.append(eie_case(act, pointers, entries, case["k"], 64))
        sums.append(_reference_sums(act, entries, pointers, 64))
    outcomes: list[Outcome] = run_cases(build("eie.sv", "eie_top", {"PES": 64, "RING": 8}), loaded)
    for case, outcome, expected in zip(mine, outcomes, sums, strict=True):
        assert outcome.cycles == case["cycles"] + DESIGNS["eie"].constant, case
        np.testing.assert_array_equal(outcome.words.reshape(64, 64).T, expected)


def test_waveform_is_written(verilator, tmp_path):
    path = write_waveform(DESIGNS["systolic"], tmp_path / "waves" / "systolic.vcd")
    text = path.read_text()
    assert text.startswith("$version")
    assert "$enddefinitions" in text
    assert "psum" in text
    assert text.rstrip().splitlines()[-1]


def test_recorded_masks(verilator):
    """The small real trace of the tests through all five designs."""
    rows = validate_rtl(trace=TRACE, cases=8, seed=2)
    real = [row for row in rows if row["case"].startswith("trace-")]
    assert len(real) >= 5 * len(DESIGNS)
    assert {row["arch"] for row in real} == set(DESIGNS)
    assert all(row["cycles_equal"] and row["values_equal"] for row in rows)


def test_waveforms_have_names_of_their_own():
    eie = DESIGNS["eie"]
    assert _waveform_path(Path("w.vcd"), eie, alone=True) == Path("w.vcd")
    assert _waveform_path(Path("w.vcd"), eie, alone=False) == Path("w-eie.vcd")
    assert _waveform_path(Path("waves"), eie, alone=True) == Path("waves/eie.vcd")


@pytest.mark.parametrize(
    ("source", "top"),
    [
        *((design.source, design.top) for design in DESIGNS.values()),
        ("dense.sv", "dense_pe"),
        ("dense.sv", "dense_ws_pe"),
    ],
)
def test_lint_and_header(verilator, source, top):
    """Clean under -Wall with the parameters' defaults; each file begins with diagram, ports, contract and source."""
    path = SOURCES / source
    command = ["verilator", "--lint-only", "-Wall", "--top-module", top, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    header = path.read_text(encoding="utf-8").split("\nmodule ", 1)[0]
    for part in ("-->", "Ports", "Cycle contract", "Source:"):
        assert part in header
