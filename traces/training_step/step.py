"""One training step of a tuning, in the form in which a trace is replayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.batches import Batch
from ..errors import InputError
from ..models.prompts import virtual_tokens
from ..oplist.ops import OpSpec, expand
from ..storage.bits import Words, pack, unpack
from ..storage.masks import Site, StoredMask
from .ops import PROBES, StepOps, example, loss_of, masked, single_weights, step_ops

if TYPE_CHECKING:
    from ..storage.trace import Trace
    from ..tuning.change import Sample
    from ..tuning.spec import Tuning


class HeldMask:
    """A mask in memory.

    Parameters
    ----------
    bits : bool[M, K]
        The mask.
    """

    def __init__(self, bits: NDArray[np.bool_]) -> None:
        self._words: Words = pack(np.ascontiguousarray(bits))
        self.shape = bits.shape

    def blocks(self, rows: int = 4096) -> Any:
        """Yield consecutive ``uint64[rows, words]``."""
        for first in range(0, len(self._words), rows):
            yield self._words[first : first + rows]

    def popcount(self) -> int:
        """Count the non-zero elements."""
        return int(np.bitwise_count(self._words).sum())


@dataclass(frozen=True)
class StepSite:
    """A recorded site in one of its roles in a step.

    Parameters
    ----------
    site : Site
        What was recorded.
    selected : bool[rows]
        Rows of the step's tokens.
    role : {"input", "transposed", "output"}
        Read by the forward GEMM; read by its weight's gradient, whose reduction is over tokens; or saying which
        entries of its input's gradient are needed.
    """

    site: Site
    selected: NDArray[np.bool_]
    role: Literal["input", "transposed", "output"] = "input"

    @property
    def op(self) -> str:
        """The forward op that reads the mask, whose recorded weights go with it."""
        return self.site.op

    def mask(self, phase: str | None = None) -> StoredMask | HeldMask:
        """Return the mask of the step's tokens; a step has no phases."""
        trace = self.site.trace
        mask = StoredMask(trace, f"sites/{self.site.name}/mask", trace.rows, self.site.k, self.selected)
        return HeldMask(unpack(mask.words(), mask.shape[1]).T) if self.role == "transposed" else mask

    def weight_mask(self) -> StoredMask | HeldMask | None:
        """Return the recorded mask of the weight: W forward, W^T for the gradient of its input."""
        recorded = self.site.weight_mask() if self.role != "transposed" else None
        if recorded is None or self.role == "input":
            return recorded
        return HeldMask(unpack(recorded.words(), recorded.shape[1]).T)

    def key(self) -> bytes:
        """Return bytes that tell the mask from another."""
        return self.site.trace.hash.encode() + np.packbits(self.selected).tobytes()


class SingleSite:
    """Where single weights of a layer are trained: the only entries of its weight's gradient that are needed.

    Parameters
    ----------
    chosen : bool[N, K]
        By output, as the weight is stored.
    """

    def __init__(self, chosen: NDArray[np.bool_]) -> None:
        self._chosen = chosen

    op = ""

    def mask(self, phase: str | None = None) -> HeldMask:
        """Return the needed entries of dW (K, N)."""
        return HeldMask(self._chosen.T)

    def weight_mask(self) -> None:
        """Return nothing: the op has no weight."""

    def key(self) -> bytes:
        """Return bytes that tell the mask from another."""
        return np.packbits(self._chosen).tobytes()


@dataclass
class TrainingStep:
    """One step of a tuning, in the form in which a trace is replayed.

    Parameters
    ----------
    name : str
        Shown in results.
    steps : StepOps
        What it executes.
    batch, length : int
        Sequences, and tokens of each.
    facts : dict
        Model and tuning.
    sites : mapping
        Recorded masks, where there are any.
    memory : dict
        Estimated bytes, see `traces.training_step.memory`.
    """

    name: str
    steps: StepOps
    batch: int
    length: int
    facts: dict[str, Any]
    sites: Mapping[str, StepSite | SingleSite] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Tokens of the step, padding included."""
        return self.batch * self.length

    @property
    def attrs(self) -> dict[str, Any]:
        """Plain data for a result."""
        return self.facts | {"step": {"batch": self.batch, "length": self.length}, "memory": self.memory}

    @property
    def hash(self) -> str:
        """SHA-256 over the ops and the masks' trace."""
        digest = hashlib.sha256(json.dumps([asdict(op) for op in self.ops()], sort_keys=True).encode())
        for site in self.sites.values():
            digest.update(site.key())
        return digest.hexdigest()

    def ops(self, real_only: bool = True, phase: str | None = None) -> list[OpSpec]:
        """Return every operation of the step; a step has no padding to leave out and no phases."""
        return [self._linked(op) for op in self.steps.at(self.batch, self.length)]

    def _linked(self, op: OpSpec) -> OpSpec:
        held = {name: getattr(op, name) for name in ("input_site", "output_site") if getattr(op, name) in self.sites}
        return replace(op, **({"input_site": None, "output_site": None} | held))

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of the forward and of the backward pass."""
        forward = sum(op.macs for op in expand(self.steps.forward, [(self.batch, self.length)]))
        return {"forward": forward, "backward": sum(op.macs for op in self.ops()) - forward}


def recorded_sites(trace: Trace) -> tuple[dict[str, StepSite], int, int]:
    """Return the masks of a trace's middle batch (by length), and its sequences and tokens, padding included.

    Raises
    ------
    InputError
        If the trace holds decoded tokens, which no training step has.
    """
    tokens = trace.tokens
    if (tokens["phase"] == "decode").any():
        raise InputError(f"trace '{trace.name}' holds decoded tokens; record without new_tokens for a training step")
    batches = tokens.groupby("batch", sort=True).size().index.to_numpy()
    selected = (tokens["batch"] == batches[len(batches) // 2]).to_numpy()
    sequences = int(tokens["sequence"][selected].nunique())
    sites = {}
    for site in trace.sites.values():
        sites[site.name] = StepSite(site, selected)
        sites[f"{site.name}^T"] = StepSite(site, selected, "transposed")
        sites[f"{site.name}^out"] = StepSite(site, selected, "output")
    return sites, sequences, int(selected.sum()) // sequences


def tuning_step(
    model: str = "minilm-l6",
    tuning: str | Path | Tuning = "lora",
    batch: int = 32,
    length: int = 64,
    data: str | None = None,
    task: str | None = None,
    labels: int = 2,
    masks: Trace | None = None,
) -> TrainingStep:
    """Return what one training step of a tuning executes and holds in memory.

    Parameters
    ----------
    model : str
        Packaged, hub or local name.
    tuning : str, Path or Tuning
        A ready-made tuning's name, a YAML file, the object, or the folder of a finished tuning.
    batch, length : int
        Sequences, and tokens of each (padding included; images and virtual tokens have their own).
    data : str, optional
        Training data, for tunings that choose ranks, layers or masks on it.
    task : str, optional
        One of `traces.models.load.TASKS`; the model's own by default.
    labels : int
        Classes, where no data says how many.
    masks : Trace, optional
        Recorded masks of the MLP's activations; the step is then the trace's middle batch.

    Returns
    -------
    TrainingStep
        Operations of the forward and the backward pass, and bytes held in memory.

    Raises
    ------
    InputError
        If a name is not known, the tuning does not fit the model or needs data to choose on, or nothing is trained.

    Examples
    --------
    >>> step = traces.tuning_step("minilm-l6", "lora", batch=16, length=64)  # doctest: +SKIP
    >>> step.memory["peak"]  # doctest: +SKIP
    """
    from ..models.load import default_task
    from ..tuning.result import MEASUREMENTS, build_model, open_result
    from .memory import step_memory

    decided, sites_by_hand = None, None
    if isinstance(tuning, (str, Path)) and (Path(tuning) / MEASUREMENTS).is_file():
        done = open_result(tuning)
        plan, facts = done.tuning, done.measurements
        model, wanted, labels = facts["model"], facts["task"], facts["labels"]
        decided = _decided(done.path)
        sites_by_hand = facts.get("sites")
    else:
        from ..tuning.registry import load_tuning

        plan, wanted = load_tuning(tuning), task or default_task(model)
    sample, labels = _sample(model, wanted, plan, data, labels)
    net = build_model(model, wanted, labels, plan, decided, sample, sites=sites_by_hand).net.train()
    if not any(p.requires_grad for p in net.parameters()):
        raise InputError(f"tuning '{plan.name}' leaves nothing to train in this model; choose a module")
    sites: dict[str, StepSite | SingleSite] = {
        f"single:{name}": SingleSite(chosen.numpy()) for name, chosen in single_weights(net).items()
    }
    if masks is not None:
        recorded, batch, length = recorded_sites(masks)
        sites |= recorded
    shapes = [(b, virtual_tokens(net) + s) for b, s in PROBES]

    def loss(b: int, s: int) -> torch.Tensor:
        return loss_of(net, example(net, wanted, b, s), wanted)

    steps = masked(step_ops(net, [partial(loss, *shape) for shape in shapes], shapes), net)
    tokens = length + (virtual_tokens(net) if masks is None else 0)
    memory = step_memory(net, loss, shapes, batch, tokens, plan.train.clip)
    counted = sum(p.numel() for p in net.parameters() if p.requires_grad)
    facts = {
        "model": {"name": model, "family": net.config.model_type},
        "tuning": {"name": plan.name, "hash": plan.hash},
        "trainable_parameters": counted,
        "task": wanted,
        "synthetic": False,
    }
    return TrainingStep(f"{plan.name}-step", steps, batch, tokens, facts, sites, memory)


def _decided(folder: Path) -> dict[str, Any]:
    """Read what a finished tuning chose."""
    from ..tuning.result import DECIDED, read_tensors

    return (read_tensors(folder / DECIDED) or {}) if (folder / DECIDED).is_file() else {}


def _sample(model: str, task: str, plan: Tuning, data: str | None, labels: int) -> tuple[Sample, int]:
    """Return what a tuning's choices are made on, and the number of classes."""
    from ..data.inputs import prepare
    from ..data.load import load_data
    from ..tuning.change import Sample

    def refuse(count: int, size: int) -> Iterator[Batch]:
        raise InputError(f"tuning '{plan.name}' makes choices on training data; name it (data=..., --data)")

    if data is None:
        return Sample(refuse, lambda net, batch: loss_of(net, batch, task), task, plan.seed, has_data=False), labels
    content = load_data(data)
    inputs = prepare(model, task, content.train.head(plan.train.max_samples), plan.train.max_length)

    def batches(count: int, size: int) -> Iterator[Batch]:
        for first in range(0, min(count * size, len(inputs)), size):
            yield inputs.batch(range(first, min(first + size, len(inputs))))

    return Sample(batches, lambda net, b: loss_of(net, b, task), task, plan.seed), len(content.classes) or labels
