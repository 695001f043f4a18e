"""The two ends every method stands between: the task head alone, and every parameter."""

from __future__ import annotations

from typing import Any, Literal

from ..change import Change, Decided, Method, Part


class NoModule(Part):
    """No adapter: only the task head is trained."""

    type: Literal["none"] = "none"

    def change(self) -> Change:
        """Return a change that leaves the model as it is: heads are trainable already."""
        return _Head()


class FullTuning(Part):
    """Every parameter is trained."""

    type: Literal["full"] = "full"

    def change(self) -> Change:
        """Return the change that thaws everything."""
        return _Full()


class _Head(Change):
    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        return net


class _Full(Change):
    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        return net.requires_grad_(True)


METHODS = (
    Method(
        name="none",
        title="The task head alone on frozen features",
        equation="W_head trained; all else frozen",
        source="Kumar et al., Fine-Tuning can Distort Pretrained Features, arXiv 2202.10054",
        evidence="paper",
        notes="The lower end of every comparison.",
        module=NoModule,
    ),
    Method(
        name="full",
        title="Full fine-tuning",
        equation="all parameters trained",
        source="Devlin et al., BERT, arXiv 1810.04805",
        evidence="paper",
        notes="The upper end in trainable parameters; not always in accuracy.",
        module=FullTuning,
    ),
)
