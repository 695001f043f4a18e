"""Activation functions with exact zeros, as modules."""

from __future__ import annotations

import torch


class ShiftedReLU(torch.nn.Module):
    """max(x - shift, 0)."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to a tensor of any shape."""
        return torch.relu(x - self.shift)


class SquaredReLU(torch.nn.Module):
    """max(x, 0)^2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to a tensor of any shape."""
        return torch.relu(x).square()


class Thresholded(torch.nn.Module):
    """Another activation function with results of magnitude up to a threshold set to zero."""

    def __init__(self, inner: torch.nn.Module, threshold: float) -> None:
        super().__init__()
        self.inner = inner
        self.threshold = threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to a tensor of any shape."""
        y = self.inner(x)
        return torch.where(y.abs() > self.threshold, y, torch.zeros_like(y))
