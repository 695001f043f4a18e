"""Arithmetic by operand types: energy and area of adders, multipliers, MACs, registers and gates.

Each quantity is a power law between (and, marked assumed, beyond) sourced points at 45 nm, kept in
``hwmodels/costs/points.yaml``: adders by their width, multipliers and MACs by the product of their widths, floating
point by its significands. Energy moves to other nodes by `scaling.energy_factor`, area by `nodes.area_factor`.

A MAC of integers has two sources that differ by a factor of two: Accelergy's component, which holds its registers (the
value), and Horowitz' multiplier and adder alone (the low end). `mac_sources` adds a third, our synthesised netlists.

Source: M. Horowitz, ISSCC 2014, doi:10.1109/ISSCC.2014.6757323; Y. N. Wu et al., Accelergy, ICCAD 2019,
doi:10.1109/ICCAD45719.2019.8942149.
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

from ..errors import InputError, nearest
from ..scaling import energy_factor
from .nodes import area_factor

# Bits of exponent and significand, the hidden bit with it.
FLOATS = {"fp8": (4, 4), "fp8_e5m2": (5, 3), "fp16": (5, 11), "bf16": (8, 8), "tf32": (8, 11), "fp32": (8, 24)}
WIDEST_INT = 64
NETLISTS_NODE_NM = 180.0


class Number(NamedTuple):
    """A number format: `bits` stored, `significand` multiplied; both alike for integers."""

    name: str
    bits: int
    significand: int
    floating: bool


class Cost(NamedTuple):
    """Energy of one operation, pJ, its range, and area, um2."""

    pj: float
    low_pj: float
    high_pj: float
    area_um2: float
    source: str
    status: str


def number(name: str) -> Number:
    """Parse a format such as ``int8``, ``int12``, ``fp16`` or ``bf16``.

    Raises
    ------
    InputError
        If there is no such format.
    """
    if name in FLOATS:
        exponent, significand = FLOATS[name]
        return Number(name, exponent + significand, significand, True)
    found = re.fullmatch(r"int(\d+)", name)
    if found is None or not 1 <= int(found[1]) <= WIDEST_INT:
        raise InputError(f"unknown number format '{name}'" + nearest(name, ["int4", "int8", "int16", "int32", *FLOATS]))
    return Number(name, int(found[1]), int(found[1]), False)


@lru_cache(maxsize=1)
def points() -> dict[str, Any]:
    """Return the sourced points, as ``points.yaml`` has them."""
    from ruamel.yaml import YAML

    text = resources.files("hwmodels").joinpath("costs/points.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return tree


def adder(kind: str, node_nm: float = 45.0) -> Cost:
    """Price an adder whose operands and sum have one format."""
    form = number(kind)
    return _cost("float_add" if form.floating else "int_add", form.significand, node_nm)


def multiplier(left: str, right: str, node_nm: float = 45.0) -> Cost:
    """Price a multiplier of two formats; if one is floating, both are multiplied as significands."""
    a, b = number(left), number(right)
    floating = a.floating or b.floating
    return _cost("float_mul" if floating else "int_mul", a.significand * b.significand, node_nm)


def mac(left: str, right: str, accumulator: str, node_nm: float = 45.0) -> Cost:
    """Price a multiply-accumulate with the registers of its operands and sum.

    Parameters
    ----------
    left, right, accumulator : str
        Formats of the operands and of the sum.
    node_nm : float
        Technology node, nm.

    Returns
    -------
    Cost
        For integers Accelergy's component, never below multiplier and adder, which are the low end; for floating point
        multiplier, adder and registers. The area is multiplier, adder and one flip-flop a bit of operands and sum.
    """
    product, total = multiplier(left, right, node_nm), adder(accumulator, node_nm)
    a, b, c = number(left), number(right), number(accumulator)
    held = flip_flops(a.bits + b.bits + c.bits, node_nm)
    low = product.pj + total.pj
    if a.floating or b.floating:
        pj = low + held.pj
    else:
        whole = _cost("int_mac", a.bits * b.bits, node_nm)
        pj = max(whole.pj, low)
    status = "assumed" if "assumed" in (product.status, total.status) else "published"
    area = product.area_um2 + total.area_um2 + held.area_um2
    return Cost(pj, low, max(pj, low + held.pj), area, f"{product.source}, wu2019accelergy", status)


def gated_mac(left: str, right: str, node_nm: float = 45.0) -> Cost:
    """Price a MAC slot whose zero operand holds the multiplier still."""
    cost = _cost("int_mac_gated", number(left).bits * number(right).bits, node_nm)
    floating = number(left).floating or number(right).floating
    return cost._replace(status="assumed") if floating else cost


def flip_flops(bits: float, node_nm: float = 45.0) -> Cost:
    """Price a register of `bits`, clocked once: energy of a write or a read of all of them, and area."""
    return register_file(1, bits, node_nm)


def register_file(words: float, bits: float, node_nm: float = 45.0) -> Cost:
    """Price a register file or FIFO of `words` words: one access of a word of `bits`, and the area of all.

    Above one word each stored bit has a multiplexer input besides its flip-flop.
    """
    per_bit = _law(points()["register_file"]["energy"], max(words, 1.0))
    cells = points()["cells"]["area"]
    stored = cells["flip_flop"] + (cells["mux2"] if words > 1 else 0.0)
    scale = energy_factor(45.0, node_nm)
    pj = per_bit * bits * scale
    area = stored * words * bits * area_factor(45.0, node_nm)
    return Cost(
        pj, pj / 2, pj * 2, area, points()["register_file"]["source"], "published" if words <= 224 else "assumed"
    )


def gates(count: float, node_nm: float = 45.0) -> Cost:
    """Price `count` two-input gates, each of which switches once."""
    cells = points()["cells"]
    pj = count * cells["energy"]["gate"] * energy_factor(45.0, node_nm)
    return Cost(
        pj, pj / 2, pj * 2, count * cells["area"]["gate"] * area_factor(45.0, node_nm), cells["source"], "assumed"
    )


def _cost(name: str, where: float, node_nm: float) -> Cost:
    facts = points()[name]
    pj = _law(facts["energy"], where) * energy_factor(float(points()["node_nm"]), node_nm)
    area = _law(facts["area"], where) * area_factor(float(points()["node_nm"]), node_nm) if "area" in facts else 0.0
    known = facts["energy"]
    inside = min(known) <= where <= max(known)
    return Cost(pj, pj, pj, area, facts["source"], facts["energy_status"] if inside else "assumed")


def _law(known: dict[float, float], where: float) -> float:
    """Return the power law between the two points nearest to `where`, beyond the ends continued."""
    knots = sorted(known)
    place = min(max(1, sum(knot < where for knot in knots)), len(knots) - 1)
    low, high = knots[place - 1], knots[place]
    exponent = math.log(known[high] / known[low]) / math.log(high / low)
    return float(known[low] * (where / low) ** exponent)


class SecondSource(NamedTuple):
    """One source's MAC: energy, pJ, and area, um2 (None where the source gives none)."""

    source: str
    pj: float
    area_um2: float | None
    status: str


def mac_sources(bits: int, node_nm: float = 45.0) -> list[SecondSource]:
    """List what each source says of an integer MAC with operands of `bits` and a 32-bit sum.

    Raises
    ------
    InputError
        If `bits` is not 1 to 64.
    """
    kind = f"int{bits}"
    product, total = multiplier(kind, kind, node_nm), adder("int32", node_nm)
    whole = _cost("int_mac", bits * bits, node_nm)
    found = [
        SecondSource("horowitz2014", product.pj + total.pj, product.area_um2 + total.area_um2, product.status),
        SecondSource("wu2019accelergy", whole.pj, None, whole.status),
    ]
    if bits == 8:
        row = _netlist("dense_mac")
        pj = float(row["mac_slot_pj"]) * energy_factor(NETLISTS_NODE_NM, node_nm)
        area = float(row["area_um2"]) * area_factor(NETLISTS_NODE_NM, node_nm)
        found.append(SecondSource("gate-level simulation of hwmodels/reference/rtl", pj, area, "measured"))
    return found


@lru_cache(maxsize=8)
def _netlist(design: str) -> dict[str, Any]:
    path = "reference/rtl/results/gates_osu018.json"
    rows = json.loads(resources.files("hwmodels").joinpath(path).read_text(encoding="utf-8"))["rows"]
    found: dict[str, Any] = next(row for row in rows if row["design"] == design and row["density"] == 1.0)
    return found
