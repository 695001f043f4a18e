"""Bottleneck adapters behind the MLP (Pfeiffer) or behind attention and MLP (Houlsby)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from ...errors import InputError
from ...models.experts import dense_sites
from ...models.sites import weight_shape
from ..change import Change, Decided, Method, Part
from .lora import linear_targets

Placement = Literal["pfeiffer", "houlsby"]


class Adapter(Part):
    """A bottleneck behind linear layers, before the block's residual sum.

    Parameters
    ----------
    placement : {"pfeiffer", "houlsby"}
        Behind each MLP's down-projection, or behind the attention's output projection too.
    reduction : int
        The bottleneck is that much narrower than the model.
    activation : {"relu", "gelu", "silu"}
        Inside the bottleneck.
    """

    type: Literal["adapter"] = "adapter"
    placement: Placement = "pfeiffer"
    reduction: int = Field(default=16, ge=1)
    activation: Literal["relu", "gelu", "silu"] = "relu"

    def change(self) -> Change:
        """Return the insertion."""
        return _Adapter(self)


METHOD = Method(
    name="adapter",
    title="Bottleneck adapters behind each MLP, and behind each attention too where asked",
    equation="y = h + f(h D) U;  D: (d, d / reduction), U: (d / reduction, d), near zero at the start; all else frozen",
    source=(
        "Houlsby et al., Parameter-Efficient Transfer Learning for NLP, arXiv 1902.00751; "
        "Pfeiffer et al., AdapterFusion, arXiv 2005.00247"
    ),
    evidence="paper",
    notes=(
        "Stands before the residual sum, as in Houlsby et al.; the layer norms stay frozen. Reduction 16 is what the "
        "released code of DEFT takes. It cannot be merged: its GEMMs adapter.down and adapter.up are in the trace."
    ),
    module=Adapter,
)


class _Adapter(Change):
    def __init__(self, part: Adapter) -> None:
        self.part = part

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Put an adapter behind every place."""
        from ..layers.bottleneck import Bottleneck

        insert(
            net,
            places(net, self.part.placement),
            lambda _name, width: Bottleneck(width, inner_width(width, self.part.reduction), self.part.activation),
        )
        return net


def inner_width(width: int, reduction: int) -> int:
    """Return the width of a bottleneck, at least 1."""
    return max(1, width // reduction)


def places(net: Any, placement: Placement) -> list[str]:
    """Return the names of the linear layers that an adapter goes behind.

    Raises
    ------
    InputError
        If `placement` wants attention and no output projection of a known name is there.
    """
    from ...oplist.probe import projection

    after = list(dict.fromkeys(site.module for site in dense_sites(net)))
    if placement == "pfeiffer":
        return after
    outputs = [n for n in linear_targets(net, "all-linear") if projection(n) == "o" and n not in after]
    if not outputs:
        raise InputError(
            f"module 'adapter' with placement 'houlsby' found no attention output projection in this "
            f"'{net.config.model_type}' model; use placement: pfeiffer"
        )
    return outputs + after


def insert(net: Any, names: list[str], make: Callable[[str, int], Any]) -> None:
    """Put what ``make(name, width)`` returns behind each named linear layer."""
    from ..layers.bottleneck import Adapted

    for name in names:
        linear = net.get_submodule(name)
        shape = weight_shape(linear)
        assert shape is not None
        net.set_submodule(name, Adapted(linear, make(name, shape[1]).to(linear.weight.device)))
