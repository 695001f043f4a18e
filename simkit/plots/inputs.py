"""Inputs of the figures: a path, an object or a list of them, opened as the figure's first parameter is called."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.inputs import as_traces
from ..errors import CorruptError, InputError
from ..results.result import as_result

if TYPE_CHECKING:
    import pandas as pd


def open_input(name: str, given: Any) -> Any:
    """Open what a figure is given for its first parameter; what no rule is for stays as it is.

    Parameters
    ----------
    name : {"result", "traces", "trace", "points_of", "table", "data"}
        Name of the parameter: results; traces; results or a table of points; a table; traces or a table.
    given : object
        A path, an object or a list of them.

    Raises
    ------
    InputError
        If a file is not there, or is of another kind than the figure is drawn from.
    """
    opener = _OPENERS.get(name)
    return given if opener is None else opener(given)


def load_frames(paths: Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """Read tables, CSV or Parquet, and join their rows.

    Raises
    ------
    InputError
        If there is no such file, or it is not a table.
    CorruptError
        If it cannot be read.
    """
    import pandas as pd
    import pyarrow as pa

    frames = []
    for given in paths:
        path = Path(given)
        if not path.is_file() or path.suffix not in (".csv", ".parquet"):
            raise InputError(f"no table at {path}; this figure is drawn from a CSV or Parquet file")
        try:
            frames.append(pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path))
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            raise CorruptError(
                f"{path} cannot be read as a table ({str(error).splitlines()[0]}); make it again"
            ) from None
    return pd.concat(frames, ignore_index=True)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a plain table, not a result."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = os.fspath(path)
    if not text.endswith(".parquet") or not Path(text).is_file():
        return text.endswith(".csv")
    try:
        return b"zeroskip" not in (pq.read_metadata(text).metadata or {})
    except (pa.ArrowInvalid, OSError):
        return False


def _paths(given: Any) -> list[Any]:
    """List what is given where all of it is paths; empty otherwise."""
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    return listed if listed and all(isinstance(one, (str, os.PathLike)) for one in listed) else []


def _table(given: Any) -> Any:
    paths = _paths(given)
    return load_frames(paths) if paths else _joined(given)


def _points(given: Any) -> Any:
    paths = _paths(given)
    if paths and all(is_table(path) for path in paths):
        return load_frames(paths)
    given = _joined(given)
    return given if hasattr(given, "columns") else as_result(given)


def _traces_or_table(given: Any) -> Any:
    paths = _paths(given)
    if paths and all(is_table(path) for path in paths):
        return load_frames(paths)
    given = _joined(given)
    return given if hasattr(given, "columns") else as_traces(given)


def _joined(given: Any) -> Any:
    """Join a list of frames; anything else stays as it is."""
    if isinstance(given, (list, tuple)) and given and all(hasattr(one, "columns") for one in given):
        import pandas as pd

        return pd.concat(list(given), ignore_index=True)
    return given


_OPENERS: dict[str, Callable[[Any], Any]] = {
    "result": as_result,
    "traces": as_traces,
    "trace": as_traces,
    "points_of": _points,
    "table": _table,
    "data": _traces_or_table,
}
