"""Blocks that run for some tokens only, beside an adapter that all tokens take."""

from __future__ import annotations

import math
from typing import Any

import torch

from .bottleneck import Bottleneck
from .gate import RealTokens

OUT = -1e9  # the score of padding: never chosen
FALLING = 0.7  # share of the iterations in which eps falls


def softness(start: float, end: float, progress: float) -> float:
    """Return eps between its first and its last value, geometrically."""
    return start * math.exp(progress * math.log(end / start))


def soft_top_k(scores: torch.Tensor, k: torch.Tensor, eps: float, iterations: int) -> torch.Tensor:
    """Return weights in [0, 1] that sum to k: argmax of s . lambda + eps H(lambda) (arXiv 2304.04947).

    ::

        a <- eps (ln k - logsumexp((s + b) / eps)),  b <- min(-s - a, 0),  lambda = exp((s + a + b) / eps)

    Parameters
    ----------
    scores : float tensor (B, S)
        ``OUT`` at padding.
    k : float tensor (B,)
        Weights' sums, above zero and at most the tokens that are not padding.
    eps : float
        Softness: towards 0 the weights become those of the k highest scores.
    iterations : int
        Of the fixed point, from b = 0. Each moves b by some eps only, so the first ones are taken with a larger eps,
        falling from 1 (epsilon scaling, arXiv 1610.06519).
    """
    b = torch.zeros_like(scores)
    a = torch.zeros_like(scores[:, :1])
    first = max(1.0, eps)
    falling = max(1.0, FALLING * (iterations - 1))
    for iteration in range(iterations):
        now = softness(first, eps, min(1.0, iteration / falling))
        a = now * (k.log()[:, None] - torch.logsumexp((scores + b) / now, dim=1, keepdim=True))
        b = -torch.relu(scores + a)
    return ((scores + a + b) / eps).exp()


def hard_top_k(scores: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return the k highest scores of each row, bool (B, S); of equal ones the first."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    )
    return rank < k[:, None]


class RoutedBottleneck(Bottleneck):
    """The adapter of all tokens, and ``gate``, the router that scores them: (B, S, width) to (B, S, 1)."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__(width, inner, activation)
        self.gate = torch.nn.Linear(width, 1, bias=False)
        torch.nn.init.normal_(self.gate.weight, std=width**-0.5)


class Conditional(torch.nn.Module):
    """Hooks that let a block between its first projections and its down-projection run for chosen tokens only.

    In training every token runs, and its result is weighted by the soft choice. In evaluation rows of tokens that are
    not chosen never enter the block: its GEMMs have as many rows as tokens were chosen.

    Parameters
    ----------
    width, inner : int
        Of the residual stream, and of the adapter.
    activation : str
        The adapter's.
    capacity : float
        Share of a sequence's real tokens that take the block, rounded up.
    eps : float
        Softness of the choice in training.
    iterations : int
        Of its fixed point.
    real : RealTokens
        Knows the padding.
    stack : str
        Where in an encoder-decoder the block stands.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        activation: str,
        capacity: float,
        eps: float,
        iterations: int,
        real: RealTokens,
        stack: str,
    ) -> None:
        super().__init__()
        self.adapter = RoutedBottleneck(width, inner, activation)
        self.capacity, self.eps, self.iterations = capacity, eps, iterations
        self.real, self.stack = real, stack
        self.everything = False  # all tokens take the block: for listing what it executes
        self.open = self.seen = 0  # real tokens since the last change from training to evaluation
        self.rows: torch.Tensor = torch.zeros(0, dtype=torch.bool)  # chosen, bool (B, S)
        self._x: torch.Tensor | None = None
        self._weights: torch.Tensor | None = None

    def train(self, mode: bool = True) -> Conditional:
        """Begin to count anew where evaluation begins."""
        if self.training and not mode:
            self.open = self.seen = 0
        super().train(mode)
        return self

    def enter(self, _module: Any, inputs: Any) -> Any:
        """Before a first projection: choose once, and hand on the rows that were chosen."""
        x = inputs[0]
        if x is not self._x:
            self._x = x
            self._choose(x)
        return None if self.training else (x[self.rows], *inputs[1:])

    def _choose(self, x: torch.Tensor) -> None:
        real = self.real.of(x, self.stack)
        counts = real.sum(1)
        k = (counts * self.capacity - 1e-6).ceil().clamp(min=1)
        scores = self.adapter.gate(torch.nn.functional.rms_norm(x, x.shape[-1:]))[..., 0].masked_fill(~real, OUT)
        if self.training:
            self._weights = soft_top_k(scores, k, self.eps, self.iterations)[..., None]
            return
        self.rows = torch.ones_like(real) if self.everything else hard_top_k(scores, k)
        self.open += int(self.rows.sum())
        self.seen += int(counts.sum())

    def leave(self, _module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """After the down-projection: put rows back, zero elsewhere, and add the adapter's result."""
        x = self._x
        assert x is not None
        self._x = None
        if self.training:
            assert self._weights is not None
            return output * self._weights + self.adapter.delta(x)
        whole = output.new_zeros((*self.rows.shape, output.shape[-1]))
        whole[self.rows] = output
        return whole + self.adapter.delta(x)
