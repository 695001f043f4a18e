"""Sites of activation zeros in each model family: one table.

A site is the *down-projection* of an MLP block: its input is exactly what a zero-skip design would skip. Names are
those of transformers 5 (and 4 where they differ). `peft` may have wrapped the model: a module's name then has a prefix,
and the wrapper that stands at the name is what is hooked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Family:
    """How one model family names its MLP.

    Parameters
    ----------
    down : str
        Regular expression of the down-projection's module name; its groups are the layer's index, with an optional
        named group ``stack`` (encoder or decoder).
    activation : str
        Path of the activation function, relative to the layer that holds the down-projection: `down` with this
        suffix in place of `down_tail`.
    down_tail : str
        The part of the down-projection's name that is inside the layer.
    gate : bool
        Whether the activation is multiplied with a second branch before the down-projection.
    """

    down: str
    activation: str
    down_tail: str
    gate: bool = False


_BERT = Family(r"encoder\.layer\.(\d+)\.output\.dense", "intermediate.intermediate_act_fn", "output.dense")
_LLAMA = Family(r"layers\.(\d+)\.mlp\.down_proj", "mlp.act_fn", "mlp.down_proj", gate=True)
_T5 = Family(
    r"(?P<stack>encoder|decoder)\.block\.(\d+)\.layer\.\d+\.DenseReluDense\.wo",
    "act",
    "wo",
)
_BART = Family(r"(?P<stack>encoder|decoder)\.layers\.(\d+)\.fc2", "activation_fn", "fc2")
_VIT = Family(r"layers?\.(\d+)\.(?:mlp\.fc2|output\.dense)", "mlp.activation_fn", "mlp.fc2")
_DINO = Family(r"layers?\.(\d+)\.mlp\.fc2", "mlp.activation_fn", "mlp.fc2")

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "esm": Family(r"encoder\.layer\.(\d+)\.output\.dense", "intermediate.intermediate_act_fn", "output.dense"),
    "distilbert": Family(r"layer\.(\d+)\.ffn\.lin2", "ffn.activation", "ffn.lin2"),
    "albert": Family(r"albert_layer_groups\.(\d+)\.albert_layers\.\d+\.ffn_output", "activation", "ffn_output"),
    "modernbert": Family(r"layers\.(\d+)\.mlp\.Wo", "mlp.act", "mlp.Wo", gate=True),
    "t5": _T5,
    "mt5": _T5,
    "opt": Family(r"layers\.(\d+)\.fc2", "activation_fn", "fc2"),
    "gpt2": Family(r"h\.(\d+)\.mlp\.c_proj", "mlp.act", "mlp.c_proj"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "smollm3": _LLAMA,
    "vit": _VIT,
    "deit": _VIT,
    "dinov2": _DINO,
    "dinov2_with_registers": _DINO,
    "whisper": _BART,
    "bart": _BART,
    "mbart": _BART,
    "marian": _BART,
    "pegasus": _BART,
}


@dataclass(frozen=True)
class MLPSite:
    """One down-projection of a model.

    Parameters
    ----------
    name : str
        Short and stable: ``layers.3.down``, ``encoder.layers.0.down``.
    layer : int
        Index over the whole model, in execution order.
    module : str
        The module's full name in the model at hand.
    k, n : int
        Reduction and output size of the down-projection.
    activation : str or None
        Full name of the activation function's module, None where it is not a module.
    gate : bool
        Whether the activation is multiplied with a second branch.
    call : int
        Which of the module's calls in one forward pass this is: ALBERT runs one layer many times.
    output : bool
        Whether the module's output is what is recorded, not its input: a gated MLP's activation.
    op : str
        The operation it belongs to.
    experts, chosen : int
        In a mixture of experts: how many there are, and how many a token goes through.
    routed : bool
        Whether only some tokens take the block.
    """

    name: str
    layer: int
    module: str
    k: int
    n: int
    activation: str | None
    gate: bool
    call: int = 0
    output: bool = False
    op: str = "down"
    experts: int = 0
    chosen: int = 0
    routed: bool = False


def weight_shape(module: Any) -> tuple[int, int] | None:
    """Return (in, out) features of a linear module, wrapped by peft or not; None for anything else."""
    base = getattr(module, "base_layer", module)
    if hasattr(base, "in_features") and hasattr(base, "out_features"):
        return int(base.in_features), int(base.out_features)
    if type(base).__name__.endswith("Conv1D") and hasattr(base, "nf"):  # transformers' transposed Linear of GPT-2
        return int(base.weight.shape[0]), int(base.weight.shape[1])
    return None


def find_sites(model: Any, pattern: str | Sequence[str] | None = None) -> list[MLPSite]:
    """Find every MLP down-projection of a model.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model, wrapped by peft or not, merged or not.
    pattern : str or sequence of str, optional
        Names the sites by hand, as globs over module names: ``layers.*.mlp.down_proj``.

    Returns
    -------
    list of MLPSite
        In execution order; blocks that a tuning dropped are left out, and counted in the others' ``layer``.

    Raises
    ------
    InputError
        If the family is not in the table and no pattern is given, or nothing matches.
    """
    if pattern:
        modules = dict(model.named_modules())
        return _by_hand(modules, [pattern] if isinstance(pattern, str) else list(pattern))
    return [_named(site, model) for site in mlp_blocks(model) if site.k]


def _named(site: MLPSite, model: Any) -> MLPSite:
    """Mark what only some tokens take."""
    if not hasattr(model.get_submodule(site.module), "routing"):
        return site
    return replace(site, name=f"{site.name.removesuffix('down')}routed", routed=True)


def mlp_blocks(model: Any) -> list[MLPSite]:
    """Return a model's MLP blocks in execution order; those that a tuning dropped have ``k = n = 0``."""
    modules = dict(model.named_modules())
    config = model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise InputError(
            f"model family '{config.model_type}' is not in the table of MLP sites; list its modules with "
            "'simkit show model NAME' and name the sites by hand: --site 'layers.*.mlp.down_proj'"
        )
    expression = re.compile(rf"(?:^|\.){family.down}$")
    found: list[MLPSite] = []
    for full, module in modules.items():
        match = expression.search(full)
        if match is None:
            continue
        shape = (0, 0) if getattr(module, "dropped_block", False) else weight_shape(module)
        if shape is None:
            raise InputError(
                f"'{full}' is where a '{config.model_type}' model has a down-projection, but it is no linear layer "
                f"({type(module).__name__}); name the sites by hand: --site 'layers.*.mlp.down_proj'"
            )
        stack = match.groupdict().get("stack")
        index = next(g for g in match.groups() if g is not None and g.isdigit())
        name = f"{stack}.layers.{index}.down" if stack else f"layers.{index}.down"
        activation = full.removesuffix(family.down_tail) + family.activation
        gate = family.gate or hasattr(modules.get(full.rpartition(".")[0]), "wi_1")
        found.append(MLPSite(name, len(found), full, *shape, activation if activation in modules else None, gate))
    if not any(site.k for site in found):
        raise InputError(
            f"no MLP down-projection found in this '{config.model_type}' model (looked for '{family.down}'); "
            "name the sites by hand: --site 'layers.*.mlp.down_proj'"
        )
    _unlike(found, config.model_type)
    return _shared(found, config) if config.model_type == "albert" else found


def _unlike(sites: Sequence[MLPSite], family: str) -> None:
    """Refuse two down-projections of one name, which a trace would take for one."""
    seen: dict[str, str] = {}
    for site in sites:
        if site.name in seen:
            raise InputError(
                f"this '{family}' model has two down-projections for '{site.name}': '{seen[site.name]}' and "
                f"'{site.module}'; name the sites by hand: --site '{site.module}'"
            )
        seen[site.name] = site.module


def dropped_blocks(model: Any) -> list[MLPSite]:
    """Return the MLP blocks that a tuning dropped, with ``k = n = 0``."""
    if not any(getattr(module, "dropped_block", False) for module in model.modules()):
        return []  # also for a family that is not in the table
    return [block for block in mlp_blocks(model) if not block.k]


def gate_sites(sites: Sequence[MLPSite]) -> list[MLPSite]:
    """Return the activation functions of gated MLPs: where one gives zero, that output of ``up`` is not needed."""
    return [
        replace(s, name=f"{s.name.removesuffix('down')}gate", module=s.activation, output=True, op="gate")
        for s in sites
        if s.gate and s.activation is not None and not s.routed
    ]


def _shared(groups: list[MLPSite], config: Any) -> list[MLPSite]:
    """Spread ALBERT's few groups of weights over the layers that run them."""
    calls = [0] * len(groups)
    found = []
    for layer in range(config.num_hidden_layers):
        index = layer * config.num_hidden_groups // config.num_hidden_layers
        found.append(replace(groups[index], name=f"layers.{layer}.down", layer=layer, call=calls[index]))
        calls[index] += 1
    return found


def _by_hand(modules: dict[str, Any], patterns: list[str]) -> list[MLPSite]:
    """Linear modules whose name ends like a pattern; a star stands for one part of the name, or of a part."""
    globs = "|".join("[^.]*".join(re.escape(piece) for piece in pattern.split("*")) for pattern in patterns)
    expression = re.compile(rf"(?:.*\.)?(?:{globs})")
    found: list[MLPSite] = []
    for full, module in modules.items():
        shape = weight_shape(module)
        if shape is not None and expression.fullmatch(full):
            found.append(MLPSite(full, len(found), full, *shape, None, False))
    if not found:
        listed = "', '".join(patterns)
        raise InputError(f"no linear module matches --site '{listed}'; list them with 'simkit show model NAME'")
    return found


def stack_of(site: str) -> str:
    """Return ``encoder`` or ``decoder``, whichever part comes first in a dotted name; "" for neither."""
    return next((part for part in site.split(".") if part in ("encoder", "decoder")), "")
