"""Memory levels: what each holds, how much, and how fast it is filled.

A hierarchy is a list from the top (DRAM, which holds everything) to the array. Consecutive on-chip levels whose
operands differ stand side by side and form one stage: an activation buffer beside a weight buffer. An arch states its
levels in ``memory.levels``, or by the four fields ``bandwidth``, ``burst``, ``activation_buffer`` and
``weight_buffer``, from which the same list is derived.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from ..config import Bandwidth, Figure, Frozen, Size

Operand = Literal["activation", "weight", "output"]
OPERANDS: tuple[Operand, ...] = ("activation", "weight", "output")
Kind = Literal["sram", "edram", "regfile", "lpddr5", "ddr4", "hbm2e", "hbm3"]
OFF_CHIP = frozenset({"lpddr5", "ddr4", "hbm2e", "hbm3"})
FLAT = ("bandwidth", "burst", "activation_buffer", "weight_buffer")
# numbers of a level, each with its dimension; those without count something
QUANTITIES = {"size": "size", "width": None, "banks": None, "count": None, "bandwidth": "bandwidth", "burst": "size"}
# 1,048,576: wider than any port, and more banks or instances than any chip has
MOST_WHOLE = 1 << 20


class LevelSpec(Frozen):
    """One level of ``memory.levels`` in an arch's YAML.

    Parameters
    ----------
    name : str
        Unique within the list.
    kind : {"sram", "edram", "regfile", "lpddr5", "ddr4", "hbm2e", "hbm3"}
        Cell type; the last four are off chip and only stand at the top.
    size : Figure, optional
        Bytes of one instance; only the top may leave it out.
    width : Figure, optional
        Bits of one access of one bank.
    banks, count : Figure, optional
        Banks of an instance that work at once, and instances; 1 each where left out.
    bandwidth : Figure, optional
        byte/s of all instances together; left out, on chip ``width banks count clock``, or unlimited without a width.
    burst : Figure, optional
        Smallest transfer, byte; only at the top.
    holds : list of {"activation", "weight", "output"}
        Operands that live here.
    """

    name: str = Field(pattern=r"^[\w-]+$")
    kind: Kind
    size: Size | None = None
    width: Figure | None = None
    banks: Figure | None = None
    count: Figure | None = None
    bandwidth: Bandwidth | None = None
    burst: Size | None = None
    holds: list[Operand] = Field(min_length=1)

    @field_validator("holds")
    @classmethod
    def _no_operand_twice(cls, holds: list[Operand]) -> list[Operand]:
        if len(set(holds)) < len(holds):
            raise ValueError(f"holds {holds} names an operand twice; name each once")
        return holds

    @model_validator(mode="after")
    def _numbers_are_positive(self) -> LevelSpec:
        for field, dimension in QUANTITIES.items():
            figure: Figure | None = getattr(self, field)
            if figure is None:
                continue
            value = figure.value
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not value > 0:
                raise ValueError(f"level '{self.name}': {field} = {value!r}, must be a number above 0")
            if dimension is None and not (value <= MOST_WHOLE and value == int(value)):
                raise ValueError(
                    f"level '{self.name}': {field} = {value!r}, must be a whole number of at least 1 and at most "
                    f"{MOST_WHOLE}"
                )
        return self


def check_specs(specs: Sequence[LevelSpec]) -> None:
    """Refuse a list of levels that is no hierarchy.

    Raises
    ------
    ValueError
        Saying which level is wrong, and what would be right.
    """
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two memory levels are named '{name}'; give each a name of its own")
    if not specs or specs[0].kind not in OFF_CHIP:
        raise ValueError(
            "memory.levels has no top; the first level must be off chip "
            f"({', '.join(sorted(OFF_CHIP))}) and hold activation, weight and output"
        )
    top = specs[0]
    if set(top.holds) != set(OPERANDS):
        raise ValueError(f"level '{top.name}' is the top and must hold activation, weight and output")
    if top.bandwidth is None or top.burst is None:
        missing = "bandwidth" if top.bandwidth is None else "burst"
        raise ValueError(f"level '{top.name}' is the top and must state its {missing}")
    for spec in specs[1:]:
        if spec.kind in OFF_CHIP:
            raise ValueError(f"level '{spec.name}' is {spec.kind}, which is off chip; only the first level may be")
        if spec.size is None:
            raise ValueError(f"level '{spec.name}' states no size; only the top may leave it out")
        if spec.burst is not None:
            raise ValueError(f"level '{spec.name}' states a burst; only the top has one")
    for operand in ("activation", "weight"):
        if not any(operand in spec.holds for spec in specs[1:]):
            raise ValueError(f"no level below '{top.name}' holds '{operand}'; name it in the holds of one")


def flat_fields(specs: Sequence[LevelSpec]) -> dict[str, Figure]:
    """Derive ``bandwidth``, ``burst`` and the two buffers from a list that `check_specs` has passed.

    A buffer is the first level below the top that holds its operand; instances count together.
    """
    top = specs[0]
    assert top.bandwidth is not None
    assert top.burst is not None
    found: dict[str, Figure] = {"bandwidth": top.bandwidth, "burst": top.burst}
    for operand in ("activation", "weight"):
        spec = next(spec for spec in specs[1:] if operand in spec.holds)
        assert spec.size is not None
        size = spec.size.model_copy(update={"value": float(spec.size.value) * plain(spec.count)})
        found[f"{operand}_buffer"] = size
    return found


def plain(figure: Figure | None) -> float:
    """Value of a count that may be left out; 1 then."""
    return 1.0 if figure is None else float(figure.value)


class MappingSpec(Frozen):
    """How the mapping of each op is found: ``mapping:`` in an arch's YAML.

    Parameters
    ----------
    search : {"balanced", "latency", "energy", "edp"}
        What the best mapping has least of: cycles, bytes moved, or their product. The least latency alone moves any
        number of bytes to save a cycle, and the least product gives up a quarter of the speed for them; ``balanced``
        moves the fewest bytes among those that are within a hundredth of the least latency.
    tile : dict, optional
        ``{m: , k: , n: }`` by hand instead of a search; a dimension left out is whole.
    order : str
        Loops of a tile by hand, outermost first.
    stays, doubled : list of {"activation", "weight", "output"}
        Operands kept over the loop that reuses them, and double-buffered ones; by hand only.
    """

    search: Literal["balanced", "latency", "energy", "edp"] = "balanced"
    tile: dict[Literal["m", "k", "n"], int] | None = None
    order: Literal["mkn", "mnk", "kmn", "knm", "nmk", "nkm"] = "mnk"
    stays: list[Operand] = []
    doubled: list[Operand] = ["activation", "weight", "output"]

    @model_validator(mode="after")
    def _by_hand_is_whole(self) -> MappingSpec:
        usual = {"order": "mnk", "stays": [], "doubled": list(OPERANDS)}
        changed = [name for name, value in usual.items() if getattr(self, name) != value]
        if self.tile is None and changed:
            raise ValueError(f"mapping.{changed[0]} needs mapping.tile; without a tile the mapping is searched")
        for name, size in (self.tile or {}).items():
            if size < 1:
                raise ValueError(f"mapping.tile.{name} = {size}, must be at least 1")
        return self


class Level(NamedTuple):
    """A memory level in plain numbers.

    Parameters
    ----------
    name, kind : str
        As in `LevelSpec`; a derived list says ``dram`` for the kind of its top and ``sram`` for buffers.
    size_bytes : float
        All instances together; infinite at the top.
    bytes_per_s : float
        Bandwidth of all instances together; infinite where nothing is stated.
    burst_bytes : float
        Smallest transfer; 1 on chip.
    holds : frozenset of str
        Operands that live here.
    """

    name: str
    kind: str
    size_bytes: float
    bytes_per_s: float
    burst_bytes: float
    holds: frozenset[str]


def rooms(
    specs: Sequence[LevelSpec] | None, burst: float, activation_buffer: float, weight_buffer: float
) -> tuple[Level, ...]:
    """Levels with unlimited bandwidth, from a stated list or from three flat fields in bytes."""
    if specs is not None:
        return tuple(_room(spec) for spec in specs)
    return (
        Level("dram", "dram", inf, inf, burst, frozenset(OPERANDS)),
        Level("activation_buffer", "sram", activation_buffer, inf, 1.0, frozenset({"activation", "output"})),
        Level("weight_buffer", "sram", weight_buffer, inf, 1.0, frozenset({"weight"})),
    )


def _room(spec: LevelSpec) -> Level:
    size = inf if spec.size is None or spec.kind in OFF_CHIP else float(spec.size.value) * plain(spec.count)
    burst = 1.0 if spec.burst is None else float(spec.burst.value)
    return Level(spec.name, spec.kind, size, inf, burst, frozenset(spec.holds))


def stages_of(levels: Sequence[Level]) -> list[list[Level]]:
    """Group the on-chip levels: neighbours that share no operand are side by side."""
    stages: list[list[Level]] = []
    for level in levels[1:]:
        if stages and not any(level.holds & other.holds for other in stages[-1]):
            stages[-1].append(level)
        else:
            stages.append([level])
    return stages
