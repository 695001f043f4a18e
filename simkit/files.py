"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to; it takes the target's place at the end, and an error leaves nothing behind.

    Parameters
    ----------
    target : path
        The file; its folder is made.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    target = Path(target)
    partial = target.with_name(f".{target.name}.{_ending(os.getpid())}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, target)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = "free some space" if error.errno in FULL else "give a place that can be written"
        raise StorageError(f"cannot write {target}: {reason}; {remedy} and run the same command") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def clear_after(pid: int, folder: str | os.PathLike[str]) -> None:
    """Remove what a killed process of this machine had begun to write into a folder."""
    for partial in Path(folder).glob(f".*.{_ending(pid)}"):
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _ending(pid: int) -> str:
    return f"{pid}.part"
