"""Cost of tuning: a training step's operations replayed like an inference's, and its peak memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hwmodels import Arch, EnergyTable

from ..results.result import Result
from .inputs import PathLike, as_archs, as_table, as_trace
from .replay import DEFAULT_TABLE, Rows, add_run
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

    Examples
    --------
    >>> cost = sk.tuning_cost("minilm-l6", "lora", "h100_sxm")  # doctest: +SKIP
    >>> cost.memory["peak"]  # doctest: +SKIP
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
    archs: Arch | PathLike | Iterable[Arch | PathLike] = ("h100_sxm",),
    *,
    batch: int = 32,
    length: int = 64,
    data: str | None = None,
    task: str | None = None,
    labels: int = 2,
    masks: Trace | PathLike | None = None,
    weights: str = "recorded",
    table: str | EnergyTable = DEFAULT_TABLE,
    threads: int | None = None,
) -> TuningCost:
    """Replay one training step of a tuning on archs, and estimate its memory.

    Parameters
    ----------
    model : str
        Packaged, hub or local name.
    tuning : str, Path or Tuning
        A ready-made tuning's name, a YAML file, the object, or the folder of a finished tuning.
    archs : name, path, Arch, or iterable of them
        Archs to train on.
    batch, length : int
        Sequences, and tokens of each (padding included).
    data : str, optional
        Training data, for tunings that choose ranks, layers or masks on it.
    task : str, optional
        As for `traces.tune`; the model's own by default.
    labels : int
        Classes, where no data says how many.
    masks : path or Trace, optional
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
        Operations of the step, bytes held in memory, and a result with one run for each arch.

    Raises
    ------
    InputError
        If a name is not known, or the tuning does not fit the model.

    Examples
    --------
    >>> cost = sk.tuning_cost("minilm-l6", "lora", ["h100_sxm", "systolic_32x32"], batch=16)  # doctest: +SKIP
    >>> cost.result.summary()[["arch", "latency_s", "energy_pj"]]  # doctest: +SKIP
    """
    import traces

    recorded = None if masks is None else as_trace(masks)
    step = traces.tuning_step(model, tuning, batch, length, data, task, labels, recorded)
    listed, prices = as_archs(archs), as_table(table)
    work = Workload(cast("Trace", step), weights=weights)  # a step has of a trace all that is replayed
    rows = Rows()
    runs: dict[str, Any] = {}
    for one in listed:
        runs.update(add_run(rows, work, one, prices, threads))
    return TuningCost(step, Result(rows.frame(), {"runs": runs}))
