"""Gates on adapters: which tokens, or sequences, take one."""

from __future__ import annotations

from typing import Any, Literal

import torch

from .bottleneck import Bottleneck

STRETCH = (-0.1, 1.1)  # gamma and zeta of the hard-concrete distribution, and its temperature: arXiv 1712.01312
TEMPERATURE = 2 / 3
EPS = 1e-6
OPEN = 1.0  # the bias at the start: most tokens take the adapter, and the budget closes gates


class RealTokens:
    """Which tokens of the pass that is running are real; a hook on the model keeps it up to date."""

    def __init__(self, net: torch.nn.Module) -> None:
        self._masks: dict[str, torch.Tensor | None] = {}
        net.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _module: Any, _inputs: Any, named: dict[str, Any]) -> None:
        mask = named.get("attention_mask")
        self._masks = {"": mask, "encoder": mask, "decoder": named.get("decoder_attention_mask")}

    def of(self, h: torch.Tensor, stack: str) -> torch.Tensor:
        """Return the real tokens of `h` (B, S, d) or (B S, d), bool (B, S) or (B S,); all where nothing is known."""
        mask = self._masks.get(stack)
        if mask is None:
            return torch.ones(h.shape[:-1], dtype=torch.bool, device=h.device)
        tokens = h.shape[1] if h.dim() == 3 else len(h) // len(mask)
        return mask[:, mask.shape[1] - tokens :].bool().reshape(h.shape[:-1])  # a cache holds the first ones


class Gate(torch.nn.Linear):
    """1 where the adapter runs, 0 where it does not, from h (B, S, d) to (B, S, 1).

    While training it is differentiable: straight-through, the hard decision with the sigmoid's gradient, or a draw of
    the stretched hard-concrete distribution. In evaluation it is ``logit > 0``. What it looks at is divided by its root
    mean square, so that one learning rate moves the gates of any model.

    Parameters
    ----------
    width : int
        d.
    kind : {"straight-through", "hard-concrete"}
        What it is while training.
    pooled : bool
        Decide for a sequence, on the mean of its real tokens, not for each token.
    real : RealTokens
    stack : {"", "encoder", "decoder"}
        Where in the model it stands.
    """

    def __init__(
        self, width: int, kind: Literal["straight-through", "hard-concrete"], pooled: bool, real: RealTokens, stack: str
    ) -> None:
        super().__init__(width, 1)
        torch.nn.init.normal_(self.weight, std=width**-0.5)
        torch.nn.init.constant_(self.bias, OPEN)
        self.kind, self.pooled, self.real, self.stack = kind, pooled, real, stack
        self.open = self.seen = 0  # real tokens since the last change from training to evaluation
        self.mean: torch.Tensor | None = None  # of the last pass, with its graph

    def train(self, mode: bool = True) -> Gate:
        """Begin to count anew where evaluation begins."""
        if self.training and not mode:
            self.open = self.seen = 0
        super().train(mode)
        return self

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Decide for every token of h (B, S, d) or (B S, d)."""
        real = self.real.of(h, self.stack)
        feature = self._pool(h, real) if self.pooled else h
        logit = super().forward(torch.nn.functional.rms_norm(feature, feature.shape[-1:]))
        shape, hard = (*h.shape[:-1], 1), (logit > 0).to(h.dtype)
        if not self.training:
            chosen = hard.expand(shape)[..., 0][real]
            self.mean, self.open, self.seen = None, self.open + int(chosen.sum()), self.seen + chosen.numel()
            return hard.expand(shape)
        soft = torch.sigmoid(logit)
        through = (hard + soft - soft.detach()).expand(shape)
        self.mean = through[..., 0][real].mean()  # of what evaluation would decide, whatever is drawn here
        return through if self.kind == "straight-through" else self._drawn(logit).expand(shape)

    def _pool(self, h: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        weight = real[..., None].to(h.dtype)
        return (h * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)

    def _drawn(self, logit: torch.Tensor) -> torch.Tensor:
        u = torch.rand_like(logit).clamp(EPS, 1 - EPS)
        low, high = STRETCH
        drawn = torch.sigmoid((torch.logit(u) + logit) / TEMPERATURE) * (high - low) + low
        return drawn.clamp(0, 1)


class GatedBottleneck(Bottleneck):
    """h + g(h) (f(h D + b_D) U + b_U), with the adapter run on the open tokens alone in evaluation.

    Parameters
    ----------
    width, inner, activation
        As for `Bottleneck`.
    gate : Gate
        g.
    """

    def __init__(self, width: int, inner: int, activation: str, gate: Gate) -> None:
        super().__init__(width, inner, activation)
        self.gate = gate
        self.everything = False  # run every token, whatever the gate says: to list the ops of any batch

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Apply to h (B, S, d) or (B S, d); where a gate is closed, the bits of h are returned as they are."""
        gate: torch.Tensor = self.gate(h)
        if self.training:
            return h + gate * self.delta(h)
        if self.everything:
            return torch.where(gate != 0, h + self.delta(h), h)
        chosen = gate[..., 0] != 0
        rows = h[chosen]
        if not len(rows):
            return h
        out = h.clone()
        out[chosen] = rows + self.delta(rows)
        return out
