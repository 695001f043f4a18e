"""What ``simkit sweep SPEC.yaml`` reads: traces x archs x any field x energy tables.

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
"""

from __future__ import annotations

import glob
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from hwmodels.config import Frozen, from_yaml
from hwmodels.errors import nearest
from hwmodels.units import quantity

from ..errors import InputError

Scalar = bool | int | float | str
RANGE_FIELDS = ("from", "to", "points", "step", "scale")
SIGNIFICANT = 4


class Range(Frozen):
    """Evenly spaced values, linear or logarithmic.

    Parameters
    ----------
    first, last : number or str
        Ends, both included; written ``from`` and ``to``; text has a unit.
    points : int, optional
        How many values, at least 2.
    step : number or str, optional
        Distance between values instead; linear only.
    scale : {"linear", "log"}
        Log ranges have a constant ratio between values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    first: int | float | str = Field(alias="from")
    last: int | float | str = Field(alias="to")
    points: int | None = Field(default=None, ge=2, le=1_000_000)
    step: int | float | str | None = None
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _one_spacing(self) -> Range:
        if (self.points is None) == (self.step is None):
            raise ValueError("give either points or step")
        if self.step is not None and self.scale == "log":
            raise ValueError("a log range takes points, not a step")
        first, last, _ = self._numbers()
        if not first < last:
            raise ValueError(f"'from' ({self.first}) must be below 'to' ({self.last})")
        if self.scale == "log" and first <= 0:
            raise ValueError(f"a log range must start above 0, not at {self.first}")
        return self

    def values(self) -> list[Scalar]:
        """Return the values: whole numbers where both ends are, text with the unit of ``from`` where it has one."""
        first, last, unit = self._numbers()
        if self.step is not None:
            step = _number(self.step, unit)
            if step <= 0:
                raise InputError(f"step {self.step} must be above 0")
            raw = [first + i * step for i in range(math.floor((last - first) / step * (1 + 1e-12)) + 1)]
        else:
            count = (self.points or 2) - 1
            ratio = last / first if self.scale == "log" else 0.0
            raw = [
                first * ratio ** (i / count) if self.scale == "log" else first + (last - first) * i / count
                for i in range(count + 1)
            ]
        if isinstance(self.first, int) and isinstance(self.last, int):
            return list(dict.fromkeys(round(value) for value in raw))
        rounded = [float(f"{value:.{SIGNIFICANT}g}") for value in raw]
        return [f"{value:g} {unit}" for value in rounded] if unit else list(rounded)

    def _numbers(self) -> tuple[float, float, str]:
        if not isinstance(self.first, str):
            if isinstance(self.last, str):
                raise ValueError(f"'from' ({self.first}) has no unit, 'to' ({self.last}) has one; give both a unit")
            return float(self.first), float(self.last), ""
        number, unit = quantity(self.first)
        return number, _number(self.last, unit), unit


def _number(value: float | str, unit: str) -> float:
    if not isinstance(value, str):
        if unit:
            raise ValueError(f"{value} has no unit; write it as text, e.g. '{value} {unit}'")
        return float(value)
    return quantity(value, unit)[0]


def _values(given: Any) -> Any:
    """Turn a range, a list or one value into the list of values."""
    if not isinstance(given, dict):
        values = given if isinstance(given, list) else [given]
        if not values:
            raise ValueError("an empty list; give at least one value")
        return list(dict.fromkeys(values))
    try:
        return Range.model_validate(given).values()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ValueError(f"unknown field '{name}'" + nearest(name, RANGE_FIELDS)) from None
        message = "field is missing; add it" if first["type"] == "missing" else first["msg"]
        raise ValueError(f"{name}: {message}" if name else message.removeprefix("Value error, ")) from None


Axis = Annotated[list[Scalar], BeforeValidator(_values)]


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
        """Return the traces, wildcards resolved.

        Raises
        ------
        InputError
            If a wildcard matches nothing.
        """
        found: list[str] = []
        for text in self.traces:
            if "://" in text or not glob.has_magic(text):
                found.append(text)
                continue
            matches = sorted(glob.glob(text))
            if not matches:
                raise InputError(f"traces: nothing matches '{text}' from {Path.cwd()}; check the path")
            found += matches
        return list(dict.fromkeys(found))


def load_spec(path: str | Path, model: type[Any] = SweepSpec) -> Any:
    """Read a spec.

    Raises
    ------
    InputError
        If there is no such file, or it has an unknown field, a wrong value, or YAML that cannot be read.
    """
    where = Path(path)
    try:
        text = where.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "the how-to 'Sweep and search a design space' shows one"
        raise InputError(f"cannot read the spec {where}: {getattr(error, 'strerror', error)}; {remedy}") from None
    spec: BaseModel = from_yaml(model, text, str(where))
    return spec
