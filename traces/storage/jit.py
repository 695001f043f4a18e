"""The jit decorator of this package's kernels; its disk cache is named by a hash of every file that uses it."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..fetch import cache_folder


def _folder() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        if b"jit" in (text := source.read_bytes()):
            digest.update(text)
    place = cache_folder() / f"numba-traces-{digest.hexdigest()[:16]}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        if os.access(place, os.W_OK):
            return str(place)
    except OSError:
        pass
    # a process of its own compiles anew, and leaves nothing behind
    temporary = tempfile.mkdtemp(prefix="zeroskip-numba-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


FOLDER = _folder()


def jit(function: Callable[..., Any]) -> Any:
    """Compile: cached on disk, without the GIL."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = FOLDER
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        numba.config.CACHE_DIR = before


@intrinsic
def popcount64(typingctx: Any, word: Any) -> Any:
    """Count the ones of a uint64 with the processor's own instruction."""
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


@intrinsic
def lowest_one(typingctx: Any, word: Any) -> Any:
    """Index of the lowest one of a uint64 that is not zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate
