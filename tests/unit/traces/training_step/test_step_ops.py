"""The cost of a training step: GEMMs equal to torch's FLOP counter over a real forward and backward pass."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_families import DECODERS, FAMILIES, PAIRS, VISION, build
from torch.utils.flop_counter import FlopCounterMode

from traces.models.prompts import virtual_tokens
from traces.models.sites import find_sites
from traces.oplist.ops import expand
from traces.training_step.ops import PROBES, StepOps, example, loss_of, step_ops
from traces.training_step.step import tuning_step
from traces.tuning import BlockGates, Tuning
from traces.tuning.change import Sample
from traces.tuning.methods.lora import heads


def task_of(family: str) -> str:
    kinds = {"causal-lm": DECODERS, "seq2seq": PAIRS, "image-classification": VISION}
    return next((task for task, families in kinds.items() if family in families), "classification")


def measured(net: Any, task: str, batch: int, length: int) -> int:
    """MACs of a real forward and backward pass."""
    length += virtual_tokens(net)
    with FlopCounterMode(display=False) as counter:
        loss_of(net, example(net, task, batch, length), task).backward()
    net.zero_grad(set_to_none=True)
    return counter.get_total_flops() // 2


def listed(net: Any, task: str) -> StepOps:
    shapes = [(batch, virtual_tokens(net) + length) for batch, length in PROBES]
    return step_ops(
        net, [lambda shape=shape: loss_of(net, example(net, task, *shape), task) for shape in shapes], shapes
    )


def macs(steps: StepOps, batch: int, length: int) -> int:
    return sum(op.macs for op in steps.at(batch, length))


def tuned(family: str, tuning: Tuning) -> tuple[Any, str]:
    net, task = build(family), task_of(family)
    net.requires_grad_(False)
    for head in heads(net):
        net.get_submodule(head).requires_grad_(True)
    sample = Sample(
        lambda count, size: iter([example(net, task, 2, 6)] * count), lambda n, b: loss_of(n, b, task), task, 0
    )
    for change in tuning.changes():
        net = change.apply(net, task, change.decide(net, sample))
    return net.train(), task


@pytest.mark.parametrize("family", FAMILIES)
def test_full_tuning_equals_the_flop_counter(family: str) -> None:
    net, task = build(family).train(), task_of(family)
    steps = listed(net, task)
    assert macs(steps, 5, 13) == measured(net, task, 5, 13)
    names = {op.op for op in steps.at(5, 13)}
    assert {"down", "down.grad_input", "down.grad_weight", "scores.grad_q", "values.grad_v"} <= names


@pytest.mark.parametrize(
    "module",
    [
        "none",
        "full",
        "lora",
        "ia3",
        "dora",
        "adalora",
        "prompt",
        "prefix",
        "adapter",
        "gated",
        "conditional",
        "soka",
        "spt",
    ],
)
def test_every_method_equals_the_flop_counter(module: str) -> None:
    virtual = {"virtual_tokens": 5} if module in ("prompt", "prefix") else {}
    net, task = tuned("bert", Tuning(name="x", module={"type": module} | virtual))
    steps = listed(net, task)
    assert macs(steps, 4, virtual_tokens(net) + 9) == measured(net, task, 4, 9)


@pytest.mark.parametrize("module", ["lora", "ia3", "adalora"])
def test_a_speech_model_under_peft_equals_the_flop_counter(module: str) -> None:
    net, task = tuned("whisper", Tuning(name="x", module={"type": module}))
    assert macs(listed(net, task), 4, 9) == measured(net, task, 4, 9)


def test_peft_cuts_weight_gradients_and_adds_its_own() -> None:
    net, task = tuned("bert", Tuning(name="x", module={"type": "lora", "r": 2}, blocks=BlockGates()))
    names = [op.op for op in listed(net, task).at(2, 5) if "grad" in op.op]
    assert "up.grad_input" in names
    assert "up.grad_weight" not in names
    assert {"up.lora_a.grad_weight", "up.lora_b.grad_weight", "up.lora_b.grad_input"} <= set(names)
    # the first layer's projections read embeddings, which nothing trained lies below
    first = {op.op for op in listed(net, task).at(2, 5) if op.layer == 0 and "grad" in op.op}
    assert "q.grad_input" not in first
    assert "o.grad_input" in first


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_layers_cut_the_backward_pass(frozen: int) -> None:
    net, task = build("bert").train(), "classification"
    net.bert.embeddings.requires_grad_(False)
    for layer in net.bert.encoder.layer[:frozen]:
        layer.requires_grad_(False)
    steps = listed(net, task)
    assert macs(steps, 3, 7) == measured(net, task, 3, 7)
    layers = {op.layer for op in expand(steps.backward, [(3, 7)]) if op.layer >= 0}
    assert layers == set(range(frozen, 2))


def test_a_branch_that_the_loss_does_not_reach_is_not_counted() -> None:
    net, task = build("bert").train(), "classification"
    whole = macs(listed(net, task), 3, 7)
    pooler = net.bert.pooler.forward
    net.bert.pooler.forward = lambda hidden: pooler(hidden.detach())
    steps = listed(net, task)
    assert macs(steps, 3, 7) == measured(net, task, 3, 7) < whole
    assert not [op for op in steps.backward if op.op.startswith("down")]


def test_single_trained_weights_are_the_needed_entries_of_the_gradient(tiny_model: str, tiny_data: str) -> None:
    tuning = Tuning(name="x", module={"type": "spt", "structured": "none", "budget": 200, "batches": 2})
    step = tuning_step(tiny_model, tuning, 2, 5, data=tiny_data)
    marked = [op for op in step.ops() if op.output_site]
    assert marked
    assert all(op.op.endswith(".grad_weight") for op in marked)
    sites = [step.sites[str(op.output_site)] for op in marked]
    assert all(site.mask().shape == (op.m, op.n) for op, site in zip(marked, sites, strict=True))
    chosen = sum(site.mask().popcount() for site in sites)
    assert 0 < chosen <= step.facts["trainable_parameters"]


def test_gradients_have_the_shapes_of_their_gemms() -> None:
    net, task = build("bert").train(), "classification"
    site = find_sites(net)[0]
    ops = {(op.layer, op.op): op for op in listed(net, task).at(3, 7)}
    down, into, weight = (ops[0, f"down{end}"] for end in ("", ".grad_input", ".grad_weight"))
    assert (down.m, down.k, down.n) == (21, site.k, site.n)
    assert (into.m, into.k, into.n, into.has_weight) == (21, site.n, site.k, True)
    assert (weight.m, weight.k, weight.n, weight.has_weight) == (site.k, 21, site.n, False)
    assert into.weight_bytes == weight.weight_bytes == 0
