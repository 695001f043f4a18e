"""What a tuning costs while it is trained: a step's operations replayed like an inference's, and its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hwmodels
from hwmodels import Arch, EnergyTable

from ..results.result import Result
from .replay import DEFAULT_TABLE, Rows, add_run, arch
from .workload import Workload

if TYPE_CHECKING:
    from traces import Trace, Tuning
    from traces.training_step.step import TrainingStep

PASSES = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class TuningCost:
    """The cost of one training step.

    Parameters
    ----------
    step : TrainingStep
        Its operations, sites and shape.
    result : Result
        One run for each arch; a backward op is called after its forward op: ``up.grad_input``, ``up.grad_weight``.
    """

    step: TrainingStep
    result: Result

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of ``weights``, ``gradients``, ``optimizer``, ``activations``, and the ``peak`` of the whole step."""
        return self.step.memory

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of a step by pass."""
        totals = dict.fromkeys(PASSES, 0)
        for op in self.step.ops():
            totals[pass_of(op.op)] += op.macs
        return totals

    def rows(self) -> list[dict[str, Any]]:
        """One row for each arch: seconds and joules of a step, and the backward pass's share of both."""
        ops = self.result.ops
        found = []
        for name, own in ops.groupby("arch", sort=False):
            backward = own["op"].map(pass_of) != PASSES[0]
            seconds, picojoules = own["latency_s"].sum(), own["energy_pj"].sum()
            found.append(
                {
                    "arch": name,
                    "step_s": float(seconds),
                    "step_j": float(picojoules) * 1e-12,
                    "backward_time": float(own["latency_s"][backward].sum() / seconds) if seconds else 0.0,
                    "backward_energy": float(own["energy_pj"][backward].sum() / picojoules),
                    "tokens_per_s": self.step.n_tokens / float(seconds) if seconds else float("nan"),
                }
            )
        return found

    def __repr__(self) -> str:
        return f"TuningCost({self.step.name}: {self.step.batch} x {self.step.length} tokens, {self.macs} MACs)"


def pass_of(op: str) -> str:
    """Return which pass an op belongs to; gradients of activations count as ``grad_input`` whichever operand."""
    if ".grad_" not in op:
        return "forward"
    return "grad_weight" if op.endswith(".grad_weight") else "grad_input"


def tuning_cost(
    model: str = "minilm-l6",
    tuning: str | Path | Tuning = "lora",
    archs: Arch | str | Sequence[Arch | str] = ("h100_sxm",),
    *,
    batch: int = 32,
    length: int = 64,
    data: str | None = None,
    task: str | None = None,
    labels: int = 2,
    masks: Trace | str | None = None,
    weights: str = "recorded",
    table: str | EnergyTable = DEFAULT_TABLE,
    threads: int | None = None,
) -> TuningCost:
    """Replay one training step of a tuning on archs, and estimate its memory.

    Parameters
    ----------
    model, tuning, batch, length, data, task, labels
        As for `traces.tuning_step`; `tuning` may be a finished tuning's folder.
    archs : Arch, name, or sequence
        Where to train.
    masks : Trace or path, optional
        A trace recorded with padding's masks: its middle batch is the step, and the zeros it recorded count in the
        forward pass, in the weight gradient of ``down`` and, behind a ReLU, in the gradients around the activation.
        Everything else is dense.
    weights : str
        As for `simkit.replay`: designs that skip zero weights need ``"dense"`` where none were recorded.
    table : str or EnergyTable
        Prices.
    threads : int, optional
        All cores by default.

    Returns
    -------
    TuningCost

    Raises
    ------
    InputError
        If a name is not known, or the tuning does not fit the model.
    """
    import traces

    recorded = traces.open_trace(masks) if isinstance(masks, str) else masks
    step = traces.tuning_step(model, tuning, batch, length, data, task, labels, recorded)
    listed = [archs] if isinstance(archs, (str, Arch)) else list(archs)
    prices = hwmodels.load_table(table) if isinstance(table, str) else table
    work = Workload(cast("Trace", step), weights=weights)  # a step has of a trace all that is replayed
    rows = Rows()
    runs: dict[str, Any] = {}
    for one in listed:
        runs.update(add_run(rows, work, arch(one) if isinstance(one, str) else one, prices, threads))
    return TuningCost(step, Result(rows.frame(), {"runs": runs}))
