"""OpenSTA's vectorless power of a netlist, as a second opinion on the pricing of toggles."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from . import power
from .tools import run_logged


def opensta_power_w(netlist: Path, top: str, liberty: Path, period_ns: float, activity: float) -> float | None:
    """Ask OpenSTA for the power at one activity of all nets.

    Parameters
    ----------
    netlist : Path
        ``netlist.v`` beside the JSON that was read.
    top : str
        Its module.
    liberty : Path
        Cell library.
    period_ns : float
        Clock period.
    activity : float
        Transitions of every net in a cycle.

    Returns
    -------
    float or None
        W; None where OpenSTA (``sta``) is not installed.

    Raises
    ------
    UnavailableError
        If it fails.
    """
    sta = shutil.which("sta")
    if sta is None:
        return None
    folder = netlist.parent
    clock = f"create_clock -name clk -period {period_ns} [get_ports clk]"
    script = [
        f"read_liberty {liberty}",
        "read_verilog netlist.v",
        f"link_design {top}",
        clock,
        f"set_input_transition {power.INPUT_SLEW_NS} [all_inputs]",
        f"set_load {power.OUTPUT_LOAD_PF} [all_outputs]",
        f"set_power_activity -global -activity {activity} -duty 0.5",
        "report_power -digits 8",
    ]
    (folder / "power.tcl").write_text("\n".join(script) + "\n", encoding="utf-8")
    log = folder / "opensta.log"
    run_logged([sta, "-exit", "power.tcl"], log, f"OpenSTA on '{top}'")
    total = re.search(r"^Total(?:\s+\S+){3}\s+(\S+)", log.read_text(encoding="utf-8"), flags=re.M)
    return float(total[1]) if total else None
