"""What ``make fuzz`` found: input that ended in a traceback, or in a line that did not say what is at fault."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from plain_result import plain_result

import hwmodels
import simkit as sk
import traces
from simkit import cli
from simkit.explore.grid import make_plan
from simkit.explore.search import SearchSpec
from simkit.explore.spec import load_spec
from simkit.explore.sweep import write_points
from simkit.measure.formats import import_file
from simkit.results.result import Result
from simkit.validation.gpu import predictions, validate_reference


@pytest.mark.parametrize("arrays", [{"a": np.eye(4)}, {}])
def test_archive_named_as_one_array(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "m.npz", **arrays)
    (tmp_path / "m.npz").rename(tmp_path / "m.npy")
    with pytest.raises(traces.InputError, match=r"m\.npy is an archive of arrays; name it \.npz"):
        traces.import_masks(tmp_path / "m.npy", tmp_path / "t.zarr", n=4)


@pytest.mark.parametrize("n", [np.datetime64("2026-01-01"), 3.7, np.nan, "3", 0, -2, True, 1j])
def test_outputs_in_an_archive_are_a_whole_number(tmp_path: Path, n: object) -> None:
    np.savez(tmp_path / "m.npz", a=np.eye(4), a_n=np.array(n))
    with pytest.raises(traces.InputError, match=r"m\.npz: 'a_n' = .*must be N of 'a', a whole number of at least 1"):
        traces.import_masks(tmp_path / "m.npz", tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr").exists()


@pytest.mark.parametrize("kind", ["[lora]", "{a: 1}"])
def test_type_of_a_tuning_that_is_no_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "own.yaml").write_text(f"name: x\nmodule: {{type: {kind}}}\n")
    with pytest.raises(traces.InputError, match=r"own\.yaml:2: field 'module.*is not known"):
        traces.load_tuning(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("pair", ["[1, x]", "[1, 2.5]", "[1, true]", "x", f"[1, {'9' * 30}]"])
def test_lists_of_parameters_hold_whole_numbers(tmp_path: Path, pair: str) -> None:
    text = (Path(sk.__file__).parents[1] / "hwmodels/archs/tensordash.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("[1, 3]", pair))
    with pytest.raises(sk.InputError, match=r"own\.yaml:\d+: .*'offsets' = .*must be a list of lists of whole numbers"):
        sk.arch(tmp_path / "own.yaml")


def test_offsets_are_pairs(plain_trace_path: Path) -> None:
    offsets = [[0, 0], [1, 0, 2]]
    with pytest.raises(sk.InputError, match=r"'offsets' takes pairs \[h, d\]"):
        sk.replay(sk.load_trace(plain_trace_path), sk.arch("tensordash", offsets=offsets))


@pytest.mark.parametrize("rows", [1, 45])
def test_too_few_gemms_name_their_file(tmp_path: Path, rows: int) -> None:
    lines = [f"{i + 1},64,64,0.01" for i in range(rows)]
    (tmp_path / "gemm_bf16_l4.csv").write_text("m,n,k,latency_ms\n" + "\n".join(lines) + "\n")
    with pytest.raises(sk.InputError, match=f"'gemm_bf16_l4' holds {rows} measured GEMMs, too few"):
        predictions(tmp_path / "gemm_bf16_l4.csv")


def test_runs_that_cannot_be_paired_are_named(plain_trace_path: Path) -> None:
    trace = sk.load_trace(plain_trace_path)
    two = sk.replay(trace, ["cnvlutin", "eie"])
    archs = [sk.arch("sparten", units=16), sk.arch("sparten", units=8)]
    with pytest.raises(sk.InputError, match=r"'plain' on 'cnvlutin' \.\.\. with 'plain' on 'sparten\[units=16\]'"):
        sk.diff(two, sk.replay(trace, archs))


def test_constraints_that_leave_nothing_are_quoted(plain_trace_path: Path) -> None:
    with pytest.raises(sk.InputError, match="relax one of 'lanes > 99'"):
        make_plan([str(plain_trace_path)], [("cnvlutin", {})], tables=["default_45nm"], constraints=["lanes > 99"])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_of_a_search_is_one_that_samplers_take(tmp_path: Path, seed: int) -> None:
    (tmp_path / "own.yaml").write_text(f"traces: [t.zarr]\narchs: [cnvlutin]\nseed: {seed}\n")
    with pytest.raises(sk.InputError, match=r"own\.yaml:3: seed: "):
        load_spec(tmp_path / "own.yaml", SearchSpec)


def test_control_characters_of_a_name_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simkit", "trace", "info", str(tmp_path / "a\x1b[2Jb\rc.zarr")])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    told = capsys.readouterr().err
    assert r"a\x1b[2Jb\rc.zarr" in told
    assert "\x1b" not in told
    assert len(told.splitlines()) == 1


def test_a_flipped_bit_of_a_result_is_damage(tmp_path: Path) -> None:
    """Rows stand in pages with checksums: no bit of them changes without a word."""
    made = plain_result()
    made.frame["count"] = np.random.default_rng(0).integers(0, 2**40, len(made.frame))
    path = Result(made.frame, made.meta).save(tmp_path / "r.parquet")
    data = path.read_bytes()
    silent = 0
    for place in range(4, len(data) // 2, max(1, len(data) // 200)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            silent += not sk.load_result(path).frame.equals(made.frame)
        except sk.CorruptError:
            continue
    assert silent == 0


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": "zeroskip.result/1"}', '{"schema": "zeroskip.result/1", "runs": {"a": 1}}']
)
def test_facts_of_runs_that_cannot_be_read_are_damage(tmp_path: Path, text: str) -> None:
    path = plain_result().save(tmp_path / "r.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"zeroskip": text.encode()}), path)
    with pytest.raises(sk.CorruptError, match=r"r\.parquet is damaged"):
        sk.load_result(path)


@pytest.mark.parametrize("out", ["", ".", "/"])
def test_nothing_is_written_where_a_folder_is_named(plain_trace_path: Path, out: str) -> None:
    trace = sk.load_trace(plain_trace_path)
    with pytest.raises(sk.StorageError, match=r"cannot write [./]: Is a directory"):
        sk.replay(trace, ["cnvlutin"]).save(out)
    with pytest.raises(traces.InputError, match="is a folder; name a file"):
        traces.export_trace(trace, out)


def test_names_that_are_not_utf_8_are_printed(
    plain_trace_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", screen)
    words = ["timeline", str(plain_trace_path), "-a", "cnvlutin", "-o", str(tmp_path / "a\udcff.json")]
    monkeypatch.setattr(sys, "argv", ["simkit", *words])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert screen.buffer.getvalue().decode().endswith("a\\udcff.json\n")


def test_a_node_without_scaling_names_its_row(plain_trace_path: Path) -> None:
    table = hwmodels.load_table("default_45nm")
    row = table.row("int16_mac").model_copy(update={"node_nm": 450.0})
    odd = hwmodels.EnergyTable(name="odd", title="", extends=["default_45nm"], rows={"int16_mac": row})
    with pytest.raises(
        sk.InputError, match="row 'int16_mac' of energy table 'odd' for arch 'cnvlutin': no energy scal"
    ):
        sk.replay(sk.load_trace(plain_trace_path), "cnvlutin", table=odd)


def test_a_folder_without_measurements_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sk.InputError, match=r"'\.' holds no file named gemm_"):
        validate_reference(Path())


def test_points_whose_values_are_of_several_types_are_stored(tmp_path: Path) -> None:
    table = pd.DataFrame({"rows": [8, True, "x", None], "columns": [1, 2, 3, 4], "reason": ["", "a", "b", "c"]})
    read = pd.read_parquet(write_points(table, tmp_path / "points.parquet"))
    assert read["rows"].fillna("-").tolist() == ["8", "True", "x", "-"]
    assert read["columns"].tolist() == [1, 2, 3, 4]


def test_results_of_names_that_are_not_utf_8(tmp_path: Path) -> None:
    made = plain_result()
    path = made.save(tmp_path / "a\udcff.parquet")
    assert sk.load_result(path).frame.equals(made.frame)


def test_a_trade_off_without_accuracies_names_the_trace(plain_trace_path: Path) -> None:
    with pytest.raises(sk.InputError, match=r"no trace in this result \('plain'\) has a measured accuracy"):
        sk.plots.accuracy_energy(sk.replay(sk.load_trace(plain_trace_path), ["cnvlutin"]))


@pytest.mark.parametrize(("column", "cell"), [("op_bytes", "1e400"), ("flop", "-inf"), ("energy_j", "inf")])
def test_energies_of_infinite_size_are_refused(tmp_path: Path, column: str, cell: str) -> None:
    row = {"workload": "a_pbf16", "flop": "1e9", "op_bytes": "1e6", "energy_j": "1", "time_ms": "2", column: cell}
    (tmp_path / "energy_l4.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(sk.InputError, match=f"energy_l4.csv: row 2: {column} = .*inf is no finite number"):
        import_file(tmp_path / "energy_l4.csv")


@pytest.mark.parametrize("k", ["9" * 30, "1e400", "2097152"])
def test_dimensions_of_gemms_have_a_bound(tmp_path: Path, k: str) -> None:
    (tmp_path / "gemm_l4.csv").write_text(f"m,n,k,latency_ms\n16,16,{k},0.1\n")
    with pytest.raises(sk.InputError, match=r"gemm_l4\.csv: row 2: k = .* is no whole number of at least 1"):
        import_file(tmp_path / "gemm_l4.csv")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("l2", 1e-320),
        ("dram", 1e300),
        ("launch_s", 1e9),
        ("overlap", 1000),
        ("skip_overhead", -2.0),
        ("page_bytes", -1.0),
        ("limit_w", 1e-300),
    ],
)
def test_rates_of_a_gpu_that_no_machine_has(plain_trace_path: Path, name: str, value: float) -> None:
    with pytest.raises(sk.InputError, match=f"parameter '{name}' = .*, must be from .* to "):
        sk.replay(sk.load_trace(plain_trace_path), sk.arch("a100_sxm", **{name: value}))
