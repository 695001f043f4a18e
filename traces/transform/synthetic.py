"""Synthetic traces with a real one's statistics, for what-if studies; marked synthetic wherever they go.

A Gaussian copula: token t's neuron k is non-zero where ``a_t + b_k . z_t + c_k e_tk > q_k``. The threshold q_k gives
the neuron its own density, a_t the token its skew, and the shared factors z_t make neurons fire together; z and e
follow a first-order autoregression, so that tokens resemble the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..storage.arrays import COLUMNS, SiteMeta
from ..storage.bits import pack, unpack
from ..storage.chunks import content_hash
from ..storage.masks import Site
from ..storage.store import Writer
from ..storage.trace import Trace, open_trace
from .edit import FRESH
from .statistics import neuron_counts, token_counts

ROWS = 1024
FACTORS = 8


def synthesise(
    trace: Trace,
    out: str | Path,
    density: float | None = None,
    seed: int = 0,
    factors: int = FACTORS,
    storage_options: Mapping[str, Any] | None = None,
) -> Trace:
    """Write a synthetic trace with a real trace's tokens, per-neuron densities, per-token skew, and correlation.

    Parameters
    ----------
    trace : Trace
        The real one.
    out : str or Path
        Where the synthetic one goes.
    density : float, optional
        Overall density to shift every site to, the neurons' order kept; the real one's by default.
    seed : int
        Seeds the draw.
    factors : int
        Shared factors that carry the correlation; none draws neurons independently given the token.
    storage_options : dict, optional
        Passed to fsspec.

    Returns
    -------
    Trace
        ``attrs["synthetic"]`` is true.

    Raises
    ------
    InputError
        If the density is not in (0, 1), or the trace has no rows.

    Examples
    --------
    >>> trace = traces.open_trace("minilm_relu_small.zarr")
    >>> made = traces.synthesise(trace, "synthetic.zarr", density=0.1)
    >>> round(made.sites["layers.0.down"].density(), 1)
    0.1
    """
    if density is not None and not 0 < density < 1:
        raise InputError(f"density {density}: must be between 0 and 1")
    if not trace.rows:
        raise InputError(f"trace '{trace.name}' has no rows to learn from")
    if any(meta.experts for meta in trace.root.sites):
        raise InputError(f"trace '{trace.name}' is of a mixture of experts; synthetic ones are not drawn of such")
    metas = [SiteMeta(s.name, s.layer, s.op, s.k, s.n, stack=s.meta.stack) for s in trace.sites.values()]
    attrs = {k: v for k, v in trace.root.attrs.items() if k not in FRESH}
    attrs |= {"synthetic": True, "synthetic_from": {"hash": trace.hash, "density": density, "seed": seed}}
    attrs |= {"variants": [], "histograms": None}
    streams = {
        name: _placed(site, _draw(site, density, np.random.default_rng([seed, index]), factors))
        for index, (name, site) in enumerate(trace.sites.items())
    }
    writer = Writer(str(out), trace.rows, metas, attrs, options=storage_options)
    try:
        for first in range(0, trace.rows, ROWS):
            frame = trace.tokens.iloc[first : first + ROWS]
            codes = {c: frame[c].cat.codes if c == "phase" else frame[c] for c in COLUMNS}
            columns = {c: v.to_numpy().astype(np.int32) for c, v in codes.items()}
            writer.append(columns, {name: pack(next(stream)) for name, stream in streams.items()})
            writer.commit()
        writer.commit(status="complete", hash=content_hash(open_trace(str(out), storage_options)))
    finally:
        writer.close()
    return open_trace(str(out), storage_options)


def _placed(site: Site, drawn: Iterator[NDArray[np.bool_]]) -> Iterator[NDArray[np.bool_]]:
    """Yield a row for each of the trace's, `ROWS` at a time: zeros where a row is not one of the site's."""
    mine = np.zeros(site.trace.rows, dtype=bool)
    mine[site.rows(real_only=False)] = True
    held = np.zeros((0, site.k), dtype=bool)
    for first in range(0, len(mine), ROWS):
        here = mine[first : first + ROWS]
        while len(held) < np.count_nonzero(here):
            held = np.concatenate([held, next(drawn)])
        block = np.zeros((len(here), site.k), dtype=bool)
        block[here], held = np.split(held, [np.count_nonzero(here)])
        yield block


def _draw(site: Site, density: float | None, rng: np.random.Generator, factors: int) -> Iterator[NDArray[np.bool_]]:
    """Yield synthetic rows of one site, `ROWS` at a time."""
    from scipy.special import ndtri

    mask = site.mask(real_only=False)
    m, k = mask.shape
    # half an observation on either side keeps neurons that never or always fire off infinity
    p = (neuron_counts(mask) + 0.5) / (m + 1)
    loading = _loadings(site, factors)
    skew, spread = _token_skew(token_counts(mask), p)
    noise = np.sqrt(np.maximum(1 - (loading**2).sum(axis=1), 0.05))
    total = np.sqrt((loading**2).sum(axis=1) + noise**2 + spread**2)
    cut = -ndtri(p) * total
    if density is not None:
        cut += _shift(cut / total, density) * total
    memory = _persistence(site)
    last = noise * rng.standard_normal(k) + rng.standard_normal(loading.shape[1]) @ loading.T
    for first in range(0, m, ROWS):
        rows = min(ROWS, m - first)
        fresh = rng.standard_normal((rows, loading.shape[1])) @ loading.T + noise * rng.standard_normal((rows, k))
        score = np.empty((rows, k))
        for r in range(rows):
            last = memory * last + np.sqrt(1 - memory**2) * fresh[r]
            score[r] = last
        yield score + skew[first : first + rows, None] * spread > cut


def _persistence(site: Site) -> float:
    """Correlation of a neuron's score with its last: sin(pi r / 2) of the bits', exact at a density of one half."""
    bits = unpack(next(site.mask(real_only=False).blocks(ROWS)), site.k).astype(np.float64)
    if len(bits) < 3:
        return 0.0
    deviation = bits - bits.mean(axis=0) - (bits.mean(axis=1, keepdims=True) - bits.mean())
    r = float((deviation[1:] * deviation[:-1]).mean() / max(float(deviation.var()), 1e-12))
    return float(np.clip(np.sin(np.pi * r / 2), 0, 0.99))


def _loadings(site: Site, factors: int) -> NDArray[np.float64]:
    """Loadings (K, factors) from the leading axes of the correlation of up to `ROWS` rows."""
    sample = next(site.mask(real_only=False).blocks(ROWS))
    bits = unpack(sample, site.k).astype(np.float64)
    if not factors or len(bits) < 2 * factors:
        return np.zeros((site.k, 0))
    deviation = bits - bits.mean(axis=0) - (bits.mean(axis=1, keepdims=True) - bits.mean())
    scale = np.maximum(bits.std(axis=0), 1e-6)
    _, values, axes = np.linalg.svd(deviation / scale, full_matrices=False)
    # sampling noise alone gives singular values up to sqrt(rows) + sqrt(K): only what stands above it is correlation
    floor = np.sqrt(len(bits)) + np.sqrt(site.k)
    strength = np.sqrt(np.maximum(values[:factors] ** 2 - floor**2, 0) / len(bits))
    loading = axes[:factors].T * strength
    size = np.sqrt((loading**2).sum(axis=1, keepdims=True))
    return loading * np.minimum(1, 0.9 / np.maximum(size, 1e-9))


def _token_skew(ones: NDArray[np.int64], p: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Standard scores of the tokens' counts, in the trace's own order, and how far one moves a neuron's score.

    A small common move d of every score changes a row's count by d times the sum of the normal densities at the
    thresholds; independent neurons alone would spread it by the sum of p (1 - p).
    """
    from scipy.special import ndtri

    slope = float(np.exp(-0.5 * ndtri(p) ** 2).sum() / np.sqrt(2 * np.pi))
    variance = max(float(np.var(ones)) - float((p * (1 - p)).sum()), 0.0)
    spread = min(1.0, np.sqrt(variance) / max(slope, 1e-9))
    return (ones - p.sum()) / max(float(np.std(ones)), 1e-9), spread


def _shift(cut: NDArray[np.float64], density: float) -> float:
    """Find the common shift of standardised thresholds that gives the wanted mean density, by bisection."""
    from scipy.special import ndtr

    low, high = -12.0, 12.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(ndtr(-(cut + middle)).mean()) > density:
            low = middle
        else:
            high = middle
    return (low + high) / 2
