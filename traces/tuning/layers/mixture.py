"""Mixtures of adaptations: one expert is drawn in each training pass, their mean runs in evaluation."""

from __future__ import annotations

import torch

from .bottleneck import START, Bottleneck


class Experts(torch.nn.Module):
    """Linear layers of one shape, of which one runs: drawn while training, their mean otherwise.

    Parameters
    ----------
    k, n, count : int
        Inputs, outputs, experts.
    std : float
        Of the weights' normal distribution, cut at two of it; 0 starts at zero.
    bias : bool
        Whether the layers have one.
    """

    def __init__(self, k: int, n: int, count: int, std: float, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = k, n
        self.weight = torch.nn.Parameter(torch.zeros(count, n, k))
        if std:
            torch.nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)
        self.bias = torch.nn.Parameter(torch.zeros(count, n)) if bias else None

    def mean(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the experts' mean weight (n, k) and bias (n)."""
        return self.weight.mean(0), None if self.bias is None else self.bias.mean(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply one expert, or the mean, to a tensor (..., k)."""
        if not self.training:
            return torch.nn.functional.linear(x, *self.mean())
        chosen = int(torch.randint(len(self.weight), ()))
        bias = None if self.bias is None else self.bias[chosen]
        return torch.nn.functional.linear(x, self.weight[chosen], bias)


class MixedBottleneck(Bottleneck):
    """A bottleneck adapter whose two projections are experts, drawn each by itself.

    Parameters
    ----------
    width, inner, activation
        As for `Bottleneck`.
    count : int
        Experts.
    share : {"none", "down", "up"}
        Which projection all experts have in common.
    """

    def __init__(self, width: int, inner: int, activation: str, count: int, share: str) -> None:
        super().__init__(width, inner, activation)
        if share != "down":
            self.down = Experts(width, inner, count, START)  # type: ignore[assignment]
        if share != "up":
            self.up = Experts(inner, width, count, START)  # type: ignore[assignment]

    def merged(self) -> Bottleneck:
        """Return the bottleneck whose weights are the experts' means."""
        for name in ("down", "up"):
            experts = getattr(self, name)
            if isinstance(experts, Experts):
                weight, bias = experts.mean()
                linear = torch.nn.Linear(*weight.shape[::-1], device=weight.device)
                linear.weight.data, linear.bias.data = weight.detach(), bias.detach()  # type: ignore[union-attr]
                setattr(self, name, linear)
        return self


class MixedLoRA(torch.nn.Module):
    """A frozen linear layer plus a low-rank product whose two matrices are experts, drawn each by itself.

    Parameters
    ----------
    base_layer : torch.nn.Module
        The linear layer, with its weight (n, k), or (k, n) where `transposed`.
    shape : (int, int)
        k and n.
    r, count : int
        Rank; experts.
    scale : float
        Of the product.
    share : {"none", "down", "up"}
        Which matrix all experts have in common.
    transposed : bool
        As in GPT-2's layers.
    """

    def __init__(
        self,
        base_layer: torch.nn.Module,
        shape: tuple[int, int],
        r: int,
        count: int,
        scale: float,
        share: str,
        transposed: bool,
    ) -> None:
        super().__init__()
        k, n = shape
        self.base_layer, self.scale, self.transposed = base_layer, scale, transposed
        self.lora_A = Experts(k, r, 1 if share == "down" else count, k**-0.5, bias=False)
        self.lora_B = Experts(r, n, 1 if share == "up" else count, 0.0, bias=False)

    @property
    def weight(self) -> torch.Tensor:
        """The linear layer's weight: some models look at its type."""
        return self.base_layer.weight  # type: ignore[return-value]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to a tensor (..., k)."""
        out: torch.Tensor = self.base_layer(x) + self.scale * self.lora_B(self.lora_A(x))
        return out

    def merged(self) -> torch.nn.Module:
        """Return the linear layer with the product of the experts' means folded in."""
        delta = self.scale * (self.lora_B.mean()[0] @ self.lora_A.mean()[0]).detach()
        self.weight.data = self.weight.data + (delta.T if self.transposed else delta)
        return self.base_layer
