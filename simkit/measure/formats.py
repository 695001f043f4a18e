"""Measurements of other people, read into the columns that ours have.

| format | what it holds | known by the columns |
|---|---|---|
| `gemm` | m, n, k, latency_ms | ``m n k latency_ms`` |
| `aiconfigurator` | GEMMs of a serving framework, Parquet or text, latency in ms | ``gemm_dtype m n k latency`` |
| `vidur` | linear layers of a model by tensor-parallel share, ms | ``time_stats.mlp_up_proj.median`` ... |
| `cats` | a gated MLP, dense and sparse, against sparsity, ms | ``sparsity dense_ms sparse_ms`` |
| `energy` | whole runs: FLOP, bytes, joules, ms | ``workload flop op_bytes energy_j time_ms`` |

A cell of these columns that is no number, a fraction of a GEMM's dimension, or a time that is not positive is refused
by row and column; rows are counted as lines of a CSV, the header being the first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.errors import nearest

from ..errors import CorruptError, InputError

COLUMNS = ["device", "op", "dtype", "m", "n", "k", "density", "seconds", "joules", "flop", "moved_bytes", "source"]
SIGNATURES: dict[str, tuple[str, ...]] = {
    "aiconfigurator": ("gemm_dtype", "m", "n", "k", "latency"),
    "vidur": ("num_tokens", "num_tensor_parallel_workers", "n_embd", "n_expanded_embd", "n_head"),
    "cats": ("sparsity", "dense_ms", "sparse_ms"),
    "energy": ("workload", "flop", "op_bytes", "energy_j", "time_ms"),
    "gemm": ("m", "n", "k", "latency_ms"),
}
# columns of numbers: whole ones of at least 1, times above 0, and any
_WHOLE = ("m", "n", "k", "num_tokens", "num_tensor_parallel_workers", "n_embd", "n_expanded_embd", "n_head")
# m n k fits 63 bits
MOST = 2**21 - 1
_TIMES = ("latency", "latency_ms", "dense_ms", "sparse_ms", "time_ms")
_OTHERS = ("sparsity", "flop", "op_bytes", "energy_j")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read CSV or Parquet.

    Raises
    ------
    InputError
        If there is no such file.
    CorruptError
        If it is damaged or empty.
    """
    from traces.data.text_files import one_line, open_text
    from traces.errors import TraceError
    from traces.files import kind_of

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no measurements at {path}; 'simkit measure --pending' says how to make some")
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            with open_text(path) as text:
                table = pd.read_csv(text, low_memory=False)
    except TraceError as error:
        raise (CorruptError if error.exit_code == CorruptError.exit_code else InputError)(str(error)) from None
    except Exception as error:  # pyarrow's and pandas' kinds for a damaged file have no common base
        kind = kind_of(path)
        told = f"it is {kind}" if kind and path.suffix.lower() == ".parquet" and kind != "Parquet" else _first(error)
        raise CorruptError(f"{path} cannot be read: {told}; fetch it again") from None
    if table.empty:
        raise CorruptError(f"{path} holds no row; fetch it again")
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first column of longer rows for an index
        raise CorruptError(f"{path}: line 2 has more cells than line 1; fetch it again")
    return table.rename(columns=one_line)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _checked(path: Path, table: pd.DataFrame, needed: tuple[str, ...]) -> pd.DataFrame:
    """Return the table with its needed columns as numbers."""
    for name in (name for name in needed if name in (*_WHOLE, *_TIMES, *_OTHERS)):
        numbers = pd.to_numeric(table[name], errors="coerce")
        wrong = numbers.isna() & table[name].notna()
        told = "no number"
        if name in _WHOLE:
            wrong = ~((numbers >= 1) & (numbers <= MOST) & (numbers % 1 == 0))
            told = f"no whole number of at least 1 and at most {MOST:,}"
        if name in _OTHERS:
            infinite = ~np.isfinite(numbers.fillna(0.0))
            wrong, told = wrong | infinite, "no finite number" if infinite.any() else told
        if name == "sparsity":
            wrong, told = ~numbers.between(0, 1), "no share between 0 and 1"
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            cell = table[name].iloc[row]
            cell = repr(cell) if isinstance(cell, str) else cell
            raise InputError(f"{path}: row {row + 2}: {name} = {cell} is {told}; drop it or fetch the file again")
        if name in _TIMES and not ((numbers > 0) & np.isfinite(numbers)).all():
            row = int((~((numbers > 0) & np.isfinite(numbers))).to_numpy().argmax())
            raise InputError(f"{path}: row {row + 2} has no positive time; drop it or fetch the file again")
        table = table.assign(**{name: numbers})
    return table


def import_file(path: str | Path, format: str | None = None, *, device: str = "") -> pd.DataFrame:
    """Read a public measurement file.

    Parameters
    ----------
    path : str or Path
        CSV or Parquet.
    format : str, optional
        Key of `SIGNATURES`; recognised by its columns where left out.
    device : str
        Device for formats that do not name one.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`; what a format does not tell is missing. Seconds, joules, FLOP, bytes.

    Raises
    ------
    InputError
        If the format is unknown, a column is missing or a time is not positive.
    CorruptError
        If the file is damaged.
    """
    table = read_table(path)
    if format is None:
        format = next((name for name, columns in SIGNATURES.items() if set(columns) <= set(table.columns)), None)
        if format is None:
            have = ", ".join(map(str, table.columns[:8]))
            raise InputError(f"{path}: no known format has the columns {have}; name one of {', '.join(SIGNATURES)}")
    if format not in SIGNATURES:
        raise InputError(f"unknown measurement format '{format}'" + nearest(format, SIGNATURES))
    missing = [column for column in SIGNATURES[format] if column not in table.columns]
    if missing:
        raise InputError(
            f"{path}: format '{format}' needs the column '{missing[0]}'; have {', '.join(table.columns[:8])}"
        )
    table = _checked(Path(path), table.reset_index(drop=True), SIGNATURES[format])
    out = _READERS[format](table).reindex(columns=COLUMNS)
    out["source"] = Path(path).name
    if device:
        named = out["device"].astype(object)
        out["device"] = named.where(named.notna() & (named != ""), device)
    return out.reset_index(drop=True)


def _gemm(table: pd.DataFrame) -> pd.DataFrame:
    out = table[["m", "n", "k"]].astype("int64")
    if "model" in table and "op" in table:
        out["op"] = table["model"].astype(str) + ":" + table["op"].astype(str)
    else:
        out["op"] = "gemm"
    return out.assign(density=1.0, seconds=table["latency_ms"] * 1e-3)


def _aiconfigurator(table: pd.DataFrame) -> pd.DataFrame:
    out = table[["m", "n", "k"]].astype("int64").assign(op="gemm", density=1.0)
    out["dtype"] = table["gemm_dtype"]
    out["seconds"] = table["latency"] * 1e-3
    out["device"] = table.get("device", "")
    return out


def _vidur(table: pd.DataFrame) -> pd.DataFrame:
    shares = table["num_tensor_parallel_workers"]
    heads_kv = table["n_kv_head"] if "n_kv_head" in table else table["n_head"]
    head = table["n_embd"] // table["n_head"]
    gated = table["use_gated_mlp"].astype(int) + 1 if "use_gated_mlp" in table else 1
    shapes = {
        "attn_pre_proj": ((table["n_head"] + 2 * heads_kv) * head // shares, table["n_embd"]),
        "attn_post_proj": (table["n_embd"], table["n_embd"] // shares),
        "mlp_up_proj": (gated * table["n_expanded_embd"] // shares, table["n_embd"]),
        "mlp_down_proj": (table["n_embd"], table["n_expanded_embd"] // shares),
    }
    parts = []
    for op, (n, k) in shapes.items():
        column = f"time_stats.{op}.median"
        if column in table:
            part = pd.DataFrame({"m": table["num_tokens"], "n": n, "k": k, "op": op, "density": 1.0})
            # a profile leaves cells empty where a layer does not fit
            part["seconds"] = pd.to_numeric(table[column], errors="coerce") * 1e-3
            parts.append(part[part["seconds"] > 0])
    if not parts:
        raise InputError("no column 'time_stats.<op>.median' of a linear layer; is this the MLP profile?")
    return pd.concat(parts, ignore_index=True)


def _cats(table: pd.DataFrame) -> pd.DataFrame:
    density = 1.0 - table["sparsity"]
    dense = pd.DataFrame({"op": "gated_mlp_dense", "m": 1, "density": density, "seconds": table["dense_ms"] * 1e-3})
    sparse = pd.DataFrame({"op": "gated_mlp_sparse", "m": 1, "density": density, "seconds": table["sparse_ms"] * 1e-3})
    return pd.concat([dense, sparse], ignore_index=True)


def _energy(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "op": table["workload"],
            "seconds": table["time_ms"] * 1e-3,
            "joules": table["energy_j"],
            "flop": table["flop"],
            "moved_bytes": table["op_bytes"],
        }
    )


_READERS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "gemm": _gemm,
    "aiconfigurator": _aiconfigurator,
    "vidur": _vidur,
    "cats": _cats,
    "energy": _energy,
}
