"""Figures into files, for the command line and the demo."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".pdf", ".svg")


class Drawer(NamedTuple):
    """What a figure is drawn from, and the function that draws it."""

    source: Literal["result", "traces", "table"]
    draw: Callable[..., Axes]


def drawers() -> dict[str, Drawer]:
    """Return what `draw_to_file` knows, by name."""
    from . import plots

    found = {
        "speedup": Drawer("result", plots.speedup_bars),
        "speedup-density": Drawer("result", plots.speedup_density),
        "energy": Drawer("result", plots.energy_breakdown),
        "tradeoff": Drawer("result", plots.accuracy_energy),
        "cost": Drawer("result", plots.tuning_cost),
        "pareto": Drawer("result", plots.pareto),
        "stalls": Drawer("result", plots.stall_breakdown),
        "utilisation": Drawer("result", plots.utilisation_map),
        "roofline": Drawer("result", plots.roofline),
        "density": Drawer("traces", plots.density_by_layer),
        "density-map": Drawer("traces", plots.density_map),
        "agreement": Drawer("table", plots.predicted_measured),
    }
    if find_spec("simkit.gap"):
        from . import gap

        found["gap"] = Drawer("traces", gap.plot)
    return found


def draw_to_file(
    name: str, inputs: Sequence[str], out: Path, *, style: str | None = None, ops: Sequence[str] | None = None
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

    Raises
    ------
    InputError
        If the figure, the style or the file's ending is unknown, or the figure takes no ops.
    """
    from hwmodels.errors import nearest

    from .plots import paper

    known = drawers()
    if name not in known:
        raise InputError(f"unknown figure '{name}'" + nearest(name, known))
    if out.suffix not in FORMATS:
        raise InputError(f"cannot write '{out}': a figure ends in {', '.join(FORMATS)}")
    drawer = known[name]
    options: dict[str, Any] = {}
    if ops is not None:
        if "ops" not in inspect.signature(drawer.draw).parameters:
            raise InputError(f"figure '{name}' is not drawn op by op; leave --op out")
        options["ops"] = list(ops)
    with paper(style) if style else nullcontext():
        data, keywords = _load(drawer.source, inputs)
        return save(drawer.draw(data, **options), out, keywords=keywords)


def _load(source: str, inputs: Sequence[str]) -> tuple[Any, list[str]]:
    from .replay import load_trace
    from .result import concat, load_result

    if source == "result":
        result = concat(load_result(path) for path in inputs)
        return result, sorted(result.meta["runs"])
    if source == "traces":
        loaded = [load_trace(path) for path in inputs]
        return loaded, [trace.hash for trace in loaded]
    return _load_table(inputs), []


def _load_table(inputs: Sequence[str]) -> Any:
    import pandas as pd

    frames = []
    for name in inputs:
        path = Path(name)
        if not path.is_file() or path.suffix not in (".csv", ".parquet"):
            raise InputError(f"no table at {path}; this figure is drawn from a CSV or Parquet file")
        frames.append(pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path))
    return pd.concat(frames, ignore_index=True)


def save(ax: Axes, out: Path, keywords: Sequence[str] = ()) -> Path:
    """Write the figure whole or not at all, run ids in the file's metadata, and close it."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from .plots.style import current_rc

    figure: Any = ax.figure
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    listed = " ".join(keywords)
    metadata = {
        ".png": {"Software": "zeroskip", "Description": listed},
        # without a date, equal figures are equal files
        ".pdf": {"Creator": "zeroskip", "Keywords": listed, "CreationDate": None},
        ".svg": {"Creator": "zeroskip", "Keywords": [listed], "Date": None},
    }[out.suffix]
    try:
        with mpl.rc_context(current_rc()):
            figure.savefig(partial, metadata=metadata, bbox_inches="tight", pad_inches=0.02)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
        plt.close(figure)
    return out
