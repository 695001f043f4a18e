"""The memory side: bytes moved, and the cycles in which compute waits for them.

Every launch moves its input activations in, its weights in (unless they live on the chip) and its outputs out, as often
as its mapping says (`hwmodels.mapping`). What the mapping does not expose is moved beside the computing:

    stall = sum over launches of  exposed / rate + max(0, (bytes - exposed) / rate - compute)

Copies that share their second operand (the query heads of one key head) are one launch of all their rows: what they
share moves once for the group, or as often as the mapping of all these rows fetches it where it does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arch import Arch
from .counting.groups import group_starts, grouped_blocks
from .counting.run_lengths import run_entries
from .counts import Compute, Counts
from .errors import InputError
from .gpu.sparse import union_rows
from .hierarchy import levels_of, rooms_of, word_bytes
from .mapping.launches import Tiles, Ways
from .mapping.levels import Level, stages_of
from .mapping.residency import Residence, residences
from .mapping.search import Buffer, Fit, Front, by_hand, front_of
from .mapping.space import Mapping
from .op import Op


@dataclass(frozen=True, eq=False)
class Traffic:
    """Bytes between DRAM and the chip for one copy of an op.

    Parameters
    ----------
    activation_bytes : float64[M]
        Input bytes of each token, in the stored format with its metadata.
    weight_bytes : float
        One pass over the weights.
    output_bytes_per_token : float
        Output bytes of one token.
    """

    activation_bytes: NDArray[np.float64]
    weight_bytes: float
    output_bytes_per_token: float


def stored_bits(
    stored: NDArray[np.int64] | int, elements: int, form: str, bits: int, index_bits: int
) -> NDArray[np.float64]:
    """Bits that `elements` values take, with metadata.

    `stored` is how many of them are kept: the non-zeros, for ``csc`` with the padding zeros of `run_entries`.
    ``dense``: ``elements bits``. ``bitmap``: ``stored bits + elements``. ``offset``/``csc``:
    ``stored (bits + index_bits)``. ``two_four``: half the elements with 2 bits each.
    """
    count = np.asarray(stored, dtype=np.float64)
    if form == "dense":
        return np.full_like(count, float(elements) * bits)
    if form == "bitmap":
        return count * bits + elements
    if form == "two_four":
        return np.full_like(count, elements / 2 * (bits + 2))
    return count * (bits + index_bits)


def traffic(op: Op, arch: Arch) -> Traffic:
    """Count the bytes of one copy of an op."""
    memory = arch.memory
    act_bits = int(arch.bits["activation"].value)
    index_bits = int(memory.index_bits.value) if memory.index_bits else 0
    kept: NDArray[np.int64] | int = op.token_nonzeros
    if memory.activation_format == "csc" and op.activation is not None:
        kept = run_entries(op.activation, index_bits)
    activations = stored_bits(kept, op.k, memory.activation_format, act_bits, index_bits) / 8
    return Traffic(activations, weight_bytes(op, arch), op.n * act_bits / 8)


def weight_bytes(op: Op, arch: Arch) -> float:
    """Bytes of one copy of an op's weights, or second operand, as stored."""
    memory = arch.memory
    index_bits = int(memory.index_bits.value) if memory.index_bits else 0
    kept = op.weight_nonzeros // op.repeat
    if memory.weight_format == "csc" and op.weight is not None:
        kept = int(run_entries(op.weight, index_bits).sum())
    bits = int(arch.bits["weight"].value)
    return float(stored_bits(kept, op.n * op.k, memory.weight_format, bits, index_bits)) / 8


class Movement(NamedTuple):
    """The memory side of an op on an arch, before bandwidth and clock.

    Parameters
    ----------
    ways, dense : Ways
        What each launch may move, with the op's masks and of its dense baseline.
    copies : int
        How often that happens: once for each group of copies that share their second operand, ``op.groups``.
    """

    ways: Ways
    dense: Ways
    copies: int


def movement(
    op: Op, arch: Arch, compute: Compute, own: Residence | None = None, dense: Residence | None = None
) -> Movement:
    """Map an op, and say what each launch moves under every mapping that may be its best.

    Parameters
    ----------
    op, arch
        What runs where.
    compute : Compute
        What the kernel counted.
    own, dense : Residence, optional
        Where the weights are, as they are and uncompressed; by default the op has the chip to itself.

    Raises
    ------
    InputError
        If no tile fits a level, or a mapping given by hand does not.
    """
    rate = _token_cycles(op, compute)
    # a run as long as the dense one is the dense one: launches of unlike length must not tell them apart
    as_dense = compute.cycles == compute.dense_cycles
    dense_rate = rate if as_dense else np.full(op.m, compute.dense_cycles / op.repeat / op.m)
    return Movement(
        ways=_ways(op, arch, rate, own),
        dense=_ways(op.dense(), arch, dense_rate, dense),
        copies=op.groups,
    )


class _Launches(NamedTuple):
    """Launches of an op: first token, tokens, cycles, and bytes of one pass over each operand, useful and in bursts."""

    starts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    busy: NDArray[np.float64]
    useful: NDArray[np.float64]
    bursts: NDArray[np.float64]


def _ways(op: Op, arch: Arch, token_cycles: NDArray[np.float64], residence: Residence | None) -> Ways:
    moved = traffic(op, arch)
    stage = _stage(arch)
    if residence is None:
        residence = Residence(lives_on_chip(op, arch, moved.weight_bytes, stage))
    launches = _launches(op, arch, moved, token_cycles, residence)
    buffers = [_buffer(level, residence) for level in stage]
    fit = _fit(op, arch, moved, residence)
    parts = []
    for size in np.unique(launches.tokens).tolist():
        alike = np.flatnonzero(launches.tokens == size)
        extremes = _extremes(launches.bursts[alike])
        parts.append((alike, _front(op, arch, int(size), buffers, fit, extremes)))
    return _laid_out(launches, parts, fit, arch)


def _front(
    op: Op, arch: Arch, tokens: int, buffers: Sequence[Buffer], fit: Fit, loads: Sequence[tuple[float, float, float]]
) -> Front:
    dataflow, shape, spec = arch.dataflow, (tokens, op.k, op.n), arch.mapping
    try:
        if spec.tile is None:
            return front_of(shape, buffers, fit, dataflow, loads)
        tile = (spec.tile.get("m", tokens), spec.tile.get("k", op.k), spec.tile.get("n", op.n))
        mapping = Mapping(tile, spec.order, frozenset(spec.stays), frozenset(spec.doubled))
        return by_hand(mapping, shape, buffers, fit, dataflow)
    except InputError as error:
        raise InputError(f"arch '{arch.name}': op '{op.name}' of layer {op.layer}: {error}") from None


def _stage(arch: Arch) -> list[Level]:
    stages = stages_of(rooms_of(arch))
    if len(stages) > 1:
        outer, inner = stages[0][-1].name, stages[1][0].name
        raise InputError(
            f"arch '{arch.name}': memory level '{inner}' lies below '{outer}'; one stage of buffers under the top is "
            "mapped, so leave the inner one to the kernel's own counts"
        )
    return stages[0]


def lives_on_chip(op: Op, arch: Arch, weight_bytes: float, stage: Sequence[Level] | None = None) -> bool:
    """Whether an op that has the chip to itself keeps its weights there."""
    if arch.memory.weights == "streamed" or not op.has_weight:
        return False
    return weight_bytes <= weight_room(arch, stage)


def weight_room(arch: Arch, stage: Sequence[Level] | None = None) -> float:
    """Bytes of the level that holds weights."""
    return next(level.size_bytes for level in stage or _stage(arch) if "weight" in level.holds)


def model_residences(ops: Sequence[Op], arch: Arch) -> list[Residence]:
    """Decide where the weights of every op of a model live on an arch.

    Parameters
    ----------
    ops : sequence of Op
        All ops in the order of the model; those of one layer and name share their weights.
    arch : Arch
        Where they run.
    """
    own = [op for op in ops if op.has_weight]
    if arch.memory.weights == "streamed" or not own:
        return [Residence(False) for _ in ops]
    sizes: dict[tuple[int, str], float] = {}
    for op in own:
        if (op.layer, op.name) not in sizes:
            sizes[op.layer, op.name] = weight_bytes(op, arch) * op.groups
    dataflow, stream = arch.dataflow, 0.0
    for op in ops:
        _, k, n = dataflow.grain(op.m, op.k, op.n)
        stream = max(stream, 2 * k * n * weight_bytes(op, arch) / (op.n * op.k))
    stays = residences(list(sizes.values()), weight_room(arch), stream, others_stream=len(own) < len(ops))
    found = dict(zip(sizes, stays, strict=True))
    return [found[op.layer, op.name] if op.has_weight else stays[0]._replace(on_chip=False) for op in ops]


def _buffer(level: Level, residence: Residence) -> Buffer:
    taken = residence.taken_bytes if "weight" in level.holds and not residence.on_chip else 0.0
    return Buffer(level.name, level.size_bytes - taken, tuple(sorted(level.holds)))


def _fit(op: Op, arch: Arch, moved: Traffic, residence: Residence) -> Fit:
    """Room of an element, of the fullest token and the weights as stored, in sixteenths of a word: ops nearly alike
    then share one search."""
    words = word_bytes(arch)

    def rounded(size: float, word: float) -> float:
        return max(1.0, np.ceil(size / word * 16)) / 16 * word

    return Fit(
        activation=rounded(float(moved.activation_bytes.max()) / op.k, words["activation"]),
        weight=0.0 if residence.on_chip else rounded(moved.weight_bytes / (op.n * op.k), words["weight"]),
        output=words["output"],
        partial_sum=int(arch.bits["accumulator"].value) / 8,
    )


def _launches(op: Op, arch: Arch, moved: Traffic, token_cycles: NDArray[np.float64], residence: Residence) -> _Launches:
    burst = rooms_of(arch)[0].burst_bytes
    starts = group_starts(op, min(op.batch or op.m, op.m))
    tokens = np.diff(starts) * op.shared
    useful = np.zeros((len(tokens), 3))
    useful[:, 0] = np.add.reduceat(moved.activation_bytes, starts[:-1]) * op.shared
    useful[:, 2] = moved.output_bytes_per_token * tokens
    bursts = np.ceil(useful / burst) * burst
    if not residence.on_chip:
        useful[:, 1] = moved.weight_bytes
        bursts[:, 1] = np.ceil(moved.weight_bytes / burst) * burst
        if arch.memory.weight_fetch == "needed" and op.has_weight and op.activation is not None:
            row = moved.weight_bytes / op.k
            rows = np.concatenate([union_rows(*part).rows for part in grouped_blocks(op.activation, starts)])
            useful[:, 1] = rows * row
            bursts[:, 1] = np.minimum(bursts[:, 1], rows * np.ceil(row / burst) * burst)
    busy = np.add.reduceat(token_cycles, starts[:-1]) * op.shared
    return _Launches(starts[:-1], tokens, busy, useful, bursts)


def _extremes(bursts: NDArray[np.float64]) -> list[tuple[float, float, float]]:
    """Corners of the bytes of launches alike in tokens, which all write as much."""
    ends = [sorted({float(column.min()), float(column.max())}) for column in (bursts[:, 0], bursts[:, 1])]
    return [(inputs, weights, float(bursts[0, 2])) for inputs, weights in product(*ends)]


def _laid_out(launches: _Launches, parts: Sequence[tuple[NDArray[np.int64], Front]], fit: Fit, arch: Arch) -> Ways:
    """Lay out launch by launch what each of its mappings moves, fewest bytes first."""
    columns: list[NDArray[np.float64]] = []
    mappings: list[Mapping] = []
    for alike, front in parts:
        count = len(front.mappings)
        launch, way = np.repeat(alike, count), np.tile(np.arange(count), len(alike))
        passes, bursts, useful = front.traffic[way], launches.bursts[launch], launches.useful[launch]
        bytes_moved = passes * bursts
        exposed = (front.exposed[way] * bursts).sum(axis=1)
        # of the passes over an output, those that read partial sums back fill its buffer
        read_back = (passes[:, 2] - 1) / 2 * useful[:, 2]
        loaded, fetched = passes[:, 0] * useful[:, 0] + read_back, passes[:, 1] * useful[:, 1]
        columns.append(np.column_stack([launch, *bytes_moved.T, exposed, loaded, fetched, way + len(mappings)]))
        mappings += front.mappings
    rows = np.concatenate(columns)
    rows = rows[np.lexsort((rows[:, 1:4].sum(axis=1), rows[:, 0]))]
    launch = rows[:, 0].astype(np.int64)
    return Ways(
        tiles=Tiles(
            starts=launches.starts[launch],
            opens=np.ones(len(launch), dtype=np.bool_),
            inputs=rows[:, 1],
            weights=rows[:, 2],
            outputs=rows[:, 3],
            fill=rows[:, 4],
            busy=launches.busy[launch],
        ),
        first=np.searchsorted(launch, np.arange(len(launches.starts))),
        loaded=rows[:, 5],
        fetched=rows[:, 6],
        mapping=rows[:, 7].astype(np.int64),
        mappings=mappings,
        objective=arch.mapping.search,
    )


def combine(op: Op, arch: Arch, compute: Compute) -> Counts:
    """Join compute and memory: stall cycles, DRAM bytes, and all actions of the op."""
    if compute.dram_bytes is not None:
        return _as_counted(op, compute, compute.dram_bytes)
    return join(op, arch, compute, movement(op, arch, compute))


def bytes_per_cycle(arch: Arch) -> float:
    """Bytes a cycle from the top into the buffers: the least bandwidth on the way, over the clock.

    Raises
    ------
    InputError
        If clock or bandwidth is not positive.
    """
    bandwidth = min(level.bytes_per_s for level in levels_of(arch))
    if arch.clock_hz <= 0 or bandwidth <= 0:
        raise InputError(f"arch '{arch.name}': clock and memory.bandwidth must be positive")
    return bandwidth / arch.clock_hz


def join(op: Op, arch: Arch, compute: Compute, moved: Movement) -> Counts:
    """Do as `combine` does, with the movement at hand."""
    rate = bytes_per_cycle(arch)
    ways = moved.ways.at(rate)
    stall = ways.tiles.stall_cycles(rate) * moved.copies
    dram_bytes = int(ways.tiles.bytes.sum()) * moved.copies
    actions = dict(compute.actions)
    actions["dram.transfer"] = dram_bytes
    actions["weight_buffer.fill"] = round(ways.fetched.sum()) * moved.copies
    actions["activation_buffer.fill"] = round(ways.loaded.sum()) * moved.copies
    return Counts(
        cycles=compute.cycles,
        dense_cycles=compute.dense_cycles,
        stall_cycles=stall,
        dense_stall_cycles=moved.dense.at(rate).tiles.stall_cycles(rate) * moved.copies,
        macs=op.macs,
        effectual_macs=op.effectual_macs,
        dram_bytes=dram_bytes,
        actions={name: count for name, count in actions.items() if count},
        stalls={**compute.stalls, "dram": stall},
        unit_busy=compute.unit_busy,
    )


def _as_counted(op: Op, compute: Compute, dram_bytes: int) -> Counts:
    actions = {**compute.actions, "dram.transfer": dram_bytes}
    return Counts(
        cycles=compute.cycles,
        dense_cycles=compute.dense_cycles,
        stall_cycles=0,
        dense_stall_cycles=0,
        macs=op.macs,
        effectual_macs=op.effectual_macs,
        dram_bytes=dram_bytes,
        actions={name: count for name, count in actions.items() if count},
        stalls=compute.stalls,
        unit_busy=compute.unit_busy,
    )


def _token_cycles(op: Op, compute: Compute) -> NDArray[np.float64]:
    """Spread each group's cycles over its tokens, so that any tiling by tokens can sum them."""
    starts = group_starts(op, compute.group_rows)
    sizes = np.diff(starts)
    return np.repeat(compute.row_cycles / sizes, sizes)


def group_order(op: Op) -> NDArray[np.int64]:
    """Row of the op that each row of a group of copies is, launch by launch: ``int64[M shared]``."""
    rows, batch = np.arange(op.m), min(op.batch or op.m, op.m)
    if op.shared == 1:
        return rows
    return np.concatenate([np.tile(rows[first : first + batch], op.shared) for first in range(0, op.m, batch)])
