"""From a device to the host without waiting: pinned buffers in a ring, copied into on a stream of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ALIGN = 64
Arrays = dict[str, NDArray[Any]]


class Device(Protocol):
    """What the ring needs of an accelerator."""

    def pinned(self, size: int) -> Any:
        """Return a page-locked uint8 tensor."""

    def copying(self) -> AbstractContextManager[Any]:
        """Enter the side stream, behind all that was launched so far."""

    def copy(self, target: Any, source: Any) -> None:
        """Copy on the side stream, without waiting; the source's memory stays its own until then."""

    def mark(self) -> Any:
        """Return an event behind what the side stream was given; its ``synchronize`` waits."""

    def wait(self) -> None:
        """Wait for all that was launched."""

    def stamp(self) -> Any:
        """Return a timed event in the stream that computes; ``a.elapsed_time(b)`` is in milliseconds."""


class Cuda:
    """A CUDA device: PyTorch's current one."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._side = torch.cuda.Stream()

    def pinned(self, size: int) -> Any:
        """Return a page-locked uint8 tensor."""
        return self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)

    def copying(self) -> AbstractContextManager[Any]:
        """Enter the side stream, behind all that was launched so far."""
        self._side.wait_stream(self._torch.cuda.current_stream())
        stream: AbstractContextManager[Any] = self._torch.cuda.stream(self._side)
        return stream

    def copy(self, target: Any, source: Any) -> None:
        """Copy on the side stream; the allocator keeps the source until the copy is done."""
        target.copy_(source, non_blocking=True)
        source.record_stream(self._side)

    def mark(self) -> Any:
        """Return an event on the side stream."""
        event = self._torch.cuda.Event()
        event.record(self._side)
        return event

    def wait(self) -> None:
        """Wait for all that was launched."""
        self._torch.cuda.synchronize()

    def stamp(self) -> Any:
        """Return a timed event in the stream that computes."""
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Ring:
    """Sends tensors to the host; what comes out is read later, and on another thread.

    Parameters
    ----------
    device : Device
        Where tensors are.
    slots : int
        Buffers. Whoever sends must not have more than this many sendings unread.
    """

    def __init__(self, device: Device, slots: int) -> None:
        self._device = device
        self._free: deque[Any] = deque(device.pinned(ALIGN) for _ in range(slots))

    def send(self, tensors: Mapping[str, Any]) -> Callable[[], Arrays]:
        """Start copying; the call that is returned waits for the end, frees the buffer, and gives the arrays."""
        import torch

        places, size = {}, 0
        for key, tensor in tensors.items():
            places[key] = size
            size += -(-tensor.numel() * tensor.element_size() // ALIGN) * ALIGN
        buffer = self._free.popleft()
        if len(buffer) < size:
            buffer = self._device.pinned(size)
        shapes = {key: (tuple(t.shape), t.numel() * t.element_size()) for key, t in tensors.items()}
        kinds = {key: str(t.dtype).removeprefix("torch.") for key, t in tensors.items()}
        with self._device.copying():
            for key, tensor in tensors.items():
                raw = tensor.contiguous().reshape(-1).view(torch.uint8)
                self._device.copy(buffer[places[key] : places[key] + len(raw)], raw)
        event = self._device.mark()

        def receive() -> Arrays:
            event.synchronize()
            host = buffer.numpy()
            found = {
                key: host[places[key] : places[key] + length].copy().view(np.dtype(kinds[key])).reshape(shape)
                for key, (shape, length) in shapes.items()
            }
            self._free.append(buffer)
            return found

        return receive
