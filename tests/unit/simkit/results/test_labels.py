"""Runs have labels that tell them apart, in every figure and table; no two runs are ever added up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from drawn_traces import DrawnTrace
from matplotlib import pyplot as plt
from plain_result import ARCHS, plain_result

import hwmodels
import simkit as sk
import traces
from simkit.engine import gap
from simkit.errors import InputError
from simkit.explore.methods import PER_ARCH, aggregate, flat
from simkit.explore.sweep import points
from simkit.plots.energy import per_token
from simkit.plots.speedup import stall_shares
from simkit.report.charts import chart_data
from simkit.report.facts import trace_rows
from simkit.results.result import Result, concat
from simkit.results.runs import tell_apart, trace_labels
from simkit.results.tables import methods_table


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def imported(folder: Path, density: float) -> Any:
    folder.mkdir()
    rng = np.random.default_rng(int(100 * density))
    np.savez(folder.parent / "m.npz", a=rng.random((32, 128)) < density)
    return traces.import_masks(folder.parent / "m.npz", folder / "trace.zarr", n=32)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Two traces of one file name, one model's name and no tuning, in different folders."""
    work = tmp_path_factory.mktemp("twins")
    return [imported(work / "relu", 0.1), imported(work / "gelu", 0.8)]


@pytest.fixture(scope="module")
def result(twins) -> Result:
    return sk.replay(twins, ["cnvlutin", "systolic_32x32"], weights="dense")


LABELS = ["trace (relu)", "trace (gelu)"]


def test_two_traces_of_one_name_are_two_rows_and_two_columns(result) -> None:
    summary = result.summary()
    assert list(summary[summary["arch"] == "cnvlutin"]["tuning"]) == LABELS
    for key in ("trace", "tuning"):
        pivot = result.pivot("arch", key, "energy_pj")
        assert list(pivot.columns) == LABELS
        for row in summary.itertuples():
            assert pivot.loc[row.arch, getattr(row, key)] == pytest.approx(row.energy_pj)
    assert len(sk.table(result).text.drop_duplicates(["tuning", "arch"])) == 4
    assert "4 runs: trace (relu) on cnvlutin" in repr(result)
    assert set(result.ops["tuning"]) == set(LABELS)


def test_no_figure_adds_runs_up(result) -> None:
    summary = result.summary().set_index(["arch", "tuning"])
    stack, ends = per_token(result)
    assert stack.sum(axis=1).to_dict() == pytest.approx(summary["energy_per_token_pj"].to_dict())
    assert ends["energy_high_pj"].to_dict() == pytest.approx(summary["energy_high_per_token_pj"].to_dict())
    ax = sk.plots.energy_breakdown(result)
    assert [text.get_text() for text in ax.get_yticklabels()] == LABELS * 2
    bars = sk.plots.speedup_bars(result)
    drawn = [bar.get_y() + bar.get_height() for held in bars.containers for bar in held]
    assert sorted(drawn) == pytest.approx(sorted(summary["speedup"]))
    shares = stall_shares(result)
    assert list(shares.index) == [("cnvlutin", LABELS[0]), ("systolic_32x32", LABELS[0]),
                                  ("cnvlutin", LABELS[1]), ("systolic_32x32", LABELS[1])]  # fmt: skip
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1.0)
    cycles = summary.loc[("cnvlutin", LABELS[1])]
    assert shares.loc[("cnvlutin", LABELS[1]), "DRAM"] == pytest.approx(
        cycles["stall_cycles"] / (cycles["cycles"] + cycles["stall_cycles"])
    )
    marks = [
        line for line in sk.plots.roofline(result).lines if line.get_linestyle() == "None" and len(line.get_xdata())
    ]
    assert sum(len(line.get_xdata()) for line in marks) == 4


def test_two_energy_tables_are_two_bars(twins) -> None:
    prices = hwmodels.load_table("default_45nm")
    other = hwmodels.EnergyTable.model_validate(prices.model_dump() | {"name": "mine"})
    one = sk.replay(twins[0], ["cnvlutin"])
    both = concat([one, sk.replay(twins[0], ["cnvlutin"], table=other)])
    assert list(both.labels()["tuning"]) == ["trace (default_45nm)", "trace (mine)"]
    stack, _ = per_token(both)
    alone = one.summary()["energy_per_token_pj"].iloc[0]
    assert stack.sum(axis=1).to_numpy() == pytest.approx([alone, alone])
    assert both.pivot("arch", "tuning", "cycles").shape == (1, 2)


def test_settings_of_a_run_are_said_where_they_differ(twins) -> None:
    settings: list[dict[str, Any]] = [{}, {"batch": 1}, {"batch": 1, "speculative": 4}, {"weights": "random:0.5"}]
    runs = concat([sk.replay(twins[0], ["cnvlutin"], **one) for one in settings])
    labels = list(runs.labels()["tuning"])
    assert labels[0] == "trace (weights recorded, recorded batches)"
    assert labels[1] == "trace (weights recorded, batch 1)"
    assert labels[2] == "trace (weights recorded, batch 1, 4 tokens a sequence)"
    assert labels[3] == "trace (synthetic weights) (weights random:0.5, recorded batches)"
    assert "model" not in " ".join(labels)


def test_a_result_of_an_earlier_version_tells_by_hash_and_run() -> None:
    held = plain_result()
    twin = held.frame.assign(run=held.frame["run"] + "-again")
    metas = {f"{run}-again": {**meta, "kernels": "1"} for run, meta in held.meta["runs"].items()}
    both = Result(pd.concat([held.frame, twin], ignore_index=True), {"runs": {**held.meta["runs"], **metas}})
    labels = both.labels()
    assert not labels.duplicated(["arch", "tuning"]).any()
    assert labels.loc["lora-eie", "tuning"] == "lora (models 0)"
    same = Result(both.frame, {"runs": {run: {**meta, "kernels": "0"} for run, meta in both.meta["runs"].items()}})
    assert same.labels().loc["lora-eie-again", "tuning"] == "lora (run lora-eie-again)"
    # a name that tells is left as it is
    assert list(held.labels()["tuning"].unique()) == ["lora", "relu"]


def test_archs_of_one_name_are_told_by_their_fields(twins) -> None:
    wide = hwmodels.Arch.model_validate(sk.arch("cnvlutin", lanes=32).model_dump() | {"name": "cnvlutin"})
    both = sk.replay(twins[0], [sk.arch("cnvlutin"), wide])
    assert list(both.labels()["arch"]) == ["cnvlutin (lanes=16)", "cnvlutin (lanes=32)"]
    assert len(sk.plots.speedup_bars(both).get_xticklabels()) == 2
    drawn = gap.gap(twins[0], [sk.arch("cnvlutin"), wide])
    assert set(drawn["arch"]) == {"cnvlutin (lanes=16)", "cnvlutin (lanes=32)"}


def test_pivot_refuses_to_add_runs_up(result) -> None:
    with pytest.raises(InputError, match=r"pivot over layer, op would add up runs \(trace \(relu\) on cnvlutin; "):
        result.pivot("layer", "op", "cycles")
    with pytest.raises(InputError, match=r"take 'tuning' or 'trace' or 'run' as a further key"):
        result.pivot("arch", "component", "energy_pj")
    with pytest.raises(InputError, match="'cycles' is of a whole op, not of its components"):
        result.pivot("tuning", "component", "cycles")
    laid = result.pivot(["arch", "tuning"], "component", "energy_pj")
    assert laid.loc[("cnvlutin", LABELS[0])].sum() == pytest.approx(result.summary()["energy_pj"].iloc[0])
    assert result.pivot("arch", "tuning", "speedup").loc["cnvlutin", LABELS[0]] == pytest.approx(
        result.summary()["speedup"].iloc[0]
    )


def test_names_say_no_more_than_differs() -> None:
    assert tell_apart(["a", "a", "b"], [["m1", "x"], ["m2", "x"], ["m2", "x"]]) == ["a (m1)", "a (m2)", "b"]
    assert tell_apart(["a", "a", "a"], [["m1", "x"], ["m2", "x"], ["m2", "y"]]) == ["a (m1)", "a (m2, x)", "a (m2, y)"]
    assert tell_apart(["a", "a"], [["m"], ["m"]]) == ["a", "a"]
    facts: list[dict[str, Any]] = [
        {"name": "t", "hash": "1", "path": "x/t.zarr", "model": {"name": "bert"}, "tuning": {"name": "lora"}},
        {"name": "t", "hash": "2", "path": "y/t.zarr", "model": {"name": "vit"}, "tuning": {"name": "lora"}},
    ]
    assert trace_labels(facts) == ["lora (bert)", "lora (vit)"]
    assert trace_labels(facts, ["t", "t"]) == ["t (bert)", "t (vit)"]
    assert trace_labels([facts[0], {**facts[0], "hash": "3"}]) == ["lora (trace 1)", "lora (trace 3)"]
    assert trace_labels([{"name": "t", "hash": "1", "tuning": {"name": "none"}}]) == ["t"]


def test_figures_of_traces_tell_them_apart() -> None:
    pair = [DrawnTrace("lora", 0.2, 0.8, seed) for seed in (1, 2)]
    wanted = ["lora (trace 1a)", "lora (trace 2b)"]
    for trace, key in zip(pair, ("1a", "2b"), strict=True):
        trace.hash = key
    for draw in (sk.plots.density_by_layer, sk.plots.union_density):
        texts = [text.get_text() for text in draw(pair).get_legend().get_texts()]
        assert texts[:2] == wanted
    table = chart_data(plain_result(), pair)["map"]["tuning"]
    assert table["words"] == wanted
    assert set(gap.gap(pair, ["cnvlutin"])["tuning"]) == set(wanted)


def test_measured_tunings_of_one_name_are_two_points() -> None:
    held = plain_result()
    for run, meta in held.meta["runs"].items():
        meta["trace"] = {**meta["trace"], "tuning": {"name": "same"}, "model": {"name": run.partition("-")[0]}}
    renamed = Result(held.frame.assign(tuning="same"), held.meta)
    texts = [text.get_text() for text in sk.plots.tuning_cost(renamed).get_legend().get_texts()]
    assert texts == ["same (lora)", "same (relu)"]
    assert {"same (lora)", "same (relu)"} <= {
        text.get_text() for text in sk.plots.accuracy_energy(renamed).get_legend().get_texts()
    }


def test_tables_of_points_and_report_tell_traces_apart(twins, result, tmp_path: Path) -> None:
    swept = sk.sweep(twins, ["cnvlutin"], out=tmp_path, progress=False, weights="dense")
    table = points(swept.meta)
    assert list(table["trace"]) == list(table["tuning"]) == LABELS
    assert list(trace_rows(result)[0]["name"]) == LABELS
    runs = chart_data(result, [])["runs"]
    assert runs["tuning"]["words"] == LABELS


def test_a_comparison_with_twins_is_refused() -> None:
    words = {"tuning": "a", "method": "m", "model": "x", "data": "d", "arch": "eie"}
    numbers = ("accuracy", "accuracy_se", "density", "trainable_parameters", "train_seconds", "train_samples", "seed")
    seed = words | dict.fromkeys((*numbers, *PER_ARCH), 1.0) | {"perplexity": np.nan}
    once = flat(aggregate(pd.DataFrame([seed])))
    twice = pd.concat([once, once], ignore_index=True)
    assert len(methods_table(once).text) == 1
    for draw in (methods_table, sk.plots.methods_front):
        with pytest.raises(InputError, match="two rows have tuning 'a'"):
            draw(twice)


NAMES = {"lora": "_relu", "relu": "p$5_{x}$"}


def renamed() -> Result:
    held = plain_result()
    return Result(held.frame.assign(tuning=held.frame["tuning"].map(NAMES)), held.meta)


@pytest.mark.parametrize("name", ["speedup_bars", "accuracy_energy", "tuning_cost", "energy_breakdown"])
def test_odd_names_are_drawn_as_they_are(name: str) -> None:
    held = renamed()
    for meta in held.meta["runs"].values():
        meta["trace"] = {**meta["trace"], "tuning": {"name": NAMES[meta["trace"]["name"]]}}
    ax = getattr(sk.plots, name)(held)
    texts = ax.get_yticklabels() if name == "energy_breakdown" else ax.get_legend().get_texts()
    found = {text.get_text(): text for text in texts}
    for odd in NAMES.values():
        assert not found[odd].get_parse_math()
    ax.figure.draw_without_rendering()


def test_odd_names_of_traces_and_archs_are_drawn_as_they_are() -> None:
    odd = [DrawnTrace(name, 0.3, 0.8, seed) for seed, name in enumerate(NAMES.values())]
    legend = sk.plots.density_by_layer(odd).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES.values())
    assert not any(text.get_parse_math() for text in legend.get_texts())
    assert not sk.plots.density_map(odd[1]).get_title(loc="left").startswith("p5")
    held = plain_result()
    arch = dict(zip(ARCHS, ("_relu_array", "a$b$", "eie"), strict=True))
    drawn = sk.plots.speedup_bars(Result(held.frame.assign(arch=held.frame["arch"].map(arch)), held.meta))
    ticks = drawn.get_xticklabels()
    assert [text.get_text().replace("\n", "") for text in ticks] == list(arch.values())
    assert not any(text.get_parse_math() for text in ticks)
    with mpl.rc_context({"text.parse_math": True}):
        drawn.figure.draw_without_rendering()


def test_odd_names_are_escaped_in_text() -> None:
    made = sk.table(renamed(), ["tuning", "arch"])
    assert r"\_relu" in made.to_latex()
    assert r"p\$5\_\{x\}\$" in made.to_latex()
    assert r"| \_relu | systolic_32x32 |" in made.to_markdown()
    assert r"p\$5\_{x}\$" in made.to_markdown()
    frame = pd.DataFrame({"v": ["a--b", "<b>*x*", "[y](z)", "`c`", "a|b"]})
    assert "a-{}-b" in sk.table(frame, ["v"]).to_latex()
    assert re.findall(r"\| (.*) \|", sk.table(frame, ["v"]).to_markdown())[2:] == [
        "a--b", r"\<b\>\*x\*", r"\[y\](z)", r"\`c\`", r"a\|b",
    ]  # fmt: skip
