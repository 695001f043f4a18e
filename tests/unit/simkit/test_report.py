"""The report's facts; how the page behaves is tested in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from plain_result import ARCHS, plain_result

import hwmodels
import simkit as sk
import simkit.evidence
import traces
from simkit.errors import InputError
from simkit.report import MAX_ROWS, table_of, write_report
from simkit.report_facts import arch_rows, layer_table, run_facts, statuses, trace_rows

CHECKS = [
    {"arch": "eie", "target": "A", "verdict": "exact", "error": 0.0, "source": "s", "reason": ""},
    {"arch": "eie", "target": "B", "verdict": "off", "error": -0.25, "source": "s", "reason": "why"},
    {"arch": "eie", "target": "C", "verdict": "skipped", "error": None, "source": "s", "reason": "why"},
]


@pytest.fixture(autouse=True)
def _few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simkit.evidence.published_rows", lambda: CHECKS)


def test_page_is_self_contained_and_whole(tmp_path: Path) -> None:
    out = write_report(plain_result(), tmp_path / "deep" / "r.html", title="A & B")
    html = out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["r.html"]
    assert "<h1>A &amp; B</h1>" in html
    page = re.sub(r"(?s)<script>.*?</script>", "", html)
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:)", page)
    data = json.loads(re.search(r'(?s)id="report-data">(.*?)</script>', html).group(1))
    assert {row["arch"] for row in data["runs"]} == set(ARCHS)
    row = next(r for r in data["runs"] if r["arch"] == "cnvlutin" and r["tuning"] == "relu")
    assert row["energy_per_token"] == pytest.approx(5.0)
    assert row["speedup"] == pytest.approx(5.0)


def test_empty_result_writes_nothing(tmp_path: Path) -> None:
    result = plain_result()
    with pytest.raises(InputError, match="the result has no rows"):
        write_report(sk.Result(result.frame.iloc[:0], result.meta), tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_design_table_counts_statuses() -> None:
    rows, _ = arch_rows(plain_result())
    eie = rows.set_index("name").loc["eie"]
    found = list(statuses(hwmodels.load_arch("eie").model_dump()))
    assert eie["published"] == found.count("published") > 0
    assert eie["assumed"] == found.count("assumed") > 0
    assert eie["clock"] == pytest.approx(800.0)


def test_a_design_of_another_version_is_said_so() -> None:
    result = plain_result()
    for meta in result.meta["runs"].values():
        meta["arch"]["hash"] = "other"
    rows, _ = arch_rows(result)
    assert set(rows["title"]) == {"not known to this installation"}


def test_checks_of_a_design() -> None:
    status = simkit.evidence.design_status("eie")
    assert (status["checks"], status["exact"], status["off"]) == (2, 1, 1)
    assert status["worst"] == pytest.approx(25.0)
    assert status["note"] == "largest at: B"
    assert simkit.evidence.design_status("cnvlutin")["checks"] == 0


def test_a_gpus_errors_on_measurements_are_told() -> None:
    status = simkit.evidence.design_status("h100_sxm")
    best = next(r for r in simkit.evidence.measured_rows() if r["device"] == "h100_sxm" and r["model"] == "calibrated")
    assert f"mean error {best['mape_percent']:.1f} %" in status["measured"]
    assert best["rows_scored"] > 0
    assert simkit.evidence.design_status("eie")["measured"] == ""


def test_traces_appear_once_with_what_was_measured() -> None:
    rows, _ = trace_rows(plain_result())
    assert rows["name"].tolist() == ["lora", "relu"]
    assert rows["accuracy"].tolist() == [0.85, 0.80]


def test_layers_and_provenance() -> None:
    result = plain_result()
    layers = layer_table(result)
    assert len(layers) == len(result.ops) <= MAX_ROWS
    assert layers["energy_uj"].sum() == pytest.approx(result.frame["energy_pj"].sum() / 1e6)
    facts = dict(run_facts(result))
    assert "arch cnvlutin" in facts["run lora-cnvlutin"]
    assert facts["source"] == "not from git"


def test_columns_without_a_value_are_left_out() -> None:
    made = table_of(pd.DataFrame({"a": [1.0, None], "b": [None, None]}), {"a": "A", "b": "B", "c": "C"})
    assert [column["title"] for column in made["columns"]] == ["A"]
    assert [row[0]["text"] for row in made["rows"]] == ["1", "–"]


def test_notebook_representations(small_trace_path: Path) -> None:
    arch = sk.arch("cnvlutin", memory__bandwidth="10 GB/s")._repr_html_()
    assert "<td>memory.bandwidth</td><td>10 GB/s</td><td>assumed</td>" in arch
    assert "<td>clock</td><td>606 MHz</td><td>published</td>" in arch
    trace = sk.load_trace(small_trace_path)
    assert f"{trace.n_tokens:,} real tokens" in trace._repr_html_()
    assert f"<td>{trace.sites['layers.0.down'].density():.4f}</td>" in trace._repr_html_()
    assert "<td>relufy</td>" in traces.load_tuning("relu-lora")._repr_html_()
    assert "<td>0.850 ± 0.010</td>" in plain_result()._repr_html_()
