"""Tables for papers: units in the headings, digits by standard error, LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import InputError

if TYPE_CHECKING:
    from .result import Result


@dataclass(frozen=True)
class Column:
    """How one column is printed.

    Parameters
    ----------
    title, unit : str
        Heading.
    scale : float
        Factor from the stored unit to the printed one.
    digits : int
        Significant digits where nothing better is known.
    error : str
        Column with the standard error: it decides the digits, and is printed with ±.
    low, high : str
        Columns with the ends of a range that is not a standard error, printed in brackets.
    """

    title: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 3
    error: str = ""
    low: str = ""
    high: str = ""


COLUMNS: dict[str, Column] = {
    "trace": Column("trace"),
    "tuning": Column("tuning"),
    "arch": Column("design"),
    "accuracy": Column("accuracy", error="accuracy_se"),
    "perplexity": Column("perplexity"),
    "density": Column("density", error="density_se"),
    "macs": Column("MACs", "10⁹", 1e-9),
    "effectual_macs": Column("effectual MACs", "10⁹", 1e-9),
    "cycles": Column("cycles", "10⁶", 1e-6, 4),
    "dense_cycles": Column("dense cycles", "10⁶", 1e-6, 4),
    "stall_cycles": Column("DRAM stalls", "10⁶ cycles", 1e-6),
    "speedup": Column("speed-up", "×", error="speedup_se"),
    "latency_s": Column("latency", "ms", 1e3),
    "energy_pj": Column("energy", "µJ", 1e-6, low="energy_low_pj", high="energy_high_pj"),
    "energy_per_token_pj": Column(
        "energy", "nJ/token", 1e-3, low="energy_low_per_token_pj", high="energy_high_per_token_pj"
    ),
    "power_w": Column("power", "W"),
    "energy_delay_js": Column("energy × delay", "J s"),
    "train_seconds": Column("tuning time", "s"),
    "trainable_parameters": Column("trainable parameters", "10³", 1e-3),
    "area_mm2": Column("area", "mm²"),
}
DEFAULT = ("tuning", "arch", "accuracy", "density", "cycles", "speedup", "energy_per_token_pj", "power_w")

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "µ": r"\textmu{}",
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


def table(
    data: Result | pd.DataFrame,
    columns: Sequence[str] | Mapping[str, Column] | None = None,
    *,
    ops: str | Iterable[str] | None = None,
) -> Table:
    """Make a table of a result's runs, or of any frame.

    Parameters
    ----------
    data : Result or DataFrame
        One row each run (`Result.summary`, with what was measured of its tuning), or a frame's rows.
    columns : sequence of str or mapping of str to Column, optional
        Which, in order; a name alone is printed as `COLUMNS` says. Those of `DEFAULT` that are there, by default.
    ops : str or iterable of str, optional
        Only these ops of a result.

    Returns
    -------
    Table
        With `to_latex` and `to_markdown`.

    Raises
    ------
    InputError
        If a column is not there, naming the nearest.
    """
    from hwmodels.errors import nearest

    if isinstance(data, pd.DataFrame):
        frame = data
    else:
        from ..plots._data import summary
        from ..plots.tradeoff import with_measured

        frame = with_measured(data, summary(data, ops))
    if columns is None:
        columns = [name for name in DEFAULT if name in frame and not frame[name].isna().all()]
    chosen = columns if isinstance(columns, Mapping) else {n: COLUMNS.get(n, Column(n)) for n in columns}
    for name in chosen:
        if name not in frame:
            raise InputError(f"the table has no column '{name}'" + nearest(name, frame.columns))
    text = {_heading(column): _cells(frame, name, column) for name, column in chosen.items()}
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in chosen]
    return Table(pd.DataFrame(text), numeric)


def methods_table(data: pd.DataFrame) -> Table:
    """Make the table of a comparison of methods, one row each tuning, two columns each design.

    Parameters
    ----------
    data : DataFrame
        `simkit.explore.methods.flat`.
    """
    score = ["perplexity"] if "perplexity" in data else []
    shared = ["tuning", *score, "accuracy", "accuracy_se", "density", "trainable_parameters", "train_seconds"]
    wide = data.drop_duplicates("tuning")[shared].set_index("tuning")
    columns = {name: COLUMNS[name] for name in shared if name != "accuracy_se"}
    for arch, rows in data.groupby("arch", sort=False):
        own = rows.set_index("tuning")
        for name, title, unit in (("speedup", "speed-up", "×"), ("energy_ratio", "energy", "× of dense")):
            wide[f"{arch}.{name}"] = own[name]
            columns[f"{arch}.{name}"] = Column(f"{arch} {title}", unit)
    return table(wide.reset_index(), columns)


def _heading(column: Column) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title


def _cells(frame: pd.DataFrame, name: str, column: Column) -> list[str]:
    cells = []
    for index in range(len(frame)):
        value = frame[name].iloc[index]
        if isinstance(value, str) or (not isinstance(value, int | float) and not hasattr(value, "item")):
            cells.append(str(value))
            continue
        extra = [
            float(frame[other].iloc[index]) * column.scale if other in frame else math.nan
            for other in (column.error, column.low, column.high)
        ]
        cells.append(number(float(value) * column.scale, *extra, digits=column.digits))
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
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
