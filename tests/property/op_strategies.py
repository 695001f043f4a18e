"""Random small operations for any kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from hwmodels import Op, PackedMask
from hwmodels.kernel import Kernel
from hwmodels.mask import Words

DENSITIES = [0.0, 0.05, 0.3, 0.7, 1.0]
# on both sides of a word, and far from any multiple of lanes, bricks, chunks and tiles
K_EDGES = [1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 130]


class Streamed:
    """A mask that can only be read a few rows at a time, as from a store."""

    def __init__(self, held: PackedMask, step: int = 3) -> None:
        self.held, self.step = held, step

    @property
    def shape(self) -> tuple[int, int]:
        return self.held.shape

    def blocks(self, rows: int = 0) -> Iterator[Words]:
        return self.held.blocks(self.step)

    def popcount(self) -> int:
        return self.held.popcount()


def mask(rng: np.random.Generator, rows: int, columns: int) -> PackedMask:
    """Rows of mixed density: empty and full ones among the others."""
    density = rng.choice(DENSITIES, size=(rows, 1))
    return PackedMask.from_bool(rng.random((rows, columns)) < density)


@st.composite
def ops(draw: st.DrawFn, kernel: Kernel, max_m: int = 12, max_k: int = 160, max_n: int = 40) -> Op:
    """Ops with ragged K, one token, few or many outputs, several launches, and masks where the kernel can have them."""
    m = draw(st.integers(1, max_m))
    k = draw(st.sampled_from([k for k in K_EDGES if k <= max_k]) | st.integers(1, max_k))
    n = draw(st.integers(1, max_n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weight = mask(rng, n, k) if kernel.two_sided or draw(st.booleans()) else None
    output = mask(rng, m, n) if draw(st.booleans()) else None
    shared = draw(st.integers(1, 2))
    return Op(
        "x", 0, m, k, n, mask(rng, m, k), weight, output,
        batch=draw(st.integers(0, m)), repeat=shared * draw(st.integers(1, 3)), shared=shared,
    )  # fmt: skip
