"""Masks in CSV files: which line is a header and which column an index is decided by a rule, and said on stderr.

- The separator is whichever of comma, semicolon and tab the first line has most of; blanks where it has none.
- Line 1 is a header where its cells after the first are text, or where all of them count 0, 1, 2 ... or 1, 2, 3 ...
  Two cells ``0,1`` may also be a token of two neurons: that is refused unless it is said.
- Column 1 is an index where its header is empty or ``Unnamed: 0``, where the header is one cell shorter than the rows,
  where it holds text, or where its values count up and no header numbers it among the neurons. Values 0 or 0, 1 may
  also be a neuron of one or two tokens: refused unless said. So is a line or column of different numbers where all
  others are 0 and 1.
- ``True`` and ``False`` are 1 and 0. What is not zero is a one. Cells that are empty, NaN or text are refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.text_files import open_text
from ..errors import InputError

log = logging.getLogger(__name__)
CELLS = 1 << 22  # read at once
SAY_HEADER = "--header or --no-header (header=True or False)"
SAY_INDEX = "--index or --no-index (index=True or False)"


@dataclass
class _Body:
    """What follows line 1: the first column as it is read, and the others as ones and zeros."""

    width: int = 0
    first: list[Any] = field(default_factory=list)
    ones: list[NDArray[np.bool_]] = field(default_factory=list)
    binary: bool = True


def read_mask_csv(path: Path, header: bool | None = None, index: bool | None = None) -> NDArray[np.bool_]:
    """Read a mask with a row for each token.

    Parameters
    ----------
    path : Path
        CSV, also compressed.
    header, index : bool, optional
        Whether line 1 is a header and column 1 an index; by the module's rule where left out.

    Returns
    -------
    bool array (M, K)
        True where a value is not zero.

    Raises
    ------
    InputError
        If a cell is no number, rows differ in length, or the rule leaves open what a line or column is.
    CorruptError
        If its compression is damaged.
    """
    import pandas as pd

    cells, separator = _first_line(path)
    trailing = len(cells) > 1 and not cells[-1]  # SCALE-Sim ends its lines with a comma
    cells = cells[:-1] if trailing else cells
    body = _read_body(path, separator, trailing)
    column: Any = pd.concat(body.first, ignore_index=True) if body.first else pd.Series(dtype=float)
    named = header is True or _counts(cells) > 1 or not any(map(_is_number, cells))
    short = bool(body.width) and len(cells) == body.width - 1 and named and False not in (header, index)
    if body.width and not short and len(cells) != body.width:
        raise InputError(f"{path}: line 1 has {len(cells)} cells, line 2 has {body.width}; every token has K values")
    headed = _is_header(path, cells, column, body, header, short)
    indexed = short or _is_index(path, cells, column, body, headed, index)
    rows = [np.concatenate(body.ones)] if body.ones else []
    if not headed:
        line = _numbers(path, _row(cells[1:]), 1, 2) != 0
        rows.insert(0, line)
    if not rows:
        raise InputError(f"{path} has a header and no row; give rows of numbers, all of the same length")
    mask = np.concatenate(rows)
    if not indexed:
        values = column if headed else pd.concat([pd.Series(cells[:1]), column], ignore_index=True)
        mask = np.column_stack([_numbers(path, values.to_frame(), 1 + headed, 1) != 0, mask])
    if headed or indexed:
        taken = " and ".join(["line 1 as a header"] * headed + ["column 1 as an index"] * indexed)
        log.warning("%s: took %s: M = %d, K = %d; --no-header and --no-index say otherwise", path, taken, *mask.shape)
    return mask


def _first_line(path: Path) -> tuple[list[str], str]:
    """Return the cells of line 1 and the separator."""
    import pandas as pd

    with open_text(path) as text:
        line = text.readline(1 << 24).rstrip("\r\n")
        gap = not text.readline(1 << 24).strip() and any(rest.strip() for rest in text)
    if gap and line.strip():  # pandas would skip it without a word
        raise InputError(f"{path}: line 2 is empty; give rows of numbers, all of the same length")
    if not line.strip():
        raise InputError(f"{path}: line 1 is empty; give rows of numbers, all of the same length")
    separator = max(",;\t", key=line.count)
    separator = separator if separator in line else r"\s+"
    try:
        with open_text(path) as text:
            row = pd.read_csv(text, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise InputError(f"{path}: line 1: {_first_of(error)}; give rows of numbers, all of the same length") from None
    cells = [str(cell).strip() for cell in row.iloc[0]]
    if cells[0].lower() in ("layer", "layer name"):
        raise InputError(
            f"{path} is a topology (it begins with '{line[:40]}'): sizes without masks; give a CSV with a row of "
            "zeros and ones for each token"
        )
    nameless = next((i for i, cell in enumerate(cells) if i and cell.startswith("Unnamed: ")), 0)
    if nameless:
        raise InputError(
            f"{path}: line 1, column {nameless + 1} is '{cells[nameless]}', a second index; write the file with "
            "index=False"
        )
    return cells, separator


def _read_body(path: Path, separator: str, trailing: bool) -> _Body:
    """Read what follows line 1 in pieces, keeping a byte a value."""
    import pandas as pd

    body, line = _Body(), 2
    how: dict[str, Any] = {"sep": separator, "header": None, "skiprows": 1, "skip_blank_lines": False}
    try:
        with open_text(path) as text:
            width = len(pd.read_csv(text, nrows=1, dtype=str, **how).columns)
        with open_text(path) as text:
            for piece in pd.read_csv(text, chunksize=max(1, CELLS // width), low_memory=False, **how):
                if trailing and piece.shape[1] > 1 and piece.iloc[:, -1].isna().all():
                    piece = piece.iloc[:, :-1]
                empty = piece.isna().all(axis=1).to_numpy()
                if empty[-1]:  # blank lines at the end
                    piece = piece.iloc[: int(np.flatnonzero(~empty)[-1]) + 1 if not empty.all() else 0]
                if len(piece):
                    values = _numbers(path, piece.iloc[:, 1:], line, 2)
                    body.width = piece.shape[1]
                    body.first.append(piece.iloc[:, 0])
                    body.ones.append(values != 0)
                    body.binary &= bool(((values == 0) | (values == 1)).all())
                line += len(empty)
    except pd.errors.EmptyDataError:
        return body
    except pd.errors.ParserError as error:
        raise InputError(f"{path}: {_first_of(error)}; give rows of numbers, all of the same length") from None
    return body


def _is_header(path: Path, cells: list[str], column: Any, body: _Body, said: bool | None, short: bool) -> bool:
    """Whether line 1 names columns; `short` where it has one cell less than the rows."""
    numeric = [_is_number(cell) for cell in cells]
    if said is False and not all(numeric[1:]):
        _numbers(path, _row(cells[1:]), 1, 2)
    if said is not None:
        return said
    if short or not cells[0]:
        return True
    if not any(numeric[1:] or numeric):
        return True
    if not all(numeric[1:]):
        _numbers(path, _row(cells[1:]), 1, 2)
    counts = _counts(cells if numeric[0] else cells[1:])
    if not numeric[0]:  # a name, then numbers: the index's name before 0, 1, 2 ..., or a row's label
        return counts > 1 or any(isinstance(value, int | float | np.number) for value in column)
    if counts > 1:
        return True
    if body.width and (counts == 1 or (body.binary and _is_odd(cells[1:]))):
        raise InputError(
            f"{path}: line 1 ({','.join(cells[:4])}) may be a header or a token; say which with {SAY_HEADER}"
        )
    return False


def _is_index(path: Path, cells: list[str], column: Any, body: _Body, headed: bool, said: bool | None) -> bool:
    """Whether column 1 numbers or names rows."""
    if said is not None:
        return said
    first = cells[0]
    if headed and (not first or first.startswith("Unnamed: ")):
        return True
    if headed and _is_number(first):
        return False  # the header numbers it among the neurons
    values = [*([] if headed else [first]), *(str(value) for value in column)]
    numeric = [_is_number(value) for value in values]
    if not any(numeric) or (headed and not all(numeric)):
        return True
    if not all(numeric) or len(cells) == 1:
        return False
    if headed and _stem(first) == _stem(cells[1]):
        return False  # the header names it as it does the other neurons
    counts = _counts(values)
    if counts > 1 or (counts and headed and _counts(cells[1:]) > 1):
        return True
    rest = [] if headed else [float(value) for value in _plain(cells[1:])]
    if counts == 1 or (body.binary and set(rest) <= {0.0, 1.0} and _is_odd(values)):
        raise InputError(
            f"{path}: column 1 ({','.join(values[:4])}) may be an index or a neuron; say which with {SAY_INDEX}"
        )
    return False


def _counts(cells: Sequence[str]) -> int:
    """2 where cells count up from 0 or 1 and have a value that no mask has; 1 where they are 0, or 0 and 1; else 0."""
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return 0
    if not values or values[0] not in (0.0, 1.0) or values != [values[0] + i for i in range(len(values))]:
        return 0
    return 2 if values[-1] >= 2 else int(values[0] == 0)


def _is_odd(cells: Sequence[str]) -> bool:
    """Whether numbers are as those of a header or an index, all different, and not as those of a mask."""
    values = [float(cell) for cell in _plain(cells)]
    return len(set(values)) == len(values) and not set(values) <= {0.0, 1.0}


def _plain(cells: Sequence[str]) -> list[str]:
    return [{"true": "1", "false": "0"}.get(cell.lower(), cell) for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        float(_plain([cell])[0])
    except ValueError:
        return False
    return "_" not in cell


def _stem(cell: str) -> str:
    return re.sub(r"\d+", "", cell)


def _row(cells: Sequence[str]) -> Any:
    import pandas as pd

    return pd.DataFrame([list(cells)])


def _numbers(path: Path, frame: Any, line: int, column: int) -> NDArray[np.float64]:
    """Turn cells into numbers; the first that is none is named by line and column."""
    import pandas as pd

    plain = all(pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes)  # a boolean is numeric to pandas
    values: NDArray[np.float64] = (frame if plain else frame.apply(_coerced)).to_numpy(dtype=np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, place = map(int, bad[0])
        cell = frame.iloc[row, place]
        told = "is empty" if cell == "" or pd.isna(cell) else f"'{cell}' is no finite number"
        more = "; write decimals with a point" if isinstance(cell, str) and "," in cell else ""
        raise InputError(
            f"{path}: line {line + row}, column {column + place}: {told}; give rows of numbers, all of the same "
            f"length{more}"
        )
    return values


def _coerced(cells: Any) -> Any:
    import pandas as pd

    words = {"true": 1, "false": 0}
    given = cells.map(lambda cell: words.get(cell.strip().lower(), cell) if isinstance(cell, str) else cell)
    return pd.to_numeric(given, errors="coerce")


def _first_of(error: Exception) -> str:
    return str(error).strip().splitlines()[0].removeprefix("Error tokenizing data. C error: ")
