"""What a model with a sliding window executes is what is listed, below and beyond window and probes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tiny_models import make_data, write_tokenizer
from torch.utils.flop_counter import FlopCounterMode
from transformers.cache_utils import DynamicSlidingWindowLayer as Layer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import traces
from traces.errors import InputError
from traces.models.experts import expert_sites, has_experts
from traces.models.sites import find_sites
from traces.oplist.example_inputs import decode_probe, probe_shapes, prompt_probe
from traces.oplist.ops import Dim, OpSpec, Template, expand
from traces.oplist.windows import NEVER, _bounds, cache_windows, list_ops

COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "intermediate_size_mlp": 48,  # read by one family alone
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
# the class, what its configuration adds, and the layers that have the window
MODELS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "mistral": ("Mistral", {"sliding_window": 16}, (0, 1)),
    "below the probes": ("Mistral", {"sliding_window": 4}, (0, 1)),
    "between the probes": ("Mistral", {"sliding_window": 12}, (0, 1)),
    "mixed": ("Qwen2", {"sliding_window": 8, "use_sliding_window": True, **MIXED}, (0,)),
    "phi3": ("Phi3", {"sliding_window": 8}, (0, 1)),
    "gemma2": ("Gemma2", {"sliding_window": 8, "head_dim": 8, **MIXED}, (0,)),
    "gemma3": ("Gemma3", {"sliding_window": 8, "head_dim": 8, **MIXED}, (0,)),
    "gpt-oss": ("GptOss", {"sliding_window": 8, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, (0,)),
    "mixtral": ("Mixtral", {"sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, (0, 1)),
    "chunks": (
        "Llama4",
        {"attention_chunk_size": 8, "head_dim": 8, "moe_layers": [], "no_rope_layers": [1, 0]},
        (0,),
    ),
    "unused": ("Qwen2", {"sliding_window": 8, "use_sliding_window": False}, ()),
}  # fmt: skip
NO_SDPA = ("gemma2", "gpt-oss")
CONTEXTS = (4, 8, 9, 12, 15, 40)


def build(name: str, attention: str) -> Any:
    family, more, _ = MODELS[name]
    kind = f"{family}Text" if family in ("Gemma3", "Llama4") else family
    torch.manual_seed(0)
    config = getattr(hf, f"{kind}Config")(**COMMON, **more)
    config._attn_implementation = attention
    return getattr(hf, f"{family}ForCausalLM")(config).eval()


def window_of(name: str) -> int:
    more = MODELS[name][1]
    return int(more.get("sliding_window") or more["attention_chunk_size"])


def listed(model: Any, probe: Callable[..., Any]) -> list[Template]:
    sites = expert_sites(model) if has_experts(model) else find_sites(model, "down_proj")
    # as stored and read again
    return [Template.from_dict(t.to_dict()) for t in list_ops(model, probe, probe_shapes(model), sites)]


def scores(templates: list[Template], *shape: int) -> list[OpSpec]:
    return [op for op in expand(templates, [shape]) if op.op == "scores"]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NO_SDPA])
def test_keys_are_those_that_the_model_hands_to_its_attention(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build(name, "sdpa"), []
    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def spy(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((query.shape[-2], key.shape[-2]))
        return plain(module, query, key, value, *args, **kwargs)

    steps, prompts = listed(model, decode_probe), listed(model, prompt_probe)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", spy)
    for keys in CONTEXTS:
        run = decode_probe(model, 2, keys)
        seen.clear()
        with torch.no_grad():
            run()
        assert [(op.m, op.n) for op in scores(steps, 2, keys)] == seen
        windowed = MODELS[name][2]
        assert seen == [(1, min(window_of(name), keys) if layer in windowed else keys) for layer in (0, 1)]
        # a prompt's pass computes all scores, and masks those beyond the window
        seen.clear()
        with torch.no_grad():
            prompt_probe(model, 2, keys)()
        assert [(op.m, op.n) for op in scores(prompts, 2, keys)] == seen == [(keys, keys)] * 2


@pytest.mark.parametrize("name", ["mistral", "below the probes", "mixed", "gemma2", "gemma3", "chunks"])
@pytest.mark.parametrize("probe", [prompt_probe, decode_probe])
def test_macs_are_those_that_torch_counts(name: str, probe: Callable[..., Any]) -> None:
    model = build(name, "eager")
    templates = listed(model, probe)
    for keys in CONTEXTS:
        run = probe(model, 3, keys)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        assert 2 * sum(op.macs for op in expand(templates, [(3, keys)])) == counter.get_total_flops()


def test_sinks_stand_beside_the_window() -> None:
    templates = listed(build("gpt-oss", "eager"), decode_probe)
    for keys in CONTEXTS:
        elements = [op.m for op in expand(templates, [(2, keys)]) if op.op == "softmax"]
        # one sink for each head, beside the keys
        assert elements[:1] == [2 * 4 * (min(8, keys) + 1)]
        assert 2 * 4 * (keys + 1) in elements[1:]
        assert [op.n for op in scores(templates, 2, keys)] == [min(8, keys), keys]


class _TwoWindows(torch.nn.Module):
    """One token's attention over two caches."""

    def forward(self, caches: list[Any], query: torch.Tensor, key: torch.Tensor) -> None:
        for cache in caches:
            keys, values = cache.update(key, key)
            torch.nn.functional.scaled_dot_product_attention(query, keys, values)


def test_each_layer_keeps_its_own_window() -> None:
    def probe(model: Any, batch: int, keys: int) -> Callable[[], object]:
        caches = [Layer(8), Layer(20)]
        for cache in caches:
            cache.update(*[torch.randn(batch, 4, keys - 1, 8)] * 2)
        return lambda: model(caches, *[torch.randn(batch, 4, 1, 8)] * 2)

    templates = list_ops(_TwoWindows(), probe, ((2, 11), (3, 13)), [])
    assert [[op.n for op in scores(templates, 2, keys)] for keys in (5, 11, 40)] == [[5, 5], [8, 11], [8, 20]]


def test_a_recording_lists_what_ran(tmp_path: Path) -> None:
    folder = tmp_path / "mistral"
    build("below the probes", "sdpa").save_pretrained(folder)
    write_tokenizer(folder)
    trace = traces.record(
        str(folder), data=make_data(tmp_path), limit=3, new_tokens=3, out=tmp_path / "t.zarr", progress=False
    )
    for real in (True, False):
        decode = [op for op in trace.ops(real, "decode") if op.op == "scores"]
        assert {op.n for op in decode} <= {1, 2, 3, 4}
        assert max(op.n for op in decode) == 4
        prompt = [op for op in trace.ops(real, "prefill") if op.op == "scores"]
        assert max(op.n for op in prompt) > 4


def test_the_cache_is_left_as_it_was() -> None:
    plain = Layer.__init__
    with cache_windows(lambda window: NEVER) as seen:
        assert Layer(sliding_window=8).sliding_window == NEVER
        assert seen == {8}
    assert Layer.__init__ is plain
    assert Layer(8).sliding_window == 8


def test_what_a_window_does_otherwise_is_refused() -> None:
    shapes = ((2, 11), (3, 13))
    whole = Template("scores", 4, "gemm", Dim(1), Dim(8), Dim(1, 0, 1), Dim(4, 1), False, 0)
    odd = Template("scores", 4, "gemm", Dim(1), Dim(8), Dim(6), Dim(4, 1), False, 0)
    with pytest.raises(InputError, match="'scores' of layer 4 has a dimension of 6 and 6 with a cache of 3 tokens"):
        _bounds(whole, odd, 100, shapes)


@pytest.mark.parametrize(
    ("dim", "stored", "values"),
    [
        (Dim(2, 1, 1, 0, 0, 8), [2, 1, 1, 0, 0, 8], [2 * 3 * 5, 2 * 3 * 8]),
        (Dim(1, 0, 1, 1, 0, 9), [1, 0, 1, 1, 0, 9], [6, 9]),
        (Dim(1, 0, 1, 1), [1, 0, 1, 1], [6, 31]),
        (Dim(1, 0, 0, 0, 1, 4), [1, 0, 0, 0, 1, 4], [2, 4]),
    ],
)
def test_dimensions_stop_at_the_window(dim: Dim, stored: list[int], values: list[int]) -> None:
    assert dim.to_list() == stored
    assert Dim(*stored) == dim
    assert [dim.at(3, 5, 2), dim.at(3, 30, 7)] == values
