"""Sweep specification, read from YAML: traces x archs x any field x energy tables.

    traces: [out/demo/traces/*.zarr]
    archs:
      - cnvlutin
      - {name: systolic_32x32, fields: {rows: [16, 32], columns: [16, 32]}}
    ops: [down]
    fields:
      clock: [500 MHz, 1 GHz]
      memory.bandwidth: {from: 10 GB/s, to: 1 TB/s, points: 9, scale: log}
    together:
      - {memory.activation_buffer: 1 MiB, memory.weight_buffer: 2 MiB}
      - {memory.activation_buffer: 4 MiB, memory.weight_buffer: 8 MiB}
    constraints: ['memory.bandwidth <= "400 GB/s" or clock > "0.5 GHz"']

Fields are crossed with one another; each entry of `together` changes several fields at once and is crossed with the
rest. Fields at the top are for every arch, those beside an arch for it alone.

A range gives whole numbers where both ends are whole and every value is; any other value keeps its fraction. For a
field that takes whole numbers alone, such as ``rows``, values are rounded, and a range that would lose points by it is
refused. A trace path that exists is itself, brackets and all; ``~`` is the home folder.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from hwmodels.config import Frozen, from_yaml
from hwmodels.errors import nearest
from hwmodels.units import quantity

from ..errors import InputError

Scalar = bool | int | float | str
RANGE_FIELDS = ("from", "to", "points", "step", "scale")
MOST_VALUES = 1_000_000
# short labels where they suffice; binary noise such as 0.30000000000000004 is gone at 12 digits
SIGNIFICANT, EXACT = 4, 12


class Range(Frozen):
    """Evenly spaced values, linear or logarithmic.

    Parameters
    ----------
    first, last : number or str
        Ends; written ``from`` and ``to``; text has a unit. Both are included, exactly as written, but for a step that
        does not reach ``to``: its last value is the one below.
    points : int, optional
        How many values, at least 2. Values between the ends are rounded to 4 significant digits, or to as many as keep
        a thousandth of their spacing.
    step : number or str, optional
        Distance between values instead; linear only.
    scale : {"linear", "log"}
        Log ranges have a constant ratio between values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    first: int | float | str = Field(alias="from")
    last: int | float | str = Field(alias="to")
    points: int | None = Field(default=None, ge=2, le=MOST_VALUES)
    step: int | float | str | None = None
    scale: Literal["linear", "log"] = "linear"

    @field_validator("first", "last", "points", "step", mode="before")
    @classmethod
    def _no_boolean(cls, given: Any) -> Any:
        if isinstance(given, bool):
            raise ValueError(f"{str(given).lower()} is not a number")
        return given

    @model_validator(mode="after")
    def _one_spacing(self) -> Range:
        if (self.points is None) == (self.step is None):
            raise ValueError("give either points or step")
        if self.step is not None and self.scale == "log":
            raise ValueError("a log range takes points, not a step")
        first, last, unit = self._numbers()
        if not (math.isfinite(first) and math.isfinite(last)):
            raise ValueError(f"'from' ({self.first}) and 'to' ({self.last}) must be finite")
        if not first < last:
            raise ValueError(f"'from' ({self.first}) must be below 'to' ({self.last})")
        if self.scale == "log" and first <= 0:
            raise ValueError(f"a log range must start above 0, not at {self.first}")
        if self.step is not None:
            step = _number(self.step, unit)
            if not (step > 0 and math.isfinite(step)):
                raise ValueError(f"step {self.step} must be above 0")
            if (last - first) / step >= MOST_VALUES:
                raise ValueError(f"step {self.step} makes more than {MOST_VALUES:,} values; give a longer step")
        return self

    def values(self) -> list[Scalar]:
        """Return the values: whole numbers where all are whole, text with the unit of ``from`` where it has one."""
        raw, unit = self._raw()
        # whole numbers are exact: their digits are not cut, and no end is a float that looks like one
        if isinstance(self.first, int) and isinstance(self.last, int) and all(_is_whole(value) for value in raw):
            return [round(value) for value in raw]
        shown = [_rounded(value, self._spacing(raw, i)) for i, value in enumerate(raw)]
        if self.step is None:
            shown[0], shown[-1] = raw[0], raw[-1]
        return [f"{value:.{EXACT}g} {unit}" for value in shown] if unit else list(shown)

    def whole_values(self) -> list[Scalar]:
        """Return the values for a field that takes whole numbers alone, each rounded to the nearest.

        Raises
        ------
        InputError
            If two of them round to one number.
        """
        raw, unit = self._raw()
        if unit:
            raise InputError(f"takes whole numbers without unit, not {self.first} to {self.last}")
        values: list[Scalar] = list(dict.fromkeys(round(value) for value in raw))
        if len(values) < len(raw):
            raise InputError(
                f"takes whole numbers, and of {len(raw)} values from {self.first} to {self.last} only {len(values)} "
                "differ as such; give fewer points, a step of at least 1, or a list"
            )
        return values

    def _raw(self) -> tuple[list[float], str]:
        first, last, unit = self._numbers()
        if self.step is not None:
            step = _number(self.step, unit)
            return [first + i * step for i in range(math.floor((last - first) / step * (1 + 1e-12)) + 1)], unit
        count = (self.points or 2) - 1
        if self.scale == "log":
            between = [first * (last / first) ** (i / count) for i in range(1, count)]
        else:
            between = [first + (last - first) * i / count for i in range(1, count)]
        return [first, *between, last], unit

    def _spacing(self, raw: list[float], i: int) -> float:
        """Distance to the nearer neighbour; 0 for a step, whose values are exact."""
        near = [abs(raw[i] - raw[j]) for j in (i - 1, i + 1) if 0 <= j < len(raw)]
        return 0.0 if self.step is not None else min(near)

    def _numbers(self) -> tuple[float, float, str]:
        if not isinstance(self.first, str):
            if isinstance(self.last, str):
                raise ValueError(f"'from' ({self.first}) has no unit, 'to' ({self.last}) has one; give both a unit")
            return float(self.first), float(self.last), ""
        number, unit = quantity(self.first)
        return number, _number(self.last, unit), unit


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) <= 1e-9 * max(1.0, abs(value))


def _rounded(value: float, spacing: float) -> float:
    """Round to the fewest digits that move a value by no more than a thousandth of its spacing."""
    for digits in range(SIGNIFICANT, EXACT):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= spacing * 1e-3:
            return short
    return float(f"{value:.{EXACT}g}")


def _number(value: float | str, unit: str) -> float:
    if not isinstance(value, str):
        if unit:
            raise ValueError(f"{value} has no unit; write it as text, e.g. '{value} {unit}'")
        return float(value)
    return quantity(value, unit)[0]


def _range(given: Any) -> Any:
    """Turn a range's mapping into a range, and one value into a list; check a list's values."""
    if isinstance(given, Range):
        return given
    if not isinstance(given, dict):
        values = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
        if not values:
            raise ValueError("an empty list; give at least one value")
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        for value in values:
            if not isinstance(value, Scalar):
                raise ValueError(f"{value!r} is no value; give numbers or text, or a range with 'from' and 'to'")
        # 1 and true are equal to Python, not to a field
        return list({(type(value), value): value for value in values}.values())
    try:
        return Range.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ValueError(f"unknown field '{name}'" + nearest(name, RANGE_FIELDS)) from None
        message = "field is missing; add it" if first["type"] == "missing" else first["msg"]
        message = message.removeprefix("Value error, ")
        raise ValueError(f"{name}: {message}" if name else message) from None


Axis = Annotated[Range | list[Scalar], BeforeValidator(_range)]


def axis_values(given: Any, *, whole: bool = False) -> list[Any]:
    """Return a field's values: those of a range, a list's, or the one that is given.

    Parameters
    ----------
    given : Range, mapping, list or one value
        As a spec has it.
    whole : bool
        Whether the field takes whole numbers alone.

    Raises
    ------
    InputError
        If it is no range or value, or a range loses points by rounding.
    """
    try:
        axis = _range(given)
    except ValueError as error:
        raise InputError(str(error)) from None
    if isinstance(axis, Range):
        return axis.whole_values() if whole else axis.values()
    return list(axis)


class ArchEntry(Frozen):
    """An arch with fields of its own."""

    name: str
    fields: dict[str, Axis] = {}


class SweepSpec(Frozen):
    """A design-space sweep.

    Parameters
    ----------
    traces : list of str
        Paths or URLs; local ones may have wildcards.
    archs : list
        Names, YAML paths, or ``{name, fields}``.
    tables : list of str
        Energy tables.
    ops : list of str, optional
        Only these ops.
    weights : list of str
        Which weight masks two-sided designs see; see `simkit.replay`.
    fields : dict
        Field -> list of values, a range, or one value; crossed with one another.
    together : list of dict
        Sets of fields that change at once.
    constraints : list of str
        Expressions over fields that a point must fulfil; see `simkit.explore.expression`.
    """

    traces: list[str]
    archs: list[str | ArchEntry]
    tables: list[str] = ["default_45nm"]
    ops: list[str] | None = None
    weights: list[str] = ["recorded"]
    fields: dict[str, Axis] = {}
    together: list[dict[str, Scalar]] = []
    constraints: list[str] = []

    @field_validator("traces", "archs", "tables", "weights", "constraints", mode="before")
    @classmethod
    def _one_is_a_list(cls, given: Any) -> Any:
        return [given] if isinstance(given, (str, dict)) else given

    @field_validator("traces", "archs", "tables", "weights")
    @classmethod
    def _not_empty(cls, given: list[Any]) -> list[Any]:
        if not given:
            raise ValueError("an empty list; give at least one")
        return given

    def entries(self) -> list[ArchEntry]:
        """Archs with the fields that are theirs alone."""
        return [ArchEntry(name=one) if isinstance(one, str) else one for one in self.archs]

    def trace_paths(self) -> list[str]:
        """Return the traces: a path that exists is itself, others have their wildcards resolved.

        Brackets are a wildcard where that matches something, else characters of a name.

        Raises
        ------
        InputError
            If a wildcard matches nothing, or brackets match either way.
        """
        found: list[str] = []
        for given in self.traces:
            text = given if "://" in given else os.path.expanduser(given)
            if "://" in text or os.path.exists(text) or not glob.has_magic(text):
                found.append(text)
                continue
            matches, literal = (sorted(glob.glob(pattern)) for pattern in (text, text.replace("[", "[[]")))
            if matches and literal and matches != literal:
                raise InputError(
                    f"traces: '{text}' matches {matches[0]} as a wildcard and {literal[0]} as it is written; write "
                    "[[] for a bracket in a name, or name the traces one by one"
                )
            if not matches and not literal:
                raise InputError(f"traces: nothing matches '{text}' from {Path.cwd()}; check the path")
            found += matches or literal
        return list(dict.fromkeys(found))


def load_spec(path: str | Path, model: type[Any] = SweepSpec) -> Any:
    """Read a spec.

    Raises
    ------
    InputError
        If there is no such file, or it has an unknown field, a wrong value, or YAML that cannot be read.
    """
    where = Path(path).expanduser()
    try:
        text = where.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "the how-to 'Sweep and search a design space' shows one"
        raise InputError(f"cannot read the spec {where}: {getattr(error, 'strerror', error)}; {remedy}") from None
    spec: BaseModel = from_yaml(model, text, str(where))
    return spec


def as_spec(given: Any, model: type[Any] = SweepSpec) -> Any:
    """Read a spec from a file, or check one that is given as a mapping or as the object itself.

    Raises
    ------
    InputError
        As `load_spec`; a mapping is called ``spec`` there.
    """
    if isinstance(given, model):
        return given
    if isinstance(given, Mapping):
        # JSON is YAML: the file's own checks and messages
        return from_yaml(model, json.dumps(dict(given), default=_written), "spec")
    if isinstance(given, (str, os.PathLike)):
        return load_spec(os.fspath(given), model)
    raise InputError(f"{type(given).__name__} is not a spec; give a YAML file's path, or a mapping of what it holds")


def _written(value: Any) -> Any:
    """Write what JSON lacks as a YAML file would have it: paths, NumPy's numbers and arrays."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise InputError(f"a spec cannot hold a {type(value).__name__} ({value!r}); give names, paths and plain values")
