"""The GPU models against measurements of others: fitted on at most 400 rows, scored on the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from simkit.validation.gpu import table, validate_reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], dict[str, Any]]:
    folder = ROOT.parent / "shared" / "reference" / "gpu"
    if not folder.is_dir():
        pytest.skip(f"measured data of others is not at {folder}")
    found = validate_reference(folder, by_model=False)
    assert set(table(found)["model"]) >= {"calibrated", "naive_roofline", "calibrated_roofline"}
    return {(row["set"], row["model"]): row for row in found}


@pytest.mark.parametrize(
    ("name", "most_percent", "scored"),
    [
        ("gemm_bf16_h100", 6.0, 3600),
        ("gemm_bf16_h200", 6.0, 3600),
        ("gemm_bf16_h200 carried from gemm_bf16_h100", 8.0, 4000),
        ("gemm_fp16_h100_llm_layers", 6.0, 3600),
        ("energy_h100_models", 6.0, 37),
    ],
)
def test_error_on_rows_held_out(
    rows: dict[tuple[str, str], dict[str, Any]], name: str, most_percent: float, scored: int
) -> None:
    row = rows[name, "calibrated"]
    assert row["mape_percent"] <= most_percent
    assert abs(row["bias_percent"]) < 2
    assert row["rows_fit"] <= 400
    assert row["rows_scored"] == scored
    foils = [other["mape_percent"] for (where, model), other in rows.items() if where == name and model != "calibrated"]
    assert foils
    assert row["mape_percent"] < min(foils)


def test_no_band_of_tokens_is_left_behind(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    bands = pd.DataFrame(rows["gemm_bf16_h100", "calibrated"]["bands"]).T
    assert bands["mape_percent"].max() < 9
    assert bands["bias_percent"].abs().max() < 4


def test_sparse_curve_from_device_figures_alone(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    row = rows["sparse_mlp_l40s_mistral7b_fp32", "calibrated"]
    assert row["rows_fit"] == 0
    assert row["worst_percent"] <= 10
    assert row["break_even_density"]["predicted"] == pytest.approx(row["break_even_density"]["measured"], abs=0.05)
