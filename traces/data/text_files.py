"""Text files of other tools: UTF-8 with or without a byte order mark, plain or compressed; errors say where."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from ..errors import CorruptError, InputError
from ..files import kind_of

OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# what `kind_of` may say of a file of text
TEXT = ("", "text", "JSON", "a CSV", "empty")
ENCODED = {".gz": "gzip-compressed", ".bz2": "bzip2-compressed", ".xz": "xz-compressed"}


def split_name(path: Path) -> tuple[str, str]:
    """Split a file's name into stem and ending in small letters; ``fc.CSV.gz`` is ``("fc", ".csv")``."""
    inner = Path(path.stem) if path.suffix.lower() in OPENERS else path
    return inner.stem, inner.suffix.lower()


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a file of UTF-8 text, also one ending in .gz, .bz2 or .xz; a byte order mark is taken off.

    What its reader raises about encoding and compression comes out as one line with file, line and byte.

    Raises
    ------
    InputError
        If it is no UTF-8 text, or cannot be opened.
    CorruptError
        If its compression is damaged.
    """
    compression = path.suffix.lower() if path.suffix.lower() in OPENERS else ""
    try:
        kind = kind_of(path)
        if kind != ENCODED.get(compression) and (compression or kind not in TEXT):
            raise InputError(f"{path} is {kind or 'not compressed'}, not {_wanted(compression)}; {_remedy(kind)}")
        with _bytes(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise InputError(_undecodable(path, error)) from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise CorruptError(f"{path}: its compression is damaged ({error}); fetch it again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _bytes(path: Path) -> Any:
    return OPENERS.get(path.suffix.lower(), open)(path, "rb")


def _wanted(compression: str) -> str:
    return f"what its ending {compression} says" if compression else "UTF-8 text"


def _remedy(kind: str) -> str:
    if kind == "UTF-16 text":
        return "save it as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"
    return "unpack it, or give it the ending that it has" if "compressed" in kind else "save it as UTF-8 text"


def _undecodable(path: Path, error: UnicodeDecodeError) -> str:
    """Name line and byte of the first text that is not UTF-8: the error's own offset is within a buffer."""
    with suppress(OSError, EOFError, zlib.error, lzma.LZMAError), _bytes(path) as raw:  # a damaged end comes later
        for number, line in enumerate(raw, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as found:
                return (
                    f"{path}: line {number}, byte {found.start + 1}: 0x{line[found.start]:02x} is not UTF-8; save it "
                    "as UTF-8, or convert it, such as from Windows: iconv -f WINDOWS-1252 -t UTF-8 IN > OUT"
                )
    return f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8"


def one_line(text: object) -> str:
    """Return a name without line breaks, for a message of one line."""
    return " ".join(str(text).split())
