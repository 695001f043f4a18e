"""An accelerator: its kernel, parameters, memory, and what each action costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from html import escape
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from .config import (
    Area,
    Bandwidth,
    Clock,
    Figure,
    Frozen,
    Node,
    Power,
    Size,
    Voltage,
    content_hash,
    faults,
    from_yaml,
    packaged,
)
from .errors import InputError, nearest
from .mapping.levels import FLAT, QUANTITIES, Level, LevelSpec, MappingSpec, check_specs, flat_fields, rooms
from .mapping.space import Dataflow
from .units import parse

# source of a figure that `Arch.with_` changed
OVERRIDE = "override"
Format = Literal["dense", "bitmap", "offset", "csc", "two_four"]
# 1,048,576: more PEs, lanes or entries than any chip has; beyond it arrays of that length would fill the memory
MOST_WHOLE = 1 << 20
WIDEST = 128


Times = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Action(Frozen):
    """Price of one action: the sum of energy-table rows, each times a factor.

    Parameters
    ----------
    rows : dict of str to float
        Row of the energy table -> how many of it one action takes (a 16-bit word of a per-bit row is 16).
    note : str
        Why these rows.
    """

    rows: dict[str, Times]
    note: str = ""


class Memory(Frozen):
    """The memory side.

    Parameters
    ----------
    bandwidth : Figure
        DRAM bandwidth, byte/s.
    burst : Figure
        Smallest DRAM transfer, byte.
    activation_buffer, weight_buffer : Figure
        On-chip buffers, byte: of inputs and outputs, and of weights.
    weights : {"streamed", "resident"}
        Whether weights come from DRAM at every launch, or live on the chip as far as they fit.
    activation_format, weight_format : str
        How operands are stored: ``dense``; ``bitmap`` (one bit an element); ``offset`` (an index with each
        non-zero); ``csc`` (a short run length with each non-zero, padding zeros where a run overflows);
        ``two_four`` (2 bits an entry).
    index_bits : Figure, optional
        Width of the index for ``offset`` and ``csc``.
    weight_fetch : {"all", "needed"}
        Whether a launch that streams its weights fetches all of them, or only the rows of K that one of its tokens
        has a non-zero activation for, each in whole bursts.
    levels : list of LevelSpec, optional
        Memory levels, DRAM first, instead of `bandwidth`, `burst` and the two buffers, which then follow from it.
    """

    bandwidth: Bandwidth
    burst: Size
    activation_buffer: Size
    weight_buffer: Size
    weights: Literal["streamed", "resident"]
    activation_format: Format = "dense"
    weight_format: Format = "dense"
    index_bits: Figure | None = None
    weight_fetch: Literal["all", "needed"] = "all"
    levels: list[LevelSpec] | None = None

    @model_validator(mode="before")
    @classmethod
    def _flat_fields_follow(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(raw.get("levels"), list):
            return raw
        try:
            specs = [LevelSpec.model_validate(one) for one in raw["levels"]]
            check_specs(specs)
        except ValueError:
            # reported where it is, once the fields are read one by one
            return {**dict.fromkeys(FLAT, Figure(value=1.0, source="none", status="assumed")), **raw}
        return {**flat_fields(specs), **raw}

    @field_validator("levels")
    @classmethod
    def _levels_are_a_hierarchy(cls, levels: list[LevelSpec] | None) -> list[LevelSpec] | None:
        if levels is not None:
            check_specs(levels)
        return levels

    @model_validator(mode="after")
    def _stated_once(self) -> Memory:
        for name, figure in flat_fields(self.levels).items() if self.levels is not None else ():
            if getattr(self, name) != figure:
                raise ValueError(f"memory.{name} and memory.levels are both given; state it in memory.levels alone")
        return self

    @cached_property
    def rooms(self) -> tuple[Level, ...]:
        """Levels without their bandwidths: all that decides what fits."""
        flat = (float(figure.value) for figure in (self.burst, self.activation_buffer, self.weight_buffer))
        return rooms(self.levels, *flat)

    @field_validator("index_bits")
    @classmethod
    def _whole_index(cls, bits: Figure | None) -> Figure | None:
        if bits is not None:
            _require_whole(bits.value, WIDEST, "index_bits = ")
        return bits

    @model_validator(mode="after")
    def _index_is_given(self) -> Memory:
        if {self.activation_format, self.weight_format} & {"offset", "csc"} and self.index_bits is None:
            raise ValueError("index_bits is missing; the formats offset and csc need it")
        return self


class Rules(Protocol):
    """What the kernels say of an arch. The registry, which knows them all, stands above this module and hands it in."""

    def kernel_of(self, arch: Arch, /) -> Any:
        """Return the kernel that an arch names."""

    def fitting(self, arch: Arch, name: str, value: Any, /) -> Any:
        """Return a parameter's value in the type that the kernel declares."""

    def dataflow_of(self, arch: Arch, /) -> Dataflow:
        """Return what an arch's kernel fixes about the loops around its array."""

    def arch_faults(self, arch: Arch, /) -> Iterator[tuple[list[Any], str]]:
        """Yield place and message of each thing that an arch and its kernel disagree about."""


_RULES: list[Rules] = []


def use_rules(rules: Rules) -> None:
    """Hold archs to these rules from now on."""
    _RULES[:] = [rules]


def _rules() -> Rules:
    return _RULES[0]


class Arch(Frozen):
    """A hardware configuration, one YAML file each.

    Parameters
    ----------
    name, title, description : str
        Identity and one line for people.
    kernel : str
        Registered kernel family that counts its cycles.
    source : str
        Key of ``references.bib`` for the design.
    params : dict of str to Figure
        The kernel's parameters (lanes, PEs, FIFO depth ...).
    clock : Figure
        Hz.
    node : Figure
        Technology node, nm; energies of other nodes are scaled to it.
    bits : dict
        ``activation``, ``weight``, ``accumulator`` widths in bits.
    memory : Memory
        DRAM and buffers.
    mapping : MappingSpec
        How ops are cut to fit the buffers: searched, or by hand.
    actions : dict of str to Action
        ``"component.action"`` -> price.
    static_power : Figure, optional
        Leakage, clock tree and idle, W; charged for the whole latency. Derived from the structure where left out.
    area : Figure, optional
        mm2; derived where left out.
    costs : {"scaled", "stated", "derived"}
        Whether stated prices, static power and area follow the structure of a variant, stand as they are, or give way
        to what the structure yields; see `costs.pricing`.
    voltage : Figure, optional
        Supply, V; the node's nominal one where left out. Energies, leakage and the highest clock follow it.
    vector_lanes : Figure, optional
        Elements a cycle of the vector unit; without it, vector ops are left out of replays, which say so.
    skips : list, optional
        Whose zeros save cycles: ``activation``, ``weight``, ``output``. The kernel decides; a file that states it is
        held to that.
    variant_of : str
        Name of the arch that `with_` changed.

    Examples
    --------
    >>> arch = hwmodels.load_arch("cnvlutin")
    >>> arch.with_(lanes=32)
    Arch('cnvlutin[lanes=32]': kernel cnvlutin, 606 MHz, lanes 32 (was 16))
    >>> arch.memory.bandwidth.value  # byte/s
    25600000000.0
    """

    name: str
    title: str
    description: str = ""
    kernel: str
    source: str
    params: dict[str, Figure] = {}
    clock: Clock
    node: Node
    bits: dict[Literal["activation", "weight", "accumulator"], Figure]
    memory: Memory
    mapping: MappingSpec = MappingSpec()
    actions: dict[str, Action] = {}
    static_power: Power | None = None
    area: Area | None = None
    voltage: Voltage | None = None
    costs: Literal["scaled", "stated", "derived"] = "scaled"
    vector_lanes: Figure | None = None
    skips: list[Literal["activation", "weight", "output"]] | None = None
    variant_of: str = ""
    _base: Arch | None = PrivateAttr(default=None)

    @field_validator("bits")
    @classmethod
    def _positive_bits(cls, bits: dict[str, Figure]) -> dict[str, Figure]:
        for name in ("activation", "weight", "accumulator"):
            if name not in bits:
                raise ValueError(f"bits.{name} must be given and at least 1")
            _require_whole(bits[name].value, WIDEST, f"bits.{name} = ")
        return bits

    @field_validator("vector_lanes")
    @classmethod
    def _some_lanes(cls, lanes: Figure | None) -> Figure | None:
        if lanes is not None:
            number = isinstance(lanes.value, int | float) and not isinstance(lanes.value, bool)
            if not (number and 0 < lanes.value <= MOST_WHOLE):
                raise ValueError(f"vector_lanes = {lanes.value!r}, must be positive and at most {MOST_WHOLE:,}")
        return lanes

    @property
    def clock_hz(self) -> float:
        """Clock, Hz."""
        return float(self.clock.value)

    @cached_property
    def hash(self) -> str:
        """Content identity; `skips` repeats what the kernel says."""
        return content_hash(self, exclude={"skips"})

    @property
    def sides(self) -> str:
        """Sidedness, for people: ``"dense"``, ``"one-sided (activation)"``, ``"two-sided (activation, weight)"``."""
        listed = _rules().kernel_of(self).skips if self.skips is None else self.skips
        skips = [name for name in ("activation", "weight", "output") if name in listed]
        if not skips:
            return "dense"
        word = "two-sided" if {"activation", "weight"} <= set(skips) else "one-sided"
        return f"{word} ({', '.join(skips)})"

    @property
    def dataflow(self) -> Dataflow:
        """What its kernel fixes about the loops around the array."""
        return _rules().dataflow_of(self)

    def param(self, name: str) -> Any:
        """Return the plain value of a parameter."""
        return self.params[name].value

    def with_(self, **changes: Any) -> Arch:
        """Return a variant with some fields changed, marked as assumed.

        Parameters
        ----------
        **changes
            A parameter (``lanes=32``), or a dotted field with ``__`` for the dot
            (``memory__bandwidth="100 GB/s"``, ``clock="1 GHz"``); or a mapping with ``value``, ``source``, ``status``.

        Returns
        -------
        Arch
            Named ``name[lanes=32]``.

        Raises
        ------
        InputError
            If there is no such field, or a value does not fit it: quantities need a unit, parameters
            are of the kernel's types, all within what a machine can have.
        """
        data = self.model_dump()
        for key, value in changes.items():
            name = key.replace("__", ".")
            self._check_settable(name)
            parts = ["params", name] if name in self.params else name.split(".")
            node: Any = data
            for part in parts[:-1]:
                node = next(one for one in node if one["name"] == part) if isinstance(node, list) else node[part]
            last = parts[-1]
            if isinstance(value, dict) and name not in _CHOICES:
                given = {"source": "override", "status": "assumed", **value}
                node[last] = given | {"value": self._taken(name, value.get("value"))}
                continue
            taken, old = self._taken(name, value), node.get(last)
            was = f"was {old['value']}" if isinstance(old, dict) and "value" in old else "was not stated"
            figure = {"value": taken, "source": "override", "status": "assumed", "note": was}
            node[last] = taken if name in _CHOICES else figure
        if data["memory"]["levels"] is not None:
            # they follow from the levels
            for name in FLAT:
                del data["memory"][name]
        label = ",".join(f"{key.replace('__', '.')}={value}" for key, value in changes.items())
        data["name"] = f"{self.name}[{label}]"
        data["variant_of"] = self.variant_of or self.name
        try:
            made = Arch.model_validate(data)
        except ValidationError as error:
            told = [f"arch '{self.name}': {label}: {message}" for _, message in faults(error, Arch)]
            raise InputError("\n".join(told)) from None
        made._base = self.base
        return made

    @property
    def base(self) -> Arch:
        """The arch that `with_` made this one a variant of, found by name where it ships; itself if it is none."""
        if self._base is None:
            shipped = bool(self.variant_of) and self.variant_of in list_archs()
            # looking through the entry points takes milliseconds, so what is found is kept
            self._base = load_arch(self.variant_of) if shipped else self.model_copy()
        return self._base

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal; how a variant was made does not matter."""
        return isinstance(other, Arch) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        """Hash of the content."""
        return int(self.hash, 16)

    def _check_settable(self, name: str) -> None:
        if self.memory.levels is not None and name in [f"memory.{one}" for one in FLAT]:
            names = ", ".join(spec.name for spec in self.memory.levels)
            raise InputError(
                f"arch '{self.name}' states memory.levels, from which {name} follows; set memory.levels.NAME.FIELD "
                f"(NAME is one of {names})"
            )
        if name not in self.settable():
            raise InputError(f"arch '{self.name}' has no field '{name}'" + nearest(name, self.settable()))

    def _taken(self, name: str, value: Any) -> Any:
        """Turn what was given for a field into the type and unit inside; what is out of range is refused later."""
        if name in self.params:
            return _rules().fitting(self, name, value)
        if name in _CHOICES:
            return value
        dimension = _dimension(name)
        if dimension is None:
            return _number(self.name, name, value)
        try:
            # a plain number would pass for one in the unit inside
            return parse(value, dimension)
        except InputError as error:
            raise InputError(f"arch '{self.name}': {name}: {error}") from None

    def __repr__(self) -> str:
        facts = [f"kernel {self.kernel}", with_unit("clock", self.clock_hz)]
        for name, figure in _figures(self.model_dump()):
            if figure["source"] == OVERRIDE:
                name = name.removeprefix("params.")
                facts.append(f"{name} {with_unit(name, figure['value'])} ({_was(name, figure['note'])})")
        return f"Arch({self.name!r}: {', '.join(facts)})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Every number with its source and status, for notebooks."""
        rows = [
            (name, with_unit(name, figure["value"]), figure["status"], figure["source"], figure["note"])
            for name, figure in _figures(self.model_dump())
        ]
        body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
        head = "".join(f"<th>{name}</th>" for name in ("field", "value", "status", "source", "note"))
        return (
            f"<p><b>{escape(self.name)}</b> {escape(self.title)} (kernel {escape(self.kernel)})</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def settable(self) -> list[str]:
        """List the names `with_` takes, and no others."""
        fields = ("clock", "node", "voltage", "static_power", "area", "costs", "vector_lanes")
        memory = [f"memory.{name}" for name in Memory.model_fields if name != "levels"]
        if self.memory.levels is not None:
            memory = [name for name in memory if name.removeprefix("memory.") not in FLAT]
            stated = [(spec, field) for spec in self.memory.levels for field in QUANTITIES]
            memory += [f"memory.levels.{spec.name}.{field}" for spec, field in stated if getattr(spec, field)]
        mapping = (f"mapping.{name}" for name in MappingSpec.model_fields)
        return [*self.params, *fields, *memory, *mapping, *(f"bits.{name}" for name in self.bits)]


_CHOICES = (
    "costs",
    "memory.weights",
    "memory.activation_format",
    "memory.weight_format",
    "memory.weight_fetch",
    *(f"mapping.{name}" for name in MappingSpec.model_fields),
)
_DIMENSIONS = {
    "clock": "clock",
    "node": "node",
    "voltage": "voltage",
    "static_power": "power",
    "area": "area",
    "memory.bandwidth": "bandwidth",
    "memory.burst": "size",
    "memory.activation_buffer": "size",
    "memory.weight_buffer": "size",
}


def _dimension(name: str) -> str | None:
    """Dimension of a field; None for a number without unit."""
    if name.startswith("memory.levels."):
        return QUANTITIES[name.rpartition(".")[2]]
    return _DIMENSIONS.get(name)


def _number(arch: str, name: str, value: Any) -> int | float:
    """Take a number without unit, or its text."""
    if isinstance(value, str):
        try:
            value = float(value) if not value.strip().lstrip("+-").isdigit() else int(value[:20])
        except ValueError:
            raise InputError(f"arch '{arch}': {name} = {value!r}, must be a number without unit") from None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"arch '{arch}': {name} = {value!r}, must be a number without unit")
    return value


def _require_whole(value: Any, most: int, told: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 1 <= value <= most or value != int(value):
        raise ValueError(f"{told}{value!r}, must be a whole number of at least 1 and at most {most}")


def diff(a: Arch, b: Arch) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two archs differ; sources are not compared.

    Parameters
    ----------
    a, b : Arch
        Archs to compare.

    Returns
    -------
    dict of str to tuple
        ``{field: (in a, in b)}`` by dotted name, plain values in base units; None where one lacks the field.

    Examples
    --------
    >>> arch = hwmodels.load_arch("cnvlutin")
    >>> hwmodels.diff(arch, arch.with_(lanes=32))
    {'params.lanes': (16, 32)}
    """
    left, right = _flat(a.model_dump()), _flat(b.model_dump())
    skip = {"name", "variant_of", "title", "description"}
    return {
        key: (left.get(key), right.get(key))
        for key in sorted(left.keys() | right.keys())
        if key not in skip and left.get(key) != right.get(key)
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and "value" in value and "status" in value:
            out[path] = value["value"]
        elif isinstance(value, dict):
            out.update(_flat(value, path + "."))
        elif _named(value):
            for one in value:
                out.update(_flat(one, f"{path}.{one['name']}."))
        else:
            out[path] = value
    return out


# How people are shown a field's value: factor from the unit inside, and the unit written.
_SHOWN = {
    "clock": (1e-6, "MHz"),
    "node": (1.0, "nm"),
    "voltage": (1.0, "V"),
    "static_power": (1.0, "W"),
    "area": (1.0, "mm²"),
    "memory.bandwidth": (1e-9, "GB/s"),
    "memory.burst": (1.0, "byte"),
    "memory.activation_buffer": (1 / 1024, "KiB"),
    "memory.weight_buffer": (1 / 1024, "KiB"),
}
_SHOWN_OF_LEVEL = {
    "size": _SHOWN["memory.weight_buffer"],
    "bandwidth": _SHOWN["memory.bandwidth"],
    "burst": _SHOWN["memory.burst"],
    "width": (1.0, "bit"),
}


def with_unit(name: str, value: Any) -> str:
    """Write the value of an arch's field, such as ``memory.bandwidth``, with its unit; parameters have none."""
    usual = (1.0, "bit" if name.startswith("bits.") else "")
    if name.startswith("memory.levels."):
        factor, unit = _SHOWN_OF_LEVEL.get(name.rpartition(".")[2], usual)
    else:
        factor, unit = _SHOWN.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value * factor:,.6g} {unit}".strip()


def _was(name: str, note: str) -> str:
    """Write what `Arch.with_` notes of a field's former value with the field's unit."""
    word, _, value = note.partition(" ")
    try:
        return f"{word} {with_unit(name, float(value))}"
    except ValueError:
        return note


def _figures(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in tree.items():
        if isinstance(value, dict) and "value" in value and "status" in value:
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _figures(value, f"{prefix}{key}.")
        elif _named(value):
            for one in value:
                yield from _figures(one, f"{prefix}{key}.{one['name']}.")


def _named(value: Any) -> bool:
    """Whether a value is a list of named things, such as memory levels."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "name" in one for one in value)


def list_archs() -> list[str]:
    """List the archs that ship here or come from the entry-point group ``hwmodels.archs``.

    Returns
    -------
    list of str
        Names in alphabetical order.

    Examples
    --------
    >>> "eie" in hwmodels.list_archs()
    True
    """
    return sorted({*packaged("archs"), *(point.name for point in entry_points(group="hwmodels.archs"))})


@lru_cache(maxsize=256)
def load_arch(name: str) -> Arch:
    """Load a known arch by name.

    Parameters
    ----------
    name : str
        One of `list_archs`.

    Returns
    -------
    Arch
        The same object at each call.

    Raises
    ------
    InputError
        If there is none of that name.

    Examples
    --------
    >>> hwmodels.load_arch("eie").kernel
    'eie'
    """
    texts = packaged("archs")
    if name in texts:
        return from_yaml(Arch, texts[name], f"hwmodels/archs/{name}.yaml")
    for point in entry_points(group="hwmodels.archs"):
        if point.name == name:
            made = point.load()
            return made if isinstance(made, Arch) else made()
    raise InputError(f"unknown arch '{name}'" + nearest(name, list_archs()))


def arch_from_yaml(text: str, where: str) -> Arch:
    """Build an arch from YAML text; `where` names the file in errors.

    Parameters
    ----------
    text : str
        YAML: quantities are text with a unit, each figure with source and status.
    where : str
        Name of the file, for errors.

    Returns
    -------
    Arch
        The validated arch.

    Raises
    ------
    InputError
        One line for each fault, ``file:line: field: what``: fields, units and ranges, and parameters that its kernel
        does not take.

    Examples
    --------
    >>> from importlib import resources
    >>> text = resources.files("hwmodels").joinpath("archs/cnvlutin.yaml").read_text(encoding="utf-8")
    >>> hwmodels.arch_from_yaml(text, "cnvlutin.yaml").kernel
    'cnvlutin'
    """
    return from_yaml(Arch, text, where, _rules().arch_faults)
