"""Assignment of sweep points to workers, and the local pool of processes.

Workers are plain subprocesses of this interpreter that speak JSON over pipes: scripts need no ``__main__`` guard, no
object is pickled, and a killed worker costs the batch in its hands, which is given out again.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import CorruptError, InputError, StorageError, UnavailableError
from ..files import clear_after
from .grid import Point
from .worker import to_json

Json = dict[str, Any]
Process = subprocess.Popen[str]
ERRORS: dict[int, type[Exception]] = {2: InputError, 3: CorruptError, 4: UnavailableError, 6: StorageError}
# a batch should take about this long: long enough to hide its file, short enough to lose
BATCH_SECONDS = 1.0
FIRST_BATCH, LARGEST_BATCH = 2, 256
# a point that was in the hands of this many workers as they died is given up
DEATHS = 3


class Feed:
    """Hands out points in batches, as large as `BATCH_SECONDS` of work; takes them back when a worker dies.

    Parameters
    ----------
    points : iterator of Point
        What there is to do; `given` counts those handed out.
    """

    def __init__(self, points: Iterator[Point]):
        self._points = points
        self._again: deque[Point] = deque()
        self._deaths: Counter[Point] = Counter()
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._done = 0.0
        self.given = 0

    def take(self) -> list[Point]:
        """Return the next batch; empty at the end. What was in a dying worker's hands comes back one by one."""
        with self._lock:
            if self._again:
                return [self._again.popleft()]
            points = list(islice(self._points, self._size()))
            self.given += len(points)
            return points

    def _size(self) -> int:
        if not self._done:
            return FIRST_BATCH
        return max(1, min(LARGEST_BATCH, round(BATCH_SECONDS / max(self._seconds / self._done, 1e-6))))

    def finished(self, answers: list[Json]) -> None:
        """Take note of how long points take; recent ones count more."""
        with self._lock:
            self._seconds = self._seconds / 2 + sum(answer["seconds"] for answer in answers)
            self._done = self._done / 2 + len(answers)

    def again(self, points: list[Point]) -> None:
        """Take a batch back that nobody could answer, through no fault of its own."""
        with self._lock:
            self._again.extend(points)

    def died(self, points: list[Point]) -> list[Point]:
        """Take a batch back; return those points that were in the hands of too many dying workers."""
        with self._lock:
            self._deaths.update(points)
            self._again.extend(point for point in points if self._deaths[point] < DEATHS)
            return [point for point in points if self._deaths[point] >= DEATHS]


class LocalPool:
    """Processes of this machine that work on one job.

    Parameters
    ----------
    job : dict
        From `simkit.explore.worker.job_of`.
    processes : int
        How many.
    """

    def __init__(self, job: Json, processes: int):
        self._job, self._processes = job, processes
        self._answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._stop = threading.Event()
        self._running: set[Process] = set()

    def run(self, feed: Feed) -> Generator[tuple[str, Any], None, None]:
        """Yield ``("points", answers)`` of every batch, and ``("lost", points)`` given up.

        Raises
        ------
        UnavailableError
            If worker processes cannot start, or cannot load the job.
        """
        threads = [threading.Thread(target=self._serve, args=(feed,), daemon=True) for _ in range(self._processes)]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                kind, content = self._answers.get()
                if kind == "end":
                    left -= 1
                elif kind == "error":
                    raise content
                else:
                    yield kind, content
        finally:
            self._stop.set()
            for process in list(self._running):
                process.kill()
            for thread in threads:
                thread.join(timeout=10)

    def _serve(self, feed: Feed) -> None:
        process = None
        try:
            while not self._stop.is_set() and (points := feed.take()):
                process = process or self._start()
                answers = self._ask(process, [to_json(point) for point in points])
                if answers is None:
                    self._end(process)
                    process = None
                    if not self._stop.is_set() and (lost := feed.died(points)):
                        self._answers.put(("lost", lost))
                else:
                    feed.finished(answers)
                    self._answers.put(("points", list(zip(points, answers, strict=True))))
        except Exception as error:
            self._answers.put(("error", error))
        finally:
            if process is not None:
                self._end(process)
            self._answers.put(("end", None))

    def _start(self) -> Process:
        """Start a worker and give it the job."""
        for _ in range(DEATHS):
            process = self._spawn()
            if self._ask(process, self._job) is not None or self._stop.is_set():
                return process
            self._end(process)
        raise UnavailableError(
            f"a worker process ended {DEATHS} times as it started (exit code {process.returncode}); "
            "see its messages above, or sweep in this process with --processes 0"
        )

    def _spawn(self) -> Process:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        # a session of its own: Ctrl-C is for the parent, which ends its workers itself
        process = subprocess.Popen(
            [sys.executable, "-m", "simkit.explore.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **one, "PYTHONPATH": path},
            start_new_session=True,
        )
        self._running.add(process)
        return process

    def _ask(self, process: Process, message: Any) -> Any:
        """Send a message; return the answer, or None where the worker died."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        except OSError:
            return None
        line = process.stdout.readline()
        # a line without an end is what a killed worker had begun to say
        if not line.endswith("\n"):
            return None
        answer = json.loads(line)
        if "error" in answer:
            raise ERRORS.get(answer["exit_code"], RuntimeError)(answer["error"])
        return answer["done"]

    def _end(self, process: Process) -> None:
        process.kill()
        process.wait()
        clear_after(process.pid, self._job["folder"])
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._running.discard(process)
