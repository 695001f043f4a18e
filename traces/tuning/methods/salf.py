"""SALF: layers whose representations already mean the right label are frozen, and backward stops at them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ...errors import InputError
from ...models.experts import dense_sites
from ..change import Change, Decided, Method, Part, Sample

if TYPE_CHECKING:
    import torch

    from ...data.batches import Batch

METHOD = Method(
    name="salf",
    title="SALF, semantic-aware layer freezing: the layers up to the end of freezing are not trained",
    equation=(
        "s_v = e_v W^+;  d_i = mean of -log softmax_v(cos(r_i, s_v) / T)[gold];  eof = argmin d_i, or argmax of "
        "d_i (1 - (N / (N + dN_i))^alpha);  layers 1..eof and the embeddings frozen;  training FLOPs, all weights "
        "trained: (1 + 2 (1 - eof / L)) / 3"
    ),
    source="Semantic-Aware Layer-Freezing, arXiv 2406.11753",
    evidence="reconstructed",
    notes=(
        "The basis is the paper's. Averaging the deviation over the data, reading N as all parameters and dN_i as "
        "those of layers i+1..L, and never freezing the last layer are ours. A classifier's head is not trained yet: a "
        "linear head is fitted to the last layer's mean token, and its classes are the vocabulary. Where weights are "
        "frozen already, as under LoRA, there are no weight gradients to save: FLOPs fall to (1 + (1 - eof / L)) / 2."
    ),
)
EMBEDDINGS = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared|conv1|conv2|project_in)(\.|$)")
ROWS = 256  # positions of a batch of a language model: each is compared with the whole vocabulary
SINGULAR = 1e-5
FIT_STEPS = 100  # L-BFGS steps of the head-only fit


class Freeze(Part):
    """Which layers are frozen, with the embeddings and the adapters in them.

    Parameters
    ----------
    reading : {"min_deviation", "max_gain"}, optional
        Choose the last frozen layer on data: where the deviation is least, or where what deeper layers would gain is
        most.
    layers : int, optional
        Freeze so many layers, counted from the input.
    budget : int, optional
        Train at most so many layers: freezing goes on from the input side until no more are left.
    temperature : float
        T.
    alpha : float
        Exponent of the scaling law in the gain.
    batches, batch_size : int
        Training data that the choice is made on.
    """

    reading: Literal["min_deviation", "max_gain"] | None = None
    layers: int | None = Field(default=None, ge=1)
    budget: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    alpha: float = Field(default=0.076, gt=0)
    batches: int = Field(default=16, ge=1)
    batch_size: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _one_policy(self) -> Freeze:
        if self.reading is not None and self.layers is not None:
            raise ValueError("'reading' chooses the layers that 'layers' states; give one of them")
        if (self.reading, self.layers, self.budget) == (None, None, None):
            raise ValueError("nothing says what to freeze; give reading, layers or budget")
        return self

    def change(self) -> Change:
        """Return the freezing."""
        return _Freeze(self)


class _Freeze(Change):
    def __init__(self, part: Freeze) -> None:
        self.part = part
        self._facts: dict[str, Any] = {}

    def decide(self, net: Any, sample: Sample) -> dict[str, torch.Tensor]:
        """Choose the end of freezing, and count what it saves."""
        import torch as th

        part, blocks = self.part, layers(net)
        found: dict[str, torch.Tensor] = {}
        eof = part.layers or 0
        if part.reading is not None:
            found["deviations"] = deviations(net, sample, part, len(blocks))
            found["gains"] = gains(found["deviations"], net, blocks, part.alpha)
            inner = found["gains"] if part.reading == "max_gain" else -found["deviations"]
            eof = 1 + int(inner[1 : len(blocks)].argmax()) if len(blocks) > 1 else 0
        if part.budget is not None:
            eof = max(eof, len(blocks) - part.budget)
        if eof >= len(blocks):
            raise InputError(f"freeze.layers {eof} leaves none of the model's {len(blocks)} layers to train; lower it")
        flags = [p.requires_grad for p in net.parameters()]
        full = step_macs(net, sample)
        freeze(net, blocks, eof)
        cut = step_macs(net, sample)
        for p, flag in zip(net.parameters(), flags, strict=True):
            p.requires_grad_(flag)
        return found | {"eof": th.tensor(eof), "macs_full": th.tensor(full), "macs_frozen": th.tensor(cut)}

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Freeze."""
        eof, blocks = int(decided["eof"]), layers(net)
        freeze(net, blocks, eof)
        full, cut = decided["macs_full"].tolist(), decided["macs_frozen"].tolist()
        left = 1 - eof / len(blocks)
        self._facts = {
            "eof": eof,
            "layers": len(blocks),
            "macs_forward": full[0],
            "macs_backward_full_depth": full[1],
            "macs_backward": cut[1],
            "training_ratio": sum(cut) / sum(full),
            "training_ratio_all_weights": (1 + 2 * left) / 3,
            "training_ratio_frozen_weights": (1 + left) / 2,
            **{name: decided[name].tolist() for name in ("deviations", "gains") if name in decided},
        }
        return net

    def facts(self, net: Any) -> dict[str, Any]:
        """Return the end of freezing, and the MACs of a training step against full depth and against the formulas."""
        return {"freeze": self._facts}


def layers(net: Any) -> list[str]:
    """Return the names of a model's blocks in the order in which they run.

    Raises
    ------
    InputError
        If single layers cannot be frozen in this model, or under this module.
    """
    sites = dense_sites(net)
    if any(site.call for site in sites):
        raise InputError(f"freeze: the layers of a '{net.config.model_type}' model share their weights; leave it out")
    config = getattr(net, "peft_config", {}).get("default")
    if config is not None and (config.is_prompt_learning or config.peft_type == "ADALORA"):
        raise InputError(f"freeze: {config.peft_type.lower()} trains all layers at once; use lora or another module")
    if any(name.endswith("block_gates") for name, _ in net.named_modules()):
        raise InputError("freeze: gates on blocks train through every layer; leave 'blocks' or 'freeze' out")
    found = (re.match(r".*?\.\d+(?=\.)", site.module) for site in sites)
    return list(dict.fromkeys(match.group() for match in found if match))


def freeze(net: Any, blocks: list[str], eof: int) -> None:
    """Freeze the first `eof` blocks and what runs before them: whatever is in them, adapters too."""
    if eof == 0:
        return
    import torch as th

    frozen = tuple(f"{block}." for block in blocks[:eof])
    for name, p in net.named_parameters():
        if name.startswith(frozen) or EMBEDDINGS.search(name):
            p.requires_grad_(False)
    for module in net.modules():
        if isinstance(module, th.nn.Embedding):
            module.requires_grad_(False)


def step_macs(net: Any, sample: Sample) -> tuple[int, int]:
    """Count the multiply-accumulates of a training step on a batch of 8: forward, backward.

    Attention counts as its four backward products, also where a fused kernel recomputes the scores.
    """
    import torch as th
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def attention_backward(_gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return 2 * int(sdpa_flop_count(query, key, value))

    fused = th.ops.aten
    known = {
        fused._scaled_dot_product_flash_attention_for_cpu: attention,
        fused._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    was = net.training
    net.train()
    try:
        batch = next(sample.batches(1, 8))
        counter = FlopCounterMode(display=False, custom_mapping=known)
        with th.enable_grad(), counter:
            loss = sample.loss(net, batch)
            forward = counter.get_total_flops() // 2
            if loss.requires_grad:
                loss.backward()
        return forward, counter.get_total_flops() // 2 - forward
    finally:
        net.zero_grad(set_to_none=True)
        net.train(was)


def deviations(net: Any, sample: Sample, part: Freeze, blocks: int) -> torch.Tensor:
    """Return how far each layer's representations are from meaning the right label, float32[blocks + 1].

    d_i = mean of -log softmax_v(cos(r_i, s_v) / T)[gold]; the first is the embeddings'.

    Raises
    ------
    InputError
        If the task has no labels to compare with.
    """
    import torch as th

    if sample.task not in ("classification", "image-classification", "causal-lm"):
        raise InputError(f"freeze.reading: a {sample.task} model has no labels for its layers; give layers or budget")
    pairs = list(_representations(net, sample, part, blocks))
    gold = th.cat([g for _, g in pairs])
    if sample.task == "causal-lm":
        basis = semantic_basis(net.get_output_embeddings().weight.detach())
        found = [th.stack([_deviation(r, basis, g, part.temperature) * len(g) for r in states]) for states, g in pairs]
        return th.stack(found).sum(0) / len(gold)
    # a head has a bias and a cosine has none: representations are compared with their mean taken off
    states = th.cat([s for s, _ in pairs], dim=1)
    states = states - states.mean(1, keepdim=True)
    basis = semantic_basis(fit_head(states[-1], gold))
    return th.stack([_deviation(r, basis, gold, part.temperature) for r in states])


def _representations(
    net: Any, sample: Sample, part: Freeze, blocks: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield each batch's hidden states (blocks + 1, n, d), and labels (n,)."""
    import torch as th

    for batch in sample.batches(part.batches, part.batch_size):
        with th.no_grad():
            hidden = net(**batch.inputs, output_hidden_states=True).hidden_states
        if hidden is None or len(hidden) != blocks + 1:
            raise InputError("freeze.reading: this model does not give its layers' outputs; give layers or budget")
        yield _places(th.stack(list(hidden)), batch, sample.task)


def _places(hidden: torch.Tensor, batch: Batch, task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return representations with a label each: tokens that a next one follows, or each item's mean token."""
    if task == "causal-lm":
        gold = batch.labels[:, 1:]
        keep = gold != -100
        states, gold = hidden[:, :, :-1][:, keep], gold[keep]
        step = max(1, len(gold) // ROWS)
        return states[:, ::step], gold[::step]
    real = batch.real.to(hidden.dtype)[..., None]
    if real.shape[1] != hidden.shape[2]:
        return hidden.mean(2), batch.labels
    return (hidden * real).sum(2) / real.sum(1), batch.labels


def semantic_basis(head: torch.Tensor) -> torch.Tensor:
    """Return each label's direction s_v = e_v W^+, (labels, d).

    Parameters
    ----------
    head : tensor (labels, d)
        The head's weight: logits = r W with W its transpose; W^+ is the pseudo-inverse.

    Notes
    -----
    W^+ = A (A^T A)^+ with A the head: a d x d matrix is inverted, however many labels there are. Singular values below
    1e-5 of the largest are rounding: a head of two classes has one direction.
    """
    import torch as th

    a = head.double()
    return (a @ th.linalg.pinv(a.T @ a, rtol=SINGULAR**2, hermitian=True)).to(head.dtype)


def fit_head(states: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    """Return the weight (labels, d) of a linear head fitted to representations (n, d) by logistic regression."""
    import torch as th

    scale = states.std()
    weight = th.zeros(int(gold.max()) + 1, states.shape[1], requires_grad=True)
    optimizer = th.optim.LBFGS([weight], max_iter=FIT_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = th.nn.functional.cross_entropy(states / scale @ weight.T, gold)
        loss = loss + 1e-3 * weight.square().sum()  # the data may be separable
        loss.backward()
        return loss

    with th.enable_grad():
        optimizer.step(closure)
    return weight.detach()


def _deviation(states: torch.Tensor, basis: torch.Tensor, gold: torch.Tensor, temperature: float) -> torch.Tensor:
    import torch as th

    normal = th.nn.functional.normalize
    cosines = normal(states, dim=-1) @ normal(basis, dim=-1).T
    return th.nn.functional.cross_entropy(cosines / temperature, gold)


def gains(deviation: torch.Tensor, net: Any, blocks: list[str], alpha: float) -> torch.Tensor:
    """Return what training the layers behind each would gain: d_i (1 - (N / (N + dN_i))^alpha), float32[blocks + 1].

    N counts all of the model's parameters, dN_i those of layers i+1..L.
    """
    import torch as th

    every = sum(p.numel() for p in net.parameters())
    sizes = [sum(p.numel() for p in net.get_submodule(block).parameters()) for block in blocks]
    behind = th.tensor([sum(sizes[i:]) for i in range(len(blocks) + 1)], dtype=th.float32)
    return deviation * (1 - (every / (every + behind)) ** alpha)
