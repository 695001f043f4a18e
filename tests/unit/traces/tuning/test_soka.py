"""SoKA: the Kronecker decomposition, its ranks, the model before and after tuning, and the ops it leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import build, inputs

import traces
from traces.errors import InputError
from traces.models.sites import find_sites
from traces.training_step.ops import PROBES, step_ops
from traces.tuning import LoRA, Training, Tuning, load_tuned, tune
from traces.tuning.change import Sample
from traces.tuning.layers.soka import KroneckerLinear
from traces.tuning.methods.lora import linear_targets
from traces.tuning.methods.soka import Soka, factor_pair, kronecker_svd, rank_by_elbow, rank_by_energy, rearrange

NO_DATA = Sample(lambda count, size: iter(()), lambda net, batch: torch.zeros(()), "classification", 0)
QUICK = Training(epochs=2, batch_size=16, lr=2e-2, max_length=16)


def wrapped(net: torch.nn.Module, part: Soka) -> torch.nn.Module:
    net.requires_grad_(False)
    change = part.change()
    return change.apply(net, "classification", change.decide(net, NO_DATA))


@pytest.mark.parametrize(
    ("size", "pair"), [(128, (8, 16)), (384, (16, 24)), (1536, (32, 48)), (49, (7, 7)), (7, (1, 7))]
)
def test_factors_are_balanced(size: int, pair: tuple[int, int]) -> None:
    assert factor_pair(size) == pair


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([4, 6, 12, 24]), st.sampled_from([4, 8, 15, 20]), st.integers(0, 2**32 - 1))
def test_error_of_a_truncation_is_the_sum_of_the_squares_left_out(rows: int, columns: int, seed: int) -> None:
    weight = torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns)))
    u, s, v = kronecker_svd(weight)
    assert u.shape[1:] + v.shape[1:] == (
        *(f[0] for f in map(factor_pair, weight.shape)),
        *(f[1] for f in map(factor_pair, weight.shape)),
    )
    for r in range(len(s) + 1):
        # numpy's own Kronecker product, which knows nothing of the rearrangement
        rest = weight.numpy() - sum(float(s[k]) * np.kron(u[k].numpy(), v[k].numpy()) for k in range(r))
        assert (rest**2).sum() == pytest.approx(float((s[r:] ** 2).sum()), rel=1e-9, abs=1e-9)


def test_a_kronecker_product_has_rank_one_when_rearranged() -> None:
    left, right = torch.randn(3, 4), torch.randn(5, 2)
    moved = rearrange(torch.kron(left, right), (3, 4), (5, 2))
    assert torch.allclose(moved, torch.outer(left.flatten(), right.flatten()))


@pytest.mark.parametrize("seed", range(5))
def test_planted_rank_under_noise_is_found(seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    planted = sum(torch.kron(torch.randn(8, 8, generator=made), torch.randn(16, 16, generator=made)) for _ in range(3))
    _, s, _ = kronecker_svd(planted + 0.05 * torch.randn(128, 128, generator=made))
    assert rank_by_elbow(s) == 3
    assert min(rank_by_energy(s, 0.9), rank_by_elbow(s)) == 3


def test_rank_criteria_by_hand() -> None:
    s = torch.tensor([3.0, 2.0, 1.0, 1.0])  # squares 9 4 1 1, shares .6 .867 .933 1
    assert [rank_by_energy(s, share) for share in (0.5, 0.61, 0.9, 1.0)] == [1, 2, 3, 4]
    assert rank_by_elbow(torch.tensor([9.0, 8.0, 1.0, 0.9, 0.8, 0.7])) == 2
    assert rank_by_elbow(torch.tensor([5.0])) == 1


def test_ranks_are_chosen_for_each_matrix_within_bounds() -> None:
    net = build("bert").requires_grad_(False)
    name = "bert.encoder.layer.1.output.dense"
    weight = net.get_submodule(name).weight
    (m, p), (n, q) = factor_pair(weight.shape[0]), factor_pair(weight.shape[1])
    weight.copy_(sum(torch.kron(torch.randn(m, n), torch.randn(p, q)) for _ in range(2)))
    change = Soka(r_max=5).change()
    net = change.apply(net, "classification", change.decide(net, NO_DATA))
    facts = change.facts(net)["kronecker"]
    assert set(facts) == set(linear_targets(build("bert"), "all-linear"))
    assert facts[name] | {"energy": 0} == {
        "rank": 2, "rank_by_energy": 2, "rank_by_elbow": 2, "energy": 0, "left": [m, n], "right": [p, q]
    }  # fmt: skip
    assert facts[name]["energy"] == pytest.approx(1)
    assert all(1 <= f["rank"] <= 5 for f in facts.values())
    assert max(f["rank"] for f in facts.values()) == 5  # random weights have no few terms that hold them


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "dinov2", "albert"])
@pytest.mark.parametrize("lora_r", [None, 3])
def test_first_output_is_the_base_models_and_merging_changes_none(family: str, lora_r: int | None) -> None:
    torch.manual_seed(7)  # added weights of one size, whichever tests ran before
    given_inputs = inputs(family, 2, 7)
    with torch.no_grad():
        base = build(family)(**given_inputs).logits
        net = wrapped(build(family), Soka(rank=3, lora_r=lora_r))
        assert torch.allclose(net(**given_inputs).logits, base, atol=1e-5)
        for p in net.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))
        apart = net(**given_inputs).logits
        rounding = 1e-4 * float(apart.abs().max())  # fp32 sums in another order; processors differ in theirs
        for module in net.modules():
            if isinstance(module, KroneckerLinear):
                module.train()
        assert torch.allclose(net(**given_inputs).logits, apart, atol=rounding)  # training composes the weight first
        assert not torch.allclose(apart, base, atol=1e-3)
        sites = find_sites(net)
        merged = Soka().change().merge(net)
        assert torch.allclose(merged(**given_inputs).logits, apart, atol=rounding)
    assert [type(m).__name__ for m in merged.modules()] == [type(m).__name__ for m in build(family).modules()]
    assert find_sites(merged) == sites == find_sites(build(family))


def test_trains_at_most_three_quarters_of_loras_parameters() -> None:
    config = build("bert").config.__class__(
        vocab_size=30, hidden_size=384, intermediate_size=1536, num_hidden_layers=1, num_attention_heads=12
    )
    counts = {}
    for part in (LoRA(r=8), Soka()):
        from transformers import BertForSequenceClassification

        net = BertForSequenceClassification(config).requires_grad_(False)
        change = part.change()
        net = change.apply(net, "classification", change.decide(net, NO_DATA))
        # the task head is the same for both
        counts[part.type] = sum(
            p.numel() for n, p in net.named_parameters() if p.requires_grad and "classifier" not in n
        )
    assert counts["lora"] == 4 * 8 * 768 + 2 * 8 * 1920
    assert 0.5 * counts["lora"] < counts["soka"] <= 0.75 * counts["lora"]


def test_a_width_without_factors_is_refused() -> None:
    net = torch.nn.ModuleDict({"a": torch.nn.Linear(12, 7)})
    with pytest.raises(InputError, match=r"a is 7 x 12.*leave it out of module\.targets"):
        Soka().change().decide(net, NO_DATA)


@pytest.fixture(scope="module")
def tuned(tiny_model: str, tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> traces.TuneResult:
    plan = Tuning(name="s", method="soka", module=Soka(rank=2, lora_r=2), train=QUICK)
    return tune(tiny_model, tiny_data, plan, tmp_path_factory.mktemp("tuned") / "s", progress=False)


def test_tuned_model_loads_as_it_was_measured(tuned: traces.TuneResult) -> None:
    log = pd.read_parquet(tuned.path / "log.parquet")
    assert log["loss"].iloc[-1] < 0.8 * log["loss"].iloc[0]
    batch = {"input_ids": torch.arange(4, 14)[None], "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    with torch.no_grad():
        outputs = [load_tuned(tuned.path, merge=merge)[0](**batch).logits for merge in (True, False)]
    assert torch.allclose(*outputs, atol=1e-5)
    assert {f["rank"] for f in tuned.measurements["kronecker"].values()} == {2}


def test_ops_of_the_merged_and_of_the_unmerged_model(
    tuned: traces.TuneResult, tiny_model: str, tiny_data: str, tmp_path: Path
) -> None:
    options = {"data": tiny_data, "limit": 6, "batch_size": 3, "progress": False}
    base = traces.record(tiny_model, out=tmp_path / "b.zarr", task="classification", **options).ops()
    merged = traces.record(tiny_model, adapter=tuned.path, out=tmp_path / "m.zarr", **options).ops()
    apart = traces.record(tiny_model, adapter=tuned.path, out=tmp_path / "u.zarr", merge=False, **options).ops()
    assert merged == base
    # what is there beside the base's GEMMs are two small ones for each term, and the low-rank pair
    tokens = next(op.m for op in base if op.op == "down")
    down = [op for op in apart if op.layer == 1 and op.op.startswith("down.")]
    (m, p), (n, q) = factor_pair(24), factor_pair(40)
    term = [("down.kron_v", tokens * n, q, p), ("down.kron_u", tokens * p, n, m)]
    assert [(op.op, op.m, op.k, op.n) for op in down] == [
        *term, *term, ("down.lora_a", tokens, 40, 2), ("down.lora_b", tokens, 2, 24)
    ]  # fmt: skip
    gemms = [op for op in apart if op.kind == "gemm" and "." not in op.op]
    assert gemms == [op for op in base if op.kind == "gemm"]
    assert sum("kron" in op.op for op in apart) == 2 * 2 * 2 * 6  # layers, terms, factors, matrices
    assert all(op.has_weight and op.weight_bytes == 4 * op.k * op.n for op in apart if "kron" in op.op)


def test_gemms_of_a_training_step() -> None:
    net = wrapped(build("bert"), Soka(rank=3)).train()
    runs = [lambda b=b, s=s: net(**inputs("bert", b, s)).logits.sum() for b, s in PROBES]
    step = step_ops(net, runs)
    (m, p), (n, q) = factor_pair(24), factor_pair(40)
    composed = [op for op in step.at(2, 7) if op.op.startswith("kronecker") and op.layer == 1 and op.n == p * q]
    down = [op for op in step.at(2, 7) if op.op.startswith("down") and op.layer == 1]
    assert [(op.m, op.k) for op in composed if "grad" not in op.op] == [(m * n, 3)] * 2  # of up and of down
    assert [(op.op, op.m, op.k, op.n) for op in down] == [
        ("down", 14, 40, 24), ("down.grad_input", 14, 24, 40), ("down.grad_weight", 40, 14, 24)
    ]  # fmt: skip
    assert down[0].weight_bytes == 4 * (24 * 40 + 24)
