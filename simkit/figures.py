"""Figures into files, for the command line and the demo."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".pdf", ".svg")


def drawers() -> dict[str, tuple[str, Callable[..., Axes]]]:
    """Return what `draw_to_file` knows: name -> (what it draws from, function)."""
    from . import plots

    return {
        "speedup": ("result", plots.speedup_bars),
        "energy": ("result", plots.energy_breakdown),
        "tradeoff": ("result", plots.accuracy_energy),
        "density": ("traces", plots.density_by_layer),
    }


def draw_to_file(
    name: str, inputs: Sequence[str], out: Path, *, style: str | None = None, ops: Sequence[str] | None = None
) -> Path:
    """Draw one figure from stored inputs.

    Raises
    ------
    InputError
        If the figure, the style or the file's ending is unknown.
    """
    from hwmodels.errors import nearest

    from .plots import paper
    from .replay import load_trace
    from .result import concat, load_result

    known = drawers()
    if name not in known:
        raise InputError(f"unknown figure '{name}'" + nearest(name, known))
    if out.suffix not in FORMATS:
        raise InputError(f"cannot write '{out}': a figure ends in {', '.join(FORMATS)}")
    source, draw = known[name]
    with paper(style) if style else nullcontext():
        if source == "result":
            result = concat(load_result(path) for path in inputs)
            ax = draw(result, ops=ops)
            return save(ax, out, keywords=sorted(result.meta["runs"]))
        loaded = [load_trace(path) for path in inputs]
        return save(draw(loaded), out, keywords=[trace.hash for trace in loaded])


def save(ax: Axes, out: Path, keywords: Sequence[str] = ()) -> Path:
    """Write the figure whole or not at all, run ids in the file's metadata, and close it."""
    from matplotlib import pyplot as plt

    figure: Any = ax.figure
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    listed = " ".join(keywords)
    metadata = {
        ".png": {"Software": "zeroskip", "Description": listed},
        ".pdf": {"Creator": "zeroskip", "Keywords": listed},
        ".svg": {"Creator": "zeroskip", "Keywords": [listed]},
    }[out.suffix]
    try:
        figure.savefig(partial, metadata=metadata, bbox_inches="tight")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
        plt.close(figure)
    return out
