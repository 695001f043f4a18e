"""ADA-DEFT: gates on whole MLP blocks, trained with the density loss; closed blocks are left out (arXiv 2402.01911)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ...errors import InputError
from ...models.experts import dense_sites
from ...models.sites import FAMILIES, MLPSite
from ..change import Change, Decided, Method, Part

if TYPE_CHECKING:
    import torch

METHOD = Method(
    name="ada_density",
    title="ADA-DEFT: a learned gate on each MLP block; blocks whose gate closes are not run, nor loaded",
    equation=(
        "h <- h + g_l MLP(h), g_l = sigmoid(s_l), s_l = +3 at the start;  "
        "L = L_task + w mean_l(g_l D_l) + mu mean_l g_l;  inference drops block l where g_l < t, or the lowest k"
    ),
    source="DEFT, arXiv 2402.01911",
    evidence="reconstructed",
    notes=(
        "The paper says that per-layer weights are learned and blocks skipped by them; the formula is our own. "
        "A kept block's gate is folded into its down-projection, so it costs nothing."
    ),
)
# beside the down-projection, by family: what a block's first projections are called, and what serves it alone (a norm
# before it, a scale behind it); relative to the part of the down-projection's name that `Family.down_tail` leaves
_LLAMA = (("mlp.gate_proj", "mlp.up_proj"), ("post_attention_layernorm",))
_BERT = (("intermediate.dense",), ())
_T5 = (("wi", "wi_0", "wi_1"), ("^layer_norm",))
BLOCKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "esm": (("intermediate.dense",), ("LayerNorm",)),
    "distilbert": (("ffn.lin1",), ()),
    "modernbert": (("mlp.Wi",), ("mlp_norm",)),
    "t5": _T5,
    "mt5": _T5,
    "opt": (("fc1",), ("final_layer_norm",)),
    "gpt2": (("mlp.c_fc",), ("ln_2",)),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": (_LLAMA[0], ("pre_feedforward_layernorm", "post_feedforward_layernorm")),
    "vit": (("mlp.fc1", "intermediate.dense"), ("layernorm_after",)),
    "dinov2": (("mlp.fc1",), ("norm2", "layer_scale2")),
    "deit": (("mlp.fc1", "intermediate.dense"), ("layernorm_after",)),
    "dinov2_with_registers": (("mlp.fc1",), ("norm2", "layer_scale2")),
    "whisper": (("fc1",), ("final_layer_norm",)),
    "mbart": (("fc1",), ("final_layer_norm",)),
    "pegasus": (("fc1",), ("final_layer_norm",)),
    "bart": (("fc1",), ()),  # its norms are on the residual stream itself
    "marian": (("fc1",), ()),
}


class BlockGates(Part):
    """Learned gates on whole MLP blocks (ADA-DEFT).

    Parameters
    ----------
    mu : float
        Weight of the mean gate in the loss.
    threshold : float
        At inference a block is dropped where its gate is below this,
    drop : int, optional
        or, where given, the so many blocks with the lowest gates.
    start : float
        The gates' first logit.
    rate : float
        Adam moves each parameter by about the learning rate a step, far too little for a logit that starts at 3: the
        logit is `rate` times its parameter.
    """

    mu: float = Field(default=0.1, ge=0)
    threshold: float = Field(default=0.1, ge=0, lt=1)
    drop: int | None = Field(default=None, ge=0)
    start: float = 3.0
    rate: float = Field(default=30.0, gt=0)

    def change(self) -> GateBlocks:
        """Return the gating."""
        return GateBlocks(self)


class GateBlocks(Change):
    """Gates the blocks and drops those that close; `fold` is undone after the module, to scale what it merged."""

    def __init__(self, part: BlockGates) -> None:
        self.part = part
        self.fold = FoldGates()

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Register the gates as ``block_gates`` and hook every down-projection."""
        from ..layers import blocks

        sites = self._fitting(net)
        part = self.part
        gates = blocks.BlockGates(len(sites), part.start, part.rate, part.threshold, part.drop)
        net.add_module("block_gates", gates)
        self._handles = [
            net.get_submodule(site.module).register_forward_hook(blocks.Gated(gates, i)) for i, site in enumerate(sites)
        ]
        self._names = [site.name for site in sites]
        return net

    def _fitting(self, net: Any) -> list[MLPSite]:
        """Return the sites, or say why the blocks of this model cannot be gated."""
        family, sites = net.config.model_type, dense_sites(net)
        if any(site.routed for site in sites):
            raise InputError("blocks: module 'conditional' gates the MLP blocks already; leave the field 'blocks' out")
        if family not in BLOCKS or any(site.call for site in sites):
            why = "its layers share one block's weights" if family in FAMILIES else "its blocks' parts are not known"
            raise InputError(f"blocks: a '{family}' model cannot drop MLP blocks ({why}); leave the field 'blocks' out")
        if self.part.drop is not None and self.part.drop >= len(sites):
            raise InputError(f"blocks.drop is {self.part.drop}, the model has {len(sites)} MLP blocks; keep at least 1")
        return sites

    def penalty(self, net: Any, progress: float) -> torch.Tensor:
        """Return mu mean_l g_l."""
        mean: torch.Tensor = net.block_gates().mean()
        return self.part.mu * mean

    def density_factor(self, net: Any, site: MLPSite) -> torch.Tensor:
        """Return g_l: what a block that closes does is worth no penalty."""
        gate: torch.Tensor = net.block_gates()[self._names.index(site.name)]
        return gate

    def after_backward(self, net: Any, step: int, steps: int) -> None:
        """Clip by the logits' gradients, not by those of the parameters that move them faster."""
        if net.block_gates.u.grad is not None:
            net.block_gates.u.grad /= self.part.rate

    def merge(self, net: Any) -> Any:
        """Take the hooks and the closed blocks out of the model; what is left of the gates is for `fold`."""
        for handle in self._handles:
            handle.remove()
        sites, keep = dense_sites(net), net.block_gates.kept().tolist()
        for site, gate, kept in zip(sites, net.block_gates.soft.tolist(), keep, strict=True):
            if kept:
                self.fold.factors[site.name] = gate
            else:
                drop_block(net, site)
        del net.block_gates
        return net

    def facts(self, net: Any) -> dict[str, Any]:
        """Return every gate, and the sites that inference drops."""
        keep = net.block_gates.kept().tolist()
        return {
            "block_gates": net.block_gates.soft.tolist(),
            "blocks_dropped": [name for name, kept in zip(self._names, keep, strict=True) if not kept],
        }


class FoldGates(Change):
    """Scales down-projections by their gates once the module's own changes are merged into them."""

    def __init__(self) -> None:
        self.factors: dict[str, float] = {}

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Change nothing: there are no gates yet."""
        return net

    def merge(self, net: Any) -> Any:
        """Fold g into weight and bias; where an adapter is still in the module, scale its output instead."""
        import torch

        from ..layers.blocks import Scaled

        for site in dense_sites(net):
            factor = self.factors.get(site.name, 1.0)
            module = net.get_submodule(site.module)
            if any(True for _ in module.children()):
                module.register_forward_hook(Scaled(factor))
                continue
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.mul_(factor)
        return net


def block_prefix(net: Any, site: MLPSite) -> str:
    """Return the name of what holds an MLP block's parts, with a dot behind it."""
    tail = FAMILIES[net.config.model_type].down_tail
    prefix = site.module.removesuffix(tail)
    return prefix if prefix != site.module else site.module.removesuffix("output.dense")  # an older layout


def first_projections(net: Any, site: MLPSite) -> list[str]:
    """Return the names of an MLP block's first projections: one, or two where it is gated."""
    names, prefix = dict(net.named_modules()), block_prefix(net, site)
    return [prefix + name for name in BLOCKS[net.config.model_type][0] if prefix + name in names]


def drop_block(net: Any, site: MLPSite) -> None:
    """Take an MLP block out of a model: its projections, its activation function, and the norm that serves it alone."""
    import torch

    from ..layers.blocks import NoBlock, NoFeatures

    family, prefix = net.config.model_type, block_prefix(net, site)
    alone = BLOCKS[family][1]
    if family == "opt" and not net.config.do_layer_norm_before:  # the norm is on the residual stream itself
        alone = ()
    for name in first_projections(net, site):
        _put(net, name, NoFeatures())
    for name in alone:
        up = name.startswith("^")  # beside the block's own module, not in it
        place = f"{prefix.rstrip('.').rpartition('.')[0]}.{name[1:]}" if up else prefix + name
        _put(net, place, torch.nn.Identity())
    if site.activation is not None:
        _put(net, site.activation, torch.nn.Identity())
    _put(net, site.module, NoBlock())


def _put(net: Any, name: str, module: Any) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, module)
