"""Structure of every dataflow that ships: which parts an arch of it has, and what each counted action does.

A family is a function of the arch; `register` adds one for a kernel of another package. Numbers that a paper does not
give are named constants here, marked assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..arch import Arch
from ..errors import InputError, nearest
from .arithmetic import gates, mac, multiplier
from .frame import TRANSFER, Frame
from .structure import Structure

Family = Callable[[Arch], Structure]
FAMILIES: dict[str, Family] = {}

# K of a dot product at full activity: how often outputs leave. Assumed.
PEAK_K = 1024
# Matches of a chunk of 128 at full activity, density .35 on both sides; prefix sums are computed once a chunk. Assumed.
MATCHES_PER_CHUNK = 16
# Density at full activity of a two-sided design: share of a line's stored values that find a partner. Assumed.
PEAK_DENSITY = 0.35
# Buffer of a SparTen CU for both operands' chunks, byte. Recalled from the paper (.97 KB a MAC), so assumed.
CU_BUFFER_BYTES = 1024
CU_LINE_BITS = 64
# Entries of a column in one PE of EIE: 4096 rows of density .09 over 64 PEs, as in its layer Alex-7.
ENTRIES_PER_COLUMN = 5.8
# Words that a scratchpad of TensorDash reads for each one that it takes from its buffer. Assumed.
SPAD_REUSE = 8
SPAD_BYTES = 1024


def register(kernel: str) -> Callable[[Family], Family]:
    """Register the structure of a kernel family: ``@register("mine")`` over ``def mine(arch): ...``."""

    def keep(family: Family) -> Family:
        FAMILIES[kernel] = family
        return family

    return keep


def has_structure(arch: Arch) -> bool:
    """Say whether the arch's kernel has a structure; estimates and GPUs are priced by tables alone."""
    return arch.kernel in FAMILIES


def structure_of(arch: Arch) -> Structure:
    """Build the structure of an arch.

    Raises
    ------
    InputError
        If its kernel has none.
    """
    if arch.kernel not in FAMILIES:
        raise InputError(
            f"arch '{arch.name}': kernel '{arch.kernel}' states no structure to derive costs from; register one with "
            "hwmodels.costs.families.register" + nearest(arch.kernel, FAMILIES)
        )
    return FAMILIES[arch.kernel](arch)


def _tiled(arch: Arch) -> Frame:
    """What DaDianNao and Cnvlutin share: eDRAM beside each tile's multipliers, one eDRAM in the middle."""
    design = Frame(arch)
    lanes, filters, tiles = (design.param(name) for name in ("lanes", "filters", "tiles"))
    design.macs(lanes * filters * tiles)
    design.buffers(lanes * design.a_bits, lanes * filters * design.w_bits, "edram", w_count=tiles)
    design.accumulators(filters * tiles, adds=True)
    # activations wait in a latch of each tile, partial sums and outputs in another
    design.regfile("nbin", 64, lanes * design.a_bits, tiles)
    design.regfile("nbout", 64, filters * design.acc_bits, tiles)
    design.wire("fat_tree", tiles, "tree")
    design.off_chip(directions=2)
    design.vector()
    return design


@register("dadiannao")
def dadiannao(arch: Arch) -> Structure:
    """Four duplex links; a word is read once and goes over the fat tree into the latch of every tile."""
    design = _tiled(arch)
    lanes, filters, tiles = (design.param(name) for name in ("lanes", "filters", "tiles"))
    bits = design.a_bits
    design.action(
        "activation_buffer.read",
        ("activation_buffer", "read", bits),
        ("fat_tree", "read", bits),
        ("nbin", "write", bits * tiles),
        ("nbin", "read", bits * tiles),
        peak=lanes,
    )
    out = ("nbout", "write", bits), ("fat_tree", "read", bits), ("activation_buffer", "write", bits)
    design.action("activation_buffer.write", *out, peak=filters * tiles * lanes / PEAK_K)
    design.action("weight_buffer.read", ("weight_buffer", "read", design.w_bits), peak=lanes * filters * tiles)
    return design.structure()


@register("cnvlutin")
def cnvlutin(arch: Arch) -> Structure:
    """DaDianNao with an offset at each activation, a dispatcher, an encoder, and latches split by lane."""
    design = _tiled(arch)
    lanes, filters, tiles = (design.param(name) for name in ("lanes", "filters", "tiles"))
    word = design.a_bits + design.index_bits
    share = word / design.a_bits
    # the buffer holds the offsets beside the values
    design.memory("activation_buffer", "edram", float(arch.memory.activation_buffer.value) * share, lanes * word)
    # each lane reads its own place of the weights, so a tile's eDRAM is split by lane
    own = float(arch.memory.weight_buffer.value) / tiles / lanes
    design.memory("weight_buffer", "edram", own, filters * design.w_bits, tiles * lanes)
    # a brick waits for each lane in the dispatcher; every lane of a tile has its own latch of weights and sums
    brick = design.param("brick")
    design.regfile("dispatcher", brick, word, 2 * lanes)
    design.regfile("lane_offset", 64, design.index_bits, lanes * tiles)
    design.logic("encoder", gates(4 * design.a_bits, design.node_nm), filters)
    steer = ("dispatcher", "write", word), ("dispatcher", "read", word), ("fat_tree", "read", word)
    design.action("activation_buffer.read", ("activation_buffer", "read", word), peak=lanes)
    latch = ("nbin", "write", design.a_bits * tiles), ("nbin", "read", design.a_bits * tiles)
    design.action(
        "dispatcher.broadcast", *steer, *latch, ("lane_offset", "read", design.index_bits * tiles), peak=lanes
    )
    design.action(
        "encoder.output",
        ("encoder", "read", 1),
        ("nbout", "write", design.a_bits),
        ("fat_tree", "read", word),
        ("activation_buffer", "write", word),
        peak=filters * tiles * lanes / PEAK_K,
    )
    design.action("weight_buffer.read", ("weight_buffer", "read", design.w_bits), peak=lanes * filters * tiles)
    return design.structure()


def _eie(arch: Arch) -> Structure:
    """Weights, pointers and activations in SRAM of the PE; a decoded weight is as wide as an activation."""
    design = Frame(arch)
    pes = design.param("pes")
    entry = design.w_bits + design.index_bits
    memory = arch.memory
    design.logic("mac", mac(design.a_type, design.a_type, design.acc_type, design.node_nm), pes)
    design.buffers(64, 64, a_count=pes, w_count=pes)
    # two banks of pointers hold a quarter of what the entries take: 32 KiB beside 128 KiB
    design.memory("pointer_bank", "sram", float(memory.weight_buffer.value) / pes / 8, 16, 2 * pes)
    design.regfile("codebook", 16, design.a_bits, pes)
    design.regfile("activations", 128, design.a_bits, pes)
    depth = float(arch.params["fifo_depth"].value) if "fifo_depth" in arch.params else 8
    design.regfile("queue", depth, design.a_bits + 16, pes)
    design.wire("broadcast", pes, "tree")
    pointers = (
        ("pointer_bank", "read", 2 * 16),
        ("queue", "write", design.a_bits + 16),
        ("queue", "read", design.a_bits + 16),
    )
    a_column = (*pointers, ("broadcast", "read", (design.a_bits + 16) / pes))
    entry_uses = (
        ("weight_buffer", "read", float(entry)),
        ("codebook", "read", float(design.a_bits)),
        ("mac", "read", 1.0),
        ("activations", "read", float(design.a_bits)),
        ("activations", "write", float(design.a_bits)),
    )
    column_share = tuple((part, verb, times / ENTRIES_PER_COLUMN) for part, verb, times in a_column)
    design.action("mac.compute", *entry_uses, *column_share, peak=pes)
    design.action("mac.padding", *entry_uses, *column_share)
    design.action("pe.empty", *pointers)
    design.off_chip()
    design.vector()
    return design.structure()


for _name in ("eie", "eie_balanced"):
    register(_name)(_eie)


@register("eyeriss_v2_pe")
def eyeriss_v2_pe(arch: Arch) -> Structure:
    """One PE: scratchpads of published words, the weights two to a word; a share of the global buffers."""
    design = Frame(arch)
    macs = design.param("macs")
    word = design.a_bits + design.index_bits
    design.macs(macs)
    design.buffers(64, 64)
    design.regfile("iact_spad", 16, word)
    design.regfile("iact_address", 9, 4)
    design.regfile("weight_spad", 96, 2 * (design.w_bits + design.index_bits))
    design.regfile("weight_address", 16, 7)
    design.regfile("psum_spad", 32, design.acc_bits, 1)
    design.action("iact_spad.read", ("iact_spad", "read", word), peak=1 / 16)
    design.action("address_spad.read", ("weight_address", "read", 7), ("iact_address", "read", 4), peak=2 / 16)
    # the whole word of two weights is read, whichever of them is wanted
    pair = 2 * (design.w_bits + design.index_bits)
    design.action("weight_buffer.read", ("weight_spad", "read", pair if macs == 1 else pair / 2), peak=macs)
    uses = ("psum_spad", "read", design.acc_bits), ("psum_spad", "write", design.acc_bits)
    design.action("accumulator.update", *uses, peak=macs)
    design.off_chip()
    return design.structure()


def _prefix_sum_gates(chunk: float) -> float:
    """Gates of a parallel prefix sum over `chunk` bits: half a full adder a bit at each of log2 levels."""
    levels = max(1, math.ceil(math.log2(max(chunk, 2))))
    return chunk / 2 * sum(range(1, levels + 1)) * 5


def _sparten(arch: Arch) -> Structure:
    """Clusters of CUs, each with two prefix sums (one where one-sided), a priority encoder and a chunk buffer."""
    design = Frame(arch)
    clusters, units = design.param("clusters"), design.param("units")
    two_sided = arch.kernel == "sparten"
    chunk = float(arch.params["chunk"].value) if two_sided else 128.0
    cus = clusters * units
    design.macs(cus)
    design.buffers(128, 128, a_count=clusters)
    sides = 2 if two_sided else 1
    design.memory("chunk_buffer", "sram", CU_BUFFER_BYTES, CU_LINE_BITS, cus)
    design.regfile("chunk_mask", 2, chunk, cus * sides)
    sums = _prefix_sum_gates(chunk) * sides
    design.logic("prefix_sum", gates(sums, design.node_nm), cus)
    design.logic("priority_encoder", gates(5 * chunk, design.node_nm), cus)
    if two_sided and arch.param("balancing") == "gb_h":
        design.logic("permute", gates(units * math.log2(units) * design.acc_bits * 3, design.node_nm), clusters)
    design.accumulators(cus)
    design.wire("broadcast", units, "tree", share=1 / clusters)
    bits = design.a_bits
    design.action(
        "activation_buffer.read", ("activation_buffer", "read", bits), ("broadcast", "read", bits), peak=clusters
    )
    # matches come in order, so a line of stored values is read once for those of its values that match
    values = ("chunk_buffer", "read", sides * min(design.w_bits / PEAK_DENSITY, CU_LINE_BITS))
    design.action("weight_buffer.read", values, ("chunk_buffer", "write", design.w_bits), peak=cus)
    # half of the gates switch; the prefix sums once a chunk, the encoder at each match
    design.action(
        "prefix_sum.match",
        ("prefix_sum", "read", 0.5 / MATCHES_PER_CHUNK),
        ("priority_encoder", "read", 0.5),
        ("chunk_mask", "read", chunk / MATCHES_PER_CHUNK),
        peak=cus,
    )
    design.off_chip()
    design.vector()
    return design.structure()


for _name in ("sparten", "sparten_one_sided"):
    register(_name)(_sparten)


@register("tensordash")
def tensordash(arch: Arch) -> Structure:
    """PEs of `lanes` multipliers; a scheduler a row, multiplexers at both operands of every lane."""
    design = Frame(arch)
    lanes, rows, columns, tiles = (design.param(name) for name in ("lanes", "rows", "columns", "tiles"))
    slots = lanes * rows * columns * tiles
    options = len(arch.param("offsets"))
    depth = 1 + design.param("lookahead")
    design.macs(slots)
    design.buffers(lanes * design.a_bits, lanes * design.w_bits, a_count=tiles, w_count=tiles)
    design.memory("a_spad", "sram", SPAD_BYTES, lanes * design.a_bits, rows * tiles)
    design.memory("w_spad", "sram", SPAD_BYTES, lanes * design.w_bits, columns * tiles)
    design.regfile("a_staging", depth, lanes * design.a_bits, rows * tiles)
    design.regfile("w_staging", depth, lanes * design.w_bits, columns * tiles)
    # one scheduler for the PEs of a row, and multiplexers: at its side once a row, at the other in every PE
    design.logic("scheduler", gates(12 * options * lanes, design.node_nm), rows * tiles)
    design.logic("a_mux", gates((options - 1) * design.a_bits * 3, design.node_nm), lanes * rows * tiles)
    design.logic("w_mux", gates((options - 1) * design.w_bits * 3, design.node_nm), slots)
    design.accumulators(rows * columns * tiles)
    for buffer, spad, staging, bits, shared in (
        ("activation_buffer", "a_spad", "a_staging", design.a_bits, rows * tiles),
        ("weight_buffer", "w_spad", "w_staging", design.w_bits, columns * tiles),
    ):
        uses = (spad, "read", bits), (spad, "write", bits / SPAD_REUSE), (buffer, "read", bits / SPAD_REUSE)
        design.action(f"{buffer}.read", *uses, (staging, "write", bits), (staging, "read", bits), peak=lanes * shared)
    # of a multiplexer one path switches, half of its bits
    select = ("w_mux", "read", 0.5 / options), ("a_mux", "read", 0.5 / options / columns)
    design.action("mux.select", *select, ("scheduler", "read", 0.5 / lanes / columns), peak=slots)
    design.off_chip()
    design.vector()
    return design.structure()


@register("scnn")
def scnn(arch: Arch) -> Structure:
    """PEs of inputs x weights multipliers, a crossbar to banked accumulators."""
    design = Frame(arch)
    pes, inputs, weights, banks = (design.param(name) for name in ("pes", "inputs", "weights", "banks"))
    a_word, w_word = design.a_bits + design.index_bits, design.w_bits + design.index_bits
    products = pes * inputs * weights
    design.logic("mac", multiplier(design.a_type, design.w_type, design.node_nm), products)
    design.action("mac.compute", ("mac", "read", 1), peak=products)
    design.buffers(inputs * a_word, weights * w_word, a_count=pes, w_count=pes)
    design.logic("crossbar", gates(banks * inputs * weights * design.acc_bits * 1.5, design.node_nm), pes)
    words = design.param("accumulators") / banks
    design.accumulators(pes * banks, words=2 * words, adds=True)
    design.peak["accumulator.update"] = products
    a_product = 0.5 * design.acc_bits * math.log2(banks) * 3
    crossbar_gates = banks * inputs * weights * design.acc_bits * 1.5
    design.action("crossbar.route", ("crossbar", "read", a_product / crossbar_gates), peak=products)
    design.action("activation_buffer.read", ("activation_buffer", "read", a_word), peak=pes * inputs)
    design.action("weight_buffer.read", ("weight_buffer", "read", w_word), peak=pes * weights)
    design.off_chip()
    design.vector()
    return design.structure()


def _array(arch: Arch) -> Structure:
    """Rows x columns of MACs between two buffers; operands go from neighbour to neighbour."""
    design = Frame(arch)
    rows, columns = design.param("rows"), design.param("columns")
    design.macs(rows * columns)
    design.buffers(rows * design.a_bits, columns * design.w_bits)
    design.accumulators(rows * columns)
    if arch.kernel != "systolic":
        design.regfile("select", 1, 2 * design.a_bits, rows * columns)
    stationary = arch.kernel == "systolic" and arch.param("stationary") == "weight"
    if stationary:
        design.peak["accumulator.update"] = columns
    design.wire("row", columns, "neighbour", share=1 / rows)
    design.wire("column", rows, "neighbour", share=1 / columns)
    a, w = design.a_bits, design.w_bits
    design.action("activation_buffer.read", ("activation_buffer", "read", a), ("row", "read", a), peak=rows)
    uses = ("weight_buffer", "read", w), ("column", "read", w)
    design.action("weight_buffer.read", *uses, peak=0.0 if stationary else columns)
    design.off_chip()
    design.vector()
    return design.structure()


for _name in ("systolic", "tile_barrier", "statistical"):
    register(_name)(_array)


@register("highlight")
def highlight(arch: Arch) -> Structure:
    """Filters side by side, each with g0 x g1 lanes whose weights stay in registers."""
    design = Frame(arch)
    outputs = design.param("outputs")
    lanes = design.param("g0") * design.param("g1")
    slots = outputs * lanes
    word = design.w_bits + design.index_bits
    design.macs(slots)
    design.buffers(lanes * design.a_bits, lanes * word)
    design.accumulators(outputs, adds=True)
    design.regfile("weight_register", 1, word, slots)
    paths = design.param("h0") + design.param("h1")
    design.logic("mux", gates(paths * design.a_bits * 1.5, design.node_nm), slots)
    design.wire("broadcast", outputs, "tree")
    a = design.a_bits
    design.action("activation_buffer.read", ("activation_buffer", "read", a), ("broadcast", "read", a), peak=lanes)
    design.action("weight_buffer.read", ("weight_buffer", "read", word), ("weight_register", "write", word))
    design.action("weight_register.read", ("weight_register", "read", word), peak=slots)
    design.action("mux.select", ("mux", "read", 1 / paths), peak=slots)
    design.off_chip()
    design.vector()
    return design.structure()


@register("dstc")
def dstc(arch: Arch) -> Structure:
    """Tensor cores that take outer products of the non-zeros of bitmaps."""
    design = Frame(arch)
    units, step_m, step_n = (design.param(name) for name in ("units", "step_m", "step_n"))
    slots = units * step_m * step_n
    design.macs(slots)
    design.buffers(128, 128, a_count=units / 4, w_count=units / 4)
    design.regfile("accumulator", 32, design.acc_bits, slots)
    sums = ("accumulator", "read", design.acc_bits), ("accumulator", "write", design.acc_bits)
    design.action("accumulator.update", *sums, peak=slots)
    design.regfile("bitmap", 2, 64, 2 * units)
    design.logic("popcount", gates(64 * 5, design.node_nm), 2 * units)
    design.action("bitmap.read", ("bitmap", "read", 1), ("popcount", "read", 0.5 / 64), peak=units * 64)
    a, w = design.a_bits, design.w_bits
    design.action("activation_buffer.read", ("activation_buffer", "read", a), peak=units * step_m)
    design.action("weight_buffer.read", ("weight_buffer", "read", w), peak=units * step_n)
    design.off_chip()
    design.vector()
    return design.structure()


@register("nvidia_2_4")
def nvidia_2_4(arch: Arch) -> Structure:
    """Tensor cores whose weights keep two of four, picked by a multiplexer."""
    design = Frame(arch)
    cores, macs = design.param("cores"), design.param("macs")
    tile_m, tile_n = design.param("tile_m"), design.param("tile_n")
    slots = cores * macs
    design.macs(slots)
    design.buffers(128, 128, a_count=cores / 4, w_count=cores / 4)
    design.regfile("accumulator", 32, design.acc_bits, slots / 4)
    sums = ("accumulator", "read", design.acc_bits), ("accumulator", "write", design.acc_bits)
    design.action("accumulator.update", *sums, peak=slots / design.param("tile_k"))
    design.logic("select", gates(4 * design.a_bits * 1.5, design.node_nm), slots)
    a, w = design.a_bits, design.w_bits
    design.action("activation_buffer.read", ("activation_buffer", "read", a), peak=slots / tile_n)
    design.action("weight_buffer.read", ("weight_buffer", "read", w), peak=slots / tile_m)
    design.off_chip()
    design.vector()
    return design.structure()


@register("sponge")
def sponge(arch: Arch) -> Structure:
    """An estimate that counts words and multiplications alone: one multiplier."""
    design = Frame(arch)
    design.logic("multiplier", multiplier("fp32", "fp32", design.node_nm))
    design.action("multiplier.compute", ("multiplier", "read", 1), peak=1)
    design.action(TRANSFER)
    return design.structure()
