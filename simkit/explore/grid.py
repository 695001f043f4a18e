"""The points of a sweep: every trace on every variant of every arch, priced by every table."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

import hwmodels
from hwmodels import Arch, EnergyTable
from hwmodels.errors import nearest
from hwmodels.registry import fitting, kernel_of

from ..engine.inputs import arch as load_arch
from ..engine.inputs import load_trace
from ..engine.replay import run_key, warn_left_out
from ..engine.workload import check_ops, weight_mask
from ..errors import InputError
from ..provenance import key_of
from ..results.runs import Ops, trace_facts, trace_labels
from .expression import Expression

if TYPE_CHECKING:
    from traces import Trace

    from .spec import SweepSpec

Values = Mapping[str, Any]
Fields = tuple[tuple[str, Any], ...]
Group = tuple[Fields, ...]
# names that constraints may use besides the fields
CONTEXT = ("trace", "arch", "table", "weights")


class Point(NamedTuple):
    """One run to do: places in the plan's lists, and the fields that differ from the arch as loaded."""

    trace: int
    arch: int
    fields: Fields
    table: int
    weights: str


@dataclass(frozen=True)
class Variants:
    """An arch and the fields to vary: `groups` are crossed, each a list of sets of fields that change at once."""

    arch: Arch
    groups: tuple[Group, ...] = ()

    def __len__(self) -> int:
        return math.prod(len(group) for group in self.groups)

    def __iter__(self) -> Iterator[Fields]:
        for chosen in itertools.product(*self.groups):
            yield tuple(pair for part in chosen for pair in part)

    @cached_property
    def plain(self) -> dict[tuple[str, Any], Any]:
        """Plain value of every (field, value as given), in the unit the arch has inside; refuses what does not fit."""
        found: dict[tuple[str, Any], Any] = {}
        refused: dict[str, InputError] = {}
        for name, value in dict.fromkeys(pair for group in self.groups for chosen in group for pair in chosen):
            try:
                # parameters have no unit, and there may be very many of them
                if name in self.arch.params:
                    found[name, value] = fitting(self.arch, name, value)
                else:
                    found[name, value] = plain_value(self.arch.with_(**{name: value}), name)
            except InputError as error:
                # a value out of range is a failed point of the sweep, a field of such values alone a mistake
                if name not in self.arch.params:
                    raise
                found[name, value] = value
                refused.setdefault(name, error)
        for name, why in refused.items():
            if not any(key == name and _fits(self.arch, name, value) for key, value in found):
                raise why
        return found


def _fits(arch: Arch, name: str, value: Any) -> bool:
    try:
        fitting(arch, name, value)
    except InputError:
        return False
    return True


@dataclass(frozen=True)
class Plan:
    """All points.

    Parameters
    ----------
    traces : sequence of Trace
        What was recorded.
    variants : sequence of Variants
        Archs and their fields.
    tables : sequence of EnergyTable
        Prices.
    ops : list of str, optional
        Only these ops.
    weights : sequence of str
        Weight masks, as in `simkit.replay`.
    constraints : sequence of Expression
        What a point must fulfil.
    """

    traces: Sequence[Trace]
    variants: Sequence[Variants]
    tables: Sequence[EnergyTable]
    ops: list[str] | None = None
    weights: Sequence[str] = ("recorded",)
    constraints: Sequence[Expression] = field(default=())

    @cached_property
    def trace_names(self) -> list[str]:
        """Names of the traces; those of one name with what differs between them."""
        return trace_labels([trace_facts(trace) for trace in self.traces], [trace.name for trace in self.traces])

    def grid_size(self) -> int:
        """Points before constraints."""
        return len(self.traces) * len(self.weights) * len(self.tables) * sum(len(one) for one in self.variants)

    def points(self) -> Iterator[Point]:
        """Yield the points that fulfil the constraints.

        Tables vary fastest, then memory, clock and the like, then kernel parameters: neighbours share their counts.
        """
        for trace, weights, arch in itertools.product(range(len(self.traces)), self.weights, range(len(self.variants))):
            for fields in self.variants[arch]:
                for table in range(len(self.tables)):
                    point = Point(trace, arch, fields, table, weights)
                    if all(self.fulfils(point, rule) for rule in self.constraints):
                        yield point

    def count(self) -> int:
        """Points that fulfil the constraints."""
        return sum(1 for _ in self.points()) if self.constraints else self.grid_size()

    def fulfils(self, point: Point, rule: Expression) -> bool:
        """Whether a point keeps to a constraint."""
        return bool(rule.value(self._lookup(point)))

    def facts(self, point: Point) -> dict[str, Any]:
        """Say what a point is, for people."""
        return {
            "trace": self.trace_names[point.trace],
            "arch": self.variants[point.arch].arch.name,
            "table": self.tables[point.table].name,
            "weights": point.weights,
            "fields": dict(point.fields),
        }

    def plain_fields(self, point: Point) -> dict[str, Any]:
        """Plain values of a point's fields, for a column of numbers; None for text that its field does not take."""
        base = self.variants[point.arch].arch
        found: dict[str, Any] = {}
        for name, value in point.fields:
            try:
                found[name] = plain_value(base.with_(**{name: value}), name)
            except InputError:
                found[name] = None if isinstance(value, str) else value
        return found

    def arch(self, point: Point) -> Arch:
        """Build the arch of a point."""
        base = self.variants[point.arch].arch
        return base.with_(**dict(point.fields)) if point.fields else base

    def run(self, point: Point) -> str:
        """Content key of a point; a key of its own for one whose arch cannot be built."""
        try:
            arch = self.arch(point)
        except InputError as error:
            return key_of(str(error), point)
        return run_key(self.traces[point.trace], arch, self.tables[point.table], self.ops, point.weights)

    def _lookup(self, point: Point) -> Any:
        variants = self.variants[point.arch]
        given = dict(point.fields)

        def lookup(name: str) -> Any:
            if name in given:
                return variants.plain[name, given[name]]
            return self.facts(point)[name] if name in CONTEXT else plain_value(variants.arch, name)

        return lookup


def plain_value(arch: Arch, name: str) -> Any:
    """Plain value of a field by its dotted name; None where the arch does not state it."""
    if name in arch.params:
        return arch.params[name].value
    node: Any = arch
    for part in name.replace("__", ".").split("."):
        node = node.get(part) if isinstance(node, dict) else getattr(node, part, None)
    return getattr(node, "value", node)


def make_plan(
    traces: Sequence[Trace | str | os.PathLike[str]],
    archs: Sequence[tuple[Arch | str, Values]],
    *,
    tables: Sequence[EnergyTable | str],
    ops: Ops = None,
    weights: Sequence[str] = ("recorded",),
    fields: Values | None = None,
    together: Sequence[Mapping[str, Any]] = (),
    constraints: Sequence[str] = (),
    most: int | None = None,
) -> Plan:
    """Load and check everything that a sweep needs, before anything is computed; `most` points at most.

    Raises
    ------
    InputError
        On an unknown field, name or value, an empty grid, or constraints that leave no point.
    """
    if not traces or not archs:
        raise InputError("a sweep needs at least one trace and one arch")
    for word in weights:
        weight_mask(word, 1, 1, None)
    plan = Plan(
        traces=[load_trace(one) if isinstance(one, (str, os.PathLike)) else one for one in traces],
        variants=[_variants(one, {**(fields or {}), **own}, together) for one, own in archs],
        tables=[hwmodels.load_table(one) if isinstance(one, str) else one for one in tables],
        ops=None if ops is None else sorted({ops} if isinstance(ops, str) else set(ops)),
        weights=weights,
        constraints=[Expression(text) for text in constraints],
    )
    for trace in plan.traces:
        check_ops(trace, plan.ops)
        for word in plan.weights:
            warn_left_out(trace, [one.arch for one in plan.variants], word, plan.ops)
    if most is not None and plan.grid_size() > most:
        raise InputError(f"a grid of {plan.grid_size():,} points; look at it with --dry-run, or go ahead with --yes")
    for variants in plan.variants:
        _ = variants.plain
        for rule in plan.constraints:
            rule.require({*CONTEXT, *_settable(variants.arch)})
    if next(plan.points(), None) is None:
        told = " and ".join(f"'{text}'" for text in constraints)
        raise InputError(f"no point is left: the constraints rule out all {plan.grid_size():,}; relax one of {told}")
    return plan


def plan_of(spec: SweepSpec, most: int | None = None) -> Plan:
    """Load what a spec names."""
    return make_plan(
        spec.trace_paths(),
        [(entry.name, entry.fields) for entry in spec.entries()],
        tables=spec.tables,
        ops=spec.ops,
        weights=spec.weights,
        fields=spec.fields,
        together=spec.together,
        constraints=spec.constraints,
        most=most,
    )


def _variants(one: Arch | str, fields: Values, together: Sequence[Mapping[str, Any]]) -> Variants:
    arch = load_arch(one) if isinstance(one, str) else one
    known = _settable(arch)
    for name in [*fields, *(name for chosen in together for name in chosen)]:
        if name.replace("__", ".") not in known:
            raise InputError(f"arch '{arch.name}' has no field '{name}'" + nearest(name, known))
    groups: list[Group] = [
        tuple(((name.replace("__", "."), value),) for value in _axis(arch, name, values))
        for name, values in fields.items()
    ]
    if together:
        groups.append(tuple(tuple((n.replace("__", "."), v) for n, v in chosen.items()) for chosen in together))
    # what changes the counts varies slowest
    groups.sort(key=lambda group: not any(name in arch.params for chosen in group for name, _ in chosen))
    return Variants(arch, tuple(groups))


def _axis(arch: Arch, name: str, given: Any) -> list[Any]:
    """Return the values of a field; a range over whole numbers is rounded, and refused where it loses points."""
    from .spec import axis_values

    whole = name in arch.params and get_type_hints(kernel_of(arch).params).get(name) is int
    try:
        return axis_values(given, whole=whole or name.replace("__", ".").startswith("bits."))
    except InputError as error:
        raise InputError(f"fields.{name}: {error}") from None


def _settable(arch: Arch) -> set[str]:
    return set(arch.settable())
