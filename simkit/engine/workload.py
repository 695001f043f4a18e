"""A trace's operations with their masks, ready to be counted on many archs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import hwmodels
from hwmodels import Arch, Mask, OnesMask, Op, PackedMask
from hwmodels.explain import explain
from hwmodels.mapping.residency import Residence
from hwmodels.mask import load, words_per_row
from hwmodels.memo import Known, Memo, Moved, remembered
from hwmodels.memory import model_residences
from hwmodels.registry import kernel_of, params_of

from ..errors import InputError
from ..results.runs import Ops, label_of, op_list, trace_facts
from .layout import Counted, Layout, Tally

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from traces import OpSpec, Trace
    from traces.transform.launches import Group

# masks of a workload up to this many bytes stay in memory where it is counted again and again
HOLD_BYTES = 512 << 20


class Workload:
    """The ops of one trace.

    Parameters
    ----------
    trace : Trace
        Where the masks are.
    ops : str or iterable of str, optional
        Only these; all by default.
    weights : str
        Which weight masks, as in `simkit.replay`.
    batch, speculative : int, optional
        Tokens of one launch, as in `simkit.replay`.
    hold : bool
        Keep masks in memory and what was counted of them, for a sweep; otherwise masks are streamed each time.

    Raises
    ------
    InputError
        If the trace lacks one of these ops.
    """

    def __init__(
        self,
        trace: Trace,
        ops: Ops = None,
        weights: str = "recorded",
        batch: int | None = None,
        hold: bool = False,
        speculative: int | None = None,
    ):
        if batch is not None and batch < 1:
            raise InputError(f"batch = {batch}: a launch has at least 1 token; leave it out for the recorded passes")
        if speculative is not None and speculative < 1:
            raise InputError(f"speculative = {speculative}: at least 1 token is verified at a time")
        self.trace, self.weights, self.batch, self.speculative = trace, weights, batch, speculative
        self.wanted = check_ops(trace, ops)
        if speculative is None:
            self.items = list(build_ops(trace, self.wanted, weights, batch))
        else:
            self.items = list(build_launches(trace, self.wanted, weights, batch or 1, speculative))
        self.vectors = vector_specs(trace, self.wanted)
        if not self.items and not self.vectors:
            raise InputError(f"trace '{trace.name}' has no operations; record it again")
        if hold:
            self.items = _held(self.items)
        # dense GEMMs of one shape recur in every layer: each shape is counted once
        places: dict[Any, int] = {}
        self._place = [places.setdefault(_likeness(op), len(places)) for op in self.items]
        self._distinct = [self.items[self._place.index(place)] for place in range(len(places))]
        self._memo = Memo()
        self._layouts: dict[str, Known] = {}
        self.facts = trace_facts(trace)

    @property
    def tuning(self) -> str:
        """Name of its tuning: see `label_of`."""
        return label_of(self.facts, self.weights)

    def count(self, arch: Arch, threads: int | None = None) -> Tally:
        """Count every op on an arch; kernels release the GIL, so threads share them out."""
        if arch.vector_lanes is None and not self.items:
            raise InputError(f"arch '{arch.name}' states no vector unit, and the ops {self.wanted} are vector ops")
        key = f"{arch.kernel} {params_of(arch)}"
        found = remembered(self._layouts, key, arch, lambda view: self._found(view, threads or os.cpu_count() or 1))
        # laid out on the arch itself: what it reads there, bandwidth and clock, is not what a layout depends on
        if found.layout is None:
            found.layout = Layout(self.items, found.place, found.moved, found.vectors, arch)
        layout: Layout = found.layout
        return layout.at(arch)

    def residences(self, arch: Arch) -> list[tuple[Residence, Residence]]:
        """Where the weights of each of `items` live on an arch, as they are and uncompressed.

        All ops of the trace take their place on the chip, those that are left out of the replay too.
        """
        if arch.memory.weights == "streamed":
            return [(Residence(False), Residence(False)) for _ in self.items]
        known = {(op.layer, op.name) for op in self.items}
        seen = {id(op): self._memo.seen(op, arch) for op in self.items}
        ops = [*self.items, *(op for op in self._model if (op.layer, op.name) not in known)]
        ops.sort(key=lambda op: self._order[op.layer, op.name])
        # an op that is not replayed may lack the masks that the design needs to run it
        own = model_residences([seen.get(id(op), op) for op in ops], arch)
        dense = model_residences([op.dense() for op in ops], arch)
        found = {id(op): pair for op, pair in zip(ops, zip(own, dense, strict=True), strict=True)}
        return [found[id(op)] for op in self.items]

    def explain(self, arch: Arch) -> list[dict[str, Any]]:
        """Explain the mapping of every op on an arch, as `hwmodels.explain.explain`, with its ``layer``."""
        where = self.residences(arch)
        known: dict[Any, dict[str, Any]] = {}
        found = []
        for op, place, (own, _) in zip(self.items, self._place, where, strict=True):
            if (place, own) not in known:
                known[place, own] = explain(op, arch, own)
            one = known[place, own]
            # alike in another layer or under another name, it was explained once
            named = {**one["op"], "name": op.name}
            found.append({"layer": op.layer, **one, "op": named, "resident": own.on_chip})
        return found

    @cached_property
    def _model(self) -> list[Op]:
        """GEMMs of the whole trace, in order."""
        return self.items if self.wanted is None else list(build_ops(self.trace, None, self.weights, self.batch))

    @cached_property
    def _order(self) -> dict[tuple[int, str], int]:
        return {key: place for place, key in enumerate(dict.fromkeys((op.layer, op.name) for op in self._model))}

    def _found(self, arch: Arch, threads: int) -> _Found:
        # alike but for where their weights live, two layers are two
        kinds: dict[tuple[int, Residence, Residence], int] = {}
        where = self.residences(arch)
        place = [kinds.setdefault((one, *pair), len(kinds)) for one, pair in zip(self._place, where, strict=True)]

        def move(kind: tuple[int, Residence, Residence]) -> Moved:
            return self._memo.move(self._distinct[kind[0]], arch, *kind[1:])

        if threads == 1:
            moved = [move(kind) for kind in kinds]
        else:
            with ThreadPoolExecutor(threads) as pool:
                moved = list(pool.map(move, kinds))
        vectors = []
        for spec in self.vectors if arch.vector_lanes is not None else []:
            shape = {"layer": spec.layer, "op": spec.op, "kind": "vector", "m": spec.m, "k": 1, "n": 1, "batch": spec.m}
            counts = hwmodels.simulate_vector(spec.m * spec.repeat, arch)
            vectors.append(Counted({**shape, "repeat": spec.repeat}, None, counts))
        return _Found(place, moved, vectors)


def explain_shape(arch: Arch, text: str) -> dict[str, Any]:
    """Explain the mapping of one dense op of shape ``"M,K,N"``.

    Raises
    ------
    InputError
        If the text is not three whole numbers of at least 1.
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--op '{text}' is not M,K,N: three whole numbers of at least 1, e.g. 512,1536,384")
    m, k, n = (int(part) for part in parts)
    return explain(Op("op", 0, m, k, n, weight=OnesMask(n, k)), arch)


@dataclass
class _Found:
    """What was counted on an arch, laid out when first asked for."""

    place: list[int]
    moved: list[Moved]
    vectors: list[Counted]
    layout: Layout | None = None


def left_out(trace: Trace, arch: Arch, weights: str, ops: list[str] | None = None) -> list[str]:
    """Say what of a workload a design leaves out or cannot use, one line each; empty where there is nothing."""
    name = arch.variant_of or arch.name
    told = []
    if weights.partition(":")[0] not in ("recorded", "dense") and "weight" not in kernel_of(arch).skips:
        told.append(f"{name}: weights '{weights}' change nothing, the design is {arch.sides}")
    if arch.vector_lanes is None and (vectors := vector_specs(trace, ops)):
        kinds = ", ".join(dict.fromkeys(spec.op for spec in vectors))
        told.append(
            f"{name}: states no vector_lanes, so all vector ops ({kinds}) are left out and speed-ups are of GEMMs alone"
        )
    return told


def check_ops(trace: Trace, ops: Ops) -> list[str] | None:
    """Refuse an op that a trace does not have; return the wanted ones in order of the alphabet, None for all.

    Raises
    ------
    InputError
        Naming the nearest, or those that it has.
    """
    known = () if ops is None else {spec.op for spec in trace.ops()}
    wanted = op_list(ops, known, f"trace '{trace.name}'")
    return None if wanted is None else sorted(wanted)


def _likeness(op: Op) -> Any:
    """Key that ops with the same counts share; an op with masks is like no other."""
    weight = "ones" if isinstance(op.weight, OnesMask) else op.weight
    if op.activation is not None or op.output is not None or not (weight is None or weight == "ones"):
        return id(op)
    return op.m, op.k, op.n, op.batch, op.repeat, op.shared, op.phase, op.has_weight, weight


def _held(items: list[Op]) -> list[Op]:
    """Load masks into memory where all of them fit `HOLD_BYTES`."""
    masks = [mask for op in items for mask in (op.activation, op.weight, op.output) if mask is not None]
    if sum(mask.shape[0] * words_per_row(mask.shape[1]) * 8 for mask in masks) > HOLD_BYTES:
        return items

    def hold(mask: Mask | None) -> Mask | None:
        return mask if mask is None or isinstance(mask, OnesMask) else load(mask)

    return [replace(op, activation=hold(op.activation), weight=hold(op.weight), output=hold(op.output)) for op in items]


def build_ops(
    trace: Trace, ops: list[str] | None = None, weights: str = "recorded", batch: int | None = None
) -> Iterable[Op]:
    """Turn a trace's op list into hardware ops with the recorded masks."""
    for spec in _gemms(trace, ops):
        yield _recorded(trace, spec, weights, batch)


def build_launches(trace: Trace, ops: list[str] | None, weights: str, sequences: int, speculative: int) -> Iterable[Op]:
    """Turn a trace's op list into hardware ops whose rows stand launch by launch; see `traces.transform.launches`.

    Decoded tokens are regrouped, a launch of each size an op of its own; prompts stay as they were recorded. So does
    attention, which has no weights: its keys are read for every token.
    """
    from traces.transform.launches import decoding_phase, groups, launches

    numbers, phase = launches(trace, sequences, speculative), decoding_phase(trace)
    every = groups(numbers[numbers >= 0])
    if phase == "decode":
        yield from (_recorded(trace, spec, weights, None, "prefill") for spec in _gemms(trace, ops, "prefill"))
    for spec in _gemms(trace, ops, phase):
        if spec.has_weight and _per_token(trace, spec, sum(len(group.rows) for group in every)):
            yield from _launched(trace, spec, weights, numbers, every)
        else:
            yield _recorded(trace, spec, weights, None, phase)


def _gemms(trace: Trace, ops: list[str] | None, phase: str | None = None) -> Iterable[OpSpec]:
    return (one for one in trace.ops(phase=phase) if one.kind == "gemm" and (ops is None or one.op in ops))


def _per_token(trace: Trace, spec: OpSpec, tokens: int) -> bool:
    """Whether an op has a row for each token, or for those routed to an expert: a pooler has one for each sequence."""
    return spec.m == tokens or (spec.input_site is not None and trace.sites[spec.input_site].source is not None)


def _launched(
    trace: Trace, spec: OpSpec, weights: str, numbers: NDArray[np.int64], every: Sequence[Group]
) -> Iterable[Op]:
    from traces.transform.launches import decoding_phase, grouped_masks

    plain = _recorded(trace, spec, weights, None, decoding_phase(trace))
    inputs = grouped_masks(trace.sites[spec.input_site], numbers) if spec.input_site else []
    outputs = grouped_masks(trace.sites[spec.output_site], numbers) if spec.output_site else []
    sizes = [(group.size, len(group.rows)) for group in every]
    sizes = [(size, mask.shape[0]) for size, mask in inputs or outputs] or sizes
    for place, (size, rows) in enumerate(sizes):
        yield replace(
            plain,
            m=rows,
            batch=size,
            activation=inputs[place][1] if inputs else None,
            output=outputs[place][1] if outputs else None,
        )


def _recorded(trace: Trace, spec: OpSpec, weights: str, batch: int | None, phase: str | None = None) -> Op:
    site = trace.sites[spec.input_site] if spec.input_site else None
    output = trace.sites[spec.output_site] if spec.output_site else None
    # the input that gate and up share belongs to up; a gate keeps the weights of up, whose outputs it decides on
    recorded = site.weight_mask() if site and site.op == spec.op else None
    if recorded is None and output:
        recorded = output.weight_mask()
    return Op(
        name=spec.op,
        layer=spec.layer,
        m=spec.m,
        k=spec.k,
        n=spec.n,
        activation=site.mask(phase=phase) if site else None,
        weight=weight_mask(weights, spec.n, spec.k, recorded) if spec.has_weight else None,
        output=output.mask(phase=phase) if output else None,
        batch=batch if batch is not None and spec.has_weight else spec.tokens_per_pass,
        repeat=spec.repeat,
        has_weight=spec.has_weight,
        shared=spec.shared,
    )


def weight_mask(weights: str, n: int, k: int, recorded: Mask | None) -> Mask | None:
    """Choose the weight mask (N, K) of one op; see `replay` for the words.

    Raises
    ------
    InputError
        If the word is unknown or the density is not in (0, 1].
    """
    if weights == "recorded":
        return recorded
    if weights == "dense":
        return OnesMask(n, k)
    kind, _, text = weights.partition(":")
    try:
        density = float(text)
    except ValueError:
        density = 0.0
    if kind != "random" or not 0 < density <= 1:
        raise InputError(f"weights '{weights}' is not known; say recorded, dense, or random:DENSITY (e.g. random:0.5)")
    return PackedMask.bernoulli(n, k, density, seed=n * 1_000_003 + k)


def vector_specs(trace: Trace, ops: list[str] | None = None) -> list[OpSpec]:
    """Return the trace's vector ops (norms, softmax, activation, residual), those of one name in a layer as one."""
    joined: dict[tuple[int, str], OpSpec] = {}
    for spec in trace.ops():
        if spec.kind == "vector" and (ops is None or spec.op in ops):
            # a result's key is (layer, op): a layer's two norms would be one op whose figures count once
            first = joined.get((spec.layer, spec.op))
            elements = spec.m * spec.repeat + (first.m if first else 0)
            joined[spec.layer, spec.op] = replace(first or spec, m=elements, repeat=1)
    return list(joined.values())
