"""A result holds its archs whole: own designs, variants and merged results are drawn, reported and cited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from matplotlib import pyplot as plt
from typer.testing import CliRunner

import hwmodels
import simkit as sk
from simkit.cli import app
from simkit.errors import InputError
from simkit.explore.sweep import points
from simkit.report.facts import arch_rows, validation_rows
from simkit.results.result import Result, concat, load_result
from simkit.results.runs import arch_of


@pytest.fixture(autouse=True)
def _few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simkit.report.evidence.published_rows", list)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A design of the user's own: the file's name and its fields ship nowhere."""
    path = tmp_path_factory.mktemp("own") / "mine.yaml"
    folder = Path(hwmodels.__file__).parent / "archs"
    text = (folder / "cnvlutin.yaml").read_text(encoding="utf-8")
    assert "name: cnvlutin\n" in text
    path.write_text(text.replace("name: cnvlutin\n", "name: mine\n"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def archs(own: Path) -> list[hwmodels.Arch]:
    mine = sk.arch(own)
    return [
        mine,
        mine.with_(lanes=8, memory__bandwidth="10 GB/s"),
        sk.arch("systolic_32x32", node="7 nm", clock="1 GHz"),
        sk.arch("cnvlutin"),
    ]


@pytest.fixture(scope="module")
def stored(plain_trace_path: Path, archs: list[hwmodels.Arch], tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = sk.replay(sk.load_trace(plain_trace_path), archs)
    return result.save(tmp_path_factory.mktemp("held") / "r.parquet")


def test_archs_come_back_as_they_were(
    stored: Path, archs: list[hwmodels.Arch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simkit.results.runs._ARCHS", {})
    metas = load_result(stored).meta["runs"].values()
    assert [arch_of(meta) for meta in metas] == archs
    assert [arch_of(meta).hash for meta in metas] == [meta["arch"]["hash"] for meta in metas]


def run(*words: Any) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    plt.close("all")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def test_report_and_roofline_of_own_archs(stored: Path, archs: list[hwmodels.Arch], tmp_path: Path) -> None:
    run("report", stored, "--out", tmp_path / "r.html")
    run("plot", "roofline", stored, "--out", tmp_path / "r.svg")
    page, drawn = (tmp_path / "r.html").read_text(), (tmp_path / "r.svg").read_text()
    for arch in archs:
        assert arch.name in page
        assert arch.name in drawn
    result = load_result(stored)
    rows = arch_rows(result)[0].set_index("name")
    assert rows.loc["mine", "title"] == archs[0].title
    assert rows.loc[archs[1].name, "bandwidth"] == pytest.approx(10.0)
    assert rows.loc[archs[2].name, "node"] == 7
    # all designs of the report have a roof, in the data that the page draws
    data = json.loads(page.partition('id="report-data">')[2].partition("</script>")[0])
    assert set(data["roofs"]) == {arch.name for arch in archs}
    assert "albericio2016cnvlutin" in sk.cite(result)


def test_a_sweep_of_own_archs_and_a_merged_result(
    own: Path, stored: Path, plain_trace_path: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "s.yaml"
    fields = "{lanes: [8, 16], memory.bandwidth: [10 GB/s, 20 GB/s], node: [7 nm]}"
    spec.write_text(f"traces: {plain_trace_path}\narchs: [{own}]\nfields: {fields}\n")
    run("sweep", spec, "--out", tmp_path / "o", "--processes", 1)
    parts = tmp_path / "o" / "parts"
    run("report", parts, "--out", tmp_path / "r.html")
    run("plot", "roofline", parts, stored, "--out", tmp_path / "r.pdf")
    merged = concat([load_result(stored), load_result(parts)]).save(tmp_path / "m.parquet")
    held = load_result(merged).meta["runs"].values()
    assert len(held) == 8
    for meta in held:
        assert arch_of(meta).hash == meta["arch"]["hash"]
    # one base for all variants of an own design, whose fields are those of its YAML
    kept = json.loads(pq.read_metadata(merged).metadata[b"zeroskip"])
    bases = {meta["arch"]["base"] for meta in kept["runs"].values() if meta["arch"]["name"].startswith("mine[lanes=")}
    assert len(bases & set(kept["shared"])) <= 2
    run("report", merged, "--out", tmp_path / "m.html")


def test_variants_of_a_sweep_are_kept_small(plain_trace_path: Path, tmp_path: Path) -> None:
    clocks = [f"{500 + step} MHz" for step in range(40)]
    swept = sk.sweep([plain_trace_path], ["cnvlutin"], fields={"clock": clocks}, out=tmp_path, progress=False)
    facts = [meta["arch"] for meta in swept.meta["runs"].values()]
    assert len({json.dumps(one["base"], sort_keys=True) for one in facts}) == 1
    assert max(len(json.dumps(one["changes"])) for one in facts) < 500
    stored = swept.save(tmp_path / "all.parquet")
    raw = json.loads(pq.read_metadata(stored).metadata[b"zeroskip"])
    assert len({one["arch"]["base"] for one in raw["runs"].values()}) == 1
    assert [arch_of(meta).clock_hz for meta in load_result(stored).meta["runs"].values()] == [
        float(500 + step) * 1e6 for step in range(40)
    ]


def older(result: Result) -> Result:
    """The result as an earlier version wrote it: archs by name and hash."""
    keep = ("name", "hash", "kernel", "source")
    runs = {
        run: {**meta, "arch": {key: meta["arch"][key] for key in keep}} for run, meta in result.meta["runs"].items()
    }
    return Result(result.frame, {"runs": runs})


def test_a_result_of_an_earlier_version(
    stored: Path, archs: list[hwmodels.Arch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simkit.results.runs._ARCHS", {})
    found = older(load_result(stored)).meta["runs"].values()
    *others, shipped = found
    assert arch_of(shipped) == archs[3]
    for meta in others:
        with pytest.raises(
            InputError, match=r"does not hold the arch '.*': an earlier version wrote it; replay again"
        ) as e:
            arch_of(meta)
        assert "\n" not in str(e.value)
    rows = arch_rows(older(load_result(stored)))[0].set_index("name")
    assert rows.loc["cnvlutin", "title"] == archs[3].title
    assert rows.loc["mine", "title"].endswith("replay again, or give the arch")
    assert sk.plots.roofline(older(load_result(stored)), archs=archs).lines
    plt.close("all")


def test_an_arch_that_cannot_be_read_is_told(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simkit.results.runs._ARCHS", {})
    meta = next(iter(load_result(stored).meta["runs"].values()))
    meta["arch"]["base"] = {**meta["arch"]["base"], "colour": "red"}
    with pytest.raises(InputError, match=r"arch 'mine' of this result is not readable here .*; replay again"):
        arch_of(meta)


def test_checks_of_a_shipped_arch_are_not_those_of_its_namesake(plain_trace_path: Path) -> None:
    shipped = sk.arch("cnvlutin")
    changed = hwmodels.Arch.model_validate(
        sk.arch("cnvlutin", lanes=8).model_dump() | {"name": "cnvlutin", "variant_of": ""}
    )
    trace = sk.load_trace(plain_trace_path)
    notes = {}
    for one in (shipped, changed, shipped.with_(lanes=8)):
        rows = validation_rows(sk.replay(trace, [one]))[0]
        notes[one.hash] = (rows["name"].tolist(), rows["note"].tolist())
    assert notes[changed.hash] == (["cnvlutin"], ["not the configuration that ships under this name"])
    assert "no published or measured figure" in notes[shipped.hash][1][0]
    assert notes[shipped.with_(lanes=8).hash][0] == ["cnvlutin"]


def test_own_energy_table_does_not_stop_a_citation(plain_trace_path: Path) -> None:
    prices = hwmodels.load_table("default_45nm")
    mine = hwmodels.EnergyTable.model_validate(prices.model_dump() | {"name": "mine"})
    assert "albericio2016cnvlutin" in sk.cite(sk.replay(sk.load_trace(plain_trace_path), ["cnvlutin"], table=mine))


def test_an_estimate_without_time(plain_trace_path: Path, tmp_path: Path) -> None:
    """Sponge-examples estimate energy alone: no speed-up, no power, and no error in any table or figure."""
    trace = sk.load_trace(plain_trace_path)
    result = sk.replay(trace, ["sponge", "cnvlutin"])
    summary = result.summary().set_index("arch")
    swept = sk.sweep([trace], ["sponge", "cnvlutin"], out=tmp_path / "parts", progress=False)
    table = points(swept.meta).set_index("arch")
    for name in ("speedup", "compute_speedup", "power_w", "density", "energy_per_token_pj", "energy_delay_js"):
        pd.testing.assert_series_equal(summary[name], table[name])
    assert summary.loc["sponge", ["speedup", "compute_speedup", "power_w"]].isna().all()
    assert summary.loc["sponge", "energy_per_token_pj"] > 0
    spec = tmp_path / "s.yaml"
    spec.write_text(f"traces: {plain_trace_path}\narchs: [sponge]\n")
    assert "sponge" in run("sweep", spec, "--out", tmp_path / "o", "--processes", 0)
    stored = result.save(tmp_path / "r.parquet")
    run("report", stored, "--out", tmp_path / "r.html")
    for figure in ("speedup", "speedup-density", "energy", "pareto", "stalls", "roofline"):
        run("plot", figure, stored, "--out", tmp_path / f"{figure}.png")
    only = sk.replay(trace, ["sponge"])
    for draw, reason in ((sk.plots.stall_breakdown, "takes time"), (sk.plots.roofline, "a roofline needs traffic")):
        with pytest.raises(InputError, match=reason):
            draw(only)
    run("report", only.save(tmp_path / "s.parquet"), "--out", tmp_path / "s.html")
