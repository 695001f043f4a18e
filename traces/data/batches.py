"""Batches: items of similar length together, padded to the longest of their batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..models.sites import stack_of

Tokens = Sequence[int]


@dataclass(frozen=True)
class Batch:
    """Rows of a data set, padded.

    Parameters
    ----------
    rows : int64[B]
        Indices into the data set.
    inputs : dict
        What the model's forward takes, without labels.
    real : bool tensor (B, S)
        True on real tokens, False on padding; of the encoder where a model has two stacks.
    labels : tensor, optional
        What the model's loss takes: int64[B] classes, float32[B] numbers, or int64[B, S] token ids with -100 where
        nothing is to be predicted (a causal model shifts them itself).
    stacks : mapping of str to bool tensor (B, S of that stack)
        Real tokens of each stack, ``encoder`` and ``decoder``; empty where there is one stack alone.
    """

    rows: NDArray[np.int64]
    inputs: dict[str, Any]
    real: Any
    labels: Any = None
    stacks: Mapping[str, Any] = field(default_factory=dict)

    def real_at(self, site: str) -> Any:
        """Return the real tokens (B, S) of the stack that a site's or module's name is in.

        Raises
        ------
        InputError
            If the model has two stacks and the name is in neither.
        """
        if not self.stacks:
            return self.real
        stack = stack_of(site)
        if stack not in self.stacks:
            raise InputError(f"site '{site}' is in no stack of this model ({', '.join(self.stacks)})")
        return self.stacks[stack]

    def to(self, device: Any) -> Batch:
        """Return the batch with every tensor on another device."""
        moved = {name: _moved(value, device) for name, value in self.inputs.items()}
        stacks = {name: _moved(value, device) for name, value in self.stacks.items()}
        return replace(
            self, inputs=moved, real=_moved(self.real, device), labels=_moved(self.labels, device), stacks=stacks
        )


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value


def encode(tokenizer: Any, texts: Sequence[str], max_length: int, pad: int = 0) -> list[list[int]]:
    """Tokenize and truncate; an empty text keeps its special tokens, or one padding token where there are none."""
    rows = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return [ids if ids else [pad] for ids in rows]


def padded(rows: Sequence[Tokens], pad: int, side: str = "right") -> tuple[Any, Any]:
    """Return (ids int64[B, S], mask bool[B, S]) of rows padded on the left or on the right."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        span = slice(0, len(row)) if side == "right" else slice(longest - len(row), None)
        ids[i, span] = torch.as_tensor(row, dtype=torch.long)
        mask[i, span] = True
    return ids, mask


def collate(tokens: Sequence[Tokens], rows: Sequence[int], pad: int, side: str = "right") -> Batch:
    """Pad the given rows to one tensor on the left or on the right."""
    ids, mask = padded([tokens[r] for r in rows], pad, side)
    return Batch(np.asarray(rows, dtype=np.int64), {"input_ids": ids, "attention_mask": mask.long()}, mask)


def training_order(lengths: Sequence[int], batch_size: int, bucket: int, seed: int) -> list[list[int]]:
    """Shuffle, sort pools of `bucket` batches by length, cut into batches, shuffle the batches.

    Little padding is left, and each epoch (a seed of its own) still sees other batches.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    order = rng.permutation(len(lengths))
    size = np.asarray(lengths)
    batches: list[list[int]] = []
    pool = batch_size * bucket
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(size[rows], kind="stable")]
        batches += [rows[i : i + batch_size].tolist() for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_order(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut the rows into batches of similar length, shortest first: for evaluation."""
    rows = np.argsort(np.asarray(lengths), kind="stable").tolist()
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
