"""Structure of an arch: the parts it is built of, what each action does to them, and what happens in a full cycle.

A family writes its structure once (`families`), and area, leakage and the price of every action follow from the
parts. Memories smaller than CACTI's smallest macro are priced as that macro; wider ones stand side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import InputError
from .arithmetic import Cost, register_file
from .interconnect import broadcast_pj
from .sram import macro

# Devices of the memories that a design does not name. Low standby power is what the published designs of these sizes
# leak; the fast cells of the grid would alone exceed the power of EIE's chip. Assumed.
SRAM_CELL = "itrs-lstp"
EDRAM_CELL = "lp-dram"
# Widths and sizes of one macro: of SRAM the part of CACTI's grid in which all sizes have all widths; of eDRAM up to the
# 256 bits for which DaDianNao states its read energy.
MACRO_BITS = {"sram": (64, 128), "edram": (128, 256)}
MACRO_BYTES = {"sram": (1024, 2**24), "edram": (65536, 2**24)}

# Share of a standard-cell block that its cells fill; the rest is routing and fillers. Assumed, the usual target of
# placement. DaDianNao's fillers take 41 % of the chip, EIE's 4 % of a PE that is nearly all SRAM.
UTILISATION = 0.7
# Area of an off-chip interface with its controller, mm2 per GB/s at any node, by the memory behind it. Assumed. DDR
# from the DRAM ports of the TPU (2 x 3 % of at most 331 mm2 for 34 GB/s make .58; one port of them .29): the geometric
# mean. LPDDR half of that; HBM about 16 mm2 for a stack of 256 GB/s.
INTERFACE_MM2_PER_GB_S = {"ddr": 0.41, "lpddr": 0.2, "hbm": 0.06}


class Part(NamedTuple):
    """One kind of part of an arch, all its instances together.

    Parameters
    ----------
    name : str
        Unique within the arch.
    kind : str
        ``sram``, ``edram``, ``regfile``, ``logic``, ``wire`` or ``interface``.
    instances : float
        How many stand side by side.
    area_mm2, leakage_w : float
        Of all instances.
    read_pj, write_pj : float
        Energy of one access or operation of one instance; a wire's of one bit delivered everywhere.
    width_bits : float
        Bits of one access; 1 for logic.
    cycle_s : float
        Least time between accesses of one instance, s; 0 where nothing is known.
    status : str
        ``published`` or ``assumed``.
    """

    name: str
    kind: str
    instances: float
    area_mm2: float
    leakage_w: float
    read_pj: float
    write_pj: float
    width_bits: float
    cycle_s: float
    status: str


class Use(NamedTuple):
    """One part's share of an action: `times` accesses of kind `verb` (``read`` or ``write``)."""

    part: str
    verb: str
    times: float


class WireSpec(NamedTuple):
    """A path whose length follows from the area: see `interconnect.path_mm`. `share` of the array it spans."""

    name: str
    targets: int
    topology: str
    share: float


@dataclass(frozen=True)
class Structure:
    """Parts by name, the uses of each action, and actions in a cycle at full activity."""

    parts: dict[str, Part]
    actions: dict[str, tuple[Use, ...]]
    peak: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass
class Builder:
    """Collects a structure at one node.

    Parameters
    ----------
    what : str
        Arch, for errors.
    node_nm : float
        Technology node, nm.
    """

    what: str
    node_nm: float
    parts: dict[str, Part] = field(default_factory=dict)
    wires: list[WireSpec] = field(default_factory=list)
    actions: dict[str, tuple[Use, ...]] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)

    def memory(self, name: str, kind: str, size_bytes: float, width_bits: float, count: float = 1.0) -> None:
        """Add `count` memories of `size_bytes`, each read or written `width_bits` at a time.

        Raises
        ------
        InputError
            If size, width or count is not above 0.
        """
        if min(size_bytes, width_bits, count) <= 0:
            raise InputError(
                f"{self.what}: memory '{name}' of {size_bytes:g} byte, {width_bits:g} bit wide, {count:g} times; all "
                "must be above 0"
            )
        cell = EDRAM_CELL if kind == "edram" else SRAM_CELL
        beside, banks, size, width = macros_of(kind, size_bytes, width_bits)
        cost = macro(cell, self.node_nm, size, width)
        macros = beside * banks
        self.parts[name] = Part(
            name,
            kind,
            count,
            count * macros * cost.area_mm2,
            count * macros * cost.leakage_w,
            beside * cost.read_pj,
            beside * cost.write_pj,
            width_bits,
            cost.cycle_s,
            "assumed" if size * macros > size_bytes * (1 + 1e-9) else cost.status,
        )

    def regfile(self, name: str, words: float, bits: float, count: float = 1.0) -> None:
        """Add `count` register files or FIFOs of `words` words, one word an access."""
        cost = register_file(words, bits, self.node_nm)
        self._logic(name, "regfile", cost, count, bits)

    def logic(self, name: str, cost: Cost, count: float = 1.0) -> None:
        """Add `count` instances of a circuit; an operation is a ``read``."""
        self._logic(name, "logic", cost, count, 1.0)

    def _logic(self, name: str, kind: str, cost: Cost, count: float, bits: float) -> None:
        area = count * cost.area_um2 * 1e-6 / UTILISATION
        leakage = area * logic_leakage_w_per_mm2(self.node_nm)
        self.parts[name] = Part(name, kind, count, area, leakage, cost.pj, cost.pj, bits, 0.0, cost.status)

    def wire(self, name: str, targets: float, topology: str, share: float = 1.0) -> None:
        """Add a path to `targets` places spread over a `share` of the array's area."""
        self.wires.append(WireSpec(name, max(1, round(targets)), topology, share))

    def interface(self, bytes_per_s: float, memory: str) -> None:
        """Add the interface to ``ddr``, ``lpddr`` or ``hbm`` of a bandwidth, all directions together."""
        area = bytes_per_s * 1e-9 * INTERFACE_MM2_PER_GB_S[memory]
        self.parts["interface"] = Part("interface", "interface", 1, area, 0.0, 0.0, 0.0, 1.0, 0.0, "assumed")

    def action(self, name: str, *uses: tuple[str, str, float], peak: float = 0.0) -> None:
        """Say what one action does: (part, ``read`` or ``write``, bits of a memory or wire, operations of logic)."""
        self.actions[name] = tuple(Use(*use) for use in uses)
        self.peak[name] = peak

    def structure(self, *notes: str) -> Structure:
        """Close the description: wires get their lengths from the area, bits become accesses.

        Raises
        ------
        InputError
            If an action uses a part that is not there.
        """
        area = sum(part.area_mm2 for part in self.parts.values() if part.kind != "interface")
        parts = dict(self.parts)
        for wire in self.wires:
            pj = broadcast_pj(1.0, area * wire.share, wire.targets, wire.topology, self.node_nm)
            parts[wire.name] = Part(wire.name, "wire", 1, 0.0, 0.0, pj, pj, 1.0, 0.0, "assumed")
        actions: dict[str, tuple[Use, ...]] = {}
        for name, uses in self.actions.items():
            for use in uses:
                if use.part not in parts:
                    raise InputError(f"{self.what}: action '{name}' uses a part '{use.part}' that the arch lacks")
            actions[name] = tuple(use._replace(times=use.times / parts[use.part].width_bits) for use in uses)
        return Structure(parts, actions, dict(self.peak), notes)


def macros_of(kind: str, size_bytes: float, width_bits: float) -> tuple[int, int, float, float]:
    """Split a memory into macros: side by side for the width, banks for the size; size and width of each.

    Returns
    -------
    tuple
        Macros that answer one access together, banks of which one answers, and byte and bit of one macro. A memory
        below the smallest macro takes that macro.
    """
    (least_bits, most_bits), (least_bytes, most_bytes) = MACRO_BITS[kind], MACRO_BYTES[kind]
    beside = max(1, math.ceil(width_bits / most_bits))
    width = most_bits if beside > 1 else max(width_bits, least_bits)
    banks = max(1, math.ceil(size_bytes / beside / most_bytes))
    return beside, banks, max(size_bytes / beside / banks, least_bytes), float(width)


def logic_leakage_w_per_mm2(node_nm: float) -> float:
    """Leakage of standard cells, W/mm2: that of CACTI's low-operating-power devices in a 64 KiB SRAM (assumed)."""
    node = min(node_nm, 90.0)
    cost = macro("itrs-lop", node, 65536, 64)
    return cost.leakage_w / cost.area_mm2
