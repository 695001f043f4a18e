"""AdaMix: a mixture of adaptations, merged by averaging (Wang et al., arXiv 2205.12410)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...models.sites import weight_shape
from ..change import Change, Decided, Method, Part
from .adapter import Placement, inner_width, insert, places
from .lora import Targets, linear_targets

if TYPE_CHECKING:
    import torch


class AdaMix(Part):
    """Several adapters or LoRA pairs at each place, one of them drawn in each training pass.

    Parameters
    ----------
    expert : {"adapter", "lora"}
        What there are several of.
    count : int
        How many; 4 in the paper.
    share : {"none", "down", "up"}
        Which of an expert's two projections all experts of a place have in common.
    consistency : float
        Factor of the divergence between two passes with other draws.
    placement, reduction, activation
        Of adapters, as for `Adapter`.
    r, alpha, targets
        Of LoRA pairs, as for `LoRA`.
    """

    type: Literal["adamix"] = "adamix"
    expert: Literal["adapter", "lora"] = "adapter"
    count: int = Field(default=4, ge=1)
    share: Literal["none", "down", "up"] = "none"
    consistency: float = Field(default=1.0, ge=0)
    placement: Placement = "pfeiffer"
    reduction: int = Field(default=16, ge=1)
    activation: Literal["relu", "gelu", "silu"] = "relu"
    r: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    targets: Targets = "all-linear"

    def change(self) -> Change:
        """Return the insertion."""
        return _AdaMix(self)


METHOD = Method(
    name="adamix",
    title="Mixture of adaptations: experts drawn at random while training, averaged exactly at inference",
    equation=(
        "training: D_i, U_j with i, j drawn for each layer and pass, L = L_task + c (KL(p || p') + KL(p' || p)) / 2 "
        "with p' of a second draw;  inference: D = mean_i D_i, U = mean_j U_j"
    ),
    source="Wang et al., AdaMix: Mixture-of-Adaptations for Parameter-efficient Model Tuning, arXiv 2205.12410",
    evidence="paper",
    notes=(
        "Costs at inference what one expert costs: LoRA experts are folded into the weights, adapters stay as one "
        "adapter. For a regression the second pass' squared difference stands in for the divergence."
    ),
    module=AdaMix,
)


class _AdaMix(Change):
    def __init__(self, part: AdaMix) -> None:
        self.part = part
        self._last: tuple[Any, Any, Any] | None = None  # arguments, named ones, and output of the training pass

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Put the experts in, and remember each training pass for a second one."""
        from ..layers.mixture import MixedBottleneck, MixedLoRA

        part = self.part
        if part.expert == "adapter":
            insert(
                net,
                places(net, part.placement),
                lambda _name, width: MixedBottleneck(
                    width, inner_width(width, part.reduction), part.activation, part.count, part.share
                ),
            )
        else:
            for name in linear_targets(net, part.targets):
                linear = net.get_submodule(name)
                shape = weight_shape(linear)
                assert shape is not None
                transposed = tuple(linear.weight.shape) == shape and hasattr(linear, "nf")
                mixed = MixedLoRA(linear, shape, part.r, part.count, part.alpha / part.r, part.share, transposed)
                net.set_submodule(name, mixed.to(linear.weight.device))
        if part.consistency:
            net.register_forward_hook(self._note, with_kwargs=True)
        return net

    def _note(self, net: Any, args: Any, named: Any, output: Any) -> None:
        self._last = (args, named, output) if net.training else None

    def penalty(self, net: Any, progress: float) -> torch.Tensor | None:
        """Return the factor times the divergence between the last pass and one with other experts drawn."""
        if self._last is None:
            return None
        args, named, output = self._last
        first, second = output.logits, net(*args, **named).logits
        self._last = None
        mask = named.get("decoder_attention_mask", named.get("attention_mask"))
        if first.dim() == 3 and mask is not None:
            first, second = (z[:, -mask.shape[1] :][mask.bool()] for z in (first, second))
        return self.part.consistency * divergence(first, second)

    def merge(self, net: Any) -> Any:
        """Average the experts; LoRA pairs are folded into the weights, a mixture of adapters becomes one adapter."""
        from ..layers.mixture import MixedBottleneck, MixedLoRA

        for name, module in list(net.named_modules()):
            if isinstance(module, MixedBottleneck | MixedLoRA):
                net.set_submodule(name, module.merged())
        return net


def divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the mean symmetric KL divergence of logits (rows, classes); squared difference for one class."""
    import torch as th

    if first.shape[-1] == 1:
        return (first - second).square().mean()
    p, q = first.float().log_softmax(-1), second.float().log_softmax(-1)
    return 0.5 * th.mean(((p.exp() - q.exp()) * (p - q)).sum(-1))
