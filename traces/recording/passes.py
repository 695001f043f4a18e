"""The forward passes of one planned batch: the prompt, then one pass for each generated token with a KV cache.

An encoder and a decoder run in one pass: the trace then has the encoder's rows of that pass before the decoder's. While
tokens are generated the encoder's output is kept, and the decoder runs alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import Batch
from ..models.limits import running
from ..models.prompts import inside_pair, inside_wrapper, next_inputs, positions, virtual_tokens
from ..models.sites import stack_of

PREFILL, DECODE, ENCODE = 0, 1, 2


def columns(batch: Batch, index: int, front: int = 0) -> dict[str, NDArray[np.int32]]:
    """Return the token columns of a prompt's rows, sequence by sequence; `front` virtual tokens come first in each."""
    if batch.stacks:
        parts = [
            _prompt(batch.rows, batch.stacks["encoder"], index, ENCODE, front),
            _prompt(batch.rows, batch.stacks["decoder"], index, PREFILL),
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _prompt(batch.rows, batch.real, index, PREFILL, front)


def _prompt(rows: Any, mask: Any, batch: int, phase: int, front: int = 0) -> dict[str, NDArray[np.int32]]:
    real = np.pad(mask.numpy(), ((0, 0), (front, 0)), constant_values=True)
    position = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    return _columns(np.repeat(rows, real.shape[1]), position.ravel(), batch, real.ravel(), phase)


def site_stack(model: Any, site: str) -> str:
    """Return which stack's rows a site sees: "" where the model has one alone, the decoder's for what is in neither."""
    return (stack_of(site) or "decoder") if getattr(model.config, "is_encoder_decoder", False) else ""


def spread(
    arrays: Mapping[str, NDArray[Any]], columns: Mapping[str, NDArray[np.int32]], stacks: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    """Give every array of a pass a row for each of its tokens: zeros where those are the other stack's.

    Parameters
    ----------
    arrays : mapping
        By site, ``site@variant`` or ``site/part``, with the rows of the site's stack.
    columns : mapping
        The pass's token columns.
    stacks : mapping of str to str
        Each site's stack, as `site_stack` says.
    """
    encoder = columns["phase"] == ENCODE
    made = {}
    for key, rows in arrays.items():
        stack = stacks[key.partition("/")[0].partition("@")[0]]
        made[key] = rows
        if stack:
            made[key] = np.zeros((len(encoder), *rows.shape[1:]), dtype=rows.dtype)
            made[key][encoder == (stack == "encoder")] = rows
    return made


def _columns(sequence: Any, position: Any, batch: int, real: Any, phase: int) -> dict[str, NDArray[np.int32]]:
    filled = {
        "sequence": sequence,
        "position": position,
        "batch": np.full(len(sequence), batch),
        "real": real,
        "phase": np.full(len(sequence), phase),
    }
    return {name: np.asarray(values).astype(np.int32) for name, values in filled.items()}


def run_batch(model: Any, batch: Batch, index: int, new_tokens: int) -> Iterator[dict[str, NDArray[np.int32]]]:
    """Run a batch's passes; after each, yield its rows' token columns.

    Tokens are generated greedily, one for each sequence in a pass, whatever they are: an end-of-text token does not
    stop the others, so that every batch has as many passes.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model where `new_tokens` is not zero.
    batch : Batch
        Padded on the left where tokens are generated.
    index : int
        The batch's place in the plan; its passes are numbered from ``index (1 + new_tokens)``.
    new_tokens : int
        Passes with one token a sequence after the prompt's.
    """
    first, front = index * (1 + new_tokens), virtual_tokens(model)
    if not new_tokens:
        with running(model, f"batch {index}"):
            model(**batch.inputs)
        yield columns(batch, first, front)
        return
    steps = _pair_steps(model, batch.inputs) if batch.stacks else _decoder_steps(model, batch, front)
    with running(model, f"batch {index}"):
        next(steps)
    yield columns(batch, first, front)
    lengths = (batch.stacks.get("decoder", batch.real).sum(dim=1) + front).numpy()
    for step in range(new_tokens):
        with running(model, f"batch {index}"):
            next(steps)
        yield _columns(batch.rows, lengths + step, first + 1 + step, np.ones(len(lengths)), DECODE)


def _decoder_steps(model: Any, batch: Batch, front: int) -> Iterator[None]:
    """Run the prompt, then one more token of each sequence whenever asked."""
    import torch

    inner, given = inside_wrapper(model, batch.inputs)
    mask = given["attention_mask"]
    tokens = front + batch.real.shape[1]
    output = inner(**given, **positions(inner, mask, tokens), use_cache=True)
    while True:
        yield
        chosen = output.logits[:, -1:].argmax(dim=-1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        cache = output.past_key_values
        output = inner(
            input_ids=chosen, attention_mask=mask, past_key_values=cache, use_cache=True, **positions(inner, mask, 1)
        )


def _pair_steps(model: Any, given: dict[str, Any]) -> Iterator[None]:
    """Run an encoder and its decoder's prompt, then the decoder alone whenever asked."""
    inner = inside_pair(model)
    output = inner(**given, use_cache=True)
    while True:
        yield
        output = inner(**next_inputs(given, output, output.logits[:, -1:].argmax(dim=-1)))
