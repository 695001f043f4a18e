"""Writer thread: executes jobs in order behind a bounded queue, so that waiting data take bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType


class Worker:
    """Does jobs one after the other on a thread of its own.

    Parameters
    ----------
    jobs : int
        How many may wait.
    size_bytes : int
        How many bytes what waits may hold; one job alone may be larger.
    held_up : callable
        Asked whenever `put` has waited: whether that held its caller up. A device may have had work all the while.

    Attributes
    ----------
    waited : float
        Seconds that `put` waited for room where that held its caller up: the back-pressure on whoever produces.
    busy : float
        Seconds that jobs took.
    """

    def __init__(self, jobs: int = 8, size_bytes: int = 64 << 20, held_up: Callable[[], bool] = lambda: True) -> None:
        self.waited = self.busy = 0.0
        self._held_up = held_up
        self._most, self._room = jobs, size_bytes
        self._queue: deque[tuple[Callable[[], None], int]] = deque()
        self._held = 0
        self._running = self._closing = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="trace-writer", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None], size_bytes: int = 0) -> None:
        """Queue a job, waiting for room; raise what an earlier one raised, after which none is done any more."""
        began = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._fits(size_bytes))
            waited = time.perf_counter() - began
            self.waited += waited if self._held_up() else 0.0
            if self._error is not None:
                raise self._error
            self._queue.append((job, size_bytes))
            self._held += size_bytes
            self._changed.notify_all()

    def _fits(self, size_bytes: int) -> bool:
        waiting = len(self._queue) + self._running
        return not waiting or (waiting < self._most and self._held + size_bytes <= self._room)

    def finish(self) -> None:
        """Wait until every job is done; raise what one of them raised."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._running = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._queue) or self._closing)
                if not self._queue:
                    return
                job, size_bytes = self._queue.popleft()
                self._running = True
            began = time.perf_counter()
            try:
                job()
            except BaseException as error:  # whatever it is, it belongs to the thread that waits for the result
                with self._changed:
                    self._error = error
                    self._queue.clear()
                    self._changed.notify_all()
                return
            finally:
                self.busy += time.perf_counter() - began
            with self._changed:
                self._held -= size_bytes

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.finish()
            return
        with self._changed:  # what was handed over is still finished; the first error is the one that counts
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
