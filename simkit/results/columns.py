"""Columns of a Result and of its tables, each defined once: title, unit, derivation, and where it is shown.

A new figure of a run is one entry of `COLUMNS`. With `derive` it is computed in `Result.summary`, in a sweep's table of
points and in a report's table of layers; tables, axes, printed tables, `simkit diff` and `simkit search` read its
title, unit and views from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..errors import InputError

Derivation = Callable[[pd.DataFrame], pd.Series]


@dataclass(frozen=True)
class Column:
    """One column: what it is called, in which unit it is shown, and how it is derived.

    Parameters
    ----------
    title, unit : str
        Heading.
    scale : float
        Factor from the stored unit to the shown one.
    digits : int
        Significant digits where nothing better is known.
    error : str
        Column with the standard error: it decides the digits, and is printed with ±.
    low, high : str
        Columns with the ends of a range that is not a standard error, printed in brackets.
    name : str
        Title on an axis, where `title` is too short without the table around it.
    per : str
        What the figure is divided by: ``token``. In the unit of a heading, in the name of an axis.
    units : tuple of (str, float)
        Units and their factors from small to large; the largest in which a value reaches 1 is taken. `unit` and `scale`
        hold where there are no values to choose by.
    derive : callable, optional
        ``DataFrame -> Series`` from the sums of a run: the figures of `simkit.results.result.OP_COLUMNS`, the energies
        in pJ,
        ``tokens``, and the columns derived before this one.
    more_is_better : bool
        Whether an optimiser maximises it.
    views : tuple of str
        Where it is shown unasked: ``table`` (`simkit.table`), ``report``, ``print`` (`simkit replay`), ``points``
        (`simkit sweep`), ``diff``; ``objective`` allows it in a search.
    """

    title: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 3
    error: str = ""
    low: str = ""
    high: str = ""
    name: str = ""
    per: str = ""
    units: tuple[tuple[str, float], ...] = ()
    derive: Derivation | None = None
    more_is_better: bool = False
    views: tuple[str, ...] = ()

    def unit_of(self, values: pd.Series | None = None) -> tuple[str, float]:
        """Unit and factor, by the largest of the values where the column has several units."""
        if values is None or not self.units:
            return self.unit, self.scale
        largest = pd.to_numeric(values).abs().max()
        fitting = [pair for pair in self.units if largest * pair[1] >= 1]
        if not largest > 0:
            return self.unit, self.scale
        return fitting[-1] if fitting else self.units[0]

    def heading(self, values: pd.Series | None = None) -> str:
        """Heading in a table, with the unit."""
        unit = self.unit_of(values)[0]
        unit += f"/{self.per}" if self.per else ""
        return f"{self.title} ({unit})" if unit else self.title

    def axis(self, values: pd.Series | None = None) -> tuple[str, float]:
        """Label of an axis, and the factor to its unit."""
        unit, factor = self.unit_of(values)
        name = self.name or (f"{self.title} per {self.per}" if self.per else self.title)
        return (f"{name} ({unit})" if unit else name), factor


def ratio(above: str, below: str) -> Derivation:
    """Derive a quotient of two columns: NaN where the divisor is 0, as the time of an estimate without time."""

    def derive(table: pd.DataFrame) -> pd.Series:
        return table[above] / table[below].where(table[below] > 0)

    return derive


def _watts(table: pd.DataFrame) -> pd.Series:
    return table["energy_pj"] * 1e-12 / table["latency_s"].where(table["latency_s"] > 0)


def _energy_delay(table: pd.DataFrame) -> pd.Series:
    return table["energy_pj"] * 1e-12 * table["latency_s"]


_ENERGIES = (("pJ", 1.0), ("nJ", 1e-3), ("µJ", 1e-6), ("mJ", 1e-9), ("J", 1e-12))
_CYCLES = (("", 1.0), ("10⁶", 1e-6))
_ALL = ("table", "report", "print")


def _per_token(title: str, energy: str, low: str = "", high: str = "", views: tuple[str, ...] = ()) -> Column:
    derive = ratio(energy, "tokens")
    return Column(title, "nJ", 1e-3, per="token", units=_ENERGIES, low=low, high=high, derive=derive, views=views)


COLUMNS: dict[str, Column] = {
    "trace": Column("trace", views=("print", "points")),
    "tuning": Column("tuning", views=("table", "report")),
    "arch": Column("arch", views=(*_ALL, "points")),
    "accuracy": Column(
        "accuracy",
        error="accuracy_se",
        name="held-out accuracy",
        more_is_better=True,
        views=("table", "report", "objective"),
    ),
    "perplexity": Column("perplexity"),
    "density": Column(
        "density", error="density_se", derive=ratio("effectual_macs", "macs"), views=(*_ALL, "objective")
    ),
    "macs": Column("MACs", "10⁹", 1e-9),
    "effectual_macs": Column("effectual MACs", "10⁹", 1e-9),
    "cycles": Column("cycles", "10⁶", 1e-6, 4, units=_CYCLES, views=(*_ALL, "points", "diff", "objective")),
    "dense_cycles": Column("dense cycles", "10⁶", 1e-6, 4, units=_CYCLES, views=("print",)),
    "stall_cycles": Column(
        "DRAM stalls",
        "10⁶ cycles",
        1e-6,
        units=(("cycles", 1.0), ("10⁶ cycles", 1e-6)),
        views=("report", "print", "points", "diff", "objective"),
    ),
    "compute_speedup": Column("speed-up in cycles", "×", derive=ratio("dense_cycles", "cycles"), more_is_better=True),
    "speedup": Column(
        "speed-up",
        "×",
        error="speedup_se",
        name="speed-up over dense",
        derive=ratio("dense_latency_s", "latency_s"),
        more_is_better=True,
        views=(*_ALL, "points", "diff", "objective"),
    ),
    "latency_s": Column("latency", "ms", 1e3, views=("diff", "objective")),
    "dense_latency_s": Column("dense latency", "ms", 1e3, views=("diff",)),
    "dram_bytes": Column("DRAM traffic", "MB", 1e-6, views=("diff", "objective")),
    "energy_pj": Column(
        "energy",
        "µJ",
        1e-6,
        low="energy_low_pj",
        high="energy_high_pj",
        units=_ENERGIES,
        views=("diff", "objective"),
    ),
    "energy_low_per_token_pj": _per_token("lowest energy by the table", "energy_low_pj"),
    "energy_high_per_token_pj": _per_token("highest energy by the table", "energy_high_pj"),
    "energy_per_token_pj": _per_token(
        "energy",
        "energy_pj",
        low="energy_low_per_token_pj",
        high="energy_high_per_token_pj",
        views=(*_ALL, "points", "objective"),
    ),
    "power_w": Column("power", "W", derive=_watts, views=(*_ALL, "points", "diff", "objective")),
    "energy_delay_js": Column(
        "energy × delay", "J s", name="energy-delay product", derive=_energy_delay, views=("diff", "objective")
    ),
    "train_seconds": Column("tuning time", "s"),
    "trainable_parameters": Column("trainable parameters", "10³", 1e-3),
    "area_mm2": Column("area", "mm²", views=("objective",)),
}


def column_of(name: str) -> Column:
    """Return a column by its name; one that is not in `COLUMNS` is called by its name, without a unit."""
    return COLUMNS.get(name) or Column(name.replace("_", " "))


def view(name: str) -> list[str]:
    """Names of the columns that a view shows unasked, in order."""
    return [column for column, one in COLUMNS.items() if name in one.views]


def maximised() -> list[str]:
    """Names of the columns where more is better."""
    return [name for name, one in COLUMNS.items() if one.more_is_better]


def derived_names() -> list[str]:
    """Names of the columns that `derived` adds."""
    return [name for name, one in COLUMNS.items() if one.derive is not None]


def derived(table: pd.DataFrame) -> pd.DataFrame:
    """Add every derived column to a table of sums: one row a run, a point or an op, with the run's ``tokens``."""
    for name, column in COLUMNS.items():
        if column.derive is not None:
            table = table.assign(**{name: column.derive(table)})
    return table


def require(frame: pd.DataFrame, names: Iterable[str], what: str) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    InputError
        Naming the nearest column.
    """
    for name in names:
        if name not in frame:
            from hwmodels.errors import nearest

            raise InputError(f"{what} has no column '{name}'" + nearest(str(name), map(str, frame.columns)))


def refuse_twins(frame: pd.DataFrame, keys: Sequence[str]) -> None:
    """Refuse a table in which two rows have the same key: one would hide the other, or be added to it.

    Raises
    ------
    InputError
        Naming the first key that is there twice.
    """
    twins = frame[frame.duplicated(list(keys))]
    if len(twins):
        named = ", ".join(f"{key} '{twins[key].iloc[0]}'" for key in keys)
        raise InputError(f"two rows have {named}, and nothing tells them apart; rename one")


def printable(table: pd.DataFrame, names: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows and headings for a printed table: counts in full, other figures in the unit of their column."""
    shown, headings = table.copy(), {}
    for name in names:
        column, values = column_of(name), table[name]
        if not pd.api.types.is_float_dtype(values):
            headings[name] = column.title
            continue
        headings[name] = column.heading(values)
        shown[name] = values * column.unit_of(values)[1]
    return [{str(key): value for key, value in row.items()} for row in shown.to_dict("records")], headings
