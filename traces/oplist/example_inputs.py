"""Small example inputs of two shapes, on which a model's operators are probed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InputError
from ..models.load import modality
from ..models.patches import PatchGrid
from ..models.prompts import inside_pair, inside_wrapper, next_inputs, virtual_tokens
from .ops import Shape

# Sequences, tokens, tokens of the target: different primes, so that no dimension is mistaken for another. Nor are S + o
# and c B for any o > 0 (attention sinks, virtual tokens), because 13 / 11 < 3 / 2.
PROBES = ((2, 11, 5), (3, 13, 7))


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
    inner, given = inside_wrapper(model, {"input_ids": ids[:, 1:], "attention_mask": torch.ones_like(ids[:, 1:])})
    with torch.no_grad():
        cache = inner(**given, use_cache=True).past_key_values
    if cache is None:
        raise InputError(f"a '{model.config.model_type}' model keeps no KV cache; record without new_tokens")
    mask = torch.cat([given["attention_mask"], torch.ones_like(ids[:, :1])], dim=1)
    return lambda: inner(input_ids=ids[:, :1], attention_mask=mask, past_key_values=cache, use_cache=True)


def _pair_probe(model: Any, batch: int, length: int, keys: int) -> Callable[[], object]:
    import torch

    inner, given = inside_pair(model), example(model, batch, length, keys - 1)
    with torch.no_grad():
        output = inner(**given, use_cache=True)
    token = next_inputs(given, output, given["decoder_input_ids"][:, :1])
    return lambda: inner(**token)
