"""Text data sets by name: packaged ones, hub names, and local CSV, JSONL or Parquet files by column names."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FetchError, InputError, did_you_mean
from .fetch import Package, settle_hub_access, unpacked


@dataclass(frozen=True)
class Split:
    """Items of one kind, with or without labels.

    Parameters
    ----------
    items : tuple of str, or uint8 array (N, H, W) or (N, H, W, C)
        Texts; images, as an array or as files' paths; or paths of WAV files.
    labels : tuple, optional
        Classes as int, numbers as float, or target texts as str.
    kind : {"text", "images", "audio"}
        What the items are.
    """

    items: Any
    labels: tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | None
    kind: str = "text"

    def __len__(self) -> int:
        return len(self.items)

    @property
    def texts(self) -> tuple[str, ...]:
        """The items of a split of texts.

        Raises
        ------
        InputError
            If it holds something else.
        """
        if self.kind != "text":
            raise InputError(f"this data set holds {self.kind}, not text")
        return tuple(self.items)

    def head(self, limit: int | None) -> Split:
        """Return the first `limit` items, in the split's own fixed order."""
        if limit is None or limit >= len(self):
            return self
        return replace(self, items=self.items[:limit], labels=None if self.labels is None else self.labels[:limit])


@dataclass(frozen=True)
class TextData:
    """A named data set with a training and a held-out split."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetEntry:
    """One packaged data set; `load` returns its splits."""

    name: str
    title: str
    source: str
    licence: str
    load: Callable[[], TextData]


VADER = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    source=True,
)
VADER_TEST_ROWS = 1500
SPLIT_SEED = 20140601  # the corpus was published in June 2014; any constant would do, it only must never change


def _extract_vader(archive: Path, folder: Path) -> None:
    """Copy the text files out of the tar file inside the source distribution."""
    with tarfile.open(archive) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        if inner is None:
            raise FetchError(f"{archive.name} holds no additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as corpus:
            for member in corpus.getmembers():
                handle = corpus.extractfile(member)
                if handle is not None and member.name.endswith("_GroundTruth.txt"):
                    (folder / Path(member.name).name).write_bytes(handle.read())


def _vader(file: str, name: str, test_rows: int) -> TextData:
    folder = unpacked(VADER, "data-vader", _extract_vader)
    # bytes, because reading as text would also split at stray carriage returns inside a review
    rows = (folder / file).read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
    texts, labels = [], []
    for row in rows:
        cells = row.split("\t", 2)
        if len(cells) == 3 and float(cells[1]) != 0.0:
            texts.append(cells[2].strip())
            labels.append(int(float(cells[1]) > 0.0))
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(texts))

    def pick(rows: Any) -> Split:
        return Split(tuple(texts[i] for i in rows), tuple(labels[i] for i in rows))

    return TextData(
        name,
        pick(order[test_rows:]),
        pick(order[:test_rows]),
        ("negative", "positive"),
        {"label": "sign of the mean rating, exact zeros left out", "split_seed": SPLIT_SEED},
    )


_VADER_SOURCE = (
    "vaderSentiment 3.3.2 on PyPI; Hutto and Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment "
    "Analysis of Social Media Text, ICWSM 2014, doi:10.1609/icwsm.v8i1.14550"
)
DATASETS: dict[str, DatasetEntry] = {
    entry.name: entry
    for entry in (
        DatasetEntry(
            "vader-movie",
            "10,568 movie-review sentences rated by people, two classes: 9,068 train, 1,500 held out",
            _VADER_SOURCE,
            "MIT",
            lambda: _vader("movieReviewSnippets_GroundTruth.txt", "vader-movie", VADER_TEST_ROWS),
        ),
        DatasetEntry(
            "vader-amazon",
            "Product-review sentences rated by people, two classes: 700 held out",
            _VADER_SOURCE,
            "MIT",
            lambda: _vader("amazonReviewSnippets_GroundTruth.txt", "vader-amazon", 700),
        ),
        DatasetEntry(
            "vader-nyt",
            "Newspaper editorial sentences rated by people, two classes: 1,000 held out",
            _VADER_SOURCE,
            "MIT",
            lambda: _vader("nytEditorialSnippets_GroundTruth.txt", "vader-nyt", 1000),
        ),
    )
}


def list_datasets() -> list[DatasetEntry]:
    """Return the packaged data sets; hub names and local files work as well."""
    return list(DATASETS.values())


def load_data(
    name: str,
    text: str = "text",
    label: str | None = "label",
    test_rows: int | None = None,
    config: str | None = None,
) -> TextData:
    """Load a data set.

    Parameters
    ----------
    name : str
        A packaged name (see `list_datasets`), a path ending in .csv, .jsonl, .json or .parquet, or a hub name.
    text, label : str
        Column names of a file or hub data set; ``label=None`` where there are no labels.
    test_rows : int, optional
        Rows held out of a file or of a hub data set without a test split: one in ten by default.
    config : str, optional
        Configuration name of a hub data set (``sst2`` of ``glue``).

    Returns
    -------
    TextData

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
    if path.suffix in _READERS:
        if not path.is_file():
            raise InputError(f"data file '{name}' does not exist; give a file or one of: {', '.join(DATASETS)}")
        return _from_frames(name, {"train": _READERS[path.suffix](path)}, text, label, test_rows)
    return _from_frames(name, _hub_frames(name, config), text, label, test_rows)


def _read_csv(path: Path) -> Any:
    import pandas as pd

    return pd.read_csv(path, sep=None, engine="python", encoding="utf-8-sig")


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
            "access, a local file must end in .csv, .tsv, .jsonl, .json or .parquet"
        ) from error
    return {split: loaded[split].to_pandas() for split in loaded}


def _from_frames(name: str, frames: dict[str, Any], text: str, label: str | None, test_rows: int | None) -> TextData:
    columns = list(next(iter(frames.values())).columns)
    for column in (text, label):
        if column is not None and column not in columns:
            raise InputError(f"data set '{name}' has no column '{column}'{did_you_mean(column, map(str, columns))}")
    train = frames.get("train", next(iter(frames.values())))
    held_out = next((frames[s] for s in ("test", "validation") if s in frames and _labelled(frames[s], label)), None)
    if held_out is None:
        order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(train))
        cut = test_rows or max(1, len(train) // 10)
        held_out, train = train.iloc[order[:cut]], train.iloc[order[cut:]]
    if not len(train) or not len(held_out):
        raise InputError(f"data set '{name}' leaves an empty split: {len(train)} train, {len(held_out)} held out")
    classes: list[Any] = [] if label is None else sorted(train[label].unique().tolist())
    code = {value: index for index, value in enumerate(classes)}

    def split(frame: Any, which: str) -> Split:
        texts = tuple(str(t) for t in frame[text])
        if label is None:
            return Split(texts, None)
        unknown = sorted({str(v) for v in frame[label] if v not in code})
        if unknown:
            raise InputError(f"data set '{name}': the {which} split has labels unseen in training: {unknown[:5]}")
        return Split(texts, tuple(code[v] for v in frame[label]))

    return TextData(name, split(train, "train"), split(held_out, "held-out"), tuple(str(c) for c in classes))


def _labelled(frame: Any, label: str | None) -> bool:
    """Hub test splits often carry -1 in place of a secret label."""
    return label is None or bool(len(frame) and (frame[label] != -1).all())
