"""Memory macros: exact at CACTI's points, monotone between them, refused outside."""

from __future__ import annotations

import numpy as np
import pytest

from hwmodels.costs.sram import CELLS, EDRAM_WRITE_PER_READ, held_out_errors, macro, raw_grid
from hwmodels.errors import InputError
from hwmodels.scaling import energy_factor


def test_the_figures_the_project_quotes() -> None:
    found = macro("itrs-lstp", 45, 65536, 128)
    assert (round(found.read_pj, 2), round(found.write_pj, 2)) == (39.33, 36.04)
    assert found.area_mm2 == 0.187953
    assert found.leakage_w == pytest.approx(5.151078e-6)
    assert found.cycle_s == pytest.approx(1.89315e-9)
    assert found.status == "published"


def test_exact_at_every_grid_point_where_cacti_is_monotone() -> None:
    differ, points = 0, 0
    for (cell, node), rows in raw_grid().items():
        for size, row in rows.items():
            for width, point in row.items():
                found = macro(cell, node, size, width)
                assert found.leakage_w == pytest.approx(point.leakage_w, rel=1e-12)
                assert found.area_mm2 == pytest.approx(point.area_mm2, rel=1e-12)
                assert found.cycle_s == pytest.approx(point.cycle_s, rel=1e-12)
                assert found.read_pj <= point.read_pj * (1 + 1e-12)
                if cell == "lp-dram":
                    assert found.read_pj == point.read_pj
                    assert found.write_pj == pytest.approx(EDRAM_WRITE_PER_READ * point.read_pj)
                    continue
                points += 1
                differ += (found.read_pj, found.write_pj) != (point.read_pj, point.write_pj)
    assert (differ, points) == (16, 589)


def test_the_held_out_error_is_what_the_docs_state() -> None:
    errors = {name: np.abs(values) for name, values in held_out_errors().items()}
    assert {len(values) for values in errors.values()} == {563}
    assert np.median(errors["read_pj"]) < 0.04
    assert np.median(errors["write_pj"]) < 0.05
    assert np.median(errors["leakage_w"]) < 0.03
    assert np.median(errors["area_mm2"]) < 0.04
    for name in ("read_pj", "write_pj", "area_mm2", "leakage_w"):
        assert np.percentile(errors[name], 90) < 0.21, name
    # CACTI's cycle times jump where it folds an array anew; they only decide a warning
    assert np.median(errors["cycle_s"]) < 0.08


def test_a_price_of_another_size_falls_outside_the_held_out_error() -> None:
    """Pricing every buffer as 64 KiB is far off the interpolation error, so the grid says something."""
    assert macro("itrs-lstp", 45, 2**22, 128).read_pj > 3 * macro("itrs-lstp", 45, 2**16, 128).read_pj
    assert macro("itrs-lstp", 45, 2**12, 128).read_pj < 0.3 * macro("itrs-lstp", 45, 2**16, 128).read_pj


def test_between_nodes_lies_between_their_figures() -> None:
    low, middle, high = (macro("itrs-lstp", node, 2**18, 128) for node in (22, 28, 32))
    assert low.read_pj < middle.read_pj < high.read_pj
    assert low.area_mm2 < middle.area_mm2 < high.area_mm2


def test_below_the_grid_is_scaled_and_marked_assumed() -> None:
    at_22, at_7 = (macro("itrs-lstp", node, 65536, 128) for node in (22, 7))
    assert at_7.read_pj == pytest.approx(at_22.read_pj * energy_factor(22, 7))
    assert at_7.area_mm2 == pytest.approx(at_22.area_mm2 * 0.027 / 0.092)
    assert (at_22.status, at_7.status) == ("published", "assumed")
    at_32, at_28 = (macro("lp-dram", node, 2**19, 512) for node in (32, 28))
    assert at_28.read_pj == pytest.approx(at_32.read_pj * energy_factor(32, 28))
    assert at_28.area_mm2 == pytest.approx(at_32.area_mm2 * (28 / 32) ** 2)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (("itrs-lstp", 45, 100, 64), "1,024 to 16,777,216 byte"),
        (("itrs-lstp", 45, 2**25, 64), "16,777,216 byte"),
        (("itrs-lstp", 45, 2**16, 16), "64 to 256 bit"),
        (("itrs-hp", 45, 1024, 512), "32 to 128 bit"),
        (("itrs-lstp", 250, 2**16, 64), "7 to 180 nm"),
        (("itrs-lstp", 5, 2**16, 64), "7 to 180 nm"),
        (("lstp", 45, 2**16, 64), "did you mean"),
        (("lp-dram", 45, 1024, 128), "65,536 to 16,777,216 byte"),
    ],
)
def test_outside_the_grid_names_the_range(wanted: tuple[str, float, float, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        macro(*wanted)


def test_every_cell_has_costs_above_zero() -> None:
    for cell in CELLS:
        assert min(macro(cell, 45, 2**17, 128)[:5]) > 0
