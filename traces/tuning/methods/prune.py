"""Pruned weights: magnitude, WANDA, and N:M patterns, before tuning and kept through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ...errors import InputError
from ...models.sites import weight_shape
from ..change import Change, Decided, Method, Part, Sample
from .lora import Targets, linear_targets

if TYPE_CHECKING:
    import torch

METHOD = Method(
    name="prune",
    title="Weights of linear layers set to zero by magnitude or by WANDA's score, freely or N of every M",
    equation=(
        "magnitude: S = |W|;  wanda: S_ij = |W_ij| ||X_j||_2 over calibration tokens;  of each output's weights the "
        "lowest share of S becomes zero, or all but the N highest of every M in a row of inputs"
    ),
    source="Han et al., arXiv 1506.02626; Sun et al., Wanda, arXiv 2306.11695; Mishra et al., N:M, arXiv 2104.08378; "
    "Zimmer et al., masked adapters, arXiv 2312.15230",
    evidence="paper",
    notes=(
        "Comparison groups are single outputs, as Wanda has them, for magnitude too. A low-rank product is masked "
        "while it is trained (MaskLoRA of arXiv 2312.15230), so that folding it in and masking again loses nothing."
    ),
)
CALIBRATION = (8, 32)  # batches, and items in each


class Prune(Part):
    """Prune the linear layers before tuning; the zeros stay.

    Parameters
    ----------
    score : {"magnitude", "wanda"}
        ``|W|``, or ``|W| ||X||`` with each input's norm over a sample of the training data.
    sparsity : float
        Share of each output's weights that becomes zero.
    pattern : {"free", "1:4", "2:4", "4:8"}
        N:M keeps the N highest of every M consecutive inputs; `sparsity` is then 1 - N / M.
    targets : "all-linear" or names
        As for LoRA.
    """

    score: Literal["magnitude", "wanda"] = "wanda"
    sparsity: float = Field(default=0.5, gt=0, lt=1)
    pattern: Literal["free", "1:4", "2:4", "4:8"] = "free"
    targets: Targets = "all-linear"

    @model_validator(mode="after")
    def _pattern_says(self) -> Prune:
        """Refuse a share that the pattern contradicts."""
        if self.pattern != "free":
            kept, of = (int(part) for part in self.pattern.split(":"))
            if "sparsity" in self.model_fields_set and self.sparsity != 1 - kept / of:
                raise ValueError(f"pattern {self.pattern} has sparsity {1 - kept / of:g}; leave 'sparsity' out")
            object.__setattr__(self, "sparsity", 1 - kept / of)
        return self

    def change(self) -> PruneWeights:
        """Return the pruning."""
        return PruneWeights(self)


class PruneWeights(Change):
    """Sets weights to zero, and again after steps and merges that filled them; `guard` masks adapters meanwhile."""

    def __init__(self, part: Prune) -> None:
        self.part = part
        self.masks: dict[str, torch.Tensor] = {}
        self.guard = MaskAdapters(self)

    def decide(self, net: Any, sample: Sample) -> dict[str, torch.Tensor]:
        """Return each layer's mask, bits of ``(N, K)`` packed in bytes."""
        import numpy as np
        import torch as th

        names = self._fitting(net)
        norms = input_norms(net, names, sample) if self.part.score == "wanda" else {}
        decided = {}
        for name in names:
            score = rows_of(net.get_submodule(name)).abs()
            if name in norms:
                score = score * norms[name]
            kept = keep_mask(score, self.part)
            decided[name] = th.from_numpy(np.packbits(kept.numpy(), axis=1))
        return decided

    def _fitting(self, net: Any) -> list[str]:
        """Return the layers, or say which one the pattern does not fit."""
        names = linear_targets(net, self.part.targets)
        if self.part.pattern != "free":
            group = int(self.part.pattern.split(":")[1])
            odd = next((n for n in names if rows_of(net.get_submodule(n)).shape[1] % group), None)
            if odd is not None:
                width = rows_of(net.get_submodule(odd)).shape[1]
                raise InputError(
                    f"prune.pattern {self.part.pattern}: {odd} has {width} inputs, no multiple of {group}; leave it "
                    "out of prune.targets, or prune freely"
                )
        return names

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Set what was decided to zero."""
        import numpy as np
        import torch as th

        for name, packed in decided.items():
            width = rows_of(net.get_submodule(name)).shape[1]
            bits = np.unpackbits(packed.numpy(), axis=1, count=width)
            self.masks[name] = th.from_numpy(bits).bool()
        self._zero(net)
        return net

    def _zero(self, net: Any, trained_only: bool = False) -> None:
        import torch as th

        with th.no_grad():
            for name, weight in weights_of(net, self.masks):
                if weight.requires_grad or not trained_only:
                    weight.mul_(self.masks[name].to(weight.device))

    def after_step(self, net: Any, step: int, steps: int) -> None:
        """Zero again what an optimiser of the weights themselves moved."""
        self._zero(net, trained_only=True)

    def merge(self, net: Any) -> Any:
        """Zero again what a merged adapter filled."""
        self._zero(net)
        return net

    def facts(self, net: Any) -> dict[str, Any]:
        """Return the share of weights that is left in the pruned layers."""
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        return {"weight_density": kept / max(1, sum(mask.numel() for mask in self.masks.values()))}


class MaskAdapters(Change):
    """Takes out of each low-rank product, while it is trained, what the merge would zero: y -= x ((1 - M) s B A)^T."""

    def __init__(self, pruned: PruneWeights) -> None:
        self.pruned = pruned
        self._handles: list[Any] = []

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Hook the adapted layers that are pruned."""
        from ..layers.masked import MaskedProduct

        for name, module in modules_of(net, self.pruned.masks):
            if "default" in getattr(module, "lora_A", {}):
                self._handles.append(module.register_forward_hook(MaskedProduct(self.pruned.masks[name])))
        return net

    def merge(self, net: Any) -> Any:
        """Take the hooks out: the merged weights are masked themselves."""
        for handle in self._handles:
            handle.remove()
        return net


def modules_of(net: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield modules by the names they had before `peft` wrapped the model; what is gone is left out."""
    now = dict(net.named_modules())
    for name in names:
        found = next((now[p + name] for p in ("", "base_model.model.", "base_model.") if p + name in now), None)
        if found is not None:
            yield name, found


def weights_of(net: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the weights of linear layers as (N, K), by the names the layers had before `peft` wrapped the model."""
    for name, module in modules_of(net, names):
        if weight_shape(module) is not None:  # else its block was dropped
            yield name, rows_of(module)


def rows_of(module: Any) -> Any:
    """Return a linear layer's weight as (N, K), a view of it."""
    base = getattr(module, "base_layer", module)
    return base.weight if hasattr(base, "in_features") else base.weight.t()


def keep_mask(score: torch.Tensor, part: Prune) -> torch.Tensor:
    """Return which weights stay, bool (N, K).

    Parameters
    ----------
    score : float tensor (N, K)
        The higher, the more a weight matters.
    part : Prune
        Share or pattern.
    """
    import torch as th

    if part.pattern == "free":
        groups, kept = score, score.shape[1] - round(part.sparsity * score.shape[1])
    else:
        kept, of = (int(word) for word in part.pattern.split(":"))
        groups = score.reshape(len(score), -1, of)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = th.zeros_like(groups, dtype=th.bool)
    return mask.scatter_(-1, order[..., :kept], True).reshape(score.shape)


def input_norms(net: Any, names: list[str], sample: Sample) -> dict[str, torch.Tensor]:
    """Return the L2 norm of each input of each layer over the sample's real tokens, float32[K]."""
    import torch as th

    from ..activations import of_tokens

    sums: dict[str, torch.Tensor] = {}
    mask: list[torch.Tensor] = []

    def watch(name: str) -> Any:
        def hook(_module: Any, inputs: Any) -> None:
            x = inputs[0]
            fits = x.dim() == 3 and x.shape[:2] == mask[-1].shape
            rows = of_tokens(x, mask[-1]) if fits else x.reshape(-1, x.shape[-1])
            sums[name] = sums.get(name, 0.0) + rows.float().square().sum(0)

        return hook

    handles = [net.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    try:
        with th.no_grad():
            for batch in sample.batches(*CALIBRATION):
                mask.append(batch.real)
                net(**batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total.sqrt() for name, total in sums.items()}
