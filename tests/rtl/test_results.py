"""The figure and the break-even, from committed and made-up results."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from simkit.plots.gates import PANEL, energy_from_gates
from simkit.validation.rtl.results import break_even, load_results
from simkit.validation.rtl.stimuli import SETTLE, cnvlutin, sparten


def _row(design: str, twin: str, density: float, slot: float, area: float) -> dict:
    return {"design": design, "twin": twin, "density": density, "mac_slot_pj": slot, "area_um2": area, "macs": 1}


def test_break_even_is_where_the_lines_cross():
    rows = [_row("d", "", x, 10.0, 100.0) for x in (0.0, 0.5, 1.0)]
    rows += [_row("s", "d", x, 20.0 * x + 5.0, 150.0) for x in (0.0, 0.5, 1.0)]
    (found,) = break_even(rows)
    assert found["density"] == pytest.approx(0.25)
    assert found["area_overhead"] == pytest.approx(0.5)


@pytest.mark.parametrize(("slot", "density"), [(5.0, 1.0), (50.0, 0.0)])
def test_break_even_at_the_ends(slot, density):
    rows = [_row("d", "", x, 10.0, 1.0) for x in (0.0, 1.0)] + [_row("s", "d", x, slot, 1.0) for x in (0.0, 1.0)]
    assert break_even(rows)[0]["density"] == density


def test_the_figure_shows_the_committed_results():
    results = load_results()
    ax = energy_from_gates()
    lines = {line.get_label(): line for line in ax.get_lines()}
    slots = {(row["design"], row["density"]): row["mac_slot_pj"] for row in results["rows"]}
    line = lines["TensorDash"]
    for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
        assert slots["tensordash_pe", x] == y
    assert len(ax.get_lines()) > len(PANEL)
    assert "pJ" in ax.get_ylabel()


@pytest.mark.parametrize("cycles", [150, 400])
def test_slots_do_not_depend_on_where_a_row_is_cut(cycles):
    """Dense rows: Cnvlutin's 16 lanes do 16 slots a cycle; SparTen's two CUs do their rows at the slower one's pace."""
    rng = np.random.default_rng(0)
    assert cnvlutin(1.0, cycles, rng).mac_slots == pytest.approx(64 * (cycles - SETTLE) * 16, rel=1e-6)
    slots = sparten(1.0, cycles, rng).mac_slots / (64 * (cycles - SETTLE))
    # half of 256 weights match, the slower of two binomials a little more: 2 * 256 slots in about 132.5 cycles
    assert slots == pytest.approx(512 / 132.5, rel=0.02)
