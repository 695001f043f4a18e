"""The forward passes of one planned batch: the prompt, then one pass for each generated token with a KV cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import Batch
from .errors import InputError

PREFILL, DECODE = 0, 1


def columns(batch: Batch, index: int) -> dict[str, NDArray[np.int32]]:
    """Return the token columns of a prompt's rows, sequence by sequence."""
    real = batch.mask.numpy()
    length = real.shape[1]
    position = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    return _columns(np.repeat(batch.rows, length), position.ravel(), index, real.ravel(), PREFILL)


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
    import torch

    first = index * (1 + new_tokens)
    if not new_tokens:
        model(**batch.inputs)
        yield columns(batch, first)
        return
    mask = batch.inputs["attention_mask"]
    output = model(**batch.inputs, **_positions(model, mask, mask.shape[1]), use_cache=True)
    yield columns(batch, first)
    lengths = batch.mask.sum(dim=1).numpy()
    for step in range(new_tokens):
        chosen = output.logits[:, -1:].argmax(dim=-1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        cache = output.past_key_values
        output = model(
            input_ids=chosen, attention_mask=mask, past_key_values=cache, use_cache=True, **_positions(model, mask, 1)
        )
        real = np.ones(len(lengths))
        yield _columns(batch.rows, lengths + step, first + 1 + step, real, DECODE)


def _positions(model: Any, mask: Any, last: int) -> dict[str, Any]:
    """Positions count real tokens only, as the model's own ``generate`` does; models that compute them take none."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}
    return {"position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -last:]}


def prompt_probe(model: Any, batch: int, length: int) -> Callable[[], object]:
    """Return a pass over a prompt of the given shape."""
    import torch

    ids = torch.ones((batch, length), dtype=torch.long)
    return lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids))


def decode_probe(model: Any, batch: int, keys: int) -> Callable[[], object]:
    """Return a pass over one token a sequence, after ``keys - 1`` that are in the cache."""
    import torch

    ids = torch.ones((batch, keys), dtype=torch.long)
    with torch.no_grad():
        cache = model(input_ids=ids[:, 1:], attention_mask=torch.ones_like(ids[:, 1:]), use_cache=True).past_key_values
    if cache is None:
        raise InputError(f"a '{model.config.model_type}' model keeps no KV cache; record without new_tokens")
    return lambda: model(
        input_ids=ids[:, :1], attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True
    )
