"""The forward passes of one planned batch: the prompt, then one pass for each generated token with a KV cache.

An encoder and a decoder run in one pass: the trace then has the encoder's rows of that pass before the decoder's. While
tokens are generated the encoder's output is kept, and the decoder runs alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import Batch, stack_of
from ..errors import InputError
from ..models.load import modality
from ..models.patches import PatchGrid
from ..oplist.ops import Shape

PREFILL, DECODE, ENCODE = 0, 1, 2
# different primes, so that no dimension is mistaken for another: sequences, tokens, tokens of the target
PROBES = ((2, 7, 5), (3, 11, 13))


def virtual_tokens(model: Any) -> int:
    """Return how many trained tokens a tuning puts in front of each sequence; a prefix adds keys and no tokens."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning or config.peft_type == "PREFIX_TUNING":
        return 0
    return int(config.num_virtual_tokens)


def columns(batch: Batch, index: int, front: int = 0) -> dict[str, NDArray[np.int32]]:
    """Return the token columns of a prompt's rows, sequence by sequence; `front` virtual tokens come first in each."""
    if batch.masks:
        parts = [
            _prompt(batch.rows, batch.masks["encoder"], index, ENCODE, front),
            _prompt(batch.rows, batch.masks["decoder"], index, PREFILL),
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _prompt(batch.rows, batch.mask, index, PREFILL, front)


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
        model(**batch.inputs)
        yield columns(batch, first, front)
        return
    steps = _pair_steps(model, batch.inputs) if batch.masks else _decoder_steps(model, batch, front)
    next(steps)
    yield columns(batch, first, front)
    lengths = (batch.masks.get("decoder", batch.mask).sum(dim=1) + front).numpy()
    for step in range(new_tokens):
        next(steps)
        yield _columns(batch.rows, lengths + step, first + 1 + step, np.ones(len(lengths)), DECODE)


def _decoder_steps(model: Any, batch: Batch, front: int) -> Iterator[None]:
    """Run the prompt, then one more token of each sequence whenever asked."""
    import torch

    inner, given = _inside(model, batch.inputs)
    mask = given["attention_mask"]
    tokens = front + batch.mask.shape[1]
    output = inner(**given, **_positions(inner, mask, tokens), use_cache=True)
    while True:
        yield
        chosen = output.logits[:, -1:].argmax(dim=-1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        cache = output.past_key_values
        output = inner(
            input_ids=chosen, attention_mask=mask, past_key_values=cache, use_cache=True, **_positions(inner, mask, 1)
        )


def _pair_steps(model: Any, given: dict[str, Any]) -> Iterator[None]:
    """Run an encoder and its decoder's prompt, then the decoder alone whenever asked."""
    inner = _inside_pair(model)
    output = inner(**given, use_cache=True)
    while True:
        yield
        output = inner(**_next_token(given, output, output.logits[:, -1:].argmax(dim=-1)))


def _next_token(given: dict[str, Any], output: Any, ids: Any) -> dict[str, Any]:
    """Return a decoder's inputs for one more token: what was heard or read, and the cache, are those of `output`."""
    kept = {"attention_mask": given["attention_mask"]} if "attention_mask" in given else {}
    heard = (output.encoder_last_hidden_state,)
    cache = output.past_key_values
    return kept | {"encoder_outputs": heard, "decoder_input_ids": ids, "past_key_values": cache, "use_cache": True}


def _inside_pair(model: Any) -> Any:
    """Return the encoder and decoder inside `peft`'s wrapper."""
    if virtual_tokens(model) or getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise InputError(
            "an encoder and decoder with a trained prompt decode no tokens here; record without new_tokens"
        )
    return model.get_base_model() if hasattr(model, "get_base_model") else model


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


def probe_shapes(model: Any) -> tuple[Shape, Shape]:
    """Return two shapes to list a model's ops from: what its input fixes is the same in both.

    They count virtual tokens.
    """
    config, front = model.config, virtual_tokens(model)
    kind = modality(config)
    fixed = 0
    if kind == "audio":
        fixed = int(config.max_source_positions)
    elif kind == "images" and not (grid := PatchGrid.of(config)).any_size:
        fixed = grid.side**2 + grid.special
    (b1, s1, t1), (b2, s2, t2) = PROBES
    first, second = (b1, fixed or front + s1), (b2, fixed or front + s2)
    if getattr(config, "is_encoder_decoder", False):
        return (*first, t1), (*second, t2)
    return first, second


def example(model: Any, batch: int, length: int, target: int = 0) -> dict[str, Any]:
    """Return made-up inputs of a shape, virtual tokens not counted; an image becomes one row of patches."""
    import torch

    config = model.config
    kind = modality(config)
    if kind == "images":
        grid = PatchGrid.of(config)
        sides = (1, length - grid.special) if grid.any_size else (grid.side, grid.side)
        pixels = torch.zeros((batch, config.num_channels, *(grid.patch * side for side in sides)))
        return {"pixel_values": pixels, **(grid.extra if grid.any_size else {})}
    made = {"decoder_input_ids": torch.ones((batch, target), dtype=torch.long)} if target else {}
    if kind == "audio":
        return {"input_features": torch.zeros((batch, config.num_mel_bins, 2 * config.max_source_positions)), **made}
    ids = torch.ones((batch, length), dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **made}


def prompt_probe(model: Any, *shape: int) -> Callable[[], object]:
    """Return a pass over a prompt of the given shape, virtual tokens included."""
    batch, length, *target = shape
    given = example(model, batch, length - virtual_tokens(model), *target)
    return lambda: model(**given)


def decode_probe(model: Any, *shape: int) -> Callable[[], object]:
    """Return a pass over one token a sequence, after ``keys - 1`` rows, virtual tokens included, in the cache.

    `shape` is (sequences, keys), and of an encoder with a decoder (sequences, the encoder's tokens, keys).
    """
    import torch

    if len(shape) > 2:
        return _pair_probe(model, *shape)
    batch, keys = shape
    ids = torch.ones((batch, keys - virtual_tokens(model)), dtype=torch.long)
    inner, given = _inside(model, {"input_ids": ids[:, 1:], "attention_mask": torch.ones_like(ids[:, 1:])})
    with torch.no_grad():
        cache = inner(**given, use_cache=True).past_key_values
    if cache is None:
        raise InputError(f"a '{model.config.model_type}' model keeps no KV cache; record without new_tokens")
    mask = torch.cat([given["attention_mask"], torch.ones_like(ids[:, :1])], dim=1)
    return lambda: inner(input_ids=ids[:, :1], attention_mask=mask, past_key_values=cache, use_cache=True)


def _pair_probe(model: Any, batch: int, length: int, keys: int) -> Callable[[], object]:
    import torch

    inner, given = _inside_pair(model), example(model, batch, length, keys - 1)
    with torch.no_grad():
        output = inner(**given, use_cache=True)
    token = _next_token(given, output, given["decoder_input_ids"][:, :1])
    return lambda: inner(**token)
