"""Data sets in local files, as frames: CSV, JSON, Parquet and text, decided by rules and refused by line and column.

- Text is UTF-8, with or without a byte order mark, plain or compressed (.gz, .bz2, .xz). Endings may be in capitals.
- CSV has a header. Its separator is whichever of comma, semicolon and tab the header has most of; where it has none,
  each line is one cell. Rows must be as long as the header. Blanks around the columns' names are taken off.
- The column of the items is text as it stands: ``007`` and ``NA`` are not read as numbers or as empty. In the other
  columns a cell that is empty, or ``NA``, ``None``, ``null``, ``NaN`` or the like, is empty.
- JSON is a list of objects, an object of columns, or an object a line, told by its content whichever its ending.
  A text that looks like a number or a date stays a text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TextIO

from ..errors import CorruptError, InputError
from ..files import kind_of
from .text_files import one_line, open_text, split_name

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
ENDINGS = (*TABLES, ".txt")
UNUSED = "\x1f"  # a separator that no text has
EMPTY = ("", "NA", "N/A", "n/a", "NaN", "nan", "None", "null", "NULL", "<NA>", "#N/A")
QUOTE = "put cells that hold the separator in double quotes, and close each quote"
OBJECTS = "give a list of objects, an object of columns, or an object a line"
LISTED = ", ".join(ENDINGS[:-1]) + " or .txt"


def is_data_file(path: Path) -> bool:
    """Whether a name ends as a data file does, compressed or not."""
    return split_name(path)[1] in ENDINGS


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, with their ends.

    Raises
    ------
    InputError
        If it is not UTF-8.
    """
    with open_text(path) as text:
        return text.read().splitlines(keepends=True)


def read_frame(path: Path, text: str, label: str | None = None) -> Any:
    """Read a table.

    Parameters
    ----------
    path : Path
        One that ends as `TABLES` has it.
    text : str
        Column of the items.
    label : str, optional
        Column of the labels.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    InputError
        If it is empty, in another encoding, ragged, not JSON, or names a column twice.
    CorruptError
        If it is damaged.
    """
    if kind_of(path) == "empty":
        raise InputError(f"data file '{path}' is empty; give one with rows")
    ending = split_name(path)[1]
    if ending == ".parquet":
        return _parquet(path)
    return _csv(path, text, label) if ending in (".csv", ".tsv") else _json(path)


def _csv(path: Path, text: str, label: str | None) -> Any:
    import pandas as pd

    try:
        with open_text(path) as handle:
            separator = _separator(path, handle)
        how: dict[str, Any] = {"sep": separator or UNUSED}
        with open_text(path) as handle:
            header = pd.read_csv(handle, header=None, nrows=1, dtype=str, keep_default_na=False, **how)
        names = [one_line(name) for name in header.iloc[0]]
        twice = next((name for name in (text, label) if name is not None and names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"data file '{path}': line 1 names two columns '{twice}'; rename one")
        how |= {"header": 0, "names": range(len(names)), "keep_default_na": False, "low_memory": False}
        if text in names:
            how["dtype"] = {names.index(text): str}
        others = {i: EMPTY for i, name in enumerate(names) if name != text}
        with open_text(path) as handle:
            frame = pd.read_csv(handle, na_values=others, **how)
    except pd.errors.EmptyDataError:
        raise InputError(f"data file '{path}' is empty; give one with rows") from None
    except ValueError as error:  # a ParserError, or a cell that no type holds
        if isinstance(error, InputError | UnicodeDecodeError):
            raise
        told = str(error).strip().splitlines()[0].removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"data file '{path}': {told}; {QUOTE}") from None
    if not isinstance(frame.index, pd.RangeIndex) or len(frame.columns) != len(names):
        # pandas would take the first column for an index, and every other for its neighbour
        raise InputError(f"data file '{path}': line 2 has more cells than line 1; {QUOTE}, or name every column")
    frame.columns = pd.Index(names)
    if text in names:
        frame[text] = frame[text].astype(object).where(frame[text] != "", None)
    return frame


def _separator(path: Path, handle: TextIO) -> str:
    """Return the separator that the header has most of, outside quotes; empty where it has none."""
    header = ""
    for line in handle:
        header += line if header or line.strip() else ""
        if header and header.count('"') % 2 == 0:
            break
    names = re.sub(r'"[^"]*"', "", header)
    most, next_most = sorted(",;\t", key=names.count, reverse=True)[:2]
    if names.count(most) == names.count(next_most) > 0:
        raise InputError(
            f"data file '{path}': line 1 has as many {most!r} as {next_most!r}; quote the names that hold the one that "
            "is no separator"
        )
    return most if most in names else ""


def _json(path: Path) -> Any:
    with open_text(path) as handle:
        text = handle.read()
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InputError(f"data file '{path}' is empty; give one with rows")
    single = split_name(path)[1] == ".json" and len(lines) == 1
    if lines[0][1].lstrip().startswith("[") or single or not _stands_alone(lines[0][1]):
        held = _parsed(path, text, 1)
        if isinstance(held, dict) and held and _columns(held):
            return _framed(path, held)
        rows = held if isinstance(held, list) else [None]
        places = [f"element {i}" for i in range(1, len(rows) + 1)]
    else:
        rows = [_parsed(path, line, number) for number, line in lines]
        places = [f"line {number}" for number, _ in lines]
    for place, row in zip(places, rows, strict=True):
        if not isinstance(row, dict):
            raise InputError(f"data file '{path}': {place} is no object; {OBJECTS}")
    return _framed(path, rows)


def _framed(path: Path, held: Any) -> Any:
    import pandas as pd

    try:
        # as objects: pandas would make numbers of texts, and floats of whole numbers beside an empty cell
        return pd.DataFrame(held, dtype=object)
    except UnicodeEncodeError as error:
        raise InputError(f"data file '{path}': a column's name holds half a character ({error}); rename it") from None


def _stands_alone(line: str) -> bool:
    """Whether a first line is a whole value, as in JSON lines."""
    try:
        json.loads(line)
    except ValueError:
        return not line.rstrip().endswith(("{", "[", ",", ":"))
    return True


def _columns(held: dict[str, Any]) -> bool:
    """Whether an object holds columns: lists of one length, or cells by row."""
    if all(isinstance(column, dict) for column in held.values()):
        return True
    return all(isinstance(c, list) for c in held.values()) and len({len(c) for c in held.values()}) == 1


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"data file '{path}': line {line + error.lineno - 1}, column {error.colno}: {error.msg}; mend that line, "
            "or fetch the file again if it was cut"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of more than 4,300 digits; brackets in brackets
        raise InputError(f"data file '{path}': line {line}: {error}; {OBJECTS}") from None


def _parquet(path: Path) -> Any:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow's and pandas' kinds for a damaged file have no common base
        kind = kind_of(path)
        if kind and kind != "Parquet":
            raise InputError(
                f"data file '{path}' is {kind}, not Parquet; give a file that is what its ending says"
            ) from None
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CorruptError(f"data file '{path}' is damaged or not Parquet ({told}); fetch it again") from None
    return frame if frame.index.name is None else frame.reset_index()
