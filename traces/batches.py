"""Token batches: sequences of similar length together, padded to the longest of their batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    mask : bool tensor (B, S)
        True on real tokens.
    """

    rows: NDArray[np.int64]
    inputs: dict[str, Any]
    mask: Any


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Tokenize and truncate; an empty text keeps its special tokens, or one padding token where there are none."""
    rows = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return [ids if ids else [padding_token(tokenizer)] for ids in rows]


def padding_token(tokenizer: Any) -> int:
    """Return the padding token's id; decoders often have none, and any id does under a mask."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def collate(tokens: Sequence[Tokens], rows: Sequence[int], pad: int, side: str = "right") -> Batch:
    """Pad the given rows to one tensor on the left or on the right."""
    import torch

    longest = max(len(tokens[r]) for r in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        span = slice(0, len(tokens[row])) if side == "right" else slice(longest - len(tokens[row]), None)
        ids[i, span] = torch.as_tensor(tokens[row])
        mask[i, span] = True
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
