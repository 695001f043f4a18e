"""Every stack and layer has its own width, and what looks like an MLP but is left out is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tiny_families import FAMILIES, build
from tiny_models import WORDS, make_data, write_tokenizer

import simkit as sk
import traces
from traces.errors import InputError
from traces.models.experts import expert_sites
from traces.models.sites import find_sites
from traces.recording.targets import remarks

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


def bart() -> Any:
    torch.manual_seed(0)
    return hf.BartForConditionalGeneration(
        hf.BartConfig(
            vocab_size=64, d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=96, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=64, pad_token_id=0,
            bos_token_id=2, eos_token_id=3, decoder_start_token_id=3, forced_eos_token_id=None,
            activation_function="relu",
        )
    ).eval()  # fmt: skip


def pruned_llama() -> Any:
    """A model whose second layer was made narrower than its configuration says."""
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL)).eval()
    block = model.model.layers[1].mlp
    block.gate_proj, block.up_proj = (torch.nn.Linear(32, 20, bias=False) for _ in range(2))
    block.down_proj = torch.nn.Linear(20, 32, bias=False)
    return model


def test_a_decoder_wider_than_its_encoder_is_recorded_as_wide_as_it_is(tmp_path: Path) -> None:
    model = tmp_path / "bart"
    bart().save_pretrained(model)
    write_tokenizer(model)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("text,label\n" + "\n".join(f"{a} {b},{b} {a}" for a in WORDS for b in WORDS) + "\n")
    trace = traces.record(
        str(model), data=str(pairs), limit=3, out=tmp_path / "t.zarr", mlp_inputs=True, weights=True, progress=False
    )
    widths = {name: site.k for name, site in trace.sites.items() if name.endswith("down")}
    assert widths == {
        "encoder.layers.0.down": 64, "encoder.layers.1.down": 64,
        "decoder.layers.0.down": 96, "decoder.layers.1.down": 96,
    }  # fmt: skip
    assert {name: site.n for name, site in trace.sites.items() if name.endswith("up")} == {
        name.replace("down", "up"): k for name, k in widths.items()
    }
    down = {op.input_site: op.k for op in trace.ops() if op.op == "down"}
    assert down == widths
    replayed = sk.replay([trace], ["cnvlutin"], ops=["down"]).ops
    assert len(replayed) == 4
    assert (replayed["effectual_macs"] < replayed["macs"]).all()


def test_layers_of_unlike_width_are_all_found() -> None:
    model = pruned_llama()
    assert {site.name: site.k for site in find_sites(model)} == {"layers.0.down": 48, "layers.1.down": 20}
    assert remarks(model, find_sites(model)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_of_the_table_leaves_anything_out(family: str) -> None:
    model = build(family)
    assert remarks(model, find_sites(model)) == []


def test_what_looks_like_a_down_projection_is_named() -> None:
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL)).eval()
    for layer in model.model.layers:
        layer.extra = torch.nn.ModuleDict({"w1": torch.nn.Linear(32, 80), "w2": torch.nn.Linear(80, 32)})
    (line,) = remarks(model, find_sites(model))
    assert line.startswith(
        "2 layers look like down-projections of an MLP but are not recorded; their ops have no masks:"
    )
    assert "model.layers.*.extra.w2;" in line
    assert "\n" not in line


def test_a_recording_says_so_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "llama"
    hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, pad_token_id=0)).save_pretrained(folder)
    write_tokenizer(folder)
    monkeypatch.setattr("traces.recording.recorder.remarks", lambda model, every: ["2 layers look like it"])
    traces.record(str(folder), data=make_data(tmp_path), limit=2, out=tmp_path / "t.zarr", progress=False)
    heard = capsys.readouterr()
    assert "2 layers look like it\n" in heard.err
    assert heard.out == ""


def test_a_place_that_holds_no_linear_layer_is_an_error() -> None:
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL))
    model.model.layers[1].mlp.down_proj = torch.nn.Bilinear(48, 48, 32)
    with pytest.raises(
        InputError, match=r"'model\.layers\.1\.mlp\.down_proj' is where a 'llama' model .* \(Bilinear\)"
    ):
        find_sites(model)


def test_two_towers_of_one_name_are_not_taken_for_one() -> None:
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL))
    model.second = hf.LlamaModel(hf.LlamaConfig(**SMALL | {"intermediate_size": 80}))
    with pytest.raises(InputError, match=r"two down-projections for 'layers\.0\.down': 'model\..*' and 'second\."):
        find_sites(model)


def test_compressed_keys_are_said_to_be_listed_whole() -> None:
    config = hf.DeepseekV3Config(
        **SMALL, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8,
        n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=16,
        first_k_dense_replace=1,
    )  # fmt: skip
    model = hf.DeepseekV3ForCausalLM(config)
    (line,) = remarks(model, expert_sites(model))
    assert "'deepseek_v3' model keeps keys and values compressed" in line
    assert "upper bound" in line
