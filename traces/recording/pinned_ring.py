"""Ring of pinned host buffers for asynchronous copies from a CUDA device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .device import Device

Arrays = dict[str, NDArray[Any]]


class Ring:
    """Sends tensors to the host; what comes out is read later, and on another thread.

    Parameters
    ----------
    device : Device
        Where tensors are.
    slots : int
        Buffers. Whoever sends must not have more than this many sendings unread.

    Attributes
    ----------
    awaited : float
        Seconds that readers waited for copies to end.
    """

    def __init__(self, device: Device, slots: int) -> None:
        self.awaited = 0.0
        self._device = device
        self._free: deque[Any] = deque(device.pinned(1) for _ in range(slots))

    def send(self, tensors: Mapping[str, Any]) -> Callable[[], Arrays]:
        """Start copying; the call that is returned waits for the end, frees the buffer, and gives the arrays."""
        import torch

        raw = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in tensors.values()]
        joined = torch.cat(raw)  # one copy in place of one for each tensor: launches are what the host pays for
        ends = np.cumsum([len(part) for part in raw])
        forms = [(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for t in tensors.values()]
        buffer = self._free.pop()  # the one freed last: as few grow large as are in use at once
        if len(buffer) < len(joined):
            buffer = self._device.pinned(1 << (len(joined) - 1).bit_length())
        with self._device.copying():
            self._device.copy(buffer[: len(joined)], joined)
        event = self._device.mark()

        def receive() -> Arrays:
            began = time.perf_counter()
            event.synchronize()
            self.awaited += time.perf_counter() - began
            parts = np.split(buffer.numpy()[: ends[-1]].copy(), ends[:-1])
            self._free.append(buffer)
            return {
                key: part.copy().view(np.dtype(kind)).reshape(shape)
                for key, part, (kind, shape) in zip(tensors, parts, forms, strict=True)
            }

        return receive
