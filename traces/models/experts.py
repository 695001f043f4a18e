"""Mixtures of experts: where they are, what each expert sees, and the operators they take.

transformers 5 keeps all experts of a layer in one module with three-dimensional weights and lets its forward be
replaced by name. Here is one that goes expert by expert, as the library's plain one does, and shows what enters each
down-projection. Which rows an expert gets depends on the data, so its operators are listed for all rows together and
split by the recorded choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import InputError
from .sites import MLPSite, find_sites, weight_shape

IMPLEMENTATION = "zeroskip_recorded"
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_k")


class ExpertTap(Protocol):
    """What is told of each expert's input, and of which experts each token went through."""

    def note(self, name: str, value: Any, many: int, /) -> None:
        """Take the input of a site; `many` consecutive rows belong to one token."""

    def choose(self, name: str, experts: Any, /) -> None:
        """Take the experts of each token."""


def has_experts(model: Any) -> bool:
    """Say whether any module holds experts in transformers 5's form."""
    return any(_is_experts(module) for module in model.modules())


def _is_experts(module: Any) -> bool:
    down = getattr(module, "down_proj", None)
    return hasattr(module, "is_transposed") and getattr(down, "ndim", 0) == 3


def expert_sites(model: Any) -> list[MLPSite]:
    """Return the layers' experts, one site each, and the down-projections beside them: shared experts, dense layers.

    Raises
    ------
    InputError
        If the configuration does not say how many experts a token goes through.
    """
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    chosen = next((int(getattr(config, name)) for name in CHOSEN if getattr(config, name, None)), 0)
    found: list[MLPSite] = []
    for full, module in model.named_modules():
        match = re.search(r"(?:^|\.)layers\.(\d+)\.", f"{full}.")
        if match is None:
            continue
        layer, shape = int(match.group(1)), weight_shape(module)
        if _is_experts(module):
            if not chosen:
                raise InputError(
                    f"configuration of '{config.model_type}' does not say how many experts a token goes through "
                    f"(looked for {', '.join(CHOSEN)})"
                )
            experts, first, second = (int(size) for size in module.down_proj.shape)
            n, k = (second, first) if module.is_transposed else (first, second)
            name = f"layers.{layer}.experts"
            found.append(MLPSite(name, layer, full, k, n, None, False, op="down", experts=experts, chosen=chosen))
        elif shape is not None and full.endswith("down_proj"):
            block = full.rpartition(".")[0]
            shared = "shared." if "shared" in block else ""
            activation = f"{block}.act_fn" if hasattr(model.get_submodule(block), "act_fn") else None
            found.append(MLPSite(f"layers.{layer}.{shared}down", layer, full, *shape, activation, True))
    return found


def name_sites(model: Any, patterns: Sequence[str] | None) -> None:
    """Keep the patterns that name a model's down-projections by hand with the model, for all that look for them."""
    if patterns:
        model.site_patterns = tuple(patterns)


def model_sites(model: Any, patterns: str | Sequence[str] | None = None) -> list[MLPSite]:
    """Return a model's down-projections: named by hand, those of its experts, or by the table of families.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model, wrapped by peft or not, merged or not.
    patterns : str or sequence of str, optional
        As for `traces.models.sites.find_sites`; what `name_sites` kept with the model by default.

    Raises
    ------
    InputError
        If the family is not in the table, holds no experts, and no pattern is given; or nothing matches a pattern.
    """
    patterns = patterns or getattr(model, "site_patterns", None)
    if patterns is None and has_experts(model):
        return expert_sites(model)
    return find_sites(model, patterns)


def dense_sites(model: Any) -> list[MLPSite]:
    """Return a model's down-projections for a tuning that changes single MLP blocks.

    Raises
    ------
    InputError
        If there are none, as for `model_sites`, or they are experts'.
    """
    sites = model_sites(model)
    if any(site.experts for site in sites):
        raise InputError(
            f"a part of this tuning changes MLP blocks, and those of this '{model.config.model_type}' model are "
            "mixtures of experts; use lora, dora or adalora without such parts"
        )
    return sites


def _linear(module: Any, name: str, expert: int, rows: Any) -> Any:
    import torch

    weight = getattr(module, name)[expert]
    bias = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
    return torch.nn.functional.linear(rows, weight.T if module.is_transposed else weight, bias)


def _forward(module: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
    """Run one layer's experts one by one, and note what enters their down-projections."""
    import torch

    noted = getattr(module, "_noted", None)
    many = top_k_index.shape[1]
    out, inner = torch.zeros_like(hidden_states), None
    for expert in torch.unique(top_k_index).tolist():
        if expert >= module.num_experts:  # what an implementation puts where a token has no expert
            continue
        rank, token = torch.nonzero((top_k_index == expert).T, as_tuple=True)
        state = _linear(module, "gate_up_proj" if module.has_gate else "up_proj", expert, hidden_states[token])
        state = module._apply_gate(state) if module.has_gate else module.act_fn(state)
        if noted is not None:
            if inner is None:
                inner = state.new_zeros((len(hidden_states), many, state.shape[-1]))
            inner[token, rank] = state
        state = _linear(module, "down_proj", expert, state)
        if getattr(module, "has_post_expert_norm", False):
            state = module.post_expert_norm(state)
        out.index_add_(0, token, (state * top_k_weights[token, rank, None]).to(out.dtype))
    if noted is not None:
        tap, name = noted
        tap.note(name, inner, many)
        tap.choose(name, top_k_index)
    return out


@contextmanager
def recorded_experts(model: Any, sites: Sequence[MLPSite], tap: ExpertTap | None = None) -> Iterator[None]:
    """Let a model's experts run one by one for a block, and `tap` see each site's."""
    mixed = [site for site in sites if site.experts]
    if not mixed:
        yield
        return
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _forward)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = inner.get_experts_implementation()
    owners = [(model.get_submodule(site.module), site.name) for site in mixed]
    inner.set_experts_implementation(IMPLEMENTATION)
    try:
        for owner, name in owners:
            owner._noted = None if tap is None else (tap, name)
        yield
    finally:
        for owner, _ in owners:
            owner._noted = None
        inner.set_experts_implementation(before)
