"""Limits of a model that data must keep to: the tokens it has embeddings for, and the positions it has.

Rotary and relative positions have no limit; a table of positions, learned or fixed, has one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..errors import InputError, library_errors

TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")  # module names of position tables


def vocabulary_size(config: Any) -> int | None:
    """Return how many tokens a model has embeddings for; None where it takes no tokens."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(text, "vocab_size", None)
    return None if size is None else int(size)


def check_tokens(model: str, config: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> None:
    """Refuse texts with tokens that the model has no embedding for.

    Parameters
    ----------
    model : str
        Its name, for the message.
    config : PreTrainedConfig
        The model's.
    tokenizer : PreTrainedTokenizer
        The model's.
    rows : sequence of sequences of int
        Token ids.

    Raises
    ------
    InputError
        Naming the token.
    """
    size = vocabulary_size(config)
    largest = max((max(row) for row in rows if row), default=0)
    if size is not None and largest >= size:
        with library_errors(f"tokenizer of model '{model}' fails", "replace its files"):
            word = tokenizer.convert_ids_to_tokens(largest)
        raise InputError(
            f"model '{model}' has embeddings for {size} tokens, and its tokenizer makes token {largest} ('{word}') of "
            "this data; save the model after model.resize_token_embeddings(len(tokenizer)), or use the tokenizer that "
            "it was trained with"
        )


def position_limits(config: Any) -> dict[str, int]:
    """Return how many tokens of a sequence a model has positions for, by stack.

    Parameters
    ----------
    config : PreTrainedConfig
        The model's: it is built from it without weights.

    Returns
    -------
    dict of str to int
        By ``encoder`` and ``decoder``, or ``""`` where there is one stack; a stack without a table is not in it.
    """
    import torch
    from transformers import AutoModel

    from .sites import stack_of

    own = copy.deepcopy(config)
    if not 0 <= (getattr(own, "pad_token_id", None) or 0) < (vocabulary_size(own) or 1):
        own.pad_token_id = None  # no model is built with one that it has no embedding for
    try:
        with torch.device("meta"):  # shapes without memory: a model's size does not matter
            model = AutoModel.from_config(own)
    except (ValueError, RuntimeError):  # no plain model of this kind, or one that computes while it is built
        return {}
    pair, found = bool(getattr(config, "is_encoder_decoder", False)), dict[str, int]()
    sizes = {name: _positions(module) for name, module in model.named_modules() if name.split(".")[-1] in TABLES}
    sizes |= {name: len(table) for name, table in model.named_buffers() if name.split(".")[-1] in TABLES}
    for name, size in sizes.items():
        if size is not None:
            stack = stack_of(name) if pair else ""
            found[stack] = min(size, found.get(stack, size))
    return found


def _positions(table: Any) -> int | None:
    """Tokens that an embedding of positions has rows for: some keep the first rows for padding."""
    size = getattr(table, "num_embeddings", None)
    if size is None:
        return None
    padding = getattr(table, "padding_idx", None)
    return int(size) - int(getattr(table, "offset", 0)) - (0 if padding is None else int(padding) + 1)


def check_positions(
    model: str, config: Any, lengths: Sequence[int], targets: Sequence[int] = (), decoded: int = 0, front: int = 0
) -> None:
    """Refuse sequences that are longer than the model has positions for.

    Parameters
    ----------
    model : str
        Its name, for the message.
    config : PreTrainedConfig
        The model's.
    lengths, targets : sequence of int
        Tokens of each item in the first stack and in the decoder behind it.
    decoded : int
        Tokens that are decoded after each item.
    front : int
        Virtual tokens that a tuning puts in front of each item.

    Raises
    ------
    InputError
        Naming the limit and the length that keeps to it.
    """
    limits = position_limits(config)
    stacks = {"encoder": (lengths, front), "decoder": (targets, decoded), "": (lengths, front + decoded)}
    for stack, limit in limits.items():
        rows, more = stacks[stack]
        longest = max(rows, default=0)
        if longest + more <= limit:
            continue
        added = f" and {more} that are decoded or put in front" if more else ""
        room = limit - more
        remedy = (
            f"keep at most {room} (--max-length {room}; in a tuning train.max_length: {room})"
            if room > 0
            else "decode fewer tokens, or put fewer in front"
        )
        where = f" in its {stack}" if stack else ""
        raise InputError(
            f"model '{model}' has {limit} positions{where}, and the longest sequence here has {longest} tokens{added}; "
            f"{remedy}"
        )


def running(model: Any, what: str) -> AbstractContextManager[None]:
    """Translate what the libraries raise while a model runs; see `traces.errors.library_errors`."""
    name = getattr(model.config, "name_or_path", "") or model.config.model_type
    remedy = "check its configuration and tokenizer, or name another task (--task)"
    return library_errors(f"model '{name}' cannot run {what}", remedy)
