"""The same sweep on a ``dask.distributed`` cluster.

Points travel to workers, traces do not: workers open them by path and write their parts themselves, so traces and the
output folder must lie where all of them see them. A batch whose worker died is given out again by the scheduler; when
the scheduler itself goes away, this side waits for it to come back and hands out what had no answer.

On SLURM, ``dask-jobqueue`` (``pip install 'zeroskip[cluster]'``) starts scheduler and workers::

    from dask_jobqueue import SLURMCluster
    jobs = SLURMCluster(cores=1, memory="4 GB", walltime="02:00:00")
    jobs.scale(jobs=64)
    sk.sweep(traces, archs, fields=fields, out="/shared/out", scheduler=jobs.scheduler_address)
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, UnavailableError
from .grid import Point
from .pool import Feed
from .worker import run_batch, to_json

log = logging.getLogger(__name__)
Json = dict[str, Any]
# batches in flight for each thread of the cluster: one at work and one waiting
AHEAD = 2
# an answer is a few hundred bytes that lie on a worker; and how often to say that there are no workers
ANSWER_S, WARN_S = 10, 30
TLS = {"tls_ca_file": "ca", "tls_client_cert": "cert", "tls_client_key": "key"}


@dataclass(frozen=True)
class Cluster:
    """A scheduler, and how to reach it.

    Parameters
    ----------
    address : str
        ``tcp://host:port`` or ``tls://host:port``.
    ca, cert, key : str, optional
        Paths of the certificate authority, this client's certificate and its key (PEM) for ``tls://``.
    connect_s : float
        Seconds to wait for the scheduler at first.
    return_s : float
        Seconds to wait for it to come back after it went away.
    """

    address: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    connect_s: float = 10.0
    return_s: float = 120.0

    def run(self, job: Json, feed: Feed) -> Generator[tuple[str, Any], None, None]:
        """Yield ``("points", answers)`` of every batch, and ``("lost", points)`` given up, as `LocalPool.run` does.

        Raises
        ------
        UnavailableError
            If ``distributed`` is not installed, or the scheduler is not there or does not come back.
        InputError
            If the address or the TLS files cannot be used.
        """
        patience = self.connect_s
        with _quiet():
            while True:
                session = _Session(self._connect(patience), job, feed)
                try:
                    yield from session.run()
                    return
                except _GoneError as gone:
                    log.warning("the scheduler at %s went away (%s); waiting for it", self.address, gone)
                finally:
                    session.close()
                patience = self.return_s

    def check(self) -> None:
        """Refuse an address or TLS files that cannot be used, before anything is begun."""
        if not self.address.startswith(("tcp://", "tls://")):
            raise InputError(f"scheduler '{self.address}' is not an address; write tcp://HOST:PORT or tls://HOST:PORT")
        self._security(_distributed())

    def _connect(self, patience: float) -> Any:
        """Return a connected client; one that finds nothing leaves one clear line."""
        distributed = _distributed()
        security = self._security(distributed)
        until = time.monotonic() + patience
        while True:
            left = max(1.0, until - time.monotonic())
            try:
                return distributed.Client(self.address, security=security, timeout=left, set_as_default=False)
            except (OSError, TimeoutError, RuntimeError):
                if time.monotonic() >= until:
                    raise UnavailableError(
                        f"no scheduler answers at {self.address} within {patience:g} s; start one with "
                        "'dask scheduler', or leave --scheduler out; points that are done are kept"
                    ) from None
                time.sleep(0.5)

    def _security(self, distributed: Any) -> Any:
        if not self.address.startswith("tls://"):
            return None
        files = {option: getattr(self, name) for option, name in TLS.items()}
        for option, path in files.items():
            if path is None:
                raise InputError(
                    f"{self.address} needs --tls-ca, --tls-cert and --tls-key; --tls-{TLS[option]} is missing"
                )
            if not Path(path).is_file():
                raise InputError(f"--tls-{TLS[option]}: no file at {path}")
        return distributed.Security(require_encryption=True, **files)


class _GoneError(Exception):
    """The scheduler went away."""


class _Session:
    """One connection: batches out, answers in."""

    def __init__(self, client: Any, job: Json, feed: Feed):
        self._client, self._job, self._feed = client, job, feed
        self._sent: dict[Any, list[Point]] = {}
        self._done: queue.Queue[Any] = queue.Queue()

    def run(self) -> Iterator[tuple[str, Any]]:
        distributed = _distributed()
        try:
            self._fill()
            while self._sent:
                future = self._next()
                points = self._sent[future]
                try:
                    answers = future.result(timeout=ANSWER_S)
                except distributed.KilledWorker:
                    del self._sent[future]
                    if lost := self._feed.died(points):
                        yield "lost", lost
                else:
                    del self._sent[future]
                    self._feed.finished(answers)
                    yield "points", list(zip(points, answers, strict=True))
                self._fill()
        except (distributed.comm.CommClosedError, TimeoutError, distributed.client.FutureCancelledError) as error:
            raise _GoneError(_first_line(error)) from None

    def _fill(self) -> None:
        threads = self._threads() or 1
        while len(self._sent) < AHEAD * threads and (points := self._feed.take()):
            batch = [to_json(point) for point in points]
            try:
                future = self._client.submit(run_batch, self._job, batch, pure=False)
            except Exception:
                self._feed.again(points)
                raise
            self._sent[future] = points
            future.add_done_callback(self._done.put)

    def _threads(self) -> int:
        """Count the workers' threads; without a limit the client would wait for a scheduler that has gone."""
        found = self._client.sync(self._client.scheduler.ncores, callback_timeout=ANSWER_S)
        return sum(found.values())

    def _next(self) -> Any:
        """Wait for the next answer; raise where the scheduler is gone meanwhile."""
        waited = 0
        while True:
            try:
                return self._done.get(timeout=1)
            except queue.Empty:
                waited += 1
            if self._client.status != "running":
                raise _GoneError(f"the connection is {self._client.status}")
            if waited % WARN_S == 0 and not self._threads():
                log.warning("the scheduler has no workers; waiting for some")

    def close(self) -> None:
        """Take back what has no answer, and leave."""
        for points in self._sent.values():
            self._feed.again(points)
        self._sent.clear()
        with contextlib.suppress(Exception):
            self._client.close(timeout=2)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise UnavailableError("--scheduler needs dask.distributed: pip install 'zeroskip[cluster]'") from None
    return distributed


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep distributed's own account of a lost connection off the screen; ours is one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "distributed.comm")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
