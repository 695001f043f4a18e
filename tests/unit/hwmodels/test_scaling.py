"""Energy scaling against the examples its authors publish."""

from __future__ import annotations

import pytest

from hwmodels import InputError
from hwmodels.scaling import FITS, energy_factor


def test_published_examples() -> None:
    assert energy_factor(65, 32, from_v=1.3, to_v=0.9) == pytest.approx(0.1755, abs=1e-4)
    assert energy_factor(180, 45) == pytest.approx(0.0327, abs=5e-5)


def test_factors_compose_and_shrink_with_the_node() -> None:
    nodes = sorted(FITS, reverse=True)
    factors = [energy_factor(45, node) for node in nodes]
    assert factors == sorted(factors, reverse=True)
    assert energy_factor(45, 45) == 1.0
    assert energy_factor(180, 45) * energy_factor(45, 7) == pytest.approx(energy_factor(180, 7))


def test_between_two_nodes() -> None:
    assert energy_factor(45, 20) < energy_factor(45, 28) < energy_factor(45, 32)
    # log-log halfway between 20 and 32 nm
    middle = (20 * 32) ** 0.5
    expected = (energy_factor(45, 20) * energy_factor(45, 32)) ** 0.5
    assert energy_factor(45, middle) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((45, 5), "node 5 nm; use one from 7 to 180 nm"),
        ((250, 45), "node 250 nm"),
        ((45, 32, None, 2.0), "supply 2.0 V at 32 nm"),
        ((45, 28, None, 0.9), "leave the supply out"),
    ],
)
def test_outside_the_range(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        energy_factor(*arguments)
