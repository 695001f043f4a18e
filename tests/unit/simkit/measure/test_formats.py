"""Public formats are recognised, read in SI units, and refused in one line when they are not what they say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from simkit.errors import CorruptError, InputError
from simkit.measure import import_file
from simkit.measure.formats import COLUMNS


def write(folder: Path, name: str, rows: dict[str, list[object]]) -> Path:
    path = folder / name
    frame = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


def test_plain_gemms(tmp_path: Path) -> None:
    found = import_file(
        write(tmp_path, "g.csv", {"m": [1], "n": [2], "k": [3], "latency_ms": [0.5]}), device="h100_sxm"
    )
    assert list(found.columns) == COLUMNS
    assert found.loc[0, ["m", "n", "k", "device", "source"]].tolist() == [1, 2, 3, "h100_sxm", "g.csv"]
    assert found.loc[0, "seconds"] == pytest.approx(5e-4)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_aiconfigurator(tmp_path: Path, name: str) -> None:
    rows = {"framework": ["x"], "device": ["NVIDIA H100"], "op_name": ["gemm"], "gemm_dtype": ["bfloat16"]}
    found = import_file(write(tmp_path, name, {**rows, "m": [8], "n": [16], "k": [32], "latency": [0.002]}))
    assert found.loc[0, ["m", "n", "k", "dtype", "device"]].tolist() == [8, 16, 32, "bfloat16", "NVIDIA H100"]
    assert found.loc[0, "seconds"] == pytest.approx(2e-6)


def test_vidur_shapes_follow_the_model_and_its_shares(tmp_path: Path) -> None:
    rows = {
        "n_head": [32], "n_kv_head": [8], "n_embd": [4096], "n_expanded_embd": [14336], "use_gated_mlp": [True],
        "num_tokens": [64], "num_tensor_parallel_workers": [2], "time_stats.attn_pre_proj.median": [0.1],
        "time_stats.attn_post_proj.median": [0.2], "time_stats.mlp_up_proj.median": [0.3],
        "time_stats.mlp_down_proj.median": [0.4],
    }  # fmt: skip
    found = import_file(write(tmp_path, "mlp.csv", rows)).set_index("op")
    shapes = {op: (row.m, row.n, row.k, round(row.seconds * 1e3, 6)) for op, row in found.iterrows()}
    assert shapes == {
        "attn_pre_proj": (64, (32 + 16) * 128 // 2, 4096, 0.1),
        "attn_post_proj": (64, 4096, 2048, 0.2),
        "mlp_up_proj": (64, 14336, 4096, 0.3),
        "mlp_down_proj": (64, 4096, 7168, 0.4),
    }


def test_cats_has_a_dense_and_a_sparse_row_a_point(tmp_path: Path) -> None:
    found = import_file(write(tmp_path, "c.csv", {"sparsity": [0.8], "dense_ms": [1.1], "sparse_ms": [0.6]}))
    assert found["op"].tolist() == ["gated_mlp_dense", "gated_mlp_sparse"]
    assert found["density"].tolist() == pytest.approx([0.2, 0.2])
    assert found["seconds"].tolist() == pytest.approx([1.1e-3, 0.6e-3])


def test_energy(tmp_path: Path) -> None:
    rows = {"workload": ["gpt2_b1"], "flop": [1e9], "op_bytes": [1e6], "energy_j": [0.5], "time_ms": [2.0]}
    found = import_file(write(tmp_path, "e.csv", rows))
    assert found.loc[0, ["flop", "moved_bytes", "joules"]].tolist() == [1e9, 1e6, 0.5]


@pytest.mark.parametrize(
    ("rows", "format", "error", "told"),
    [
        ({"a": [1]}, None, InputError, "no known format has the columns a"),
        ({"m": [1], "n": [1], "k": [1], "latency_ms": [-1.0]}, None, InputError, "row 2 has no positive time"),
        ({"m": [1], "n": [1], "latency_ms": [1.0]}, "gemm", InputError, "needs the column 'k'"),
        ({"m": [1]}, "gem", InputError, "did you mean 'gemm'"),
    ],
)
def test_bad_files_are_told(
    tmp_path: Path, rows: dict[str, list[object]], format: str | None, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        import_file(write(tmp_path, "x.csv", rows), format)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no measurements at .*; 'simkit measure --pending' says"):
        import_file(tmp_path / "none.csv")
    damaged = tmp_path / "d.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    with pytest.raises(CorruptError, match="fetch it again"):
        import_file(damaged)
    empty = tmp_path / "e.csv"
    empty.write_text("m,n,k,latency_ms\n")
    with pytest.raises(CorruptError, match="holds no row"):
        import_file(empty)
