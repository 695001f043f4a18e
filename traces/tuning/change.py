"""Interface of a tuning method: stated facts, choices, and the change to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

    from ..data.batches import Batch
    from ..models.sites import MLPSite

Decided = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Sample:
    """Training data for choices that a change takes before the training starts.

    Parameters
    ----------
    batches : callable
        ``batches(count, size)`` yields that many `traces.data.batches.Batch` of that many items, always the same ones.
    loss : callable
        ``loss(net, batch)`` is the task's loss, with a graph.
    task : str
        One of `traces.models.load.TASKS`.
    seed : int
        The tuning's.
    has_data : bool
        False where no data set was named: `batches` then refuses.
    """

    batches: Callable[[int, int], Iterator[Batch]]
    loss: Callable[[Any, Batch], torch.Tensor]
    task: str
    seed: int
    has_data: bool = True


class Change:
    """One change of a model, and what it does while the model is trained. A subclass overrides what it needs.

    The order is: `decide` once, on the model as the earlier changes left it; `apply` whenever the model is built, also
    to load a finished tuning; then, for each step, `penalty`, `after_backward` and `after_step`; `merge` for inference.

    Where a tuning starts from another one, `decide` sees what that one deploys if `on_start` is set, and else the
    untuned model.
    """

    on_start = False

    def decide(self, net: Any, sample: Sample) -> dict[str, torch.Tensor]:
        """Return what has to be chosen from weights or data before the change: it is kept with the result."""
        return {}

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Return the changed model; what it adds for training has ``requires_grad``, all else is frozen already.

        Raises
        ------
        InputError
            If the change does not fit the model: the message names the module and the remedy.
        """
        raise NotImplementedError

    def penalty(self, net: Any, progress: float) -> torch.Tensor | None:
        """Return what is added to the loss of this step, if anything; ``progress`` runs from 0 to 1."""
        return None

    def density_factor(self, net: Any, site: MLPSite) -> torch.Tensor | None:
        """Return what a density loss of this site is multiplied with, if anything: a gate on its block."""
        return None

    def after_backward(self, net: Any, step: int, steps: int) -> None:
        """Alter gradients before the optimiser's step."""

    def after_step(self, net: Any, step: int, steps: int) -> None:
        """Act after the optimiser's step."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint must hold beside weights and moments."""
        return {}

    def restore(self, state: Decided) -> None:
        """Take back what `state` returned."""

    def merge(self, net: Any) -> Any:
        """Return the model as it is deployed: folded into the base weights where that is possible."""
        return net

    def facts(self, net: Any) -> dict[str, Any]:
        """Return plain data for the measurements, such as the ranks that were chosen."""
        return {}

    def measured(self, net: Any) -> dict[str, Any]:
        """Return plain data counted while the deployed model ran on the held-out items: how often a gate was open."""
        return {}


class Part(BaseModel):
    """A part of a `Tuning`: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def change(self) -> Change:
        """Return the change that this part asks for."""
        raise NotImplementedError


@dataclass(frozen=True)
class Method:
    """What a tuning method states about itself.

    Parameters
    ----------
    name, title : str
        Its name and one line on it.
    equation : str
        What it computes.
    source : str
        Paper with DOI or arXiv number.
    evidence : {"paper", "code", "reconstructed"}
        Where the equation was read.
    notes : str
        What it does not claim.
    module : type of Part, optional
        What stands under ``module`` in a tuning of this method; its ``type`` is the key.
    """

    name: str
    title: str
    equation: str
    source: str
    evidence: Literal["paper", "code", "reconstructed"]
    notes: str = ""
    module: type[Part] | None = None
