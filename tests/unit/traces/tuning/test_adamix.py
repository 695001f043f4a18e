"""AdaMix: experts drawn while training, a consistency loss, and exact averages at inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import build, inputs
from tiny_tuning import SCORES, TASKS, measured_again, save_data, save_model

from traces.models.sites import find_sites
from traces.oplist.probe import watch
from traces.tuning import DensityLoss, Training, Tuning, tune
from traces.tuning.layers.bottleneck import Bottleneck
from traces.tuning.layers.mixture import Experts
from traces.tuning.methods.adamix import AdaMix, divergence

QUICK = Training(epochs=1, batch_size=16, lr=1e-2, max_length=16, max_samples=96)
PARTS = {
    "adapters": AdaMix(),
    "shared": AdaMix(share="up", placement="houlsby", count=3),
    "lora": AdaMix(expert="lora", r=2),
    "lora-shared": AdaMix(expert="lora", r=2, share="down"),
}


def mixed(family: str, part: AdaMix, task: str = "classification") -> tuple[Any, Any]:
    """A tiny frozen model whose experts all differ, and its change."""
    change = part.change()
    net = change.apply(build(family).requires_grad_(False), task, {}).eval()
    made = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.requires_grad and ("adapter" in name or "lora" in name):
                parameter.copy_(torch.randn(parameter.shape, generator=made) * 0.3)
    return net, change


@pytest.mark.slow
@pytest.mark.parametrize("family", list(TASKS))
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_trains_saves_and_measures_the_same_when_loaded(family: str, part: AdaMix, tmp_path: Path) -> None:
    task = TASKS[family]
    model, data = save_model(family, tmp_path), save_data(task, tmp_path)
    plan = Tuning(name="m", module=part, train=QUICK)
    result = tune(model, data, plan, tmp_path / "m", task=task, test_limit=12, progress=False)
    kept = {n: result.measurements[n] for n in SCORES if n in result.measurements}
    assert measured_again(result, merge=True, limit=12) == kept
    apart = measured_again(result, merge=False, limit=12)
    assert apart["density"] == pytest.approx(kept["density"], abs=2e-3)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_merging_averages_exactly(family: str, name: str) -> None:
    given = inputs(family, 2, 7)
    net, change = mixed(family, PARTS[name], TASKS.get(family, "causal-lm"))
    means = {
        n: (m.weight.double().mean(0), None if m.bias is None else m.bias.double().mean(0))
        for n, m in net.named_modules()
        if isinstance(m, Experts)
    }
    assert means
    with torch.no_grad():
        before = net(**given).logits
        merged = change.merge(net)
        after = merged(**given).logits
    assert not any(isinstance(m, Experts) for m in merged.modules())
    assert len(find_sites(merged)) == len(find_sites(build(family)))
    if PARTS[name].expert == "adapter":
        assert torch.equal(before, after)
        for path, (weight, bias) in means.items():
            linear = merged.get_submodule(path)
            assert torch.allclose(linear.weight.double(), weight, atol=1e-7)
            assert torch.allclose(linear.bias.double(), bias, atol=1e-7)
        assert sum(isinstance(m, Bottleneck) for m in merged.modules()) == len(
            {p[: -len(".down")] for p in means if p.endswith("down")}
        )
    else:
        assert torch.allclose(before, after, atol=1e-4)
        assert [e.module for e in watch(merged, lambda: merged(**given)) if "lora" in e.module] == []
        base = build(family)
        path = next(p for p in means if p.endswith("lora_A")).removesuffix(".lora_A")
        module = PARTS[name]
        delta = module.alpha / module.r * means[f"{path}.lora_B"][0] @ means[f"{path}.lora_A"][0]
        own, now = base.get_submodule(path).weight.double(), merged.get_submodule(path).weight.double()
        assert torch.allclose(now, own + (delta.T if family == "gpt2" else delta), atol=1e-5)


def test_training_draws_each_expert_and_evaluation_none() -> None:
    experts = Experts(4, 3, 4, 0.5)
    x = torch.randn(2, 4)
    each = [x @ w.T + b for w, b in zip(experts.weight, experts.bias, strict=True)]
    seen = set()
    for _ in range(60):
        out = experts.train()(x)
        seen.add(next(i for i, one in enumerate(each) if torch.allclose(out, one)))
    assert seen == {0, 1, 2, 3}
    assert torch.allclose(experts.eval()(x), torch.stack(each).mean(0), atol=1e-6)


def test_divergence_is_the_mean_of_both_directions() -> None:
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    p, q = a.softmax(-1), b.softmax(-1)
    both = (p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)
    assert torch.isclose(divergence(a, b), 0.5 * both.mean(), rtol=1e-5)
    assert divergence(a, a).item() == 0
    assert torch.isclose(divergence(a[:, :1], b[:, :1]), (a[:, 0] - b[:, 0]).square().mean())


def test_consistency_compares_two_passes_with_other_experts_and_ignores_padding() -> None:
    net, change = mixed("llama", AdaMix(consistency=2.0), "causal-lm")
    given = inputs("llama", 2, 6)
    given["attention_mask"][1, 4:] = 0
    net.eval()(**given)
    assert change.penalty(net, 0.5) is None  # nothing to compare outside of training
    net.train()
    torch.manual_seed(1)
    first = net(**given).logits
    state = torch.get_rng_state()
    found = change.penalty(net, 0.5)
    torch.set_rng_state(state)
    second = net(**given).logits
    keep = given["attention_mask"].bool()
    assert torch.isclose(found, 2.0 * divergence(first[keep], second[keep]))
    assert found.item() > 0
    one, alone = mixed("llama", AdaMix(count=1), "causal-lm")
    one.train()(**given)
    assert alone.penalty(one, 0.5).item() == pytest.approx(0.0, abs=1e-6)


def test_the_second_pass_leaves_the_density_loss_alone(tmp_path: Path) -> None:
    model, data = save_model("bert", tmp_path), save_data("classification", tmp_path)
    loss = DensityLoss(weight=0.01, surrogate="tanh", beta=2)
    plans = [Tuning(name="m", module=AdaMix(count=1, consistency=c), density=loss, train=QUICK) for c in (0.0, 1.0)]
    rows = [
        tune(model, data, p, tmp_path / f"{i}", test_limit=12, progress=False).measurements["density_per_layer"]
        for i, p in enumerate(plans)
    ]
    # one expert agrees with itself, so the second pass may change nothing at all
    assert rows[0] == pytest.approx(rows[1], abs=1e-9)
