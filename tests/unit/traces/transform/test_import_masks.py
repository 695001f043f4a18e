"""Importing masks from other tools."""

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
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(InputError, match=r"name it \.npy"):
        traces.import_masks(tmp_path / "one.npz", tmp_path / "t.zarr", n=4)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "one.npz").read_bytes()[:-20])
    with pytest.raises(CorruptError, match=r"cut\.npy"):
        traces.import_masks(tmp_path / "cut.npy", tmp_path / "t.zarr", n=4)
    np.save(tmp_path / "object.npy", np.array([[{}]], dtype=object))
    with pytest.raises(InputError, match="objects are refused"):
        traces.import_masks(tmp_path / "object.npy", tmp_path / "t.zarr", n=4)
    np.savez(tmp_path / "object.npz", x=np.array([[{}]], dtype=object))
    with pytest.raises(InputError, match="objects are refused"):
        traces.import_masks(tmp_path / "object.npz", tmp_path / "t.zarr", n=4)


@pytest.mark.parametrize("form", ["npz", "npy", "csv"])
def test_export_and_import_lose_no_mask(form: str, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    others = {"a": rng.random((70, 130)) < 0.5, "zero": np.zeros((70, 3)), "last": rng.random((70, 64)) < 0.01}
    ns = {"a_n": np.array(7), "zero_n": np.array(8), "last_n": np.array(9)}
    np.savez(tmp_path / "m.npz", **others, **ns, **arrays)
    first = traces.import_masks(tmp_path / "m.npz", tmp_path / "a.zarr")
    assert {name: site.n for name, site in first.sites.items()} == {"a": 7, "zero": 8, "last": 9, "fc1": 50}
    paths = traces.export_trace(first, tmp_path / "out", form)
    again = traces.import_masks(paths[0] if form == "npz" else tmp_path / "out", tmp_path / "b.zarr")
    assert again.hash == first.hash
    assert np.array_equal(again.sites["a"].mask().to_bool(), others["a"])


def test_one_array_and_one_table(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((5000, 70)) < 0.2
    np.save(tmp_path / "fc2.npy", mask.astype(np.int8))
    found = traces.import_masks(tmp_path / "fc2.npy", tmp_path / "a.zarr", n=4)
    assert np.array_equal(found.sites["fc2"].mask().to_bool(), mask)
    lines = [", ".join(str(int(v)) for v in row) + "," for row in mask[:40]]  # SCALE-Sim ends its lines so
    (tmp_path / "fc3.csv").write_text("\n".join(lines) + "\n")
    table = traces.import_masks(tmp_path / "fc3.csv", tmp_path / "b.zarr", n=4)
    assert np.array_equal(table.sites["fc3"].mask().to_bool(), mask[:40])


def test_a_folder_of_dnnsim(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.random((30, 20, 1, 1)).astype(np.float32) * (rng.random((30, 20, 1, 1)) < 0.3) for _ in range(11)]
    for i, part in enumerate(parts):
        np.save(tmp_path / f"act-fc-{i}.npy", part)
    weight = (rng.random((6, 20, 1, 1)) < 0.5).astype(np.float32)
    np.save(tmp_path / "wgt-fc.npy", weight)
    found = traces.import_masks(tmp_path, tmp_path / "t.zarr").sites["fc"]
    assert np.array_equal(found.mask().to_bool(), np.concatenate(parts)[:, :, 0, 0] != 0)
    kept = found.weight_mask()
    assert kept is not None
    assert np.array_equal(kept.to_bool(), weight[:, :, 0, 0] != 0)
    np.save(tmp_path / "act-fc-11.npy", np.ones((3, 21, 1, 1)))
    with pytest.raises(InputError, match="different widths"):
        traces.import_masks(tmp_path, tmp_path / "u.zarr")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("t.csv", "Layer name, M, N, K,\nfc, 3, 4, 5,\n", "is a topology"),
     ("t.csv", "1,0,1\n0,1\n", "line 1 has 3 cells, line 2 has 2"),
     ("t.csv", "1,0,1\n0,x,1\n", "give rows of numbers"),
     ("t.csv", "", "give rows of numbers"),
     ("t.txt", "1 0 1", "give a NumPy")],
)  # fmt: skip
def test_tables_that_are_no_masks(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        traces.import_masks(tmp_path / name, tmp_path / "t.zarr", n=2)
    assert not (tmp_path / "t.zarr").exists()


def test_maps_of_convolutions_and_empty_folders(tmp_path: Path) -> None:
    np.save(tmp_path / "act-conv1-0.npy", np.ones((2, 3, 8, 8)))
    with pytest.raises(InputError, match="unfold it"):
        traces.import_masks(tmp_path, tmp_path / "t.zarr", n=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no masks"):
        traces.import_masks(tmp_path / "empty", tmp_path / "t.zarr", n=2)
