"""Kernels under test, in Triton: compaction, gathers, in-kernel skipping, tile skipping.

Loops run to compile-time bounds, and what lies past the number of active rows is masked off, or to a number that an
earlier kernel left on the device: a launch needs no number from there, so all of it can sit in a CUDA graph. Sums over
rows are split over programs and added up in a second kernel in a fixed order: no atomics, the same bits at every run.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

COMPACT_BLOCK = 1024
GATHER_ROWS = 64
MAX_TOKENS = 16
TILE_STAGES = 3


if triton.knobs.runtime.interpret:

    def _loop_bound(loaded: Any) -> int:
        """Return a loaded number as an int: NumPy 2.4 does not convert the array that Triton 3.6's interpreter has."""
        return int(loaded.handle.data.item())

else:

    @triton.jit
    def _loop_bound(loaded):  # type: ignore[no-untyped-def]
        """Return a loaded number as it is: a compiled loop takes it."""
        return loaded


@triton.jit
def pack_words(x, words, count, threshold, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """32 activations to one word: bit i of word j is ``|x[32 j + i]| > threshold``."""
    word = tl.program_id(0) * block + tl.arange(0, block)
    lane = tl.arange(0, 32)
    place = word[:, None] * 32 + lane[None, :]
    value = tl.load(x + place, mask=place < count, other=0.0).to(tl.float32)
    bit = (tl.abs(value) > threshold).to(tl.int32) << lane[None, :]
    tl.store(words + word, tl.sum(bit, axis=1), mask=word * 32 < count)


@triton.jit
def _active(x, column, k, tokens, threshold, max_tokens: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.arange(0, max_tokens)
    inside = (token[:, None] < tokens) & (column[None, :] < k)
    value = tl.load(x + token[:, None] * k + column[None, :], mask=inside, other=0.0).to(tl.float32)
    return tl.max((tl.abs(value) > threshold).to(tl.int32), axis=0)


@triton.jit
def count_active(x, counts, k, tokens, threshold, max_tokens: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Columns of a block that any token has above the threshold."""
    column = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(counts + tl.program_id(0), tl.sum(_active(x, column, k, tokens, threshold, max_tokens), axis=0))


@triton.jit
def write_active(  # type: ignore[no-untyped-def]
    x,
    counts,
    index,
    total,
    k,
    tokens,
    threshold,
    blocks,
    max_tokens: tl.constexpr,
    max_blocks: tl.constexpr,
    block: tl.constexpr,
):
    """Ascending list of the active columns, each block at the sum of the counts before it."""
    own = tl.program_id(0)
    column = own * block + tl.arange(0, block)
    active = _active(x, column, k, tokens, threshold, max_tokens)
    other = tl.arange(0, max_blocks)
    count = tl.load(counts + other, mask=other < blocks, other=0)
    before = tl.sum(tl.where(other < own, count, 0), axis=0)
    place = before + tl.cumsum(active, axis=0) - active
    tl.store(index + place, column, mask=active > 0)
    if own == 0:
        tl.store(total, tl.sum(count, axis=0))


@triton.jit
def gather_partial(  # type: ignore[no-untyped-def]
    x, index, total, weight, partial, k, n, tokens,
    compact: tl.constexpr, max_tokens: tl.constexpr, rows: tl.constexpr, step: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """``rows`` active rows of W times their activations, for a block of outputs; inactive programs write nothing."""
    part, first = tl.program_id(1), tl.program_id(0) * columns
    active = tl.load(total)
    if part * rows < active:
        column = first + tl.arange(0, columns)
        token = tl.arange(0, max_tokens)
        out = tl.zeros((max_tokens, columns), dtype=tl.float32)
        for start in range(0, rows, step):
            place = part * rows + start + tl.arange(0, step)
            here = place < active
            row = tl.load(index + place, mask=here, other=0)
            w = tl.load(
                weight + row[:, None].to(tl.int64) * n + column[None, :],
                mask=here[:, None] & (column[None, :] < n),
                other=0.0,
            )
            source = place if compact else row
            value = tl.load(
                x + token[:, None] * k + source[None, :], mask=(token[:, None] < tokens) & here[None, :], other=0.0
            )
            if max_tokens == 1:
                product = tl.trans(value).to(tl.float32) * w.to(tl.float32)
                out += tl.sum(product, axis=0)[None, :]
            else:
                out += tl.dot(value, w)
        target = (part * tokens + token[:, None]) * n + column[None, :]
        tl.store(partial + target, out, mask=(token[:, None] < tokens) & (column[None, :] < n))


@triton.jit
def reduce_partial(  # type: ignore[no-untyped-def]
    partial, total, out, n, tokens, rows: tl.constexpr, max_parts: tl.constexpr, columns: tl.constexpr
):
    """Add the partial sums of all programs that ran, in order of their rows."""
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    token = tl.program_id(1)
    part = tl.arange(0, max_parts)
    parts = (tl.load(total) + rows - 1) // rows
    place = (part[:, None] * tokens + token) * n + column[None, :]
    value = tl.load(partial + place, mask=(part[:, None] < parts) & (column[None, :] < n), other=0.0)
    tl.store(out + token * n + column, tl.sum(value, axis=0).to(out.dtype.element_ty), mask=column < n)


@triton.jit
def gate_up(  # type: ignore[no-untyped-def]
    x, gate, index, total, up, hidden, d_model, d_ff, tokens,
    max_tokens: tl.constexpr, rows: tl.constexpr, steps: tl.constexpr, step: tl.constexpr,
):  # fmt: skip
    """``hidden[:, i] = gate[:, index[i]] * (x . up[index[i], :])`` for the active neurons alone, side by side."""
    place = tl.program_id(0) * rows + tl.arange(0, rows)
    active = tl.load(total)
    if tl.program_id(0) * rows < active:
        here = place < active
        neuron = tl.load(index + place, mask=here, other=0)
        token = tl.arange(0, max_tokens)
        out = tl.zeros((max_tokens, rows), dtype=tl.float32)
        for i in range(0, steps):
            d = i * step + tl.arange(0, step)
            w = tl.load(
                up + neuron[:, None].to(tl.int64) * d_model + d[None, :],
                mask=here[:, None] & (d[None, :] < d_model),
                other=0.0,
            )
            value = tl.load(
                x + token[:, None] * d_model + d[None, :],
                mask=(token[:, None] < tokens) & (d[None, :] < d_model),
                other=0.0,
            )
            if max_tokens == 1:
                out += tl.sum(w.to(tl.float32) * value.to(tl.float32), axis=1)[None, :]
            else:
                out += tl.dot(value, tl.trans(w))
        inside = (token[:, None] < tokens) & here[None, :]
        scale = tl.load(gate + token[:, None] * d_ff + neuron[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(
            hidden + token[:, None] * d_ff + place[None, :], (out * scale).to(hidden.dtype.element_ty), mask=inside
        )


@triton.jit
def mask_partial(x, weight, partial, k, n, threshold, rows: tl.constexpr, step: tl.constexpr, columns: tl.constexpr):  # type: ignore[no-untyped-def]
    """Batch 1 without a list: rows of W whose activation is small are masked out of the load."""
    part = tl.program_id(1)
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    out = tl.zeros((columns,), dtype=tl.float32)
    for start in range(0, rows, step):
        row = part * rows + start + tl.arange(0, step)
        value = tl.load(x + row, mask=row < k, other=0.0).to(tl.float32)
        here = tl.abs(value) > threshold
        w = tl.load(
            weight + row[:, None].to(tl.int64) * n + column[None, :],
            mask=here[:, None] & (column[None, :] < n),
            other=0.0,
        )
        out += tl.sum(w.to(tl.float32) * value[:, None], axis=0)
    tl.store(partial + part * n + column, out, mask=column < n)


@triton.jit
def flag_blocks(x, live, m, k, blocks, rows: tl.constexpr, width: tl.constexpr):  # type: ignore[no-untyped-def]
    """Whether a token tile holds a non-zero in a block of K."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * width + tl.arange(0, width)
    inside = (row[:, None] < m) & (column[None, :] < k)
    value = tl.load(x + row[:, None].to(tl.int64) * k + column[None, :], mask=inside, other=0.0).to(tl.float32)
    most = tl.max(tl.max((tl.abs(value) > 0.0).to(tl.int32), axis=1), axis=0)
    tl.store(live + tl.program_id(0) * blocks + tl.program_id(1), most)


@triton.jit
def list_live(live, listing, count, blocks, max_blocks: tl.constexpr):  # type: ignore[no-untyped-def]
    """Ascending list of the K blocks that each token tile needs, and how many."""
    tile = tl.program_id(0)
    block = tl.arange(0, max_blocks)
    flag = tl.load(live + tile * blocks + block, mask=block < blocks, other=0)
    tl.store(listing + tile * blocks + tl.cumsum(flag, axis=0) - flag, block, mask=flag > 0)
    tl.store(count + tile, tl.sum(flag, axis=0))


@triton.jit
def tile_skip(  # type: ignore[no-untyped-def]
    x, weight, listing, count, out, m, n, k, blocks,
    rows: tl.constexpr, columns: tl.constexpr, width: tl.constexpr, stages: tl.constexpr,
):  # fmt: skip
    """Dense GEMM over the K blocks that its token tile needs.

    The loop runs over a list, without a branch, so that the loads of the next blocks are under way while one is
    multiplied; a test inside the loop would keep the compiler from overlapping them.
    """
    tile = tl.program_id(0)
    row = tile * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.zeros((rows, columns), dtype=tl.float32)
    for i in tl.range(0, _loop_bound(tl.load(count + tile)), num_stages=stages):
        inner = tl.load(listing + tile * blocks + i) * width + tl.arange(0, width)
        a = tl.load(
            x + row[:, None].to(tl.int64) * k + inner[None, :],
            mask=(row[:, None] < m) & (inner[None, :] < k),
            other=0.0,
        )
        b = tl.load(
            weight + inner[:, None].to(tl.int64) * n + column[None, :],
            mask=(inner[:, None] < k) & (column[None, :] < n),
            other=0.0,
        )
        total += tl.dot(a, b)
    inside = (row[:, None] < m) & (column[None, :] < n)
    tl.store(out + row[:, None].to(tl.int64) * n + column[None, :], total.to(out.dtype.element_ty), mask=inside)
