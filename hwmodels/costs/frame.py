"""Parts that nearly all archs share, taken from the fields of an arch."""

from __future__ import annotations

from ..arch import Arch
from ..mapping.levels import LevelSpec, plain
from .arithmetic import adder, gated_mac, mac
from .structure import Builder

TRANSFER = "dram.transfer"


def _memory_kind(arch: Arch) -> str:
    """Kind of off-chip memory: of the top level, or from the rows that price its transfer; LPDDR where none says."""
    if arch.memory.levels is not None:
        said: str = arch.memory.levels[0].kind
    else:
        said = " ".join(arch.actions[TRANSFER].rows) if TRANSFER in arch.actions else ""
    return next((kind for kind in ("lpddr", "hbm", "ddr") if kind in said), "lpddr")


class Frame(Builder):
    """A builder with the parts that nearly all archs share: MACs, buffers, interface, vector unit, accumulators."""

    def __init__(self, arch: Arch):
        super().__init__(f"arch '{arch.name}'", float(arch.node.value))
        self.arch = arch
        self.a_bits, self.w_bits, self.acc_bits = (
            int(arch.bits[name].value) for name in ("activation", "weight", "accumulator")
        )
        index = arch.memory.index_bits
        self.index_bits = int(index.value) if index else 0
        floating = arch.kernel == "tensordash" and self.a_bits == 32
        self.a_type, self.w_type, self.acc_type = (
            ("fp32" if floating else f"int{bits}") for bits in (self.a_bits, self.w_bits, self.acc_bits)
        )

    def param(self, name: str) -> float:
        """Return a parameter of the kernel as a number."""
        return float(self.arch.param(name))

    def macs(self, count: float, name: str = "mac") -> None:
        """Add `count` multiply-accumulate units of the arch's widths; a zero operand holds one still."""
        self.logic(name, mac(self.a_type, self.w_type, self.acc_type, self.node_nm), count)
        self.logic(f"{name}_gated", gated_mac(self.a_type, self.w_type, self.node_nm)._replace(area_um2=0.0), count)
        self.action("mac.compute", (name, "read", 1), peak=count)
        self.action("mac.gated", (f"{name}_gated", "read", 1))

    def buffers(
        self, a_width: float, w_width: float, kind: str = "sram", a_count: float = 1, w_count: float = 1
    ) -> None:
        """Add both buffers and their fills: as the memory levels state them, or the YAML's bytes over `count` each.

        A level that states no width gets the design's.
        """
        memory = self.arch.memory
        if memory.levels is None:
            self.memory("activation_buffer", kind, float(memory.activation_buffer.value) / a_count, a_width, a_count)
            self.memory("weight_buffer", kind, float(memory.weight_buffer.value) / w_count, w_width, w_count)
        else:
            a_level, w_level = (
                next(level for level in memory.levels[1:] if operand in level.holds)
                for operand in ("activation", "weight")
            )
            self._level("activation_buffer", a_level, a_width)
            self._level("weight_buffer", w_level, w_width)
            if a_level is w_level:
                # one memory under two names: its area and leakage count once
                self.parts["weight_buffer"] = self.parts["weight_buffer"]._replace(area_mm2=0.0, leakage_w=0.0)
        self.action("activation_buffer.fill", ("activation_buffer", "write", 8))
        self.action("weight_buffer.fill", ("weight_buffer", "write", 8))

    def _level(self, name: str, level: LevelSpec, usual_width: float) -> None:
        """Add a memory level, each of its banks an instance."""
        assert level.size is not None
        banks = plain(level.banks)
        size, count = float(level.size.value) / banks, banks * plain(level.count)
        width = usual_width / banks if level.width is None else float(level.width.value)
        if level.kind == "regfile":
            self.regfile(name, size * 8 / width, width, count)
        else:
            self.memory(name, level.kind, size, width, count)

    def off_chip(self, directions: int = 1) -> None:
        """Add the interface; at full activity every link is busy in every direction."""
        rate = float(self.arch.memory.bandwidth.value) * directions
        self.interface(rate, _memory_kind(self.arch))
        self.action(TRANSFER, peak=rate / self.arch.clock_hz)

    def vector(self, buffer: str = "activation_buffer") -> None:
        """Add the vector unit, if the arch states one; its values come from and go to `buffer`."""
        if self.arch.vector_lanes is None:
            return
        self.logic("vector_lane", mac("fp16", "fp16", "fp16", self.node_nm), float(self.arch.vector_lanes.value))
        self.action("vector.element", ("vector_lane", "read", 1), (buffer, "read", 16), (buffer, "write", 16))

    def accumulators(self, count: float, words: float = 1, adds: bool = False) -> None:
        """Add registers of partial sums, read and written at each update; `adds` where no MAC holds the adder."""
        self.regfile("accumulator", words, self.acc_bits, count)
        uses = [("accumulator", "read", float(self.acc_bits)), ("accumulator", "write", float(self.acc_bits))]
        if adds:
            self.logic("sum", adder(self.acc_type, self.node_nm), count)
            uses.append(("sum", "read", 1.0))
        self.action("accumulator.update", *uses, peak=count)
