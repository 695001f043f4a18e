"""Energy tables: what one action costs, with source, range and node."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from pydantic import Field

from .arch import Arch
from .config import Energy, Frozen, content_hash, from_yaml, packaged
from .costs.voltage import energy_ratio
from .errors import InputError, nearest
from .scaling import energy_factor


class Row(Frozen):
    """One row of a table.

    Parameters
    ----------
    energy : Figure
        pJ per `per`, with source, status and range.
    node_nm : float
        Technology it was given at; 0 for off-chip parts, which do not scale with the chip's node.
    per : {"op", "access", "bit", "byte", "cycle"}
        What one count is.
    """

    energy: Energy
    node_nm: float = Field(ge=0, le=1e5, allow_inf_nan=False)
    per: Literal["op", "access", "bit", "byte", "cycle"]


class Price(NamedTuple):
    """Energy of one action, pJ, with its range."""

    pj: float
    low: float
    high: float


class EnergyTable(Frozen):
    """A named set of rows; rows of `extends` fill what is not given here.

    Parameters
    ----------
    name, title, description : str
        Identity and one line for people.
    extends : list of str
        Tables whose rows fill what is not given here.
    rows : dict of str to Row
        Energy, pJ, per access, bit, byte, op or cycle, each with source, status, range and node (nm).

    Examples
    --------
    >>> table = hwmodels.load_table("default_45nm")
    >>> table.row("int16_mac").per
    'op'
    >>> price = table.price(hwmodels.load_arch("cnvlutin"), "mac.compute")
    >>> price.low <= price.pj <= price.high
    True
    """

    name: str
    title: str
    description: str = ""
    extends: list[str] = []
    rows: dict[str, Row]

    @cached_property
    def hash(self) -> str:
        """Content identity."""
        return content_hash(self)

    def __repr__(self) -> str:
        extends = f", extends {', '.join(self.extends)}" if self.extends else ""
        return f"EnergyTable({self.name!r}: {len(self.rows)} rows{extends})"

    __str__ = __repr__

    def row(self, name: str) -> Row:
        """Look a row up, here or in the tables this one extends.

        Raises
        ------
        InputError
            If no table has it.
        """
        found = self._all_rows
        if name not in found:
            raise InputError(f"energy table '{self.name}' has no row '{name}'" + nearest(name, found))
        return found[name]

    @cached_property
    def _all_rows(self) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for base in self.extends:
            rows.update(load_table(base)._all_rows)
        return {**rows, **self.rows}

    def price(self, arch: Arch, action: str) -> Price:
        """Price one action of an arch, ``sum_r times_r pj_r f(node_r -> node) g(voltage)``.

        Off-chip rows (node 0) follow neither the arch's node nor its supply.

        Raises
        ------
        InputError
            If the arch gives no rows for the action, or a row is missing or negative.
        """
        if action not in arch.actions:
            raise InputError(
                f"arch '{arch.name}': action '{action}' is counted but has no price; add it under 'actions'"
                + nearest(action, arch.actions)
            )
        pj = low = high = 0.0
        for name, times in arch.actions[action].rows.items():
            row = self.row(name)
            if float(row.energy.value) < 0 or times < 0:
                raise InputError(f"arch '{arch.name}': action '{action}': row '{name}' has a negative energy or count")
            try:
                factor = times * (_scale(row.node_nm, arch) if row.node_nm else 1.0)
            except InputError as error:
                raise InputError(
                    f"row '{name}' of energy table '{self.name}' for arch '{arch.name}': {error}"
                ) from None
            value = float(row.energy.value)
            pj += factor * value
            low += factor * (value if row.energy.low is None else row.energy.low)
            high += factor * (value if row.energy.high is None else row.energy.high)
        return Price(pj, low, high)


def _scale(from_nm: float, arch: Arch) -> float:
    """Energy at an arch's node and supply over that at `from_nm` and its nominal supply."""
    node = float(arch.node.value)
    supply = 1.0 if arch.voltage is None else energy_ratio(node, float(arch.voltage.value))
    return energy_factor(from_nm, node) * supply


def list_tables() -> list[str]:
    """List the energy tables that ship here.

    Returns
    -------
    list of str
        Names in alphabetical order.

    Examples
    --------
    >>> "default_45nm" in hwmodels.list_tables()
    True
    """
    return sorted(packaged("tables"))


@lru_cache(maxsize=64)
def load_table(name: str) -> EnergyTable:
    """Load a table by name.

    Parameters
    ----------
    name : str
        One of `list_tables`.

    Returns
    -------
    EnergyTable
        The same object at each call.

    Raises
    ------
    InputError
        If there is none of that name.

    Examples
    --------
    >>> hwmodels.load_table("horowitz_45nm").name
    'horowitz_45nm'
    """
    texts = packaged("tables")
    if name not in texts:
        raise InputError(f"unknown energy table '{name}'" + nearest(name, texts))
    return from_yaml(EnergyTable, texts[name], f"hwmodels/tables/{name}.yaml")
