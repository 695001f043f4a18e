"""Files that are written whole or not at all, and the kind of a file by its first bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

_numbers = count()


MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@contextmanager
def whole(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to; forced to disk, it takes the target's place at the end.

    An error leaves nothing behind; what a killed process leaves is removed by `clear_after`.

    Parameters
    ----------
    target : path
        The file; its folder is made.
    """
    target = Path(target)
    if not target.name:  # such as '.' and '/'
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{next(_numbers)}.{_ending(os.getpid())}")
    try:
        yield partial
        with partial.open("rb") as done:
            os.fsync(done.fileno())
        os.replace(partial, target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def clear_after(pid: int, folder: str | os.PathLike[str]) -> None:
    """Remove what a killed process of this machine had begun to write into a folder."""
    for partial in Path(folder).glob(f".*.{_ending(pid)}"):
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def clear_dead(folder: str | os.PathLike[str]) -> None:
    """Remove what processes of this machine that no longer run had begun to write into a folder."""
    for partial in Path(folder).glob(f".*.{_ending('*')}"):
        pid = partial.name.split(".")[-2]
        if pid.isdigit() and not _runs(int(pid)):
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def _ending(pid: int | str) -> str:
    # a folder may be shared by machines, whose processes have the same numbers
    return f"{MACHINE}.{pid}.part"


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file that then takes the place of `path`, whole or not at all."""
    with whole(path) as partial:
        write(partial)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# first bytes -> what a file is
_MAGIC: dict[bytes, str] = {
    b"version https://git-lfs": "a Git LFS pointer in place of the file (fetch it with 'git lfs pull')",
    b"PAR1": "Parquet",
    b"PK\x03\x04": "a ZIP archive",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "gzip-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "Zstandard-compressed",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x80\x02": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x89HDF": "HDF5",
}


def kind_of(path: Path) -> str:
    """Name the kind of a file by its first bytes, such as ``"Parquet"`` or ``"a CSV"``; empty where it is not known."""
    with path.open("rb") as handle:
        head = handle.read(4096)
    if not head:
        return "empty"
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if b"\0" in head:
        return ""
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    if line.startswith((b"{", b"[")):
        return "JSON"
    if any(separator in line for separator in (b",", b";", b"\t")):
        return "a CSV"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "text"


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, readable by people."""
    write_atomic(path, lambda p: p.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8"))
