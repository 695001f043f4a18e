"""Methods side by side: rows, means over seeds, resuming, the stored file, the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import simkit as sk
from simkit import plots
from simkit.cli import app
from simkit.errors import InputError
from simkit.explore import methods
from simkit.results import tables
from traces.tuning import Distil, load_tuning
from traces.tuning.result import open_result

ARCHS = ("cnvlutin", "h100_sxm")


@pytest.fixture(scope="module")
def yamls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two quick tunings as files."""
    folder = tmp_path_factory.mktemp("yaml")
    train = "train: {epochs: 1, batch_size: 32, max_length: 16, lr: 0.01}\n"
    (folder / "plain.yaml").write_text("name: plain\nmethod: none\nmodule: {type: none}\n" + train)
    (folder / "relu.yaml").write_text("name: relu\nmethod: relufy\nactivation: {type: relu}\n" + train)
    return [str(folder / "plain.yaml"), str(folder / "relu.yaml")]


@pytest.fixture(scope="module")
def run(tiny_model: str, tiny_data: str, yamls: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("methods")
    rows = sk.compare(tiny_model, tiny_data, yamls, seeds=2, archs=ARCHS, sequences=8, out=out, progress=False)
    methods.save_methods(rows, out / "kept.parquet", {"seeds": 2})
    return out


@pytest.mark.slow
def test_one_row_for_each_tuning_seed_and_arch(run: Path) -> None:
    rows = methods.load_methods(run / "kept.parquet")
    assert len(rows) == 2 * 2 * 2
    assert rows.attrs["settings"] == {"seeds": 2}
    assert rows.attrs["environment"]["python"]
    plain = rows[(rows["tuning"] == "plain") & (rows["arch"] == "cnvlutin")]
    # the head alone changes no activation: as dense as the base, and as fast
    assert plain["density"].min() > 0.99
    assert plain["speedup"].to_numpy() == pytest.approx(1.0, rel=0.02)
    assert plain["energy_ratio"].to_numpy() == pytest.approx(1.0, rel=0.02)
    relu = rows[(rows["tuning"] == "relu") & (rows["arch"] == "cnvlutin")]
    assert relu["density"].max() < 0.8
    assert relu["speedup_down"].min() > 1.0
    assert relu["energy_ratio"].max() < 1.0


def test_means_and_standard_errors_are_over_seeds(run: Path) -> None:
    rows = methods.load_methods(run / "kept.parquet")
    objects = methods.aggregate(rows)
    assert [o["tuning"] for o in objects] == ["plain", "relu"]
    relu = rows[rows["tuning"] == "relu"].drop_duplicates("seed")
    assert relu["seed"].tolist() == [0, 1]
    assert objects[1]["accuracy"] == pytest.approx(relu["accuracy"].mean())
    assert objects[1]["accuracy_se"] == pytest.approx(relu["accuracy"].std(ddof=1) / math.sqrt(2))
    assert set(objects[1]["archs"]) == set(ARCHS)
    single = methods.aggregate(rows[rows["seed"] == 0])[1]
    n, p = int(relu["test_samples"].iloc[0]), single["accuracy"]
    assert single["accuracy_se"] == pytest.approx(math.sqrt(p * (1 - p) / n))


def test_a_finished_run_is_not_done_again(
    run: Path, tiny_model: str, tiny_data: str, yamls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from traces.tuning import trainer

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(trainer.Trainer, "_step", refuse)
    again = sk.compare(tiny_model, tiny_data, yamls, seeds=2, archs=ARCHS, sequences=8, out=run, progress=False)
    pd.testing.assert_frame_equal(again, methods.load_methods(run / "kept.parquet"))


def test_a_named_set_states_samples_and_rates_and_starts_where_it_should(
    tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = methods.Comparison(
        tiny_model, tiny_data, ("threshold-refit",), samples=64, test_samples=20, rates={"threshold-refit": 3e-4}
    )
    monkeypatch.setattr(methods, "comparisons", lambda: {tiny_model: named})
    rows = sk.compare(tiny_model, seeds=1, archs=ARCHS, sequences=4, out=tmp_path, progress=False)
    assert rows["density"].max() < 0.25
    assert rows["test_samples"].unique() == [20]
    start, done = (open_result(tmp_path / "tunings" / f"{name}-64-s0") for name in ("lora", "threshold-refit"))
    assert done.measurements["init"] == "lora-64-s0"
    assert done.tuning.train.lr == 3e-4
    assert start.tuning.train.lr == load_tuning("lora").train.lr
    assert start.measurements["train_samples"] == done.measurements["train_samples"] == 64


def test_what_teaches_is_tuned_as_all_others_are(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    train = {"max_length": 8, "batch_size": 4}
    plan = methods.Comparison(tiny_model, tiny_data, ("taught",), samples=32, test_samples=20, train=train)
    bench = methods._Bench(plan, ARCHS, 4, tmp_path, False)
    taught = load_tuning("lora").model_copy(update={"name": "taught", "distil": Distil(teacher="lora", weight=1.0)})
    done = bench._tune(taught, 0)
    assert sorted(p.name for p in (tmp_path / "tunings").iterdir()) == ["lora-32-s0", "taught-32-s0"]
    teacher = open_result(tmp_path / "tunings" / "lora-32-s0")
    for one in (teacher, done):
        assert (one.tuning.train.max_length, one.tuning.train.batch_size) == (8, 4)
        assert one.measurements["train_samples"] == 32
        assert one.measurements["steps"] == 8
    assert done.measurements["init"] is None


def test_front_keeps_what_nothing_beats() -> None:
    table = pd.DataFrame({"accuracy": [0.8, 0.7, 0.9, 0.6], "density": [0.2, 0.1, 0.9, 0.3]})
    assert methods.on_front(table, "density").tolist() == [True, True, True, False]


def test_figure_and_table_show_every_tuning(run: Path) -> None:
    flat = methods.flat(methods.aggregate(methods.load_methods(run / "kept.parquet")))
    drawn = plots.methods_front(flat, arch="cnvlutin")
    own = flat[flat["arch"] == "cnvlutin"].set_index("tuning")
    drawn_at = {bar.get_label(): (bar.lines[0].get_xdata()[0], bar.lines[0].get_ydata()[0]) for bar in drawn.containers}
    assert drawn_at.keys() == {"plain", "relu"}
    assert drawn.get_xlabel() == "energy per token on cnvlutin (µJ)"
    for tuning, (energy_uj, accuracy) in drawn_at.items():
        assert energy_uj * 1e6 == pytest.approx(own.loc[tuning, "energy_per_token_pj"])
        assert accuracy == own.loc[tuning, "accuracy"]
    with pytest.raises(InputError, match="no design 'eie'"):
        plots.methods_front(flat, arch="eie")
    text = tables.methods_table(flat).to_latex()
    assert "relu" in text
    assert r"\toprule" in text


@pytest.mark.slow
def test_command_prints_objects_and_leaves_files(run: Path, tiny_model: str, tiny_data: str, yamls: list[str]) -> None:
    given = ["--model", tiny_model, "--data", tiny_data, "--seeds", "2", "--sequences", "8", "-o", str(run), "--json"]
    given += [word for path in yamls for word in ("--tuning", path)] + ["-a", "cnvlutin", "-a", "h100_sxm"]
    done = CliRunner().invoke(app, ["compare", "methods", *given])
    assert done.exit_code == 0, done.stderr
    objects = json.loads(done.stdout)
    assert [o["seeds"] for o in objects] == [2, 2]
    assert objects[0].keys() >= {"tuning", "accuracy", "accuracy_se", "density", "trainable_parameters", "archs"}
    for name in ("methods-density.png", "methods-energy-cnvlutin.pdf", "methods.tex", "methods.md"):
        assert (run / name).stat().st_size > 200


@pytest.mark.parametrize("model", ["minilm-l6", "dinov2-s"])
def test_every_tuning_of_a_named_set_is_stored(model: str) -> None:
    objects = methods.aggregate(methods.stored_methods(model))
    assert [o["tuning"] for o in objects] == list(methods.comparisons()[model].tunings)


def test_a_language_model_is_scored_by_its_perplexity() -> None:
    objects = methods.aggregate(methods.stored_methods("smollm2-135m"))
    assert {o["tuning"] for o in objects} <= set(methods.comparisons()["smollm2-135m"].tunings)
    done = CliRunner().invoke(
        app, ["compare", "methods", "--stored", "--model", "smollm2-135m"], env={"COLUMNS": "200"}
    )
    heads = tables.methods_table(methods.flat(objects)).to_markdown().splitlines()[0]
    assert "perplexity" in heads
    for item in objects:
        assert 20 < item["perplexity"] < 200
        assert f"{item['perplexity']:.1f}" in done.stdout


def test_bad_input(tmp_path: Path, tiny_model: str) -> None:
    with pytest.raises(InputError, match="no named set"):
        sk.compare(tiny_model, out=tmp_path)
    with pytest.raises(InputError, match="must be positive"):
        sk.compare(seeds=0, out=tmp_path)
    with pytest.raises(InputError, match="no stored comparison for 'other'"):
        methods.stored_methods("other")
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match="no comparison of methods"):
        methods.load_methods(tmp_path / "x.parquet")
    assert not list(tmp_path.glob("traces"))


def test_stored_comparison_is_whole_and_says_where_it_comes_from() -> None:
    rows = methods.stored_methods("minilm-l6")
    objects = methods.aggregate(rows)
    named = methods.comparisons()["minilm-l6"].tunings
    assert {o["tuning"] for o in objects} <= set(named)
    assert len(objects) >= 15
    assert rows.attrs["settings"]["samples"] == objects[0]["train_samples"]
    assert rows.attrs["environment"]["versions"]["torch"]
    by_name = {o["tuning"]: o for o in objects}
    for item in objects:
        assert 0.4 < item["accuracy"] < 0.95
        assert 0 < item["density"] <= 1
        assert item["accuracy_se"] > 0
        assert set(item["archs"]) == set(methods.ARCHS)
    # what no run can change: an added module slows a design that skips nothing, a swap to ReLU speeds up one that does
    assert by_name["lora"]["archs"]["h100_sxm"]["speedup"] == pytest.approx(1.0, abs=0.01)
    assert by_name["relu"]["archs"]["cnvlutin"]["speedup_down"] > 3
    assert by_name["soka"]["trainable_parameters"] <= 0.75 * by_name["lora"]["trainable_parameters"]
    done = CliRunner().invoke(app, ["compare", "methods", "--stored", "--json"])
    assert json.loads(done.stdout) == json.loads(json.dumps(objects))
