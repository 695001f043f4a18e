"""Typesetting of tables: units in the headings, digits by standard error, LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .columns import Column, column_of, require, view

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", "\0": "{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "×": r"$\times$", "µ": r"\textmu{}",
    "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "⁶": r"\textsuperscript{6}",
    "⁹": r"\textsuperscript{9}", "–": "--", "−": "$-$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


class Table:
    """A table ready to print.

    Parameters
    ----------
    text : DataFrame
        Cells as text, one column for each heading.
    numeric : sequence of bool
        Which columns are numbers, set flush right.
    """

    def __init__(self, text: pd.DataFrame, numeric: Sequence[bool]):
        self.text = text
        self.numeric = list(numeric)

    def to_latex(self, caption: str = "", label: str = "") -> str:
        """Return a booktabs ``tabular``, in a ``table`` where a caption is given. It needs ``booktabs`` alone."""
        shown = self.text.map(latex)
        shown.columns = pd.Index([latex(name) for name in shown.columns])
        styler = shown.style.hide(axis="index")
        options: dict[str, Any] = {"caption": latex(caption), "position": "t", "position_float": "centering"}
        return str(
            styler.to_latex(
                hrules=True,
                column_format="".join("r" if number else "l" for number in self.numeric),
                label=label or None,
                **(options if caption else {}),
            )
        )

    def to_markdown(self) -> str:
        """Return a Markdown table."""
        head = [_markdown(name) for name in self.text.columns]
        rule = ["---:" if number else ":---" for number in self.numeric]
        rows = [[_markdown(cell) for cell in row] for row in self.text.itertuples(index=False)]
        return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])

    def __repr__(self) -> str:
        return self.text.to_string(index=False)

    def _repr_html_(self) -> str:
        return str(self.text.to_html(index=False, escape=True))


def lay_out(frame: pd.DataFrame, columns: Sequence[str] | Mapping[str, Column] | None = None) -> Table:
    """Set a frame as a table.

    Parameters
    ----------
    frame : DataFrame
        One row each line.
    columns : sequence of str, or mapping of str to Column, optional
        Which columns, and how they print; those of the view ``table`` by default.

    Raises
    ------
    InputError
        If a column is not there, naming the nearest.
    """
    if columns is None:
        columns = [name for name in view("table") if name in frame and not frame[name].isna().all()]
    chosen = columns if isinstance(columns, Mapping) else {name: column_of(name) for name in columns}
    require(frame, chosen, "the table")
    text = pd.DataFrame([_cells(frame, name, column) for name, column in chosen.items()]).T
    text.columns = pd.Index([column.heading(frame[name]) for name, column in chosen.items()])
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in chosen]
    return Table(text, numeric)


def _cells(frame: pd.DataFrame, name: str, column: Column) -> list[str]:
    cells = []
    scale = column.unit_of(frame[name])[1] if pd.api.types.is_numeric_dtype(frame[name]) else 1.0
    for index in range(len(frame)):
        value = frame[name].iloc[index]
        if isinstance(value, str) or (not isinstance(value, int | float) and not hasattr(value, "item")):
            cells.append(str(value))
            continue
        if scale == 1.0 and isinstance(value, int | np.integer):
            cells.append(f"{value:,}")  # a count, exact
            continue
        extra = [
            float(frame[other].iloc[index]) * scale if other in frame else math.nan
            for other in (column.error, column.low, column.high)
        ]
        cells.append(number(float(value) * scale, *extra, digits=column.digits))
    return cells


def number(
    value: float, error: float = math.nan, low: float = math.nan, high: float = math.nan, *, digits: int = 3
) -> str:
    """Print a number with as many digits as are known.

    Parameters
    ----------
    value : float
        The number; NaN is printed as a dash.
    error : float
        Its standard error: rounded to one significant digit (two where that is a 1), it decides where the value ends.
    low, high : float
        Ends of a range, in brackets, with the value's digits.
    digits : int
        Significant digits where there is no error.

    Returns
    -------
    str
        ``"0.845 ± 0.009"``, ``"6.10 (4.90–8.02)"`` or ``"6.10"``.
    """
    if math.isnan(value):
        return "–"
    if not math.isnan(error) and error > 0:
        places = _places(error, 1)
        if f"{error:.0e}".startswith("1"):
            places += 1
        return f"{_fixed(value, places)} ± {_fixed(error, places)}"
    places = _places(value, digits)
    text = _fixed(value, places)
    if math.isnan(low) or math.isnan(high) or low == high:
        return text
    return f"{text} ({_fixed(low, places)}–{_fixed(high, places)})"


def _places(value: float, digits: int) -> int:
    """Decimal places at which `digits` significant digits end; negative before the point."""
    if value == 0 or not math.isfinite(value):
        return digits - 1
    # the exponent after rounding: 9.996 to three digits is 10.0
    return digits - 1 - int(f"{abs(value):.{digits - 1}e}".split("e")[1])


def _fixed(value: float, places: int) -> str:
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    return f"{round(value, places):,.{max(0, places)}f}".replace("-", "−")


def latex(text: str) -> str:
    """Escape text for LaTeX; the few signs that the tables use become commands."""
    # hyphens side by side would be set as a dash
    return "".join(_LATEX.get(letter, letter) for letter in re.sub("-(?=-)", "-\0", text))


def _markdown(text: str) -> str:
    """Escape text for Markdown; an underscore within a word means nothing there and stays."""
    return _MARKS.sub(r"\\\g<0>", text).replace("\n", " ")


_MARKS = re.compile(r"[\\`*\[\]<>|$~&]|(?<![^\W_])_|_(?![^\W_])")
