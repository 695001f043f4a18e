"""The peak memory of a training step as torch's profiler measures it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


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
