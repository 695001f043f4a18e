"""SPT: what is tuned, and how, is chosen by the sensitivity of the task's loss (arXiv 2303.08566)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...errors import InputError
from ...models.sites import weight_shape
from ..change import Change, Decided, Method, Part, Sample
from .lora import heads, linear_targets

if TYPE_CHECKING:
    import torch

Scores = Mapping[str, "torch.Tensor"]
STRUCTURED_AT = 10  # a matrix gets a module where a tenth as many of its weights are masked as the module has
WHOLE_AT = 5  # a vector is trained whole where a fifth of it is masked
UNIFORMITY = 2.0  # standard deviation of a random pick's logarithmic preference for tensors


class Spt(Part):
    """Sensitivity-aware choice of what is trained.

    Parameters
    ----------
    structured : {"lora", "adapter", "none"}
        What tunes a matrix with many sensitive weights: a low-rank pair, a bottleneck behind it, or nothing but its
        sensitive weights themselves.
    r : int
        Rank of the pair or width of the bottleneck.
    alpha : float
        The pair is scaled by ``alpha / r``.
    budget : int, optional
        Trained parameters, the task head not counted;
    like_lora : int
        where it is not given, as many as LoRA of this rank on every linear layer trains.
    single_scale : float, optional
        A single weight is w + single_scale v, v what is trained. AdamW moves every trained value by about the learning
        rate in a step; that of a low-rank pair's factors is far too much for a weight itself. 1 by default.
    batches, batch_size : int
        Calibration batches, and items in each.
    pick : {"sensitivity", "random"}
        ``random`` draws the scores: the control that the method is held against.
    """

    type: Literal["spt"] = "spt"
    structured: Literal["lora", "adapter", "none"] = "lora"
    r: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    budget: int | None = Field(default=None, ge=1)
    like_lora: int = Field(default=4, ge=1)
    single_scale: float | None = Field(default=None, gt=0)
    batches: int = Field(default=16, ge=1)
    batch_size: int = Field(default=32, ge=1)
    pick: Literal["sensitivity", "random"] = "sensitivity"

    def change(self) -> Change:
        """Return the choice and the wrapping."""
        return _Spt(self)


METHOD = Method(
    name="spt",
    title="SPT: sensitive weights are trained singly, or by a low-rank pair or adapter where a matrix has many",
    equation=(
        "s_n = sum over batches of (mean dL/dw_n)^2;  M = the tau highest s;  a matrix takes LoRA or an adapter of P "
        "parameters where sum M >= P / 10, a vector is trained whole where sum M >= dim / 5, all other masked weights "
        "w_n + v_n one by one;  tau is the largest that stays within the budget"
    ),
    source="He et al., Sensitivity-Aware Visual Parameter-Efficient Fine-Tuning, arXiv 2303.08566",
    evidence="code",
    notes=(
        "The paper's budgets were picked for each dataset on validation data; here the budget is given. Head and "
        "embeddings are outside it. Gradients are taken with the head as it starts, which is untrained. "
        "Where a further module would overrun the budget, that matrix keeps single weights. "
        "Low-rank pairs and single weights fold into the weights; an adapter stays."
    ),
    module=Spt,
)


@dataclass(frozen=True)
class Selection:
    """What a budget buys.

    Parameters
    ----------
    tau : int
        Masked weights.
    modules, whole : tuple of str
        Weights that a structured module tunes, and vectors that are trained whole.
    single : dict of str to int64 tensor
        Places in the flattened tensor of the weights that are trained one by one.
    trained : int
        Parameters, all together.
    """

    tau: int
    modules: tuple[str, ...]
    whole: tuple[str, ...]
    single: dict[str, torch.Tensor]
    trained: int


def eligible(net: Any) -> dict[str, torch.Tensor]:
    """Return the parameters that may be chosen: not those of the task head, poolers and embeddings."""
    import torch as th

    head = heads(net)
    output = net.get_output_embeddings() if hasattr(net, "get_output_embeddings") else None
    outside = {id(p) for p in output.parameters()} if output is not None else set()
    for module in net.modules():
        if isinstance(module, th.nn.Embedding):
            outside |= {id(p) for p in module.parameters()}
    return {
        name: p
        for name, p in net.named_parameters()
        if id(p) not in outside
        and name.split(".")[0] not in head
        and not any("embed" in part or part == "pooler" for part in name.split("."))
    }


def sensitivity(net: Any, sample: Sample, batches: int, size: int) -> dict[str, torch.Tensor]:
    """Return each eligible weight's sensitivity: the sum over batches of its squared mean gradient.

    Parameters
    ----------
    net : torch.nn.Module
        Left as it was.
    sample : Sample
        Training data.
    batches, size : int
        Batches, and items in each.

    Returns
    -------
    dict of str to tensor
        Of each parameter's own shape.
    """
    import torch as th

    chosen = eligible(net)
    before = [p.requires_grad for p in chosen.values()]
    scores = {name: th.zeros_like(p, requires_grad=False) for name, p in chosen.items()}
    try:
        for p in chosen.values():
            p.requires_grad_(True)
        for batch in sample.batches(batches, size):
            found = th.autograd.grad(sample.loss(net, batch), list(chosen.values()), allow_unused=True)
            for score, gradient in zip(scores.values(), found, strict=True):
                if gradient is not None:
                    score += gradient.square()
    finally:
        for p, flag in zip(chosen.values(), before, strict=True):
            p.requires_grad_(flag)
    return scores


def random_scores(net: Any, seed: int) -> dict[str, torch.Tensor]:
    """Return scores that know nothing of the task; some tensors are preferred, as by sensitivity, but by chance."""
    import torch as th

    made = th.Generator().manual_seed(seed)
    scores = {}
    for name, p in eligible(net).items():
        level = (UNIFORMITY * th.randn((), generator=made)).exp()
        scores[name] = level * th.rand(p.shape, generator=made)
    return scores


def select(scores: Scores, costs: Mapping[str, int], vectors: frozenset[str], budget: int) -> Selection:
    """Choose what is trained: the largest global mask whose training stays within the budget.

    Parameters
    ----------
    scores : mapping of str to tensor
        Of every weight that may be chosen.
    costs : mapping of str to int
        Parameters of the module that can tune a matrix, by the matrix' name; a matrix without one has no module.
    vectors : frozenset of str
        Tensors that can be trained whole.
    budget : int
        Parameters.

    Returns
    -------
    Selection

    Raises
    ------
    InputError
        If everything together is more than a tenth short of the budget.

    Notes
    -----
    The number of trained parameters never falls as the mask grows, so bisection finds the mask. What one more masked
    weight would add may be a whole module, though: the budget that is left then goes to single weights.
    """
    import torch as th

    names = list(scores)
    sizes = th.tensor([scores[n].numel() for n in names])
    cost = th.tensor([costs.get(n, 0) for n in names])
    vector = th.tensor([n in vectors for n in names])
    order = th.cat([scores[n].flatten() for n in names]).argsort(descending=True, stable=True)
    owner = th.repeat_interleave(th.arange(len(names)), sizes)[order]

    def counts(tau: int) -> torch.Tensor:
        return th.bincount(owner[:tau], minlength=len(names))

    def structure(masked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (cost > 0) & (masked * STRUCTURED_AT >= cost), vector & (masked * WHOLE_AT >= sizes)

    def total(masked: torch.Tensor, modules: torch.Tensor, whole: torch.Tensor) -> int:
        return int(th.where(modules, cost, th.where(whole, sizes, masked)).sum())

    tau = _largest(len(owner), lambda t: total(counts(t), *structure(counts(t))) <= budget)
    modules, whole = structure(counts(tau))
    tau = _largest(len(owner), lambda t: total(counts(t), modules, whole) <= budget)
    trained = total(counts(tau), modules, whole)
    if trained < 0.9 * budget:
        raise InputError(
            f"module 'spt': all that it may train has {trained} parameters, the budget is {budget}; raise module.r or "
            "lower module.budget"
        )
    starts = sizes.cumsum(0) - sizes
    single: dict[str, torch.Tensor] = {}
    for i, name in enumerate(names):
        if not modules[i] and not whole[i]:
            places = order[:tau][owner[:tau] == i] - starts[i]
            single |= {name: places.sort().values} if len(places) else {}
    first, second = (tuple(n for n, f in zip(names, flags.tolist(), strict=True) if f) for flags in (modules, whole))
    return Selection(tau, first, second, single, trained)


def _largest(stop: int, fits: Any) -> int:
    """Return the largest value up to `stop` that fits, where all below one that fits do too."""
    low, high = 0, stop
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


class _Spt(Change):
    def __init__(self, part: Spt) -> None:
        self.part = part
        self._facts: dict[str, Any] = {}

    def decide(self, net: Any, sample: Sample) -> dict[str, torch.Tensor]:
        """Measure the sensitivity, or draw it, and spend the budget."""
        import torch as th

        part = self.part
        linear = {name: _shape(net.get_submodule(name)) for name in linear_targets(net, "all-linear")}
        budget = part.budget or sum(part.like_lora * sum(shape) for shape in linear.values())
        if part.pick == "random":
            scores = random_scores(net, sample.seed)
        else:
            scores = sensitivity(net, sample, part.batches, part.batch_size)
        costs = {f"{name}.weight": self._cost(*shape) for name, shape in linear.items() if part.structured != "none"}
        vectors = frozenset(name for name, score in scores.items() if score.dim() == 1 and part.structured != "none")
        found = select(scores, costs, vectors, budget)
        return {
            "budget": th.tensor(budget),
            "tau": th.tensor(found.tau),
            **{f"module.{name}": th.tensor(costs[name]) for name in found.modules},
            **{f"whole.{name}": th.tensor(scores[name].numel()) for name in found.whole},
            **{f"single.{name}": places for name, places in found.single.items()},
        }

    def _cost(self, inputs: int, outputs: int) -> int:
        """Return the parameters of the structured module of a matrix."""
        if self.part.structured == "adapter":
            return 2 * self.part.r * outputs + self.part.r + outputs
        return self.part.r * (inputs + outputs)

    def apply(self, net: Any, task: str, decided: Decided) -> Any:
        """Thaw the whole vectors, put single weights on frozen tensors, and wrap the matrices."""
        from ..layers.spt import train_singly

        chosen: dict[str, dict[str, torch.Tensor]] = {"module": {}, "whole": {}, "single": {}}
        for key, tensor in decided.items():
            kind, _, name = key.partition(".")
            if name:
                chosen[kind][name] = tensor
        for name in chosen["whole"]:
            net.get_parameter(name).requires_grad_(True)
        for name, places in chosen["single"].items():
            train_singly(net, name, places, self.part.single_scale or 1.0)
        for name in chosen["module"]:
            self._wrap(net, name.removesuffix(".weight"))
        self._facts = {
            "budget": int(decided["budget"]),
            "masked": int(decided["tau"]),
            "modules": [name.removesuffix(".weight") for name in chosen["module"]],
            "module_parameters": sum(int(t) for t in chosen["module"].values()),
            "whole_vectors": len(chosen["whole"]),
            "whole_parameters": sum(int(t) for t in chosen["whole"].values()),
            "single_parameters": sum(len(t) for t in chosen["single"].values()),
        }
        return net

    def _wrap(self, net: Any, name: str) -> None:
        import torch as th

        from ..layers.bottleneck import Adapted, Bottleneck
        from ..layers.lowrank import LowRank, LowRankLinear

        base = net.get_submodule(name)
        inputs, outputs = _shape(base)
        if self.part.structured == "lora":
            net.set_submodule(name, LowRankLinear(base, LowRank(inputs, outputs, self.part.r, self.part.alpha)))
            return
        adapter = Bottleneck(outputs, self.part.r, "relu")
        th.nn.init.zeros_(adapter.up.weight)  # so that the first output is the base model's
        net.set_submodule(name, Adapted(base, adapter))

    def merge(self, net: Any) -> Any:
        """Fold single weights and low-rank pairs; adapters stay."""
        from ..layers.lowrank import unwrap
        from ..layers.spt import fold_single_weights

        fold_single_weights(net)
        return unwrap(net)

    def facts(self, net: Any) -> dict[str, Any]:
        """Return what the budget was spent on."""
        return {"spt": self._facts}


def _shape(module: Any) -> tuple[int, int]:
    shape = weight_shape(module)
    assert shape is not None
    return shape
