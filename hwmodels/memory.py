"""The memory side: bytes moved, and the cycles in which compute waits for them.

Every launch moves its input activations in, its weights in (unless they live on the chip) and its outputs out.
Work is tiled by tokens so that a tile's activations fill half the activation buffer; the other half is filled
meanwhile, so a tile takes ``max(compute, transfer)``. Where the weights do not fit half the weight buffer they
stream once per token tile. The first tile's activations and first half-buffer of weights cannot be hidden.

    stall = fill + sum_t max(0, transfer_t - compute_t)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arch import Arch
from .counts import Compute, Counts
from .errors import InputError
from .kernels.rows import group_starts
from .kernels.tally import row_counts
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
    nonzeros: NDArray[np.int64] | int, elements: int, form: str, bits: int, index_bits: int
) -> NDArray[np.float64]:
    """Bits that `elements` values take, with metadata.

    ``dense``: ``elements bits``. ``bitmap``: ``nonzeros bits + elements``. ``offset``/``csc``:
    ``nonzeros (bits + index_bits)`` (padding zeros of ``csc`` are left to the kernel that knows the runs).
    ``two_four``: half the elements with 2 bits each.
    """
    count = np.asarray(nonzeros, dtype=np.float64)
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
    act_bits, weight_bits = int(arch.bits["activation"].value), int(arch.bits["weight"].value)
    index_bits = int(memory.index_bits.value) if memory.index_bits else 0
    per_token = np.full(op.m, op.k, dtype=np.int64) if op.activation is None else row_counts(op.activation)
    activations = stored_bits(per_token, op.k, memory.activation_format, act_bits, index_bits) / 8
    nonzeros = op.n * op.k if op.weight is None else op.weight.popcount()
    weights = float(stored_bits(nonzeros, op.n * op.k, memory.weight_format, weight_bits, index_bits)) / 8
    return Traffic(activations, weights, op.n * act_bits / 8)


def combine(op: Op, arch: Arch, compute: Compute) -> Counts:
    """Join compute and memory: stall cycles, DRAM bytes, and all actions of the op."""
    if arch.clock_hz <= 0 or float(arch.memory.bandwidth.value) <= 0:
        raise InputError(f"arch '{arch.name}': clock and memory.bandwidth must be positive")
    moved = traffic(op, arch)
    stall, dram_bytes, fetches = _stalls(op, arch, moved, _token_cycles(op, compute))
    dense_op = op.dense()
    dense_rate = np.full(op.m, compute.dense_cycles / op.repeat / op.m)
    dense_stall, _, _ = _stalls(dense_op, arch, traffic(dense_op, arch), dense_rate)
    actions = dict(compute.actions)
    actions["dram.transfer"] = dram_bytes * op.repeat
    actions["weight_buffer.fill"] = round(moved.weight_bytes * fetches) * op.repeat
    actions["activation_buffer.fill"] = round(moved.activation_bytes.sum()) * op.repeat
    return Counts(
        cycles=compute.cycles,
        dense_cycles=compute.dense_cycles,
        stall_cycles=stall * op.repeat,
        dense_stall_cycles=dense_stall * op.repeat,
        macs=op.macs,
        effectual_macs=op.effectual_macs,
        dram_bytes=dram_bytes * op.repeat,
        actions={name: count for name, count in actions.items() if count},
        stalls={**compute.stalls, "dram": stall * op.repeat},
        unit_busy=compute.unit_busy,
    )


def _token_cycles(op: Op, compute: Compute) -> NDArray[np.float64]:
    """Spread each group's cycles over its tokens, so that any tiling by tokens can sum them."""
    starts = group_starts(op, compute.group_rows)
    sizes = np.diff(starts)
    return np.repeat(compute.row_cycles / sizes, sizes)


def _stalls(op: Op, arch: Arch, moved: Traffic, token_cycles: NDArray[np.float64]) -> tuple[int, int, int]:
    memory = arch.memory
    bytes_per_cycle = float(memory.bandwidth.value) / arch.clock_hz
    burst = float(memory.burst.value)
    batch = min(op.batch or op.m, op.m)
    tile = max(1, min(batch, int(float(memory.activation_buffer.value) / 2 / max(moved.activation_bytes.max(), 1.0))))
    starts = group_starts(op, tile)[:-1]
    streamed = memory.weights == "streamed" or not op.has_weight
    half = float(memory.weight_buffer.value) / 2
    first_of_launch = starts % batch == 0
    fetch = (first_of_launch if moved.weight_bytes <= half else np.ones_like(first_of_launch)) & streamed
    tokens = np.diff(np.append(starts, op.m))
    inputs = np.ceil(np.add.reduceat(moved.activation_bytes, starts) / burst) * burst
    outputs = np.ceil(moved.output_bytes_per_token * tokens / burst) * burst
    weights = np.ceil(moved.weight_bytes / burst) * burst * fetch
    total = inputs + outputs + weights
    busy = np.add.reduceat(token_cycles, starts)
    hidden_fill = np.minimum(weights, half) + inputs
    fill = (hidden_fill / bytes_per_cycle)[first_of_launch].sum()
    body = np.where(first_of_launch, total - hidden_fill, total) / bytes_per_cycle
    stall = fill + np.maximum(0.0, body - busy).sum()
    return int(np.ceil(stall)), int(total.sum()), int(fetch.sum())
