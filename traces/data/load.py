"""Data sets by name: packaged ones, hub names, and local files by column names, for every task."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, did_you_mean
from ..fetch import settle_hub_access
from ..files import kind_of
from .data_files import LISTED, is_data_file, read_frame, read_lines
from .packaged import DATASETS
from .splits import SPLIT_SEED, Data, DatasetEntry, Labels, Split, cut
from .text_files import one_line, split_name
from .texts import passages

log = logging.getLogger(__name__)
__all__ = ["DATASETS", "Data", "DatasetEntry", "Split", "list_datasets", "load_data"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def list_datasets() -> list[DatasetEntry]:
    """Return the packaged data sets; hub names and local files work as well.

    Returns
    -------
    list of DatasetEntry
        Each with name, title, source and licence.

    Examples
    --------
    >>> "vader-movie" in [entry.name for entry in traces.list_datasets()]
    True
    """
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
        A packaged name (see `list_datasets`), a path ending in .csv, .tsv, .jsonl, .ndjson, .json, .parquet or .txt
        (the rules are in `traces.data.data_files`), or a hub name.
    text : str
        Column of a file's or hub data set's items: texts; chats, as lists of turns with ``role`` and ``content``, whose
        contents are joined by blank lines without a chat template, said on stderr; or paths of images or WAV files,
        relative to the file, where every cell ends as such. Numbers, bytes and other lists are refused.
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
        ``train`` and ``test`` splits with ``items`` and ``labels``, and the names of the classes.

    Raises
    ------
    InputError
        If the name or a column is not known, a file cannot be read as what its name says, a cell is empty or no
        text, or a split is empty.
    FetchError
        If a packaged data set cannot be downloaded.

    Examples
    --------
    >>> frame = pd.DataFrame({"text": ["good film", "bad film"] * 10, "label": [1, 0] * 10})
    >>> frame.to_csv("reviews.csv", index=False)
    >>> data = traces.load_data("reviews.csv", test_rows=4)
    >>> len(data.train.items), len(data.test.items)
    (16, 4)
    """
    if name in DATASETS:
        return DATASETS[name].load()
    if test_rows is not None and test_rows < 1:
        raise InputError(f"test_rows {test_rows}: hold at least 1 row out")
    path = Path(name).expanduser()
    if is_data_file(path) and not path.is_file():
        raise InputError(f"data file '{name}' does not exist; give a file or one of: {', '.join(DATASETS)}")
    if path.is_file() and not is_data_file(path):
        kind = f", {kind_of(path)}" if kind_of(path) else ""
        raise InputError(f"data file '{name}' ends in '{path.suffix}'{kind}; convert it to {LISTED}")
    if not is_data_file(path):
        frames = _hub_frames(name, config)
    elif split_name(path)[1] == ".txt":
        made = passages(read_lines(path), "")
        if len(made) < 2:
            raise InputError(f"data file '{name}' is too short to hold anything out; give more text")
        return cut(name, made, None, test_rows or max(1, len(made) // 10))
    else:
        frames = {"train": read_frame(path, text, label)}
    return _from_frames(name, frames, text, label, test_rows, task or "classification")


def _hub_frames(name: str, config: str | None) -> dict[str, Any]:
    import datasets

    settle_hub_access()
    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:  # the hub client raises many unrelated types for one cause: it cannot be had
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"could not load data set '{name}'{did_you_mean(name, DATASETS)} ({first}); a hub name needs network "
            f"access, a local file must end in {LISTED}"
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
            option = "--text COLUMN (text=...)" if column == text else "--label COLUMN (label=...)"
            near = did_you_mean(column, map(one_line, columns))
            raise InputError(f"data set '{name}' has no column '{column}'{near.rstrip('?')}; name it with {option}")
    train, held_out = _held_out(frames, label, test_rows)
    if not len(train) or not len(held_out):
        raise InputError(f"data set '{name}' leaves an empty split: {len(train)} train, {len(held_out)} held out")
    label = None if task in ("causal-lm", "features") else label
    classes: list[Any] = []
    if label is not None and task not in ("regression", "seq2seq"):
        classes = _classes(name, _whole(name, train, label))

    def split(frame: Any, which: str) -> Split:
        labels = None if label is None else _labels(name, _whole(name, frame, label), task, classes, which)
        return _split(name, _whole(name, frame, text), labels, say=which == "train")

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
        first = int(np.flatnonzero(frame[column].isna())[0])
        raise InputError(
            f"data set '{name}': column '{column}' is empty in {empty} rows, such as row {_row(frame[column], first)}; "
            "fill them or leave them out"
        )
    return frame[column]


def _classes(name: str, column: Any) -> list[Any]:
    try:
        return sorted(column.unique().tolist())
    except TypeError:
        kinds = sorted({type(value).__name__ for value in column})
        raise InputError(
            f"data set '{name}': column '{column.name}' holds {' and '.join(kinds)}; labels are texts or numbers, all "
            "of one kind"
        ) from None


def _labels(name: str, column: Any, task: str, classes: list[Any], which: str) -> Labels:
    if task == "seq2seq":
        return _texts(name, column)
    if task == "regression":
        return _targets(name, column)
    code = {value: index for index, value in enumerate(classes)}
    unknown = sorted({str(value) for value in column if value not in code})
    if unknown:
        raise InputError(f"data set '{name}': the {which} split has labels unseen in training: {unknown[:5]}")
    return tuple(code[value] for value in column)


def _targets(name: str, column: Any) -> tuple[float, ...]:
    numbers = []
    for place, value in enumerate(column):
        try:
            numbers.append(float(value))
            told = f"{value} is not finite"
        except (TypeError, ValueError) as error:
            told = str(error)
        if len(numbers) == place or not np.isfinite(numbers[-1]):
            raise InputError(
                f"data set '{name}': column '{column.name}' must hold numbers ({told}, row {_row(column, place)})"
            )
    return tuple(numbers)


def _split(name: str, column: Any, labels: Labels | None, say: bool) -> Split:
    """Tell what a column holds by its cells: texts, files' paths, or the images of a hub data set."""
    first = column.iloc[0]
    if isinstance(first, dict) and "bytes" in first:
        return Split(tuple(cell["bytes"] or cell["path"] for cell in column), labels, "images")
    base = Path(name).expanduser().parent if Path(name).expanduser().is_file() else Path()
    for kind, endings in (("images", IMAGES), ("audio", (".wav",))):
        if _is_path(first, base, endings):
            other = next((i for i, cell in enumerate(column) if not _is_path(cell, base, endings)), None)
            if other is not None:
                raise InputError(
                    f"data set '{name}': column '{column.name}' begins with a file of {kind} ('{first}'), but row "
                    f"{_row(column, other)} is none; give one kind in a column"
                )
            return Split(tuple(str(base / cell) for cell in column), labels, kind)
    return Split(_texts(name, column, say), labels)


def _is_path(cell: Any, base: Path, endings: tuple[str, ...]) -> bool:
    """Whether a text is a file's name: one word that ends as one, or the name of a file that is there."""
    if not isinstance(cell, str) or len(cell) >= 4096 or not cell.lower().endswith(endings):
        return False
    return len(cell.split()) == 1 or (base / cell).is_file()


def _texts(name: str, column: Any, say: bool = False) -> tuple[str, ...]:
    """Return a column's texts; chats become their turns' contents, and where asked that is said."""
    chats = [_turns(cell) for cell in column]
    if chats and None not in chats:
        (log.warning if say else log.debug)(
            "data set '%s': column '%s' holds chats; their turns' contents are joined by blank lines, without a chat "
            "template", name, column.name,
        )  # fmt: skip
        column = column.map(lambda cell: "\n\n".join(_turns(cell) or ()))
    for place, cell in enumerate(column):
        told = "" if isinstance(cell, str) else f"holds {_kind(cell)}, not text"
        if isinstance(cell, str) and not cell.isascii():
            try:
                cell.encode()
            except UnicodeEncodeError as error:
                told = f"holds half a character, U+{ord(cell[error.start]):04X}"
        if told:
            raise InputError(
                f"data set '{name}': column '{column.name}' {told} (row {_row(column, place)}); make texts of it, or "
                "name another column"
            )
    return tuple(column)


def _turns(cell: Any) -> list[str] | None:
    """Return the contents of a chat's turns; None where a cell is no chat."""
    if not isinstance(cell, list | tuple | np.ndarray) or not len(cell):
        return None
    turns = [turn.get("content") if isinstance(turn, dict) and "role" in turn else None for turn in cell]
    return [str(turn) for turn in turns] if all(isinstance(turn, str) for turn in turns) else None


def _kind(cell: Any) -> str:
    """Name what a cell holds, in the plural."""
    kinds = (
        (bool | np.bool_, "booleans"),
        (int | float | np.number, "numbers"),
        (bytes, "bytes"),
        (list | tuple | np.ndarray, "lists"),
        (dict, "objects"),
    )
    return next((word for kind, word in kinds if isinstance(cell, kind)), f"values of type {type(cell).__name__}")


def _row(column: Any, place: int) -> str:
    """Number a row of the file or split, from 1 and without the header, as people count them."""
    label = column.index[place]
    return str(int(label) + 1) if isinstance(label, int | np.integer) else str(label)
