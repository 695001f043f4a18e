"""LoRA: a frozen linear layer plus a trained product of two thin matrices (Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from ...errors import InputError, library_errors
from ...models.load import modality
from ...models.sites import weight_shape
from ..change import Change, Decided, Method, Part

PEFT_TASKS = {
    "classification": "SEQ_CLS",
    "regression": "SEQ_CLS",
    "causal-lm": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "image-classification": None,
    "features": "FEATURE_EXTRACTION",
}
# heads that a checkpoint lacks, so they are trained whole beside the adapters
HEADS = ("classifier", "score", "pre_classifier")
Targets = Literal["all-linear"] | tuple[str, ...]


class LoRA(Part):
    """Low-rank adaptation of linear layers, through the `peft` library (Hu et al., arXiv 2106.09685).

    Parameters
    ----------
    r : int
        Rank.
    alpha : float
        The product is scaled by ``alpha / r``.
    dropout : float
        On the adapter's input.
    targets : "all-linear" or names
        Last parts of module names, or whole names.
    bias : {"adapted", "all"}, optional
        Train the biases of the adapted layers, or every bias, too. A ReLU's threshold is the bias before it: with a
        density loss they are the most direct parameters there are.
    """

    type: Literal["lora"] = "lora"
    r: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Targets = "all-linear"
    bias: Literal["adapted", "all"] | None = None

    def change(self) -> Change:
        """Return the wrapping."""
        return PeftChange(self)


METHOD = Method(
    name="lora",
    title="Low-rank adaptation of frozen linear layers, through the peft library",
    equation="y = x W + (alpha / r) x A B;  A: (K, r) random, B: (r, N) zero at the start; W frozen",
    source="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685",
    evidence="paper",
    notes="Merged before recording by default, so it adds no operation at inference.",
    module=LoRA,
)


class PeftChange(Change):
    """Wraps a model by a configuration of the `peft` library; subclasses say which."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def config(self, net: Any, task: str) -> Any:
        """Return the `peft` configuration."""
        import peft

        return peft.LoraConfig(
            task_type=peft_task(net, task),
            r=self.part.r,
            lora_alpha=self.part.alpha,
            lora_dropout=self.part.dropout,
            bias={None: "none", "adapted": "lora_only", "all": "all"}[self.part.bias],
            target_modules=linear_targets(net, self.part.targets),
            modules_to_save=heads(net) or None,
        )

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Wrap; the task head stays trainable."""
        import peft

        config = self.config(net, task)
        family, module = net.config.model_type, getattr(self.part, "type", "lora")
        what = f"module '{module}' of the peft library does not fit this '{family}' model"
        with warnings.catch_warnings(), library_errors(what, "choose other targets, or another module"):
            # peft 0.21 asks for an attribute that transformers 5 has renamed
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            # GPT-2's transposed layers: peft sets the field itself, layer by layer
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
            return peft.get_peft_model(net, config)

    def merge(self, net: Any) -> Any:
        """Fold the adapters into the weights."""
        return net.merge_and_unload(safe_merge=True)


def peft_task(net: Any, task: str) -> str | None:
    """Return peft's name for a task; None for speech models: peft passes their decoder its ids twice otherwise."""
    return None if modality(net.config) == "audio" else PEFT_TASKS[task]


def heads(net: Any) -> list[str]:
    """Return the names of a model's task heads."""
    return [name for name, _ in net.named_children() if name in HEADS]


def linear_targets(net: Any, targets: Targets | Sequence[str]) -> list[str]:
    """Return the full names of the linear layers a tuning may adapt: not heads, poolers or output embeddings.

    Raises
    ------
    InputError
        If a named target matches no linear layer of the model.
    """
    head = heads(net)
    output = net.get_output_embeddings() if hasattr(net, "get_output_embeddings") else None
    linear = {
        name
        for name, child in net.named_modules()
        if weight_shape(child) is not None
        and child is not output
        and name.split(".")[0] not in head
        and "pooler" not in name
    }
    if targets == "all-linear":
        return sorted(linear)
    found = sorted(n for n in linear if n.split(".")[-1] in targets or n in targets)
    if not found:
        known = ", ".join(sorted({n.split(".")[-1] for n in linear}))
        raise InputError(f"targets {list(targets)} match no linear layer; this model has: {known}")
    return found
