"""Registry of the figures that commands draw by name: each figure's function registers itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

Source = Literal["result", "traces", "points", "table", "measured", "nothing"]
# input of a figure, in words for people
SOURCES: dict[Source, str] = {
    "result": "results (Parquet, or a folder of parts)",
    "traces": "traces",
    "points": "results, or a sweep's or search's table of points",
    "table": "a table (CSV or Parquet)",
    "measured": "a file of measurements, or a device",
    "nothing": "the package's own results",
}
F = TypeVar("F", bound=Callable[..., Any])


class Drawer(NamedTuple):
    """Input of a figure, and the function that draws it."""

    source: Source
    draw: Callable[..., Any]


FIGURES: dict[str, Drawer] = {}


def figure(name: str, source: Source) -> Callable[[F], F]:
    """Register a function as the figure `name` of ``simkit plot``, ``simkit ls figures`` and the documentation.

    Parameters
    ----------
    name : str
        Name on the command line.
    source : str
        Key of `SOURCES`: what the first argument is.

    Raises
    ------
    ValueError
        If two functions claim one name.
    """

    def register(draw: F) -> F:
        if name in FIGURES:
            raise ValueError(f"figure '{name}' is registered already, by {FIGURES[name].draw.__module__}")
        FIGURES[name] = Drawer(source, draw)
        return draw

    return register
