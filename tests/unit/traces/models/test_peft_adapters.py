"""Adapter folders of the peft library, given to `record`: every weight reaches the model, or one line says why."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tiny_families import SMALL
from tiny_models import write_tokenizer
from typer.testing import CliRunner

import traces
from simkit.cli import app
from traces.errors import InputError
from traces.models.adapters import load_adapter

LLAMA: dict[str, Any] = SMALL | {"num_key_value_heads": 1, "hidden_act": "relu"}


def saved(net: Any, folder: Path) -> str:
    net.save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


def wrapped(net: Any, config: Any, folder: Path) -> Any:
    """Save an adapter whose every weight is random, as a trained one's is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        made = peft.get_peft_model(net, config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    made.save_pretrained(folder)
    return made.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    return saved(hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)), tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def lora(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "mine"
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "gate_proj", "down_proj"])
    wrapped(hf.AutoModelForCausalLM.from_pretrained(base), config, folder)
    return folder


def masks(trace: traces.Trace) -> Any:
    return [trace.site(f"layers.{layer}.down").mask().to_bool() for layer in range(2)]


@pytest.mark.parametrize("merge", [True, False])
def test_the_masks_are_those_of_peft_s_own_model(
    base: str, lora: Path, tiny_data: str, tmp_path: Path, merge: bool
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        own = peft.PeftModel.from_pretrained(hf.AutoModelForCausalLM.from_pretrained(base), lora).merge_and_unload()
    merged = saved(own, tmp_path / "merged")
    options: dict[str, Any] = {"data": tiny_data, "limit": 6, "progress": False}
    wanted = masks(traces.record(merged, out=tmp_path / "own.zarr", **options))
    trace = traces.record(base, adapter=lora, merge=merge, out=tmp_path / "t.zarr", **options)
    plain = masks(traces.record(base, out=tmp_path / "plain.zarr", **options))
    assert all(np.mean(a != b) < 1e-3 for a, b in zip(masks(trace), wanted, strict=True))
    assert not any(np.mean(a != b) < 1e-3 for a, b in zip(plain, wanted, strict=True))
    assert trace.attrs["tuning"]["name"] == "mine"
    assert trace.attrs["tuning"]["module"] == {"type": "lora", "r": 4, "lora_alpha": 8}
    assert ("down.lora_a" in {op.op for op in trace.ops()}) == (not merge)


def test_a_changed_adapter_is_another_recording(base: str, lora: Path, tiny_data: str, tmp_path: Path) -> None:
    traces.record(base, adapter=lora, data=tiny_data, limit=4, out=tmp_path / "t.zarr", progress=False)
    other = altered(lora, tmp_path / "other", lambda tensors: {n: t * 2 for n, t in tensors.items()})
    with pytest.raises(InputError, match="another recording"):
        traces.record(base, adapter=other, data=tiny_data, limit=4, out=tmp_path / "t.zarr", progress=False)


def altered(source: Path, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    shutil.copytree(source, folder)
    made = change(load_file(source / "adapter_model.safetensors"))
    save_file({n: t.contiguous() for n, t in made.items()}, folder / "adapter_model.safetensors")
    return folder


def without(part: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {n: t for n, t in tensors.items() if part not in n}


def more(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: tensors | {name: torch.ones(4, 24)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("layers.1.mlp.down_proj.lora_B"), r"lacks .*layers\.1\.mlp\.down_proj\.lora_B"),
        (more("base_model.model.model.layers.2.mlp.up_proj.lora_A.weight"), r"no place for .*layers\.2\.mlp\.up_proj"),
        (more("base_model.model.model.embed_tokens.weight"), r"no place for .*embed_tokens\.weight"),
        (
            lambda tensors: {n: t[:, :3] if "lora_B" in n else t for n, t in tensors.items()},
            r"is \(24, 3\), not \(24, 4\)",
        ),
        (lambda tensors: {f"module.{n}": t for n, t in tensors.items()}, r"no place for module\.base_model"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(
    base: str, lora: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_adapter(altered(lora, tmp_path / "a", change), base, "causal-lm")
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_model_is_refused(lora: Path, tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine' does not fit model|could not load model"):
        traces.record(tiny_model, adapter=lora, data=tiny_data, limit=4, out=tmp_path / "t.zarr", progress=False)


def test_another_base_is_said(base: str, lora: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(base, tmp_path / "elsewhere")
    traces.models.adapters.adapter_facts(lora, base)
    assert not caplog.records
    traces.models.adapters.adapter_facts(lora, str(tmp_path / "elsewhere"))
    assert "was trained on" in caplog.text


@pytest.mark.parametrize("labels", [2, 3])
def test_a_classifier_s_head_comes_with_the_adapter(tiny_model: str, tmp_path: Path, labels: int) -> None:
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    net = hf.AutoModelForSequenceClassification.from_pretrained(
        tiny_model, num_labels=labels, ignore_mismatched_sizes=True
    )
    wanted = wrapped(net, config, tmp_path / "a")
    got = load_adapter(tmp_path / "a", tiny_model, "classification")
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        assert torch.allclose(got(input_ids=ids).logits, wanted(input_ids=ids).logits, atol=1e-5)
    assert got.classifier.weight.shape == (labels, 24)


def test_virtual_tokens_stay_in_front(base: str, tiny_data: str, tmp_path: Path) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    wrapped(hf.AutoModelForCausalLM.from_pretrained(base), config, tmp_path / "a")
    options: dict[str, Any] = {"data": tiny_data, "limit": 4, "progress": False}
    trace = traces.record(base, adapter=tmp_path / "a", out=tmp_path / "t.zarr", **options)
    plain = traces.record(base, out=tmp_path / "plain.zarr", **options)
    assert trace.n_tokens == plain.n_tokens + 4 * 3


def test_weights_in_torch_s_own_format(base: str, lora: Path, tmp_path: Path) -> None:
    shutil.copytree(lora, tmp_path / "a")
    file = tmp_path / "a" / "adapter_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    wanted, got = load_adapter(lora, base, "causal-lm"), load_adapter(tmp_path / "a", base, "causal-lm")
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), got.parameters(), strict=True))
    torch.save({"x": Path("pickled")}, file.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"cannot read .*adapter_model\.bin"):
        load_adapter(tmp_path / "a", base, "causal-lm")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", "{"),
        ("adapter_config.json", "{}"),
        (
            "adapter_config.json",
            json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": ["none"]}),
        ),
        ("adapter_config.json", json.dumps({"peft_type": "NOBODY"})),
        ("adapter_model.safetensors", "cut"),
        ("adapter_model.safetensors", None),
    ],
)
def test_damaged_folders_are_one_line(
    base: str, lora: Path, tiny_data: str, tmp_path: Path, file: str, content: str | None
) -> None:
    shutil.copytree(lora, tmp_path / "a")
    if content is None:
        (tmp_path / "a" / file).unlink()
    else:
        (tmp_path / "a" / file).write_text(content)
    given = ["record", "-q", "--model", base, "--data", tiny_data, "--limit", "4", "-o", str(tmp_path / "t.zarr")]
    done = CliRunner().invoke(app, [*given, "--adapter", str(tmp_path / "a")])
    assert isinstance(done.exception, InputError)
    assert "\n" not in str(done.exception)
    assert str(tmp_path / "a") in str(done.exception)


def test_an_adapter_given_as_a_model_says_where_it_goes(lora: Path) -> None:
    with pytest.raises(InputError, match="give it with --adapter"):
        traces.load_model(str(lora), "causal-lm")
