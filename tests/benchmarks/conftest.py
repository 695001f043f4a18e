"""One table at the end: each kernel's time as a ratio to a reference timed in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hwmodels import PackedMask

M, K, N = 512, 3072, 768
DENSITIES = (0.1, 0.3, 1.0)


@dataclass
class Line:
    """One measured kernel: best and median seconds, the reference's best, and the limits it has to keep."""

    name: str
    work: str
    best_s: float
    median_s: float
    reference: str
    reference_s: float
    limit_s: float
    limit_ratio: float | None
    first_call_s: float

    @property
    def kept(self) -> bool:
        """Whether both limits hold."""
        within = self.limit_ratio is None or self.best_s <= self.limit_ratio * self.reference_s
        return within and self.best_s <= self.limit_s


LINES: list[Line] = []


@pytest.fixture(scope="session")
def iid() -> Callable[..., PackedMask]:
    """Draw i.i.d. masks once for a shape and density."""
    drawn: dict[tuple[int, int, float], PackedMask] = {}

    def draw(m: int, k: int, density: float) -> PackedMask:
        key = (m, k, density)
        if key not in drawn:
            drawn[key] = PackedMask.bernoulli(m, k, density, seed=7)
        return drawn[key]

    return draw


def popcount(words: np.ndarray) -> int:
    """Touch every byte of a mask once: the floor of what any counting kernel can take."""
    return int(np.bitwise_count(words).sum())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not LINES:
        return
    write = terminalreporter.write_line
    terminalreporter.section("kernels, one thread, best of the rounds")
    write(f"{'kernel':24}{'work':34}{'ms':>10}{'first':>8}{'x ref':>9}{'limit':>22}  reference")
    for line in LINES:
        limits = f"{line.limit_s * 1e3:.3g} ms" + (f", {line.limit_ratio:.2g}x" if line.limit_ratio else "")
        write(
            f"{line.name:24}{line.work:34}{line.best_s * 1e3:10.3f}{line.first_call_s:7.2f}s"
            f"{line.best_s / line.reference_s:9.2f}{limits:>22}  {line.reference}"
            + ("" if line.kept else "  <- over its limit")
        )
