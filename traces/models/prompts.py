"""Virtual tokens of prompt methods, positions, and the model inside a wrapper."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import InputError


def virtual_tokens(model: Any) -> int:
    """Return how many trained tokens a tuning puts in front of each sequence; a prefix adds keys and no tokens."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning or config.peft_type == "PREFIX_TUNING":
        return 0
    return int(config.num_virtual_tokens)


def next_inputs(given: dict[str, Any], output: Any, ids: Any) -> dict[str, Any]:
    """Return a decoder's inputs for one more token: what was heard or read, and the cache, are those of `output`."""
    kept = {"attention_mask": given["attention_mask"]} if "attention_mask" in given else {}
    heard = (output.encoder_last_hidden_state,)
    cache = output.past_key_values
    return kept | {"encoder_outputs": heard, "decoder_input_ids": ids, "past_key_values": cache, "use_cache": True}


def inside_pair(model: Any) -> Any:
    """Return the encoder and decoder inside `peft`'s wrapper."""
    if virtual_tokens(model) or getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise InputError(
            "an encoder and decoder with a trained prompt decode no tokens here; record without new_tokens"
        )
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def positions(model: Any, mask: Any, last: int) -> dict[str, Any]:
    """Positions count real tokens only, as the model's own ``generate`` does; models that compute them take none."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}
    return {"position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -last:]}


def inside_wrapper(model: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
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
