"""Measurements of other people, read into the columns that ours have.

| format | what it holds | known by the columns |
|---|---|---|
| `gemm` | m, n, k, latency_ms | ``m n k latency_ms`` |
| `aiconfigurator` | GEMMs of a serving framework, Parquet or text, latency in ms | ``gemm_dtype m n k latency`` |
| `vidur` | linear layers of a model by tensor-parallel share, ms | ``time_stats.mlp_up_proj.median`` ... |
| `cats` | a gated MLP, dense and sparse, against sparsity, ms | ``sparsity dense_ms sparse_ms`` |
| `energy` | whole runs: FLOP, bytes, joules, ms | ``workload flop op_bytes energy_j time_ms`` |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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


def read_table(path: str | Path) -> pd.DataFrame:
    """Read CSV or Parquet.

    Raises
    ------
    InputError
        If there is no such file.
    CorruptError
        If it is damaged or empty.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no measurements at {path}; 'simkit measure --pending' says how to make some")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise CorruptError(f"{path} cannot be read: {str(error).splitlines()[0]}; fetch it again") from None
    if table.empty:
        raise CorruptError(f"{path} holds no row; fetch it again")
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
    out = _READERS[format](table).reindex(columns=COLUMNS)
    out["source"] = Path(path).name
    if device:
        named = out["device"].astype(object)
        out["device"] = named.where(named.notna() & (named != ""), device)
    bad = out.index[~(out["seconds"] > 0)]
    if len(bad):
        raise InputError(f"{path}: row {int(bad[0]) + 2} has no positive time; drop it or fetch the file again")
    return out.reset_index(drop=True)


def _gemm(table: pd.DataFrame) -> pd.DataFrame:
    out = table[["m", "n", "k"]].astype("int64")
    if "model" in table and "op" in table:
        out["op"] = table["model"] + ":" + table["op"]
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
            part["seconds"] = table[column] * 1e-3
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
