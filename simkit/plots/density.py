"""Figures of the density of recorded activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..results.runs import label_of, labels_of_traces
from .registry import figure
from .style import AS_IS, DASHES, axes, legend_above, mark, plain_log, shown, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from traces import Trace


def tuning_name(trace: Trace) -> str:
    """Return what a figure calls a trace: its tuning, or its own name; one that was not recorded says so."""
    return label_of({"name": trace.name, **trace.attrs})


def one_trace(trace: Trace | Sequence[Trace], figure: str) -> Trace:
    """Return the one trace that a map is drawn of.

    Raises
    ------
    InputError
        If there are several.
    """
    if not isinstance(trace, Sequence):
        return trace
    if len(trace) != 1:
        raise InputError(f"{figure} draws one trace, {len(trace)} were given; draw one figure each")
    return trace[0]


def sites_of(trace: Trace, op: str) -> list[Any]:
    """Sites of one op in layer order.

    Raises
    ------
    InputError
        If the trace has none.
    """
    from hwmodels.errors import nearest

    found = sorted((site for site in trace.sites.values() if site.op == op), key=lambda site: site.layer)
    if not found:
        known = sorted({site.op for site in trace.sites.values()})
        raise InputError(f"trace '{trace.name}' has no site of op '{op}'" + nearest(op, known))
    return found


@figure("density", "traces")
@styled
def density_by_layer(traces: Trace | Sequence[Trace], ax: Axes | None = None, *, op: str = "down") -> Axes:
    """Plot the share of non-zeros at an op's input, layer by layer, over real tokens.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        One line each.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Whose input; the down-projection by default.

    Returns
    -------
    Axes
        Layers along x, density along a logarithmic y.

    Raises
    ------
    InputError
        If a trace has no such site.

    Examples
    --------
    >>> ax = sk.plots.density_by_layer("minilm_relu_small.zarr")
    >>> ax.figure.savefig("figure.png")
    """
    many = list(traces) if isinstance(traces, Sequence) else [traces]
    lines = [(label, sites_of(trace, op)) for label, trace in zip(labels_of_traces(many), many, strict=True)]
    ax = axes(ax)
    for index, (label, sites) in enumerate(lines):
        ax.plot(
            [site.layer for site in sites],
            [site.density() for site in sites],
            **mark(index),
            linestyle=DASHES[index % len(DASHES)],
            label=shown(label),
        )
    ax.set_xlabel("layer")
    ax.set_ylabel(f"density at the input of {op}")
    plain_log(ax, "y")
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend_above(ax)
    return ax


@figure("density-map", "traces")
@styled
def density_map(trace: Trace | Sequence[Trace], ax: Axes | None = None, *, op: str = "down", bins: int = 64) -> Axes:
    """Map density over layers and token positions, averaged over the recorded sequences.

    Parameters
    ----------
    trace : path or Trace, or a list of one
        Trace to plot.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Op whose input is plotted.
    bins : int
        Positions are gathered into at most this many columns.

    Returns
    -------
    Axes
        Token positions across, layers down. A trace without positions (imported masks) shows its rows in order.

    Raises
    ------
    InputError
        If more than one trace is given, or the trace has no such site.

    Examples
    --------
    >>> ax = sk.plots.density_map("minilm_relu_small.zarr", bins=16)
    >>> ax.figure.savefig("figure.png")
    """
    from matplotlib.colors import LogNorm

    trace = one_trace(trace, "density_map")
    edges, layers, grid, label = position_densities(trace, op, bins)
    ax = axes(ax, 0.5)
    seen = grid[np.isfinite(grid) & (grid > 0)]
    wide = seen.size > 0 and seen.max() / seen.min() > 20
    scale: Any = {"norm": LogNorm()} if wide else {"vmin": 0.0, "vmax": float(np.nanmax(grid))}
    levels = [layer - 0.5 for layer in layers]
    # a zero cell has no logarithm: it takes the darkest colour, not a hole
    shown = np.where(grid > 0, grid, seen.min()) if wide else grid
    image = ax.pcolormesh(edges, [*levels, levels[-1] + 1], shown, rasterized=True, **scale)
    ax.invert_yaxis()
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.grid(False)
    ax.set_xlabel(label)
    ax.set_ylabel("layer")
    ax.figure.colorbar(image, ax=ax, label="density", fraction=0.05, pad=0.03)
    ax.set_title(f"{tuning_name(trace)}: input of {op}", loc="left", **AS_IS)
    return ax


def position_densities(
    trace: Trace, op: str, bins: int
) -> tuple[NDArray[np.int64], list[int], NDArray[np.float64], str]:
    """Average the density of each layer over token positions.

    Returns
    -------
    int64[columns + 1], list of int, float64[layers, columns], str
        Edges of the columns, layers, densities (NaN where there is no token), and what the positions are.
    """
    sites = sites_of(trace, op)
    rows = max(site.mask().shape[0] for site in sites)
    at, label = token_positions(trace, rows)
    edges = np.unique(np.linspace(0, at.max() + 1, min(bins, int(at.max()) + 1) + 1).astype(np.int64))
    column = np.searchsorted(edges, at, side="right") - 1
    grid = np.full((len(sites), len(edges) - 1), np.nan)
    for row, site in enumerate(sites):
        if site.mask().shape[0] != rows:
            continue
        count = np.bincount(column, minlength=len(edges) - 1)
        total = np.bincount(column, weights=row_densities(site.mask()), minlength=len(edges) - 1)
        grid[row] = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return edges, [site.layer for site in sites], grid, label


def row_densities(mask: Any) -> NDArray[np.float64]:
    """Share of non-zeros of each row of a mask, streamed block by block."""
    parts = [np.bitwise_count(words).sum(axis=1, dtype=np.int64) for words in mask.blocks()]
    return np.concatenate(parts) / mask.shape[1]


def token_positions(trace: Trace, rows: int) -> tuple[NDArray[np.int64], str]:
    """Position of each recorded row within its sequence, and what the axis is called."""
    tokens = trace.tokens
    positions = tokens.loc[tokens["real"], "position"].to_numpy(dtype=np.int64)
    if len(positions) == rows:
        return positions, "token position in its sequence"
    return np.arange(rows), "row of the recorded masks"
