"""Data sets: items of one kind with labels, in a training and a held-out split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

SPLIT_SEED = (
    20140601  # the default data set was published in June 2014; any constant would do, it only must never change
)
Labels = tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


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
    labels: Labels | None
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
class Data:
    """A named data set with a training and a held-out split.

    Parameters
    ----------
    name : str
        Its name.
    train, test : Split
        The test split is held out.
    classes : tuple of str
        Names of the classes, where the labels are classes.
    details : dict
        How the labels and the splits were made.
    """

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
    load: Callable[[], Data]


def shuffled(rows: int) -> NDArray[np.int64]:
    """Return 0 .. rows-1 in one fixed random order."""
    return np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(rows)


def cut(
    name: str,
    items: Sequence[Any] | NDArray[Any],
    labels: Sequence[Any] | None,
    held_out: int,
    classes: tuple[str, ...] = (),
    kind: str = "text",
    details: dict[str, Any] | None = None,
) -> Data:
    """Hold out some rows, taken at random, of a data set that has no split of its own.

    Parameters
    ----------
    name : str
        The data set's.
    items, labels : sequences of as many elements
        Texts, paths, or an array of images; labels may be None.
    held_out : int
        Rows of the test split.
    classes, kind, details
        Further fields of `Data` and of `Split`.
    """
    order = shuffled(len(items))

    def pick(rows: NDArray[np.int64]) -> Split:
        chosen = items[rows] if isinstance(items, np.ndarray) else tuple(items[i] for i in rows)
        return Split(chosen, None if labels is None else tuple(labels[i] for i in rows), kind)

    facts = {"split_seed": SPLIT_SEED} | (details or {})
    return Data(name, pick(order[held_out:]), pick(order[:held_out]), classes, facts)
