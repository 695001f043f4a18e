"""What an arch states beside what its structure gives: area, static power, prices, parts, and sources of its MAC."""

from __future__ import annotations

from typing import Any

from ..arch import Arch
from ..energy import EnergyTable, load_table
from ..errors import InputError
from .arithmetic import mac_sources
from .design import Design, design
from .families import has_structure

Row = dict[str, Any]


def given_and_derived(arch: Arch, table: EnergyTable | None = None) -> Row:
    """Compare an arch's stated figures with derived ones.

    Parameters
    ----------
    arch : Arch
        Any arch.
    table : EnergyTable, optional
        Prices of its actions; ``default_45nm`` where left out.

    Returns
    -------
    dict
        totals, prices, parts and mac: lists of rows; warnings: list of str; why_not: why nothing could be derived, or
        "". In rows, `given` is None where the arch states nothing, and `error` is ``derived / given - 1``.
    """
    empty: Row = {"totals": [], "prices": [], "parts": [], "mac": [], "warnings": [], "why_not": ""}
    if not has_structure(arch):
        return {**empty, "why_not": f"kernel '{arch.kernel}' states no structure"}
    prices = load_table("default_45nm") if table is None else table
    try:
        found = design(arch, table=prices)
    except InputError as error:
        return {**empty, "why_not": str(error)}
    return {
        "totals": _totals(arch, found),
        "prices": [_price(arch, prices, action, found) for action in found.prices],
        "parts": [
            {
                "part": part.name,
                "kind": part.kind,
                "instances": part.instances,
                "area_mm2": part.area_mm2,
                "leakage_w": part.leakage_w,
                "peak_w": found.peak.get(part.name, 0.0),
                "read_pj": part.read_pj,
                "write_pj": part.write_pj,
                "status": part.status,
            }
            for part in found.parts
        ],
        "mac": _macs(arch),
        "warnings": list(found.warnings),
        "why_not": "",
    }


def _totals(arch: Arch, found: Design) -> list[Row]:
    area = None if arch.area is None else float(arch.area.value)
    stated = None if arch.static_power is None else float(arch.static_power.value)
    on_chip = sum(part.area_mm2 for part in found.parts if part.kind != "interface")
    return [
        _row("area, mm2", area, found.area_mm2),
        _row("area without the off-chip interface, mm2", None, on_chip),
        _row("static power, W", stated, found.static_w),
        _row("leakage, W", None, found.leakage_w),
        _row("peak power, W", None, found.peak_w),
        _row("peak power without off-chip memory, W", None, found.peak_w - found.peak["dram"]),
    ]


def _price(arch: Arch, table: EnergyTable, action: str, found: Design) -> Row:
    given = table.price(arch, action).pj if action in arch.actions else None
    return {**_row(action, given, found.prices[action].pj), "parts": dict(found.shares.get(action, {}))}


def _row(name: str, given: float | None, derived: float) -> Row:
    error = derived / given - 1 if given else None
    return {"figure": name, "given": given, "derived": derived, "error": error}


def _macs(arch: Arch) -> list[Row]:
    bits = int(arch.bits["activation"].value)
    return [source._asdict() for source in mac_sources(bits, float(arch.node.value))]
