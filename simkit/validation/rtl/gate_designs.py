"""The designs that are taken to gates, and what drives each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import stimuli
from .stimuli import Stimulus
from .stimuli_eie import eie


@dataclass(frozen=True)
class GateDesign:
    """A design that is synthesised.

    Parameters
    ----------
    name, source : str
        Name here, and file in ``hwmodels/reference/rtl``.
    module, params : str, dict
        Module and parameters; `ports` are those of the wrapper around it, with their widths.
    macs : int
        Multipliers; areas are compared by multiplier.
    twin : str
        The dense design it stands beside; empty for a dense one.
    """

    name: str
    source: str
    module: str
    params: tuple[tuple[str, int], ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    macs: int
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
            macs=16,
        ),
        GateDesign(
            "tensordash_pe",
            "tensordash.sv",
            "td_tile",
            (("ROWS", 1), ("COLS", 1), ("WIDTH", 8), ("ACC", 32)),
            (("rst", 1), ("in_valid", 3), ("in_last", 3), ("in_a", 384), ("in_b", 384)),
            (("take", 2), ("advance", 2), ("out_valid", 1), ("psum", 32)),
            macs=16,
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
            macs=16,
            twin="dense_pe",
        ),
        GateDesign(
            "dense_systolic_pe",
            "dense.sv",
            "dense_ws_pe",
            (("WIDTH", 8), ("ACC", 32)),
            (("load", 1), ("w_in", 8), ("a_in", 8), ("psum_in", 32)),
            (("w", 8), ("a", 8), ("psum", 32)),
            macs=1,
        ),
        GateDesign(
            "systolic_pe",
            "systolic.sv",
            "ws_pe",
            (("WIDTH", 8), ("ACC", 32)),
            (("load", 1), ("w_in", 8), ("a_in", 8), ("zero_in", 1), ("psum_in", 32)),
            (("w", 8), ("a", 8), ("zero", 1), ("psum", 32)),
            macs=1,
            twin="dense_systolic_pe",
        ),
        GateDesign(
            "dense_mac",
            "dense.sv",
            "dense_pe",
            (("LANES", 1), ("WIDTH", 8), ("ACC", 32)),
            (("rst", 1), ("in_valid", 1), ("in_last", 1), ("in_a", 8), ("in_b", 8)),
            (("out_valid", 1), ("psum", 32)),
            macs=1,
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
            macs=2,
            twin="dense_mac",
        ),
        GateDesign(
            "eie_pe",
            "eie.sv",
            "eie_pe",
            (("RING", 8), ("COLUMN", 8), ("ENTRY", 12), ("LOCAL", 6), ("WIDTH", 16), ("ACC", 32)),
            (
                ("rst", 1),
                ("push", 1),
                ("push_column", 8),
                ("push_value", 16),
                ("ptr_first", 12),
                ("ptr_end", 12),
                ("ent_run", 4),
                ("ent_code", 4),
                ("weight", 16),
                ("rd_sum", 32),
            ),
            (
                ("full", 1),
                ("idle", 1),
                ("ptr_column", 8),
                ("ent_at", 12),
                ("code", 4),
                ("rd_at", 6),
                ("sum_at", 6),
                ("sum_data", 32),
                ("sum_we", 1),
            ),
            macs=1,
            twin="dense_mac_16",
        ),
        GateDesign(
            "dense_mac_16",
            "dense.sv",
            "dense_pe",
            (("LANES", 1), ("WIDTH", 16), ("ACC", 32)),
            (("rst", 1), ("in_valid", 1), ("in_last", 1), ("in_a", 16), ("in_b", 16)),
            (("out_valid", 1), ("psum", 32)),
            macs=1,
        ),
    )
}

STIMULI: dict[str, Callable[[float, int, np.random.Generator], Stimulus]] = {
    "dense_pe": stimuli.dense_pe,
    "tensordash_pe": stimuli.tensordash,
    "cnvlutin_lanes": stimuli.cnvlutin,
    "dense_systolic_pe": stimuli.dense_systolic_pe,
    "systolic_pe": stimuli.systolic_pe,
    "dense_mac": stimuli.dense_mac,
    "sparten_cluster": stimuli.sparten,
    "eie_pe": eie,
    "dense_mac_16": stimuli.dense_mac_16,
}
