"""CoDA: the frozen MLP block runs only for routed tokens, all tokens take an adapter (arXiv 2304.04947)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ...errors import InputError
from ...models.experts import dense_sites
from ...models.sites import FAMILIES, stack_of
from ..change import Change, Decided, Method, Part
from .ada_density import first_projections


class Conditional(Part):
    """Conditional adapters on the MLP blocks of an encoder or a vision model.

    Parameters
    ----------
    capacity : float
        Share of a sequence's tokens that take the frozen block, rounded up.
    reduction : int
        The adapter's width is the model's over this.
    activation : {"relu", "gelu", "silu"}
        The adapter's.
    eps, eps_end : float
        Softness of the choice at the first and at the last step (geometric in between).
    iterations : int
        Of the soft choice's fixed point.
    """

    type: Literal["conditional"] = "conditional"
    capacity: float = Field(default=0.5, gt=0, lt=1)
    reduction: int = Field(default=16, ge=1)
    activation: Literal["relu", "gelu", "silu"] = "relu"
    eps: float = Field(default=1.0, gt=0)
    eps_end: float = Field(default=0.1, gt=0)
    iterations: int = Field(default=20, ge=1)

    def change(self) -> Change:
        """Return the routing."""
        return RouteBlocks(self)


METHOD = Method(
    name="conditional",
    title="CoDA, conditional adapters: the frozen MLP block runs for k routed tokens, all tokens take the adapter",
    equation=(
        "h <- h + lambda_i MLP(h_i) + adapter(h_i);  training: lambda = soft top-k of w . h by 20 fixed-point "
        "iterations, sum lambda = k;  inference: lambda = 1 for the k highest scores of a sequence, else 0"
    ),
    source="CoDA, Conditional Adapters, arXiv 2304.04947",
    evidence="reconstructed",
    notes=(
        "The paper routes whole layers; here the MLP sub-block alone is conditional and attention sees all tokens, so "
        "that a saving is never more than the routed share of the MLP's MACs, less what adapters and routers add. "
        "Whether the paper scales routed tokens by lambda at inference is unknown (the text was unavailable): here it "
        "does not."
    ),
    module=Conditional,
)


class RouteBlocks(Change):
    """Hooks every MLP block."""

    def __init__(self, part: Conditional) -> None:
        self.part = part

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Put a router and an adapter beside each block.

        Raises
        ------
        InputError
            If the model is causal, for choosing among a sequence's tokens looks ahead, or its blocks are not known.
        """
        from ..layers.conditional import Conditional as Module
        from ..layers.gate import RealTokens

        part, real, sites = self.part, RealTokens(net), dense_sites(net)
        family = net.config.model_type
        decoders = task == "causal-lm" or any(stack_of(site.name) == "decoder" for site in sites)
        if family not in FAMILIES or any(site.call for site in sites) or decoders:
            raise InputError(
                f"module 'conditional' chooses among all tokens of a sequence, block by block, which a '{family}' "
                "model for this task does not allow; use an encoder or a vision model, or module 'gated'"
            )
        for site in sites:
            module = Module(
                site.n,
                max(1, site.n // part.reduction),
                part.activation,
                part.capacity,
                part.eps,
                part.iterations,
                real,
                "",
            )
            down = net.get_submodule(site.module)
            net.get_submodule(site.module.rpartition(".")[0]).add_module("conditional", module)
            inside = [net.get_submodule(name) for name in first_projections(net, site)]
            for first in inside:
                first.register_forward_pre_hook(module.enter)
            down.register_forward_hook(module.leave)
            if site.activation is not None:
                inside.append(net.get_submodule(site.activation))
            # not as a submodule: it is one of the block's already
            down.__dict__["routing"], down.__dict__["routed_with"] = module, inside
        return net

    def after_step(self, net: Any, step: int, steps: int) -> None:
        """Harden the choice."""
        from ..layers.conditional import softness

        for module in routers(net).values():
            module.eps = softness(self.part.eps, self.part.eps_end, (step + 1) / steps)

    def measured(self, net: Any) -> dict[str, Any]:
        """Return the share of real held-out tokens that took each block, and over all of them."""
        usage = {name: module.open / max(1, module.seen) for name, module in routers(net).items()}
        return {"block_usage": usage, "usage": sum(usage.values()) / len(usage)}


def routers(net: Any) -> dict[str, Any]:
    """Return the conditional modules by name."""
    from ..layers.conditional import Conditional as Module

    return {name: module for name, module in net.named_modules() if isinstance(module, Module)}
