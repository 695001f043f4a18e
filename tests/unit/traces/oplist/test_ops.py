"""The op list equals torch's own FLOP counter, and the weights' bytes equal the state dict's, on every family."""

from __future__ import annotations

import pytest
import torch
from tiny_families import DECODERS, FAMILIES, VISION, build, inputs
from torch.utils.flop_counter import FlopCounterMode

from traces.errors import InputError
from traces.models.sites import find_sites
from traces.oplist.ops import Dim, OpSpec, Template, expand, fit_dim
from traces.oplist.probe import probe_ops

SHAPES = ((2, 7), (3, 11))


def listed(family: str, batch: int, length: int, attention: str = "eager", wrap=None) -> tuple[list[OpSpec], int, int]:
    """Ops at one shape, MACs by the FLOP counter, bytes of the distinct parameters."""
    model = build(family, attention)
    if wrap is not None:
        model = wrap(model)
    runs = [lambda shape=shape: model(**inputs(family, *shape)) for shape in SHAPES]
    templates = [Template.from_dict(t.to_dict()) for t in probe_ops(model, runs, SHAPES, find_sites(model))]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs(family, batch, length))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return expand(templates, [(batch, length)]), counter.get_total_flops() // 2, weights


@pytest.mark.parametrize("family", FAMILIES)
def test_macs_equal_the_flop_counter_and_bytes_the_parameters(family: str) -> None:
    ops, macs, weights = listed(family, 5, 13)
    assert macs > 0
    assert sum(op.macs for op in ops) == macs
    assert sum(op.weight_bytes for op in ops) == weights


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_fused_attention_lists_the_same_gemms(family: str) -> None:
    eager, macs, _ = listed(family, 3, 9)
    fused, _, _ = listed(family, 3, 9, attention="sdpa")
    assert sum(op.macs for op in fused) == macs == sum(op.macs for op in eager)
    assert {op.op for op in fused} >= {"scores", "values"}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_site_feeds_exactly_one_down_projection(family: str) -> None:
    ops, _, _ = listed(family, 2, 5)
    names = [op.input_site for op in ops if op.input_site]
    assert sorted(names) == sorted(site.name for site in find_sites(build(family)))
    assert all(op.op == "down" and op.kind == "gemm" for op in ops if op.input_site)


def test_unmerged_lora_adds_its_two_gemms() -> None:
    from traces.tuning import LoRA

    plain, base, _ = listed("bert", 4, 6)
    ops, macs, weights = listed("bert", 4, 6, wrap=lambda m: LoRA(r=2).change().apply(m, "classification", {}).eval())
    assert sum(op.macs for op in ops) == macs > base
    assert sum(op.weight_bytes for op in ops) == weights
    extra = {op.op for op in ops} - {op.op for op in plain} - {"parameters"}  # peft keeps the head's first weights
    assert extra == {f"{op}.lora_{side}" for op in ("q", "k", "v", "o", "up", "down") for side in "ab"}


def test_gated_families_name_the_gate_as_output_site() -> None:
    ops, _, _ = listed("llama", 2, 5)
    assert [op.output_site for op in ops if op.op == "up"] == ["layers.0.gate", "layers.1.gate"]


@pytest.mark.parametrize("family", DECODERS)
def test_ops_of_many_lengths_sum_to_the_single_runs(family: str) -> None:
    model = build(family)
    runs = [lambda shape=shape: model(**inputs(family, *shape)) for shape in SHAPES]
    templates = probe_ops(model, runs, SHAPES, find_sites(model))
    together = expand(templates, [(1, 4), (1, 9), (1, 4)])
    apart = [op for length in (4, 9, 4) for op in expand(templates, [(1, length)])]
    assert sum(op.macs for op in together) == sum(op.macs for op in apart)
    assert all(op.m == 17 for op in together if op.op == "down")


def test_a_stack_of_expert_weights_is_no_attention() -> None:
    import transformers as hf

    config = hf.Llama4TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, intermediate_size_mlp=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1,
        moe_layers=[0], attn_implementation="eager", bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = hf.Llama4ForCausalLM(config).eval()
    runs = [lambda shape=shape: model(torch.ones(shape, dtype=torch.long)) for shape in SHAPES]
    ops = expand(probe_ops(model, runs, SHAPES, find_sites(model, "down_proj")), [(2, 7)])
    batched = [(op.op, op.m, op.k, op.n, op.repeat) for op in ops if op.kind == "gemm" and not op.has_weight]
    assert batched == [
        ("scores", 7, 8, 7, 8), ("values", 7, 7, 8, 8), ("experts", 14, 32, 96, 2), ("experts", 14, 48, 32, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("family", VISION)
def test_vision_models_count_the_patch_convolution(family: str) -> None:
    ops, _, _ = listed(family, 3, 1)
    (conv,) = [op for op in ops if op.op == "conv"]
    assert (conv.m, conv.k, conv.n) == (27 if family == "vit" else conv.m, 48, 24) if family == "vit" else conv.n == 24


@pytest.mark.parametrize(
    ("values", "dim"),
    [
        ((5, 5), Dim(5)),
        ((14, 33), Dim(1, 1, 1)),
        ((24, 36), Dim(12, 1)),
        ((21, 33), Dim(3, 0, 1)),
        ((12, 16), Dim(1, 0, 1, 5)),
        ((2 * 49 * 3, 3 * 121 * 3), Dim(3, 1, 2)),
    ],
)
def test_fit_dim(values: tuple[int, int], dim: Dim) -> None:
    assert fit_dim(values, SHAPES) == dim
    assert tuple(dim.at(*shape) for shape in SHAPES) == values


def test_fit_dim_refuses_what_has_no_form() -> None:
    with pytest.raises(InputError, match="cannot be described"):
        fit_dim((10, 9), SHAPES)
