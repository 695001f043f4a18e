"""Adapters behind gates: each token, or sequence, takes an adapter or passes it by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...errors import InputError
from ...models.sites import stack_of
from ..change import Change, Decided, Method
from .adapter import Adapter, inner_width, insert, places

if TYPE_CHECKING:
    import torch


class Gated(Adapter):
    """A bottleneck behind linear layers, that a gate lets only some tokens through.

    Parameters
    ----------
    rho : float
        Share of the tokens that may take an adapter, over all adapters; 0.25 and 0.5 are the shares looked at.
    weight : float
        Factor lambda of the penalty on more.
    anneal : float
        Share of the steps over which the budget falls from all tokens to `rho`: a sudden penalty closes far too many.
    gate : {"straight-through", "hard-concrete"}
        The gate while training.
    feature : {"token", "sequence"}
        What a gate looks at: each token, or the mean over a sequence's real tokens.
    """

    type: Literal["gated"] = "gated"  # type: ignore[assignment]
    rho: float = Field(default=0.5, gt=0, le=1)
    weight: float = Field(default=10.0, ge=0)
    anneal: float = Field(default=0.5, ge=0, le=1)
    gate: Literal["straight-through", "hard-concrete"] = "straight-through"
    feature: Literal["token", "sequence"] = "token"

    def change(self) -> Change:
        """Return the insertion."""
        return _Gated(self)


METHOD = Method(
    name="gated",
    title="Sparsely activated adapters: a gate decides which tokens take one",
    equation=(
        "y = h + g(h) * (f(h D) U),  g in {0, 1};  L = L_task + lambda * relu(mean g - rho);  "
        "training: straight-through sigmoid, or hard-concrete;  inference: g = [w h + b > 0]"
    ),
    source=(
        "unsourced design: no public paper describes it; its gates follow Bengio et al., arXiv 1308.3432, and "
        "Louizos et al., arXiv 1712.01312"
    ),
    evidence="reconstructed",
    notes=(
        "No saving of a whole model is claimed: a closed gate saves the adapter's own two GEMMs and nothing of the "
        "base model, and each gate adds a GEMM with one output."
    ),
    module=Gated,
)


class _Gated(Change):
    def __init__(self, part: Gated) -> None:
        self.part = part

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Put a gated adapter behind every place.

        Raises
        ------
        InputError
            If a gate would look at tokens that a causal stack has not seen yet.
        """
        from ..layers.gate import Gate, GatedBottleneck, RealTokens

        part, real = self.part, RealTokens(net)
        names = places(net, part.placement)
        causal = task == "causal-lm" or any(stack_of(name) == "decoder" for name in names if task == "seq2seq")
        if part.feature == "sequence" and causal:
            raise InputError(
                "module 'gated' with feature 'sequence' would let a causal model look ahead; use feature: token"
            )

        def make(name: str, width: int) -> Any:
            stack = stack_of(name) if task == "seq2seq" else ""
            gate = Gate(width, part.gate, part.feature == "sequence", real, stack)
            return GatedBottleneck(width, inner_width(width, part.reduction), part.activation, gate)

        insert(net, names, make)
        return net

    def penalty(self, net: Any, progress: float) -> torch.Tensor | None:
        """Return lambda relu(mean g - rho) of the last pass, the mean over tokens and adapters."""
        import torch as th

        part = self.part
        means = [gate.mean for gate in gates(net).values() if gate.mean is not None]
        fallen = min(1.0, progress / part.anneal) if part.anneal else 1.0
        budget = 1.0 - (1.0 - part.rho) * fallen
        return part.weight * th.relu(th.stack(means).mean() - budget) if means else None

    def measured(self, net: Any) -> dict[str, Any]:
        """Return the share of real held-out tokens that took each adapter, and over all of them."""
        found = gates(net)
        usage = {name: gate.open / max(1, gate.seen) for name, gate in found.items()}
        return {"adapter_usage": usage, "usage": sum(usage.values()) / len(usage)}


def gates(net: Any) -> dict[str, Any]:
    """Return the gates of a model's adapters by the name of the layer they are behind."""
    from ..layers.gate import Gate

    named = net.named_modules()
    return {name.removesuffix(".adapter.gate"): m for name, m in named if isinstance(m, Gate)}
