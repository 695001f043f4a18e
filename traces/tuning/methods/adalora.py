"""AdaLoRA: low-rank adaptation with its ranks dealt out while training (Zhang et al., arXiv 2303.10512)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ...errors import InputError
from ..change import Change, Decided, Method, Part
from .lora import PeftChange, Targets, heads, linear_targets, peft_task

if TYPE_CHECKING:
    import torch

FEWEST_STEPS = 4
AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of peft's allocator: importance, its mean, its spread
KEPT = "kept."


class AdaLoRA(Part):
    """Low-rank adaptation by P diag(lambda) Q, whose least important singular values are set to zero.

    Parameters
    ----------
    r_start, r_end : int
        Mean rank of a matrix at first and at last.
    alpha : float
        The product is scaled by ``alpha / r_start``.
    dropout : float
        On the adapter's input.
    warmup, settle : float
        Shares of the steps before the first and after the last allocation.
    every : int
        Steps between two allocations.
    orthogonal : float
        Factor of the penalty on P and Q that are not orthogonal.
    targets : "all-linear" or names
        Last parts of module names, or whole names.
    """

    type: Literal["adalora"] = "adalora"
    r_start: int = Field(default=12, ge=2)
    r_end: int = Field(default=8, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    settle: float = Field(default=0.3, ge=0, lt=1)
    every: int = Field(default=10, ge=1)
    orthogonal: float = Field(default=0.1, ge=0)
    targets: Targets = "all-linear"

    @model_validator(mode="after")
    def _room(self) -> AdaLoRA:
        if self.r_end >= self.r_start:
            raise ValueError(f"r_end {self.r_end} must be below r_start {self.r_start}")
        if self.warmup + self.settle >= 1:
            raise ValueError(f"warmup {self.warmup} and settle {self.settle} leave no steps to allocate ranks in")
        return self

    def change(self) -> Change:
        """Return the wrapping."""
        return _AdaLoRA(self)


METHOD = Method(
    name="adalora",
    title="Low-rank adaptation whose ranks are dealt out by importance, through the peft library",
    equation=(
        "y = x W + (alpha / r_start) x (P diag(lambda) Q)^T;  importance of a triplet: smoothed |w dL/dw| times its "
        "smoothed spread, of lambda_i and averaged over P_i and Q_i; the budget falls from r_start to r_end as a cubic"
    ),
    source="Zhang et al., AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, arXiv 2303.10512",
    evidence="paper",
    notes=(
        "The orthogonality penalty is peft's: the mean Frobenius norm of P^T P - I and Q Q^T - I, not squared. "
        "Merged before recording by default, so it adds no operation at inference."
    ),
    module=AdaLoRA,
)


class _AdaLoRA(PeftChange):
    """Wraps every target, and deals the ranks."""

    def config(self, net: Any, task: str) -> Any:
        """Return the `peft` configuration; its schedule is set when the number of steps is known."""
        import peft

        part: AdaLoRA = self.part
        return peft.AdaLoraConfig(
            task_type=peft_task(net, task),
            init_r=part.r_start,
            target_r=part.r_end,
            lora_alpha=part.alpha,
            lora_dropout=part.dropout,
            deltaT=part.every,
            total_step=FEWEST_STEPS,
            target_modules=linear_targets(net, part.targets),
            modules_to_save=heads(net) or None,
        )

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Wrap; the task head stays trainable."""
        self.net = super().apply(net, task, decided)
        return self.net

    def penalty(self, net: Any, progress: float) -> torch.Tensor | None:
        """Return how far P and Q are from orthogonal, times its factor."""
        import torch as th

        if not self.part.orthogonal:
            return None
        gaps = []
        for name, p in net.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                product = p @ p.T if ".lora_A." in name else p.T @ p
                gaps.append(th.linalg.norm(product - th.eye(len(product), device=p.device)))
        return self.part.orthogonal * th.stack(gaps).mean()

    def after_step(self, net: Any, step: int, steps: int) -> None:
        """Weigh every triplet, and deal the ranks of this step.

        Raises
        ------
        InputError
            If there are too few steps for a schedule.
        """
        if steps < FEWEST_STEPS:
            raise InputError(
                f"module 'adalora' needs at least {FEWEST_STEPS} steps to deal its ranks, this training has {steps}; "
                "raise train.epochs or lower train.batch_size"
            )
        config = net.peft_config["default"]
        config.total_step = steps
        config.tinit, config.tfinal = int(self.part.warmup * steps), int(self.part.settle * steps)
        net.base_model.update_and_allocate(step + 1)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the importance of each entry, and which triplets are kept."""
        import torch as th

        allocator, pattern = self.net.base_model.rankallocator, self.net.peft_config["default"].rank_pattern
        kept = {f"{KEPT}{name}": th.tensor(mask) for name, mask in (pattern or {}).items()}
        return kept | {f"{kind}.{n}": t for kind in AVERAGES for n, t in getattr(allocator, kind).items()}

    def restore(self, state: Decided) -> None:
        """Take back what `state` returned."""
        pattern = {n.removeprefix(KEPT): t.tolist() for n, t in state.items() if n.startswith(KEPT)}
        self.net.peft_config["default"].rank_pattern = pattern or None
        device = self.net.device
        for kind in AVERAGES:
            own = {n.removeprefix(f"{kind}."): t.to(device) for n, t in state.items() if n.startswith(f"{kind}.")}
            setattr(self.net.base_model.rankallocator, kind, own)

    def facts(self, net: Any) -> dict[str, Any]:
        """Return each matrix's rank."""
        ranks = {
            name.split(".lora_E.")[0].removeprefix("base_model.model."): int((p != 0).sum())
            for name, p in net.named_parameters()
            if ".lora_E." in name
        }
        return {"ranks": ranks}
