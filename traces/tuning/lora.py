"""LoRA: a frozen linear layer plus a trained product of two thin matrices (Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

import warnings
from typing import Any

from ..errors import InputError
from ..sites import weight_shape
from .registry import Method
from .spec import LoRA

METHOD = Method(
    name="lora",
    title="Low-rank adaptation of frozen linear layers, through the peft library",
    equation="y = x W + (alpha / r) x A B;  A: (K, r) random, B: (r, N) zero at the start; W frozen",
    source="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685",
    evidence="paper",
    notes="Merged before recording by default, so it adds no operation at inference.",
)

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


def wrap(model: Any, module: LoRA, task: str) -> Any:
    """Wrap a model with LoRA through `peft`; the task head stays trainable.

    Raises
    ------
    InputError
        If a named target matches no linear layer of the model.
    """
    import peft

    heads = [name for name, _ in model.named_children() if name in HEADS]
    linear = {
        name
        for name, child in model.named_modules()
        if weight_shape(child) is not None and name.split(".")[0] not in heads and "pooler" not in name
    }
    output = model.get_output_embeddings()
    linear -= {name for name, child in model.named_modules() if child is output}
    if module.targets == "all-linear":
        targets = sorted(linear)
    else:
        targets = sorted(n for n in linear if n.split(".")[-1] in module.targets or n in module.targets)
        if not targets:
            known = ", ".join(sorted({n.split(".")[-1] for n in linear}))
            raise InputError(f"LoRA targets {list(module.targets)} match no linear layer; this model has: {known}")
    config = peft.LoraConfig(
        task_type=PEFT_TASKS[task],
        r=module.r,
        lora_alpha=module.alpha,
        lora_dropout=module.dropout,
        target_modules=targets,
        modules_to_save=heads or None,
    )
    with warnings.catch_warnings():
        # peft 0.21 asks for an attribute that transformers 5 has renamed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return peft.get_peft_model(model, config)
