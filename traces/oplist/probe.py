"""Probing a model's operators: a run is watched and every operator is written down."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError
from ..models.experts import recorded_experts
from ..models.routing import all_tokens
from ..models.sites import MLPSite, dropped_blocks, gate_sites, weight_shape
from .experts import expert_templates
from .ops import Dim, Shape, Template, fit_dim
from .sharing import SharedCopies

# names of projections over all families: the last parts of a module's path
NAMES = (
    (r"lm_head|proj_out|classifier|score|classifier\.out_proj|classification_head\.out_proj", "head"),
    (r"attention\.output\.dense|o_proj|out_proj|out_lin|attn\.c_proj|attn\.Wo|attention\.dense", "o"),
    (r"SelfAttention\.o|EncDecAttention\.o", "o"),
    (r"query|q_proj|q_lin|SelfAttention\.q|EncDecAttention\.q", "q"),
    (r"key|k_proj|k_lin|SelfAttention\.k|EncDecAttention\.k", "k"),
    (r"value|v_proj|v_lin|SelfAttention\.v|EncDecAttention\.v", "v"),
    (r"c_attn|Wqkv|query_key_value|qkv|qkv_proj", "qkv"),
    (r"gate_proj|wi_0", "gate"),
    (r"gate_up_proj|mlp\.Wi", "gate_up"),
    (r"intermediate\.dense|up_proj|fc1|lin1|mlp\.c_fc|wi|wi_1|ffn", "up"),
    (r"pooler\.dense|pooler", "pooler"),
)
FACTORS = re.compile(r"\.(?:low_rank\.|kronecker\.\d+\.)?(lora_[AB]|kron_[UV])\.")  # GEMMs beside a linear layer
BOTTLENECK = re.compile(r"\.adapter\.(down|up|gate)$")  # GEMMs that an adapter adds behind a linear layer
ACTIVATIONS = ("gelu", "relu", "silu", "tanh", "sigmoid", "hardtanh", "leaky_relu")
# modules counted as one vector op, whatever they compute inside
WHOLE = (("norm", re.compile("norm", re.I)), ("activation", re.compile("gelu|relu|silu|activation|tanh|sigmoid", re.I)))


@dataclass(frozen=True)
class _Event:
    module: str
    operator: str
    kind: str
    dims: tuple[int, int, int, int]  # m, k, n, repeat
    call: int  # how many times the layer had been entered before: some models share one layer's weights
    shared: int = 1  # consecutive copies that read the same second operand


class _Watch(TorchDispatchMode):
    """Collects events; modules report through hooks where execution is."""

    def __init__(self, model: Any, layers: Sequence[str]) -> None:
        super().__init__()
        self.events: list[_Event] = []
        self.path: list[str] = []
        self.layers = layers
        self.entered: Counter[str] = Counter()
        self.sharing = SharedCopies()
        self.modules = dict(model.named_modules())
        self.weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self.inside_whole = 0
        self._handles = []
        for name, module in model.named_modules():
            whole = _whole(module)
            self._handles.append(module.register_forward_pre_hook(self._enter(name, whole is not None)))
            self._handles.append(module.register_forward_hook(self._leave(whole), always_call=True))

    def _enter(self, name: str, whole: bool) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any) -> None:
            self.path.append(name)
            self.entered[name] += 1
            self.inside_whole += whole

        return hook

    def _leave(self, whole: str | None) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if whole and self.inside_whole == 1 and isinstance(output, torch.Tensor):
                self._note(whole, "vector", (output.numel(), 1, 1, 1))
            self.inside_whole -= whole is not None
            self.path.pop()

        return hook

    def _note(self, operator: str, kind: str, dims: tuple[int, int, int, int], shared: int = 1) -> None:
        path = self.path[-1] if self.path else ""
        layer = next((name for name in self.layers if f"{path}.".startswith(f"{name}.")), "")
        self.events.append(_Event(path, operator, kind, dims, self.entered[layer] - 1, shared))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.sharing.note(name, args, out)
        if name in ("mm", "addmm"):
            left, right = args[-2:]
            self._note("mm", "gemm", (left.shape[0], left.shape[1], right.shape[1], 1))
        elif name in ("bmm", "baddbmm"):
            left, right = args[-2:]
            dims = (left.shape[1], left.shape[2], right.shape[2], left.shape[0])
            # a stack of weights, as some experts are, is no attention
            stacked = right.untyped_storage()._cdata in self.weights
            self._note("stacked" if stacked else "bmm", "gemm", dims, self.sharing.copies(right))
        elif name.startswith("_scaled_dot_product"):
            self._attention(*args[:3])
        elif name == "convolution":
            self._convolution(args[1], args[8], out)
        elif not self.inside_whole:
            self._vector(name, args, out)
        return out

    def _attention(self, query: Any, key: Any, value: Any) -> None:
        batch, heads, rows, depth = query.shape
        columns, width = key.shape[-2], value.shape[-1]
        packed = self._packed(heads, rows)
        heads, rows = heads * packed, rows // packed
        keys, values = (heads // one.shape[1] * self.sharing.copies(one) for one in (key, value))
        self._note("scores", "gemm", (rows, depth, columns, batch * heads), keys)
        self._note("softmax", "vector", (columns, 1, 1, batch * heads * rows))
        self._note("values", "gemm", (rows, columns, width, batch * heads), values)

    def _packed(self, heads: int, rows: int) -> int:
        """How many query heads of one token transformers hands over as rows of one head, which depends on the mask."""
        module = self.modules.get(self.path[-1]) if self.path else None
        groups = getattr(module, "num_key_value_groups", 1)
        asked = getattr(getattr(module, "config", None), "num_attention_heads", None)
        return groups if groups == rows and heads * groups == asked else 1

    def _convolution(self, weight: Any, groups: int, out: Any) -> None:
        reduction = weight[0].numel()
        self._note("conv", "gemm", (out[:, 0].numel(), reduction, weight.shape[0] // groups, groups))

    def _vector(self, name: str, args: Any, out: Any) -> None:
        if name in ("_softmax", "_safe_softmax"):
            self._note("softmax", "vector", (out.shape[-1], 1, 1, out.numel() // out.shape[-1]))
        elif name in ACTIVATIONS and out.dim() > 1:
            self._note("activation", "vector", (out.numel(), 1, 1, 1))
        elif name == "embedding":
            self._note("embedding", "vector", (out.numel(), 1, 1, 1))
        elif name in ("add", "add_") and isinstance(args[1], torch.Tensor) and args[0].shape == args[1].shape:
            if out.dim() >= 2:
                self._note("residual", "vector", (out.numel(), 1, 1, 1))
        elif name in ("mul", "mul_") and isinstance(args[1], torch.Tensor) and args[0].shape == args[1].shape:
            width = out.shape[-1:].numel()  # apart: attention over a prefix is no product of one power of S
            self._note("product", "vector", (width, 1, 1, out.shape[:-1].numel()))


def _whole(module: Any) -> str | None:
    """Name the vector op a leaf-like module is counted as, if it is."""
    name = type(module).__name__
    kind = next((kind for kind, pattern in WHOLE if pattern.search(name)), None)
    return kind if kind != "activation" or not any(True for _ in module.parameters()) else None


def watch(model: Any, run: Callable[[], object], layers: Sequence[str] = ()) -> list[_Event]:
    """Execute `run` and return what it executed."""
    collector = _Watch(model, layers)
    try:
        # not inference_mode: under it torch hands composite operators to a dispatch mode whole
        with torch.no_grad(), collector:
            run()
    finally:
        collector.close()
    return collector.events


def probe_ops(
    model: Any,
    runs: Sequence[Callable[[], object]],
    shapes: Sequence[Shape],
    sites: Sequence[MLPSite],
    inputs: Mapping[tuple[str, int], str] | None = None,
    watcher: Callable[[Any, Callable[[], object], Sequence[str]], list[_Event]] = watch,
) -> list[Template]:
    """Return a model's op list from two runs on inputs of different shape.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    runs : two callables
        Each runs one forward pass.
    shapes : two (sequences, tokens) pairs, or with the tokens of a target
        Of the two runs; all numbers that vary different primes.
    sites : sequence of MLPSite
        The model's sites, to name ops and layers by.
    inputs : mapping of (str, int) to str, optional
        Further recorded inputs: the site's name by module and call.
    watcher : callable
        Executes a run and returns what it executed.

    Raises
    ------
    InputError
        If the two runs executed different operators.
    """
    # layers whose MLP was dropped still have their attention
    layers = _layers([*sites, *dropped_blocks(model)])
    mixed = {site.module: site for site in sites if site.experts}
    with recorded_experts(model, sites), all_tokens(model):
        first, second = (_collapsed(watcher(model, run, list(layers)), mixed) for run in runs)
    if [(e.module, e.operator) for e in first] != [(e.module, e.operator) for e in second]:
        raise InputError("this model executes other operators on longer input; its ops cannot be listed")
    down = {(site.module, site.call): site for site in sites}
    claimed: set[int] = set()
    templates: list[Template] = []
    for one, two in zip(first, second, strict=True):
        if one.operator == "experts":
            templates += expert_templates(model.get_submodule(one.module), mixed[one.module], claimed)
            continue
        m, k, n, repeat = (fit_dim(pair, shapes) for pair in zip(one.dims, two.dims, strict=True))
        module = model.get_submodule(one.module)
        bare = one.module.replace(".base_layer", "").replace(".modules_to_save.default", "")
        site = down.get((bare, one.call)) if one.operator == "mm" else None
        weighted = one.operator in ("mm", "conv") and one.kind == "gemm"
        templates.append(
            Template(
                op="down" if site else _name(one, bare, templates, {s.module for s in sites}),
                layer=_layer(bare, one.call, layers),
                kind="gemm" if one.kind == "gemm" else "vector",
                m=m,
                k=k,
                n=n,
                repeat=repeat,
                has_weight=weighted and (weight_shape(module) is not None or one.operator == "conv"),
                weight_bytes=_own_bytes(module, claimed),
                input_site=site.name if site else (inputs or {}).get((bare, one.call)),
                shared=fit_dim((one.shared, two.shared), shapes),
            )
        )
    gates = {site.layer: site.name for site in gate_sites(sites)}
    marked = [replace(t, output_site=gates[t.layer]) if t.op == "up" and t.layer in gates else t for t in templates]
    return marked + _unused(model, claimed)


def _collapsed(events: list[_Event], mixed: Mapping[str, MLPSite]) -> list[_Event]:
    """Put one event in place of all that a layer's experts execute, for it depends on the data."""
    kept: list[_Event] = []
    for event in events:
        block = next((name for name in mixed if f"{event.module}.".startswith(f"{name}.")), None)
        if block is None:
            kept.append(event)
        elif not kept or kept[-1].module != block:
            kept.append(_Event(block, "experts", "gemm", (1, 1, 1, 1), event.call))
    return kept


def _unused(model: Any, claimed: set[int]) -> list[Template]:
    """One entry for the parameters no operator owns: class tokens, layer scales, positions, unused heads."""
    sizes = [(p.numel(), p.element_size()) for p in model.parameters() if id(p) not in claimed]
    if not sizes:
        return []
    elements, bytes_ = sum(n for n, _ in sizes), sum(n * size for n, size in sizes)
    one = Dim(1)
    return [Template("parameters", -1, "vector", Dim(elements), one, one, one, False, bytes_)]


def _own_bytes(module: Any, claimed: set[int]) -> int:
    """Bytes of a module's own parameters and buffers that no earlier op has claimed: tied weights count once."""
    total = 0
    tensors = list(module.parameters(recurse=False))
    # a weight with trained corrections is kept a level below its module
    tensors += list(module.parametrizations.parameters()) if hasattr(module, "parametrizations") else []
    for tensor in tensors:
        if id(tensor) not in claimed:
            claimed.add(id(tensor))
            # what a tuning rounded to fewer bits is stored in them
            total += round(tensor.numel() * getattr(tensor, "stored_bits", 8 * tensor.element_size()) / 8)
    return total


def _layers(sites: Sequence[MLPSite]) -> dict[str, list[int]]:
    """The part of each site's path up to its layer's index, longest first, with the layers that run it in turn."""
    found: dict[str, list[int]] = {}
    for site in sites:
        match = re.search(r"^(.*?\.\d+)\.", site.module + ".")
        if match:
            found.setdefault(match.group(1), []).append(site.layer)
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def _layer(path: str, call: int, layers: dict[str, list[int]]) -> int:
    for prefix, indices in layers.items():
        if f"{path}.".startswith(f"{prefix}."):
            return indices[call] if 0 <= call < len(indices) else indices[0]
    return -1


def _name(event: _Event, path: str, before: Sequence[Template], down: set[str]) -> str:
    if event.kind == "vector" or event.operator in ("scores", "values", "conv"):
        return event.operator
    if event.operator == "bmm":
        return "scores" if not before or _last_matmul(before) != "scores" else "values"
    adapter = FACTORS.search(path + ".")
    base = path[: adapter.start()] if adapter else path
    if adapter and base in down:
        return f"down.{adapter.group(1).lower()}"
    bottleneck = BOTTLENECK.search(path)
    if bottleneck:
        return f"adapter.{bottleneck.group(1)}"
    name = projection(base) or base.rpartition(".")[2]
    return f"{name}.{adapter.group(1).lower()}" if adapter else name


def projection(path: str) -> str | None:
    """Return what a linear layer of this name is called in an op list: ``q``, ``o``, ``up``, ...; None if unknown."""
    for expression, name in NAMES:
        if re.search(rf"(?:^|\.|(?<=\.))(?:{expression.lstrip('.')})$", path):
            return name
    return None


def _last_matmul(before: Sequence[Template]) -> str:
    return next((t.op for t in reversed(before) if t.kind == "gemm" and not t.has_weight), "")
