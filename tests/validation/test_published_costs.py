"""Derived power and area against published figures, and wrong models against the same bands."""

from __future__ import annotations

import pytest

from hwmodels import load_arch
from hwmodels.costs.design import design
from simkit.validation.costs import (
    AREA,
    DADIANNAO_UM2,
    DADIANNAO_W,
    EIE_PE_MW,
    EIE_PE_UM2,
    POWER,
    Claim,
    cost_claims,
    wrong_models,
)

# what each deliberately wrong model must push out of its band
CAUGHT_BY = {
    "logic free of area": {"EIE PE cells without filler, um2", "SparTen cluster, mm2"},
    "every memory costs what one of 64 KiB does": {"DaDianNao chip, mm2", "EIE chip, mm2", "EIE PE memories, um2"},
    "links and wires free": {"DaDianNao chip, peak W", "DaDianNao chip, mm2", "DaDianNao links, W"},
    "no memory": {"DaDianNao chip, peak W", "DaDianNao chip, mm2", "EIE chip, peak W", "EIE chip, mm2"},
}


@pytest.fixture(scope="module")
def claims() -> dict[str, Claim]:
    return {claim.target: claim for claim in cost_claims()}


@pytest.mark.parametrize(
    ("target", "published", "band"),
    [
        ("DaDianNao chip, peak W", 15.97, POWER),
        ("DaDianNao chip, mm2", 67.7, AREA),
        ("EIE chip, peak W", 0.59, POWER),
        ("EIE chip, mm2", 40.8, AREA),
        ("EIE PE, peak mW", 9.157, POWER),
        ("EIE PE, um2", 638_024, AREA),
    ],
)
def test_whole_chips_lie_within_their_bands_without_overrides(
    claims: dict[str, Claim], target: str, published: float, band: tuple[float, float]
) -> None:
    claim = claims[target]
    assert claim.published == published
    assert claim.band == band
    assert claim.ours is not None
    assert claim.holds, f"{claim.ours / published - 1:+.1%}"


def test_no_override_of_a_yaml_enters() -> None:
    arch = load_arch("dadiannao")
    bare = arch.model_copy(update={"area": None, "static_power": arch.static_power.model_copy(update={"value": 0.0})})
    assert design(bare) == design(arch)
    assert set(bare.actions) == set(arch.actions)


def test_breakdowns_add_up_to_what_is_published() -> None:
    """The parts of EIE's and DaDianNao's tables are recalled, and make their published wholes."""
    assert sum(EIE_PE_MW.values()) == pytest.approx(9.157)
    assert sum(EIE_PE_UM2.values()) == 638_024
    assert sum(DADIANNAO_UM2.values()) == 67_732_900
    assert sum(DADIANNAO_W.values()) == pytest.approx(15.97, abs=0.011)


def test_every_miss_says_why(claims: dict[str, Claim]) -> None:
    assert all(claim.off for claim in claims.values() if claim.ours is not None and not claim.holds)


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_a_wrong_model_falls_out_of_band(claims: dict[str, Claim], name: str) -> None:
    wrong = {claim.target for claim in cost_claims(wrong_models()[name]) if not claim.holds}
    right = {target for target, claim in claims.items() if claim.holds}
    assert wrong & right >= CAUGHT_BY[name]


def test_every_wrong_model_is_tried() -> None:
    assert set(wrong_models()) == set(CAUGHT_BY)


def test_what_the_bands_do_not_tell_apart_is_known(claims: dict[str, Claim]) -> None:
    """Logic is a tenth of these chips, so their areas prove nothing about it; their breakdowns do."""
    free = {claim.target: claim for claim in cost_claims(wrong_models()["logic free of area"])}
    assert free["DaDianNao chip, mm2"].holds
    assert free["EIE chip, mm2"].holds


def test_the_masks_that_are_not_here_are_said_to_be_missing(claims: dict[str, Claim]) -> None:
    claim = claims["Eyeriss v2 PE, energy over the general table's"]
    assert claim.ours is None
    assert not claim.holds
    assert "not at eyeriss_v2/pe_masks.npz" in claim.reason
