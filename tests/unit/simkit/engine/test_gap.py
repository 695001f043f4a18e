"""The gap between exact and statistical cycles."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from drawn_traces import drawn_traces

from simkit.engine import gap
from simkit.engine.inputs import load_trace
from simkit.errors import InputError
from simkit.plots import synchronisation_gap

ARCHS = ("tile_barrier_32x32", "statistical_32x32", "sparten")


@pytest.fixture(scope="module")
def table(plain_trace_path: Path) -> pd.DataFrame:
    return gap.gap(load_trace(plain_trace_path), ARCHS)


def test_one_row_for_each_layer_design_and_kind_of_mask(table: pd.DataFrame) -> None:
    assert len(table) == 2 * 3 * 2
    assert set(table["masks"]) == {"recorded", "i.i.d."}
    assert (table["gap"] == table["exact_cycles"] / table["statistical_cycles"]).all()


def test_only_a_design_that_waits_has_a_gap(table: pd.DataFrame) -> None:
    by_arch = table.groupby("arch")["gap"]
    assert by_arch.get_group("statistical_32x32").eq(1.0).all()
    assert by_arch.get_group("tile_barrier_32x32").gt(1.05).all()


def test_iid_masks_have_the_density_of_the_recorded(table: pd.DataFrame) -> None:
    density = table.pivot_table(index=["layer", "arch"], columns="masks", values="density")
    assert (density["i.i.d."] - density["recorded"]).abs().max() < 0.03


def test_tokens_are_limited(plain_trace_path: Path) -> None:
    trace = load_trace(plain_trace_path)
    few = gap.gap(trace, ["tile_barrier_32x32"], tokens=7)
    whole = gap.gap(trace, ["tile_barrier_32x32"])
    assert few["exact_cycles"].max() < whole["exact_cycles"].min()


def test_figure_shows_every_row(table: pd.DataFrame) -> None:
    ax = synchronisation_gap(table)
    shown = sum(len(points.get_offsets()) for points in ax.collections)
    assert shown == len(table)
    assert [label.get_text().replace("\n", "") for label in ax.get_xticklabels()] == [
        "tile_barrier_32x32",
        "statistical_32x32",
        "sparten",
    ]
    heights = sorted(y for points in ax.collections for _, y in points.get_offsets())
    assert heights == pytest.approx(sorted(table["gap"]))
    plt.close(ax.figure)


def test_an_op_without_masks_is_named(plain_trace_path: Path) -> None:
    with pytest.raises(InputError, match="trace 'plain' has no op 'nothing'; known: down"):
        gap.gap(load_trace(plain_trace_path), ops="nothing")
    with pytest.raises(InputError, match="no recorded input mask of up"):
        gap.gap(drawn_traces()[0], ops="up")
