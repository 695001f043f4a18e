"""The report's facts; how the page behaves is tested in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from drawn_traces import drawn_traces
from plain_result import ARCHS, plain_result

import hwmodels
import simkit as sk
import simkit.report.evidence
import traces
from simkit.errors import InputError
from simkit.report.charts import MAX_ROWS, chart_data
from simkit.report.facts import arch_rows, layer_table, run_facts, statuses, trace_rows
from simkit.report.page import report, table_of

CHECKS = [
    {"arch": "eie", "target": "A", "verdict": "exact", "error": 0.0, "source": "s", "reason": ""},
    {"arch": "eie", "target": "B", "verdict": "off", "error": -0.25, "source": "s", "reason": "why"},
    {"arch": "eie", "target": "C", "verdict": "skipped", "error": None, "source": "s", "reason": "why"},
]


@pytest.fixture(autouse=True)
def _few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simkit.report.evidence.published_rows", lambda: CHECKS)


def test_page_is_self_contained_and_whole(tmp_path: Path) -> None:
    out = report(plain_result(), tmp_path / "deep" / "r.html", title="A & B")
    html = out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["r.html"]
    assert "<h1>A &amp; B</h1>" in html
    page = re.sub(r"(?s)<script>.*?</script>", "", html)
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:)", page)
    data = json.loads(re.search(r'(?s)id="report-data">(.*?)</script>', html).group(1))
    runs = unpacked(data["runs"])
    assert {row["arch"] for row in runs} == set(ARCHS)
    row = next(r for r in runs if r["arch"] == "cnvlutin" and r["tuning"] == "relu")
    assert row["energy_per_token"] == pytest.approx(5.0)
    assert row["speedup"] == pytest.approx(5.0)
    parts = [r for r in unpacked(data["energy"]) if r["arch"] == "cnvlutin" and r["tuning"] == "relu"]
    assert {r["part"]: r["energy_per_token"] for r in parts} == pytest.approx(
        {"MAC": 2.0, "on-chip": 1.5, "DRAM": 1.0, "static": 0.5}
    )
    shares = [r["share"] for r in unpacked(data["time"]) if r["arch"] == "cnvlutin" and r["tuning"] == "relu"]
    assert sum(shares) == pytest.approx(100.0)
    assert len(html) < 450_000


def unpacked(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table as the page stores it."""
    columns = {k: v if isinstance(v, list) else [v["words"][i] for i in v["at"]] for k, v in table.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_roofs_are_those_of_the_designs() -> None:
    data = chart_data(plain_result(), [])
    assert set(data["roofs"]) == set(ARCHS)
    assert data["roofs"]["systolic_32x32"]["peak"] == pytest.approx(
        32 * 32 * hwmodels.load_arch("systolic_32x32").clock_hz, rel=0.05
    )
    points = unpacked(data["roofline"])
    one = next(r for r in points if r["arch"] == "cnvlutin" and r["tuning"] == "lora")
    assert one["intensity"] == pytest.approx(100 * 256 * 64 / 4096)


def test_positions_of_traces_are_mapped() -> None:
    table = unpacked(chart_data(plain_result(), drawn_traces()[:2])["map"])
    drawn = drawn_traces()[0]
    assert {row["tuning"] for row in table} == {trace.name for trace in drawn_traces()[:2]}
    layer = [row["nonzeros"] for row in table if row["tuning"] == drawn.name and row["layer"] == 1]
    site = drawn.sites["layers.1.down"]
    assert sum(layer) / len(layer) == pytest.approx(site.density(), rel=1e-3)
    assert not unpacked(chart_data(plain_result(), [])["map"])


def test_empty_result_writes_nothing(tmp_path: Path) -> None:
    result = plain_result()
    with pytest.raises(InputError, match="the result has no rows"):
        report(sk.Result(result.frame.iloc[:0], result.meta), tmp_path / "r.html")
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
    assert rows["title"].str.endswith("has changed since this run; replay again, or give the one it used").all()


def test_checks_of_a_design() -> None:
    status = simkit.report.evidence.design_status("eie")
    assert (status["checks"], status["exact"], status["off"]) == (2, 1, 1)
    assert status["worst"] == pytest.approx(25.0)
    assert status["note"] == "largest at: B"
    assert simkit.report.evidence.design_status("cnvlutin")["checks"] == 0


def test_a_gpus_errors_on_measurements_are_told() -> None:
    status = simkit.report.evidence.design_status("h100_sxm")
    best = next(
        r for r in simkit.report.evidence.measured_rows() if r["device"] == "h100_sxm" and r["model"] == "calibrated"
    )
    assert f"mean error {best['mape_percent']:.1f} %" in status["measured"]
    assert best["rows_scored"] > 0
    assert simkit.report.evidence.design_status("eie")["measured"] == ""


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
