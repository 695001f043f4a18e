"""The packing kernel in Triton; it loops over nothing, so any version of Triton and its interpreter take it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pack_rows(  # type: ignore[no-untyped-def]
    bits, words, bad, columns, width, magnitude, low, high, infinity,
    lanes: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Pack 32 elements to one word, with integers alone: a denormal is not zero, whatever the device's floats say.

    Program (row, part) packs `block` words of a row, and adds to `bad` how many elements are infinite or NaN.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    word = part * block + tl.arange(0, block)
    lane = tl.arange(0, lanes)
    column = word[:, None] * lanes + lane[None, :]
    size = tl.load(bits + row * columns + column, mask=column < columns, other=0).to(tl.int32) & magnitude
    one = ((size > low) & (size <= high)).to(tl.int32) << lane[None, :]
    tl.store(words + row * width + word, tl.sum(one, axis=1), mask=word < width)
    found = tl.sum(tl.sum((size >= infinity).to(tl.int32), axis=1), axis=0)
    if found > 0:
        tl.atomic_add(bad, found)
