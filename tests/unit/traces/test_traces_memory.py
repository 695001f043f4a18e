"""Estimated peak memory of a training step against the peak that torch's profiler measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_families import build
from torch.profiler import ProfilerActivity, profile

from traces.cost import PROBES, example, loss_of
from traces.memory import size_of, step_memory
from traces.passes import virtual_tokens
from traces.tuning import Tuning
from traces.tuning.lora import heads


def measured_peak(net: Any, loss: Callable[[], torch.Tensor]) -> int:
    """Bytes at the worst moment of the second step: what lives before it and the largest sum of allocations since."""
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    step()
    optimizer.zero_grad(set_to_none=True)
    held = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in (*net.parameters(), *net.buffers())}
    state = sum(t.nbytes for one in optimizer.state.values() for t in one.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return sum(held.values()) + state + peak


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
