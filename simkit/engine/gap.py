"""Synchronisation gap: exact cycles over the cycles that a density-only model predicts, per layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hwmodels import Arch, OnesMask, Op, PackedMask, simulate
from hwmodels.mask import Mask
from hwmodels.registry import kernels
from hwmodels.statistical import statistical_cycles

from ..errors import InputError
from .inputs import PathLike, as_archs, as_traces

if TYPE_CHECKING:
    import pandas as pd

    from traces import Trace

TRACE, IID = "recorded", "i.i.d."
MAX_TOKENS = 2048


def synchronising() -> list[str]:
    """One configuration of every family whose rows, lanes, PEs or tiles wait for each other, as kernels declare it."""
    return [kernel.waits_in for kernel in kernels().values() if kernel.waits_in]


def gap(
    traces: Trace | PathLike | Iterable[Trace | PathLike],
    archs: Arch | PathLike | Iterable[Arch | PathLike] | None = None,
    *,
    ops: Iterable[str] | str = ("down",),
    weights: str = "dense",
    tokens: int = MAX_TOKENS,
    seed: int = 0,
) -> pd.DataFrame:
    """Count every layer exactly and statistically, on its recorded mask and on an i.i.d. mask of the same density.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        Traces to count.
    archs : name, path, Arch, or iterable of them, optional
        Archs to count on; `synchronising` by default.
    ops : str or iterable of str
        Which ops; those without a recorded input mask are left out.
    weights : str
        Weight masks of two-sided designs, as in `simkit.replay`. Dense by default, so that the gap is the
        activations' alone.
    tokens : int
        At most so many tokens from the start of a trace.
    seed : int
        Of the i.i.d. masks.

    Returns
    -------
    DataFrame
        Columns trace, tuning, layer, op, arch, masks (``"recorded"`` or ``"i.i.d."``), density, exact_cycles,
        statistical_cycles, gap = exact / statistical.

    Raises
    ------
    InputError
        If a trace lacks one of the ops, or has no recorded mask for any of them, or a design's kernel declares no
        density baseline.

    Examples
    --------
    >>> frame = sk.gap("minilm_relu_small.zarr", "cnvlutin", tokens=64)
    >>> bool((frame["gap"] >= 1).all())
    True
    """
    import pandas as pd

    from ..results.runs import labels_of_archs, labels_of_traces
    from .workload import check_ops

    many = as_traces(traces)
    designs = as_archs(synchronising() if archs is None else archs)
    names = labels_of_archs(designs)
    rows: list[dict[str, Any]] = []
    for trace, label in zip(many, labels_of_traces(many), strict=True):
        wanted = check_ops(trace, ops) or []
        for op in _masked_ops(trace, wanted, weights, tokens):
            assert op.activation is not None
            for masks, one in ((TRACE, op), (IID, replace(op, activation=_iid(op.activation, seed + op.layer)))):
                about = {
                    "trace": trace.name,
                    "tuning": label,
                    "layer": op.layer,
                    "op": op.name,
                    "masks": masks,
                    "density": one.activation_nonzeros / (one.m * one.k * one.repeat),
                }
                rows += [
                    {**about, "arch": name, **_gap(one, design)} for name, design in zip(names, designs, strict=True)
                ]
    return pd.DataFrame(rows)


def _gap(op: Op, arch: Arch) -> dict[str, Any]:
    exact, foil = simulate(op, arch).cycles, statistical_cycles(op, arch)
    # a layer without a single non-zero costs neither anything
    ratio = exact / foil if foil else 1.0
    return {"exact_cycles": exact, "statistical_cycles": foil, "gap": ratio}


def _masked_ops(trace: Trace, wanted: list[str], weights: str, tokens: int) -> Iterator[Op]:
    from .workload import build_ops

    found = False
    for op in build_ops(trace, wanted, weights):
        if op.activation is None:
            continue
        found = True
        m = min(op.m, tokens)
        weight = op.weight if op.weight is not None else OnesMask(op.n, op.k)
        yield replace(op, m=m, activation=_first(op.activation, m), weight=weight, output=None)
    if not found:
        raise InputError(
            f"trace '{trace.name}' has no recorded input mask of {', '.join(wanted)}; record one, e.g. down"
        )


def _first(mask: Mask, rows: int) -> PackedMask:
    """Return the first rows of a mask, which may be shorter than a block or span many."""
    import numpy as np

    held, have = [], 0
    for block in mask.blocks():
        held.append(block[: rows - have])
        have += len(held[-1])
        if have == rows:
            break
    return PackedMask(np.ascontiguousarray(np.concatenate(held)), mask.shape[1])


def _iid(mask: Mask, seed: int) -> PackedMask:
    m, k = mask.shape
    return PackedMask.bernoulli(m, k, mask.popcount() / (m * k), seed)
