"""Weights that do not reach the model: refused by name, or read without a wrapper's prefix."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_families import SMALL
from tiny_models import write_tokenizer

import traces
from traces.errors import CorruptError, InputError, TraceError, library_errors
from traces.models.load import load_model
from traces.models.loaders.common import save
from traces.models.quiet import without_load_report
from traces.tuning import checkpoint

ALIVE = 8  # neurons of 40 whose gate can be above zero


def llama(**changes: Any) -> Any:
    torch.manual_seed(1)
    net = hf.LlamaForCausalLM(hf.LlamaConfig(**(SMALL | {"num_key_value_heads": 1, "hidden_act": "relu"} | changes)))
    with torch.no_grad():
        for layer in net.model.layers:
            layer.mlp.gate_proj.weight[ALIVE:] = 0
    return net


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "good"
    llama().save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def altered(
    good: Path, folder: Path, rename: Callable[[str], str | None] = lambda name: name, config: Any = None
) -> str:
    """Copy a model with its weights renamed, those without a name left out, and its configuration changed."""
    shutil.copytree(good, folder)
    weights = {rename(name): tensor for name, tensor in load_file(good / "model.safetensors").items()}
    kept = {name: tensor for name, tensor in weights.items() if name is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    facts = json.loads((folder / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(facts))
    return str(folder)


def densities(model: str, data: str, out: Path, **options: Any) -> dict[str, float]:
    trace = traces.record(model, data=data, limit=4, out=out, progress=False, **options)
    return {name: site.density() for name, site in trace.sites.items() if name.endswith("down")}


@pytest.mark.parametrize(
    ("prefix", "task"),
    [("_orig_mod.", None), ("module.", None), ("base_model.model.", None), ("_orig_mod.module.", "features")],
)
def test_a_wrapper_s_prefix_is_read_without(
    good: Path, tiny_data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str, task: str | None
) -> None:
    own = densities(str(good), tiny_data, tmp_path / "own.zarr", task=task)
    assert not caplog.records
    found = densities(altered(good, tmp_path / "m", lambda n: prefix + n), tiny_data, tmp_path / "t.zarr", task=task)
    assert found == own
    assert max(found.values()) <= ALIVE / SMALL["intermediate_size"]
    assert f"'{prefix}'" in caplog.text


@pytest.mark.parametrize("inner", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_a_prefix_inside_a_name_is_left_out(good: Path, tmp_path: Path, inner: str) -> None:
    model = altered(good, tmp_path / "m", lambda n: n.replace("layers.1.", f"layers.1.{inner}"))
    for name, tensor in load_model(model, "causal-lm").state_dict().items():
        assert torch.equal(tensor, load_model(str(good), "causal-lm").state_dict()[name])


def unmerged(name: str) -> str:
    return name.replace("q_proj.weight", "q_proj.base_layer.weight")


def lora_only(name: str) -> str:
    return f"base_model.model.{name.replace('.weight', '.lora_A.default.weight')}" if "q_proj" in name else name


@pytest.mark.parametrize("task", ["causal-lm", "features"])
@pytest.mark.parametrize(
    ("rename", "config", "said"),
    [
        (lambda n: n, {"num_hidden_layers": 4}, "layers.2.input_layernorm.weight.*number of layers"),
        (lambda n: n, {"num_hidden_layers": 1}, "no place for 9 .*layers.1.input_layernorm.weight.*number of layers"),
        (lambda n: n.removeprefix("model."), {"num_hidden_layers": 1}, "no place for 9 .*layers.1.*number of layers"),
        (lambda n: n, {"intermediate_size": 48}, "down_proj.weight' is 24 x 40 in its files and 24 x 48"),
        (lambda n: n, {"vocab_size": 99}, "embed_tokens.weight' is 97 x 24 in its files and 99 x 24"),
        (lambda n: n if "layers.1.mlp.up" not in n else None, {}, r"lack 1 .*layers\.1\.mlp\.up_proj\.weight"),
        (lambda n: n if "embed_tokens" not in n else None, {}, "lack 1 .*embed_tokens.weight"),
        (lambda n: f"net.{n}", {}, "lack .*prefix 'net"),
        (lambda n: n.replace("self_attn", "attention"), {}, "lack 8 .*q_proj|lack 8 .*k_proj"),
        (unmerged, {}, "lack 2 .*q_proj.weight.*merge_and_unload"),
        (lora_only, {}, "lack 2 .*q_proj.weight.*merge_and_unload"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    good: Path, tmp_path: Path, task: str, rename: Callable[[str], str | None], config: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_model(altered(good, tmp_path / "m", rename, config), task)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_adapters_beside_the_weights_are_not_dropped(good: Path, tmp_path: Path) -> None:
    model = altered(good, tmp_path / "m")
    weights = load_file(f"{model}/model.safetensors")
    weights["model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(2, 24)
    save_file(weights, f"{model}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no place for 1 .*lora_A\.weight.*not merged"):
        load_model(model, "causal-lm")


def test_a_bias_without_a_place_is_not_dropped(good: Path, tmp_path: Path) -> None:
    model = altered(good, tmp_path / "m")
    weights = load_file(f"{model}/model.safetensors")
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(24)
    save_file(weights, f"{model}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no place for 1 .*q_proj\.bias"):
        load_model(model, "causal-lm")


def test_tables_and_other_heads_may_be_left_over(good: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = altered(good, tmp_path / "m")
    weights = load_file(f"{model}/model.safetensors")
    for name in ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.embeddings.position_ids", "score.weight"):
        weights[name] = torch.ones(4)
    save_file(weights, f"{model}/model.safetensors", metadata={"format": "pt"})
    load_model(model, "causal-lm")
    assert not caplog.records


def test_a_missing_head_passes_where_nothing_depends_on_it(
    good: Path, tiny_data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    headless = altered(good, tmp_path / "m", lambda n: n if n != "lm_head.weight" else None)
    own = densities(str(good), tiny_data, tmp_path / "own.zarr")
    assert densities(headless, tiny_data, tmp_path / "t.zarr") == own
    assert "no weights for lm_head.weight; they keep random initial values" in caplog.text
    with pytest.raises(InputError, match=r"head \(lm_head.weight\), which decoding tokens needs"):
        densities(headless, tiny_data, tmp_path / "d.zarr", new_tokens=2)
    with pytest.raises(InputError, match=r"head \(lm_head.weight\), which tuning for causal-lm needs"):
        traces.tune(headless, tiny_data, "lora", tmp_path / "run", limit=16, progress=False)


def test_a_tied_head_is_not_missing(tmp_path: Path, tiny_data: str, caplog: pytest.LogCaptureFixture) -> None:
    llama(tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    write_tokenizer(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    densities(str(tmp_path / "tied"), tiny_data, tmp_path / "t.zarr", new_tokens=1)
    assert not caplog.records


def test_a_new_classification_head_is_usual(good: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "traces"):
        load_model(str(good), "classification", 3)
    assert [(r.levelno, r.getMessage().partition(": ")[2]) for r in caplog.records] == [
        (logging.INFO, "no weights for score.weight; they keep random initial values")
    ]


def test_a_stored_head_of_another_size(tiny_model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    net = hf.BertForSequenceClassification(hf.BertConfig(**SMALL, num_labels=5))
    net.save_pretrained(tmp_path / "stars")
    write_tokenizer(tmp_path / "stars")
    kept = load_model(str(tmp_path / "stars"))
    assert torch.equal(kept.classifier.weight, net.classifier.weight)
    assert not caplog.records
    assert load_model(str(tmp_path / "stars"), labels=2).classifier.weight.shape == (2, 24)
    assert "its head has 5 outputs, not 2; a new one takes its place" in caplog.text


def test_more_classes_than_the_head_are_tuned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hf.BertForSequenceClassification(hf.BertConfig(**SMALL, num_labels=5)).save_pretrained(tmp_path / "stars")
    write_tokenizer(tmp_path / "stars")
    data = tmp_path / "two.csv"
    data.write_text("text,label\n" + "\n".join(f"good film {i},{i % 2}" for i in range(40)) + "\n")
    result = traces.tune(str(tmp_path / "stars"), str(data), "lora", tmp_path / "run", limit=16, progress=False)
    assert result.measurements["labels"] == 2
    assert "its head has 5 outputs, not 2" in caplog.text
    trace = traces.record(str(tmp_path / "stars"), data=str(data), limit=4, out=tmp_path / "t.zarr", progress=False)
    assert [op.n for op in trace.ops() if op.op == "head"] == [5]
    data.write_text("text,label\n" + "\n".join(f"good film {i},1" for i in range(40)) + "\n")
    with pytest.raises(InputError, match="one class"):
        traces.tune(str(tmp_path / "stars"), str(data), "lora", tmp_path / "one", progress=False)


def test_a_conversion_takes_no_untied_head_for_tied(tmp_path: Path) -> None:
    for tied in (True, False):
        net = llama(tie_word_embeddings=tied)
        weights = {name: tensor for name, tensor in net.state_dict().items() if name != "lm_head.weight"}
        if tied:
            save(net, weights, tmp_path)
        else:
            with pytest.raises(TraceError, match=r"missing \['lm_head.weight'\]"):
                save(net, weights, tmp_path)


def test_an_adapter_in_a_model_s_folder_is_refused(good: Path, tmp_path: Path) -> None:
    model = altered(good, tmp_path / "m")
    Path(model, "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="--adapter"):
        load_model(model, "causal-lm")


def test_damaged_files_are_one_line(good: Path, tmp_path: Path) -> None:
    def broken(name: str, file: str, content: bytes | None) -> str:
        folder = tmp_path / name
        shutil.copytree(good, folder)
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content)
        return str(folder)

    whole = (good / "model.safetensors").read_bytes()
    for model in (
        broken("cut", "model.safetensors", whole[: len(whole) // 2]),
        broken("empty", "model.safetensors", b""),
        broken("gone", "model.safetensors", None),
        broken("text", "config.json", b"{"),
        broken("list", "config.json", b"[]"),
        broken("words", "config.json", b'{"model_type": "llama", "num_hidden_layers": "two"}'),
        broken("kind", "config.json", b'{"model_type": "nobody"}'),
    ):
        with pytest.raises(InputError, match=f"could not load model '{model}'") as caught:
            load_model(model, "causal-lm")
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is not None


def test_a_damaged_tokenizer_is_one_line(good: Path, tiny_data: str, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(InputError, match="could not load model"):
        densities(str(tmp_path / "m"), tiny_data, tmp_path / "t.zarr")


def test_the_boundary_lets_programming_errors_pass() -> None:
    with pytest.raises(InputError, match=r"x failed \(invalid literal for .*'a'\); y"), boundary():
        int("a")
    for error in (TypeError("t"), AttributeError("a"), ZeroDivisionError("z"), MemoryError("m")):
        with pytest.raises(type(error)), boundary():
            raise error
    own = {"__name__": "traces.somewhere"}
    exec("def fault():\n    raise ValueError('ours')", own)
    with pytest.raises(ValueError, match=r"^ours$"), boundary():
        own["fault"]()  # type: ignore[operator]


def boundary() -> Any:
    return library_errors("x failed", "y")


def test_only_the_load_report_is_held_back() -> None:
    log = logging.getLogger("transformers.modeling_utils")
    shown: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        with without_load_report():
            log.warning("a LOAD REPORT")
            log.warning("another")
            log.error("an error")
        assert shown == ["another", "an error"]
        with pytest.raises(RuntimeError):
            fail_with_a_report(log)
        assert shown[2:] == ["the LOAD REPORT that the error refers to"]
    finally:
        log.removeHandler(handler)


def fail_with_a_report(log: logging.Logger) -> None:
    with without_load_report():
        log.warning("the LOAD REPORT that the error refers to")
        raise RuntimeError


@pytest.mark.parametrize("tuned", [False, True])
def test_a_model_that_cannot_run_is_one_line(
    good: Path, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: bool
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        torch.ones(2, 3) @ torch.ones(2, 3)

    # as a configuration does whose parts do not fit each other
    monkeypatch.setattr(hf.models.llama.modeling_llama.LlamaMLP, "forward", fail)

    def run() -> object:
        if tuned:
            return traces.tune(str(good), tiny_data, "relu-lora", tmp_path / "run", limit=16, progress=False)
        return traces.record(str(good), data=tiny_data, limit=4, out=tmp_path / "t.zarr", progress=False)

    with pytest.raises(InputError, match=f"model '{good}' cannot run a .*shapes cannot be multiplied") as caught:
        run()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_the_command_ends_with_two_and_one_line(
    good: Path, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from simkit.cli import main

    model = altered(good, tmp_path / "m", config={"num_hidden_layers": 4})
    for command in ("record", "tune"):
        words = ["simkit", command, "-q", "--model", model, "--data", tiny_data, "--limit", "8"]
        monkeypatch.setattr("sys.argv", [*words, "-o", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("simkit: error:")]
        assert len(said) == 1
        assert "lack 18 of the weights" in said[0]
    assert not (tmp_path / "out" / "zarr.json").exists()


@pytest.mark.parametrize("lost", ["weight:weight", "shape"])
def test_a_checkpoint_without_a_weight_is_damaged(tmp_path: Path, lost: str) -> None:
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    weights, path = dict(net.named_parameters()), tmp_path / "c.safetensors"
    checkpoint.save(path, weights, optimizer, {"key": "k"})
    assert checkpoint.load(path, weights, optimizer, "k") is not None
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if lost == "shape":
        tensors["weight:weight"] = torch.ones(1, 3)  # would be copied to every row
    else:
        del tensors[lost]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CorruptError, match="does not hold 'weight' whole; delete it"):
        checkpoint.load(path, weights, optimizer, "k")
