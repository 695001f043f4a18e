"""Overhead of a recording, measured by the recorder itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .hooks import SiteTap
from .writer_thread import Worker

SPENT = ("forward_seconds", "hook_seconds", "device_seconds", "wait_seconds", "write_seconds", "process_seconds")


class Clock:
    """Seconds of a recording, by what they went to, over all its runs.

    Parameters
    ----------
    before : mapping of str to float
        What former runs of the recording took.
    tap : SiteTap
        Its hooks' own clocks.
    worker : Worker
        The writer's.
    """

    def __init__(self, before: Mapping[str, float], tap: SiteTap, worker: Worker) -> None:
        self._before = {name: float(before.get(name, 0.0)) for name in SPENT}
        self._tap, self._worker, self._forward = tap, worker, 0.0
        self._began = time.process_time()

    @property
    def forward_seconds(self) -> float:
        """Of the forward passes, with everything that recording adds."""
        return self._before["forward_seconds"] + self._forward

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Count a block as part of the forward passes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._forward += time.perf_counter() - began

    def facts(self) -> dict[str, float]:
        """Return the seconds, and the overheads over the forward passes alone.

        ``overhead`` is what the hooks took, of the host's thread or of the device, whichever is more, and what was
        waited for the writer while the model stood still. ``overhead_one_core`` adds all the time that the writer's
        thread was at work, as if no core had been free for it. ``process_seconds`` is what all threads took of the
        processor from the first batch to the last.
        """
        here = {
            "forward_seconds": self._forward,
            "hook_seconds": self._tap.seconds,
            "device_seconds": self._tap.device_seconds,
            "wait_seconds": self._worker.waited,
            "write_seconds": self._worker.busy - self._tap.awaited,
            "process_seconds": time.process_time() - self._began,
        }
        spent = {name: self._before[name] + seconds for name, seconds in here.items()}
        added = max(spent["hook_seconds"], spent["device_seconds"]) + spent["wait_seconds"]
        plain = max(spent["forward_seconds"] - added, 1e-9)
        return spent | {"overhead": added / plain, "overhead_one_core": (added + spent["write_seconds"]) / plain}
