"""Figures of mask statistics: unions, tiles, co-activation, hot neurons, runs of zeros, overlap, entropy.

Each figure has the line or the level that independent neurons and tokens of the same densities would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..results.runs import labels_of_traces
from .density import one_trace, sites_of, tuning_name
from .registry import figure
from .style import AS_IS, DASHES, axes, legend_above, mark, plain_log, points, shown, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from traces import Trace

    Traces = Trace | Sequence[Trace]

Floats = NDArray[np.float64]
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
TILE_ROWS = (1, 2, 4, 8, 16, 32, 64)
TILE_COLUMNS = (64, 128, 256, 512, 1024)
# the heat map has this many neurons a side: more would be less than a pixel in a column
NEURONS = 96
INDEPENDENT = "if independent"
RAREST = 1e-4


@figure("union", "traces")
@styled
def union_density(
    traces: Traces, ax: Axes | None = None, *, op: str = "down", batches: Sequence[int] = BATCHES
) -> Axes:
    """Plot the density of the union of consecutive tokens against how many are joined.

    It is the share of weight rows that a batch must load. Dashed: ``mean_k 1 - (1 - p_k)^b``, with `p_k` the densities
    of the neurons, which independent tokens would give.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        One line each, over all layers.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Op whose input is plotted.
    batches : sequence of int
        Tokens joined; those above a trace's tokens are left out.

    Returns
    -------
    Axes
        Tokens along a logarithmic x, density along y.

    Raises
    ------
    InputError
        If a trace has no such site.

    Examples
    --------
    >>> ax = sk.plots.union_density("minilm_relu_small.zarr")
    >>> ax.figure.savefig("figure.png")
    """
    from traces.transform.statistics import neuron_counts
    from traces.transform.statistics import union_density as union_of

    lines = _each(traces, op)
    ax = axes(ax)
    for index, (label, sites) in enumerate(lines):
        masks = [site.mask() for site in sites]
        sizes = [batch for batch in batches if batch <= min(mask.shape[0] for mask in masks)]
        shares = [neuron_counts(mask) / mask.shape[0] for mask in masks]
        found = [_mean([union_of(mask, size) for mask in masks]) for size in sizes]
        alone = [_mean([float(np.mean(1 - (1 - p) ** size)) for p in shares]) for size in sizes]
        ax.plot(sizes, found, label=label, **_line(index))
        ax.plot(sizes, alone, **_law(index))
    _independent(ax)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_ylim(0, 1.02)
    ax.grid(True, axis="both")
    ax.set_xlabel("tokens joined")
    ax.set_ylabel("density of their union")
    legend_above(ax)
    return ax


@figure("tiles", "traces")
@styled
def tile_density(
    trace: Traces, ax: Axes | None = None, *, op: str = "down", rows: Sequence[int] = TILE_ROWS,
    columns: Sequence[int] = TILE_COLUMNS,
) -> Axes:  # fmt: skip
    """Map the share of tiles that hold any non-zero, over the tile's shape: what block-sparse hardware must compute.

    Parameters
    ----------
    trace : path or Trace, or a list of one
        The trace(s) to plot, all layers.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Op whose input is plotted.
    rows, columns : sequence of int
        Tokens and neurons (multiples of 64) of a tile; those above the mask's are left out.

    Returns
    -------
    Axes
        Neurons across, tokens down.

    Raises
    ------
    InputError
        If more than one trace is given, or it has no such site.

    Examples
    --------
    >>> ax = sk.plots.tile_density("minilm_relu_small.zarr")
    >>> ax.figure.savefig("figure.png")
    """
    from traces.transform.statistics import tile_density as tiles_of

    one = one_trace(trace, "tile_density")
    masks = [site.mask() for site in sites_of(one, op)]
    rows = [size for size in rows if size <= min(mask.shape[0] for mask in masks)]
    columns = [size for size in columns if size < min(mask.shape[1] for mask in masks) + 64]
    grid = np.array([[_mean([tiles_of(mask, r, c) for mask in masks]) for c in columns] for r in rows])
    ax = axes(ax)
    image = ax.imshow(grid, aspect="auto", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(grid):
        colour = "black" if value > 0.6 else "white"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=0.8 * points())
    ax.set_xticks(range(len(columns)), [str(size) for size in columns])
    ax.set_yticks(range(len(rows)), [str(size) for size in rows])
    ax.grid(False)
    ax.set_xlabel("neurons in a tile")
    ax.set_ylabel("tokens in a tile")
    ax.figure.colorbar(image, ax=ax, label="tiles not empty", fraction=0.05, pad=0.03)
    ax.set_title(f"{tuning_name(one)}: input of {op}", loc="left", **AS_IS)
    return ax


@figure("coactivation", "traces")
@styled
def coactivation(
    trace: Traces, ax: Axes | None = None, *, op: str = "down", layer: int | None = None, neurons: int = NEURONS
) -> Axes:
    """Map the correlation of neurons that are non-zero together.

    The phi coefficient of two neurons, ``(p_ij - p_i p_j) / sqrt(p_i (1 - p_i) p_j (1 - p_j))``: 0 for independent
    ones, 1 for two that always go together.

    Parameters
    ----------
    trace : path or Trace, or a list of one
        Trace to plot.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Op whose input is plotted.
    layer : int, optional
        Which layer; the middle one by default.
    neurons : int
        How many of the layer's hottest.

    Returns
    -------
    Axes
        Neurons both ways, hottest first; neurons that never change have no correlation and are grey.

    Raises
    ------
    InputError
        If more than one trace is given, or it has no such site or layer.

    Examples
    --------
    >>> ax = sk.plots.coactivation("minilm_relu_small.zarr", layer=2)
    >>> ax.figure.savefig("figure.png")
    """
    from traces.transform import statistics

    one = one_trace(trace, "coactivation")
    sites = sites_of(one, op)
    layers = [site.layer for site in sites]
    wanted = layers[len(layers) // 2] if layer is None else layer
    if wanted not in layers:
        raise InputError(f"trace '{one.name}' has no layer {wanted} of op '{op}'; it has {layers[0]} to {layers[-1]}")
    mask = sites[layers.index(wanted)].mask()
    grid = phi(statistics.coactivation(mask, limit=neurons) / mask.shape[0])
    np.fill_diagonal(grid, np.nan)
    ax = axes(ax, 0.8)
    most = max(0.05, float(np.nanmax(np.abs(grid)))) if np.isfinite(grid).any() else 1.0
    ax.set_facecolor("0.85")
    image = ax.imshow(grid, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    ax.grid(False)
    ax.set_xlabel("neuron, hottest first")
    ax.set_ylabel("neuron, hottest first")
    ax.figure.colorbar(image, ax=ax, label="correlation (φ)", fraction=0.05, pad=0.03)
    ax.set_title(f"{tuning_name(one)}: input of {op}, layer {wanted}", loc="left", **AS_IS)
    return ax


def phi(together: Floats) -> Floats:
    """Return the phi coefficients of pairs from the shares of tokens in which both are non-zero."""
    p = np.diag(together)
    spread = np.sqrt(p * (1 - p))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (together - np.outer(p, p)) / np.outer(spread, spread)
    return np.where(np.outer(spread, spread) > 0, found, np.nan)


@figure("hot-neurons", "traces")
@styled
def hot_neurons(traces: Traces, ax: Axes | None = None, *, op: str = "down") -> Axes:
    """Plot which share of the non-zeros the hottest neurons hold.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        One line each: neurons of all layers, each layer sorted by how often a neuron is non-zero, layers averaged.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Op whose input is plotted.

    Returns
    -------
    Axes
        Share of neurons along x, share of non-zeros along y; the diagonal is neurons that are all alike.

    Raises
    ------
    InputError
        If a trace has no such site.

    Examples
    --------
    >>> ax = sk.plots.hot_neurons("minilm_relu_small.zarr")
    >>> ax.figure.savefig("figure.png")
    """
    from traces.transform.statistics import neuron_counts

    lines = _each(traces, op)
    ax = axes(ax)
    at = np.linspace(0, 1, 101)
    for index, (label, sites) in enumerate(lines):
        curves = []
        for site in sites:
            counts = np.sort(neuron_counts(site.mask()))[::-1]
            reached = np.concatenate([[0], np.cumsum(counts)]) / max(1, counts.sum())
            curves.append(np.interp(at, np.linspace(0, 1, len(reached)), reached))
        ax.plot(at, np.mean(curves, axis=0), label=label, **_line(index, markevery=10))
    ax.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=0.1 * points(), label="all neurons alike")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    ax.grid(True, axis="both")
    ax.set_xlabel("share of the neurons, hottest first")
    ax.set_ylabel("share of the non-zeros")
    legend_above(ax)
    return ax


@figure("zero-runs", "traces")
@styled
def zero_runs(traces: Traces, ax: Axes | None = None, *, op: str = "down", longest: int = 256) -> Axes:
    """Plot how long runs of zeros along a token's row are: what run-length formats and skip windows live on.

    Dashed: ``(1 - d)^(length - 1)``, the geometric law of independent neurons of density ``d``.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        One line each, over all layers.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Op whose input is plotted.
    longest : int
        Where the axis ends.

    Returns
    -------
    Axes
        Length along x, share of the runs that are at least so long along y, both logarithmic.

    Raises
    ------
    InputError
        If a trace has no such site, or no zero.

    Examples
    --------
    >>> ax = sk.plots.zero_runs("minilm_relu_small.zarr")
    >>> ax.figure.savefig("figure.png")
    """
    from traces.transform.statistics import zero_runs as runs_of

    lines = _each(traces, op)
    ax = axes(ax)
    for index, (label, sites) in enumerate(lines):
        histogram = np.sum([runs_of(site.mask(), longest) for site in sites], axis=0)
        if not histogram.sum():
            raise InputError(f"the masks of '{label}' have no zero at the input of {op}; there are no runs to draw")
        lengths = np.arange(1, longest + 1)
        share = (np.cumsum(histogram[::-1])[::-1] / histogram.sum())[1:]
        density = _mean([site.density() for site in sites])
        ax.plot(lengths[share > 0], share[share > 0], label=label, **_line(index, markevery=0.1))
        law = (1 - density) ** (lengths - 1.0)
        shown = law >= 0.3 * share[share > 0].min()
        ax.plot(lengths[shown], law[shown], **_law(index, markevery=0.1))
    _independent(ax)
    # rarer ones are single runs, not a law
    ax.set_yscale("log")
    ax.set_ylim(bottom=max(RAREST, ax.get_ylim()[0]))
    for which in ("x", "y"):
        plain_log(ax, which)
    ax.grid(True, axis="both")
    ax.set_xlabel("length of a run of zeros")
    ax.set_ylabel("runs at least so long")
    legend_above(ax)
    return ax


@figure("overlap", "traces")
@styled
def token_overlap(traces: Traces, ax: Axes | None = None, *, op: str = "down") -> Axes:
    """Plot how much of a token's non-zeros the next token shares, layer by layer.

    The Jaccard index of neighbours, ``|a and b| / |a or b|``, averaged over the tokens. Dashed: ``sum_k p_k^2 /
    sum_k (2 p_k - p_k^2)`` with the neurons' densities `p_k`, which independent tokens would give.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        One line each.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Op whose input is plotted.

    Returns
    -------
    Axes
        Layers along x, overlap along y.

    Raises
    ------
    InputError
        If a trace has no such site, or a single token.

    Examples
    --------
    >>> ax = sk.plots.token_overlap("minilm_relu_small.zarr")
    >>> ax.figure.savefig("figure.png")
    """
    from traces.transform.statistics import neuron_counts, temporal_overlap

    def found(mask: Any) -> tuple[float, float]:
        if mask.shape[0] < 2:
            raise InputError("overlap between tokens needs two of them; record more")
        p = neuron_counts(mask) / mask.shape[0]
        return float(temporal_overlap(mask).mean()), float((p**2).sum() / max((2 * p - p**2).sum(), 1e-300))

    return _by_layer(traces, ax, op, found, "overlap of neighbouring tokens", INDEPENDENT)


@figure("entropy", "traces")
@styled
def entropy(traces: Traces, ax: Axes | None = None, *, op: str = "down") -> Axes:
    """Plot the information in a mask, layer by layer: the bits that a store needs for each bit of the mask.

    ``mean_k H(p_k)`` with the neurons' densities `p_k` and ``H(p) = -p log2 p - (1 - p) log2(1 - p)``. Dashed:
    ``H(d)`` of the density alone, which neurons all alike would need.

    Parameters
    ----------
    traces : path, Trace, or iterable of them
        One line each.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    op : str
        Op whose input is plotted.

    Returns
    -------
    Axes
        Layers along x, bit per bit along y.

    Raises
    ------
    InputError
        If a trace has no such site.

    Examples
    --------
    >>> ax = sk.plots.entropy("minilm_relu_small.zarr")
    >>> ax.figure.savefig("figure.png")
    """
    from traces.transform.statistics import entropy_bits

    def found(mask: Any) -> tuple[float, float]:
        size = mask.shape[0] * mask.shape[1]
        d = mask.popcount() / size
        alike = sum(-q * float(np.log2(q)) for q in (d, 1 - d) if q > 0)
        return entropy_bits(mask) / size, alike

    return _by_layer(traces, ax, op, found, "entropy (bit per mask bit)", "all neurons alike")


def _by_layer(
    traces: Traces, ax: Axes | None, op: str, found: Callable[[Any], tuple[float, float]], title: str, dashed: str
) -> Axes:
    lines = [(label, [site.layer for site in sites], [found(site.mask()) for site in sites])
             for label, sites in _each(traces, op)]  # fmt: skip
    ax = axes(ax)
    for index, (label, layers, pairs) in enumerate(lines):
        ax.plot(layers, [own for own, _ in pairs], label=label, **_line(index))
        ax.plot(layers, [law for _, law in pairs], **_law(index))
    _independent(ax, dashed)
    ax.set_ylim(bottom=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("layer")
    ax.set_ylabel(title)
    legend_above(ax)
    return ax


def _each(traces: Traces, op: str) -> list[tuple[str, list[Any]]]:
    many = list(traces) if isinstance(traces, Sequence) else [traces]
    return [(shown(label), sites_of(trace, op)) for label, trace in zip(labels_of_traces(many), many, strict=True)]


def _line(index: int, **more: Any) -> dict[str, Any]:
    return {
        **mark(index),
        "linestyle": DASHES[0],
        **more,
    }


def _law(index: int, **more: Any) -> dict[str, Any]:
    """The look of what a line would be by a law: its own marker, hollow, on dashes."""
    size = {"linewidth": 0.1 * points(), "markersize": 0.4 * points(), "markeredgewidth": 0.08 * points()}
    return {**_line(index), "linestyle": "--", "markerfacecolor": "white", **size, **more}


def _independent(ax: Axes, label: str = INDEPENDENT) -> None:
    """Say once in the legend what the dashed lines are."""
    ax.plot([], [], color="0.3", linestyle="--", linewidth=0.1 * points(), label=label)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
