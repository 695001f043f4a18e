"""Whatever cannot be used: one line that names it and the remedy, an exit code by kind, nothing half-written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_cli import error_line, simkit

HEAD = "traces: [{trace}]\narchs: [cnvlutin]\n"
SPECS = {
    "typo.yaml": "feilds: {lanes: [8]}",
    "none.yaml": "fields: {lanes: []}",
    "empty.yaml": "fields: {lanes: [8]}\nconstraints: ['lanes > 10']",
    "million.yaml": "fields: {lanes: {from: 1, to: 1000, step: 1}, brick: {from: 1, to: 1000, step: 1}}",
    "field.yaml": "fields: {lane: [8]}",
    "twice.yaml": "archs: [eie]",
    "good.yaml": "fields: {lanes: [8, 16]}",
}
SWEEP = ("sweep", "-o", "made")
BAD = [
    ((*SWEEP, "typo.yaml"), 2, "typo.yaml:3: feilds: unknown field; did you mean 'fields'"),
    ((*SWEEP, "none.yaml"), 2, "fields.lanes: an empty list; give at least one value"),
    ((*SWEEP, "empty.yaml"), 2, "no point is left: the constraints rule out all 1; relax one"),
    ((*SWEEP, "million.yaml"), 2, "a grid of 1,000,000 points; look at it with --dry-run, or go ahead with --yes"),
    ((*SWEEP, "field.yaml"), 2, "has no field 'lane'; did you mean 'lanes'"),
    ((*SWEEP, "twice.yaml"), 2, 'twice.yaml:3: found duplicate key "archs"'),
    (
        (*SWEEP, "gone.yaml"),
        2,
        "cannot read the spec gone.yaml: No such file or directory; the how-to 'Sweep and search",
    ),
    ((*SWEEP, "good.yaml", "--scheduler", "somewhere"), 2, "write tcp://HOST:PORT or tls://HOST:PORT"),
    ((*SWEEP, "good.yaml", "--scheduler", "tls://127.0.0.1:9"), 2, "--tls-ca is missing"),
    ((*SWEEP, "good.yaml", "--processes", "-1"), 2, "must be 0 (in this process) or more"),
    (("search", "-o", "made", "typo.yaml"), 2, "feilds: unknown field"),
    (
        ("report", "old.parquet", "-o", "made"),
        3,
        "written by another version (schema zeroskip.result/0, this one reads",
    ),
    (("report", "plain.parquet", "-o", "made"), 3, "is a table but not a result"),
    (("report", "broken.parquet", "-o", "made"), 3, "is damaged or not Parquet"),
    (("report", "gone.parquet", "-o", "made"), 2, "no result file at gone.parquet; make one with: simkit replay"),
    (("plot", "speedup", "old.parquet", "-o", "made.png"), 3, "written by another version"),
    (("plot", "pareto", "plain.parquet", "-o", "made.png"), 2, "the table of points has no column 'cycles'; known: a"),
    (("plot", "agreement", "plain.parquet", "-o", "made.png"), 2, "has no column 'predicted'"),
    (("plot", "agreement", "broken.parquet", "-o", "made.png"), 3, "cannot be read as a table"),
    (
        ("plot", "speedup", "-o", "made.png"),
        2,
        "is drawn from results (Parquet, or a folder of parts); give at least one",
    ),
    (
        ("plot", "speedup", "x.zarr", "-o", "made.png"),
        2,
        "x.zarr is a trace, not a result; replay it: simkit replay x.zarr",
    ),
    (("plot", "speedups", "x", "-o", "made.png"), 2, "did you mean 'speedup'"),
    (("compare", "methods", "--tuning", "lroa", "-o", "made"), 2, "tuning 'lroa' is not known; did you mean 'lora'"),
    (("plot", "speedup", "x", "-o", "made.gif"), 2, "a figure ends in .png, .pdf, .svg"),
    (("ls", "arch"), 2, "did you mean 'archs'"),
    (("show", "arhc", "eie"), 2, "did you mean 'arch'"),
    (("show", "tabel", "x"), 2, "did you mean 'table'"),
]


@pytest.fixture
def place(tmp_path: Path, plain_trace_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in SPECS.items():
        (tmp_path / name).write_text(HEAD.format(trace=plain_trace_path) + text + "\n", encoding="utf-8")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    stamp = {b"zeroskip": json.dumps({"schema": "zeroskip.result/0", "runs": {}}).encode()}
    pq.write_table(pa.table({"run": ["a"]}).replace_schema_metadata(stamp), tmp_path / "old.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "x.zarr").symlink_to(plain_trace_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("args", "code", "wanted"), BAD, ids=[" ".join(args) for args, _, _ in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(place: Path, args: tuple[str, ...], code: int, wanted: str) -> None:
    before = sorted(place.rglob("*"))
    assert wanted in error_line(simkit(*args), code)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "command",
    [
        ("replay", "x.zarr", "--arch", "cnvlutin", "-q"),
        ("plot", "density", "x.zarr"),
        ("timeline", "x.zarr", "--arch", "cnvlutin", "--tokens", "8"),
        ("sweep", "good.yaml", "-q"),
    ],
    ids=lambda command: command[0],
)
def test_a_place_that_cannot_be_written_is_exit_code_6(place: Path, command: tuple[str, ...]) -> None:
    (place / "file").write_text("in the way")
    before = sorted(place.rglob("*"))
    line = error_line(simkit(*command, "-o", "file/in/made.png"), 6)
    assert re.search(r"cannot write \S*file/in/made.png\S*: Not a directory; give a place that can be written", line)
    assert sorted(place.rglob("*")) == before


def test_scheduler_that_is_not_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs dask.distributed: pip install 'zeroskip[cluster]'")
    monkeypatch.setattr("simkit.explore.cluster.Cluster.__init__.__defaults__", (None, None, None, 1.0, 1.0))
    before = sorted(place.rglob("*"))
    line = error_line(simkit("sweep", "good.yaml", "--scheduler", "tcp://127.0.0.1:9", "-o", "made", "-q"), 4)
    assert "no scheduler answers at tcp://127.0.0.1:9 within 1 s; start one with 'dask scheduler'" in line
    assert sorted(place.rglob("*")) == before


def test_a_million_points_may_be_looked_at(place: Path) -> None:
    spec = place / "many.yaml"
    spec.write_text((place / "good.yaml").read_text().replace("[8, 16]", "{from: 1, to: 120000, step: 1}"))
    done = simkit("sweep", str(spec), "--dry-run")
    assert done.returncode == 0
    assert "120,000 points" in done.stdout
    assert not (place / "out").exists()
