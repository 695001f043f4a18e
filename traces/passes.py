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


def virtual_tokens(model: Any) -> int:
    """Return how many trained tokens a tuning puts in front of each sequence; a prefix adds keys and no tokens."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning or config.peft_type == "PREFIX_TUNING":
        return 0
    return int(config.num_virtual_tokens)


def columns(batch: Batch, index: int, front: int = 0) -> dict[str, NDArray[np.int32]]:
    """Return the token columns of a prompt's rows, sequence by sequence; `front` virtual tokens come first in each."""
    real = np.pad(batch.mask.numpy(), ((0, 0), (front, 0)), constant_values=True)
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

    first, front = index * (1 + new_tokens), virtual_tokens(model)
    if not new_tokens:
        model(**batch.inputs)
        yield columns(batch, first, front)
        return
    inner, given = _inside(model, batch.inputs)
    mask = given["attention_mask"]
    tokens = front + batch.mask.shape[1]
    output = inner(**given, **_positions(inner, mask, tokens), use_cache=True)
    yield columns(batch, first, front)
    lengths = front + batch.mask.sum(dim=1).numpy()
    for step in range(new_tokens):
        chosen = output.logits[:, -1:].argmax(dim=-1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        cache = output.past_key_values
        output = inner(
            input_ids=chosen, attention_mask=mask, past_key_values=cache, use_cache=True, **_positions(inner, mask, 1)
        )
        real = np.ones(len(lengths))
        yield _columns(batch.rows, lengths + step, first + 1 + step, real, DECODE)


def _positions(model: Any, mask: Any, last: int) -> dict[str, Any]:
    """Positions count real tokens only, as the model's own ``generate`` does; models that compute them take none."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}
    return {"position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -last:]}


def _inside(model: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the model inside `peft`'s wrapper, which takes positions and a cache, and its inputs for a prompt."""
    import torch

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return inner, inputs
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    made = model.get_prompt(len(ids))
    mask = torch.cat([mask.new_ones(len(ids), config.num_virtual_tokens), mask], dim=1)
    if not virtual_tokens(model):
        return inner, {"input_ids": ids, "attention_mask": mask, "past_key_values": made}
    embedded = torch.cat([made, inner.get_input_embeddings()(ids)], dim=1)
    return inner, {"inputs_embeds": embedded, "attention_mask": mask}


def prompt_probe(model: Any, batch: int, length: int) -> Callable[[], object]:
    """Return a pass over a prompt of the given shape, virtual tokens included."""
    import torch

    ids = torch.ones((batch, length - virtual_tokens(model)), dtype=torch.long)
    return lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids))


def decode_probe(model: Any, batch: int, keys: int) -> Callable[[], object]:
    """Return a pass over one token a sequence, after ``keys - 1`` rows, virtual tokens included, in the cache."""
    import torch

    ids = torch.ones((batch, keys - virtual_tokens(model)), dtype=torch.long)
    inner, given = _inside(model, {"input_ids": ids[:, 1:], "attention_mask": torch.ones_like(ids[:, 1:])})
    with torch.no_grad():
        cache = inner(**given, use_cache=True).past_key_values
    if cache is None:
        raise InputError(f"a '{model.config.model_type}' model keeps no KV cache; record without new_tokens")
    mask = torch.cat([given["attention_mask"], torch.ones_like(ids[:, :1])], dim=1)
    return lambda: inner(input_ids=ids[:, :1], attention_mask=mask, past_key_values=cache, use_cache=True)
