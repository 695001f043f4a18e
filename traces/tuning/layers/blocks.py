"""Gates on MLP blocks, and what stands where a block was dropped."""

from __future__ import annotations

from typing import Any

import torch


class BlockGates(torch.nn.Module):
    """One scalar gate for each MLP block: g = sigmoid(start + rate * u), u = 0 at the start.

    In evaluation mode the gates of blocks that inference drops are exactly zero.

    Parameters
    ----------
    blocks : int
        How many.
    start : float
        The logits' first value.
    rate : float
        How many times as fast as other parameters the logits move under Adam, whose steps do not scale with gradients.
    threshold : float
        A gate below this closes in evaluation mode,
    drop : int, optional
        or the so many lowest ones do, whatever their values.
    """

    def __init__(self, blocks: int, start: float, rate: float, threshold: float, drop: int | None) -> None:
        super().__init__()
        self.start, self.rate, self.threshold, self.drop = start, rate, threshold, drop
        self.u = torch.nn.Parameter(torch.zeros(blocks))

    @property
    def soft(self) -> torch.Tensor:
        """The gates of training, float32[blocks]."""
        return torch.sigmoid(self.start + self.rate * self.u)

    def kept(self) -> torch.Tensor:
        """Return which blocks inference runs, bool[blocks]: the one with the highest gate always."""
        gates = self.soft.detach()
        order = torch.argsort(gates, stable=True)
        keep = gates >= self.threshold
        if self.drop is not None:
            keep = torch.ones_like(keep)
            keep[order[: self.drop]] = False
        keep[order[-1]] = True
        return keep

    def forward(self) -> torch.Tensor:
        """Return the gates in force, float32[blocks]."""
        return self.soft if self.training else self.soft * self.kept()


class Gated:
    """Forward hook that multiplies a down-projection's output, bias included, with its block's gate."""

    def __init__(self, gates: BlockGates, index: int) -> None:
        self.gates, self.index = gates, index

    def __call__(self, _module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """Return the block's share of the residual stream."""
        return output * self.gates()[self.index]


class Scaled:
    """Forward hook with a fixed factor, where it cannot be folded into a weight."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, _module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """Return the scaled output."""
        return output * self.factor


class NoFeatures(torch.nn.Module):
    """Stands for the first projections of a dropped block: no weight, and no value for what follows to work on."""

    weight = None  # T5 asks what dtype its projections have

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` with zero features, (..., 0)."""
        return x[..., :0]


class NoBlock(torch.nn.Module):
    """Stands for the down-projection of a dropped block: adds nothing to the residual stream."""

    dropped_block = True  # so that the other blocks keep their numbers
    weight = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a zero without dimensions, which any residual stream takes."""
        return x.new_zeros(())
