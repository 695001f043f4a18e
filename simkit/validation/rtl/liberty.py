"""Cells of a Liberty library: functions, pin capacitances, and NLDM tables of delay, slew and energy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

_TOKEN = re.compile(r'"[^"]*"|[{}();:,]|[^\s{}();:,"]+')
Floats = NDArray[np.float64]


@dataclass
class Group:
    """A Liberty group ``kind (name) { attributes, groups }``; a repeated attribute keeps its last value."""

    kind: str
    name: str
    attributes: dict[str, list[str]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def all(self, kind: str) -> list[Group]:
        """Groups of a kind, in order."""
        return [group for group in self.groups if group.kind == kind]

    def text(self, name: str, default: str = "") -> str:
        """Return an attribute as text."""
        return self.attributes[name][0] if name in self.attributes else default

    def number(self, name: str, default: float = 0.0) -> float:
        """Return an attribute as a number."""
        return float(self.attributes[name][0]) if name in self.attributes else default


@dataclass(frozen=True, eq=False)
class Table:
    """An NLDM table over load (pF) and input slew (ns), or over slew alone (one load of 0).

    Outside its axes it is extended linearly, as timing tools do.
    """

    loads: Floats
    slews: Floats
    values: Floats

    def at(self, load_pf: float, slew_ns: float) -> float:
        """Interpolate bilinearly."""
        j, y = _place(self.slews, slew_ns)
        if len(self.loads) == 1:
            return float(self.values[0, j] * (1 - y) + self.values[0, j + 1] * y)
        i, x = _place(self.loads, load_pf)
        low = self.values[i, j] * (1 - y) + self.values[i, j + 1] * y
        high = self.values[i + 1, j] * (1 - y) + self.values[i + 1, j + 1] * y
        return float(low * (1 - x) + high * x)


def _place(axis: Floats, value: float) -> tuple[int, float]:
    i = min(max(int(np.searchsorted(axis, value)) - 1, 0), len(axis) - 2)
    return i, float((value - axis[i]) / (axis[i + 1] - axis[i]))


@dataclass(frozen=True, eq=False)
class Arc:
    """From a related pin to the output; ``delay`` and ``slew`` by the output's edge, ``rise`` or ``fall``."""

    pin: str
    sense: str
    delay: dict[str, Table]
    slew: dict[str, Table]


@dataclass(frozen=True, eq=False)
class Cell:
    """A library cell.

    Parameters
    ----------
    name : str
        Name in the library.
    area_um2, leakage_nw : float
        Area and leakage.
    inputs : dict of str to float
        Pin -> capacitance, pF; without the clock of a flop.
    output : str
        The one output.
    truth : tuple of bool
        Output by input row, first input slowest; empty for a flop.
    clock : str
        Clock pin of a rising-edge flop, else empty.
    arcs : list of Arc
        Timing to the output.
    energy : dict
        Related pin -> {rise, fall} internal energy of one output transition, pJ.
    pin_energy : dict
        Input pin -> {rise, fall} internal energy of its own transition, pJ (flops).
    setup : list of Table
        Setup time, ns, over the clock's and the data's slew.
    """

    name: str
    area_um2: float
    leakage_nw: float
    inputs: dict[str, float]
    output: str
    truth: tuple[bool, ...]
    clock: str
    clock_pf: float
    arcs: list[Arc]
    energy: dict[str, dict[str, Table]]
    pin_energy: dict[str, dict[str, Table]]
    setup: list[Table]


def parse(text: str) -> Group:
    """Parse Liberty text into its outermost group.

    Raises
    ------
    InputError
        If the text is not a Liberty library.
    """
    clean = re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\n", " ")
    tokens = iter(_TOKEN.findall(clean))
    try:
        library = _statement(next(tokens), tokens)
    except (StopIteration, ValueError) as damaged:
        raise InputError("the Liberty file ends early or is not one; install qflow-tech-osu018 again") from damaged
    if not isinstance(library, Group) or library.kind != "library":
        raise InputError("the Liberty file does not begin with 'library'; name a cell library")
    return library


def _statement(head: str, tokens: Iterator[str]) -> Group | tuple[str, list[str]]:
    mark = next(tokens)
    if mark == ":":
        value = []
        while (token := next(tokens)) != ";":
            value.append(token.strip('"'))
            if token.startswith('"'):
                next(tokens)
                break
        return head, [" ".join(value)]
    if mark != "(":
        raise ValueError(mark)
    arguments = []
    while (token := next(tokens)) != ")":
        if token != ",":
            arguments.append(token.strip('"'))
    if (mark := next(tokens)) != "{":
        return head, arguments
    group = Group(head, arguments[0] if arguments else "")
    while (token := next(tokens)) != "}":
        if token == ";":
            continue
        item = _statement(token, tokens)
        if isinstance(item, Group):
            group.groups.append(item)
        else:
            group.attributes[item[0]] = item[1]
    return group


def _table(group: Group) -> Table:
    def axis(name: str) -> Floats:
        return np.array([float(x) for x in group.text(name).split(",")])

    rows = [[float(x) for x in row.split(",")] for row in group.attributes["values"]]
    if "index_2" in group.attributes:
        return Table(axis("index_1"), axis("index_2"), np.array(rows))
    return Table(np.zeros(1), axis("index_1"), np.array(rows))


def _tables(group: Group, suffix: str, prefix: str = "") -> dict[str, Table]:
    return {edge: _table(inner) for edge in ("rise", "fall") for inner in group.all(f"{prefix}{edge}{suffix}")}


def truth_table(function: str, pins: list[str]) -> tuple[bool, ...]:
    """Tabulate a Liberty function (``!``, ``'``, ``*``, space or ``&``, ``+``, ``|``, ``^``), first pin slowest."""
    text = re.sub(r"(\w+)\s*'", r"(!\1)", function)
    text = re.sub(r"(?<=[\w)])\s+(?=[\w(!])", "&", text).replace("*", "&").replace("+", "|").replace("!", "~")
    if not re.fullmatch(r"[\w&|^~() ]*", text):
        raise InputError(f"Liberty function '{function}' has an operator that is not understood")
    code = compile(text, "function", "eval")
    rows = product((0, 1), repeat=len(pins))
    return tuple(bool(eval(code, {"__builtins__": {}}, dict(zip(pins, row, strict=True))) & 1) for row in rows)


def _cell(group: Group) -> Cell | None:
    pins = {pin.name: pin for pin in group.all("pin")}
    outputs = [pin for pin in pins.values() if pin.text("direction") == "output"]
    flop = group.all("ff")
    clock = flop[0].text("clocked_on") if flop else ""
    if len(outputs) != 1 or clock not in ("", *pins) or group.all("latch") or "three_state" in outputs[0].attributes:
        return None
    inputs = {name: pin.number("capacitance") for name, pin in pins.items() if pin.text("direction") == "input"}
    clock_pf = inputs.pop(clock, 0.0)
    out = outputs[0]
    setups = [
        table
        for name in inputs
        for timing in pins[name].all("timing")
        if timing.text("timing_type").startswith("setup")
        for table in _tables(timing, "_constraint").values()
    ]
    arcs = [
        Arc(t.text("related_pin"), t.text("timing_sense"), _tables(t, "", "cell_"), _tables(t, "_transition"))
        for t in out.all("timing")
    ]
    return Cell(
        name=group.name,
        area_um2=group.number("area"),
        leakage_nw=group.number("cell_leakage_power"),
        inputs=inputs,
        output=out.name,
        truth=() if flop else truth_table(out.text("function"), list(inputs)),
        clock=clock,
        clock_pf=clock_pf,
        arcs=arcs,
        energy={p.text("related_pin"): _tables(p, "_power") for p in out.all("internal_power")},
        pin_energy={
            name: _tables(power, "_power")
            for name in [*inputs, *([clock] if clock else [])]
            for power in pins[name].all("internal_power")
        },
        setup=setups,
    )


@lru_cache(maxsize=4)
def load_library(path: Path) -> dict[str, Cell]:
    """Read the cells with one output: gates and rising-edge flops.

    Raises
    ------
    InputError
        If the file is not a Liberty library.
    """
    library = parse(path.read_text(encoding="utf-8", errors="replace"))
    cells = (_cell(group) for group in library.all("cell"))
    return {cell.name: cell for cell in cells if cell is not None}
