"""Prices, static power and area of an arch: what it states, moved by its structure, or the structure's alone.

``costs`` in an arch's YAML says which:

``scaled`` (the default)
    What is stated holds for the arch as stated. A variant multiplies it by ``derived(variant) / derived(arch)``, so
    that lanes, buffers, bits, node, supply and clock change prices, static power and area. What is not stated is
    derived.
``stated``
    The table's rows, node and supply applied; static power and area as they stand, whatever a variant changes.
``derived``
    The structure alone; a paper's own figures and the rows under ``actions`` are left aside, off-chip memory apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..arch import Arch
from ..config import Figure
from ..energy import EnergyTable, Price
from ..errors import InputError
from .design import OFF_CHIP, Design, design, supply_v
from .families import has_structure
from .voltage import check_clock


class Costs(NamedTuple):
    """Costs of an arch in one table's prices.

    Parameters
    ----------
    arch : Arch
        The arch itself.
    table : EnergyTable
        Prices of what it states.
    base : Arch
        The arch that it is a variant of; itself if it is none.
    derived, derived_base : Design or None
        Of both; None where the kernel states no structure, or ``costs`` is ``stated``.
    """

    arch: Arch
    table: EnergyTable
    base: Arch
    derived: Design | None
    derived_base: Design | None

    def price(self, action: str) -> Price:
        """Price one action, pJ.

        Raises
        ------
        InputError
            If the action is neither stated nor derived.
        """
        if self.derived is None:
            return self.table.price(self.arch, action)
        stated = action in self.arch.actions
        if action == OFF_CHIP or (self.arch.costs != "derived" and stated and self._same_rows(action)):
            return self._scaled(action)
        if stated and self.arch.costs != "derived":
            return self.table.price(self.arch, action)
        if action in self.derived.prices:
            return self.derived.prices[action]
        return self.table.price(self.arch, action)

    def _same_rows(self, action: str) -> bool:
        return self.base.actions.get(action) == self.arch.actions[action]

    def _scaled(self, action: str) -> Price:
        assert self.derived is not None
        if action == OFF_CHIP:
            return self.derived.prices[OFF_CHIP]
        stated = self.table.price(self.base, action)
        if self.derived_base is None or action not in self.derived_base.prices:
            return self.table.price(self.arch, action)
        ratio = _ratio(self.derived.prices[action].pj, self.derived_base.prices[action].pj)
        return Price(*(ratio * pj for pj in stated))

    @property
    def static_w(self) -> tuple[float, float, float]:
        """Static power and its range, W.

        Raises
        ------
        InputError
            If it is neither stated nor derived.
        """
        figure = self.arch.static_power
        if self.derived is None:
            if figure is None:
                raise InputError(f"arch '{self.arch.name}' states no static_power; add it, or set costs: derived")
            return _ends(figure)
        if figure is None or self.arch.costs == "derived":
            watts = self.derived.static_w
            return watts, watts / 2, watts * 2
        if figure != self.base.static_power or self.derived_base is None:
            return _ends(figure)
        ratio = _ratio(self.derived.static_w, self.derived_base.static_w)
        value, low, high = _ends(figure)
        return ratio * value, ratio * low, ratio * high

    @property
    def area_mm2(self) -> float | None:
        """Area, mm2; None where it is neither stated nor derived."""
        figure = self.arch.area
        if self.derived is None:
            return None if figure is None else float(figure.value)
        if figure is None or self.arch.costs == "derived":
            return self.derived.area_mm2
        if figure != self.base.area or self.derived_base is None:
            return float(figure.value)
        return float(figure.value) * _ratio(self.derived.area_mm2, self.derived_base.area_mm2)


def costs_of(arch: Arch, table: EnergyTable, base: Arch | None = None) -> Costs:
    """Find the costs of an arch.

    Parameters
    ----------
    arch : Arch
        What is priced.
    table : EnergyTable
        Prices of stated actions.
    base : Arch, optional
        An arch that it is a variant of, if it does not know its own; variants of variants go back to the first.

    Returns
    -------
    Costs
        See `Costs`.

    Raises
    ------
    InputError
        If a part lies outside what is known, or the clock is above what the supply allows.
    """
    base = (arch if base is None else base).base
    if not has_structure(arch):
        _refuse_without_structure(arch)
        return Costs(arch, table, base, None, None)
    if arch.costs == "stated":
        check_clock(f"arch '{arch.name}'", arch.clock_hz, float(arch.node.value), supply_v(arch))
        return Costs(arch, table, base, None, None)
    derived = design(arch, table=table)
    if base.hash == arch.hash:
        return Costs(arch, table, arch, derived, derived)
    return Costs(arch, table, base, derived, _design_of_base(base, table))


def _refuse_without_structure(arch: Arch) -> None:
    if arch.costs == "derived":
        raise InputError(
            f"arch '{arch.name}': kernel '{arch.kernel}' states no structure to derive costs from; set costs to "
            "scaled or stated"
        )
    if arch.voltage is not None:
        raise InputError(
            f"arch '{arch.name}': kernel '{arch.kernel}' is priced by figures of its whole device, which follow no "
            "supply; leave voltage out"
        )


@lru_cache(maxsize=64)
def _by_hash(key: tuple[str, str]) -> dict[str, Design]:
    return {}


def _design_of_base(base: Arch, table: EnergyTable) -> Design:
    kept = _by_hash((base.hash, table.hash))
    if "design" not in kept:
        kept["design"] = design(base, table=table)
    return kept["design"]


def _ratio(new: float, old: float) -> float:
    return 1.0 if new == old else new / old


def _ends(figure: Figure) -> tuple[float, float, float]:
    value = float(figure.value)
    return (
        value,
        value if figure.low is None else float(figure.low),
        value if figure.high is None else float(figure.high),
    )
