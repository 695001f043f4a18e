"""Joining a result with measurements of the same launches."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import simkit as sk
from simkit.errors import InputError


@pytest.fixture(scope="module")
def result(plain_trace_path: Path):
    return sk.replay(sk.load_trace(plain_trace_path), ["h100_sxm"])


def measured(result, factor: float) -> pd.DataFrame:
    ops = result.ops
    return pd.DataFrame(
        {
            "device": ops["arch"],
            "m": ops["batch"],
            "k": ops["k"],
            "n": ops["n"],
            "density": ops["effectual_macs"] / ops["macs"],
            "seconds": ops["latency_s"] * factor,
        }
    )


def test_error_is_predicted_over_measured(result) -> None:
    agreement = sk.validate(result, measured(result, 1.25))
    assert agreement.frame["ratio"].tolist() == pytest.approx([0.8, 0.8])
    row = agreement.summary().iloc[0]
    assert (row["rows_scored"], row["mape_percent"], row["bias_percent"]) == pytest.approx((2, 20.0, -20.0))


def test_other_densities_and_shapes_do_not_match(result) -> None:
    table = measured(result, 1.0)
    table.loc[0, "density"] += 0.1
    assert len(sk.validate(result, table).frame) == 1
    table["k"] += 1
    with pytest.raises(InputError, match="no measured launch matches"):
        sk.validate(result, table)


def test_empty_folder(result, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no measurements in"):
        sk.validate(result, tmp_path)
