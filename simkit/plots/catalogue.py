"""Figures into files, for the command line and the demo."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import whole
from .registry import FIGURES, SOURCES, Drawer, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)
FORMATS = (".png", ".pdf", ".svg")


def drawers() -> dict[str, Drawer]:
    """Return what `draw_to_file` knows, by name: every function of this room that registered itself."""
    for info in iter_modules([str(Path(__file__).parent)]):
        import_module(f"{__package__}.{info.name}")
    return FIGURES


def catalogue() -> list[dict[str, str]]:
    """List the figures: name, what it is drawn from, what it shows."""
    rows = []
    for name, drawer in drawers().items():
        first = (inspect.getdoc(drawer.draw) or "").split("\n\n")[0].replace("\n", " ").removesuffix(".")
        rows.append({"name": name, "shows": first, "drawn from": SOURCES[drawer.source]})
    return rows


def draw_to_file(
    name: str,
    inputs: Sequence[str],
    out: Path,
    *,
    style: str | None = None,
    ops: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Draw one figure from stored inputs.

    Parameters
    ----------
    name : str
        One of `drawers`.
    inputs : sequence of str
        Results (Parquet), traces, or a table (CSV or Parquet), as the figure wants.
    out : Path
        PNG, PDF or SVG; run ids or trace hashes go into its metadata.
    style : {"ieee", "acm", "slides"}, optional
        Page; a screen by default.
    ops : sequence of str, optional
        Only these ops.
    options : mapping, optional
        Other keywords of the figure's function, such as ``layer``; those that are None are left out.

    Raises
    ------
    InputError
        If the figure, the style or the file's ending is unknown, or the figure does not take an option.
    """
    from hwmodels.errors import nearest

    from . import paper

    known = drawers()
    if name not in known:
        raise InputError(f"unknown figure '{name}'" + nearest(name, known))
    if out.suffix not in FORMATS:
        raise InputError(f"cannot write '{out}': a figure ends in {', '.join(FORMATS)}")
    drawer = known[name]
    keywords = _keywords(name, drawer, ops, options or {})
    with paper(style) if style else nullcontext():
        data, found = _load(name, drawer.source, inputs)
        return save(drawer.draw(data, **keywords), out, keywords=found)


def _keywords(name: str, drawer: Drawer, ops: Sequence[str] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of the figure's function; one that it does not take is refused."""
    takes = inspect.signature(drawer.draw).parameters
    given = {key: value for key, value in options.items() if value is not None}
    if ops is not None:
        if "ops" not in takes and "op" in takes and len(ops) > 1:
            raise InputError(f"figure '{name}' draws one op at a time; give one --op")
        given |= {"op": ops[0]} if "op" in takes and "ops" not in takes else {"ops": list(ops)}
    for key in given:
        if key not in takes:
            raise InputError(f"figure '{name}' takes no --{key.removesuffix('s')}; leave it out")
    return given


def _load(name: str, source: Source, inputs: Sequence[str]) -> tuple[Any, list[str]]:
    from ..engine.inputs import as_traces
    from ..results.result import as_result
    from .inputs import is_table, load_frames

    if source == "nothing":
        if inputs:
            raise InputError(f"figure '{name}' is drawn from {SOURCES[source]}; give no input")
        return None, []
    if not inputs:
        raise InputError(f"figure '{name}' is drawn from {SOURCES[source]}; give at least one")
    if source == "measured":
        return list(inputs), list(inputs)
    if source == "traces":
        loaded = as_traces(list(inputs))
        return loaded, [trace.hash for trace in loaded]
    if source == "table" or (source == "points" and all(map(is_table, inputs))):
        table = load_frames(inputs)
        return table, sorted(set(table["run"].astype(str))) if "run" in table else []
    result = as_result(list(inputs))
    return result, sorted(result.meta["runs"])


def save(ax: Axes, out: Path, keywords: Sequence[str] = ()) -> Path:
    """Write the figure whole or not at all, run ids in the file's metadata, and close it."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from .style import current_rc

    figure: Any = ax.figure
    listed = " ".join(keywords)
    metadata = {
        ".png": {"Software": "zeroskip", "Description": listed},
        # without a date, equal figures are equal files
        ".pdf": {"Creator": "zeroskip", "Keywords": listed, "CreationDate": None},
        ".svg": {"Creator": "zeroskip", "Keywords": [listed], "Date": None},
    }[out.suffix]
    try:
        with mpl.rc_context(current_rc()), whole(out) as partial:
            figure.savefig(partial, format=out.suffix[1:], metadata=metadata, bbox_inches="tight", pad_inches=0.02)
    finally:
        plt.close(figure)
    log.info("%s drawn", out)
    return out
