"""The published table: what must be exact is, what lies outside its band is known and says why."""

from __future__ import annotations

from typing import Any

import pytest

from simkit.validation.published import EYERISS_LAYERS, REFERENCE, validate_published

# Targets that i.i.d. masks of rounded densities, or derived costs, do not reach; each row carries the reason.
KNOWN_OFF = {
    "DaDianNao cells without filler, mm2",
    "Cnvlutin, area added to DaDianNao",
    "EIE PE registers and logic, mW",
    "SparTen cluster, mW",
    "TensorDash core of 4096 multipliers, area added",
    "TensorDash core of 4096 multipliers, W",
    "TensorDash core of 4096 multipliers, mm2",
    "Eyeriss v2 PE, energy over the general table's",
    "EIE Alex-8, theoretical us",
    "EIE Alex-8, actual us",
    "EIE Alex-8, ring of 4, cycles",
    "EIE Alex-8, ring of 8, cycles",
    "EIE Alex-8, ring of 16, cycles",
    "EIE VGG-6, theoretical us",
    "EIE VGG-6, actual us",
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return validate_published()


def among(rows: list[dict[str, Any]], start: str) -> list[dict[str, Any]]:
    found = [row for row in rows if row["target"].startswith(start)]
    assert found, start
    return found


def test_every_row_is_whole(rows: list[dict[str, Any]]) -> None:
    keys = {"target", "arch", "source", "published", "ours", "error", "verdict", "reason"}
    assert all(set(row) - {"evidence"} == keys for row in rows)
    assert {row["verdict"] for row in rows} <= {"exact", "within band", "off", "skipped", "not reproducible"}
    assert len({(row["target"], row["arch"]) for row in rows}) == len(rows)
    for row in rows:
        assert row["verdict"] == "exact" or row["reason"], row["target"]
        if row["verdict"] not in ("skipped", "not reproducible"):
            assert row["error"] == pytest.approx(row["ours"] / row["published"] - 1, abs=1e-5)


def test_nothing_is_off_but_what_is_known(rows: list[dict[str, Any]]) -> None:
    off = {row["target"] for row in rows if row["verdict"] == "off"}
    assert off == KNOWN_OFF - {row["target"] for row in rows if row["verdict"] == "skipped"}


@pytest.mark.parametrize("start", ["dense 512", "SCALE-Sim", "2:4", "sponge"])
def test_exact_to_the_digit(rows: list[dict[str, Any]], start: str) -> None:
    assert {row["verdict"] for row in among(rows, start)} == {"exact"}


def test_eyeriss_layers_to_the_cycle(rows: list[dict[str, Any]]) -> None:
    layers = among(rows, "Eyeriss v2 PE, MobileNet")
    assert len(layers) == len(EYERISS_LAYERS)
    if not REFERENCE.is_dir():
        assert {row["verdict"] for row in layers} == {"skipped"}
        pytest.skip(f"measured data of others is not at {REFERENCE}")
    assert {row["verdict"] for row in layers} == {"exact"}


def test_tensordash_curve(rows: list[dict[str, Any]]) -> None:
    curve = among(rows, "TensorDash, ")
    assert len(curve) == 27
    assert max(abs(row["error"]) for row in curve) < 0.01


def test_what_hangs_on_unpublished_masks_is_listed_and_says_so(rows: list[dict[str, Any]]) -> None:
    hidden = [row for row in rows if row["verdict"] == "not reproducible"]
    assert {row["published"] for row in hidden if row["arch"] == "tensordash"} == {1.95, 1.89, 1.6}
    assert {row["published"] for row in hidden if row["arch"] == "cnvlutin"} == {1.52}
    assert all(row["ours"] is None and row["error"] is None and "not public" in row["reason"] for row in hidden)


def test_cnvlutin_energy_delay(rows: list[dict[str, Any]]) -> None:
    products = among(rows, "Cnvlutin over DaDianNao")
    assert [row["published"] for row in products] == [1.47, 2.01]
    # the square holds the delay twice, so that their ratio is the speed-up alone
    assert products[1]["ours"] / products[0]["ours"] == pytest.approx(2.01 / 1.47, rel=0.06)


def test_dstc_mean_error_is_the_known_six_percent(rows: list[dict[str, Any]]) -> None:
    errors = [abs(row["error"]) for row in among(rows, "DSTC")]
    assert sum(errors) / len(errors) == pytest.approx(0.060, abs=0.003)


def test_waiting_in_eie_does_not_hang_on_the_density(rows: list[dict[str, Any]]) -> None:
    ratios = [row for row in rows if "over" in row["target"] and row["arch"] == "eie"]
    assert len(ratios) == 9 + 3
    assert {row["verdict"] for row in ratios} == {"within band"}
