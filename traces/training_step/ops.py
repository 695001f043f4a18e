"""Operations of one training step: forward and backward GEMMs as ops, like a trace's.

A forward pass is watched with gradients on: which operand of each GEMM needs a gradient is what autograd itself decides
the backward pass by, and a backward pass then says which of them the loss reaches. So frozen layers cut the list, and
adapters, prompts and masks need no rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.batches import Batch
from ..errors import InputError
from ..models.experts import model_sites
from ..models.load import modality
from ..models.prompts import virtual_tokens
from ..models.sites import MLPSite
from ..oplist.ops import ONE, OpSpec, Template, expand
from ..oplist.probe import _Event, _Watch, probe_ops

if TYPE_CHECKING:
    pass

PROBES = ((2, 7), (3, 11))  # four different primes, as when a trace is recorded
RELU_LIKE = ("ReLU", "ShiftedReLU", "SquaredReLU")  # their derivative is zero exactly where their value is
GRADIENTS = {
    "scores": ("scores.grad_q", "scores.grad_k"),
    "values": ("values.grad_scores", "values.grad_v"),
}


class _StepWatch(_Watch):
    """Also notes which operands of each GEMM need gradients, and which autograd nodes the backward pass runs."""

    def __init__(self, model: Any, layers: Sequence[str]) -> None:
        super().__init__(model, layers)
        self.wanted: list[tuple[bool, bool]] = []
        self.nodes: list[int] = []
        self.ran: set[int] = set()
        self.backward = False
        self._args: Any = ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        node = torch._C._current_autograd_node()  # type: ignore[attr-defined]
        if self.backward or node is not None:
            if node is not None:
                self.ran.add(node._sequence_nr())
            return func(*args, **(kwargs or {}))
        self._args = args
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _note(self, operator: str, kind: str, dims: tuple[int, int, int, int], shared: int = 1) -> None:
        super()._note(operator, kind, dims, shared)
        self.wanted.append(self._flags(operator) if kind == "gemm" else (False, False))
        # a node is made, and numbered, just before its operator runs
        self.nodes.append(torch.autograd._get_sequence_nr() - 1)

    def _flags(self, operator: str) -> tuple[bool, bool]:
        if operator in ("scores", "values"):
            query, key, value = (tensor.requires_grad for tensor in self._args[:3])
            return (query, key) if operator == "scores" else (query or key, value)
        left, right = self._args[:2] if operator == "conv" else self._args[-2:]
        return left.requires_grad, right.requires_grad

    def gradients(self) -> list[tuple[bool, bool]]:
        """Return for each event whether its left and right operand get a gradient that the loss reaches."""
        return [
            wanted if node in self.ran else (False, False) for wanted, node in zip(self.wanted, self.nodes, strict=True)
        ]


@dataclass(frozen=True)
class StepOps:
    """The ops of a training step as functions of the batch's shape.

    Parameters
    ----------
    forward, backward : list of Template
        In the order in which they run.
    """

    forward: list[Template]
    backward: list[Template]

    def at(self, batch: int, length: int) -> list[OpSpec]:
        """Return the ops of one step on `batch` sequences of `length` tokens, padding included."""
        return expand([*self.forward, *self.backward], [(batch, length)])


def step_ops(
    net: Any, runs: Sequence[Callable[[], torch.Tensor]], shapes: Sequence[tuple[int, int]] = PROBES
) -> StepOps:
    """List the GEMMs of a training step: forward, gradients of inputs, gradients of weights.

    ::

        Y[M, N] = X[M, K] W[K, N]        forward
        dX[M, K] = dY[M, N] W^T[N, K]    where X needs a gradient: above the lowest trained parameter
        dW[K, N] = X^T[K, M] dY[M, N]    where W is trained, or made of what is

    Parameters
    ----------
    net : torch.nn.Module
        In training mode, with ``requires_grad`` set on what is trained.
    runs : two callables
        Each runs a forward pass and returns the loss.
    shapes : two (sequences, tokens) pairs
        Of the two runs; all four numbers different.

    Returns
    -------
    StepOps

    Raises
    ------
    InputError
        If the runs execute different operators, or the model has a mixture of experts.

    Notes
    -----
    Fused attention is listed as its four backward GEMMs; a kernel that recomputes the scores does a fifth. Element-wise
    work of the backward pass and the optimiser's is not listed.
    """
    found: list[list[tuple[bool, bool]]] = []
    places: list[str] = []

    def watch(model: Any, run: Callable[[], object], layers: Sequence[str]) -> list[_Event]:
        collector = _StepWatch(model, layers)
        try:
            with torch.enable_grad(), collector:
                loss: Any = run()
                collector.backward = True
                loss.backward()
        finally:
            collector.close()
            model.zero_grad(set_to_none=True)
        found.append(collector.gradients())
        places[:] = [event.module for event in collector.events]
        return collector.events

    sites = model_sites(net)
    forward = probe_ops(net, runs, shapes, sites, watcher=watch)
    if any(site.experts for site in sites):
        raise InputError("the cost of tuning a mixture of experts depends on its routing; it is not modelled")
    backward: list[Template] = []
    single = single_weights(net)
    for template, (left, right), place in zip(forward, found[0], places, strict=False):
        first, second = _names(template)
        m, k, n = template.m, template.k, template.n
        bare = replace(template, weight_bytes=0, input_site=None, output_site=None)
        if right:
            only = f"single:{place}" if place in single else None
            # the gradients that read what copies share are those of the other operand
            backward.append(replace(bare, op=second, m=k, k=m, n=n, has_weight=False, output_site=only, shared=ONE))
        if left:
            backward.append(replace(bare, op=first, k=n, n=k))
    return StepOps(forward, backward[::-1])


def single_weights(net: Any) -> dict[str, Any]:
    """Return where single weights of linear layers are trained, bool (N, K) by the layer's name (SPT)."""
    found = {}
    for name, module in net.named_modules():
        chosen = next(iter(getattr(getattr(module, "parametrizations", None), "weight", ())), None)
        if chosen is not None and hasattr(chosen, "index") and module.weight.dim() == 2:
            mask = torch.zeros(module.weight.numel(), dtype=torch.bool)
            mask[chosen.index.cpu()] = True
            found[name] = mask.reshape(module.weight.shape)
    return found


def _names(template: Template) -> tuple[str, str]:
    """Name the two gradients of a GEMM."""
    if template.has_weight:
        return f"{template.op}.grad_input", f"{template.op}.grad_weight"
    return GRADIENTS.get(template.op, (f"{template.op}.grad_left", f"{template.op}.grad_right"))


def example(net: Any, task: str, batch: int, length: int) -> Batch:
    """Return a batch of made-up items with labels, to run a step on: its values change no cost.

    `length` counts the virtual tokens that a tuning puts in front; of a speech model it is the transcript's, beside the
    encoder's frames, of which there are always as many.
    """
    config = net.config
    kind = modality(config)
    rows = np.arange(batch)
    labels = torch.zeros(batch, dtype=torch.float32 if task == "regression" else torch.long)
    if kind == "images":
        pixels = torch.zeros((batch, getattr(config, "num_channels", 3), config.image_size, config.image_size))
        return Batch(rows, {"pixel_values": pixels}, torch.ones((batch, 1), dtype=torch.bool), labels)
    ids = torch.ones((batch, length - virtual_tokens(net)), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind == "audio":
        frames = torch.zeros((batch, config.num_mel_bins, 2 * config.max_source_positions))
        inputs = {"input_features": frames}
    if task == "seq2seq":
        inputs["decoder_input_ids"] = ids
    if task in ("causal-lm", "seq2seq"):
        labels = ids
    return Batch(rows, inputs, ids.bool(), labels)


def loss_of(net: Any, batch: Batch, task: str) -> torch.Tensor:
    """Return the task's loss, as the trainer computes it."""
    from ..tuning.score import predictions

    output = net(**batch.inputs)
    if task == "regression":
        return torch.nn.functional.mse_loss(output.logits.squeeze(-1).float(), batch.labels)
    logits, targets = predictions(output, batch, task)
    return torch.nn.functional.cross_entropy(logits.float(), targets)


def masked(steps: StepOps, net: Any) -> StepOps:
    """Say which ops of a step a recorded mask of the MLP's activations bears on.

    The forward down-projection reads it; its weight's gradient reads it transposed. Behind a ReLU the gradient of the
    activation is zero wherever the activation is: those outputs of ``down.grad_input`` are not needed, and
    ``up.grad_input`` and ``up.grad_weight`` read zeros there.
    """
    sites = {site.layer: site for site in model_sites(net) if site.call == 0}
    return replace(steps, backward=[_marked(t, sites.get(t.layer), net) for t in steps.backward])


def _marked(template: Template, site: MLPSite | None, net: Any) -> Template:
    if site is None:
        return template
    transposed = f"{site.name}^T"
    if template.op == "down.grad_weight":
        return replace(template, input_site=transposed)
    behind_relu = not site.gate and site.activation and type(net.get_submodule(site.activation)).__name__ in RELU_LIKE
    if not behind_relu:
        return template
    if template.op == "up.grad_weight":  # dW^T = dY^T X, so that the masked operand comes first
        return replace(template, input_site=transposed, m=template.n, n=template.m)
    return {
        "down.grad_input": replace(template, output_site=f"{site.name}^out"),
        "up.grad_input": replace(template, input_site=site.name),
    }.get(template.op, template)
