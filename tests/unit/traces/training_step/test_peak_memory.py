"""Estimated peak memory of a training step against the peak that torch's profiler measures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measured_memory import measured_peak
from tiny_families import build

from traces.models.prompts import virtual_tokens
from traces.training_step.memory import size_of, step_memory
from traces.training_step.ops import PROBES, example, loss_of
from traces.tuning import Tuning
from traces.tuning.methods.lora import heads


def tuned(family: str, module: str) -> Any:
    net = build(family, attention="sdpa")
    net.requires_grad_(False)
    for head in heads(net):
        net.get_submodule(head).requires_grad_(True)
    for change in Tuning(name="x", module={"type": module}).changes():
        net = change.apply(net, "classification" if family == "bert" else "causal-lm", {})
    for part in net.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return net.train()


@pytest.mark.filterwarnings("ignore:.*profiler.*")
@pytest.mark.parametrize(
    ("family", "module"),
    [("bert", "none"), ("bert", "lora"), ("bert", "full"), ("llama", "lora"), ("llama", "full")],
)
@pytest.mark.parametrize(("batch", "length"), [(4, 16), (16, 40)])
def test_peak_is_what_torch_measures(family: str, module: str, batch: int, length: int) -> None:
    net = tuned(family, module)
    task = "classification" if family == "bert" else "causal-lm"
    shapes = [(b, virtual_tokens(net) + s) for b, s in PROBES]

    def loss(b: int, s: int) -> torch.Tensor:
        return loss_of(net, example(net, task, b, s), task)

    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    found = step_memory(net, loss, shapes, batch, length)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert found["peak"] == pytest.approx(measured_peak(net, lambda: loss(batch, length)), rel=0.15)
    trained = sum(p.numel() * 4 for p in net.parameters() if p.requires_grad)
    assert found["gradients"] == trained
    assert found["optimizer"] == 2 * trained + 4 * sum(p.requires_grad for p in net.parameters())
    assert found["peak"] > found["weights"] + found["optimizer"] + found["activations"] > 0


def test_sizes_that_fit_no_power_grow_with_the_tokens() -> None:
    assert size_of((40, 40), PROBES)(9, 9) == 40
    assert size_of((2 * 49 * 12, 3 * 121 * 12), PROBES)(4, 10) == 4 * 100 * 12
    assert size_of((2 * 7 * 12 * 8, 3 * 11 * 16 * 8), PROBES)(4, 10) == 4 * 10 * 15 * 8
    assert size_of((17, 34), PROBES)(6, 11) == 68
