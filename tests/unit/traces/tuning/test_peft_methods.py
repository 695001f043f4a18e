"""The modules that come from peft: trained, saved, loaded again, merged, and refused where they do not fit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_families import build, inputs
from tiny_tuning import SCORES, TASKS, measured_again, save_data, save_model

from traces.errors import InputError
from traces.models.sites import find_sites
from traces.tuning import Training, Tuning, load_tuned, tune
from traces.tuning import trainer as trainer_module
from traces.tuning.change import Part
from traces.tuning.methods import qlora as qlora_module
from traces.tuning.methods.adalora import AdaLoRA
from traces.tuning.methods.dora import DoRA
from traces.tuning.methods.ia3 import IA3
from traces.tuning.methods.lora import LoRA
from traces.tuning.methods.prompt import PrefixTuning, PromptTuning, PTuning
from traces.tuning.methods.qlora import QLoRA
from traces.tuning.result import build_model

QUICK = Training(epochs=1, batch_size=16, lr=2e-2, max_length=16, max_samples=96)
MODULES: dict[str, Part] = {
    "ia3": IA3(),
    "prompt": PromptTuning(virtual_tokens=3),
    "prefix": PrefixTuning(virtual_tokens=3),
    "prefix-projected": PrefixTuning(virtual_tokens=3, projection=True),
    "ptuning": PTuning(virtual_tokens=3),
    "ptuning-lstm": PTuning(virtual_tokens=3, encoder="lstm", hidden=8),
    "lora-bias": LoRA(r=2, bias="adapted"),
    "lora-every-bias": LoRA(r=2, bias="all"),
    "dora": DoRA(r=2),
    "adalora": AdaLoRA(r_start=4, r_end=2, every=1),
}
FEWER = [(f, m) for f in TASKS for m in MODULES if f == "bert" or m not in ("prefix-projected", "ptuning-lstm")]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Model and data of each family."""
    folder = tmp_path_factory.mktemp("tiny")
    return {f: (save_model(f, folder), save_data(task, folder)) for f, task in TASKS.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), FEWER)
def test_trains_saves_and_measures_the_same_when_loaded(
    family: str, name: str, places: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    model, data = places[family]
    plan = Tuning(name=name, module=MODULES[name], train=QUICK)
    result = tune(model, data, plan, tmp_path / name, task=TASKS[family], test_limit=12, progress=False)
    kept = {n: result.measurements[n] for n in SCORES if n in result.measurements}
    assert measured_again(result, merge=True, limit=12) == kept
    apart = measured_again(result, merge=False, limit=12)
    assert apart["accuracy"] == pytest.approx(kept["accuracy"], abs=0.05)  # folding rounds differently in the last bit
    assert apart["density"] == pytest.approx(kept["density"], abs=2e-3)
    facts = result.measurements
    fresh = build_model(model, facts["task"], facts["labels"], plan).net
    trained = dict(load_tuned(result.path, merge=False)[0].named_parameters())
    still = [n for n, p in fresh.named_parameters() if p.requires_grad and torch.equal(p, trained[n])]
    assert not [n for n in still if "lora_E" not in n]  # a rank that is taken away leaves the zero it began with


def test_ia3_scales_keys_values_and_the_inner_activations() -> None:
    net = build("bert").requires_grad_(False)
    layer = "bert.encoder.layer.0"
    own = {n: net.get_submodule(f"{layer}.{n}").weight.clone() for n in ("attention.self.key", "output.dense")}
    change = IA3().change()
    net = change.apply(net, "classification", {})
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad and "ia3_l" in n}
    assert sum(p.numel() for p in trained.values()) == 2 * (24 + 24 + 40)
    for index, parameter in enumerate(trained.values()):
        parameter.data = torch.linspace(0.5, 1.5 + index, parameter.numel()).reshape(parameter.shape)
    scales = {n: next(p for m, p in trained.items() if f"{layer}.{n}." in m).data.flatten() for n in own}
    merged = change.merge(net)
    assert torch.allclose(
        merged.get_submodule(f"{layer}.attention.self.key").weight.T,
        own["attention.self.key"].T * scales["attention.self.key"],
    )
    assert torch.allclose(
        merged.get_submodule(f"{layer}.output.dense").weight, own["output.dense"] * scales["output.dense"]
    )


def test_dora_keeps_each_outputs_magnitude_in_a_vector_of_its_own() -> None:
    net = build("bert").requires_grad_(False)
    path = "bert.encoder.layer.1.intermediate.dense"
    weight = net.get_submodule(path).weight.clone()
    change = DoRA(r=2, alpha=4).change()
    net = change.apply(net, "classification", {})
    layer = net.get_submodule(f"base_model.model.{path}")
    made = torch.Generator().manual_seed(1)
    layer.lora_B["default"].weight.data = torch.randn(40, 2, generator=made)
    layer.lora_magnitude_vector["default"].weight.data = torch.linspace(1, 2, 40)
    direction = weight + 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    wanted = torch.linspace(1, 2, 40)[:, None] * direction / direction.norm(dim=1, keepdim=True)
    assert torch.allclose(change.merge(net).get_submodule(path).weight, wanted, atol=1e-5)


def adalora_plan(**train: Any) -> Tuning:
    return Tuning(
        name="a", module=AdaLoRA(r_start=4, r_end=2, every=2), train=QUICK.model_copy(update={"epochs": 3, **train})
    )


def test_adalora_ends_at_its_budget_and_resumes_to_the_same_weights(
    places: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(*places["bert"], adalora_plan(dropout=0.1), tmp_path / "whole", progress=False)
    ranks = whole.measurements["ranks"]
    assert len(ranks) == 12
    assert sum(ranks.values()) == 2 * 12  # r_end on average
    assert len(set(ranks.values())) > 1
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    step, stops = trainer_module.Trainer._step, [7, 15]  # while ranks are dealt, and after the last time

    def stopping(self: object, index: int, *rest: object) -> object:
        if stops and index == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return step(self, index, *rest)

    monkeypatch.setattr(trainer_module.Trainer, "_step", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(*places["bert"], adalora_plan(dropout=0.1), tmp_path / "stopped", progress=False)
    stopped = tune(*places["bert"], adalora_plan(dropout=0.1), tmp_path / "stopped", progress=False)
    a, b = (load_file(r.path / "weights.safetensors") for r in (whole, stopped))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_adalora_penalty_is_the_mean_distance_from_orthogonal() -> None:
    change = AdaLoRA(r_start=3, r_end=2, orthogonal=0.5).change()
    net = change.apply(build("bert"), "classification", {})
    eye = torch.eye(3)
    gaps = [
        (p @ p.T - eye).norm() if "lora_A" in n else (p.T @ p - eye).norm()
        for n, p in net.named_parameters()
        if "lora_A" in n or "lora_B" in n
    ]
    assert len(gaps) == 24
    assert torch.isclose(change.penalty(net, 0.0), 0.5 * torch.stack(gaps).mean(), rtol=1e-6)
    for n, p in net.named_parameters():
        if "lora_A" in n or "lora_B" in n:
            torch.nn.init.orthogonal_(p)
    assert change.penalty(net, 0.0).item() < 1e-5


def test_adalora_says_what_its_schedule_lacks(places: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="r_end 8 must be below r_start 8"):
        AdaLoRA(r_start=8)
    with pytest.raises(ValueError, match="leave no steps"):
        AdaLoRA(warmup=0.6, settle=0.4)
    with pytest.raises(InputError, match=r"module 'adalora' needs at least 4 steps .*raise train\.epochs"):
        tune(*places["bert"], adalora_plan(epochs=0.2), tmp_path / "few", progress=False)


@pytest.mark.parametrize("name", ["prompt", "prefix", "ptuning"])
def test_virtual_tokens_are_refused_where_they_do_not_fit(name: str) -> None:
    with pytest.raises(InputError, match=rf"module '{name}' .* this 'vit' model takes images; use lora"):
        MODULES[name].change().apply(build("vit"), "image-classification", {})
    with pytest.raises(InputError, match=rf"module '{name}': 80 virtual tokens leave no room .*lower"):
        MODULES[name].model_copy(update={"virtual_tokens": 80}).change().apply(build("bert"), "classification", {})


@pytest.mark.parametrize("family", ["distilbert", "albert", "modernbert"])
def test_a_prefix_is_refused_by_models_without_a_cache_and_a_prompt_is_not(family: str) -> None:
    with pytest.raises(InputError, match=rf"module 'prefix' does not fit this '{family}' model .*; use lora"):
        MODULES["prefix"].change().apply(build(family), "classification", {})
    net = MODULES["prompt"].change().apply(build(family), "classification", {})
    assert net(**inputs(family, 2, 6)).logits.shape == (2, 2)


def test_qlora_says_what_it_needs(places: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    if torch.cuda.is_available() and find_spec("bitsandbytes"):
        pytest.skip("CUDA and bitsandbytes are here")
    with pytest.raises(InputError, match=r"module 'qlora' needs .*(CUDA|bitsandbytes).*; use lora"):
        tune(*places["bert"], Tuning(name="q", module=QLoRA(), train=QUICK), tmp_path / "q", progress=False)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("family", list(TASKS))
def test_qlora_merges_to_what_it_computes(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(qlora_module, "four_bit_device", lambda: device)
    change, given = QLoRA(r=2).change(), {n: t.to(device) for n, t in inputs(family, 2, 6).items()}
    base = build(family)(**inputs(family, 2, 6)).logits
    net = change.apply(build(family).requires_grad_(False), TASKS[family], {}).train()  # bitsandbytes' plain path
    with torch.no_grad():
        rounded = net(**given).logits.cpu()
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        tuned = net(**given).logits.cpu()
        merged = change.merge(net)
        assert 0 < float((rounded - base).abs().max()) < 0.5 * float((tuned - rounded).abs().max())
        assert torch.allclose(merged(**inputs(family, 2, 6)).logits, tuned, atol=1e-4)
    assert len(find_sites(merged)) == len(find_sites(build(family)))
