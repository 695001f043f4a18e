"""Costs of an arch from its structure: area, leakage, static power, peak power, and the price of every action.

Area and leakage are sums over the parts. The clock tree is a named share of the dynamic power at full activity
(`interconnect.CLOCK_TREE`) and runs for the whole latency, as ``static_power`` is charged:

    static = leakage + CLOCK_TREE  sum_actions price  peak count  clock
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..arch import Arch
from ..energy import EnergyTable, Price, load_table
from ..errors import InputError, nearest
from .families import structure_of
from .interconnect import CLOCK_TREE
from .structure import Part, Structure
from .voltage import check_clock, energy_ratio, leakage_ratio

OFF_CHIP = "dram.transfer"
# Where an arch states no price of its off-chip memory.
USUAL_DRAM = {"dram_lpddr4.bit": 8.0}
# Spread of derived energies: sources of one circuit differ by about a factor of 1.4 either way. Assumed.
SPREAD = 1.4


@dataclass(frozen=True)
class Design:
    """Derived costs of an arch.

    Parameters
    ----------
    parts : tuple of Part
        All parts; the clock tree, which has a power but no area, is in `peak`.
    prices : dict of str to Price
        pJ of every action that the structure knows, at the arch's supply.
    shares : dict
        Action -> part -> pJ.
    peak : dict of str to float
        Part (or ``dram``) -> W at full activity, leakage apart.
    area_mm2, leakage_w, static_w : float
        Sums; static power is leakage and clock tree.
    warnings : tuple of str
        Memories too slow for the clock.
    """

    parts: tuple[Part, ...]
    prices: Mapping[str, Price]
    shares: Mapping[str, Mapping[str, float]]
    peak: Mapping[str, float]
    area_mm2: float
    leakage_w: float
    static_w: float
    warnings: tuple[str, ...]

    @property
    def peak_w(self) -> float:
        """Power at full activity, W: dynamic, clock tree, leakage, and the off-chip links."""
        return sum(self.peak.values()) + self.leakage_w

    def price(self, action: str) -> Price:
        """Price of one action.

        Raises
        ------
        InputError
            If the structure has no such action.
        """
        if action not in self.prices:
            raise InputError(f"action '{action}' has no derived price" + nearest(action, self.prices))
        return self.prices[action]


@lru_cache(maxsize=4096)
def _supply(node_nm: float, supply_v: float | None) -> tuple[float, float]:
    if supply_v is None:
        return 1.0, 1.0
    return energy_ratio(node_nm, supply_v), leakage_ratio(node_nm, supply_v)


def design(arch: Arch, structure: Structure | None = None, table: EnergyTable | None = None) -> Design:
    """Derive an arch's costs.

    Parameters
    ----------
    arch : Arch
        Any arch whose kernel states a structure.
    structure : Structure, optional
        Another structure than its family's.
    table : EnergyTable, optional
        Prices of off-chip memory; ``default_45nm`` where left out.

    Returns
    -------
    Design
        Costs at the arch's node, supply and clock.

    Raises
    ------
    InputError
        If the kernel states no structure, a part lies outside what is known, or the clock is above what the supply
        allows.
    """
    node, supply = float(arch.node.value), supply_v(arch)
    check_clock(f"arch '{arch.name}'", arch.clock_hz, node, supply)
    built = structure_of(arch) if structure is None else structure
    dynamic, leaking = _supply(node, supply)
    prices_table = load_table("default_45nm") if table is None else table
    shares = {action: _by_part(built, action, dynamic) for action in built.actions if action != OFF_CHIP}
    prices = {action: _spread(sum(parts.values())) for action, parts in shares.items()}
    prices[OFF_CHIP] = _off_chip(arch, prices_table)
    peak = {name: 0.0 for name in built.parts if built.parts[name].kind != "interface"}
    for action, parts in shares.items():
        for name, pj in parts.items():
            peak[name] += pj * 1e-12 * built.peak.get(action, 0.0) * arch.clock_hz
    clock_w = CLOCK_TREE * sum(peak.values())
    peak = {name: watts for name, watts in peak.items() if watts} | {
        "clock_tree": clock_w,
        "dram": prices[OFF_CHIP].pj * 1e-12 * built.peak.get(OFF_CHIP, 0.0) * arch.clock_hz,
    }
    placed = tuple(part._replace(leakage_w=part.leakage_w * leaking) for part in built.parts.values())
    leakage = sum(part.leakage_w for part in placed)
    return Design(
        parts=placed,
        prices=prices,
        shares=shares,
        peak=peak,
        area_mm2=sum(part.area_mm2 for part in placed),
        leakage_w=leakage,
        static_w=leakage + clock_w,
        warnings=_slow(arch, built),
    )


def supply_v(arch: Arch) -> float | None:
    """Supply that an arch states, V, or None for the nominal one."""
    return None if arch.voltage is None else float(arch.voltage.value)


def _by_part(built: Structure, action: str, dynamic: float) -> dict[str, float]:
    shares: dict[str, float] = {}
    for use in built.actions[action]:
        part = built.parts[use.part]
        pj = use.times * (part.write_pj if use.verb == "write" else part.read_pj) * dynamic
        shares[use.part] = shares.get(use.part, 0.0) + pj
    return shares


def _spread(pj: float) -> Price:
    return Price(pj, pj / SPREAD, pj * SPREAD)


def _off_chip(arch: Arch, table: EnergyTable) -> Price:
    if OFF_CHIP in arch.actions:
        return table.price(arch, OFF_CHIP)
    pj = low = high = 0.0
    for name, times in USUAL_DRAM.items():
        energy = table.row(name).energy
        value = float(energy.value)
        pj += times * value
        low += times * (value if energy.low is None else energy.low)
        high += times * (value if energy.high is None else energy.high)
    return Price(pj, low, high)


def _slow(arch: Arch, built: Structure) -> tuple[str, ...]:
    """Memories whose accesses at full activity come faster than their cycle time allows, reads and writes together."""
    rate = dict.fromkeys(built.parts, 0.0)
    for action, uses in built.actions.items():
        for use in uses:
            rate[use.part] += use.times * built.peak.get(action, 0.0)
    found = []
    for part in built.parts.values():
        busy = rate[part.name] / part.instances * part.cycle_s * arch.clock_hz
        if part.cycle_s and busy > 1 + 1e-9:
            accesses = f"{rate[part.name] / part.instances:.3g} accesses a cycle of {1e9 / arch.clock_hz:.3g} ns"
            remedy = f"use {busy:.1f} times the banks, or a lower clock"
            found.append(f"{part.name}: {accesses}, but one takes {part.cycle_s * 1e9:.3g} ns; {remedy}")
    return tuple(found)
