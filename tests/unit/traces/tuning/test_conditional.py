"""CoDA: the soft choice, rows that never enter a block, and what a trace says of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import build, inputs
from torch.utils.flop_counter import FlopCounterMode

import simkit as sk
import traces
from traces.errors import InputError
from traces.models.sites import find_sites
from traces.tuning import Activation, BlockGates, Training, Tuning, load_tuned, tune
from traces.tuning.layers.conditional import OUT, hard_top_k, soft_top_k
from traces.tuning.methods.conditional import Conditional, routers

FAMILIES = ("bert", "distilbert", "modernbert", "electra", "esm", "vit", "dinov2")


def routed(family: str, capacity: float = 0.5) -> Any:
    net = build(family)
    Conditional(capacity=capacity).change().apply(net, "image-classification", {})
    with torch.no_grad():
        for module in routers(net).values():
            module.adapter.gate.weight.mul_(5)
    return net.eval()


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_soft_choice_sums_to_k_and_hardens(seed: int, k: int) -> None:
    made = torch.Generator().manual_seed(seed)
    scores = torch.randn((2, 12), generator=made)
    scores[1, 9:] = OUT
    counts = torch.tensor([float(k), float(min(k, 9))])
    soft = soft_top_k(scores, counts, 1.0, 200)
    torch.testing.assert_close(soft.sum(1), counts, rtol=1e-3, atol=1e-3)
    assert float(soft.min()) >= 0
    assert float(soft.max()) <= 1 + 1e-6
    assert float(soft[1, 9:].max()) == 0
    # higher scores never weigh less
    order = scores.argsort(dim=1)
    assert (soft.gather(1, order).diff(dim=1) >= -1e-6).all()
    apart = torch.stack([torch.randperm(12, generator=made).float() for _ in range(2)])
    hard = hard_top_k(apart, counts)
    assert hard.sum(1).tolist() == counts.tolist()
    torch.testing.assert_close(soft_top_k(apart, counts, 0.1, 1000), hard.float(), atol=1e-3, rtol=0)


def test_twenty_iterations_are_near_the_fixed_point() -> None:
    scores = torch.randn((4, 32), generator=torch.Generator().manual_seed(0))
    k = torch.full((4,), 16.0)
    torch.testing.assert_close(soft_top_k(scores, k, 1.0, 20), soft_top_k(scores, k, 1.0, 500), atol=0.02, rtol=0)


def test_the_choice_has_a_gradient() -> None:
    scores = torch.randn((1, 8), generator=torch.Generator().manual_seed(1)).requires_grad_()
    soft_top_k(scores, torch.tensor([3.0]), 0.5, 20)[0, 2].backward()
    assert scores.grad is not None
    assert float(scores.grad[0, 2]) > 0
    assert torch.isfinite(scores.grad).all()


def test_of_equal_scores_the_first_are_chosen() -> None:
    assert hard_top_k(torch.zeros(1, 4), torch.tensor([2])).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_chosen_rows_run_and_the_result_is_as_if_all_had(family: str) -> None:
    net = routed(family)
    batch, length = 3, 7
    seen: dict[str, torch.Tensor] = {}
    for site in find_sites(net):
        net.get_submodule(site.module).register_forward_pre_hook(
            lambda _m, i, name=site.name: seen.update({name: i[0].detach()})
        )
    with torch.no_grad():
        out = net(**inputs(family, batch, length)).logits
    blocks = routers(net)
    for module in blocks.values():
        tokens = module.rows.shape[1]
        assert module.rows.sum(1).tolist() == [-(-tokens // 2)] * batch
    assert all(value.shape[0] == batch * -(-tokens // 2) for value in seen.values())

    # a plain copy whose down-projection's results are set to zero where a token passed by
    plain, same = build(family), dict(copy.deepcopy(net).named_modules())
    for site, module in zip(find_sites(plain), blocks.values(), strict=True):
        entered: list[torch.Tensor] = []
        firsts = net.get_submodule(site.module).routed_with[0]
        name = next(n for n, m in net.named_modules() if m is firsts)
        plain.get_submodule(name).register_forward_pre_hook(lambda _m, i, kept=entered: kept.append(i[0]))
        plain.get_submodule(site.module).register_forward_hook(
            lambda _m, _i, y, own=module, kept=entered: y * own.rows[..., None] + own.adapter.delta(kept[-1])
        )
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs(family, batch, length)).logits, out, rtol=1e-4, atol=1e-5)
    assert same


def test_padding_is_never_routed_and_does_not_count() -> None:
    net = routed("bert")
    given_inputs = inputs("bert", 2, 8)
    given_inputs["attention_mask"][1, 3:] = 0
    with torch.no_grad():
        net(**given_inputs)
    for module in routers(net).values():
        assert module.rows.sum(1).tolist() == [4, 2]
        assert not module.rows[1, 3:].any()


def test_fewer_macs_by_the_routed_share_and_never_more() -> None:
    def macs(net: Any) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(**inputs("bert", 4, 10))
        return counter.get_total_flops() // 2

    plain, tokens, d, inner = build("bert"), 40, 24, 40
    saved = macs(plain) - macs(routed("bert", 0.3))
    mlp = 2 * tokens * 2 * d * inner  # two layers, up and down
    added = 2 * tokens * (2 * d * 1 + d)  # an adapter of width 1 and a router
    assert saved == round(0.7 * mlp) - added
    assert saved < 0.7 * mlp


def test_tuned_recorded_replayed(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    plan = Tuning(
        name="coda",
        method="conditional",
        module=Conditional(capacity=0.5, reduction=4),
        activation=Activation(type="relu"),
        train=Training(epochs=2, batch_size=16, lr=5e-3, max_length=16),
    )
    result = tune(tiny_model, tiny_data, plan, tmp_path / "coda", progress=False)
    assert 0.5 <= result.measurements["usage"] < 0.6  # rounded up, sequence by sequence
    again, _ = load_tuned(result.path)
    assert sum(p.numel() for p in again.parameters() if p.requires_grad) == result.measurements["trainable_parameters"]
    trace = traces.record(
        tiny_model, adapter=result.path, data=tiny_data, limit=12, batch_size=4, out=tmp_path / "t.zarr", progress=False
    )
    lengths = trace.tokens[trace.tokens["real"]].groupby("sequence").size()
    chosen = int((-(-lengths // 2)).sum())
    names = [name for name, site in trace.sites.items() if site.op == "down"]
    assert names == ["layers.0.routed.0.down", "layers.1.routed.0.down"]
    for name in names:
        assert trace.sites[name].mask().shape == (chosen, 40)
        assert 0 < trace.sites[name].density() < 1
    ops = {(op.layer, op.op): op for op in trace.ops()}
    for layer in (0, 1):
        assert ops[layer, "up"].m == ops[layer, "down"].m == chosen
        assert ops[layer, "adapter.down"].m == ops[layer, "adapter.gate"].m == ops[layer, "o"].m == trace.n_tokens
        assert ops[layer, "adapter.gate"].n == 1
    site = trace.sites[names[0]]
    whole = trace.choice("layers.0.routed")[:, 0]
    assert (site.rows() == (whole == 0).nonzero()[0]).all()
    assert not whole[trace.real][site.rows(real_only=False).size :].size or (whole[~trace.real] == 1).all()
    found = sk.replay(trace, "cnvlutin", threads=1).ops.set_index(["layer", "op"])
    assert found.loc[(0, "down"), "effectual_macs"] == site.mask().popcount() * site.n
    trace.verify()


def test_causal_models_and_shared_blocks_are_refused() -> None:
    for family, task in (("llama", "causal-lm"), ("albert", "classification"), ("t5", "seq2seq")):
        with pytest.raises(InputError, match="module 'conditional' chooses among all tokens"):
            Conditional().change().apply(build(family), task, {})
    net = routed("bert")
    with pytest.raises(InputError, match="'conditional' gates the MLP blocks already"):
        BlockGates().change().apply(net, "classification", {})
