"""Peak memory of a training step: weights, optimiser state, gradients, and what lives between them.

Two small steps are run while every allocation and release of a tensor is written down in order. Each size, read at two
shapes, is a product of powers of the batch's sequences and tokens, so the same list says what lives when at any shape.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import InputError
from ..oplist.ops import fit_dim

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
Size = Callable[[int, int], int]


class _Watch(TorchDispatchMode):
    """Writes down ``(storage, bytes)``: bytes are negative where one is released."""

    def __init__(self, resident: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.events: list[tuple[int, int]] = []
        self.forward_ends = 0
        self._live = {tensor.untyped_storage()._cdata: (-1, 0) for tensor in resident}
        self._count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._live:
                    self._live[storage._cdata] = self._count, storage.nbytes()
                    self.events.append((self._count, storage.nbytes()))
                    self._count += 1
                    weakref.finalize(storage, self._release, storage._cdata).atexit = False
        return out

    def _release(self, key: int) -> None:
        number, size = self._live.pop(key)
        self.events.append((number, -size))


def _step(
    net: Any, loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer, clip: float
) -> tuple[list[tuple[int, int]], int]:
    """Run one step and return its events and how many of them the forward pass has."""
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer.zero_grad(set_to_none=True)
    state = [t for one in optimizer.state.values() for t in one.values() if isinstance(t, torch.Tensor)]
    watch = _Watch([*net.parameters(), *net.buffers(), *state])
    with watch, torch.enable_grad():
        value = loss()
        watch.forward_ends = len(watch.events)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
    events = list(watch.events)
    optimizer.zero_grad(set_to_none=True)
    return events, watch.forward_ends


def size_of(values: Sequence[int], shapes: Sequence[tuple[int, int]]) -> Size:
    """Return bytes as a function of the batch's shape, from the bytes at two shapes.

    Notes
    -----
    ``c B^b (S + o)^s`` where one fits, with ``s = 2`` and an offset for attention over virtual tokens; what fits none
    (kernels' own scratch) grows with the number of tokens.
    """
    try:
        dim = fit_dim(values, shapes)
        return lambda batch, length: dim.at(batch, length)
    except InputError:
        pass
    (v1, v2), ((b1, s1), (b2, s2)) = values, shapes
    for offset in range(1, 1025):
        one, two = b1 * (s1 + offset) * s1, b2 * (s2 + offset) * s2
        if v1 % one == 0 and v1 // one * two == v2:
            scale = v1 // one
            return lambda batch, length: scale * batch * (length + offset) * length
    return lambda batch, length: round(v2 / (b2 * s2) * batch * length)


def step_memory(
    net: Any,
    losses: Callable[[int, int], torch.Tensor],
    shapes: Sequence[tuple[int, int]],
    batch: int,
    length: int,
    clip: float = 1.0,
) -> dict[str, int]:
    """Estimate what a step with AdamW holds, once the optimiser has its moments.

    Parameters
    ----------
    net : torch.nn.Module
        In training mode, on the CPU.
    losses : callable
        ``losses(batch, length)`` runs a forward pass on such a batch.
    shapes : two (sequences, tokens) pairs
        Small, all four numbers different.
    batch, length : int
        The batch to estimate for.
    clip : float
        Largest gradient norm.

    Returns
    -------
    dict of str to int
        Bytes: ``weights`` (parameters and buffers), ``gradients``, ``optimizer`` (two moments), ``activations`` (alive
        when the forward pass ends), ``peak`` over the whole step.

    Raises
    ------
    InputError
        If a step allocates in another order on longer input.
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)  # the model must stay as it is
    random = torch.get_rng_state()
    _step(net, partial(losses, *shapes[0]), optimizer, clip)
    (first, ends), (second, _) = (_step(net, partial(losses, *shape), optimizer, clip) for shape in shapes)
    torch.set_rng_state(random)
    if [(number, size > 0) for number, size in first] != [(number, size > 0) for number, size in second]:
        raise InputError(
            "a training step of this model allocates in another order on longer input; its peak is unknown"
        )
    sizes = {
        number: size_of((one, two), shapes)(batch, length)
        for (number, one), (_, two) in zip(first, second, strict=True)
        if one > 0
    }
    live, peak, activations = 0, 0, 0
    for place, (number, one) in enumerate(first):
        live += sizes.get(number, 0) * (1 if one > 0 else -1)
        peak = max(peak, live)
        if place + 1 == ends:
            activations = live
    storages = [tensor.untyped_storage() for tensor in (*net.parameters(), *net.buffers())]
    weights = sum({storage._cdata: storage.nbytes() for storage in storages}.values())
    state = sum(one[name].nbytes for one in optimizer.state.values() for name in MOMENTS)
    return {
        "weights": weights,
        "gradients": sum(p.numel() * p.element_size() for p in trained),
        "optimizer": state,
        "activations": activations,
        "peak": weights + state + peak,
    }
