"""Which copies read the same second operand is found by what runs, in every form that grouped queries take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tiny_models import make_data, write_tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as fused
from transformers.integrations.sdpa_attention import repeat_kv

import simkit as sk
import traces
from simkit.engine.timeline import timeline
from traces.models.sites import find_sites
from traces.oplist.example_inputs import decode_probe, probe_shapes, prompt_probe
from traces.oplist.ops import Dim, OpSpec, Template, expand
from traces.oplist.probe import probe_ops, watch
from traces.training_step.ops import step_ops

Q = torch.randn(2, 8, 7, 16)
KEYS = torch.randn(2, 2, 7, 16)  # two key heads
ROWS = torch.randn(2, 7, 2, 16)  # the same in the order of a projection's output


def overwritten() -> torch.Tensor:
    keys = repeat_kv(KEYS, 4)
    keys.add_(torch.randn(2, 8, 7, 16))
    return Q @ keys.mT


FORMS: dict[str, tuple[Callable[[], torch.Tensor], list[int]]] = {
    "repeat_kv": (lambda: Q @ repeat_kv(KEYS, 4).mT, [4]),
    "one key head": (lambda: Q @ repeat_kv(KEYS[:, :1], 8).mT, [8]),
    "broadcast": (lambda: Q @ KEYS[:, :1].mT, [8]),
    "unflattened": (lambda: Q.view(2, 2, 4, 7, 16) @ KEYS[:, :, None].mT, [4]),
    "repeat_interleave": (lambda: Q @ KEYS.repeat_interleave(4, 1).mT, [4]),
    "before the transposition": (lambda: Q @ ROWS.repeat_interleave(4, 2).transpose(1, 2).mT, [4]),
    "scaled": (lambda: Q @ (repeat_kv(KEYS, 4) * 0.25).to(torch.float64).float().mT, [4]),
    "every copy": (lambda: Q @ KEYS[:1, :1].mT, [16]),
    "as rows of one head": (lambda: Q.view(2, 2, 28, 16) @ KEYS.mT, [1]),
    "tiled": (lambda: Q @ KEYS.repeat(1, 4, 1, 1).mT, [1]),  # copies 0, 2, 4 ... are alike: none that follow each other
    "over sequences": (lambda: Q @ KEYS[:1].repeat_interleave(4, 1).mT, [4]),
    "with heads of their own": (lambda: Q @ torch.cat([repeat_kv(KEYS, 4), Q], -1)[..., 16:].mT, [1]),
    "overwritten": (overwritten, [1]),
    "fused": (lambda: fused(Q, KEYS, KEYS, enable_gqa=True), [4, 4]),
    "fused, repeated": (lambda: fused(Q, repeat_kv(KEYS, 4), repeat_kv(KEYS, 4)), [4, 4]),
    "fused, own values": (lambda: fused(Q, repeat_kv(KEYS, 4), Q), [4, 1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_copies_that_share_an_operand_are_seen(form: str) -> None:
    run, wanted = FORMS[form]
    found = [event.shared for event in watch(torch.nn.Module(), run) if event.kind == "gemm"]
    assert found == wanted


def test_the_plain_kernel_shares_as_the_fused_one() -> None:
    with sdpa_kernel(SDPBackend.MATH):
        events = watch(torch.nn.Module(), FORMS["fused"][0])
    assert [event.shared for event in events if event.kind == "gemm"] == [4, 4]
    assert [event.dims for event in events if event.operator == "softmax"] == [(7, 1, 1, 2 * 8 * 7)]


def llama(key_heads: int, attention: str = "sdpa", heads: int = 8) -> Any:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=heads,
            num_key_value_heads=key_heads, attn_implementation=attention, bos_token_id=1, eos_token_id=2,
        )
    ).eval()  # fmt: skip


def attention_ops(model: Any, probe: Callable[..., Any], shape: tuple[int, int]) -> list[OpSpec]:
    shapes = probe_shapes(model)
    templates = probe_ops(model, [probe(model, *one) for one in shapes], shapes, find_sites(model))
    stored = [Template.from_dict(template.to_dict()) for template in templates]
    return [op for op in expand(stored, [shape]) if op.op in ("scores", "values")]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("key_heads", [1, 2, 8])
@pytest.mark.parametrize("probe", [prompt_probe, decode_probe])
def test_query_heads_share_their_key_head(probe: Callable[..., Any], key_heads: int, attention: str) -> None:
    ops = attention_ops(llama(key_heads, attention), probe, (5, 17))
    rows = 17 if probe is prompt_probe else 1
    shapes = [(op.op, op.m, op.k, op.n, op.repeat, op.shared) for op in ops]
    assert shapes == [("scores", rows, 8, 17, 40, 8 // key_heads), ("values", rows, 17, 8, 40, 8 // key_heads)]


def test_a_mask_packs_query_heads_into_rows_but_lists_the_same_ops() -> None:
    # transformers hands a single token's query heads over as rows of the key head as soon as there is a mask
    model = llama(2)
    cache = model(torch.ones((2, 9), dtype=torch.long), use_cache=True).past_key_values
    mask = torch.ones((2, 10), dtype=torch.long)
    mask[0, 0] = 0
    events = watch(
        model, lambda: model(torch.ones((2, 1), dtype=torch.long), past_key_values=cache, attention_mask=mask)
    )
    found = [(e.dims, e.shared) for e in events if e.operator in ("scores", "values")]
    assert found == [((1, 8, 10, 16), 4), ((1, 10, 8, 16), 4)]


def test_older_traces_share_nothing_and_ops_without_sharing_are_stored_as_before() -> None:
    plain = Template("scores", 0, "gemm", Dim(1), Dim(8), Dim(1, 0, 1), Dim(4, 1), False, 0)
    assert "shared" not in plain.to_dict()
    (op,) = expand([Template.from_dict(plain.to_dict())], [(2, 5)])
    assert op.shared == 1


def test_the_gradient_that_reads_what_is_shared_shares_it() -> None:
    net = llama(2).train()
    ids = [torch.ones(shape, dtype=torch.long) for shape in ((2, 7), (3, 11))]
    steps = step_ops(net, [lambda one=one: net(one, labels=one).loss for one in ids])
    shared = {op.op: op.shared for op in steps.at(2, 7) if op.op.startswith(("scores", "values"))}
    assert shared == {
        "scores": 4, "scores.grad_q": 4, "scores.grad_k": 1,
        "values": 4, "values.grad_scores": 4, "values.grad_v": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """Two prompts and eight decoding steps with 8 key heads and with 1, on an accelerator and a GPU."""
    folder = tmp_path_factory.mktemp("grouped")
    data, results = make_data(folder), {}
    for heads in (8, 1):
        model = folder / f"kv{heads}"
        llama(heads).save_pretrained(model)
        write_tokenizer(model)
        trace = traces.record(
            str(model), data=data, limit=2, new_tokens=8, max_length=8, out=folder / f"{heads}.zarr", progress=False
        )
        results[heads] = trace, sk.replay([trace], ["systolic_32x32", "h100_sxm"], weights="dense")
    return results


@pytest.mark.parametrize(("arch", "size"), [("systolic_32x32", 1), ("h100_sxm", 2)])
def test_the_cache_is_read_once_a_group(replayed: dict[int, Any], arch: str, size: int) -> None:
    moved, macs = {}, {}
    for heads, (_, result) in replayed.items():
        ops = result.ops[(result.ops["arch"] == arch) & result.ops["op"].isin(["scores", "values"])]
        moved[heads], macs[heads] = int(ops["dram_bytes"].sum()), int(ops["macs"].sum())
        rows = result.frame[(result.frame["arch"] == arch) & result.frame["op"].isin(["scores", "values"])]
        assert rows[(rows["component"] == "dram")]["count"].sum() == moved[heads]
    assert macs[8] == macs[1]
    elements = sum(op.k * op.n * op.repeat for op in replayed[8][0].ops() if op.op in ("scores", "values"))
    saved = elements * size * 7 // 8
    # the systolic array moves whole bursts of 64 bytes, which can only add
    assert moved[8] - moved[1] == saved if size == 2 else moved[8] - moved[1] >= saved


def test_a_timeline_shows_the_group(replayed: dict[int, Any], tmp_path: Path) -> None:
    trace, _ = replayed[1]
    timeline(trace, sk.arch("systolic_32x32"), tmp_path / "t.json", op="scores")
    assert json.loads((tmp_path / "t.json").read_text())["otherData"]["shape"].endswith(", 8 copies")
