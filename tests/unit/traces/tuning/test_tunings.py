"""Tunings: parsing, the density penalty, activation swaps, resuming, results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import traces
from traces.errors import CorruptError, InputError, NumericError
from traces.models.load import load_model
from traces.models.sites import find_sites
from traces.tuning import (
    Activation,
    DensityLoss,
    LoRA,
    NoModule,
    Training,
    Tuning,
    list_methods,
    load_tuned,
    presets,
    tune,
)
from traces.tuning import trainer as train_module
from traces.tuning.layers.activations import ShiftedReLU, SquaredReLU, Thresholded
from traces.tuning.methods.density import anneal, penalty
from traces.tuning.registry import load_tuning
from traces.tuning.spec import tuning_from_yaml

RELU = Activation(type="relu")
QUICK = Training(epochs=2, batch_size=16, lr=5e-3, max_length=16)
SMALL = Tuning(name="small", module=LoRA(r=2), activation=RELU, train=QUICK)


@pytest.fixture(scope="module")
def tuned(tiny_model: str, tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> traces.TuneResult:
    out = tmp_path_factory.mktemp("tuned") / "small"
    return tune(tiny_model, tiny_data, SMALL, out, progress=False)


def test_presets_are_registered_and_state_their_source() -> None:
    assert {"lora", "relu-lora", "relu-lora-density-low", "relu-lora-density-high"} <= presets().keys()
    for entry in traces.list_tunings():
        assert entry.title
        assert entry.method.equation
        assert entry.method.evidence in ("paper", "code", "reconstructed")
        assert "arXiv" in entry.source
        assert tuning_from_yaml(entry.tuning.to_yaml(), "yaml") == entry.tuning
    assert list_methods()["density"].source.endswith("arXiv 2402.01911")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\ntrain:\n  lrr: 1\n", r"t\.yaml:3: field 'train\.lrr': unknown key; did you mean 'lr'\?"),
        ("name: a\nname: b\n", r"t\.yaml:2: .*duplicate"),
        ("name: a\ndensity: {weight: -1}\n", r"t\.yaml:2: field 'density\.weight': .*greater than or equal to 0"),
        ("name: a\nmodule: {type: lora, r: two}\n", r"t\.yaml:2: field 'module\.r': .*integer"),
        ("- a\n", r"t\.yaml: expected a mapping"),
        ("name: [\n", r"t\.yaml:\d+: "),
        ("seed: 1\n", r"field 'name': .*required"),
    ],
)
def test_bad_yaml_names_file_line_and_field(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tuning_from_yaml(text, "t.yaml")


def test_unknown_names_get_suggestions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'relu-lora'"):
        load_tuning("relulora")
    with pytest.raises(InputError, match="cannot read"):
        load_tuning(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match=r"method 'lorra'.*did you mean 'lora'"):
        load_tuning(Tuning(name="x", method="lorra"))


def test_hash_ignores_the_name_only() -> None:
    assert SMALL.hash == SMALL.model_copy(update={"name": "other"}).hash
    assert SMALL.hash != SMALL.model_copy(update={"seed": 1}).hash


def test_density_penalty_is_the_papers_formula() -> None:
    a = torch.tensor([[0.0, 1e-4, -2.0], [0.0, 0.0, 3e-4]])
    eps = 1e-7
    by_hand = np.mean([x * x / (x * x + eps) for x in a.flatten().tolist()])
    assert float(penalty(a, DensityLoss(eps=eps), 0.0)) == pytest.approx(by_hand, rel=1e-5)
    tanh = np.mean(np.tanh(20 * np.abs(a.numpy())))
    assert float(penalty(a, DensityLoss(surrogate="tanh", beta=20), 0.5)) == pytest.approx(tanh, rel=1e-5)


def test_penalty_gradient_peaks_where_the_analysis_says() -> None:
    a = torch.linspace(1e-6, 2e-3, 4000, requires_grad=True)
    penalty(a[None], DensityLoss(eps=1e-7), 0.0).backward()
    # d/da of a^2/(a^2+eps) = 2 a eps / (a^2+eps)^2 is largest at a = sqrt(eps / 3)
    assert float(a.detach()[a.grad.argmax()]) == pytest.approx((1e-7 / 3) ** 0.5, rel=0.01)


def test_annealing_is_geometric() -> None:
    assert anneal(1.0, 1e-4, 0.5) == pytest.approx(1e-2)
    assert anneal(3.0, None, 0.7) == 3.0


def test_activations() -> None:
    x = torch.tensor([-2.0, 0.05, 0.5, 3.0])
    assert ShiftedReLU(0.1)(x).tolist() == pytest.approx([0, 0, 0.4, 2.9])
    assert SquaredReLU()(x).tolist() == pytest.approx([0, 0.0025, 0.25, 9])
    assert Thresholded(torch.nn.Identity(), 0.5)(x).tolist() == [-2, 0, 0, 3]


def test_replaced_activation_gives_exact_zeros(tiny_model: str) -> None:
    model = load_model(tiny_model)
    RELU.change().apply(model, "classification", {})
    seen: list[torch.Tensor] = []
    site = find_sites(model)[0]
    model.get_submodule(site.module).register_forward_pre_hook(lambda _m, i: seen.append(i[0].detach()))
    model(input_ids=torch.ones(2, 5, dtype=torch.long))
    assert 0.2 < float((seen[0] == 0).float().mean()) < 0.8
    assert float(seen[0].min()) == 0


def test_result_folder_is_whole(tuned: traces.TuneResult) -> None:
    names = {p.name for p in tuned.path.iterdir()}
    assert names == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tuning.yaml",
        "measurements.json",
        "log.parquet",
    }
    measured = json.loads((tuned.path / "measurements.json").read_text())
    n, p = measured["test_samples"], measured["accuracy"]
    assert n == 24
    assert measured["accuracy_se"] == pytest.approx((p * (1 - p) / n) ** 0.5)
    assert measured["steps"] == 28
    assert 0 < measured["density"] < 1
    log = pd.read_parquet(tuned.path / "log.parquet")
    assert log["step"].tolist() == [10, 20, 28]
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]
    assert tiny_paths_absent(tuned.path / "adapter_config.json")


def tiny_paths_absent(file: Path) -> bool:
    """The cache's folder must not travel with an adapter."""
    return "/.cache/" not in file.read_text()


def test_measured_accuracy_is_that_of_the_loaded_model(
    tuned: traces.TuneResult, tiny_data: str, tiny_model: str
) -> None:
    from traces.models.load import load_tokenizer

    test = traces.load_data(tiny_data).test
    tokenizer = load_tokenizer(tiny_model)
    for merge in (True, False):
        model, result = load_tuned(tuned.path, merge=merge)
        encoded = tokenizer(list(test.texts), return_tensors="pt", padding=True)
        with torch.no_grad():
            given = {k: encoded[k] for k in ("input_ids", "attention_mask")}
            found = model(**given).logits.argmax(-1).tolist()
        assert np.mean(np.array(found) == np.array(test.labels)) == pytest.approx(result.accuracy)


def test_finished_is_returned_and_another_refused(tuned: traces.TuneResult, tiny_model: str, tiny_data: str) -> None:
    before = (tuned.path / "measurements.json").stat().st_mtime_ns
    assert tune(tiny_model, tiny_data, SMALL, tuned.path).measurements == tuned.measurements
    assert (tuned.path / "measurements.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds another tuning"):
        tune(tiny_model, tiny_data, SMALL, tuned.path, seed=7)


def test_a_stopped_run_ends_with_the_same_weights(
    tuned: traces.TuneResult, tiny_model: str, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_dropout = SMALL.model_copy(update={"train": QUICK.model_copy(update={"dropout": 0.1})})
    whole = tune(tiny_model, tiny_data, with_dropout, tmp_path / "whole", progress=False)
    monkeypatch.setattr(train_module, "CHECKPOINT_SECONDS", 0.0)
    step = train_module.Trainer._step
    stops = [9, 17]

    def stopping(self: object, index: int, *rest: object) -> object:
        if stops and index == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return step(self, index, *rest)

    monkeypatch.setattr(train_module.Trainer, "_step", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(tiny_model, tiny_data, with_dropout, tmp_path / "stopped", progress=False)
        assert (tmp_path / "stopped" / "checkpoint.safetensors").is_file()
    stopped = tune(tiny_model, tiny_data, with_dropout, tmp_path / "stopped", progress=False)
    a, b = (load_file(r.path / "adapter_model.safetensors") for r in (whole, stopped))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    skip = ("provenance", "train_seconds")
    assert {k: v for k, v in whole.measurements.items() if k not in skip} == {
        k: v for k, v in stopped.measurements.items() if k not in skip
    }


def test_density_loss_lowers_density(tuned: traces.TuneResult, tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    densities = [tuned.density]
    for weight in (0.001, 0.01):
        loss = DensityLoss(weight=weight, surrogate="tanh", beta=2)
        plan = SMALL.model_copy(update={"name": f"w{weight:g}", "density": loss, "method": "density"})
        densities.append(tune(tiny_model, tiny_data, plan, tmp_path / plan.name, progress=False).density)
    assert densities[0] > densities[1] > densities[2]
    assert densities[2] < 0.2 * densities[0]


def test_head_alone_and_warm_start(tuned: traces.TuneResult, tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    head = Tuning(name="head", module=NoModule(), train=QUICK)
    result = tune(tiny_model, tiny_data, head, tmp_path / "head", progress=False)
    assert result.measurements["trainable_parameters"] == 24 * 2 + 2
    assert load_tuned(result.path)[1].accuracy == result.accuracy
    still = QUICK.model_copy(update={"lr": 1e-12})
    plan = SMALL.model_copy(update={"train": still})
    started = tune(tiny_model, tiny_data, plan, tmp_path / "warm", init=tuned.path, progress=False)
    assert started.accuracy == tuned.accuracy
    assert started.measurements["init"] == "small"
    more = plan.model_copy(update={"module": LoRA(r=2, bias="adapted")})  # trains what the first one left as it was
    assert (
        tune(tiny_model, tiny_data, more, tmp_path / "more", init=tuned.path, progress=False).density == tuned.density
    )
    with pytest.raises(InputError, match=r"do not fit its module .r 2 and 3"):
        tune(tiny_model, tiny_data, SMALL.model_copy(update={"module": LoRA(r=3)}), tmp_path / "no", init=tuned.path)
    with pytest.raises(InputError, match="another module or model"):
        tune(tiny_model, tiny_data, plan, tmp_path / "less", init=tmp_path / "more")


def test_nan_loss_stops_at_once(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    plan = SMALL.model_copy(update={"train": QUICK.model_copy(update={"lr": 1e20, "clip": 1e30})})
    with pytest.raises(NumericError, match=r"lower train\.lr"):
        tune(tiny_model, tiny_data, plan, tmp_path / "nan", progress=False)
    assert not (tmp_path / "nan" / "measurements.json").exists()


def test_damaged_files_are_named(tuned: traces.TuneResult, tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tuned.path, tmp_path / "copy"))
    data = (copy / "adapter_model.safetensors").read_bytes()
    (copy / "adapter_model.safetensors").write_bytes(data[:-100])
    with pytest.raises(CorruptError, match="adapter_model"):
        load_tuned(copy)
    (copy / "measurements.json").write_text("{")
    with pytest.raises(CorruptError, match=r"measurements\.json"):
        load_tuned(copy)
    with pytest.raises(InputError, match="no finished tuning"):
        load_tuned(tmp_path / "nothing")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "checkpoint.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(CorruptError, match="delete it to start"):
        tune(tiny_model, tiny_data, SMALL, tmp_path / "broken", progress=False)


def test_targets_that_match_nothing(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    plan = SMALL.model_copy(update={"module": LoRA(targets=("q_proj",))})
    with pytest.raises(InputError, match="match no linear layer; this model has: dense, key, query, value"):
        tune(tiny_model, tiny_data, plan, tmp_path / "x", progress=False)


def test_unmerged_recording_lists_the_adapters_gemms(
    tuned: traces.TuneResult, tiny_data: str, tiny_model: str, tmp_path: Path
) -> None:
    given = {"adapter": tuned.path, "data": tiny_data, "limit": 6, "batch_size": 3, "progress": False}
    merged = traces.record(tiny_model, out=tmp_path / "m.zarr", **given)
    apart = traces.record(tiny_model, out=tmp_path / "u.zarr", merge=False, **given)
    assert not any("lora" in op.op for op in merged.ops())
    assert {op.op for op in apart.ops() if "lora" in op.op} >= {"down.lora_a", "down.lora_b"}
    a, b = (t.sites["layers.1.down"].mask().to_bool() for t in (merged, apart))
    assert (a != b).mean() < 1e-3  # folding rounds differently in the last bit
    assert merged.attrs["measurements"]["accuracy"] == tuned.accuracy
    assert merged.attrs["tuning"]["name"] == "small"
