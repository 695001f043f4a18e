"""The one jit decorator of the kernels, counting ones in words, and arrays at a cache line.

Numba's cache notices a change in the file of the cached function, not in a helper it calls from another file. So the
cache folder is named by a hash over every file of this package that has to do with jit: any edit there starts a fresh
cache.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..sources import source_files

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> str:
    """Make ``$ZEROSKIP_CACHE/numba-HASH``, else below ``$XDG_CACHE_HOME/zeroskip`` or ``~/.cache/zeroskip``."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in source_files():
        if b"jit" in (text := source.read_bytes()):
            digest.update(text)
    own = os.environ.get("ZEROSKIP_CACHE")
    root = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroskip"
    folder = root / f"numba-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    except OSError:
        pass
    # a process of its own compiles anew, and leaves nothing behind
    temporary = tempfile.mkdtemp(prefix="zeroskip-numba-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


CACHE_FOLDER = _cache_folder()


def jit(function: F | None = None, *, parallel: bool = False, inline: bool = False, unchecked: bool = False) -> Any:
    """Compile a kernel: cached on disk, releases the GIL, no object mode.

    Parameters
    ----------
    function : callable
        A function of arrays, integers and NamedTuples of integers.
    parallel : bool
        Allow ``numba.prange`` over rows or tiles.
    inline : bool
        Always inline into the caller (small helpers in hot loops).
    unchecked : bool
        Divide as numpy does, without the branch for a zero that keeps loops from vectorising.
    """

    def decorate(target: F) -> Any:
        # numba reads its cache folder when the decorator runs; setting it only here leaves other users of numba alone
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = CACHE_FOLDER
        try:
            options: dict[str, Any] = {"cache": True, "nogil": True, "parallel": parallel}
            if unchecked:
                options["error_model"] = "numpy"
            if inline:
                options["inline"] = "always"
            return numba.njit(**options)(target)
        finally:
            numba.config.CACHE_DIR = before

    return decorate if function is None else decorate(function)


CACHE_LINE = 64


def aligned(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array of zeros that begins at a cache line.

    numpy aligns to 16 bytes, so vectors of 64 bytes cross a line in three processes of four: loops that carry a vector
    from step to step through memory then take up to twice as long.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + CACHE_LINE, dtype=np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


@intrinsic
def popcount64(typingctx: Any, word: Any) -> Any:
    """Count the ones of a uint64 with the processor's own instruction."""
    signature = types.int64(types.uint64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return signature, generate


@intrinsic
def trailing_zeros64(typingctx: Any, word: Any) -> Any:
    """Index of the lowest one of a uint64; 64 where there is none."""
    signature = types.int64(types.uint64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return signature, generate


@jit(inline=True)
def ones_between(words, row, first, last):  # type: ignore[no-untyped-def]
    """Count the ones of a row's elements from `first` up to `last`."""
    found = np.int64(0)
    begin, end = first // 64, (last + 63) // 64
    for word in range(begin, end):
        bits = words[row, word]
        if word == begin:
            bits &= ~np.uint64(0) << np.uint64(first % 64)
        if word == end - 1:
            bits &= ~np.uint64(0) >> np.uint64((64 - last % 64) % 64)
        found += popcount64(bits)
    return found
