"""Files that are written whole or not at all, with one clear line where they cannot be."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from traces import files
from traces.files import clear_after, clear_dead

from .errors import StorageError

__all__ = ["clear_after", "clear_dead", "whole"]

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to; forced to disk, it takes the target's place at the end; see `traces.files.whole`.

    Parameters
    ----------
    target : path
        The file; its folder is made.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    try:
        with files.whole(target) as partial:
            yield partial
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = "free some space" if error.errno in FULL else "give a place that can be written"
        raise StorageError(f"cannot write {target}: {reason}; {remedy} and run the same command") from None
