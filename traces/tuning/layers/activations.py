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
    """Another activation function with results of magnitude up to a threshold set to zero.

    Parameters
    ----------
    inner : torch.nn.Module
        The activation function.
    threshold : float
        The largest magnitude that is set to zero.
    share : float tensor (K,), optional
        What each neuron's magnitude is multiplied with before it is held against the threshold.
    """

    share: torch.Tensor | None

    def __init__(self, inner: torch.nn.Module, threshold: float, share: torch.Tensor | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.threshold = threshold
        self.register_buffer("share", share, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to a tensor of any shape."""
        y = self.inner(x)
        size = y.abs() if self.share is None else y.abs() * self.share
        return torch.where(size > self.threshold, y, torch.zeros_like(y))
