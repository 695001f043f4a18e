"""An accelerator: its kernel, parameters, memory, and what each action costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from html import escape
from importlib.metadata import entry_points
from typing import Any, Literal

from pydantic import ValidationError, field_validator, model_validator

from .config import Area, Bandwidth, Clock, Figure, Frozen, Node, Power, Size, content_hash, from_yaml, packaged
from .errors import InputError, nearest

Format = Literal["dense", "bitmap", "offset", "csc", "two_four"]


class Action(Frozen):
    """Price of one action: the sum of energy-table rows, each times a factor.

    Parameters
    ----------
    rows : dict of str to float
        Row of the energy table -> how many of it one action takes (a 16-bit word of a per-bit row is 16).
    note : str
        Why these rows.
    """

    rows: dict[str, float]
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
        On-chip buffers, byte; half of each is filled while the other half is used.
    weights : {"streamed", "resident"}
        Whether weights come from DRAM at every launch, or live on the chip.
    activation_format, weight_format : str
        How operands are stored: ``dense``; ``bitmap`` (one bit an element); ``offset`` (an index with each
        non-zero); ``csc`` (a short run length with each non-zero, padding zeros where a run overflows);
        ``two_four`` (2 bits an entry).
    index_bits : Figure, optional
        Width of the index for ``offset`` and ``csc``.
    """

    bandwidth: Bandwidth
    burst: Size
    activation_buffer: Size
    weight_buffer: Size
    weights: Literal["streamed", "resident"]
    activation_format: Format = "dense"
    weight_format: Format = "dense"
    index_bits: Figure | None = None

    @model_validator(mode="after")
    def _index_is_given(self) -> Memory:
        if {self.activation_format, self.weight_format} & {"offset", "csc"} and self.index_bits is None:
            raise ValueError("index_bits is missing; the formats offset and csc need it")
        return self


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
    actions : dict of str to Action
        ``"component.action"`` -> price.
    static_power : Figure
        Leakage, clock tree and idle, W; charged for the whole latency.
    area : Figure, optional
        mm2.
    vector_lanes : Figure, optional
        Elements a cycle of the vector unit; without it, vector ops are left out of replays.
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
    actions: dict[str, Action]
    static_power: Power
    area: Area | None = None
    vector_lanes: Figure | None = None
    variant_of: str = ""

    @field_validator("bits")
    @classmethod
    def _positive_bits(cls, bits: dict[str, Figure]) -> dict[str, Figure]:
        for name in ("activation", "weight", "accumulator"):
            if name not in bits or int(bits[name].value) < 1:
                raise ValueError(f"bits.{name} must be given and at least 1")
        return bits

    @property
    def clock_hz(self) -> float:
        """Clock, Hz."""
        return float(self.clock.value)

    @cached_property
    def hash(self) -> str:
        """Content identity."""
        return content_hash(self)

    def param(self, name: str) -> Any:
        """Return the plain value of a parameter."""
        return self.params[name].value

    def with_(self, **changes: Any) -> Arch:
        """Return a variant with some fields changed, marked as assumed.

        Parameters
        ----------
        **changes
            A parameter (``lanes=32``), or a dotted field with ``__`` for the dot
            (``memory__bandwidth="100 GB/s"``, ``clock="1 GHz"``).

        Returns
        -------
        Arch
            Named ``name[lanes=32]``.

        Raises
        ------
        InputError
            If there is no such field.
        """
        data = self.model_dump()
        for key, value in changes.items():
            self._change(data, key.replace("__", "."), value)
        label = ",".join(f"{key.replace('__', '.')}={value}" for key, value in changes.items())
        data["name"] = f"{self.name}[{label}]"
        data["variant_of"] = self.variant_of or self.name
        try:
            return Arch.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            message = str(first["msg"]).removeprefix("Value error, ")
            raise InputError(f"arch '{self.name}': {label}: {message}") from None

    def _change(self, data: dict[str, Any], key: str, value: Any) -> None:
        path = ["params", key] if key in self.params else key.split(".")
        node: Any = data
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or path[-1] not in node:
            raise InputError(f"arch '{self.name}' has no field '{key}'" + nearest(key, self.settable()))
        old = node[path[-1]]
        if isinstance(old, dict) and "value" in old:
            node[path[-1]] = {
                "value": value,
                "source": "override",
                "status": "assumed",
                "note": f"was {old['value']}",
            }
        else:
            node[path[-1]] = value

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
        """List the names `with_` takes."""
        memory = [f"memory.{name}" for name in Memory.model_fields]
        return [
            *self.params,
            "clock",
            "node",
            "static_power",
            *memory,
            *(f"bits.{name}" for name in self.bits),
        ]


def diff(a: Arch, b: Arch) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two archs differ, ``{field: (in a, in b)}``; sources are not compared."""
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
        else:
            out[path] = value
    return out


# How people are shown a field's value: factor from the unit inside, and the unit written.
_SHOWN = {
    "clock": (1e-6, "MHz"),
    "node": (1.0, "nm"),
    "static_power": (1.0, "W"),
    "area": (1.0, "mm²"),
    "memory.bandwidth": (1e-9, "GB/s"),
    "memory.burst": (1.0, "byte"),
    "memory.activation_buffer": (1 / 1024, "KiB"),
    "memory.weight_buffer": (1 / 1024, "KiB"),
}


def with_unit(name: str, value: Any) -> str:
    """Write the value of an arch's field, such as ``memory.bandwidth``, with its unit; parameters have none."""
    factor, unit = _SHOWN.get(name, (1.0, "bit" if name.startswith("bits.") else ""))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value * factor:,.6g} {unit}".strip()


def _figures(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in tree.items():
        if isinstance(value, dict) and "value" in value and "status" in value:
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _figures(value, f"{prefix}{key}.")


def list_archs() -> list[str]:
    """Names of the archs that ship here or come from the entry-point group ``hwmodels.archs``."""
    return sorted({*packaged("archs"), *(point.name for point in entry_points(group="hwmodels.archs"))})


@lru_cache(maxsize=256)
def load_arch(name: str) -> Arch:
    """Load a known arch by name.

    Raises
    ------
    InputError
        If there is none of that name.
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
    """Build an arch from YAML text; `where` names the file in errors."""
    return from_yaml(Arch, text, where)
