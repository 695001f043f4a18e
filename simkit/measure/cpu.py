"""This machine's processor as a measured device: dense GEMMs of torch, activation-sparse ones of numba.

Weights rotate through a pool larger than the caches, so that they come from memory as in a model that does not fit.
On a shared machine noise only ever adds time: shapes are measured in turn, pass after pass, and the least is kept.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UnavailableError

Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]
MAX_SPREAD = 0.25  # halves of the repeats further apart than this: the shape is kept, marked, and not used
BUSY = 0.75  # load a core above which two threads would wait for each other
POOL_BYTES = 256 * 1024 * 1024
COLUMNS = 256  # outputs of one unit of work: they stay in the first-level cache
LANES = 16  # fp32 in a vector register
ROWS = 4  # weight rows added in one pass over the outputs
RAPL = Path("/sys/class/powercap")
WIDTHS = (256, 384, 512, 768, 1024, 1536, 2048)
MOST_MACS = 1.2e8  # about a millisecond: short enough to run undisturbed now and then
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128)
BATCHES = (1, 2, 4, 8)
DENSITIES = (1.0, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _add_rows(out, a, b, c, d, wa, wb, wc, wd):  # type: ignore[no-untyped-def]
    for column in range(out.shape[0]):
        out[column] += a * wa[column] + b * wb[column] + c * wc[column] + d * wd[column]


@numba.njit(cache=True, nogil=True, fastmath=True, parallel=True, error_model="numpy")
def _gather(x, index, weight, out, threads):  # type: ignore[no-untyped-def]
    tokens, outputs = out.shape
    whole = index.shape[0] // ROWS * ROWS
    parts = threads * -(-outputs // (COLUMNS * threads))  # as many for each thread
    width = -(-outputs // (parts * LANES)) * LANES
    for part in numba.prange(parts):
        first = min(part * width, outputs)
        stop = min(first + width, outputs)
        # sums of its own: at the border of two parts' outputs the cores would pass a cache line to and fro
        sums = np.zeros((tokens, stop - first), dtype=np.float32)
        for i in range(0, whole, ROWS):
            a, b, c, d = index[i], index[i + 1], index[i + 2], index[i + 3]
            wa, wb, wc, wd = weight[a, first:stop], weight[b, first:stop], weight[c, first:stop], weight[d, first:stop]
            for token in range(tokens):
                _add_rows(sums[token], x[token, a], x[token, b], x[token, c], x[token, d], wa, wb, wc, wd)
        for i in range(whole, index.shape[0]):
            last, none = weight[index[i], first:stop], np.float32(0)
            for token in range(tokens):
                _add_rows(sums[token], x[token, index[i]], none, none, none, last, last, last, last)
        out[:, first:stop] = sums


def gather_matmul(x: Floats32, index: NDArray[np.int64], weight: Floats32, out: Floats32) -> None:
    """Multiply only the rows of `weight` that are named, ``out = x[:, index] weight[index, :]``.

    Parameters
    ----------
    x : float32[M, K]
        Activations.
    index : int64[U]
        Union of the tokens' non-zero columns, ascending.
    weight : float32[K, N]
        Rows are contiguous.
    out : float32[M, N]
        Written whole, whatever it held.
    """
    _gather(x, index, weight, out, numba.get_num_threads())


class DenseShape(NamedTuple):
    """One dense GEMM."""

    m: int
    n: int
    k: int


class SparseShape(NamedTuple):
    """One gathered GEMM: `rows` of k are active for all m tokens together, in `runs` of neighbours."""

    m: int
    n: int
    k: int
    density: float
    rows: int
    runs: int


def dense_plan(seed: int, count: int) -> list[DenseShape]:
    """Draw dense shapes, each once, of at most a few milliseconds."""
    rng = np.random.default_rng(seed)
    every = [DenseShape(m, n, k) for m, n, k in product(TOKENS, WIDTHS, WIDTHS) if m * n * k < MOST_MACS]
    return [every[i] for i in rng.permutation(len(every))[:count]]


def sparse_plan(seed: int, count: int) -> list[SparseShape]:
    """Draw gathers over shapes, batches and densities, each once; masks are Bernoulli."""
    rng = np.random.default_rng(seed)
    every = list(product(BATCHES, WIDTHS[1:], WIDTHS[1:], DENSITIES))
    plan = []
    for i in rng.permutation(len(every))[:count]:
        m, n, k, density = every[i]
        active = _active(k, density, int(i))
        runs = 1 + int((np.diff(active) > 1).sum())
        plan.append(SparseShape(m, n, k, density, len(active), runs))
    return plan


def _active(k: int, density: float, seed: int) -> NDArray[np.int64]:
    chosen = np.flatnonzero(np.random.default_rng(seed).random(k) < density)
    return chosen if len(chosen) else np.array([0])


class _Rotation:
    """Hands out weight matrices from a pool, each as long unused as the pool allows."""

    def __init__(self) -> None:
        self.pool = np.random.default_rng(0).standard_normal(POOL_BYTES // 4, dtype=np.float32)
        self.cursor = 0

    def next(self, k: int, n: int) -> Floats32:
        size = k * n
        if self.cursor + size > len(self.pool):
            self.cursor = 0
        first, self.cursor = self.cursor, self.cursor + size
        return self.pool[first : first + size].reshape(k, n)


@lru_cache(maxsize=1)
def _rotation() -> _Rotation:
    return _Rotation()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    numba.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _dense_case(shape: DenseShape) -> Callable[[], float]:
    import torch

    rotation = _rotation()
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((shape.m, shape.k), dtype=np.float32))
    out = torch.empty(shape.m, shape.n)

    def once() -> float:
        weight = torch.from_numpy(rotation.next(shape.k, shape.n))
        begun = time.perf_counter_ns()
        torch.mm(x, weight, out=out)
        return (time.perf_counter_ns() - begun) * 1e-9

    return once


def _sparse_case(shape: SparseShape) -> Callable[[], float]:
    rotation = _rotation()
    rng = np.random.default_rng(shape.rows * 7919 + shape.k)
    index = _with_runs(shape, rng)
    x = rng.standard_normal((shape.m, shape.k), dtype=np.float32)
    out = np.empty((shape.m, shape.n), dtype=np.float32)

    def once() -> float:
        weight = rotation.next(shape.k, shape.n)
        begun = time.perf_counter_ns()
        gather_matmul(x, index, weight, out)
        return (time.perf_counter_ns() - begun) * 1e-9

    return once


def _with_runs(shape: SparseShape, rng: np.random.Generator) -> NDArray[np.int64]:
    if shape.rows == shape.k:
        return np.arange(shape.k)
    return np.sort(rng.choice(shape.k, size=shape.rows, replace=False))


def measure(cases: Sequence[Callable[[], float]], budget_s: float, least_passes: int = 5) -> NDArray[np.float64]:
    """Time cases in turn until the budget is spent.

    Parameters
    ----------
    cases : sequence of callable
        Each runs once and returns its seconds.
    budget_s : float
        Wall-clock budget; at least `least_passes` passes are done.
    least_passes : int
        Repeats that a minimum needs.

    Returns
    -------
    float64[passes, cases]
        Raw repeats; the least of a column is the case's time.
    """
    for case in cases:
        case()
    begun = time.monotonic()
    passes: list[list[float]] = []
    while len(passes) < least_passes or time.monotonic() - begun < budget_s:
        passes.append([min(case(), case()) for case in cases])
    return np.array(passes)


def spread_of(raw: Floats) -> Floats:
    """How far the least of the even and of the odd passes are apart, ``|log ratio|`` of each shape."""
    return np.asarray(np.abs(np.log(raw[::2].min(axis=0) / raw[1::2].min(axis=0))))


@dataclass(frozen=True, eq=False)
class CpuMeasurement:
    """Shapes with all their raw repeats, ``float64[passes, shapes]``."""

    dense: list[DenseShape]
    dense_raw: Floats
    sparse: list[SparseShape]
    sparse_raw: Floats
    joules: float | None
    threads: int

    def frame(self) -> pd.DataFrame:
        """Return one row a shape, in the columns of every measurement."""
        raw = [*self.dense_raw.T, *self.sparse_raw.T]
        shapes: list[Any] = [*self.dense, *self.sparse]
        return pd.DataFrame(
            {
                "device": "cpu",
                "op": ["dense" if isinstance(s, DenseShape) else "gather" for s in shapes],
                "dtype": "fp32",
                "m": [s.m for s in shapes],
                "n": [s.n for s in shapes],
                "k": [s.k for s in shapes],
                "density": [getattr(s, "density", 1.0) for s in shapes],
                "rows": [getattr(s, "rows", s.k) for s in shapes],
                "runs": [getattr(s, "runs", 1) for s in shapes],
                "seconds": [float(r.min()) for r in raw],
                "sane": [bool(spread_of(r[:, None])[0] <= MAX_SPREAD) for r in raw],
                "raw_seconds": [[float(x) for x in r] for r in raw],
            }
        )


def rapl_joules() -> float:
    """Energy counter of the processor packages, J.

    Raises
    ------
    UnavailableError
        If the machine has no readable RAPL counter.
    """
    counters = sorted(RAPL.glob("intel-rapl:[0-9]/energy_uj")) if RAPL.is_dir() else []
    readable = [counter for counter in counters if os.access(counter, os.R_OK)]
    if not readable:
        raise UnavailableError(
            "no readable RAPL energy counter on this machine; energy of the processor is not measured"
        )
    return sum(int(counter.read_text()) for counter in readable) * 1e-6


def quiet_threads() -> int:
    """Two cores, or one where others already use the machine."""
    cores = os.cpu_count() or 1
    return 1 if os.getloadavg()[0] / cores > BUSY else min(2, cores)


def measure_cpu(
    *, dense: int = 150, sparse: int = 150, budget_s: float = 50.0, seed: int = 0, threads: int | None = None
) -> CpuMeasurement:
    """Measure this machine.

    Parameters
    ----------
    dense, sparse : int
        Shapes of each kind.
    budget_s : float
        Wall-clock seconds for both together.
    seed : int
        Which shapes.
    threads : int, optional
        Cores to use; 2, or 1 on a machine that is busy with other work, where two threads would wait for each other.

    Returns
    -------
    CpuMeasurement
    """
    threads = threads or quiet_threads()
    dense_shapes, sparse_shapes = dense_plan(seed, dense), sparse_plan(seed + 1, sparse)
    try:
        before: float | None = rapl_joules()
    except UnavailableError:
        before = None
    with _threads(threads):
        dense_raw = measure([_dense_case(shape) for shape in dense_shapes], budget_s / 2)
        sparse_raw = measure([_sparse_case(shape) for shape in sparse_shapes], budget_s / 2)
    joules = None if before is None else rapl_joules() - before
    return CpuMeasurement(dense_shapes, dense_raw, sparse_shapes, sparse_raw, joules, threads)
