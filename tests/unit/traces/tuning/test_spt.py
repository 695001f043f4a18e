"""SPT: sensitivity, the budget, what is trained and what is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import build, inputs

import traces
from traces.data.batches import Batch
from traces.errors import InputError
from traces.models.sites import find_sites
from traces.tuning import Training, Tuning, load_tuned, tune
from traces.tuning.change import Sample
from traces.tuning.methods.spt import Spt, eligible, random_scores, select, sensitivity

NETS = ("bert", "gpt2", "t5", "vit", "dinov2", "modernbert", "llama", "albert")


def batches(family: str, first: int = 0) -> Any:
    """Return a source of made-up batches; another `first` gives others."""

    def draw(count: int, size: int) -> Iterator[Batch]:
        for i in range(first, first + count):
            given = inputs(family, size, 6, seed=i)
            key = "input_ids" if "input_ids" in given else "pixel_values"
            labels = (given[key].flatten(1).float().mean(1) > (48 if key == "input_ids" else 0)).long()
            yield Batch(np.arange(size), given, torch.ones(size, 6, dtype=torch.bool), labels)

    return draw


def loss(net: Any, batch: Batch) -> torch.Tensor:
    logits = net(**batch.inputs).logits
    logits = logits.mean(1)[:, :2] if logits.dim() == 3 else logits
    return torch.nn.functional.cross_entropy(logits, batch.labels)


def sample(family: str, first: int = 0) -> Sample:
    return Sample(batches(family, first), loss, "classification", 0)


def trained(net: torch.nn.Module) -> int:
    """Trained parameters but the heads', which the trainer thaws."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def changed(family: str, part: Spt) -> tuple[Any, Any]:
    net = build(family).requires_grad_(False)
    change = part.change()
    return change.apply(net, "classification", change.decide(net, sample(family))), change


def test_sensitivity_is_the_sum_of_squared_mean_gradients() -> None:
    net = build("bert").requires_grad_(False)
    name = "bert.encoder.layer.0.output.dense.weight"
    found = sensitivity(net, sample("bert"), 3, 4)
    assert not any(p.requires_grad for p in net.parameters())
    expected = torch.zeros_like(net.get_parameter(name))
    net.requires_grad_(True)
    for batch in batches("bert")(3, 4):
        net.zero_grad()
        # the mean over items of each item's own gradient
        for i in range(4):
            one = {k: v[i : i + 1] for k, v in batch.inputs.items()}
            (loss(net, Batch(batch.rows[i : i + 1], one, None, batch.labels[i : i + 1])) / 4).backward()
        expected += net.get_parameter(name).grad.square()
    assert torch.allclose(found[name], expected, rtol=1e-3, atol=1e-12)
    assert set(found) == set(eligible(net))
    outside = ("classifier", "embeddings", "pooler")
    assert not any(part in n for n in found for part in outside)
    assert {n for n, _ in net.named_parameters()} - set(found) == {
        n for n, _ in net.named_parameters() if any(part in n for part in outside)
    }


def test_selection_by_hand() -> None:
    scores = {
        "a": torch.tensor([[9.0, 8.0], [0.1, 0.2]]),  # two of the ten highest, a module of 20 has a tenth of them
        "b": torch.tensor([[7.0, 0.3], [0.4, 0.5]]),  # one, and a module of 20 wants two
        "v": torch.tensor([6.0, 0.6, 0.7, 0.8, 0.9]),  # one of five: a fifth
        "w": torch.tensor([5.0, 0.01, 0.02, 0.03, 0.04, 0.05]),  # one of six
    }
    found = select(scores, {"a": 20, "b": 20}, frozenset(("v", "w")), 27)
    assert (found.tau, found.modules, found.whole, found.trained) == (9, ("a",), ("v",), 27)  # all of v costs the same
    assert {n: i.tolist() for n, i in found.single.items()} == {"b": [0], "w": [0]}
    more = select(scores, {"a": 20, "b": 20}, frozenset(("v", "w")), 29)  # not enough for b's module
    assert (more.modules, more.trained) == (("a",), 29)
    assert more.single["b"].tolist() == [0, 2, 3]
    alone = select(scores, {}, frozenset(), 3)
    assert {n: i.tolist() for n, i in alone.single.items()} == {"a": [0, 1], "b": [0]}
    with pytest.raises(InputError, match=r"has 31 parameters, the budget is 40; raise module\.r"):
        select(scores, {"a": 10, "b": 10}, frozenset(("v", "w")), 40)


@pytest.mark.parametrize("family", NETS)
@pytest.mark.parametrize("structured", ["lora", "adapter", "none"])
def test_spends_the_budget_and_starts_as_the_base_model(family: str, structured: str) -> None:
    budget = 700
    net, change = changed(family, Spt(structured=structured, r=2, budget=budget, batches=2, batch_size=8))
    assert abs(trained(net) - budget) <= 0.1 * budget
    facts = change.facts(net)["spt"]
    assert facts["module_parameters"] + facts["whole_parameters"] + facts["single_parameters"] == trained(net)
    assert bool(facts["modules"]) == (structured != "none")
    given = inputs(family, 2, 6)
    with torch.no_grad():
        assert torch.equal(net(**given).logits, build(family)(**given).logits)
    assert find_sites(net) == find_sites(build(family))


@pytest.mark.parametrize("family", ["bert", "gpt2", "dinov2"])
def test_weights_that_are_not_masked_stay_as_they_are(family: str) -> None:
    net, change = changed(family, Spt(structured="lora", r=2, budget=1500, batches=2, batch_size=8))
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.05)
    for batch in batches(family, 50)(3, 8):
        optimizer.zero_grad()
        loss(net, batch).backward()
        optimizer.step()
    given = inputs(family, 2, 6)
    decided = change.decide(build(family).requires_grad_(False), sample(family))
    with torch.no_grad():
        apart = net(**given).logits
        merged = change.merge(net)
        assert torch.allclose(merged(**given).logits, apart, atol=1e-5)
    base = dict(build(family).named_parameters())
    after = dict(merged.named_parameters())
    assert after.keys() == base.keys()
    moved = 0
    for name, p in base.items():
        free = torch.zeros(p.numel(), dtype=torch.bool)
        if f"module.{name}" in decided or f"whole.{name}" in decided:
            free[:] = True
        elif f"single.{name}" in decided:
            free[decided[f"single.{name}"]] = True
        same = (after[name] == p).flatten()
        assert bool(same[~free].all()), name
        moved += int((~same[free]).sum())
    assert moved > 500


def test_single_weights_move_by_their_scale_and_low_rank_pairs_do_not() -> None:
    """One step of SGD on the same loss: dL/dv = scale dL/dw, so the weight moves by scale^2 of what it would."""
    moved = []
    for scale in (None, 0.5):
        part = Spt(structured="lora", r=2, budget=1500, batches=2, batch_size=8, single_scale=scale)
        net, change = changed("bert", part)
        decided = change.decide(build("bert").requires_grad_(False), sample("bert"))
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
        loss(net, next(iter(batches("bert", 50)(1, 8)))).backward()
        optimizer.step()
        after = dict(change.merge(net).named_parameters())
        base = dict(build("bert").named_parameters())
        moved.append(
            {key: after[key.partition(".")[2]].detach() - base[key.partition(".")[2]] for key in decided if "." in key}
        )
    single = [name for name in moved[0] if name.startswith("single.")]
    assert single
    for name in moved[0]:
        assert torch.allclose(moved[1][name], moved[0][name] * (0.25 if name in single else 1), atol=1e-6), name


def test_masks_from_halves_of_the_data_agree() -> None:
    """Disjoint halves of made-up data pick nearly the same weights; drawn scores do not."""
    share = 0.05
    masks = []
    for first in (0, 1000):
        net = build("bert").requires_grad_(False)
        scores = torch.cat([s.flatten() for s in sensitivity(net, sample("bert", first), 8, 16).values()])
        masks.append(scores >= scores.topk(int(share * len(scores))).values[-1])
    both = float((masks[0] & masks[1]).sum() / masks[0].sum())
    assert both > 10 * share  # by chance it is the share itself
    drawn = [torch.cat([s.flatten() for s in random_scores(build("bert"), seed).values()]) for seed in (0, 1)]
    chance = [d >= d.topk(int(share * len(d))).values[-1] for d in drawn]
    assert float((chance[0] & chance[1]).sum() / chance[0].sum()) < 5 * share


def test_a_pick_by_sensitivity_lowers_the_loss_more_than_chance_does() -> None:
    def after(pick: str, seed: int) -> float:
        net = build("bert").requires_grad_(False)
        net.classifier.weight.mul_(20)
        change = Spt(structured="none", budget=100, pick=pick, batches=4, batch_size=32).change()
        source = Sample(batches("bert"), loss, "classification", seed)
        net = change.apply(net, "classification", change.decide(net, source))
        optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.02)
        for _ in range(3):
            for batch in batches("bert")(4, 32):
                optimizer.zero_grad()
                loss(net, batch).backward()
                optimizer.step()
        with torch.no_grad():
            return float(np.mean([float(loss(net, batch)) for batch in batches("bert")(4, 32)]))

    assert after("sensitivity", 0) < np.mean([after("random", seed) for seed in range(5)])


@pytest.mark.parametrize("structured", ["lora", "adapter"])
def test_tuned_model_loads_as_it_was_measured(structured: str, tiny_model: str, tiny_data: str, tmp_path: Any) -> None:
    part = Spt(structured=structured, r=2, budget=1500, batches=2, batch_size=8)
    plan = Tuning(name="s", method="spt", module=part, train=Training(epochs=1, batch_size=16, lr=2e-2, max_length=16))
    result = tune(tiny_model, tiny_data, plan, tmp_path / "s", progress=False)
    head = 2 * 24 + 2
    assert abs(result.measurements["trainable_parameters"] - head - 1500) <= 150
    batch = {"input_ids": torch.arange(4, 14)[None], "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    base = traces.load_model(tiny_model, "classification")
    with torch.no_grad():
        outputs = [load_tuned(result.path, merge=merge)[0](**batch).logits for merge in (True, False)]
        assert torch.allclose(*outputs, atol=1e-5)
        assert not torch.allclose(outputs[0], base(**batch).logits, atol=1e-3)
    options = {"data": tiny_data, "limit": 6, "batch_size": 3, "progress": False, "adapter": result.path}
    merged = traces.record(tiny_model, out=tmp_path / "m.zarr", **options).ops()
    apart = traces.record(tiny_model, out=tmp_path / "u.zarr", merge=False, **options).ops()
    names = {op.op for op in apart} - {op.op for op in merged}
    assert (len(names) > 0) == (structured == "lora")
    assert all("lora" in name for name in names)
    added = sum(op.weight_bytes for op in apart) - sum(op.weight_bytes for op in merged)
    spent = result.measurements["spt"]
    assert added == 4 * ((structured == "lora") * spent["module_parameters"] + spent["single_parameters"])
