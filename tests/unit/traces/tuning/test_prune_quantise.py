"""Pruned and rounded weights: patterns, what stays through tuning and merging, masks in the trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import build, inputs

import simkit as sk
import traces
from traces.errors import InputError
from traces.tuning import (
    Activation,
    FullTuning,
    LoRA,
    NoModule,
    Prune,
    Quantise,
    Training,
    Tuning,
    list_methods,
    load_tuned,
    tune,
)
from traces.tuning.change import Sample
from traces.tuning.methods.prune import input_norms, keep_mask, rows_of
from traces.tuning.methods.quantise import on_grid
from traces.tuning.spec import tuning_from_yaml

QUICK = Training(epochs=2, batch_size=16, lr=5e-3, max_length=16)


def no_data(count: int, size: int) -> Any:
    raise AssertionError("magnitude needs no data")


BLIND = Sample(no_data, no_data, "classification", 0)


@given(st.integers(0, 1000), st.sampled_from([(1, 4), (2, 4), (4, 8)]))
@settings(deadline=None, max_examples=30)
def test_n_of_m_keeps_the_highest_of_every_group(seed: int, pattern: tuple[int, int]) -> None:
    kept, of = pattern
    score = torch.rand((5, 24), generator=torch.Generator().manual_seed(seed))
    mask = keep_mask(score, Prune(pattern=f"{kept}:{of}")).reshape(5, -1, of)
    assert (mask.sum(-1) == kept).all()
    groups = score.reshape(5, -1, of)
    assert (groups.masked_fill(~mask, 2).amin(-1) >= groups.masked_fill(mask, -1).amax(-1)).all()


def test_free_pruning_cuts_each_output_alike() -> None:
    score = torch.tensor([[5.0, 1, 4, 2], [0.1, 0.4, 0.3, 0.2]])
    assert keep_mask(score, Prune(sparsity=0.5)).tolist() == [[True, False, True, False], [False, True, True, False]]
    assert keep_mask(score, Prune(sparsity=0.25)).sum(1).tolist() == [3, 3]


def test_wanda_scores_by_the_norms_of_real_tokens() -> None:
    from traces.data.batches import Batch

    net = build("bert")
    name = "bert.encoder.layer.1.output.dense"
    given_inputs = inputs("bert", 3, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]]).bool()
    batch = Batch(np.arange(3), given_inputs | {"attention_mask": mask.long()}, mask)
    seen: list[torch.Tensor] = []
    net.get_submodule(name).register_forward_pre_hook(lambda _m, i: seen.append(i[0].detach()))
    norms = input_norms(net, [name], Sample(lambda c, s: iter([batch, batch]), no_data, "classification", 0))
    by_hand = (2 * seen[0][mask].square().sum(0)).sqrt()
    torch.testing.assert_close(norms[name], by_hand)


@pytest.mark.parametrize("module", [LoRA(r=2), FullTuning()])
def test_zeros_stay_through_tuning_and_merging(module: Any, tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    plan = Tuning(name="p", method="prune", module=module, prune=Prune(pattern="2:4"), train=QUICK)
    result = tune(tiny_model, tiny_data, plan, tmp_path / "p", progress=False)
    assert result.measurements["weight_density"] == 0.5
    merged, whole = load_tuned(result.path)[0], load_tuned(result.path, merge=False)[0]
    weight = rows_of(merged.bert.encoder.layer[0].output.dense)
    nonzero = (weight.reshape(len(weight), -1, 4) != 0).sum(-1)
    assert int(nonzero.max()) == 2
    assert float(nonzero.float().mean()) > 1.9
    given_inputs = inputs("bert", 2, 5)
    given_inputs["input_ids"] = given_inputs["input_ids"] % 18
    with torch.no_grad():  # a product masked in training is the one that is merged
        torch.testing.assert_close(merged(**given_inputs).logits, whole(**given_inputs).logits, rtol=1e-4, atol=1e-5)


def test_the_mask_of_an_adapter_matters(tiny_model: str) -> None:
    """Without the hook, merging a filled product would change the result."""
    plan = Tuning(name="p", module=LoRA(r=2), prune=Prune(score="magnitude", sparsity=0.75))
    net = build("bert")
    changes = plan.changes()
    for change in changes:
        net = change.apply(net, "classification", change.decide(net, BLIND))
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.linspace(-0.5, 0.5, p.numel()).reshape(p.shape))
    hooked = net(**inputs("bert", 2, 5)).logits
    for module in net.modules():
        if hasattr(module, "lora_A"):
            module._forward_hooks.clear()
    assert not torch.allclose(net(**inputs("bert", 2, 5)).logits, hooked, atol=1e-3)
    for change in reversed(changes):
        net = change.merge(net)
    torch.testing.assert_close(net(**inputs("bert", 2, 5)).logits, hooked, rtol=1e-4, atol=1e-5)


def test_transposed_layers_are_pruned_by_output() -> None:
    net = build("gpt2")
    change = Prune(score="magnitude", sparsity=0.5).change()
    change.apply(net, "causal-lm", change.decide(net, BLIND))
    down = net.transformer.h[0].mlp.c_proj  # its weight is (K, N)
    assert ((down.weight != 0).sum(0) == 48).all()


@pytest.mark.parametrize(("bits", "group", "levels"), [(8, None, 255), (4, None, 15), (4, 8, 15)])
def test_rounding_is_to_the_nearest_step(bits: int, group: int | None, levels: int) -> None:
    weight = torch.randn((6, 24), generator=torch.Generator().manual_seed(1))
    weight[:, 3] = 0
    rounded = on_grid(weight, bits, group)
    cut, fine = (w.reshape(6, -1, group or 24) for w in (weight, rounded))
    step = cut.abs().amax(-1, keepdim=True) / (levels // 2)
    assert float(((cut - fine).abs() / step).max()) <= 0.5 + 1e-5
    whole = fine / step
    torch.testing.assert_close(whole, whole.round(), atol=1e-3, rtol=0)
    assert torch.count_nonzero(rounded[:, 3]) == 0
    torch.testing.assert_close(on_grid(rounded, bits, group), rounded)
    assert (on_grid(torch.zeros(2, 8), bits) == 0).all()


def test_rounded_again_after_the_merge_and_stored_in_fewer_bytes(
    tiny_model: str, tiny_data: str, tmp_path: Path
) -> None:
    plans = [
        Tuning(name="q", method="quantise", module=LoRA(r=2), quantise=Quantise(bits=4), train=QUICK),
        Tuning(name="plain", module=LoRA(r=2), train=QUICK),
    ]
    results = [tune(tiny_model, tiny_data, plan, tmp_path / plan.name, progress=False) for plan in plans]
    weight = load_tuned(results[0].path)[0].bert.encoder.layer[0].output.dense.weight
    assert max(len(row.unique()) for row in weight) <= 15
    small, large = (
        traces.record(tiny_model, adapter=r.path, data=tiny_data, limit=4, out=tmp_path / f"{i}.zarr", progress=False)
        for i, r in enumerate(results)
    )
    for one, other in zip(small.ops(), large.ops(), strict=True):
        if one.op in ("down", "up"):
            biases = 4 * one.n
            share = (one.weight_bytes - one.n * one.k * (4 + 16 / one.k) / 8) / biases
            assert 0 <= share <= 1  # the bias beside it
            assert one.weight_bytes < 0.3 * other.weight_bytes


def test_weight_masks_reach_two_sided_designs(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    plan = Tuning(
        name="both",
        method="prune",
        module=LoRA(r=2),
        activation=Activation(type="relu"),
        prune=Prune(sparsity=0.75),
        quantise=Quantise(),
        train=QUICK,
    )
    result = tune(tiny_model, tiny_data, plan, tmp_path / "both", progress=False)
    trace = traces.record(
        tiny_model, adapter=result.path, data=tiny_data, limit=8, out=tmp_path / "t.zarr", weights=True, progress=False
    )
    site = trace.sites["layers.0.down"]
    weights = site.weight_mask()
    assert weights is not None
    assert weights.popcount() <= site.n * site.k / 4
    found = sk.replay(trace, ["eie", "sparten"], ops=["down"], threads=1).ops
    dense = sk.replay(trace, ["eie", "sparten"], ops=["down"], weights="dense", threads=1).ops
    joined = found.merge(dense, on=["arch", "layer"], suffixes=("", "_dense"))
    assert len(joined) == 4
    assert (joined["effectual_macs"] < 0.35 * joined["effectual_macs_dense"]).all()
    assert (joined["cycles"] <= joined["cycles_dense"]).all()
    two_sided = joined[joined["arch"] == "sparten"]  # EIE has more PEs than this layer has outputs
    assert (two_sided["cycles"] < 0.6 * two_sided["cycles_dense"]).all()


@pytest.mark.parametrize(
    ("change", "family", "message"),
    [
        (Prune(score="magnitude", pattern="2:4"), "odd", r"prune\.pattern 2:4: .* has 21 inputs, no multiple of 4"),
        (Quantise(group=16), "bert", r"quantise\.group 16: .* has 24 inputs, no multiple"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, family: str, message: str) -> None:
    import transformers as hf

    net: Any = build("bert")
    if family == "odd":
        net = hf.BertForSequenceClassification(
            hf.BertConfig(vocab_size=9, hidden_size=21, num_attention_heads=3, num_hidden_layers=1, intermediate_size=8)
        )
    made = change.change()
    with pytest.raises(InputError, match=message):
        made.apply(net, "classification", made.decide(net, BLIND))


def test_a_share_that_contradicts_the_pattern_is_refused() -> None:
    with pytest.raises(InputError, match=r"pattern 2:4 has sparsity 0\.5"):
        tuning_from_yaml("name: a\nprune: {pattern: '2:4', sparsity: 0.7}\n", "t.yaml")
    again = Tuning(name="x", prune=Prune(pattern="1:4"))
    assert tuning_from_yaml(again.to_yaml(), "t.yaml") == again


def test_methods_are_stated() -> None:
    assert "2306.11695" in list_methods()["prune"].source
    assert list_methods()["quantise"].equation
    assert NoModule().change() is not None
