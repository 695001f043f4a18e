"""Slices, merges and exports of the committed real trace."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from traces import open_trace
from traces.errors import InputError
from traces.storage.trace import Trace
from traces.transform.edit import export_trace, merge_traces, slice_trace


@pytest.fixture
def real(small_trace_path: Path) -> Trace:
    return open_trace(small_trace_path)


def test_slice_keeps_sequences_sites_and_meaning(real: Trace, tmp_path: Path) -> None:
    part = slice_trace(real, tmp_path / "p.zarr", sequences=3, first=2, sites=["layers.0.down", "layers.5.down"])
    assert list(part.sites) == ["layers.0.down", "layers.5.down"]
    known = np.unique(real.tokens["sequence"])[2:5]
    keep = real.tokens["sequence"].isin(known).to_numpy()
    for name, site in part.sites.items():
        assert np.array_equal(site.mask(False).to_bool(), real.sites[name].mask(False).to_bool()[keep])
    assert part.attrs["sliced"]["of"] == real.hash
    assert part.attrs["model"] == real.attrs["model"]
    down = [op for op in part.ops() if op.op == "down"]
    assert {op.m for op in down} == {part.n_tokens}
    part.verify()


def test_merge_of_slices_has_the_same_work(real: Trace, tmp_path: Path) -> None:
    count = real.tokens["sequence"].nunique()
    parts = [slice_trace(real, tmp_path / f"{i}.zarr", sequences=4, first=i) for i in range(0, count, 4)]
    whole = merge_traces(parts, tmp_path / "m.zarr")
    assert sum(op.macs for op in whole.ops()) == sum(op.macs for op in real.ops())
    assert whole.sites["layers.3.down"].mask().popcount() == real.sites["layers.3.down"].mask().popcount()
    assert whole.tokens["sequence"].nunique() == count


def test_nothing_left_or_nothing_alike(real: Trace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is left"):
        slice_trace(real, tmp_path / "p.zarr", first=999)
    with pytest.raises(InputError, match=r"no site 'layers\.9\.down'.*did you mean"):
        slice_trace(real, tmp_path / "p.zarr", sites=["layers.9.down"])
    other = slice_trace(real, tmp_path / "q.zarr", sites=["layers.0.down"])
    with pytest.raises(InputError, match="other sites"):
        merge_traces([real, other], tmp_path / "m.zarr")
    with pytest.raises(InputError, match="at least one"):
        merge_traces([], tmp_path / "m.zarr")


def test_exports_for_other_tools(real: Trace, tmp_path: Path) -> None:
    mask = real.sites["layers.2.down"].mask().to_bool()
    paths = {p.name: p for p in export_trace(real, tmp_path / "npy", "npy")}
    values = np.load(paths["act-layers.2.down-0.npy"])
    assert values.dtype == np.float32
    assert values.shape == (*mask.shape, 1, 1)
    assert np.array_equal(values[:, :, 0, 0] != 0, mask)
    (topology,) = export_trace(real, tmp_path / "csv", "scalesim")
    rows = list(csv.reader(topology.read_text().splitlines()))
    gemms = [op for op in real.ops() if op.kind == "gemm"]
    assert [[int(v) for v in row[1:4]] for row in rows[1:]] == [[op.m, op.n, op.k] for op in gemms]
    problems = export_trace(real, tmp_path / "yaml", "sparseloop")
    assert len(problems) == 6
    text = next(p for p in problems if p.stem == "layers.2.down").read_text()
    assert text.startswith("# LOSSY")
    instance = YAML(typ="safe").load(text)["problem"]["instance"]
    assert (instance["M"], instance["K"], instance["N"]) == (real.n_tokens, 1536, 384)
    assert instance["densities"]["Inputs"]["density"] == mask.mean()
    with pytest.raises(InputError, match="did you mean 'npz'"):
        export_trace(real, tmp_path, "npx")
