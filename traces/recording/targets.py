"""Targets of a recording: the sites of a model, and the weight masks that belong to them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..models.experts import model_sites
from ..models.routing import routed_links
from ..models.sites import MLPSite, gate_sites, weight_shape
from ..oplist.probe import projection
from ..storage.arrays import SiteMeta
from ..storage.bits import Words, pack
from .passes import site_stack

Linked = dict[tuple[str, int], str]
# attention beside the MLPs, and what tunings put beside either
ATTENTION = re.compile(r"attn|attention", re.I)
BESIDE = re.compile(r"\.(?:base_layer|lora_\w+|kron_\w+|low_rank|kronecker|adapter|original_module|modules_to_save)\.")
BOTTLENECK = re.compile(r"(?P<base>.*?)\.(?:(?P<lora>lora_B)\.[^.]+|adapter\.up)$")


def places(
    model: Any,
    patterns: str | Sequence[str] | None = None,
    layers: str | Sequence[int] | None = None,
    mlp_inputs: bool = False,
    adapters: bool = False,
) -> tuple[list[MLPSite], list[MLPSite], Linked]:
    """Find what is to be recorded.

    Parameters
    ----------
    model : torch.nn.Module
        As it will run.
    patterns : str or sequence of str, optional
        Down-projections by hand, for a model whose family is not in the table.
    layers : str or sequence of int, optional
        Only these: ``"0,3,5-7"``, a glob over site names, or numbers.
    mlp_inputs : bool
        Also what enters the MLP blocks.
    adapters : bool
        Also what enters the second GEMM of each adapter that is not folded in: which of its inner elements are used.

    Returns
    -------
    every : list of MLPSite
        The model's down-projections, recorded or not: ops and layers are named by them.
    chosen : list of MLPSite
        What is recorded.
    linked : dict of (str, int) to str
        Modules, by name and call, whose input a site beside the down-projections is.

    Raises
    ------
    InputError
        If there is no such layer, or nothing to record of a kind that was asked for.
    """
    every = model_sites(model, patterns)
    more, linked = [*gate_sites(every)], Linked()
    if mlp_inputs:
        more += _block_inputs(model, every, linked)
    if adapters:
        more += _adapter_inputs(model, every, linked)
    linked |= routed_links(model, every)
    chosen = _in_layers([*every, *more], layers)
    names = {site.name for site in chosen}
    return every, chosen, {key: name for key, name in linked.items() if name in names}


def remarks(model: Any, every: Sequence[MLPSite]) -> list[str]:
    """Say what of a model a recording does not cover, or covers otherwise than its name suggests; a line each."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    lines = []
    if missed := _left_out(model, every):
        kinds = dict.fromkeys(re.sub(r"(?<=[.])[0-9]+", "*", name) for name in missed)
        lines.append(
            f"{len(missed)} layers look like down-projections of an MLP but are not recorded; their ops have no masks: "
            f"{', '.join(kinds)}; name linear ones with --site"
        )
    family = config.model_type
    if getattr(config, "kv_lora_rank", None):
        lines.append(
            f"a '{family}' model keeps keys and values compressed; its ops list them for every head, as transformers "
            "runs them, so the bytes of scores and values are an upper bound"
        )
    if getattr(config, "attention_k_eq_v", False):
        lines.append(f"a '{family}' model has keys that are its values; its ops read them twice, as transformers does")
    return lines


def _left_out(model: Any, every: Sequence[MLPSite]) -> list[str]:
    """Linear layers, or experts' matrices, that lead back from a width that a neighbour in their layer leads to."""
    taken = {site.module for site in every}
    inside: dict[str, dict[str, tuple[int, int]]] = {}
    read: dict[str, int] = {}  # what enters each layer
    found = []
    for full, module in model.named_modules():
        layer, shape = _layer_of(full), weight_shape(module)
        if shape is not None and layer:
            read.setdefault(layer, shape[0])
        if full in taken or ATTENTION.search(full) or BESIDE.search(f".{full}."):
            continue
        if shape is not None and layer:
            inside.setdefault(layer, {})[full] = shape
        experts = getattr(module, "down_proj", None)
        if getattr(experts, "ndim", 0) == 3:
            found.append(full)
    for layer, linear in inside.items():
        for full, (k, n) in linear.items():
            led = any(first == n and second in (k, 2 * k) for name, (first, second) in linear.items() if name != full)
            if (
                k != n == read[layer]
                and led
                and projection(full) not in ("q", "k", "v", "o", "qkv", "up", "gate", "gate_up")
            ):
                found.append(full)
    return found


def _layer_of(path: str) -> str:
    match = re.search(r"^(.*?\.\d+)\.", f"{path}.")
    return match.group(1) if match else ""


def _block_inputs(model: Any, every: Sequence[MLPSite], linked: Linked) -> list[MLPSite]:
    """The projections that read each MLP block's input: one is hooked, for all see the same."""
    shapes = [(name, weight_shape(module)) for name, module in model.named_modules()]
    found = []
    for site in (site for site in every if not site.routed):
        if site.experts:
            found.append(MLPSite(f"{site.name}.up", site.layer, site.module, site.n, site.k, None, False, op="up"))
            continue
        name = f"{site.name.removesuffix('down')}up"
        first: MLPSite | None = None
        block = site.module.rpartition(".")[0] if site.gate else ""
        for full, shape in shapes:
            op = projection(full)
            inside = full.startswith(f"{block}." if block else f"{_layer_of(site.module)}.")
            if (
                shape is None
                or not inside
                or op not in ("up", "gate", "gate_up")
                or shape[1] not in (site.k, 2 * site.k)
            ):
                continue
            linked[full, site.call] = name
            if first is None or op != "gate":
                first = MLPSite(name, site.layer, full, *shape, None, False, site.call, op=op)
        found += [first] if first is not None else []
    if not found:
        raise InputError("no projection into an MLP block was found in this model; record without mlp_inputs")
    return found


def _adapter_inputs(model: Any, every: Sequence[MLPSite], linked: Linked) -> list[MLPSite]:
    """The second GEMMs of adapters, LoRA's B or a bottleneck's way up; of a gated one its gate: tokens that take it."""
    down = {site.module: site for site in every}
    layers = {_layer_of(site.module): site for site in every}
    found: list[MLPSite] = []
    modules = dict(model.named_modules())
    for full, module in modules.items():
        match, shape = BOTTLENECK.search(full), weight_shape(module)
        place = layers.get(_layer_of(full))
        if match is None or shape is None or place is None:
            continue
        base = match.group("base")
        owner = "down" if base in down else projection(base) or base.rpartition(".")[2]
        gate = f"{base}.adapter.gate"
        gated = not match.group("lora") and gate in modules
        op = f"{owner}.lora_b" if match.group("lora") else "adapter.gate" if gated else "adapter.up"
        stem = place.name.rpartition(".")[0].removesuffix(".shared").removesuffix(".experts")
        taken = sum(site.name.startswith(f"{stem}.{op}") for site in found)
        name = f"{stem}.{op}" + (f".{taken}" if taken else "")
        if gated:  # its GEMMs see the open tokens alone
            found.append(MLPSite(name, place.layer, gate, 1, 1, None, False, output=True, op=op))
            continue
        linked[full, 0] = name
        found.append(MLPSite(name, place.layer, full, *shape, None, False, op=op))
    if not found:
        raise InputError("this model has no adapter beside its weights; record with merge=False, or without adapters")
    return found


def _in_layers(sites: list[MLPSite], layers: str | Sequence[int] | None) -> list[MLPSite]:
    if layers is None:
        return sites
    text = layers if isinstance(layers, str) else ",".join(str(layer) for layer in layers)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    kept = [site for site in sites if any(_matches(site, part) for part in parts)]
    for part in parts or [text]:
        if not any(_matches(site, part) for site in sites):
            known = ", ".join(str(layer) for layer in sorted({site.layer for site in sites}))
            raise InputError(
                f"--layers {text}: nothing matches '{part}'; the model has layers {known}, and sites such as "
                f"'{sites[0].name}'"
            )
    return kept


def _matches(site: MLPSite, part: str) -> bool:
    span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
    if span is None:
        return fnmatch.fnmatch(site.name, part)
    return int(span.group(1)) <= site.layer <= int(span.group(2) or span.group(1))


def site_metas(
    model: Any, sites: Sequence[MLPSite], variants: Sequence[str], values: str, weights: bool
) -> tuple[list[SiteMeta], dict[str, Words]]:
    """Return what the store is to know of each site, and the weight masks by site."""
    masks = {}
    for site in sites if weights else []:
        mask = weight_mask(model, site)
        if mask is not None:
            masks[site.name] = mask
    metas = [
        SiteMeta(
            s.name,
            s.layer,
            s.op,
            s.k,
            s.n,
            weight=s.name in masks,
            variants=tuple(variants),
            values=values,
            experts=s.experts or int(s.routed),
            chosen=s.chosen or int(s.routed),
            stack=site_stack(model, s.name),
        )
        for s in sites
    ]
    return metas, masks


def weight_mask(model: Any, site: MLPSite) -> Words | None:
    """Return where the weight of a site's operation is not zero, packed; None where it has none of its own.

    It is (N, K), of a layer's experts (experts N, K). A gate tells which outputs of ``up`` are needed, so its mask is
    that of ``up``, (K, N) in the gate's own letters; none where ``up`` and ``gate`` are one matrix.
    """
    if site.experts:
        experts = model.get_submodule(site.module)
        every = experts.down_proj.transpose(1, 2) if experts.is_transposed else experts.down_proj
        return pack((every != 0).flatten(0, 1).cpu().numpy()) if every.is_floating_point() else None
    owner = _up_beside(model, site) if site.output else model.get_submodule(site.module)
    base = getattr(owner, "base_layer", owner)
    weight = getattr(base, "weight", None)
    if weight is None or weight_shape(base) is None or not weight.is_floating_point():
        return None
    rows = weight.T if type(base).__name__ == "Conv1D" else weight
    wanted = (site.k, site.n) if site.output else (site.n, site.k)
    return pack((rows != 0).cpu().numpy()) if tuple(rows.shape) == wanted else None


def _up_beside(model: Any, gate: MLPSite) -> Any:
    block = gate.module.rpartition(".")[0]
    for full, module in model.get_submodule(block).named_modules():
        if weight_shape(module) == (gate.n, gate.k) and projection(f"{block}.{full}") == "up":
            return module
    return None
