"""Weights rounded to 8 or 4 bits, dequantised for computing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...errors import InputError
from ...models.sites import weight_shape
from ..change import Change, Decided, Method, Part
from .lora import Targets, linear_targets
from .prune import modules_of, rows_of

if TYPE_CHECKING:
    import torch

METHOD = Method(
    name="quantise",
    title="Weights of linear layers rounded to nearest on a symmetric grid of 8 or 4 bits",
    equation="q = clamp(round(W / s), -Q, Q), s = max|W| / Q over an output's weights or a group of them, "
    "Q = 2^(bits - 1) - 1; computed with s q",
    source="Jacob et al., arXiv 1712.05877; group-wise scales: Dettmers and Zettlemoyer, arXiv 2212.09720",
    evidence="paper",
    notes="Rounded again after an adapter is folded in, so that what is deployed lies on the grid. A zero stays zero.",
)
SCALE_BITS = 16  # a group's scale is stored in half precision


class Quantise(Part):
    """Round the linear layers' weights before tuning.

    Parameters
    ----------
    bits : {4, 8}
        Of a weight.
    group : int, optional
        Consecutive inputs that share a scale; an output's whole row by default.
    targets : "all-linear" or names
        As for LoRA.
    """

    bits: Literal[4, 8] = 8
    group: int | None = Field(default=None, ge=2)
    targets: Targets = "all-linear"

    def change(self) -> Change:
        """Return the rounding."""
        return QuantiseWeights(self)


class QuantiseWeights(Change):
    """Rounds weights, and again after a merge."""

    def __init__(self, part: Quantise) -> None:
        self.part = part
        self._names: list[str] = []

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Round every target.

        Raises
        ------
        InputError
            If a layer's inputs cannot be cut into groups.
        """
        self._names = linear_targets(net, self.part.targets)
        group = self.part.group
        for name in self._names:
            width = rows_of(net.get_submodule(name)).shape[1]
            if group is not None and width % group:
                raise InputError(
                    f"quantise.group {group}: {name} has {width} inputs, no multiple of it; choose a divisor, or leave "
                    "'group' out for one scale an output"
                )
        return self._round(net)

    def _round(self, net: Any) -> Any:
        import torch as th

        with th.no_grad():
            for _, module in modules_of(net, self._names):
                if weight_shape(module) is not None:  # else its block was dropped
                    weight = rows_of(module)
                    weight.copy_(on_grid(weight, self.part.bits, self.part.group))
                    getattr(module, "base_layer", module).weight.stored_bits = self.stored_bits(weight.shape[1])
        return net

    def stored_bits(self, width: int) -> float:
        """Return the bits of a weight in storage, its share of the scale included."""
        return self.part.bits + SCALE_BITS / (self.part.group or width)

    def merge(self, net: Any) -> Any:
        """Round again what a merged adapter moved off the grid."""
        return self._round(net)

    def facts(self, net: Any) -> dict[str, Any]:
        """Return the bits of a weight."""
        return {"weight_bits": self.part.bits}


def on_grid(weight: torch.Tensor, bits: int, group: int | None = None) -> torch.Tensor:
    """Return s q of each row, or of each group of a row; see `METHOD`.

    Parameters
    ----------
    weight : float tensor (N, K)
        Full-precision weights.
    bits : int
        Of the grid.
    group : int, optional
        Consecutive inputs that share a scale; divides K.
    """
    cut = weight.reshape(len(weight), -1, group or weight.shape[1])
    limit = 2 ** (bits - 1) - 1
    scale = cut.abs().amax(dim=-1, keepdim=True) / limit
    scale = scale.masked_fill(scale == 0, 1.0)
    return (cut / scale).round().clamp(-limit, limit).mul(scale).reshape(weight.shape)
