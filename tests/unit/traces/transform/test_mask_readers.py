"""Readers of other tools' masks: what they read is right, said on stderr, or refused in one line."""

from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import traces
from traces.errors import CorruptError, InputError, TraceError

MASK = np.random.default_rng(0).random((8, 128)) < 0.1
FRAME = pd.DataFrame(MASK.astype(int))


def read(path: Path, **options: Any) -> np.ndarray:
    """The mask of the only site of an import."""
    trace = traces.import_masks(path, path.parent / f"{path.name}.zarr", n=4, **options)
    (site,) = trace.sites.values()
    return site.mask().to_bool()


# --- masks in CSV: headers and index columns


def named(prefix: str) -> pd.DataFrame:
    return FRAME.set_axis([f"{prefix}{i}" for i in range(128)], axis=1)


FORMS: dict[str, tuple[pd.DataFrame, dict[str, Any], str]] = {
    "plain": (FRAME, {"index": False, "header": False}, ""),
    "header": (FRAME, {"index": False}, "line 1 as a header"),
    "index": (FRAME, {"header": False}, "column 1 as an index"),
    "both": (FRAME, {}, "line 1 as a header and column 1 as an index"),
    "booleans": (FRAME == 1, {}, "line 1 as a header and column 1 as an index"),
    "labelled": (FRAME, {"index_label": "token"}, "line 1 as a header and column 1 as an index"),
    "names": (named("n"), {"index": False}, "line 1 as a header"),
    "names and index": (named("n"), {"index_label": "token"}, "line 1 as a header and column 1 as an index"),
    "words": (FRAME.set_axis(list("abcdefgh")), {"index_label": "word"}, "line 1 as a header and column 1 as an index"),
    "words alone": (FRAME.set_axis(list("abcdefgh")), {"header": False}, "column 1 as an index"),
    "from one": (FRAME.set_axis(range(1, 9)).set_axis(range(1, 129), axis=1), {}, "line 1 as a header and column 1"),
    "chosen": (FRAME.set_axis(range(5, 133), axis=1), {}, "line 1 as a header and column 1 as an index"),
    "quoted": (FRAME, {"quoting": 1}, "line 1 as a header and column 1 as an index"),
    "semicolons": (FRAME, {"sep": ";", "index": False, "header": False}, ""),
    "tabs": (FRAME, {"sep": "\t"}, "line 1 as a header and column 1 as an index"),
    "mark": (FRAME, {"encoding": "utf-8-sig"}, "line 1 as a header and column 1 as an index"),
    "windows": (FRAME, {"lineterminator": "\r\n"}, "line 1 as a header and column 1 as an index"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_as_long_and_as_wide_as_its_mask(form: str, tmp_path: Path, caplog: Any) -> None:
    frame, how, said = FORMS[form]
    frame.to_csv(tmp_path / "m.csv", **how)
    assert np.array_equal(read(tmp_path / "m.csv"), MASK)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(said)
    assert all(said in line and "M = 8, K = 128" in line for line in lines)


def test_other_tables_of_other_tools(tmp_path: Path) -> None:
    lines = FRAME.to_csv(header=False, quoting=2).splitlines()
    header = ",".join(f'"V{i}"' for i in range(128))
    (tmp_path / "r.csv").write_text("\n".join([header, *lines]) + "\n")  # R's write.table: no name for the row names
    assert np.array_equal(read(tmp_path / "r.csv"), MASK)
    np.savetxt(tmp_path / "savetxt.csv", MASK.astype(float))
    assert np.array_equal(read(tmp_path / "savetxt.csv"), MASK)
    FRAME.to_csv(tmp_path / "m.csv.gz")
    assert np.array_equal(read(tmp_path / "m.csv.gz"), MASK)
    FRAME.to_csv(tmp_path / "UP.CSV", index=False, header=False)
    with (tmp_path / "UP.CSV").open("a") as handle:
        handle.write("\n\n")
    assert np.array_equal(read(tmp_path / "UP.CSV"), MASK)


def test_tiny_values_are_ones(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("1e-300,0,-0.0\n0,1e-46,-7\n")
    assert read(tmp_path / "m.csv").tolist() == [[True, False, False], [False, True, True]]


@pytest.mark.parametrize(
    ("text", "header", "index", "wanted"),
    [
        ("0,1\n1,1\n", False, False, [[0, 1], [1, 1]]),
        ("0,1\n1,1\n", True, False, [[1, 1]]),
        ("0,1,1\n1,0,1\n", False, True, [[1, 1], [0, 1]]),
        ("5,0,1\n3,1,1\n", False, True, [[0, 1], [1, 1]]),
        ("5,0,1\n3,1,1\n", False, False, [[1, 0, 1], [1, 1, 1]]),
        ("0,1,2\n0,1,1\n", False, False, [[0, 1, 1], [0, 1, 1]]),
    ],
)
def test_what_may_be_either_is_as_it_is_said(
    text: str, header: bool, index: bool, wanted: list[list[int]], tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text(text)
    assert read(tmp_path / "m.csv", header=header, index=index).astype(int).tolist() == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0,1\n1,1\n", "line 1 (0,1) may be a header or a token; say which with --header or --no-header"),
        ("0,1,1\n1,0,1\n", "column 1 (0,1) may be an index or a neuron; say which with --index or --no-index"),
        ("5,0,1\n3,1,1\n9,1,0\n", "column 1 (5,3,9) may be an index or a neuron"),
        ("5,17,93\n1,0,1\n1,1,1\n", "line 1 (5,17,93) may be a header or a token"),
        ("1,0,x\n0,1,1\n", "line 1, column 3: 'x' is no finite number"),
        ("1,0,1\n0,x,1\n", "line 2, column 2: 'x' is no finite number"),
        ("1,0,1\n0,,1\n", "line 2, column 2: is empty"),
        ("1,0,1\n\n0,1,1\n", "line 2 is empty"),
        ("1,0,1\n0,0,1\n\n0,1,1\n", "line 3, column 2: is empty"),
        ("1,0,1\n0,nan,1\n", "line 2, column 2: is empty"),
        ("1,0,1\n0,inf,1\n", "line 2, column 2: 'inf' is no finite number"),
        ("1;0;1\n0,5;1;1\n", "line 2, column 1: '0,5' is no finite number"),
        ("1;0;1\n1;0,5;1\n", "write decimals with a point"),
        ("1,0,1\n0,1,1\n1,1,1,1\n", "Expected 3 fields in line 3, saw 4"),
        ("1,0,1\n0,1,1\n1,1\n", "line 3, column 3: is empty"),
        ("1,0\n1,0,1\n", "line 1 has 2 cells, line 2 has 3"),
        (",Unnamed: 0,0,1\n0,0,1,1\n", "line 1, column 2 is 'Unnamed: 0', a second index"),
        ("a,b,c\n", "has a header and no row"),
        ("", "line 1 is empty"),
        ("\n1,0\n", "line 1 is empty"),
        ("caf\u00e9", "line 1, byte 4: 0xe9 is not UTF-8"),
    ],
)
def test_a_table_that_leaves_something_open_is_refused(text: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(InputError) as told:
        read(tmp_path / "m.csv")
    assert str(tmp_path / "m.csv") in str(told.value)
    assert wanted in str(told.value)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "m.csv.zarr").exists()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_pandas_writes_is_read_as_it_was_or_refused(data: st.DataObject) -> None:
    from traces.transform.mask_tables import read_mask_csv

    m, k = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    mask = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=m, max_size=m)))
    how = {name: data.draw(st.booleans()) for name in ("header", "index")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.csv"
        pd.DataFrame(mask if data.draw(st.booleans()) else mask.astype(int)).to_csv(path, **how)
        assert np.array_equal(read_mask_csv(path, **how), mask)
        try:
            found, told = read_mask_csv(path), ""
        except InputError as error:
            found, told = mask, str(error)
        assert np.array_equal(found, mask)
        assert "may be" in told or not told


# --- masks in the files of NumPy, SciPy, torch and safetensors


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
def test_sparse_matrices_have_their_ones(form: str, tmp_path: Path) -> None:
    matrix = scipy.sparse.csr_matrix(MASK.astype(np.float32) * -0.5)
    matrix.data[0] = 0  # a stored zero is a zero
    wanted = matrix.toarray() != 0
    scipy.sparse.save_npz(tmp_path / "m.npz", matrix.asformat(form))
    assert np.array_equal(read(tmp_path / "m.npz"), wanted)
    assert wanted.sum() == MASK.sum() - 1


def test_sparse_matrices_that_are_no_masks(tmp_path: Path) -> None:
    matrix = scipy.sparse.csr_matrix(MASK.astype(np.float32))
    matrix.data[3] = np.nan
    scipy.sparse.save_npz(tmp_path / "nan.npz", matrix)
    with pytest.raises(InputError, match="the sparse matrix has non-finite values"):
        read(tmp_path / "nan.npz")
    np.savez(tmp_path / "cut.npz", format=np.array(b"csr"), shape=np.array([2, 2]), data=np.ones(1))
    with pytest.raises(CorruptError, match="not a readable SciPy sparse matrix"):
        read(tmp_path / "cut.npz")


DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_type(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.tensor(MASK).to(dtype)
    torch.save(tensor, tmp_path / "m.pt")
    assert np.array_equal(read(tmp_path / "m.pt"), MASK)
    save_file({"m": tensor}, tmp_path / "m.safetensors")
    assert np.array_equal(read(tmp_path / "m.safetensors"), MASK)


def test_layers_weights_and_outputs_by_name(tmp_path: Path) -> None:
    weight = np.random.default_rng(1).random((5, 128)) < 0.5
    held = {"fc1": torch.tensor(MASK), "fc1_weight": torch.tensor(weight), "fc2": torch.tensor(~MASK).to_sparse()}
    torch.save({**held, "fc2_n": 7}, tmp_path / "m.PTH")
    sites = traces.import_masks(tmp_path / "m.PTH", tmp_path / "a.zarr").sites
    assert {name: (site.k, site.n) for name, site in sites.items()} == {"fc1": (128, 5), "fc2": (128, 7)}
    assert np.array_equal(sites["fc1"].weight_mask().to_bool(), weight)
    assert np.array_equal(sites["fc2"].mask().to_bool(), ~MASK)
    save_file({**held, "fc2": torch.tensor(~MASK), "fc2_n": torch.tensor(7)}, tmp_path / "m.safetensors")
    assert traces.import_masks(tmp_path / "m.safetensors", tmp_path / "b.zarr").sites["fc2"].n == 7


class Opened:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_torch_files_are_never_executed_and_say_what_is_wrong(tmp_path: Path) -> None:
    torch.save({"m": Opened(tmp_path / "executed")}, tmp_path / "object.pt")
    torch.save({"net": {"m": torch.tensor(MASK)}}, tmp_path / "nested.pt")
    torch.save([torch.tensor(MASK)], tmp_path / "list.pt")
    torch.save(torch.tensor(MASK).to(torch.complex64), tmp_path / "complex.pt")
    torch.save(torch.tensor(MASK), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:-200])
    (tmp_path / "text.pt").write_text("no tensors")
    (tmp_path / "short.pt").write_bytes(b"\x80\x02\x8a\n.")
    np.savez_compressed(tmp_path / "deflated.npz", m=MASK)
    packed = bytearray((tmp_path / "deflated.npz").read_bytes())
    packed[60:90] = b"\xff" * 30
    (tmp_path / "deflated.npz").write_bytes(packed)
    np.save(tmp_path / "header.npy", MASK)
    (tmp_path / "header.npy").write_bytes((tmp_path / "header.npy").read_bytes().replace(b"}", b"("))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    wanted = {
        "object.pt": (InputError, "holds Python objects.*torch.save"),
        "nested.pt": (InputError, "'net' is a dict, not a tensor"),
        "list.pt": (InputError, "holds a list, not tensors by name"),
        "complex.pt": (InputError, "dtype complex64"),
        "cut.pt": (CorruptError, "not a readable torch file"),
        "short.pt": (CorruptError, "not a readable torch file"),
        "deflated.npz": (CorruptError, "not a readable .npz archive"),
        "header.npy": (CorruptError, "not a readable .npy array"),
        "text.pt": (InputError, "not a file that torch.save wrote"),
        "cut.safetensors": (CorruptError, "not a readable safetensors file"),
        "empty.safetensors": (CorruptError, "not a readable safetensors file"),
    }
    for name, (error, told) in wanted.items():
        with pytest.raises(error, match=told) as raised:
            read(tmp_path / name)
        assert "\n" not in str(raised.value), name
        assert name in str(raised.value)
    assert not (tmp_path / "executed").exists()


def test_what_is_beside_the_masks_is_named_and_the_masks_are_chosen(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=MASK, b=MASK[:3], threshold=np.float32(0.1), layer=np.arange(3))
    with pytest.raises(InputError, match=r"'threshold' has shape \(\), 'layer' has shape \(3,\).*--site NAME"):
        read(tmp_path / "m.npz")
    with pytest.raises(InputError, match=r"different numbers of rows M \(a 8, b 3\).*--site NAME"):
        read(tmp_path / "m.npz", sites=["a", "b"])
    assert np.array_equal(read(tmp_path / "m.npz", sites="a"), MASK)
    with pytest.raises(InputError, match="no array 'aa'; did you mean 'a'"):
        read(tmp_path / "m.npz", sites=["aa"])
    np.savez(tmp_path / "layers.npz", **{"l[0].fc": MASK, "l[1].fc": MASK, "step": np.array(3)})
    made = traces.import_masks(tmp_path / "layers.npz", tmp_path / "l.zarr", n=4, sites=["l[[]*", "l[1].fc"])
    assert list(made.sites) == ["l[0].fc", "l[1].fc"]


def test_endings_in_capitals_and_files_of_other_kinds(tmp_path: Path) -> None:
    for name, save in (("UP.NPY", np.save), ("UP.NPZ", np.savez)):
        with (tmp_path / name).open("wb") as handle:
            save(handle, MASK)
        assert np.array_equal(read(tmp_path / name), MASK)
    with gzip.open(tmp_path / "m.npy.gz", "wb") as handle:
        np.save(handle, MASK)
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "pointer.npz").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "utf16.csv").write_bytes("1,0\n".encode("utf-16"))
    (tmp_path / "sheet.csv").write_bytes(b"PK\x03\x04 and a spreadsheet")
    (tmp_path / "not.csv.gz").write_text("1,0\n")
    with gzip.open(tmp_path / "cut.csv.gz", "wb") as handle:
        handle.write(os.urandom(1000).hex().encode())
    (tmp_path / "cut.csv.gz").write_bytes((tmp_path / "cut.csv.gz").read_bytes()[:-50])
    wanted = {
        "m.npy.gz": "is compressed; unpack it first",
        "m.pkl": "is a Python pickle; give a NumPy",
        "pointer.npz": "is a Git LFS pointer in place of the file",
        "utf16.csv": "is UTF-16 text, not UTF-8 text; save it as UTF-8, or convert it",
        "sheet.csv": "is a ZIP archive, not UTF-8 text",
        "not.csv.gz": "is a CSV, not what its ending .gz says",
        "cut.csv.gz": "its compression is damaged",
    }
    for name, told in wanted.items():
        with pytest.raises(TraceError, match=told):
            read(tmp_path / name)
    np.savez(tmp_path / "m.npz", m=MASK)
    with pytest.raises(InputError, match="is no CSV: --header and --index"):
        read(tmp_path / "m.npz", header=True)
    with pytest.raises(InputError, match="is a Zarr store"):
        traces.import_masks(tmp_path / "UP.NPY.zarr", tmp_path / "again.zarr", n=4)


def test_a_folder_says_what_it_leaves_out(tmp_path: Path, caplog: Any) -> None:
    for part in (0, 2):
        np.save(tmp_path / f"act-fc-{part}.NPY", MASK.astype(np.float32)[:, :, None, None])
        (tmp_path / f"act-fc-{part}.NPY.npy").rename(tmp_path / f"act-fc-{part}.NPY")
    np.save(tmp_path / "wgt-other.npy", MASK[:, :, None, None])
    np.savez(tmp_path / "more.npz", m=MASK)
    made = traces.import_masks(tmp_path, tmp_path.parent / f"{tmp_path.name}.zarr", n=4)
    assert np.array_equal(made.sites["fc"].mask().to_bool(), np.concatenate([MASK, MASK]))
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "act-fc-1.npy is missing" in said
    assert "left out more.npz, the weight of 'other', which has no mask" in said
    np.save(tmp_path / "fc2.npy", MASK)
    FRAME.to_csv(tmp_path / "fc2.csv", index=False, header=False)
    with pytest.raises(InputError, match=r"two files of 'fc2', fc2.npy the second"):
        traces.import_masks(tmp_path, tmp_path.parent / "x.zarr", n=4)


def test_a_mask_without_a_zero_is_told(tmp_path: Path, caplog: Any) -> None:
    np.savez(tmp_path / "m.npz", signs=np.where(MASK, 1, -1))
    assert read(tmp_path / "m.npz").all()
    assert "'signs' holds no zero" in caplog.text


@pytest.mark.parametrize("name", ["zarr.json", "a/b"])
def test_names_that_cannot_be_sites(name: str, tmp_path: Path) -> None:
    torch.save({name: torch.tensor(MASK)}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="cannot name a site"):
        read(tmp_path / "m.pt")


def test_paths_are_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    name = "50% [1] caf\u00e9.npy"
    np.save(tmp_path / name, MASK)
    made = traces.import_masks(f"~/{name}", "100%20 [2] \u00fc.zarr", n=4)
    assert (tmp_path / "100%20 [2] \u00fc.zarr" / "zarr.json").is_file()
    assert np.array_equal(made.sites[name.removesuffix(".npy")].mask().to_bool(), MASK)
    made.verify()


@pytest.mark.parametrize(("name", "kind"), [("m.csv", "a CSV"), ("r.parquet", "Parquet"), ("m.bin", "a file")])
def test_a_file_is_no_trace(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    writers = {"m.csv": FRAME.to_csv, "r.parquet": named("n").to_parquet, "m.bin": lambda path: path.write_bytes(b"\0")}
    writers[name](path)
    with pytest.raises(InputError, match=rf"{name}' is {kind}, not a trace, .*'simkit trace import'"):
        traces.open_trace(str(path))
