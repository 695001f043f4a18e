"""The public interface: what `import simkit` offers, loads, and takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hwmodels
import simkit as sk
import traces
from simkit.engine.inputs import as_archs, as_trace, as_traces
from simkit.explore.spec import as_spec
from simkit.results.result import as_result

VERBS = "tune record replay sweep search measure validate report compare cite diff table tuning_cost timeline gap"
NOUNS = "Result TuningCost archs tables arch load_trace load_result paper plots"
ERRORS = "ZeroskipError InputError CorruptError StorageError UnavailableError"
HEAVY = ("torch", "pandas", "matplotlib", "zarr", "numba", "scipy", "xarray", "pyarrow")


def run(code: str) -> str:
    """Run code in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def result(small_trace_path: Path) -> sk.Result:
    """Down-projections of the small trace on two archs."""
    return sk.replay(small_trace_path, ["cnvlutin", "systolic_32x32"], ops="down")


@pytest.fixture(scope="module")
def stored(result: sk.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same result in a file."""
    return result.save(tmp_path_factory.mktemp("stored") / "result.parquet")


def test_the_package_lists_verbs_and_nouns() -> None:
    assert set(sk.__all__) == {*VERBS.split(), *NOUNS.split(), *ERRORS.split(), "compare_methods", "__version__"}
    assert dir(sk) == sk.__all__
    assert all(callable(getattr(sk, name)) for name in VERBS.split())
    assert sk.tune is traces.tune
    assert sk.record is traces.record
    assert sk.compare_methods is sk.compare
    assert issubclass(sk.InputError, ValueError)
    assert sk.archs() == hwmodels.list_archs()
    assert sk.tables() == hwmodels.list_tables()


def test_importing_the_package_loads_nothing_heavy() -> None:
    found = run(f"import sys, simkit; dir(simkit); print([name for name in {HEAVY} if name in sys.modules])")
    assert found == "[]"


@pytest.mark.parametrize(
    "code",
    [
        "import simkit.report.evidence; import simkit as sk; print(sk.report.__name__, sk.measure.__name__)",
        "import simkit as sk; sk.report; import simkit.measure; print(sk.report.__name__, sk.measure.__name__)",
        "from simkit import measure, report; print(report.__name__, measure.__name__)",
    ],
)
def test_a_verb_is_not_hidden_by_the_package_of_its_name(code: str) -> None:
    assert run(code) == "report measure"


def test_modules_below_a_verb_of_their_packages_name_stay_importable() -> None:
    code = "import simkit.measure.meters as m, simkit.report.page as p, simkit.report.evidence; "
    code += "print(m.__name__, p.__name__, simkit.report.evidence.__name__)"
    assert run(code) == "simkit.measure.meters simkit.report.page simkit.report.evidence"


def test_replay_takes_paths_and_objects_one_or_many(small_trace_path: Path, result: sk.Result) -> None:
    loaded = sk.load_trace(small_trace_path)
    for given in (str(small_trace_path), [loaded], (small_trace_path,)):
        for archs in (["cnvlutin", sk.arch("systolic_32x32")], iter(["cnvlutin", "systolic_32x32"])):
            assert sk.replay(given, archs, ops=["down"]).ops.equals(result.ops)
    one = sk.replay(loaded, sk.arch("cnvlutin"), ops="down")
    assert one.summary()["cycles"].tolist() == result.summary()["cycles"].tolist()[:1]


def test_an_arch_file_is_a_path_too(tmp_path: Path, small_trace_path: Path) -> None:
    text = Path(hwmodels.__file__).with_name("archs").joinpath("cnvlutin.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("name: cnvlutin", "name: mine"), encoding="utf-8")
    assert sk.replay(small_trace_path, path, ops="down").summary()["arch"].tolist() == ["mine"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: as_traces([]), "no trace is given"),
        (lambda: as_traces(3), "int is not a trace; give a path"),
        (lambda: as_traces({"a": 1}), "dict is not a trace"),
        (lambda: as_trace(["a", "b"]), "no trace at 'a'"),
        (lambda: as_archs([]), "no arch is given"),
        (lambda: as_archs([3]), "int is not an arch; give a name"),
        (lambda: as_result(3), "int is not a result; give a path"),
        (lambda: as_result([]), "no result is given"),
        (lambda: as_spec(3), "int is not a spec; give a YAML file's path"),
        (lambda: as_spec({"traces": "t", "arch": "x"}), "spec:1: arch: unknown field; did you mean 'archs'"),
        (lambda: as_spec({"traces": "t", "archs": object()}), "a spec cannot hold a object"),
    ],
)
def test_what_is_neither_path_nor_object_is_one_line(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_one_trace_is_wanted_where_one_is_drawn(small_trace_path: Path, tmp_path: Path) -> None:
    with pytest.raises(sk.InputError, match="2 traces are given where one is wanted"):
        sk.timeline([small_trace_path] * 2, "cnvlutin", tmp_path / "t.json")  # type: ignore[arg-type]


def test_verbs_take_a_stored_result(result: sk.Result, stored: Path, tmp_path: Path) -> None:
    assert sk.cite(stored) == sk.cite(result) == sk.cite([str(stored)])
    assert repr(sk.table(stored)) == repr(sk.table(result))
    assert sk.diff(str(stored), result)["ratio"].dropna().eq(1).all()
    assert sk.report(stored, tmp_path / "a.html").read_text() == sk.report([result], tmp_path / "b.html").read_text()


def test_joined_results_keep_each_run_once(result: sk.Result, stored: Path) -> None:
    assert as_result([result, stored]).frame.equals(result.frame)


def test_measurements_are_joined_to_a_stored_result(small_trace_path: Path, tmp_path: Path) -> None:
    made = sk.replay(small_trace_path, "h100_sxm", ops="down")
    op = made.ops.iloc[0]
    row = {"device": "h100_sxm", "m": op["batch"], "k": op["k"], "n": op["n"], "seconds": 2e-5}
    table = pd.DataFrame([row | {"density": op["effectual_macs"] / op["macs"]}])
    path = made.save(tmp_path / "gpu.parquet")
    assert sk.validate(path, table).frame.equals(sk.validate(made, table).frame)


RESULT_FIGURES = ["speedup_bars", "speedup_density", "stall_breakdown", "energy_breakdown", "accuracy_energy", "pareto"]
TRACE_FIGURES = ["density_by_layer", "density_map", "union_density", "hot_neurons", "synchronisation_gap"]


def drawn(ax: Any) -> list[Any]:
    """Numbers that a figure shows."""
    from matplotlib import pyplot as plt

    found = [line.get_xydata().tolist() for line in ax.lines]
    found += [patch.get_bbox().bounds for patch in ax.patches]
    found += [part.get_offsets().tolist() for part in ax.collections if hasattr(part, "get_offsets")]
    plt.close(ax.figure)
    assert found
    return found


@pytest.mark.parametrize("name", RESULT_FIGURES)
def test_a_figure_takes_a_path_a_result_or_a_list(name: str, result: sk.Result, stored: Path) -> None:
    draw = getattr(sk.plots, name)
    wanted = drawn(draw(result))
    for given in (stored, str(stored), [stored], [result]):
        assert drawn(draw(given)) == wanted


@pytest.mark.parametrize("name", TRACE_FIGURES)
def test_a_figure_takes_a_path_a_trace_or_a_list(name: str, small_trace_path: Path) -> None:
    draw = getattr(sk.plots, name)
    trace = sk.load_trace(small_trace_path)
    wanted = drawn(draw(trace))
    for given in (small_trace_path, [str(small_trace_path)], [trace]):
        assert drawn(draw(given)) == wanted


def test_a_figure_takes_its_input_by_keyword(stored: Path, small_trace_path: Path) -> None:
    draw: Any = sk.plots.speedup_bars
    assert drawn(draw(result=stored)) == drawn(draw(stored))
    draw = sk.plots.density_by_layer
    assert drawn(draw(traces=small_trace_path)) == drawn(draw(small_trace_path))


def test_tables_are_drawn_from_files_frames_and_lists(tmp_path: Path) -> None:
    frame = pd.DataFrame({"predicted": [1.0, 2.1], "measured": [1.1, 2.0], "cycles": [1, 2], "energy": [2, 1]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for draw in (sk.plots.predicted_measured, lambda data: sk.plots.pareto(data, x="cycles", y="energy")):
        wanted = drawn(draw(frame))
        for given in (tmp_path / "t.csv", str(tmp_path / "t.parquet"), [tmp_path / "t.csv"], [frame]):
            assert drawn(draw(given)) == wanted


@pytest.mark.parametrize(
    ("name", "words"),
    [("speedup_bars", r"give the Result, or sk\.Result\(frame, result\.meta\)"), ("density_map", "is not a trace")],
)
def test_a_frame_where_runs_are_wanted_names_the_remedy(name: str, words: str, result: sk.Result) -> None:
    with pytest.raises(sk.InputError, match=words):
        getattr(sk.plots, name)(result.frame)


def test_a_trace_where_a_result_is_wanted_names_the_remedy(small_trace_path: Path) -> None:
    with pytest.raises(sk.InputError, match="is a trace, not a result; replay it"):
        sk.plots.speedup_bars(small_trace_path)
    with pytest.raises(sk.InputError, match="Trace is not a result; give a path"):
        sk.plots.speedup_bars(sk.load_trace(small_trace_path))


def test_swept_fields_are_columns(small_trace_path: Path, tmp_path: Path) -> None:
    swept = sk.sweep(
        small_trace_path,
        "cnvlutin",
        ops="down",
        fields={"lanes": [8, 16], "memory.bandwidth": "100 GB/s"},
        out=tmp_path,
        progress=False,
    )
    table = swept.summary()
    assert table[["lanes", "memory.bandwidth"]].to_numpy().tolist() == [[8, 1e11], [16, 1e11]]
    assert set(swept.ops["lanes"]) == {8, 16}
    per_layer = swept.pivot("lanes", "layer", "cycles")
    assert per_layer.sum(axis=1).tolist() == table["cycles"].tolist()
    assert swept.pivot("lanes", "component", "energy_pj").sum(axis=1).tolist() == pytest.approx(table["energy_pj"])
    again = sk.load_result(swept.save(tmp_path / "kept" / "swept.parquet"))
    assert again.summary()["lanes"].tolist() == [8, 16]
    with pytest.raises(sk.InputError, match="no column 'lane'; did you mean 'lanes'"):
        swept.pivot("lane", "layer", "cycles")


def test_a_pivot_over_a_swept_field_never_adds_runs(small_trace_path: Path, tmp_path: Path) -> None:
    crossed = sk.sweep(
        small_trace_path,
        "cnvlutin",
        ops="down",
        fields={"lanes": {"from": 8, "to": 16, "points": 2, "scale": "log"}, "filters": [8, 16]},
        out=tmp_path,
        progress=False,
    )
    with pytest.raises(sk.InputError, match="pivot over lanes, trace would add up runs"):
        crossed.pivot("lanes", "trace", "cycles")
    assert crossed.pivot("lanes", "filters", "energy_pj").shape == (2, 2)
    assert crossed.pivot("lanes", "filters", "speedup").shape == (2, 2)
    assert crossed.pivot(["lanes", "filters"], "component", "count").shape[0] == 4
    # an arch without the field is left out
    fixed = sk.replay(small_trace_path, ["systolic_32x32", "eie"], ops="down", weights="dense")
    both = as_result([crossed, fixed])
    assert both.pivot("lanes", "filters", "cycles").equals(crossed.pivot("lanes", "filters", "cycles"))


def test_a_field_of_a_columns_name_is_told_apart(small_trace_path: Path, tmp_path: Path) -> None:
    swept = sk.sweep(
        small_trace_path, "nvidia_2_4", ops="down", weights="dense", fields={"macs": [128, 256]}, out=tmp_path,
        progress=False,
    )  # fmt: skip
    table = swept.summary()
    assert table["arch.macs"].tolist() == [128, 256]
    assert table["macs"].nunique() == 1


def test_fields_change_together(small_trace_path: Path, tmp_path: Path) -> None:
    sets = [{"lanes": 8, "clock": "1 GHz"}, {"lanes": 16, "clock": "500 MHz"}]
    swept = sk.sweep(small_trace_path, "cnvlutin", ops="down", together=sets, out=tmp_path, progress=False)
    assert swept.summary()[["lanes", "clock"]].to_numpy().tolist() == [[8, 1e9], [16, 5e8]]
    one = sk.sweep(small_trace_path, "cnvlutin", ops="down", together=sets[1], out=tmp_path, progress=False)
    assert one.summary()["lanes"].tolist() == [16]


def test_a_search_takes_a_file_or_what_it_holds(small_trace_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    spec = {"traces": str(small_trace_path), "archs": "cnvlutin", "ops": ["down"], "fields": {"lanes": [8, 16]}}
    path = tmp_path / "spec.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in spec.items()), encoding="utf-8")
    by_file = sk.search(path, tmp_path / "a", trials=3, progress=False)
    given = spec | {"traces": small_trace_path}
    by_mapping = sk.search(given, tmp_path / "b", trials=3, progress=False)
    pd.testing.assert_frame_equal(by_file.table, by_mapping.table)
    assert (tmp_path / "a" / "study.db").is_file()


def test_an_arch_is_shown_in_one_line() -> None:
    arch = sk.arch("cnvlutin", lanes=32, memory__bandwidth="100 GB/s")
    assert repr(sk.arch("h100_sxm")) == "Arch('h100_sxm': kernel gpu, 1,980 MHz)"
    assert repr(arch) == str(arch)
    assert repr(arch).startswith("Arch('cnvlutin[lanes=32,memory.bandwidth=100 GB/s]': kernel cnvlutin, ")
    assert repr(arch).endswith("lanes 32 (was 16), memory.bandwidth 100 GB/s (was 25.6 GB/s))")
    assert len(repr(hwmodels.load_table("default_45nm"))) < 200


def test_completion_shows_fields_and_own_methods() -> None:
    shown = dir(sk.arch("cnvlutin"))
    assert {"memory", "params", "clock_hz", "hash", "with_", "settable", "param"} <= set(shown)
    assert not [name for name in shown if name.startswith(("_", "model_")) or name in ("copy", "dict", "json")]
    assert "bandwidth" in dir(sk.arch("cnvlutin").memory)
