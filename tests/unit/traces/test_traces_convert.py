"""Import of anybody's masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import traces
from traces.errors import CorruptError, InputError


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"fc1": rng.random((70, 100)) < 0.2, "fc1_weight": rng.random((50, 100)) < 0.5}


def test_masks_and_weight_masks_come_back(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", **arrays)
    trace = traces.import_masks(tmp_path / "m.npz", tmp_path / "t.zarr")
    site = trace.sites["fc1"]
    assert np.array_equal(site.mask().to_bool(), arrays["fc1"])
    weight = site.weight_mask()
    assert weight is not None
    assert np.array_equal(weight.to_bool(), arrays["fc1_weight"])
    (op,) = trace.ops()
    assert (op.m, op.k, op.n, op.input_site) == (70, 100, 50, "fc1")
    trace.verify()


def test_values_count_as_their_non_zeros(tmp_path: Path) -> None:
    values = np.array([[0.0, -0.0, 1e-30], [2, -3, 0]])
    np.savez(tmp_path / "m.npz", x=values)
    trace = traces.import_masks(tmp_path / "m.npz", tmp_path / "t.zarr", n=4)
    assert trace.sites["x"].mask().to_bool().tolist() == [[False, False, True], [True, True, False]]
    assert trace.sites["x"].weight_mask() is None


@pytest.mark.parametrize(
    ("change", "n", "message"),
    [
        ({"fc1_weight": None}, None, "give --n"),
        ({"fc1": np.ones(5)}, None, "two dimensions"),
        ({"fc1_weight": np.ones((50, 99))}, None, "K = 100.*K = 99"),
        ({}, 49, "leave --n out"),
        ({"other": np.ones((71, 100))}, 50, "different numbers of rows"),
        ({"fc1": np.full((70, 100), np.nan)}, None, "7000 non-finite"),
        ({"fc1": np.full((70, 100), "x")}, None, "dtype"),
        ({"fc1_weight": None}, 0, "at least 1"),
    ],
)
def test_bad_arrays(
    change: dict[str, np.ndarray | None], n: int | None, message: str, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "m.npz", **{k: v for k, v in (arrays | change).items() if v is not None})
    with pytest.raises(InputError, match=message):
        traces.import_masks(tmp_path / "m.npz", tmp_path / "t.zarr", n=n)
    assert not (tmp_path / "t.zarr").exists()


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file at"):
        traces.import_masks(tmp_path / "none.npz", tmp_path / "t.zarr", n=4)
    np.savez(tmp_path / "m.npz", x=np.ones((3, 4)))
    data = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptError, match=r"cut\.npz"):
        traces.import_masks(tmp_path / "cut.npz", tmp_path / "t.zarr", n=4)
    np.save(tmp_path / "one.npy", np.ones((3, 4)))
    with pytest.raises(InputError, match="savez"):
        traces.import_masks(tmp_path / "one.npy", tmp_path / "t.zarr", n=4)
    np.savez(tmp_path / "object.npz", x=np.array([[{}]], dtype=object))
    with pytest.raises(InputError, match="objects are refused"):
        traces.import_masks(tmp_path / "object.npz", tmp_path / "t.zarr", n=4)
