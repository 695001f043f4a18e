"""DoRA: a weight's direction adapted by LoRA, its magnitude by a vector (Liu et al., arXiv 2402.09353)."""

from __future__ import annotations

from typing import Any, Literal

from ..change import Change, Method
from .lora import LoRA, PeftChange


class DoRA(LoRA):
    """Weight-decomposed low-rank adaptation, through the `peft` library; fields as for `LoRA`."""

    type: Literal["dora"] = "dora"  # type: ignore[assignment]

    def change(self) -> Change:
        """Return the wrapping."""
        return _DoRA(self)


METHOD = Method(
    name="dora",
    title="Weight-decomposed low-rank adaptation, through the peft library",
    equation="y = x W',  W' = m * (W + (alpha / r) A B) / ||W + (alpha / r) A B||_col;  m = ||W||_col at the start",
    source="Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, arXiv 2402.09353",
    evidence="paper",
    notes=(
        "Merged before recording by default, so it adds no operation at inference. Training forms W + A B anew in "
        "each pass to take its norms, which LoRA does not."
    ),
    module=DoRA,
)


class _DoRA(PeftChange):
    """Wraps every target."""

    def config(self, net: Any, task: str) -> Any:
        """Return the `peft` configuration."""
        config = super().config(net, task)
        config.use_dora = True
        return config
