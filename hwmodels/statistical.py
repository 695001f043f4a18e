"""Density-only baseline: cycles of any arch from densities alone, without masks, order or synchronisation.

Non-zeros of a tile drawn from a matrix are hypergeometric. A design that takes them one by one needs density x dense
cycles. One that takes them `step` at a time from tiles of `tile` needs ``E[ceil(n / step)]`` for each tile, and one
with a window of ``lookahead + 1`` steps never runs faster than the window. Waiting for a slower row, lane, PE or FIFO
is not seen: that is the gap.

Source: Wu et al., Sparseloop, MICRO 2022, doi:10.1109/MICRO56248.2022.00096.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from .arch import Arch
from .errors import InputError
from .kernel import Kernel
from .mask import Mask
from .op import Op
from .registry import kernel_of, params_of, seen_by


def expected_rounds(population: int, nonzeros: int, tile: int, step: int) -> float:
    """Mean of ``ceil(n / step)`` where n of a tile's elements are non-zero.

    Parameters
    ----------
    population, nonzeros : int
        Elements of the matrix, and how many are not zero.
    tile : int
        Elements of a tile, drawn without order.
    step : int
        Non-zeros taken together.

    Returns
    -------
    float
        ``sum_n ceil(n / step) C(tile, n) C(population - tile, nonzeros - n) / C(population, nonzeros)``.
    """
    from scipy.special import gammaln

    def log_choose(items: Any, chosen: Any) -> Any:
        return gammaln(items + 1) - gammaln(chosen + 1) - gammaln(items - chosen + 1)

    tile = min(tile, population)
    n = np.arange(max(0, nonzeros + tile - population), min(tile, nonzeros) + 1)
    log_chance = log_choose(tile, n) + log_choose(population - tile, nonzeros - n) - log_choose(population, nonzeros)
    return float((np.ceil(n / step) * np.exp(log_chance)).sum())


def statistical_cycles(op: Op, arch: Arch) -> int:
    """Cycles that densities alone predict for an op.

    Parameters
    ----------
    op : Op
        Only the number of non-zeros of its masks is used.
    arch : Arch
        Any design.

    Returns
    -------
    int
        Compute cycles, rounded up.

    Raises
    ------
    InputError
        If the op does not fit the design, or its kernel declares no baseline.
    """
    kernel, params = kernel_of(arch), params_of(arch)
    if kernel.baseline is None:
        raise InputError(
            f"kernel '{kernel.name}' declares no density baseline, so arch '{arch.name}' has no gap; give it one: "
            "Kernel(..., baseline=ONE_BY_ONE), or a DensityBaseline of hwmodels.registry"
        )
    op = seen_by(kernel, op, arch)
    share = 1.0
    for side in sorted(kernel.skips):
        mask: Mask | None = getattr(op, side)
        if mask is not None:
            share *= _share(kernel, params, op, side, mask)
    if most := kernel.baseline.most(params):
        share = max(share, 1 / most)
    dense = kernel.count(op.dense(), params, arch).dense_cycles
    # a product of densities is a few ulp off its exact value, which must not cost a cycle
    return ceil(round(dense * share, 6))


def _share(kernel: Kernel, params: Any, op: Op, side: str, mask: Mask) -> float:
    """Share of the dense rounds that one operand leaves."""
    rows, columns = mask.shape
    assert kernel.baseline is not None
    tile, step = kernel.baseline.granule(params, op, side)
    nonzeros = mask.popcount()
    if step == 1:
        return nonzeros / (rows * columns)
    tile = min(tile, rows)
    return expected_rounds(rows * columns, nonzeros, tile, step) / ceil(tile / step)
