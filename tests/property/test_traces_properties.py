"""Properties of packing, storing, cutting and joining, and of the statistics, against plain NumPy."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from traces import import_masks
from traces.storage.bits import pack, pack_torch, popcount, unpack
from traces.transform.edit import export_trace, merge_traces, slice_trace
from traces.transform.statistics import (
    as_mask,
    coactivation,
    entropy_bits,
    hot_neurons,
    neuron_counts,
    summarise,
    temporal_overlap,
    tile_density,
    token_counts,
    union_density,
    zero_runs,
)

compiling = settings(deadline=None)  # the first call compiles
few = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def masks(draw: st.DrawFn, max_rows: int = 40, max_columns: int = 200) -> np.ndarray:
    """Boolean masks with full and empty rows and ragged widths."""
    shape = (draw(st.integers(1, max_rows)), draw(st.integers(1, max_columns)))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]))
    mask = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random(shape) < density
    mask[draw(st.integers(0, shape[0] - 1))] = draw(st.booleans())
    return mask


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=200)))
def test_unpack_undoes_pack_and_torch_agrees(mask: np.ndarray) -> None:
    words = pack(mask)
    assert words.dtype == np.uint64
    assert words.shape == (mask.shape[0], -(-mask.shape[1] // 64))
    assert np.array_equal(unpack(words, mask.shape[1]), mask)
    assert popcount(words) == mask.sum()
    assert np.array_equal(pack_torch(torch.from_numpy(mask)).numpy().view(np.uint64), words)


@compiling
@given(masks(), st.integers(1, 50))
def test_statistics_equal_numpy(mask: np.ndarray, batch: int) -> None:
    lazy = as_mask(pack(mask), mask.shape[1])
    assert np.array_equal(neuron_counts(lazy), mask.sum(axis=0))
    assert np.array_equal(token_counts(lazy), mask.sum(axis=1))
    groups = [mask[i : i + batch] for i in range(0, len(mask), batch)]
    assert union_density(lazy, batch) == np.mean([g.any(axis=0) for g in groups])
    tiles = [g[:, i : i + 64].any() for g in groups for i in range(0, mask.shape[1], 64)]
    assert math.isclose(tile_density(lazy, batch, 64), np.mean(tiles))
    both, either = (mask[1:] & mask[:-1]).sum(axis=1), (mask[1:] | mask[:-1]).sum(axis=1)
    assert np.allclose(temporal_overlap(lazy), np.where(either, both / np.maximum(either, 1), 1))
    p = np.clip(mask.mean(axis=0), 1e-300, 1)
    q = np.clip(1 - mask.mean(axis=0), 1e-300, 1)
    assert math.isclose(entropy_bits(lazy), -(p * np.log2(p) + q * np.log2(q)).sum() * len(mask), abs_tol=1e-6)


@compiling
@given(masks(max_rows=12))
def test_zero_runs_equal_a_scan(mask: np.ndarray) -> None:
    found = np.zeros(301, dtype=int)
    for row in mask:
        for run in "".join("1" if bit else "0" for bit in row).split("1"):
            found[len(run)] += bool(run)
    assert np.array_equal(zero_runs(as_mask(pack(mask), mask.shape[1]), 300), found)


@compiling
@given(masks(max_columns=90))
def test_pairs_and_hot_neurons_equal_numpy(mask: np.ndarray) -> None:
    lazy = as_mask(pack(mask), mask.shape[1])
    together = mask.T.astype(int) @ mask.astype(int)
    assert np.array_equal(coactivation(lazy, np.arange(mask.shape[1])), together)
    hot = hot_neurons(lazy, 0.9)
    counts = mask.sum(axis=0)
    assert counts[hot].sum() >= 0.9 * counts.sum()
    if len(hot):
        assert counts[hot[:-1]].sum() < 0.9 * counts.sum()
    assert math.isclose(summarise(lazy).density, mask.mean())


@few
@given(masks(), st.data())
def test_slices_joined_again_are_the_whole(mask: np.ndarray, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        np.savez(place / "m.npz", x=mask, x_weight=mask[:3])
        whole = import_masks(place / "m.npz", place / "w.zarr")
        cut = data.draw(st.integers(1, len(mask)))
        parts = [slice_trace(whole, place / "a.zarr", sequences=cut)]
        if cut < len(mask):
            parts.append(slice_trace(whole, place / "b.zarr", first=cut))
        joined = merge_traces(parts, place / "j.zarr")
        joined.verify()
        assert np.array_equal(joined.sites["x"].mask().to_bool(), mask)
        weight = joined.sites["x"].weight_mask()
        assert weight is not None
        assert np.array_equal(weight.to_bool(), mask[:3])


@few
@given(masks())
def test_export_and_import_are_inverse(mask: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        np.savez(place / "m.npz", x=mask, x_weight=mask[:2])
        first = import_masks(place / "m.npz", place / "a.zarr")
        (path,) = export_trace(first, place / "out", "npz")
        assert import_masks(path, place / "b.zarr").hash == first.hash
