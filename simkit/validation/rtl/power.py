"""Timing and energy of a netlist from Liberty tables: loads, slews, critical path, energy of toggles.

Energy of one transition of a cell's output, with E_int the table's internal energy (mean of rise and fall, over the
related pins weighted by how often each toggles), C the capacitance of the pins it drives and V the supply:

    E = E_int(load, slew) + C V^2 / 2

A flop adds its clock pin in every cycle (both edges) and its data pin at every transition of the data; leakage is
power times the period. Wires, glitches within a cycle and the buffers of a clock tree are left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .liberty import Arc, Cell, Table
from .netlist import Netlist

Floats = NDArray[np.float64]
SUPPLY_V = 1.8
OUTPUT_LOAD_PF = 0.03
INPUT_SLEW_NS = 0.06
EDGES = ("rise", "fall")


class Timing(NamedTuple):
    """Static timing at the library's typical corner.

    Parameters
    ----------
    load_pf : float64[nets]
        Capacitance that each net drives.
    slew_ns : float64[nets, 2]
        Slowest rising and falling transition.
    critical_path_ns : float
        Longest delay from a flop or input to a flop (with its setup time) or output.
    """

    load_pf: Floats
    slew_ns: Floats
    critical_path_ns: float


class Energy(NamedTuple):
    """Energy of one cycle of one trace, pJ, by cause; leakage is per nanosecond of the period."""

    internal_pj: float
    switching_pj: float
    clock_pj: float
    leakage_pj_per_ns: float

    def total_pj(self, period_ns: float) -> float:
        """Energy of a cycle at a clock period."""
        return self.internal_pj + self.switching_pj + self.clock_pj + self.leakage_pj_per_ns * period_ns


def loads(netlist: Netlist) -> Floats:
    """Pin capacitance on each net, pF; an output port counts `OUTPUT_LOAD_PF`."""
    load = np.zeros(netlist.nets)
    for cells, pins in ((netlist.flop_cells, netlist.flop_pins), (netlist.gate_cells, netlist.gate_pins)):
        for cell, row in zip(cells, pins, strict=True):
            for net, capacitance in zip(row, cell.inputs.values(), strict=False):
                load[net] += capacitance
    driven = set(netlist.inputs.tolist())
    for net in (net for nets in netlist.ports.values() for net in nets.tolist() if net not in driven):
        load[net] += OUTPUT_LOAD_PF
    return load


def timing(netlist: Netlist) -> Timing:
    """Propagate slews and arrival times through every arc."""
    load = loads(netlist)
    slew = np.full((netlist.nets, 2), INPUT_SLEW_NS)
    arrival = np.zeros((netlist.nets, 2))
    for flop, cell in enumerate(netlist.flop_cells):
        net = netlist.first_flop + flop
        for edge, name in enumerate(EDGES):
            arc = cell.arcs[0]
            arrival[net, edge] = arc.delay[name].at(load[net], INPUT_SLEW_NS)
            slew[net, edge] = arc.slew[name].at(load[net], INPUT_SLEW_NS)
    for gate, cell in enumerate(netlist.gate_cells):
        net = netlist.first_gate + gate
        pins = dict(zip(cell.inputs, netlist.gate_pins[gate].tolist(), strict=False))
        _through(cell, pins, net, load[net], slew, arrival)
    ends = [arrival[nets].max() for nets in netlist.ports.values() if len(nets)]
    for pins_row, cell in zip(netlist.flop_pins, netlist.flop_cells, strict=True):
        setup = max((table.at(INPUT_SLEW_NS, slew[pins_row[0]].max()) for table in cell.setup), default=0.0)
        ends.append(arrival[pins_row[0]].max() + setup)
    return Timing(load, slew, float(max(ends)))


def _through(cell: Cell, pins: dict[str, int], net: int, load: float, slew: Floats, arrival: Floats) -> None:
    worst_slew, worst_arrival = np.zeros(2), np.zeros(2)
    for arc in cell.arcs:
        source = pins[arc.pin]
        for edge, name in enumerate(EDGES):
            for cause in _causes(arc, edge):
                worst_slew[edge] = max(worst_slew[edge], arc.slew[name].at(load, slew[source, cause]))
                worst_arrival[edge] = max(
                    worst_arrival[edge], arrival[source, cause] + arc.delay[name].at(load, slew[source, cause])
                )
    slew[net], arrival[net] = worst_slew, worst_arrival


def _causes(arc: Arc, edge: int) -> tuple[int, ...]:
    return {"positive_unate": (edge,), "negative_unate": (1 - edge,)}.get(arc.sense, (0, 1))


def energy(netlist: Netlist, timed: Timing, toggles_per_cycle: Floats) -> Energy:
    """Price the transitions of an average cycle.

    Parameters
    ----------
    netlist : Netlist
        The gates.
    timed : Timing
        From `timing`.
    toggles_per_cycle : float64[nets]
        Transitions of each net in a cycle.
    """
    internal = switching = clock = 0.0
    slews = timed.slew_ns.mean(axis=1)
    half_cv2 = 0.5 * timed.load_pf * SUPPLY_V**2
    for gate, cell in enumerate(netlist.gate_cells):
        net, pins = netlist.first_gate + gate, netlist.gate_pins[gate, : len(cell.inputs)]
        if toggles_per_cycle[net]:
            causes = toggles_per_cycle[pins] * observability(cell)
            weights = causes / causes.sum() if causes.any() else np.full(len(pins), 1 / len(pins))
            internal += toggles_per_cycle[net] * float(weights @ _per_pin(cell, timed.load_pf[net], slews[pins]))
    for flop, cell in enumerate(netlist.flop_cells):
        net, data = netlist.first_flop + flop, netlist.flop_pins[flop, 0]
        internal += toggles_per_cycle[net] * _mean(cell.energy[cell.clock], timed.load_pf[net], INPUT_SLEW_NS)
        internal += toggles_per_cycle[data] * _mean(cell.pin_energy["D"], 0.0, slews[data])
        clock += 2 * _mean(cell.pin_energy[cell.clock], 0.0, INPUT_SLEW_NS) + cell.clock_pf * SUPPLY_V**2
    switching = float((toggles_per_cycle * half_cv2).sum())
    leakage_nw = sum(cell.leakage_nw for cell in netlist.cells)
    return Energy(float(internal), switching, clock, leakage_nw * 1e-6)


def energy_as_opensta(netlist: Netlist, timed: Timing, activity: float) -> Energy:
    """Price a uniform activity the way OpenSTA 2.0 does, for comparison with it.

    It differs from `energy` in three ways, each seen on single cells: every transition is charged the internal energy
    of a rise and of a fall, where Liberty gives one of them to each; an output's is the sum over pins of duty times
    energy, where the duties of a cell need not sum to one; clock and primary input pins switch for nothing.

    Parameters
    ----------
    netlist, timed
        As in `energy`.
    activity : float
        Transitions of every net in a cycle, at a duty of one half.
    """
    internal = clock = 0.0
    slews = timed.slew_ns.mean(axis=1)
    for gate, cell in enumerate(netlist.gate_cells):
        net, pins = netlist.first_gate + gate, netlist.gate_pins[gate, : len(cell.inputs)]
        internal += activity * 2 * float(_duties(cell) @ _per_pin(cell, timed.load_pf[net], slews[pins]))
    for flop, cell in enumerate(netlist.flop_cells):
        net, data = netlist.first_flop + flop, netlist.flop_pins[flop, 0]
        internal += activity * _mean(cell.energy[cell.clock], timed.load_pf[net], 0.0)
        internal += activity * 2 * _mean(cell.pin_energy["D"], 0.0, slews[data])
        clock += 4 * _mean(cell.pin_energy[cell.clock], 0.0, INPUT_SLEW_NS)
    driven = timed.load_pf[netlist.first_flop :]
    leakage_nw = sum(cell.leakage_nw for cell in netlist.cells)
    return Energy(float(internal), float(activity * 0.5 * driven.sum() * SUPPLY_V**2), clock, leakage_nw * 1e-6)


@lru_cache(maxsize=256)
def observability(cell: Cell) -> Floats:
    """Share of the other inputs' values at which a pin decides the output, by pin."""
    table = np.array(cell.truth).reshape((2,) * len(cell.inputs))
    return np.array([(table.take(0, axis=pin) ^ table.take(1, axis=pin)).mean() for pin in range(table.ndim)])


@lru_cache(maxsize=256)
def _duties(cell: Cell) -> Floats:
    table = np.array(cell.truth, dtype=np.float64).reshape((2,) * len(cell.inputs))
    zero, one = (np.array([table.take(v, axis=pin).mean() for pin in range(table.ndim)]) for v in (0, 1))
    return np.asarray(one * (1 - zero) + zero * (1 - one))


def _per_pin(cell: Cell, load_pf: float, slews_ns: Floats) -> Floats:
    return np.array([_mean(cell.energy[pin], load_pf, slew) for pin, slew in zip(cell.inputs, slews_ns, strict=True)])


def _mean(tables: dict[str, Table], load_pf: float, slew_ns: float) -> float:
    return sum(table.at(load_pf, slew_ns) for table in tables.values()) / len(tables)
