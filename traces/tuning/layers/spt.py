"""Single trained weights of a frozen tensor."""

from __future__ import annotations

import torch
from torch.nn.utils import parametrize


class SingleWeights(torch.nn.Module):
    """Parametrisation w + scale scatter(values): weights at fixed places are trained, all others are as they were.

    Parameters
    ----------
    index : int64 tensor (n,)
        Places in the flattened tensor.
    scale : float
        How far a weight moves for one unit of its trained value.
    """

    def __init__(self, index: torch.Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("index", index.clone())
        self.scale = scale
        self.values = torch.nn.Parameter(torch.zeros(len(index)))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight as the layer computes with it."""
        index: torch.Tensor = self.index  # type: ignore[assignment]
        return weight.flatten().index_add(0, index, self.values, alpha=self.scale).view_as(weight)


def train_singly(net: torch.nn.Module, name: str, index: torch.Tensor, scale: float = 1.0) -> None:
    """Train a parameter's weights at some places only; see `SingleWeights`."""
    module, _, tensor = name.rpartition(".")
    parametrize.register_parametrization(net.get_submodule(module), tensor, SingleWeights(index, scale))


def fold_single_weights(net: torch.nn.Module) -> None:
    """Add every trained correction to its weight and leave plain parameters."""
    for module in list(net.modules()):
        if parametrize.is_parametrized(module):
            for tensor in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
