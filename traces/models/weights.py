"""The check that every weight of a checkpoint reached the model, and that the model got every weight it runs with.

transformers keeps the random initial value of a weight that a checkpoint lacks, and drops a weight that the model has
no place for; both are errors here, except for heads of another task.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..errors import InputError

# wrappers of torch.compile, data parallelism, FSDP, activation checkpointing and peft
PREFIX = re.compile(r"^(?:(?:_orig_mod|module|_fsdp_wrapped_module|base_model\.model)\.)+")
INNER = re.compile(r"\.(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
ADAPTERS = re.compile(r"\.(?:base_layer|lora_[A-Za-z_]+|modules_to_save|original_module|ia3_l|trainable_tokens_\w+)\b")
# tables that a model computes, kept in older files
BUFFERS = re.compile(r"(?:^|\.)(?:position_ids|token_type_ids|inv_freq|cos_cached|sin_cached|masked_bias)$")
CAUSAL = re.compile(r"\.attn(?:ention)?\.bias$")  # the causal mask of GPT-2 and GPT-NeoX
TRAINED = ("classifier", "score", "pre_classifier")  # heads that a tuning trains whole
NAMED = 3  # names in an error line

logger = logging.getLogger(__name__)


def known_prefixes(names: Collection[str]) -> dict[str, str]:
    """Return the renaming, as transformers' ``key_mapping`` takes it, of weights that a well-known wrapper has renamed.

    Parameters
    ----------
    names : collection of str
        Weights that the model has no place for.

    Returns
    -------
    dict of str to str
        Regular expression to replacement; empty where no name carries such a prefix.
    """
    found = {PREFIX.pattern: ""} if any(PREFIX.match(name) for name in names) else {}
    return found | ({INNER.pattern: ""} if any(INNER.search(name) for name in names) else {})


def shown_prefixes(names: Collection[str]) -> str:
    """Return the wrappers' prefixes that the names carry, for a message: ``'_orig_mod.', 'module.'``."""
    found = {match.group() for name in names if (match := PREFIX.match(name))}
    found |= {f"{match.group()[1:]}." for name in names if (match := INNER.search(name))}
    return ", ".join(f"'{prefix}'" for prefix in sorted(found))


def check_weights(model: Any, info: Mapping[str, Any], name: str, resized: bool = False, needs_head: str = "") -> None:
    """Refuse a model that runs with weights its files do not hold, or leaves out weights that they do.

    May be missing: a head, unless `needs_head`, and a pooler behind the last block; both are reported in the log. May
    be left over: heads of other tasks, and tables that the model computes.

    Parameters
    ----------
    model : PreTrainedModel
        As loaded.
    info : mapping
        What ``from_pretrained(..., output_loading_info=True, ignore_mismatched_sizes=True)`` returned.
    name : str
        The model's, for messages.
    resized : bool
        A number of outputs was asked for: a head of another size is replaced by a new one, with a warning.
    needs_head : str
        What the head's weights are needed for, such as ``"decoding tokens"``; empty where nothing depends on them.

    Raises
    ------
    InputError
        Naming the weights and the likely cause.
    """
    mismatched = {key: (tuple(stored), tuple(due)) for key, stored, due in info["mismatched_keys"]}
    missing = {key for key in info["missing_keys"] if not BUFFERS.search(key)}
    heads = {key for key in missing | set(mismatched) if is_head(model, key)}
    poolers = {key for key in missing - heads if "pooler" in key}
    lost = missing - heads - poolers
    left = {key for key in info["unexpected_keys"] if _belongs(model, key)}
    wrong = {key: sizes for key, sizes in mismatched.items() if key not in heads or not resized}
    if lost or left or wrong:
        raise InputError(f"model '{name}': {_complaint(lost, left, wrong, set(info['unexpected_keys']))}")
    if heads and needs_head:
        raise InputError(
            f"model '{name}': its files hold no weights of the head ({listed(heads)}), which {needs_head} needs; give "
            "a model that was saved with its head"
        )
    for key in sorted(key for key in heads & set(mismatched) if key.endswith("weight")):
        (stored, *_), (due, *_) = mismatched[key]
        logger.warning("model '%s': its head has %d outputs, not %d; a new one takes its place", name, stored, due)
    new = (heads - set(mismatched)) | poolers
    if new:
        usual = all(key.split(".")[0] in TRAINED for key in new)
        level = logging.INFO if usual else logging.WARNING
        logger.log(level, "model '%s': no weights for %s; they keep random initial values", name, listed(new))


def is_head(model: Any, name: str) -> bool:
    """Say whether a weight belongs to a model's head: outside its base model, or its output embeddings."""
    prefix = getattr(model, "base_model_prefix", "")
    if prefix and hasattr(model, prefix):
        return not name.startswith(f"{prefix}.")
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    owner = next((full for full, module in model.named_modules() if module is output), None)
    return (owner is not None and name.startswith(f"{owner}.")) or name.split(".")[0] in TRAINED


def _belongs(model: Any, name: str) -> bool:
    """Whether a weight without a place is one of the base model's, and no table, pooler or other task's head."""
    if BUFFERS.search(name) or CAUSAL.search(name) or "pooler" in name:
        return False
    prefix = getattr(model, "base_model_prefix", "")
    base = getattr(model, prefix, model) if prefix else model
    inside = bool(prefix) and name.startswith(f"{prefix}.")
    wrapped = PREFIX.match(name) or ADAPTERS.search(name)
    return inside or bool(wrapped) or name.split(".")[0] in dict(base.named_children())


def _complaint(
    lost: set[str], left: set[str], wrong: Mapping[str, tuple[Sequence[int], Sequence[int]]], unexpected: set[str]
) -> str:
    facts = []
    if lost:
        facts.append(f"its files lack {len(lost)} of the weights it runs with ({listed(lost)})")
    if left:
        facts.append(f"it has no place for {len(left)} of the weights in its files ({listed(left)})")
    for key, (stored, due) in sorted(wrong.items())[:NAMED]:
        facts.append(f"'{key}' is {_size(stored)} in its files and {_size(due)} by its configuration")
    return f"{', and '.join(facts)}; {_remedy(lost, left, unexpected)}"


def _remedy(lost: set[str], left: set[str], unexpected: set[str]) -> str:
    if any(ADAPTERS.search(name) for name in left | unexpected):
        return (
            "the files hold adapters that were not merged: merge them (peft's merge_and_unload) and save the model "
            "again, or give the base model and the adapter's folder with --adapter"
        )
    patterns = {_pattern(name) for name in lost} | {_pattern(name) for name in left}
    for name in sorted(unexpected):
        known = next((key for key in sorted(lost) if name.endswith(f".{key}")), None)
        if known is not None:
            return f"the names in the files carry the prefix '{name.removesuffix(known)}': save the model without it"
    if patterns and all("*" in pattern for pattern in patterns):
        return "config.json and the files disagree, such as on the number of layers: give the one that they go with"
    return "give the files that its config.json goes with"


def _pattern(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", f".{name}")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(extent) for extent in shape) or "a number"


def listed(names: Collection[str]) -> str:
    """Return the first names in order, and how many more there are."""
    first = sorted(names)[:NAMED]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
