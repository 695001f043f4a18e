"""Data sets by name: packaged ones, hub names, and local files by column names, for every task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, did_you_mean
from ..fetch import settle_hub_access
from .packaged import DATASETS
from .splits import SPLIT_SEED, Data, DatasetEntry, Labels, Split, cut
from .texts import passages

__all__ = ["DATASETS", "Data", "DatasetEntry", "Split", "list_datasets", "load_data"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def list_datasets() -> list[DatasetEntry]:
    """Return the packaged data sets; hub names and local files work as well."""
    return list(DATASETS.values())


def load_data(
    name: str,
    text: str = "text",
    label: str | None = "label",
    test_rows: int | None = None,
    config: str | None = None,
    task: str | None = None,
) -> Data:
    """Load a data set.

    Parameters
    ----------
    name : str
        A packaged name (see `list_datasets`), a path ending in .csv, .tsv, .jsonl, .json, .parquet or .txt, or a hub
        name.
    text : str
        Column of a file's or hub data set's items: texts, or paths of images or WAV files, relative to the file.
    label : str or None
        Column of the labels; None for none, and where the column ``label`` is not there it is not missed.
    test_rows : int, optional
        Rows held out of a file or of a hub data set without a test split: one in ten by default.
    config : str, optional
        Configuration name of a hub data set (``sst2`` of ``glue``).
    task : str, optional
        What the label column is read as: numbers for ``regression``, target texts for ``seq2seq``, nothing for
        ``causal-lm`` and ``features``, classes for all others.

    Returns
    -------
    Data

    Raises
    ------
    InputError
        If the name or a column is not known, or a split is empty.
    FetchError
        If a packaged data set cannot be downloaded.
    """
    if name in DATASETS:
        return DATASETS[name].load()
    path = Path(name)
    if path.suffix in (*_READERS, ".txt") and not path.is_file():
        raise InputError(f"data file '{name}' does not exist; give a file or one of: {', '.join(DATASETS)}")
    if path.suffix == ".txt":
        made = passages(path.read_text(encoding="utf-8").splitlines(keepends=True), "")
        if len(made) < 2:
            raise InputError(f"data file '{name}' is too short to hold anything out; give more text")
        return cut(name, made, None, test_rows or max(1, len(made) // 10))
    if path.suffix in _READERS:
        frames = {"train": _READERS[path.suffix](path)}
    else:
        frames = _hub_frames(name, config)
    return _from_frames(name, frames, text, label, test_rows, task or "classification")


def _read_csv(path: Path) -> Any:
    import pandas as pd

    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    # not pandas' own guess: it takes a letter for the separator where there is one column
    separator = max(",;\t", key=header.count)
    return pd.read_csv(path, sep=separator, encoding="utf-8-sig")


def _read_jsonl(path: Path) -> Any:
    import pandas as pd

    return pd.read_json(path, lines=path.suffix == ".jsonl", encoding="utf-8")


def _read_parquet(path: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(path)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".parquet": _read_parquet,
}


def _hub_frames(name: str, config: str | None) -> dict[str, Any]:
    import datasets

    settle_hub_access()
    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:  # the hub client raises many unrelated types for one cause: it cannot be had
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"could not load data set '{name}'{did_you_mean(name, DATASETS)} ({first}); a hub name needs network "
            "access, a local file must end in .csv, .tsv, .jsonl, .json, .parquet or .txt"
        ) from error
    return {split: loaded[split].to_pandas() for split in loaded}


def _from_frames(
    name: str, frames: dict[str, Any], text: str, label: str | None, test_rows: int | None, task: str
) -> Data:
    columns = list(next(iter(frames.values())).columns)
    if label == "label" and label not in columns:
        label = None
    for column in (text, label):
        if column is not None and column not in columns:
            raise InputError(f"data set '{name}' has no column '{column}'{did_you_mean(column, map(str, columns))}")
    train, held_out = _held_out(frames, label, test_rows)
    if not len(train) or not len(held_out):
        raise InputError(f"data set '{name}' leaves an empty split: {len(train)} train, {len(held_out)} held out")
    label = None if task in ("causal-lm", "features") else label
    classes: list[Any] = []
    if label is not None and task not in ("regression", "seq2seq"):
        classes = sorted(_whole(name, train, label).unique().tolist())

    def split(frame: Any, which: str) -> Split:
        labels = None if label is None else _labels(name, _whole(name, frame, label), task, classes, which)
        return _split(name, _whole(name, frame, text), labels)

    return Data(name, split(train, "train"), split(held_out, "held-out"), tuple(str(c) for c in classes))


def _held_out(frames: dict[str, Any], label: str | None, test_rows: int | None) -> tuple[Any, Any]:
    """Return the training and the held-out rows: the data set's own where its labels are there."""
    train = frames.get("train", next(iter(frames.values())))
    own = next((frames[s] for s in ("test", "validation") if s in frames and _labelled(frames[s], label)), None)
    if own is not None:
        return train, own
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(train))
    rows = test_rows or max(1, len(train) // 10)
    return train.iloc[order[rows:]], train.iloc[order[:rows]]


def _labelled(frame: Any, label: str | None) -> bool:
    """Hub test splits often carry -1 in place of a secret label."""
    return label is None or bool(len(frame) and (frame[label] != -1).all())


def _whole(name: str, frame: Any, column: str) -> Any:
    """Return a column, refusing one with empty cells."""
    empty = int(frame[column].isna().sum())
    if empty:
        raise InputError(f"data set '{name}': column '{column}' is empty in {empty} rows; fill them or leave them out")
    return frame[column]


def _labels(name: str, column: Any, task: str, classes: list[Any], which: str) -> Labels:
    if task == "seq2seq":
        return tuple(str(value) for value in column)
    if task == "regression":
        try:
            return tuple(float(value) for value in column)
        except ValueError as error:
            raise InputError(f"data set '{name}': column '{column.name}' must hold numbers ({error})") from error
    code = {value: index for index, value in enumerate(classes)}
    unknown = sorted({str(value) for value in column if value not in code})
    if unknown:
        raise InputError(f"data set '{name}': the {which} split has labels unseen in training: {unknown[:5]}")
    return tuple(code[value] for value in column)


def _split(name: str, column: Any, labels: Labels | None) -> Split:
    """Tell what a column holds by its first cell: texts, files' paths, or the images of a hub data set."""
    first = column.iloc[0]
    if isinstance(first, dict) and "bytes" in first:
        return Split(tuple(cell["bytes"] or cell["path"] for cell in column), labels, "images")
    suffix = Path(first).suffix.lower() if isinstance(first, str) and len(first) < 4096 else ""
    if suffix in (*IMAGES, ".wav"):
        base = Path(name).parent if Path(name).is_file() else Path()
        paths = tuple(str(base / cell) for cell in column)
        return Split(paths, labels, "audio" if suffix == ".wav" else "images")
    return Split(tuple(str(cell) for cell in column), labels)
