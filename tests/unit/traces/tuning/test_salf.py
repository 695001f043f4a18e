"""SALF: the semantic basis, the choice of layers, and a backward pass that ends where it should."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import build, inputs

import traces
from traces.data.batches import Batch
from traces.errors import InputError
from traces.training_step.ops import PROBES, step_ops
from traces.tuning import FullTuning, LoRA, Training, Tuning, load_tuned, tune
from traces.tuning.change import Sample
from traces.tuning.methods.prompt import PromptTuning
from traces.tuning.methods.salf import Freeze, deviations, fit_head, gains, layers, semantic_basis, step_macs
from traces.tuning.spec import tuning_from_yaml

FAMILIES = ("bert", "distilbert", "modernbert", "gpt2", "llama", "opt", "t5", "vit", "dinov2")


def batches(family: str, length: int = 7) -> Any:
    """Return a source of made-up batches with labels."""

    def draw(count: int, size: int) -> Iterator[Batch]:
        for i in range(count):
            given = inputs(family, size, length, seed=i)
            ids = given.get("input_ids")
            mask = torch.ones((size, 10 if ids is None else length), dtype=torch.bool)
            labels = ids if family in ("llama", "gpt2", "opt") else torch.arange(size) % 2
            yield Batch(np.arange(size), given, mask, labels)

    return draw


def loss(net: Any, batch: Batch) -> torch.Tensor:
    return net(**batch.inputs).logits.square().mean()


def sample(family: str, task: str = "classification") -> Sample:
    return Sample(batches(family), loss, task, 0)


def changed(family: str, module: Any, part: Freeze) -> tuple[Any, Any]:
    """Return a tiny model with a module and a freezing, as the trainer makes it."""
    net = build(family).requires_grad_(False)
    for name in ("classifier", "score", "pre_classifier"):
        if hasattr(net, name):
            getattr(net, name).requires_grad_(True)
    net = module.change().apply(net, "features", {})
    change = part.change()
    return change.apply(net, "features", change.decide(net, sample(family))), change


def test_basis_is_the_pseudo_inverse() -> None:
    for labels, width in ((5, 12), (40, 12)):
        head = torch.randn(labels, width, dtype=torch.float64)
        # s_v = e_v W^+ with logits r W: numpy's pseudo-inverse of W, row v
        assert np.allclose(semantic_basis(head).numpy(), np.linalg.pinv(head.numpy().T), atol=1e-8)
    two = torch.randn(12)
    opposite = torch.stack([two, -two * (1 + 1e-7)])  # what a softmax over two classes learns, and rounding
    assert torch.nn.functional.cosine_similarity(semantic_basis(opposite)[0], two, dim=0) > 0.999


def test_deviation_by_hand_for_a_language_model() -> None:
    net = build("llama").requires_grad_(False)
    part = Freeze(reading="min_deviation", temperature=0.5, batches=2, batch_size=3)
    found = deviations(net, sample("llama", "causal-lm"), part, 2)
    head = net.get_output_embeddings().weight
    basis = np.linalg.pinv(head.detach().numpy().astype(np.float64).T)
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    terms: list[list[float]] = [[], [], []]
    for batch in batches("llama")(2, 3):
        hidden = net(**batch.inputs, output_hidden_states=True).hidden_states
        for layer in range(3):
            for row in range(3):
                for place in range(6):
                    r = hidden[layer][row, place].detach().numpy()
                    cosines = basis @ (r / np.linalg.norm(r)) / 0.5
                    gold = int(batch.labels[row, place + 1])
                    terms[layer].append(-(cosines[gold] - np.log(np.exp(cosines).sum())))
    assert found.tolist() == pytest.approx([np.mean(t) for t in terms], rel=1e-4)


def test_deviation_of_a_classifier_falls_where_its_labels_part() -> None:
    made = torch.Generator().manual_seed(1)

    def run(**given: Any) -> Any:
        labels = given["pixel_values"][:, None, None]
        toward = torch.eye(6)[0] * (2.0 * labels - 1)
        # a shift of all tokens, as layers have; tokens past the third are padding and say the opposite
        noise = [torch.randn((len(labels), 5, 6), generator=made) + 4 for _ in range(4)]
        sign = torch.tensor([1.0, 1, 1, -9, -9])[:, None]
        return SimpleNamespace(hidden_states=[n + w * sign * toward for n, w in zip(noise, (0, 1, 4, 2), strict=True)])

    def draw(count: int, size: int) -> Iterator[Batch]:
        for _ in range(count):
            labels = torch.arange(size) % 2
            mask = torch.tensor([[True, True, True, False, False]]).expand(size, 5)
            yield Batch(np.arange(size), {"pixel_values": labels.float()}, mask, labels)

    found = deviations(run, Sample(draw, loss, "image-classification", 0), Freeze(layers=1, batches=4), 3)
    assert found.shape == (4,)
    assert found[0] > 0.6  # nothing to tell the labels by: log 2
    assert int(found.argmin()) == 2
    assert found[2] < found[3] < found[1] < found[0]


def test_fitted_head_separates_what_can_be_separated() -> None:
    made = torch.Generator().manual_seed(0)
    states = torch.randn(200, 16, generator=made)
    gold = (states[:, 3] > 0).long()
    weight = fit_head(states, gold)
    assert float(((states @ weight.T).argmax(1) == gold).float().mean()) > 0.97


def test_readings_choose_as_the_formulas_say() -> None:
    net = build("bert")
    blocks = layers(net)
    assert blocks == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    d = torch.tensor([0.5, 0.6, 0.4])
    every = sum(p.numel() for p in net.parameters())
    one = sum(p.numel() for p in net.get_submodule(blocks[0]).parameters())
    by_hand = [di * (1 - (every / (every + left * one)) ** 0.076) for di, left in ((0.5, 2), (0.6, 1), (0.4, 0))]
    assert gains(d, net, blocks, 0.076).tolist() == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(
    ("policy", "eof"),
    [({"layers": 2}, 2), ({"budget": 1}, 5), ({"budget": 9}, 0), ({"layers": 2, "budget": 3}, 3),
     ({"reading": "min_deviation"}, 4), ({"reading": "max_gain"}, 1), ({"reading": "max_gain", "budget": 2}, 4)],
)  # fmt: skip
def test_policies(policy: dict[str, Any], eof: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    # of six layers the fourth is nearest to the labels, and the last is never frozen
    known = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.3, 0.5, 0.1])
    monkeypatch.setattr("traces.tuning.methods.salf.deviations", lambda *_: known)
    config = BertConfig(vocab_size=97, hidden_size=24, intermediate_size=40, num_hidden_layers=6, num_attention_heads=3)
    net = BertForSequenceClassification(config).requires_grad_(False)
    assert int(Freeze(**policy).change().decide(net, sample("bert"))["eof"]) == eof


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("module", [FullTuning(), LoRA(r=2)])
def test_backward_stops_at_the_frozen_layers(family: str, module: Any) -> None:
    net, change = changed(family, module, Freeze(layers=1))
    net.train()
    blocks = layers(net)
    assert len(blocks) == (4 if family == "t5" else 2)
    ran: list[str] = []
    for name, child in net.named_modules():
        if name.startswith(f"{blocks[0]}.") and not any(True for _ in child.children()):
            child.register_forward_hook(
                lambda _m, _i, out, name=name: ran.append(name) if getattr(out, "requires_grad", False) else None
            )
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        value = loss(net, next(batches(family)(1, 4)))
    assert ran == []  # nothing in the frozen layer is in the graph
    value.backward()
    frozen = [p for n, p in net.named_parameters() if n.startswith(f"{blocks[0]}.") or "embed" in n]
    assert frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    last = [p for n, p in net.named_parameters() if n.startswith(f"{blocks[-1]}.") and p.requires_grad]
    assert any(float(p.grad.abs().sum()) > 0 for p in last if p.grad is not None)
    whole = build(family).requires_grad_(False)
    whole = module.change().apply(whole, "features", {}).train()
    all_kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: all_kept.append(t.numel()) or t, lambda t: t):
        loss(whole, next(batches(family)(1, 4)))
    assert sum(kept) < 0.95 * sum(all_kept)
    facts = change.facts(net)["freeze"]
    assert facts["macs_backward"] < facts["macs_backward_full_depth"]


@pytest.mark.parametrize("family", ["bert", "llama", "dinov2"])
@pytest.mark.parametrize("module", [FullTuning(), LoRA(r=2)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_backward_macs_match_the_count(family: str, module: Any, attention: str) -> None:
    net, _ = changed(family, module, Freeze(layers=1))
    net.set_attn_implementation(attention)
    forward, backward = step_macs(net, sample(family))
    step = step_ops(net.train(), [lambda b=b, s=s: loss(net, next(batches(family, s)(1, b))) for b, s in PROBES])
    counted = step.at(8, 7)
    grads = sum(op.macs for op in counted if ".grad_" in op.op)
    assert backward == pytest.approx(grads, rel=0.01)
    assert forward == pytest.approx(sum(op.macs for op in counted if ".grad_" not in op.op), rel=0.01)
    assert not any(op.layer == 0 for op in counted if ".grad_" in op.op)


def test_training_flops_follow_the_formulas() -> None:
    """Six layers and long rows: what is outside the layers hardly counts."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=97, hidden_size=96, intermediate_size=384, num_hidden_layers=6, num_attention_heads=3
    )
    for module, key in ((FullTuning(), "all"), (LoRA(r=1, targets=("query", "value")), "frozen")):
        net = BertForSequenceClassification(config).requires_grad_(False)
        net = module.change().apply(net, "features", {})
        change = Freeze(layers=4).change()
        data = Sample(batches("bert", 32), loss, "classification", 0)
        change.apply(net, "features", change.decide(net, data))
        facts = change.facts(net)["freeze"]
        expected = {"all": (1 + 2 / 3) / 3, "frozen": (1 + 1 / 3) / 2}[key]
        assert facts[f"training_ratio_{key}_weights"] == pytest.approx(expected)
        # attention has no weights and the first trained layer no gradient of its input: a few per cent
        assert facts["training_ratio"] == pytest.approx(expected, rel=0.06)


def test_frozen_layers_traces_are_what_they_were(tiny_model: str, tiny_data: str, tmp_path: Path) -> None:
    plan = Tuning(
        name="s", method="salf", module=LoRA(r=2), activation={"type": "relu"},
        freeze=Freeze(reading="max_gain", budget=1, batches=2, batch_size=8),
        train=Training(epochs=1, batch_size=16, lr=3e-2, max_length=16),
    )  # fmt: skip
    result = tune(tiny_model, tiny_data, plan, tmp_path / "s", progress=False)
    measured = result.measurements["freeze"]
    assert (measured["eof"], measured["layers"]) == (1, 2)
    assert len(measured["deviations"]) == len(measured["gains"]) == 3
    small = plan.model_copy(update={"train": plan.train.model_copy(update={"lr": 1e-12})})
    start = tune(tiny_model, tiny_data, small, tmp_path / "start", progress=False)
    options = {"data": tiny_data, "limit": 12, "batch_size": 4, "progress": False}
    before = traces.record(tiny_model, adapter=start.path, out=tmp_path / "b.zarr", **options)
    after = traces.record(tiny_model, adapter=result.path, out=tmp_path / "a.zarr", **options)
    same = [
        np.array_equal(before.sites[name].mask().to_bool(), after.sites[name].mask().to_bool()) for name in after.sites
    ]
    assert same == [True, False]
    net, _ = load_tuned(result.path)
    base = traces.load_model(tiny_model, "classification")
    for name, p in base.named_parameters():
        if re.search(r"layer\.0\.|embeddings", name):
            assert torch.equal(p, net.get_parameter(name)), name


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(InputError, match="share their weights"):
        layers(build("albert"))
    with pytest.raises(InputError, match=r"freeze\.layers 2 leaves none of the model's 2 layers"):
        changed("bert", FullTuning(), Freeze(layers=2))
    with pytest.raises(InputError, match="trains all layers at once"):
        changed("bert", PromptTuning(), Freeze(layers=1))
    with pytest.raises(InputError, match="has no labels for its layers; give layers or budget"):
        Freeze(reading="max_gain").change().decide(build("t5"), sample("t5", "seq2seq"))
    with pytest.raises(InputError, match=r"field 'freeze': nothing says what to freeze"):
        tuning_from_yaml("name: a\nfreeze: {batches: 2}\n", "t.yaml")
    with pytest.raises(InputError, match=r"give one of them"):
        tuning_from_yaml("name: a\nfreeze: {layers: 2, reading: max_gain}\n", "t.yaml")
