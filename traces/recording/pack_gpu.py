"""Pack a tensor on the device that computed it: a Triton kernel, or torch's own operators where Triton is missing."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..storage.bits import pack_torch, words_per_row
from .pack_cpu import FORMATS, limits

WORDS = 64  # 32-bit words that one program packs
KERNEL_FORMATS = ("float32", "bfloat16", "float16", "bool")


@cache
def _kernel() -> Any:
    """Return the Triton kernel, None where Triton is not installed."""
    try:
        from .pack_triton import pack_rows
    except ImportError:
        return None
    return pack_rows


def pack_device(values: Any, threshold: float, bad: Any) -> Any:
    """Pack a 2-D tensor where it is, without waiting for it.

    Parameters
    ----------
    values : tensor (M, K)
        float32, bfloat16, float16 or bool for the kernel; others take torch's operators.
    threshold : float
        Zero for every non-zero element, NaN included.
    bad : tensor of one int32
        To which is added how many elements are not finite.

    Returns
    -------
    tensor (M, 2 ceil(K / 64)) of int32, or (M, ceil(K / 64)) of int64
        The same bytes either way.
    """
    import torch

    flat = values.detach().contiguous()
    name = str(flat.dtype).removeprefix("torch.")
    kernel = _kernel()
    if kernel is None or name not in KERNEL_FORMATS:
        bad += (~torch.isfinite(flat)).sum()
        return pack_torch(flat.abs() > threshold if threshold else flat != 0)
    bits, magnitude, low, high = limits(flat, threshold)
    rows, columns = flat.shape
    width = 2 * words_per_row(columns)
    words = torch.empty((rows, width), dtype=torch.int32, device=flat.device)
    if rows:
        grid = (rows, -(-width // WORDS))
        kernel[grid](bits, words, bad, columns, width, magnitude, low, high, FORMATS[name][2], lanes=32, block=WORDS)
    return words
