"""Prepared inputs of a split, whatever they are made of: the base class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from .batches import Batch, Tokens, padded

IGNORED = -100  # what torch's cross entropy skips


class Inputs(ABC):
    """A split, ready for a model.

    Attributes
    ----------
    lengths : list of int
        Tokens of each item in the model's first stack.
    targets : list of int
        Tokens of each item in its second stack; empty where there is none.
    """

    lengths: list[int]
    targets: list[int] = []

    def __len__(self) -> int:
        return len(self.lengths)

    @abstractmethod
    def batch(self, rows: Sequence[int], side: str = "right") -> Batch:
        """Return the given items as one padded batch, with labels where the split has them.

        Parameters
        ----------
        rows : sequence of int
            Which items.
        side : {"right", "left"}
            Where text is padded: on the left for generation.
        """

    @abstractmethod
    def fingerprint(self) -> bytes:
        """Return bytes that differ whenever what the model sees differs."""


def shift_right(targets: Sequence[Tokens], pad: int, start: int) -> tuple[Any, Any, Any]:
    """Return a decoder's inputs, its labels, and which of its tokens are real, each (B, S).

    The decoder sees ``start, t0 .. t(n-2)`` and is to say ``t0 .. t(n-1)``; without targets it sees the start alone.
    """
    rows = [[start, *target[:-1]] for target in targets]
    shifted, mask = padded(rows, pad)
    labels, _ = padded([target if target else [IGNORED] for target in targets], IGNORED)
    return shifted, labels, mask
