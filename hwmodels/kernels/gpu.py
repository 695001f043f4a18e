"""A GPU: dense GEMMs, gathers over the union of a launch, and tile skipping, timed by `hwmodels.gpu`.

The timing model gives seconds of a launch with memory included; cycles are those seconds at the SM clock. A launch
is ``op.batch`` tokens, and the rows a sparse kernel needs are the union of the trace's own masks over them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arch import Arch
from ..counting.groups import group_starts, grouped_blocks
from ..counts import Compute
from ..errors import InputError, nearest
from ..gpu.model import GemmModel, load_correction
from ..gpu.sparse import Union, gather_seconds, live_blocks, tile_skip_seconds, union_rows
from ..gpu.timing import TILE_FAMILIES, GemmTiming
from ..kernel import ONE_BY_ONE, Kernel
from ..mask import Mask
from ..op import Op
from ..reference.gpu import gpu_twin

# of any machine; within them no power of the overlap's norm overflows
SECONDS, RATES = (1e-15, 1e3), (1.0, 1e21)
LARGEST = 1e9
SPANS = {"sms": (1.0, 1e7), "overlap": (1.0, 16.0)}
POLICIES = ("dense", "gather", "tile_skip", "best")


class GpuParams(NamedTuple):
    """`GemmTiming` in SI units, then how zeros are used.

    ``policy`` is the kernel a launch runs: ``dense``, ``gather``, ``tile_skip``, or ``best`` of them (a launcher
    that knows the break-even density). ``skip_rows`` x ``skip_block`` is the token tile and K block of ``tile_skip``.
    ``peak_flops`` and ``limit_w`` are the data sheet's, for rooflines and for carrying the model to other devices.
    """

    sms: int
    tile_family: str
    correction: str
    launch_s: float
    prologue_s: float
    step_s: float
    split_s: float
    sm_flops: float
    sustained_flops: float
    sm_fill: float
    l2: float
    dram: float
    sm_dram: float
    split: float
    overlap: int
    peak_flops: float
    limit_w: float
    policy: str
    page_bytes: float
    skip_rows: int
    skip_block: int
    skip_overhead: float


def model_of(params: GpuParams, operand_bits: int) -> GemmModel:
    """Build the dense timing model that an arch's parameters describe."""
    values = {name: getattr(params, name) for name in GemmTiming._fields if name != "operand_bytes"}
    timing = GemmTiming(operand_bytes=operand_bits / 8, **values)
    return GemmModel(timing, params.tile_family, load_correction(params.correction))


def _check(params: GpuParams, arch: Arch) -> None:
    for name, value, known in (
        ("policy", params.policy, POLICIES),
        ("tile_family", params.tile_family, tuple(TILE_FAMILIES)),
    ):
        if value not in known:
            raise InputError(f"arch '{arch.name}': parameter '{name}': unknown '{value}'" + nearest(str(value), known))
    spans = dict.fromkeys(("skip_overhead", "page_bytes"), (0.0, LARGEST))  # negative, they would take cycles away
    for name in (*GemmTiming._fields, "peak_flops", "limit_w"):
        spans[name] = SPANS.get(name, SECONDS if name.endswith("_s") else RATES)
    del spans["operand_bytes"]
    for name, (least, most) in spans.items():
        number = float(getattr(params, name))
        if least > 0 and not number > 0:
            raise InputError(f"arch '{arch.name}': parameter '{name}' = {number}, must be positive")
        if not least <= number <= most:
            raise InputError(f"arch '{arch.name}': parameter '{name}' = {number}, must be from {least:g} to {most:g}")


def _unions(mask: Mask, starts: NDArray[np.int64]) -> Union:
    parts = [union_rows(words, local) for words, local in grouped_blocks(mask, starts)]
    return Union(np.concatenate([part.rows for part in parts]), np.concatenate([part.runs for part in parts]))


class _Work(NamedTuple):
    """Seconds, FLOPs, DRAM and L2 bytes and gathered rows of each launch."""

    seconds: NDArray[np.float64]
    flops: NDArray[np.float64]
    dram_bytes: NDArray[np.float64]
    l2_bytes: NDArray[np.float64]
    gathered: NDArray[np.float64]


def _dense(op: Op, model: GemmModel, tokens: NDArray[np.int64]) -> _Work:
    sizes, where = np.unique(tokens, return_inverse=True)
    # copies run side by side in one batched launch; those that share their second operand are rows over it
    rows, columns = sizes * op.shared, op.n * op.groups
    shapes = np.stack([rows, np.full_like(rows, columns), np.full_like(rows, op.k)], axis=1)
    tiling, timing = model.explain(shapes), model.timing
    m = rows.astype(np.float64)
    blocks = np.ceil(m / tiling.tile[:, 0]) * np.ceil(columns / tiling.tile[:, 1])
    l2 = (
        blocks
        * (np.minimum(m, tiling.tile[:, 0]) + np.minimum(columns, tiling.tile[:, 1]))
        * op.k
        * timing.operand_bytes
    )
    moved = timing.operand_bytes * op.groups * (m * op.k + op.n * op.k + m * op.n)
    work = _Work(tiling.seconds, 2.0 * m * op.k * columns, moved, l2, np.zeros(len(m)))
    return _Work(*(values[where] for values in work))


def _gather(op: Op, params: GpuParams, timing: GemmTiming, starts: NDArray[np.int64]) -> _Work:
    """Gather along K where activations are masked, else along N for outputs that are not needed."""
    along_k = op.activation is not None
    mask = op.activation if op.activation is not None else op.output
    assert mask is not None
    total, width = (op.k, op.n) if along_k else (op.n, op.k)
    union = _unions(mask, starts)
    tokens = np.diff(starts).astype(np.float64)
    seconds = gather_seconds(union.rows, union.runs, tokens, total, width, timing, params.page_bytes)
    size = timing.operand_bytes
    moved = union.rows * width * size + tokens * (total + op.n) * size
    rows = union.rows.astype(np.float64)
    return _Work(seconds, 2.0 * tokens * rows * width, moved, moved, rows)


def _tile_skip(op: Op, params: GpuParams, model: GemmModel, tokens: NDArray[np.int64], dense: _Work) -> _Work:
    assert op.activation is not None
    tiles = group_starts(op, params.skip_rows)
    live = np.concatenate(
        [live_blocks(words, local, params.skip_block, op.k) for words, local in grouped_blocks(op.activation, tiles)]
    )
    first = np.searchsorted(tiles[:-1], np.concatenate(([0], np.cumsum(tokens)[:-1])))
    per_launch = np.diff(np.append(first, len(live)))
    share = np.add.reduceat(live, first) / (per_launch * np.ceil(op.k / params.skip_block))
    shapes = np.stack([tokens, np.full_like(tokens, op.n), np.full_like(tokens, op.k)], axis=1)
    seconds = tile_skip_seconds(shapes, share, model, params.skip_overhead)
    return _Work(seconds, dense.flops * share, dense.dram_bytes, dense.l2_bytes * share, np.zeros(len(tokens)))


def launch_work(op: Op, params: GpuParams, arch: Arch) -> tuple[_Work, _Work]:
    """Work of every launch by the arch's policy, and of the dense kernel."""
    model = model_of(params, int(arch.bits["activation"].value))
    starts = group_starts(op, min(op.batch or op.m, op.m))
    tokens = np.diff(starts)
    dense = _dense(op, model, tokens)
    options = [dense] if params.policy in ("dense", "best") else []
    masked = (op.activation is not None or op.output is not None) and op.repeat == 1
    if masked and params.policy in ("gather", "best"):
        options.append(_gather(op, params, model.timing, starts))
    if masked and op.activation is not None and params.policy in ("tile_skip", "best"):
        options.append(_tile_skip(op, params, model, tokens, dense))
    options = options or [dense]
    fastest = np.argmin([work.seconds for work in options], axis=0)
    chosen = [np.choose(fastest, fields) for fields in zip(*options, strict=True)]
    return _Work(*chosen), dense


def count(op: Op, params: GpuParams, arch: Arch) -> Compute:
    """Time an op launch by launch and count what it moves."""
    _check(params, arch)
    work, dense = launch_work(op, params, arch)
    cycles = np.ceil(work.seconds * arch.clock_hz).astype(np.int64)
    flops = round(work.flops.sum())
    useful = min(flops, 2 * op.effectual_macs)
    return Compute(
        cycles=int(cycles.sum()),
        dense_cycles=int(np.ceil(dense.seconds * arch.clock_hz).sum()),
        group_rows=min(op.batch or op.m, op.m),
        row_cycles=cycles,
        actions={
            "tensor.flop": useful,
            "tensor.zero_flop": flops - useful,  # a zero operand toggles less
            "l2.byte": round(work.l2_bytes.sum()),
            "gather.row": round(work.gathered.sum()),
        },
        dram_bytes=round(work.dram_bytes.sum()),
    )


def overhead(op: Op, params: GpuParams) -> int:
    """Cycles that skipping may add over dense: none where the launcher may fall back, unbounded otherwise."""
    return 0 if params.policy in ("dense", "best") else 1 << 62


KERNELS = [
    Kernel(
        "gpu",
        GpuParams,
        count,
        gpu_twin,
        skips=frozenset({"activation", "output"}),
        overhead=overhead,
        token_order_free=False,
        additive=False,
        baseline=ONE_BY_ONE,
    )
]
