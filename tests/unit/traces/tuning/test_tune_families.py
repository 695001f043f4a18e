"""`tune` knows the models that `record` knows: families without a table, sites by hand, mixtures of experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tiny_families import SMALL
from tiny_models import write_tokenizer
from typer.testing import CliRunner

import traces
from simkit.cli import app
from traces.data.batches import sorted_order
from traces.data.inputs import prepare
from traces.errors import InputError
from traces.tuning import DensityLoss, LoRA, Training, Tuning, load_tuned

BASE: dict[str, Any] = SMALL | {"num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
NO_TABLE = {
    "gemma3_text": (lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**BASE, head_dim=8)), "layers.*.mlp.down_proj"),
    "gpt_neox": (lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SMALL)), "layers.*.mlp.dense_4h_to_h"),
    "phi3": (lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**BASE)), "layers.*.mlp.down_proj"),
}
SHORT = Training(epochs=1, batch_size=8, max_samples=24, lr=3e-3)


def saved(net: Any, folder: Path) -> str:
    net.save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = hf.MixtralConfig(**BASE, num_local_experts=4, num_experts_per_tok=2, hidden_act="relu")
    return saved(hf.MixtralForCausalLM(config), tmp_path_factory.mktemp("moe") / "mixtral")


@pytest.mark.parametrize("family", NO_TABLE)
def test_a_family_without_a_table_is_tuned(
    family: str, tiny_data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build, pattern = NO_TABLE[family]
    torch.manual_seed(0)
    model = saved(build(), tmp_path / "m")
    options: dict[str, Any] = {"limit": 16, "test_limit": 6, "progress": False}
    unknown = traces.tune(model, tiny_data, "lora", tmp_path / "unknown", **options)
    unmeasured = "density is not measured" in caplog.text
    assert unmeasured == np.isnan(unknown.density)
    named = traces.tune(model, tiny_data, "lora", tmp_path / "named", sites=pattern, **options)
    assert 0 < named.density <= 1
    assert len(named.measurements["density_per_layer"]) == 2
    assert named.measurements["accuracy"] == unknown.measurements["accuracy"]
    trace = traces.record(
        model, adapter=named.path, data=tiny_data, limit=6, out=tmp_path / "t.zarr", max_length=64, progress=False
    )
    found = [site.density() for site in trace.sites.values()]
    assert len(found) == 2
    assert np.allclose(found, named.measurements["density_per_layer"])


def test_what_needs_sites_says_how_to_name_them(tiny_data: str, tmp_path: Path) -> None:
    build, pattern = NO_TABLE["gpt_neox"]
    model = saved(build(), tmp_path / "m")
    plan = Tuning(name="d", method="density", density=DensityLoss(weight=10.0), train=SHORT)
    for tuning in (plan, "ia3"):
        try:
            traces.tune(model, tiny_data, tuning, tmp_path / f"{tuning}"[:4], test_limit=6, progress=False)
        except InputError as error:
            assert "--site" in str(error)  # noqa: PT017 - a family may come into the table
    with pytest.raises(InputError, match=r"no linear module matches --site 'layers\.nowhere'"):
        traces.tune(model, tiny_data, "lora", tmp_path / "wrong", sites=["layers.nowhere"], progress=False)
    assert traces.tune(model, tiny_data, plan, tmp_path / "run", sites=pattern, test_limit=6, progress=False).density


def test_a_mixture_is_tuned_and_its_density_measured(mixtral: str, tiny_data: str, tmp_path: Path) -> None:
    """The measured density is that of the trace: over the chosen experts of every real token."""
    plan = Tuning(name="moe", module=LoRA(r=4), train=SHORT)
    result = traces.tune(mixtral, tiny_data, plan, tmp_path / "run", test_limit=6, progress=False)
    assert result.measurements["steps"] == 3
    out = tmp_path / "t.zarr"  # one sequence a batch: no padding, so that all rows are real
    trace = traces.record(mixtral, adapter=result.path, data=tiny_data, limit=6, batch_size=1, out=out, progress=False)
    for layer, density in enumerate(result.measurements["density_per_layer"]):
        masks = [site.mask().to_bool() for site in trace.sites.values() if site.layer == layer]
        assert len(masks) == 4
        assert sum(len(mask) for mask in masks) == 2 * trace.n_tokens
        assert density == pytest.approx(np.concatenate(masks).mean(), abs=1e-3)
        assert 0.2 < density < 0.8


def test_a_mixture_s_density_is_lowered(mixtral: str, tiny_data: str, tmp_path: Path) -> None:
    """The penalty reaches what enters the experts' down-projections, through the layers below."""
    found = []
    for weight in (0.0, 30.0):
        plan = Tuning(
            name="moe",
            method="density",
            module=LoRA(r=8),
            density=DensityLoss(weight=weight, surrogate="tanh"),
            train=SHORT.model_copy(update={"max_samples": 96, "lr": 1e-2}),
        )
        out = tmp_path / f"{weight}"
        found.append(traces.tune(mixtral, tiny_data, plan, out, test_limit=12, progress=False).density)
    assert found[1] < found[0] - 0.02


@pytest.mark.parametrize("tuning", ["ia3", "relu-lora", "adapter"])
def test_what_changes_mlp_blocks_refuses_experts(mixtral: str, tiny_data: str, tmp_path: Path, tuning: str) -> None:
    with pytest.raises(InputError, match="mixtures of experts; use lora"):
        traces.tune(mixtral, tiny_data, tuning, tmp_path / "run", limit=16, progress=False)


def test_the_command_line_has_what_the_function_has(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    def run(*words: str) -> Any:
        given = ["tune", "-q", "--model", tiny_model, "--data", tiny_data, "--limit", "16", "--json", *words]
        return CliRunner().invoke(app, given)

    first = run("-o", str(tmp_path / "first"))
    assert first.exit_code == 0
    second = run("-o", str(tmp_path / "second"), "--init", str(tmp_path / "first"))
    assert second.exit_code == 0
    assert '"init": "first"' in second.stdout
    named = run("-o", str(tmp_path / "named"), "--site", "encoder.layer.1.output.dense")
    assert named.exit_code == 0
    assert len(traces.tuning.result.open_result(tmp_path / "named").measurements["density_per_layer"]) == 1
    plan = tmp_path / "distil.yaml"
    plan.write_text("name: taught\ndistil: {teacher: lora}\n")
    taught = run("-o", str(tmp_path / "taught"), "--tuning", str(plan), "--teacher", str(tmp_path / "first"))
    assert taught.exit_code == 0


def test_what_was_given_decides_whether_a_folder_is_the_same(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"limit": 16, "test_limit": 6, "progress": False}
    a = traces.tune(tiny_model, tiny_data, "lora", tmp_path / "a" / "start", seed=1, **options)
    b = traces.tune(tiny_model, tiny_data, "lora", tmp_path / "b" / "start", seed=2, **options)
    made = traces.tune(tiny_model, tiny_data, "lora", tmp_path / "out", init=a.path, **options)
    again = traces.tune(tiny_model, tiny_data, "lora", tmp_path / "out", init=a.path, **options)
    assert again.measurements == made.measurements
    with pytest.raises(InputError, match="holds another tuning"):
        traces.tune(tiny_model, tiny_data, "lora", tmp_path / "out", init=b.path, **options)
    with pytest.raises(InputError, match="does not distil; leave the teacher out"):
        traces.tune(tiny_model, tiny_data, "lora", tmp_path / "c", teacher=a.path, **options)


def test_a_start_of_another_model_is_refused(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    torch.manual_seed(9)
    other = saved(hf.BertForSequenceClassification(hf.BertConfig(**SMALL)), tmp_path / "other")
    start = traces.tune(other, tiny_data, "lora", tmp_path / "start", limit=16, test_limit=6, progress=False)
    with pytest.raises(InputError, match=r"has model '.*other', this one"):
        traces.tune(tiny_model, tiny_data, "lora", tmp_path / "run", init=start.path, limit=16, progress=False)


def test_a_look_leaves_nothing_for_the_next_penalty(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    """With `patience` the penalty of the step after a look is that of its own batch: a look changes no weight."""
    found = []
    for every in (1, 1000):
        plan = Tuning(
            name="d",
            method="density",
            density=DensityLoss(weight=5.0, surrogate="tanh"),
            train=SHORT.model_copy(update={"patience": 100, "look_every": every}),
        )
        made = traces.tune(tiny_model, tiny_data, plan, tmp_path / str(every), test_limit=6, progress=False)
        found.append(made)
    assert _log(found[0]) == _log(found[1])


def _log(result: traces.TuneResult) -> list[float]:
    import pandas as pd

    return list(pd.read_parquet(result.path / "log.parquet")["density_loss"])


def test_the_paper_s_density_counts_flattened_tokens_by_sample(tiny_data: str, tmp_path: Path) -> None:
    """OPT's blocks see (tokens, K): the share of a sample is over its own tokens, padding included."""
    torch.manual_seed(0)
    config = hf.OPTConfig(vocab_size=97, hidden_size=24, ffn_dim=40, num_hidden_layers=2, num_attention_heads=3)
    model = saved(hf.OPTForCausalLM(config), tmp_path / "m")
    result = traces.tune(model, tiny_data, "lora", tmp_path / "run", limit=16, test_limit=6, progress=False)
    assert 0 < result.measurements["density_paper"] <= 1
    net = load_tuned(result.path)[0]
    split = traces.load_data(tiny_data, label=None, task="causal-lm").test.head(6)
    items = prepare(model, "causal-lm", split)
    rows = sorted_order(items.lengths, 16)[0]
    seen: list[Any] = []
    for layer in net.model.decoder.layers:
        layer.fc2.register_forward_pre_hook(lambda _m, given: seen.append(given[0].reshape(len(rows), -1)))
    with torch.no_grad():
        net(**items.batch(rows).inputs)
    share = np.mean([float((value != 0).float().mean()) for value in seen])
    assert result.measurements["density_paper"] == pytest.approx(share, abs=1e-6)
