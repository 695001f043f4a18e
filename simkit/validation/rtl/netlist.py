"""A mapped netlist as arrays that a simulator can walk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .liberty import Cell

Index = NDArray[np.int32]

# Every gate of the library by its truth table (first pin slowest), so that a name can not mislead the simulator.
OPERATIONS = {
    "10": 0,  # NOT
    "01": 1,  # BUF
    "0001": 2,  # AND
    "0111": 3,  # OR
    "1110": 4,  # NAND
    "1000": 5,  # NOR
    "0110": 6,  # XOR
    "1001": 7,  # XNOR
    "11111110": 8,  # NAND3
    "10000000": 9,  # NOR3
    "10101000": 10,  # AOI21: not (a b or c)
    "11101010": 11,  # OAI21: not ((a or b) c)
    "11011000": 12,  # inverting MUX: not (c ? a : b)
    "1110111011100000": 13,  # AOI22
    "1111100010001000": 14,  # OAI22
}
ZERO, ONE = 0, 1


@dataclass(frozen=True, eq=False)
class Netlist:
    """Gates in evaluation order.

    Nets are numbered: 0 and 1 are constants, then input bits, then flop outputs, then gate outputs in order, so that
    gate i drives net ``first_gate + i``.

    Parameters
    ----------
    path : Path
        File it was read from; the same netlist in Verilog is beside it.
    ports : dict of str to int32[bits]
        Nets of each port, lowest bit first.
    inputs : int32[n]
        Nets of the input ports without the clock.
    flop_cells, gate_cells : list of Cell
        Library cells.
    flop_pins, gate_pins : int32[cells, 4]
        Nets at their input pins (without the clock), -1 past the last.
    runs : int64[r, 3]
        (operation, first gate, last gate + 1): gates of one level and kind.
    nets : int
        How many.
    """

    path: Path
    ports: dict[str, Index]
    inputs: Index
    flop_cells: list[Cell]
    flop_pins: Index
    gate_cells: list[Cell]
    gate_pins: Index
    runs: NDArray[np.int64]
    nets: int

    @property
    def first_flop(self) -> int:
        """Net of the first flop's output."""
        return self.first_gate - len(self.flop_cells)

    @property
    def first_gate(self) -> int:
        """Net of the first gate's output."""
        return self.nets - len(self.gate_cells)

    @property
    def cells(self) -> list[Cell]:
        """Flops, then gates."""
        return [*self.flop_cells, *self.gate_cells]

    @property
    def area_um2(self) -> float:
        """Sum of the cells' areas."""
        return sum(cell.area_um2 for cell in self.cells)


def read_netlist(path: Path, top: str, library: Mapping[str, Cell]) -> Netlist:
    """Read Yosys' JSON of a flat mapped module.

    Raises
    ------
    InputError
        If a cell is not in the library, a bit is undriven, or gates form a loop.
    """
    module = json.loads(path.read_text(encoding="utf-8"))["modules"][top]
    wires: dict[int | str, int] = {"0": ZERO, "1": ONE, "x": ZERO}
    clock_bits = set()
    for cell in module["cells"].values():
        kind = library.get(cell["type"])
        if kind is None:
            raise InputError(f"netlist '{path.name}': cell '{cell['type']}' is not a gate or flop of the library")
        if kind.clock:
            clock_bits.add(cell["connections"][kind.clock][0])
    inputs = [
        bit
        for port in module["ports"].values()
        if port["direction"] == "input"
        for bit in port["bits"]
        if bit not in clock_bits
    ]
    flops = [(library[c["type"]], c["connections"]) for c in module["cells"].values() if library[c["type"]].clock]
    gates = [(library[c["type"]], c["connections"]) for c in module["cells"].values() if not library[c["type"]].clock]
    for bit in [*inputs, *(pins[kind.output][0] for kind, pins in flops)]:
        wires[bit] = len(wires) - 1
    gates, runs = _in_order(gates, set(wires), path.name)
    first_gate = len(wires) - 1
    for kind, pins in gates:
        wires[pins[kind.output][0]] = len(wires) - 1
    ports = {
        name: np.array([wires[bit] for bit in port["bits"] if bit not in clock_bits], dtype=np.int32)
        for name, port in module["ports"].items()
    }
    return Netlist(
        path=path,
        ports=ports,
        inputs=np.array([wires[bit] for bit in inputs], dtype=np.int32),
        flop_cells=[kind for kind, _ in flops],
        flop_pins=_pins(flops, wires),
        gate_cells=[kind for kind, _ in gates],
        gate_pins=_pins(gates, wires),
        runs=runs,
        nets=first_gate + len(gates),
    )


def _pins(cells: list[tuple[Cell, dict[str, list[int | str]]]], wires: Mapping[int | str, int]) -> Index:
    table = np.full((len(cells), 4), -1, dtype=np.int32)
    for row, (kind, connections) in enumerate(cells):
        for column, pin in enumerate(kind.inputs):
            table[row, column] = wires[connections[pin][0]]
    return table


def _in_order(
    gates: list[tuple[Cell, dict[str, list[int | str]]]], ready: set[int | str], name: str
) -> tuple[list[tuple[Cell, dict[str, list[int | str]]]], NDArray[np.int64]]:
    """Sort gates by level, then kind; say where each run of one kind begins and ends."""
    driver = {pins[kind.output][0]: index for index, (kind, pins) in enumerate(gates)}
    readers: dict[int | str, list[int]] = {}
    missing = np.zeros(len(gates), dtype=np.int64)
    for index, (kind, pins) in enumerate(gates):
        for pin in kind.inputs:
            bit = pins[pin][0]
            if bit in driver:
                readers.setdefault(bit, []).append(index)
                missing[index] += 1
            elif bit not in ready:
                raise InputError(f"netlist '{name}': bit {bit} at a {kind.name} has no driver")
    operation = [OPERATIONS["".join("01"[bit] for bit in kind.truth)] for kind, _ in gates]
    order: list[int] = []
    runs: list[tuple[int, int, int]] = []
    level = [index for index in range(len(gates)) if not missing[index]]
    while level:
        level.sort(key=lambda index: operation[index])
        for kind_of_level, members in groupby(level, key=lambda index: operation[index]):
            first = len(order)
            order += members
            runs.append((kind_of_level, first, len(order)))
        following = []
        for index in level:
            kind, pins = gates[index]
            for reader in readers.get(pins[kind.output][0], []):
                missing[reader] -= 1
                if not missing[reader]:
                    following.append(reader)
        level = following
    if len(order) != len(gates):
        raise InputError(f"netlist '{name}': {len(gates) - len(order)} gates form a loop")
    return [gates[index] for index in order], np.array(runs, dtype=np.int64)
