"""Devices for recording: the processor, or a CUDA device with a side stream for copies to the host."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

from ..errors import InputError


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

    def idle(self) -> bool:
        """Say whether all that was launched to compute is done."""


class Cuda:
    """A CUDA device, which a ``with`` block makes PyTorch's and Triton's current one.

    Parameters
    ----------
    name : str
        ``cuda``, or ``cuda:1``.
    """

    def __init__(self, name: str = "cuda") -> None:
        import torch

        self._torch = torch
        self._current = torch.cuda.device(torch.device(name))
        self._side = torch.cuda.Stream(torch.device(name))

    def __enter__(self) -> Self:
        self._current.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._current.__exit__(*error)

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
        event = self._torch.cuda.Event(blocking=True)  # or waiting would keep a core busy
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

    def idle(self) -> bool:
        """Say whether all that was launched to compute is done."""
        return bool(self._torch.cuda.current_stream().query())


def accelerator(name: str) -> Cuda | None:
    """Return what gets a device's tensors to the host; None for the processor, where they are there."""
    return Cuda(name) if name.startswith("cuda") else None


def resolve_device(name: str | None) -> str:
    """Return where to run: what was asked for, or a GPU where there is one.

    Raises
    ------
    InputError
        If PyTorch does not know the device, or it is not there.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise InputError(f"device '{name}' is not known; say cpu or cuda") from error
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device '{name}': recording runs on cpu and cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{name}': no CUDA device is there; leave --device out")
    if kind == "cuda" and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}': {torch.cuda.device_count()} CUDA devices are there, counted from 0")
    return name
