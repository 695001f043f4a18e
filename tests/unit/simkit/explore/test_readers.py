"""Readers of specs, results and measurements: what they read is right, said on stderr, or refused in one line."""

from __future__ import annotations

import gzip
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simkit as sk
from hwmodels import load_arch
from simkit.errors import CorruptError, InputError
from simkit.explore.grid import make_plan
from simkit.explore.spec import Range, SweepSpec
from simkit.measure.bundle import write_bundle
from simkit.validation.bundles import validate_bundle
from simkit.validation.gemm import data_sheet, gemm_sets, read_gemms, shipped
from simkit.validation.gpu import validate_reference


def range_of(**given: Any) -> Range:
    return Range.model_validate({name.rstrip("_"): value for name, value in given.items()})


# --- ranges of a spec


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"from": 0, "to": 1, "points": 11}, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ({"from": 0, "to": 1, "step": 0.1}, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ({"from": 0, "to": 1, "step": 0.25}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 1, "to": 2, "points": 5}, [1, 1.25, 1.5, 1.75, 2]),
        ({"from": 16, "to": 64, "points": 4}, [16, 32, 48, 64]),
        ({"from": 1, "to": 10, "step": 4}, [1, 5, 9]),
        ({"from": 10000.0, "to": 10003.0, "step": 1}, [10000, 10001, 10002, 10003]),
        ({"from": 10000.5, "to": 10002.5, "points": 3}, [10000.5, 10001.5, 10002.5]),
        ({"from": 1, "to": 100, "points": 5, "scale": "log"}, [1, 3.162, 10, 31.62, 100]),
        ({"from": "1.23456 GHz", "to": "2.5 GHz", "points": 2}, ["1.23456 GHz", "2.5 GHz"]),
        ({"from": "0 GB/s", "to": "1 GB/s", "points": 4}, ["0 GB/s", "0.3333 GB/s", "0.6667 GB/s", "1 GB/s"]),
    ],
)
def test_a_range_has_the_values_that_it_names(given: dict[str, Any], wanted: list[Any]) -> None:
    values = Range.model_validate(given).values()
    assert values == wanted
    if all(isinstance(value, int) for value in wanted[1:-1]) and isinstance(given["from"], int):
        assert {type(value) for value in values} == {int}


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.integers(2, 400))
def test_no_point_of_a_range_is_lost(first: int, width: int, points: int) -> None:
    values = Range(first=first, last=first + width, points=points).values()
    assert len(set(values)) == points
    assert (values[0], values[-1]) == (first, first + width)
    gaps = [float(b) - float(a) for a, b in pairwise(values)]
    assert gaps == pytest.approx([width / (points - 1)] * (points - 1), rel=3e-3)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"from": 0, "to": math.inf, "points": 3}, "must be finite"),
        ({"from": math.nan, "to": 1, "points": 3}, "must be finite"),
        ({"from": False, "to": 1, "points": 3}, "false is not a number"),
        ({"from": 0, "to": 1, "step": 0}, "step 0 must be above 0"),
        ({"from": 0, "to": 1, "step": math.nan}, "must be above 0"),
        ({"from": 0, "to": 1, "step": 1e-9}, "more than 1,000,000 values"),
        ([[1]], r"\[1\] is no value"),
        ([None], "None is no value"),
        ([{}], "{} is no value"),
    ],
)
def test_ranges_and_lists_that_have_no_values(given: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        SweepSpec.model_validate({"traces": ["t.zarr"], "archs": ["cnvlutin"], "fields": {"lanes": given}})


def planned(trace: Path, arch: str, **fields: Any) -> list[Any]:
    spec = SweepSpec.model_validate({"traces": [str(trace)], "archs": [arch], "fields": fields})
    plan = make_plan(spec.traces, [(arch, {})], tables=["default_45nm"], fields=spec.fields)
    return [point.fields[0][1] for point in plan.points()]


def test_fields_of_whole_numbers_take_rounded_ranges_that_lose_no_point(plain_trace_path: Path) -> None:
    log = {"from": 16, "to": 100, "points": 4, "scale": "log"}
    assert planned(plain_trace_path, "systolic_32x32", rows=log) == [16, 29, 54, 100]
    assert planned(plain_trace_path, "h100_sxm", skip_overhead={"from": 0, "to": 1, "points": 11})[1] == 0.1
    for field in ("rows", "bits.weight"):
        with pytest.raises(InputError, match=rf"fields.{field}: takes whole numbers, and of 9 values .* only 5"):
            planned(plain_trace_path, "systolic_32x32", **{field: {"from": 4, "to": 8, "points": 9}})
    with pytest.raises(InputError, match="takes whole numbers without unit"):
        planned(plain_trace_path, "systolic_32x32", rows={"from": "1 GHz", "to": "2 GHz", "points": 2})


def test_ranges_arrays_and_single_values_in_python(plain_trace_path: Path) -> None:
    def values(given: Any) -> list[Any]:
        plan = make_plan([str(plain_trace_path)], [("cnvlutin", {})], tables=["default_45nm"], fields=given)
        return [point.fields[0][1] for point in plan.points()]

    assert values({"lanes": {"from": 4, "to": 16, "points": 3, "scale": "log"}}) == [4, 8, 16]
    assert values({"lanes": np.array([4, 8])}) == [4, 8]
    assert values({"lanes": range(4, 6)}) == [4, 5]
    assert values({"clock": "1 GHz"}) == ["1 GHz"]


# --- paths of a spec


def test_a_path_that_exists_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def paths(*texts: str) -> list[str]:
        return SweepSpec(traces=list(texts), archs=["cnvlutin"]).trace_paths()

    for name in ("runs[1]/a.zarr", "runs[1]/b.zarr", "50% of *.zarr", "ünï cödé.zarr"):
        (tmp_path / name).mkdir(parents=True)
    assert paths("runs[1]/a.zarr") == ["runs[1]/a.zarr"]
    assert paths("runs[1]/*.zarr") == ["runs[1]/a.zarr", "runs[1]/b.zarr"]
    assert paths("50% of *.zarr", "ünï cödé.zarr") == ["50% of *.zarr", "ünï cödé.zarr"]
    assert paths("~/runs[1]/a.zarr") == [str(tmp_path / "runs[1]/a.zarr")]
    (tmp_path / "runs1").mkdir()
    (tmp_path / "runs1" / "a.zarr").mkdir()
    assert paths("runs[1]/a.zarr") == ["runs[1]/a.zarr"]
    assert paths("runs[12]/a.zarr") == ["runs1/a.zarr"]
    with pytest.raises(InputError, match=r"runs1/a.zarr as a wildcard and runs\[1\]/a.zarr as it is written"):
        paths("runs[1]/*.zarr")
    with pytest.raises(InputError, match="nothing matches"):
        paths("runs[3]/a.zarr")


# --- results


def told(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """Exit code and stderr of the command, run in this process."""
    from simkit.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["simkit", *args])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("r.csv", b"run,arch\n1,eie\n", "r.csv is a CSV, not a result"),
        ("r.json", b'{"a": 1}', "r.json is JSON, not a result"),
        ("r.npz", b"PK\x03\x04", "r.npz is a ZIP archive, not a result"),
        ("r.parquet", b"version https://git-lfs.github.com/spec/v1\n", "r.parquet is a Git LFS pointer"),
        ("r.csv.gz", gzip.compress(b"a,b", mtime=0), "r.csv.gz is gzip-compressed, not a result"),
    ],
)
def test_a_file_of_another_kind_is_named_and_not_called_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, wanted: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="not a result"):
        sk.load_result(tmp_path / name)
    code, err = told(capsys, "report", str(tmp_path / name), "-o", str(tmp_path / "made"))
    assert (code, wanted in err, err.count("\n")) == (2, True, 1), err
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CorruptError, match="is damaged or not Parquet"):
        sk.load_result(tmp_path / name)


# --- masks, by the command


def test_the_command_takes_sites_header_and_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.csv").write_text("0,1\n1,1\n")
    made = str(tmp_path / "t.zarr")
    code, err = told(capsys, "trace", "import", str(tmp_path / "m.csv"), "-o", made, "--n", "2")
    assert code == 2
    assert "may be a header or a token; say which with --header or --no-header" in err
    words = ("trace", "import", str(tmp_path / "m.csv"), "-o", made, "--n", "2", "--no-header", "--no-index")
    assert told(capsys, *words)[0] == 0
    assert sk.load_trace(made).site("m").mask().to_bool().tolist() == [[False, True], [True, True]]
    np.savez(tmp_path / "m.npz", a=np.eye(3), b=np.eye(4))
    words = ("trace", "import", str(tmp_path / "m.npz"), "-o", str(tmp_path / "a.zarr"), "--n", "2")
    assert "choose by name what belongs together: --site NAME" in told(capsys, *words)[1]
    assert told(capsys, *words, "--site", "b")[0] == 0
    assert list(sk.load_trace(tmp_path / "a.zarr").sites) == ["b"]


# --- measurements

GEMMS = "m,n,k,latency_ms\n1,128,512,0.0032\n16,4096,4096,0.012\n"
TYPED = "gemm_dtype,device,m,n,k,latency\n"


def test_types_and_devices_of_a_files_rows_are_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gemm_h200_all.csv"
    rows = [
        "bfloat16,NVIDIA H200,16,4096,4096,0.02",
        "fp8,NVIDIA H200,32,4096,4096,0.01",
        "fp8,,64,4096,4096,0.01",
        "int4_wo,NVIDIA H200,16,4096,4096,0.01",
        "bfloat16,NVIDIA H100 80GB HBM3,16,4096,4096,0.03",
        ",NVIDIA H200,128,4096,4096,0.02",
    ]
    path.write_text(TYPED + "\n".join(rows) + "\n")
    sets = {one.name: (one.operand_bytes, one.mnk[:, 0].tolist(), one.sheet.flops) for one in gemm_sets(path)}
    peak = data_sheet(load_arch("h200_sxm")).flops
    assert sets == {
        "gemm_h200_all bf16": (2.0, [128], peak),
        "gemm_h200_all bfloat16": (2.0, [16], peak),
        "gemm_h200_all fp8": (1.0, [32, 64], 2 * peak),
    }
    err = capsys.readouterr().err
    assert "left out: gemm_h200_all.csv: 1 rows of data type 'int4_wo', which has no model" in err
    assert "left out: gemm_h200_all.csv: 1 rows of device 'NVIDIA H100 80GB HBM3'" in err
    assert "taken as bf16, for neither its name nor its rows say a data type" in err
    with pytest.raises(InputError, match="data types bf16, bfloat16, fp8; give a file of one"):
        read_gemms(path)
    assert {row["set"] for row in validate_reference(tmp_path)} == {f"{name} carried from h100_sxm" for name in sets}


def energies(rows: dict[int, dict[str, object]]) -> pd.DataFrame:
    """Runs of three families on an H100 that obey the model, with some cells changed."""
    frame = pd.DataFrame(
        {
            "workload": [f"{family}_b{i}_pbf16" for family in ("gpt2", "bert", "t5") for i in range(6)],
            "flop": [1e12 * (i + 1) for i in range(18)],
            "op_bytes": [1e9 * (i % 5 + 1) for i in range(18)],
            "time_ms": [4.0 * (i + 1) for i in range(18)],
        }
    )
    frame["energy_j"] = 0.1 * frame["time_ms"] + 3e-13 * frame["flop"] + 2e-11 * frame["op_bytes"]
    for row, cells in rows.items():
        for name, value in cells.items():
            frame.loc[row, name] = value
    return frame


def test_impossible_energies_are_left_out_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "energy_h100.csv"
    changed = {1: {"energy_j": 100.0}, 4: {"energy_j": -1.0}, 5: {"energy_j": np.nan}, 7: {"flop": 1e15}}
    energies(changed).to_csv(path, index=False)
    rows = validate_reference(tmp_path)
    assert {(row["model"], row["rows_scored"]) for row in rows} == {
        ("calibrated", 14), ("power_limit", 14), ("mean_power", 14)
    }  # fmt: skip
    assert next(row for row in rows if row["model"] == "calibrated")["mape_percent"] < 1
    err = capsys.readouterr().err
    assert "energy_h100.csv: 2 impossible rows (6, 7): its energy, FLOP or bytes are missing or not positive" in err
    assert "energy_h100.csv: 1 impossible rows (3): more than the board's 700 W" in err
    assert "energy_h100.csv: 1 impossible rows (9): more than 989 TFLOP/s" in err


BAD_FILES = {
    "gemm_bf16_h100.csv": ("a,b\n1,2\n", "no known format has the columns a, b"),
    "gemm_bf16_mi300.csv": (GEMMS, "file name 'gemm_bf16_mi300' names no known GPU"),
    "gemm_bf16_l4.csv": (GEMMS.replace("128", "many"), "row 2: n = 'many' is no whole number of at least 1"),
    "gemm_bf16_a100.csv": (GEMMS.replace("128", ""), "row 2: n = nan is no whole number of at least 1"),
    "gemm_bf16_b200.csv": (GEMMS.replace("0.012", "fast"), "row 3: latency_ms = 'fast' is no number"),
    "gemm_fp16_h200.csv": (GEMMS.replace("0.012", "inf"), "row 3 has no positive time"),
    "gemm_fp16_h100.csv": ("caf\u00e9", "line 1, byte 4: 0xe9 is not UTF-8"),
    "gemm_fp16_l4.csv": ("", "cannot be read: No columns to parse"),
    "gemm_fp16_a100.csv": ("m,n,k,latency_ms\n1,2,3,4,5\n", "line 2 has more cells than line 1"),
    "gemm_fp16_b200.csv": ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "gemm_fp16_l40s.parquet": (GEMMS, "cannot be read: it is a CSV"),
    "gemm_int8_l4.csv": ("sparsity,dense_ms,sparse_ms\n0.5,1,1\n", "holds no GEMMs with m, n and k"),
    "energy_h100.csv": (GEMMS, "holds no energies"),
    "energy_l4.csv": ("workload,flop,op_bytes,energy_j,time_ms\na_1,1e9,1e6,1e-3,1\n", "fewer than two model families"),
    "sparse_mlp_l4.csv": (GEMMS, "holds no gated MLP"),
    "sparse_mlp_l40s.csv": (
        "sparsity,dense_ms,sparse_ms\n50,1,1\n",
        "row 2: sparsity = 50 is no share between 0 and 1",
    ),
    "other.csv": (GEMMS, "other.csv: no .csv or .parquet file named gemm_*, energy_* or sparse_mlp_*"),
    "gemm_bf16_h100.xlsx": ("PK", "gemm_bf16_h100.xlsx"),
}


def test_a_file_that_cannot_be_scored_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (text, _) in BAD_FILES.items():
        (tmp_path / name).write_bytes(text.encode("cp1252"))
    (tmp_path / "README.md").write_text("about")
    code, err = told(capsys, "validate", "--reference", str(tmp_path))
    assert code == 2
    lines = err.splitlines()
    assert lines[-1] == (
        f"simkit: error: nothing in {tmp_path} could be scored; the lines above say why each file was left out"
    )
    assert len(lines) == len(BAD_FILES)  # two are said in one line; one more is the end
    assert all(line.startswith("left out: ") for line in lines[:-1])
    for name, (_, wanted) in BAD_FILES.items():
        assert any(name.rpartition(".")[0] in line and wanted in line for line in lines), name
    (tmp_path / "gemm_bf16_h200.csv").write_text(GEMMS)
    code, err = told(capsys, "validate", "--reference", str(tmp_path), "--json")
    assert (code, len(err.splitlines())) == (0, len(BAD_FILES) - 1)


def test_shapes_that_were_fitted_leave_nothing_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m, n, k = shipped().mnk[0]
    (tmp_path / "gemm_bf16_h100.csv").write_text(f"m,n,k,latency_ms\n{m},{n},{k},1\n")
    with pytest.raises(InputError, match=r"nothing in .* could be scored"):
        validate_reference(tmp_path)
    assert "gemm_bf16_h100: the model of h100_sxm was fitted on each of its shapes" in capsys.readouterr().err


def test_bundles_without_usable_rows_score_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"op": "gemm", "kernel": "gather_gemv", "heat": "cold", "m": 1, "n": 2, "k": 3, "point": "", "flaw": "hot"}
    row |= {"seconds": 1.0, "raw_seconds": [1.0], "joules": 1.0, "threads": 2}
    for name in ("calibrate", "sparse", "energy"):
        write_bundle(tmp_path / "l4" / f"{name}.parquet", [row], {})
    with pytest.raises(
        InputError, match=r"no bundle of l4 could be scored \(calibrate, sparse, energy\); measure again"
    ):
        validate_bundle("l4", tmp_path)
    err = capsys.readouterr().err
    assert "left out: bundle calibrate of l4: fewer than" in err
    assert "left out: bundle sparse of l4: usable gathers" in err
    assert "left out: bundle energy of l4: usable energies" in err
    write_bundle(tmp_path / "cpu" / "calibrate.parquet", [row], {})
    with pytest.raises(InputError, match="no group of shapes in the processor's bundle is usable"):
        validate_bundle("cpu", tmp_path)


def test_a_validation_that_scores_nothing_is_no_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simkit.validation.bundles.validate_bundle", lambda device: [])
    code, err = told(capsys, "validate", "--bundle", "l4", "--json")
    assert (code, "nothing was scored" in err) == (2, True)


def test_measurements_name_devices_in_their_own_words(
    plain_trace_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = sk.replay(sk.load_trace(plain_trace_path), ["h100_sxm"])
    ops = result.ops.assign(device="h100_sxm", m=result.ops["batch"], seconds=result.ops["latency_s"])
    ops["density"] = ops["effectual_macs"] / ops["macs"]
    with pytest.raises(InputError, match="the measurements have no column 'seconds'; give device, m, k, n"):
        sk.validate(result, ops.drop(columns="seconds"))
    table = pd.DataFrame({"gemm_dtype": "bf16", "device": "NVIDIA H100 80GB HBM3", "m": ops["batch"]})
    table = table.assign(n=ops["n"], k=ops["k"], latency=ops["latency_s"] * 1e3)
    table.to_csv(tmp_path / "all.csv", index=False)
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="measured: h100_sxm, "):  # dense launches: their density is not the result's
        sk.validate(result, tmp_path)
    assert "notes.csv: no known format has the columns a, b" in capsys.readouterr().err
