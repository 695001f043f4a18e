"""Small problems for RTL: which elements are zero, and what the others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = ("random", "clustered", "empty", "full", "random", "clustered", "sparse_rows", "random")
DENSITIES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9)
# fifteen non-zero weights, so that a 4-bit codebook (0 is its padding) holds them all
WEIGHTS = np.array([-7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8], dtype=np.int64)


class Problem(NamedTuple):
    """A GEMM with values.

    Parameters
    ----------
    label : str
        Where it came from, e.g. ``random-017``.
    activation : int64[M, K]
        Signed 8-bit activations.
    weight : int64[N, K]
        Weights by output, each 0 or one of `WEIGHTS`.
    """

    label: str
    activation: NDArray[np.int64]
    weight: NDArray[np.int64]

    @property
    def expected(self) -> NDArray[np.int64]:
        """Exact sums, ``int64[M, N]``: ``X W^T``."""
        return self.activation @ self.weight.T


class Shape(NamedTuple):
    """Largest M, K, N that a build of a design holds."""

    m: int
    k: int
    n: int


def mask_of(kind: str, m: int, k: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw a mask ``bool[M, K]``.

    ``random`` is i.i.d.; ``clustered`` has runs of zeros and non-zeros that are alike between rows, as trained
    activations have; ``sparse_rows`` mixes nearly empty with nearly full rows.
    """
    if kind == "empty":
        return np.zeros((m, k), dtype=np.bool_)
    if kind == "full":
        return np.ones((m, k), dtype=np.bool_)
    density = float(rng.choice(DENSITIES))
    if kind == "random":
        return rng.random((m, k)) < density
    if kind == "sparse_rows":
        return rng.random((m, k)) < rng.choice([0.01, 0.95], size=(m, 1))
    length = int(rng.integers(2, 24))
    runs = rng.random(-(-k // length)) < density
    common = np.repeat(runs, length)[:k]
    return np.where(rng.random((m, k)) < 0.1, ~common, common)


def with_values(
    label: str, activation: NDArray[np.bool_], weight: NDArray[np.bool_], rng: np.random.Generator
) -> Problem:
    """Give the non-zeros of two masks values that are not zero."""
    sign = rng.choice([-1, 1], size=activation.shape)
    values = np.where(activation, sign * rng.integers(1, 128, size=activation.shape), 0)
    return Problem(label, values, np.where(weight, rng.choice(WEIGHTS, size=weight.shape), 0))


def draw(count: int, limits: Shape, seed: int) -> list[Problem]:
    """Draw small problems of all kinds, ragged sizes among them.

    Parameters
    ----------
    count : int
        How many.
    limits : Shape
        Largest sizes.
    seed : int
        Of the generator; equal seeds give equal problems.
    """
    rng = np.random.default_rng(seed)
    problems = []
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        m, n = (int(rng.integers(1, most + 1)) for most in (limits.m, limits.n))
        k = int(rng.integers(1, limits.k + 1))
        activation = mask_of(kind, m, k, rng)
        # the other side is drawn apart, so that empty meets full and full meets empty as well
        weight = mask_of(KINDS[int(rng.integers(len(KINDS)))], n, k, rng)
        problems.append(with_values(f"{kind}-{index:03d}", activation, weight, rng))
    return problems


def from_masks(masks: Sequence[tuple[str, NDArray[np.bool_]]], limits: Shape, seed: int) -> list[Problem]:
    """Cut recorded activation masks to what a design holds, beside random weights.

    Parameters
    ----------
    masks : sequence of (label, bool[M, K])
        Masks of a trace.
    limits : Shape
        Largest sizes; a mask is cut at its first rows and columns.
    seed : int
        For weights and values.
    """
    rng = np.random.default_rng(seed)
    problems = []
    for label, mask in masks:
        cut = mask[: limits.m, : limits.k]
        weight = rng.random((limits.n, cut.shape[1])) < 0.5
        problems.append(with_values(label, cut, weight, rng))
    return problems
