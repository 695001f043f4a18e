"""Scores, break-even, figures, and the wheelhouse's command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwmodels import load_arch
from hwmodels.gpu.calibrate import Launches, predict_gathers
from hwmodels.kernels.gpu import model_of
from hwmodels.registry import params_of
from simkit.errors import InputError, UnavailableError
from simkit.measure import bundle, wheelhouse
from simkit.measure.bundle import write_bundle
from simkit.measure.points import gemm_points, sparse_points
from simkit.plots import measured as measured_plots
from simkit.plots import validation as validation_plots
from simkit.validation.bundles import validate_bundle
from simkit.validation.gpu import find_device, gpus, joules_curve, validate_reference
from simkit.validation.scores import break_even, score


def test_score_is_what_it_says() -> None:
    row = score(
        "s", "m", np.array([1.1, 0.9, 2.0]), np.array([1.0, 1.0, 1.0]), rows_fit=7, tokens=np.array([1, 1, 300])
    )
    assert row["mape_percent"] == pytest.approx(40.0)
    assert row["bias_percent"] == pytest.approx(100 / 3)
    assert row["p90_percent"] == pytest.approx(100 * np.quantile([0.1, 0.1, 1.0], 0.9))
    assert (row["rows_fit"], row["rows_scored"]) == (7, 3)
    assert row["bands"]["M=1"] == {"rows": 2, "mape_percent": pytest.approx(10.0), "bias_percent": pytest.approx(0.0)}
    assert row["bands"]["M=129-512"]["rows"] == 1


@pytest.mark.parametrize(
    ("speedup", "wanted"),
    [([4.0, 2.0, 1.5], 1.0), ([0.9, 0.8, 0.7], 0.0), ([2.0, 1.5, 0.5], 0.75), ([2.0, 1.0, 0.5], 0.5)],
)
def test_break_even_lies_where_the_curve_crosses_one(speedup: list[float], wanted: float) -> None:
    assert break_even(np.array([0.1, 0.5, 1.0]), np.array(speedup)) == pytest.approx(wanted)


def test_figures_draw_the_numbers_they_are_given() -> None:
    tokens, ones = np.array([1, 40]), np.ones(2)
    ours = score("s", "calibrated", np.array([1.1, 0.8]), ones, rows_fit=1, tokens=tokens)
    foil = score("s", "naive_roofline", np.array([0.5, 0.5]), ones, rows_fit=0, tokens=tokens)
    rows = [{**ours, "floor_percent": (4.0, 9.0)}, foil]
    ax = validation_plots.error_by_band(rows, "s")
    assert sorted(bar.get_height() for bar in ax.patches[:2]) == pytest.approx([10.0, 20.0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "17-128"]
    assert len({bar.get_hatch() for bar in (ax.patches[0], ax.patches[2])}) == 2
    with pytest.raises(InputError, match="known: s"):
        validation_plots.error_by_band(rows, "t")
    density = np.array([0.5, 0.1])
    curve = validation_plots.curve_against_density(
        density, {"measured": np.array([1.0, 2.0]), "calibrated": np.array([1.1, 2.2])}
    )
    assert curve.lines[0].get_xdata().tolist() == [0.1, 0.5]
    assert validation_plots.predicted_against_measured(np.array([1.0, 2.0]), np.array([1.1, 1.9])).get_xscale() == "log"


@pytest.mark.slow
def test_plot_draws_from_files_and_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnk = np.array([[p["m"], p["n"], p["k"]] for p in gemm_points()])
    took = model_of(params_of(load_arch("h100_sxm")), 16).predict(mnk)
    rows = [{"point": "", "op": "gemm", "m": int(m), "n": int(n), "k": int(k), "flaw": ""} for m, n, k in mnk]
    stored = [{**row, "seconds": t, "raw_seconds": [t] * 7} for row, t in zip(rows, took.tolist(), strict=True)]
    monkeypatch.setattr(bundle, "FOLDER", tmp_path)
    write_bundle(tmp_path / "h100_sxm" / "calibrate.parquet", stored, {})
    ax = measured_plots.error_bands(["h100_sxm"])
    assert max(bar.get_height() for bar in ax.containers[0]) < 6 < max(bar.get_height() for bar in ax.containers[1])
    measured, ours = measured_plots.predicted(["h100_sxm"]).lines[1].get_data()
    assert set(measured) <= set(took)
    np.testing.assert_allclose(ours, measured, rtol=0.3)
    lines = {line.get_label(): line.get_ydata() for line in measured_plots.joules_density(["h100_sxm"]).lines}
    assert (lines["fastest kernel"] <= 1.001 * lines["dense"]).all()
    public = tmp_path / "sparse_mlp_l40s_x_fp32.csv"
    public.write_text("sparsity,dense_ms,sparse_ms,optimal_ms\n0.8,1.0,0.5,0.4\n")
    assert measured_plots.speedup_measured([str(public)]).lines[0].get_ydata().tolist() == [2.0]
    for draw, name, says in (
        (measured_plots.predicted, "none.csv", "no file none.csv"),
        (measured_plots.predicted, str(public), "give a file named gemm_"),
        (measured_plots.error_bands, "l4", "no bundle for l4"),
        (measured_plots.joules_density, "eie", "arch 'eie' runs kernel 'eie', not 'gpu'"),
    ):
        with pytest.raises(InputError, match=says):
            draw([name])
    with pytest.raises(InputError, match="2 inputs; this figure is drawn from one"):
        measured_plots.predicted(["a", "b"])


def resolved(name: str, version: str, *requires: str) -> dict[str, dict[str, object]]:
    return {"metadata": {"name": name, "version": version, "requires_dist": list(requires)}}


INSTALLS = [
    resolved("torch", "2.13.0", "triton==3.7.1", "sympy", "numpy"),
    resolved("triton", "3.7.1"),
    resolved("sympy", "1.14.0"),
    resolved("numpy", "2.4.6"),
    resolved("ruamel.yaml", "0.19.1", "ruamel.yaml.clib; python_version < '3.12'", "oldest; extra == 'old'"),
    resolved("ruamel.yaml.clib", "0.2"),
    resolved("oldest", "1"),
    resolved("nvidia-ml-py", "13"),
]
OURS = ["torch>=2.7", "ruamel.yaml>=0.18", "nvidia-ml-py>=12; extra == 'gpu'", "dask; extra == 'cluster'"]


def test_wheelhouse_leaves_out_what_the_node_has_and_what_that_alone_needs() -> None:
    start = ["torch>=2.7", "ruamel.yaml>=0.18"]
    assert wheelhouse.select(INSTALLS, start, "3.12", ["Torch", "triton"]) == ["ruamel-yaml==0.19.1"]
    assert wheelhouse.select(INSTALLS, [*start, "numpy"], "3.12", ["torch"]) == ["numpy==2.4.6", "ruamel-yaml==0.19.1"]
    clib = ["ruamel-yaml==0.19.1", "ruamel-yaml-clib==0.2"]
    assert wheelhouse.select(INSTALLS, start, "3.11", ["torch"]) == clib
    assert "oldest==1" in wheelhouse.select(INSTALLS, ["ruamel.yaml[old]"], "3.11", [])


def test_wheelhouse_pins_what_it_gathers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(python: str, words: list[str]) -> str:
        asked.append(words)
        if "--report" in words:
            Path(words[words.index("--report") + 1]).write_text(json.dumps({"install": INSTALLS}))
        return ""

    monkeypatch.setattr(wheelhouse, "run_pip", run)
    monkeypatch.setattr(wheelhouse.metadata, "requires", lambda name: OURS)
    wheelhouse.gather("3.12", tmp_path / "w")
    resolve, download, own = asked
    for words in (resolve, download):
        assert words[words.index("--python-version") + 1] == "3.12"
        assert "--only-binary=:all:" in words
    assert resolve[resolve.index("--constraint") + 1] == str(wheelhouse.ROOT / "constraints.txt")
    assert resolve[-3:] == ["torch>=2.7", "ruamel.yaml>=0.18", "nvidia-ml-py>=12"]
    assert download[-3:] == ["nvidia-ml-py==13", "ruamel-yaml==0.19.1", wheelhouse.MODEL]
    assert own[0] == "wheel"


def test_wheelhouse_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wheelhouse.main(["--constraints", str(tmp_path / "none.txt"), "--out", str(tmp_path / "w")]) == 2
    assert "no constraints file" in capsys.readouterr().err
    with pytest.raises(UnavailableError, match=r"could not be gathered: ERROR: .*no_such_command"):
        wheelhouse.run_pip("3.12", ["no_such_command"])


def test_devices_are_found_in_file_names() -> None:
    assert {find_device(f"gemm_bf16_{name}") for name in gpus()} == set(gpus())
    assert find_device("gemm_bf16_a100") == "a100_sxm"
    assert find_device("sparse_mlp_l40s_mistral7b_fp32") == "l40s"
    with pytest.raises(InputError, match="names no known GPU"):
        find_device("gemm_bf16_mi300")


def test_a_file_of_an_unknown_gpu_is_left_out_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gemm_bf16_mi300.csv").write_text("m,n,k,latency_ms\n1,128,128,0.01\n")
    (tmp_path / "gemm_bf16_h200.csv").write_text("m,n,k,latency_ms\n1,128,512,0.0032\n16,4096,4096,0.012\n")
    rows = validate_reference(tmp_path)
    assert "left out: file name 'gemm_bf16_mi300' names no known GPU" in capsys.readouterr().err
    assert {row["set"] for row in rows} == {"gemm_bf16_h200 carried from h100_sxm"}
    ours = next(row for row in rows if row["model"] == "calibrated")
    assert (ours["rows_fit"], ours["rows_scored"]) == (400, 2)
    assert ours["mape_percent"] < 30


def test_joules_fall_with_density_and_never_pass_dense() -> None:
    found = joules_curve("h100_sxm", 11008, 4096, [0.05, 0.3, 1.0])
    assert found["joules"].is_monotonic_increasing
    assert (found["joules"] <= found["dense_joules"] * 1.001).all()
    assert found["dense_joules"].is_monotonic_increasing  # a zero operand still saves a little toggling
    assert found["dense_joules"].max() < 1.01 * found["dense_joules"].min()


def test_validation_tells_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        validate_reference(tmp_path / "none")
    with pytest.raises(InputError, match="holds no file named gemm_"):
        validate_reference(tmp_path)
    with pytest.raises(InputError, match="no bundle for l4"):
        validate_bundle("l4", tmp_path)


def test_bundles_of_a_gpu_that_obeys_the_model_score_well(tmp_path: Path) -> None:
    model = model_of(params_of(load_arch("h100_sxm")), 16)
    rng = np.random.default_rng(0)

    def row(point: dict[str, object], seconds: float, **more: object) -> dict[str, object]:
        raw = [seconds * float(x) for x in rng.normal(1, 0.01, 7)]
        return {**point, "point": "", "flaw": "", "seconds": float(np.median(raw)), "raw_seconds": raw, **more}

    gemms = gemm_points()
    seconds = model.predict([[p["m"], p["n"], p["k"]] for p in gemms])
    write_bundle(
        tmp_path / "h100_sxm" / "calibrate.parquet", [row(p, t) for p, t in zip(gemms, seconds, strict=True)], {}
    )
    sparse = []
    for point in sparse_points():
        m, k, n, density = (float(point[name]) for name in ("m", "k", "n", "density"))
        if m > 16 or point["kernel"] not in ("gather_gemv", "dense") or point["heat"] == "warm":
            continue
        rows = k * (1 - (1 - density) ** m)
        runs = rows * (1 - rows / k) + 1
        one = Launches(*(np.array([x]) for x in (rows, runs, m, int(k), int(n))))
        took = predict_gathers(one, model.timing._replace(dram=2.4e12), 600.0)[0]
        if point["kernel"] == "dense":
            took = model.predict([[int(m), int(n), int(k)]])[0]
        sparse.append(row(point, took, rows=rows, runs=runs))
    sparse.append(row({**sparse[0], "kernel": "gather_gemv", "heat": "cold"}, 99.0) | {"flaw": "throttled"})
    write_bundle(tmp_path / "h100_sxm" / "sparse.parquet", sparse, {})
    found = {(r["set"], r["model"]): r for r in validate_bundle("h100_sxm", tmp_path)}
    assert found["h100_sxm gemm", "calibrated"]["mape_percent"] < 5
    gather = found["h100_sxm gather", "calibrated"]
    assert gather["mape_percent"] < 5 < found["h100_sxm gather", "naive_roofline"]["mape_percent"]
    assert gather["left_out"] == 1
    for even in gather["break_even_density"].values():
        assert even["predicted"] == pytest.approx(even["measured"], abs=0.05)
