"""The memory side: bytes moved, and the cycles in which compute waits for them.

Every launch moves its input activations in, its weights in (unless they live on the chip, and fit) and its outputs out.
Work is tiled by tokens so that a tile's activations fill half the activation buffer; the other half is filled
meanwhile, so a tile takes ``max(compute, transfer)``. Where the weights do not fit half the weight buffer they
stream once per token tile. The first tile's activations and first half-buffer of weights cannot be hidden.

    stall = fill + sum_t max(0, transfer_t - compute_t)

Copies that share their second operand (the query heads of one key head) are one launch of all their rows: what they
share moves once for the group, or once for each tile of the group's rows where it does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arch import Arch
from .counting.groups import group_starts
from .counting.run_lengths import run_entries
from .counts import Compute, Counts
from .errors import InputError
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
    """Count the bytes of one copy of an op, read alone."""
    memory = arch.memory
    act_bits, weight_bits = int(arch.bits["activation"].value), int(arch.bits["weight"].value)
    index_bits = int(memory.index_bits.value) if memory.index_bits else 0
    kept: NDArray[np.int64] | int = op.token_nonzeros
    if memory.activation_format == "csc" and op.activation is not None:
        kept = run_entries(op.activation, index_bits)
    activations = stored_bits(kept, op.k, memory.activation_format, act_bits, index_bits) / 8
    kept = op.weight_nonzeros // op.repeat
    if memory.weight_format == "csc" and op.weight is not None:
        kept = int(run_entries(op.weight, index_bits).sum())
    weights = float(stored_bits(kept, op.n * op.k, memory.weight_format, weight_bits, index_bits)) / 8
    return Traffic(activations, weights, op.n * act_bits / 8)


class Tiles(NamedTuple):
    """What each tile of tokens moves and computes; nothing here depends on bandwidth or clock.

    Parameters
    ----------
    starts : int64[tiles]
        First row; of copies that share their second operand, among the rows of the group.
    opens : bool[tiles]
        Whether it is the first of its launch.
    inputs, weights, outputs : float64[tiles]
        Bytes in whole bursts.
    fill : float64[tiles]
        Bytes that must be there before the launch can compute; 0 but for the first tile of a launch.
    busy : float64[tiles]
        Compute cycles.
    """

    starts: NDArray[np.int64]
    opens: NDArray[np.bool_]
    inputs: NDArray[np.float64]
    weights: NDArray[np.float64]
    outputs: NDArray[np.float64]
    fill: NDArray[np.float64]
    busy: NDArray[np.float64]

    @property
    def bytes(self) -> NDArray[np.float64]:
        """Bytes of each tile, all directions."""
        return self.inputs + self.weights + self.outputs

    def stall_cycles(self, bytes_per_cycle: float) -> int:
        """Cycles in which compute waits, ``fill + sum_t max(0, transfer_t - compute_t)``."""
        late = np.maximum(0.0, (self.bytes - self.fill) / bytes_per_cycle - self.busy)
        return int(np.ceil((self.fill / bytes_per_cycle).sum() + late.sum()))


class Movement(NamedTuple):
    """The memory side of an op on an arch, before bandwidth and clock: its tiles, the dense baseline's, and bytes.

    All of one group of copies: there are ``op.groups`` of them.
    """

    tiles: Tiles
    dense: Tiles
    activation_bytes: int
    weight_bytes: int


def movement(op: Op, arch: Arch, compute: Compute) -> Movement:
    """Tile an op by tokens and say what each tile moves."""
    moved, dense_op = traffic(op, arch), op.dense()
    rate = _token_cycles(op, compute)
    tiles = _tiles(op, arch, moved, rate)
    # a run as long as the dense one is the dense one: launches of unlike length must not tell them apart
    as_dense = compute.cycles == compute.dense_cycles
    dense_rate = rate if as_dense else np.full(op.m, compute.dense_cycles / op.repeat / op.m)
    return Movement(
        tiles=tiles,
        dense=_tiles(dense_op, arch, traffic(dense_op, arch), dense_rate),
        activation_bytes=round(moved.activation_bytes.sum()) * op.shared,
        weight_bytes=round(moved.weight_bytes * np.count_nonzero(tiles.weights)),
    )


def combine(op: Op, arch: Arch, compute: Compute) -> Counts:
    """Join compute and memory: stall cycles, DRAM bytes, and all actions of the op."""
    if compute.dram_bytes is not None:
        return _as_counted(op, compute, compute.dram_bytes)
    return join(op, arch, compute, movement(op, arch, compute))


def bytes_per_cycle(arch: Arch) -> float:
    """DRAM bandwidth over clock, bytes a cycle.

    Raises
    ------
    InputError
        If clock or bandwidth is not positive.
    """
    bandwidth = float(arch.memory.bandwidth.value)
    if arch.clock_hz <= 0 or bandwidth <= 0:
        raise InputError(f"arch '{arch.name}': clock and memory.bandwidth must be positive")
    return bandwidth / arch.clock_hz


def join(op: Op, arch: Arch, compute: Compute, moved: Movement) -> Counts:
    """Do as `combine` does, with the movement at hand."""
    rate = bytes_per_cycle(arch)
    stall = moved.tiles.stall_cycles(rate) * op.groups
    dram_bytes = int(moved.tiles.bytes.sum()) * op.groups
    actions = dict(compute.actions)
    actions["dram.transfer"] = dram_bytes
    actions["weight_buffer.fill"] = moved.weight_bytes * op.groups
    actions["activation_buffer.fill"] = moved.activation_bytes * op.groups
    return Counts(
        cycles=compute.cycles,
        dense_cycles=compute.dense_cycles,
        stall_cycles=stall,
        dense_stall_cycles=moved.dense.stall_cycles(rate) * op.groups,
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


def _tiles(op: Op, arch: Arch, moved: Traffic, token_cycles: NDArray[np.float64]) -> Tiles:
    memory = arch.memory
    burst = float(memory.burst.value)
    order = group_order(op)
    batch = min(op.batch or op.m, op.m) * op.shared
    group = replace(op.dense(), m=op.m * op.shared, batch=batch, repeat=1, shared=1)
    tile = max(1, min(batch, int(float(memory.activation_buffer.value) / 2 / max(moved.activation_bytes.max(), 1.0))))
    starts = group_starts(group, tile)[:-1]
    buffer = float(memory.weight_buffer.value)
    streamed = memory.weights == "streamed" or not op.has_weight or moved.weight_bytes > buffer
    half = buffer / 2
    opens = starts % batch == 0
    fetch = (opens if moved.weight_bytes <= half else np.ones_like(opens)) & streamed
    tokens = np.diff(np.append(starts, group.m))
    inputs = np.ceil(np.add.reduceat(moved.activation_bytes[order], starts) / burst) * burst
    weights = np.ceil(moved.weight_bytes / burst) * burst * fetch
    return Tiles(
        starts=starts,
        opens=opens,
        inputs=inputs,
        weights=weights,
        outputs=np.ceil(moved.output_bytes_per_token * tokens / burst) * burst,
        fill=np.where(opens, np.minimum(weights, half) + inputs, 0.0),
        busy=np.add.reduceat(token_cycles[order], starts),
    )
