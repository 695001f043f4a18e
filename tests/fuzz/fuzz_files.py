"""Files of masks, data sets and measurements: as tools write them, nearly so, and damaged."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

CELLS = [
    "",
    "0",
    "1",
    "1",
    "0",
    "0.5",
    "-1",
    "nan",
    "NaN",
    "inf",
    "1e400",
    "NA",
    "true",
    "a",
    "the cat sat",
    "caf\u00e9",
    '"',
    "'",
    "a,b",
    "a;b",
    "[1, 2]",
    '{"a": 1}',
    "9" * 30,
    "-",
    " 1 ",
    "1,5",
    "\N{SNOWMAN}",
    "x" * 500,
    "\x00",
    "\x1b[31m",
    "2026-01-01",
    "h100_sxm",
    "bf16",
    "0.0025",
]
SHAPES = [(), (0,), (5,), (4, 6), (4, 6), (6, 10), (1, 1), (0, 6), (4, 0), (2, 3, 4), (4, 6, 1, 1), (4, 6, 2, 2)]
TYPES = ["?", "i1", "u8", "f2", "f4", "f8", "c8", "U3", "S2", "M8[s]", "O", "i8"]
NAMES = [
    "a",
    "a",
    "b",
    "a_weight",
    "a_n",
    "b_weight",
    "synthetic",
    "format",
    "shape",
    "data",
    "indices",
    "layers.0.down",
    "",
    "/etc/x",
    "..",
    "a/b",
    "\N{SNOWMAN}",
    "x" * 300,
    "a b",
    "threshold",
    "zarr.json",
]


@st.composite
def spoiled(draw: Any, data: bytes) -> bytes:
    """Bytes that are whole most of the time, else cut, flipped or padded."""
    kind = draw(st.integers(0, 14))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if kind == 0:
        return data[:at]
    if kind == 1 and data:
        return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    if kind == 2:
        return draw(
            st.sampled_from(
                [
                    b"",
                    b"\0" * 64,
                    b"version https://git-lfs.github.com/spec/v1\n",
                    b"PK\x03\x04",
                    b"PAR1",
                    b"\x93NUMPY",
                    b"\x1f\x8b\x08",
                    b"\xff\xfea\0",
                    b"\x80\x04\x95",
                    b"[1, 2",
                    b"BZh9",
                    b"\xfd7zXZ\0",
                    data + b"\0",
                    data * 2,
                ]
            )
        )
    return data


@st.composite
def arrays(draw: Any) -> Any:
    """An array of any shape and type, values that a mask has and that it has not."""
    shape, kind = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(TYPES))
    made = (
        np.random.default_rng(draw(st.integers(0, 3))).random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    ).astype("i1")
    array = np.asarray(made.astype(kind) if kind != "M8[s]" else made.astype("i8").astype(kind))
    if array.dtype.kind in "fc" and array.size and draw(st.integers(0, 3)) == 0:
        array = array.copy()
        array.flat[0] = draw(st.sampled_from([np.nan, np.inf, -np.inf, -1, 1e-7]))
    return np.asfortranarray(array) if draw(st.booleans()) else array


@st.composite
def archives(draw: Any) -> dict[str, Any]:
    """Arrays by name, masks with weights half the time."""
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 3)))
        held: dict[str, Any] = {"a": rng.random((4, 6)) < 0.4, "b": (rng.random((4, 9)) < 0.2).astype("f4")}
        beside = {
            "a_weight": rng.random((3, 6)) < 0.5,
            "a_n": np.int64(3),
            "b_n": np.int64(2),
            "synthetic": np.bool_(True),
        }
        names = draw(st.lists(st.sampled_from(sorted(beside)), max_size=3, unique=True))
        return held | {name: beside[name] for name in names}
    names = draw(st.lists(st.sampled_from(NAMES), min_size=0, max_size=4, unique=True))
    return {name: draw(arrays()) for name in names}


def _npz(held: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{name.replace("/", "_") or "_": array for name, array in held.items() if name != "file"})
    return stream.getvalue()


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@st.composite
def tables(draw: Any, columns: Any = None, whole: bool = False) -> bytes:
    """Delimited text: a header or none, ragged rows, quotes, any encoding."""
    width = draw(st.integers(1, 6))
    header = (
        list(columns)
        if columns
        else draw(
            st.lists(st.sampled_from(["text", "label", "a", "0", "1", "", "text "]), min_size=width, max_size=width)
        )
    )
    width = len(header)
    cells = st.sampled_from(["0", "1"]) if draw(st.booleans()) else st.sampled_from(CELLS)
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=8))
    if draw(st.integers(0, 3)) == 0 and rows:
        rows[-1] = rows[-1][: draw(st.integers(0, width))] + ["1"] * draw(st.integers(0, 2))
    lines = [header, *rows] if columns or draw(st.booleans()) else rows
    separator = draw(st.sampled_from([",", ",", ";", "\t"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"])) if draw(st.integers(0, 4)) == 0 else "\n"
    text = end.join(separator.join(line) for line in lines) + end
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"])), "replace")


@st.composite
def objects(draw: Any) -> bytes:
    """JSON: lines, a list or columns, of any values."""
    leaf = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(CELLS),
        st.just([1]),
        st.just({"role": "user", "content": "x"}),
        st.just([{"role": "user", "content": "hello"}]),
    )
    row = st.dictionaries(st.sampled_from(["text", "label", "a", "", "\ud800"]), leaf, max_size=3)
    usual = st.fixed_dictionaries(
        {"text": st.one_of(st.sampled_from(CELLS), leaf), "label": st.sampled_from([0, 1, "x", None, 0.5])}
    )
    rows = draw(st.lists(st.one_of(usual, usual, row, leaf), max_size=12))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        text = json.dumps(rows)
    elif kind == 1:
        text = json.dumps({"text": rows, "label": list(range(len(rows)))})
    else:
        text = "\n".join(json.dumps(one) for one in rows)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def parquets(draw: Any) -> bytes:
    """Parquet of odd columns."""
    kinds = [
        ["a b", "c", "d"] * 4,
        list(range(12)),
        [0.5, None, float("nan")] * 4,
        [b"x\xff"] * 12,
        [[1, 2]] * 12,
        [{"a": 1}] * 12,
        [None] * 12,
        [True, False] * 6,
        [[{"role": "user", "content": "x"}]] * 12,
        list(pd.date_range("2026-01-01", periods=12)),
    ]
    names = draw(st.lists(st.sampled_from(["text", "label", "0", "a", "m", "k"]), max_size=4, unique=True))
    frame = pd.DataFrame({name: draw(st.sampled_from(kinds)) for name in names})
    stream = io.BytesIO()
    (frame.iloc[: draw(st.sampled_from([0, 1, 12]))] if names else frame).to_parquet(stream)
    return stream.getvalue()


@st.composite
def data_files(draw: Any) -> tuple[str, bytes]:
    """Name and content of a data set's file."""
    made: Any = st.one_of(tables(), objects(), parquets(), tables(columns=["text", "label"]))
    data = draw(spoiled(draw(made)))
    ending = draw(
        st.sampled_from(
            [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".CSV", ".ndjson", ".csv.gz", ".npy", ""]
        )
    )
    return f"data{ending}", data


@st.composite
def mask_files(draw: Any) -> tuple[str, bytes]:
    """Name and content of a file of masks; endings that tell the truth most of the time."""
    kind = draw(st.sampled_from(["npz", "npy", "csv", "pt", "safetensors", "sparse"]))
    ending = {"sparse": "npz"}.get(kind, kind)
    if kind == "npz":
        data = _npz(draw(archives()))
    elif kind == "npy":
        data = _npy(draw(arrays()))
    elif kind == "csv":
        data = draw(tables())
    else:
        data = _made_by(kind, draw)
    if draw(st.integers(0, 7)) == 0:
        ending = draw(
            st.sampled_from(["npz", "npy", "csv", "pt", "safetensors", "NPZ", "tsv", "zip", "yaml", "parquet"])
        )
    return f"m.{ending}", draw(spoiled(data))


def _made_by(kind: str, draw: Any) -> bytes:
    import torch
    from safetensors.torch import save
    from scipy import sparse

    stream = io.BytesIO()
    mask = np.random.default_rng(0).random((6, 10)) < 0.3
    if kind == "sparse":
        form = draw(st.sampled_from(["csr", "csc", "coo", "bsr", "dia"]))
        sparse.save_npz(stream, sparse.csr_matrix(mask.astype(draw(st.sampled_from(["f4", "i1", "?"])))).asformat(form))
        return stream.getvalue()
    tensor = torch.tensor(mask).to(
        draw(st.sampled_from([torch.bool, torch.bfloat16, torch.float32, torch.int8, torch.float8_e4m3fn]))
    )
    if kind == "safetensors":
        return save({"a": tensor})
    held: Any = draw(
        st.sampled_from(
            [
                tensor,
                {"a": tensor},
                {"a": tensor, "a_n": 4},
                {},
                [tensor],
                {"a": {"b": tensor}},
                3,
                {"a": "x"},
                {"a": torch.tensor(mask).to_sparse()},
            ]
        )
    )
    torch.save(held, stream)
    return stream.getvalue()


MEASURED = {
    "gemm_bf16_h100_sxm.csv": ["m", "n", "k", "latency_ms"],
    "gemm_a100.csv": ["gemm_dtype", "m", "n", "k", "latency"],
    "energy_l4.csv": ["workload", "flop", "op_bytes", "energy_j", "time_ms"],
    "sparse_mlp_a100_bf16.csv": ["sparsity", "dense_ms", "sparse_ms"],
    "gemm_x.csv": ["m", "n", "k", "latency_ms"],
    "other.csv": ["device", "m", "k", "n", "density", "seconds"],
    "gemm_l4.parquet": ["m", "n", "k", "latency_ms"],
}


@st.composite
def measurements(draw: Any) -> tuple[str, bytes]:
    """Name and content of a file of measurements: rows that could have been measured, some of them spoilt."""
    name = draw(st.sampled_from(sorted(MEASURED)))
    columns = list(MEASURED[name])
    rng = np.random.default_rng(draw(st.integers(0, 5)))
    count = draw(st.sampled_from([0, 1, 3, 20, 60]))
    good: dict[str, Any] = {
        **{one: 2 ** rng.integers(4, 13, count) for one in ("m", "n", "k")},
        **{
            one: rng.random(count) + 1e-3
            for one in ("latency_ms", "latency", "seconds", "dense_ms", "sparse_ms", "density")
        },
        "sparsity": np.linspace(0, 1, max(count, 1))[:count],
        "gemm_dtype": rng.choice(["bfloat16", "fp8", "int4_wo"], count),
        "device": ["h100_sxm"] * count,
        "workload": [f"{'ab'[i % 2]}_pbf16_{i}" for i in range(count)],
        "flop": rng.random(count) * 1e12,
        "op_bytes": rng.random(count) * 1e9,
        "energy_j": rng.random(count),
        "time_ms": rng.random(count) * 20 + 1,
    }
    table = {one: [str(cell) for cell in good[one]] for one in columns}
    for _ in range(draw(st.integers(0, 2))):
        if count and columns:
            table[draw(st.sampled_from(columns))][draw(st.integers(0, count - 1))] = draw(st.sampled_from(CELLS))
    if draw(st.integers(0, 5)) == 0:
        table.pop(draw(st.sampled_from(columns)))
    frame = pd.DataFrame(table)
    if name.endswith("parquet"):
        stream = io.BytesIO()
        frame.apply(pd.to_numeric, errors="coerce").to_parquet(stream)
        return name, draw(spoiled(stream.getvalue()))
    return name, draw(spoiled(frame.to_csv(index=False).encode("utf-8", "replace")))
