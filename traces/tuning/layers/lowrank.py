"""A trained product of two thin matrices beside or behind a linear layer."""

from __future__ import annotations

import torch


class LowRank(torch.nn.Module):
    """(alpha / r) B A x: the low-rank pair of LoRA, zero at the start (arXiv 2106.09685).

    Parameters
    ----------
    inputs, outputs, r : int
        K, N and the rank.
    alpha : float
        The product is scaled by ``alpha / r``.
    """

    def __init__(self, inputs: int, outputs: int, r: int, alpha: float) -> None:
        super().__init__()
        self.lora_A = torch.nn.Linear(inputs, r, bias=False)
        self.lora_B = torch.nn.Linear(r, outputs, bias=False)
        torch.nn.init.zeros_(self.lora_B.weight)
        self.scale = alpha / r

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., K) to (..., N)."""
        y: torch.Tensor = self.lora_B(self.lora_A(x)) * self.scale
        return y

    def delta(self) -> torch.Tensor:
        """Return what is added to the weight, (N, K)."""
        product: torch.Tensor = self.lora_B.weight @ self.lora_A.weight
        return product * self.scale


def matrix(module: torch.nn.Module) -> torch.Tensor:
    """Return a linear module's weight as (outputs, inputs), a view: transformers' Conv1D keeps it transposed."""
    weight: torch.Tensor = module.weight.detach()  # type: ignore[operator,assignment]
    return as_kept(module, weight)


def as_kept(module: torch.nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """Turn an (outputs, inputs) matrix into the form in which a module keeps it, or back."""
    return weight.T if type(module).__name__.endswith("Conv1D") else weight


class Wrapped(torch.nn.Module):
    """Stands at a linear layer's name; `base_layer` is the layer itself, as in `peft`'s wrappers."""

    def __init__(self, base_layer: torch.nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    @property
    def weight(self) -> torch.Tensor:
        """The base layer's weight: some models ask for its dtype."""
        weight: torch.Tensor = self.base_layer.weight  # type: ignore[assignment]
        return weight

    def unwrap(self) -> torch.nn.Module:
        """Return what stands at this name in the deployed model."""
        raise NotImplementedError


class LowRankLinear(Wrapped):
    """A linear layer with a low-rank pair beside it.

    Parameters
    ----------
    base_layer : torch.nn.Module
        The linear layer.
    low_rank : LowRank
        Takes what the linear layer takes.
    """

    def __init__(self, base_layer: torch.nn.Module, low_rank: LowRank) -> None:
        super().__init__(base_layer)
        self.low_rank = low_rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to (..., inputs)."""
        y: torch.Tensor = self.base_layer(x) + self.low_rank(x)
        return y

    def unwrap(self) -> torch.nn.Module:
        """Return the base layer with the pair folded into its weight."""
        matrix(self.base_layer).add_(self.low_rank.delta().detach())
        return self.base_layer


def unwrap(net: torch.nn.Module) -> torch.nn.Module:
    """Put every wrapper's deployed form in its place."""
    for name, module in list(net.named_modules()):
        if isinstance(module, Wrapped):
            net.set_submodule(name, module.unwrap())
    return net
