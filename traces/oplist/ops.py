"""The full op list of a model: every GEMM, and the vector ops as element counts.

A model is run twice on small inputs of different shape under a dispatch mode that sees each operator torch executes.
A dimension that reads v1 and v2 in the two runs is written ``c B^i (S + o)^j T^l`` with B the sequences, S the tokens
of a sequence and T those of its target where a model has a decoder beside its encoder, so that the list holds for
batches of any shape and needs no knowledge of the family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import InputError


@dataclass(frozen=True)
class OpSpec:
    """One operation over a whole trace.

    Parameters
    ----------
    op : str
        ``q``, ``k``, ``v``, ``scores``, ``values``, ``o``, ``up``, ``gate``, ``down``, ``head``, ...
    layer : int
        Block, -1 outside the blocks.
    kind : {"gemm", "vector"}
        Vector ops have ``k = n = 1`` and their element count in `m`.
    m, k, n : int
        Rows (tokens), reduction, outputs.
    repeat : int
        Independent GEMMs of this shape, such as heads times sequences.
    input_site, output_site : str or None
        Sites whose masks are this op's input (M, K), or say which outputs (M, N) are needed.
    weight_bytes : int
        Bytes of the parameters as loaded.
    has_weight : bool
        False where the second operand is an activation too.
    tokens_per_pass : int
        Rows of one forward pass, on average: each pass reads the weights anew.
    shared : int
        Consecutive copies, of `repeat`, that read the same second operand: the query heads of one key head.

    Examples
    --------
    >>> trace = traces.open_trace("minilm_relu_small.zarr")
    >>> spec = next(spec for spec in trace.ops() if spec.op == "down")
    >>> spec.m, spec.k, spec.n
    (289, 1536, 384)
    """

    op: str
    layer: int
    kind: Literal["gemm", "vector"]
    m: int
    k: int
    n: int
    repeat: int = 1
    input_site: str | None = None
    output_site: str | None = None
    weight_bytes: int = 0
    has_weight: bool = True
    tokens_per_pass: int = 0
    shared: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates: M K N repeat; none for vector ops."""
        return self.m * self.k * self.n * self.repeat if self.kind == "gemm" else 0


Shape = tuple[int, ...]  # sequences, tokens of each, and tokens of each target where there is a second stack


@dataclass(frozen=True)
class Dim:
    """``c B^b min(S + o, w)^s min(T, w)^t``; without a window w as if it were never reached."""

    c: int
    b: int = 0
    s: int = 0
    o: int = 0
    t: int = 0
    w: int = 0

    def at(self, batch: int, length: int, target: int = 1) -> int:
        """Evaluate for `batch` sequences of `length` tokens, and of `target` tokens in the second stack."""
        rows = length + self.o
        if self.w:
            rows, target = min(rows, self.w), min(target, self.w)
        return int(self.c * batch**self.b * rows**self.s * target**self.t)

    def to_list(self) -> list[int]:
        """Return plain data, in the form of older traces where neither a second stack nor a window says more."""
        more = [self.t, self.w] if self.w else [self.t] if self.t else []
        return [self.c, self.b, self.s, self.o, *more]


ONE = Dim(1)


@dataclass(frozen=True)
class Template:
    """One executed operator, with its dimensions as functions of the batch's shape.

    A vector op has ``m repeat`` elements: attention scores over a prefix are no product of one power of S alone.
    """

    op: str
    layer: int
    kind: Literal["gemm", "vector"]
    m: Dim
    k: Dim
    n: Dim
    repeat: Dim
    has_weight: bool
    weight_bytes: int
    input_site: str | None = None
    output_site: str | None = None
    shared: Dim = ONE

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        dims: dict[str, Any] = {d: getattr(self, d).to_list() for d in ("m", "k", "n", "repeat")}
        if self.shared != ONE:
            dims["shared"] = self.shared.to_list()
        rest = ("op", "layer", "kind", "has_weight", "weight_bytes", "input_site", "output_site")
        return {name: getattr(self, name) for name in rest} | dims

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Template:
        """Rebuild what `to_dict` returned."""
        dims: dict[str, Any] = {d: Dim(*data[d]) for d in ("m", "k", "n", "repeat", "shared") if d in data}
        return cls(**(data | dims))


def fit_dim(values: Sequence[int], shapes: Sequence[Shape]) -> Dim:
    """Find ``c B^b (S + o)^s T^t`` through a dimension's value in two runs.

    Raises
    ------
    InputError
        If no such form fits: the model does something with its input's shape that a list of ops cannot hold.
    """
    (v1, v2), (first, second) = values, shapes
    if v1 == v2:
        return Dim(v1)
    powers = [(1, 1, 0), (1, 0, 0), (0, 1, 0), (1, 2, 0), (0, 2, 0)]
    if len(first) > 2:
        powers += [(b, s, t) for t in (1, 2) for b in (1, 0) for s in range(3 - t)]
    for b, s, t in powers:
        one, two = (Dim(1, b, s, 0, t).at(*shape) for shape in shapes)
        if v1 % one == 0 and v2 % two == 0 and v1 // one == v2 // two:
            return Dim(v1 // one, b, s, 0, t)
    (b1, s1), (b2, s2) = first[:2], second[:2]
    found: list[Dim] = []
    for b in (0, 1) if s1 != s2 else ():
        rest1, rest2 = v1 // b1**b, v2 // b2**b
        scale, left = divmod(rest2 - rest1, s2 - s1)
        offset, odd = divmod(rest1 - scale * s1, scale) if scale > 0 else (0, 1)
        if v1 % b1**b == 0 and v2 % b2**b == 0 and left == 0 and odd == 0:
            found.append(Dim(scale, b, 1, offset))
    if found:
        return min(found, key=lambda dim: abs(dim.o))  # special tokens and sinks are few
    raise InputError(
        f"an operator's dimension is {v1} for a batch of {' x '.join(map(str, first))} tokens and {v2} for "
        f"{' x '.join(map(str, second))}; this model's ops cannot be described by its batch's shape"
    )


def expand(templates: Iterable[Template], shapes: Sequence[Shape], passes: int | None = None) -> list[OpSpec]:
    """Evaluate templates over many inputs and join what is one operation.

    Parameters
    ----------
    templates : iterable of Template
        In execution order.
    shapes : sequence of (int, int) or (int, int, int)
        (sequences, tokens each, tokens of each target) of every input; a single sequence of real tokens each, or whole
        padded batches.
    passes : int, optional
        Forward passes these inputs took, if not one each.

    Returns
    -------
    list of OpSpec
        Ops with a weight have their rows summed; those without are listed once for each distinct shape.
    """
    counted = Counter(shapes)
    launches = passes or len(shapes)
    specs: list[OpSpec] = []
    for t in templates:
        empty = OpSpec(t.op, t.layer, t.kind, 0, 1, 1, 1, t.input_site, t.output_site, t.weight_bytes, t.has_weight)
        if t.kind == "vector":
            elements = sum(t.m.at(*shape) * t.repeat.at(*shape) * times for shape, times in counted.items())
            specs.append(replace(empty, m=elements, tokens_per_pass=max(1, elements // launches)))
        elif t.has_weight:
            rows = sum(t.m.at(*shape) * t.repeat.at(*shape) * times for shape, times in counted.items())
            k, n = t.k.at(*shapes[0]), t.n.at(*shapes[0])
            specs.append(replace(empty, m=rows, k=k, n=n, tokens_per_pass=max(1, round(rows / launches))))
        else:
            sizes: Counter[tuple[int, ...]] = Counter()
            for shape, times in sorted(counted.items()):
                sizes[tuple(dim.at(*shape) for dim in (t.m, t.k, t.n, t.shared))] += t.repeat.at(*shape) * times
            specs += [
                replace(empty, m=m, k=k, n=n, repeat=repeat, tokens_per_pass=m, shared=shared)
                for (m, k, n, shared), repeat in sizes.items()
            ]
    return [spec for spec in specs if spec.m and spec.repeat]


def join(prefill: Sequence[OpSpec], decode: Sequence[OpSpec]) -> list[OpSpec]:
    """Join the ops of two phases: where both read the same weights their rows are summed, others are listed apart."""
    if not prefill or not decode:
        return [*prefill, *decode]
    waiting: dict[tuple[object, ...], list[OpSpec]] = {}
    for op in decode:
        waiting.setdefault(_identity(op), []).append(op)
    joined = []
    for op in prefill:
        same = waiting.get(_identity(op))
        if same and (op.has_weight or op.kind == "vector"):
            other = same.pop(0)
            passes = round(op.m / op.tokens_per_pass) + round(other.m / other.tokens_per_pass)
            op = replace(op, m=op.m + other.m, tokens_per_pass=max(1, round((op.m + other.m) / passes)))
        joined.append(op)
    return joined + [op for rest in waiting.values() for op in rest]


def _identity(op: OpSpec) -> tuple[object, ...]:
    rows = 0 if op.has_weight or op.kind == "vector" else op.m
    return (op.op, op.layer, op.kind, rows, op.k, op.n, op.input_site, op.weight_bytes)
