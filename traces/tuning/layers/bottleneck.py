"""Bottleneck adapters, and the wrapper that puts one behind a linear layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "relu": torch.nn.ReLU,
    "gelu": torch.nn.GELU,
    "silu": torch.nn.SiLU,
}
START = 1e-2  # of the weights' normal distribution, cut at two of it: close to the identity (Houlsby et al.)


class Bottleneck(torch.nn.Module):
    """h + f(h D + b_D) U + b_U.

    Parameters
    ----------
    width, inner : int
        Of h, and of the bottleneck.
    activation : {"relu", "gelu", "silu"}
        f.
    """

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.down = torch.nn.Linear(width, inner)
        self.act = ACTIVATIONS[activation]()
        self.up = torch.nn.Linear(inner, width)
        for linear in (self.down, self.up):
            torch.nn.init.trunc_normal_(linear.weight, std=START, a=-2 * START, b=2 * START)
            torch.nn.init.zeros_(linear.bias)

    def delta(self, h: torch.Tensor) -> torch.Tensor:
        """Return what is added to h, of any shape (..., width)."""
        out: torch.Tensor = self.up(self.act(self.down(h)))
        return out

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Apply to a tensor (..., width)."""
        return h + self.delta(h)


class Adapted(torch.nn.Module):
    """A linear layer with an adapter behind it, at the linear layer's own place in the model.

    Parameters
    ----------
    base_layer : torch.nn.Module
        The linear layer.
    adapter : torch.nn.Module
        Takes what the linear layer returns.
    """

    def __init__(self, base_layer: torch.nn.Module, adapter: torch.nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.adapter = adapter

    @property
    def weight(self) -> Any:
        """The linear layer's weight: some models look at its type."""
        return self.base_layer.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to a tensor (..., inputs of the linear layer)."""
        out: torch.Tensor = self.adapter(self.base_layer(x))
        return out
