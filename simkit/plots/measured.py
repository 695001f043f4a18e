"""Figures drawn from files of measurements or stored bundles, by name: what ``simkit plot`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..validation.bundles import bundle_predictions, validate_bundle
from ..validation.gemm import gpus, validate_gemms
from ..validation.gpu import curve, joules_curve, predictions
from .registry import figure
from .validation import curve_against_density, error_by_band, predicted_against_measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSITIES = (1.0, 0.75, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
WIDTHS = (11008, 4096)  # d_ff and d_model of the joules' down-projection, those of the campaigns


def _only(inputs: Sequence[str], what: str) -> str:
    if len(inputs) != 1:
        raise InputError(f"{len(inputs)} inputs; this figure is drawn from one: {what}")
    return inputs[0]


def _file(name: str, kind: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"no file {path}; give one named {kind}_<...>, CSV or Parquet")
    if not path.name.startswith(f"{kind}_"):
        raise InputError(f"'{path.name}' holds no such measurements; give a file named {kind}_<...>")
    return path


@figure("error-bands", "measured")
def error_bands(inputs: Sequence[str], ax: Axes | None = None) -> Axes:
    """Error of each timing model by band of tokens, on rows that no fit saw.

    Parameters
    ----------
    inputs : sequence of str
        One file named ``gemm_...``, or one device with a stored bundle.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    """
    name = _only(inputs, "a file named gemm_*, or a device with a stored bundle")
    rows = validate_bundle(name) if _is_device(name) else validate_gemms([_file(name, "gemm")], by_model=False)
    return error_by_band(rows, next(row["set"] for row in rows if "bands" in row), ax)


@figure("predicted", "measured")
def predicted(inputs: Sequence[str], ax: Axes | None = None) -> Axes:
    """Seconds predicted against seconds measured, on rows that no fit saw.

    Parameters
    ----------
    inputs : sequence of str
        One file named ``gemm_...``, or one device with a stored bundle.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    """
    name = _only(inputs, "a file named gemm_*, or a device with a stored bundle")
    table = bundle_predictions(name) if _is_device(name) else predictions(_file(name, "gemm"))
    return predicted_against_measured(table["predicted"].to_numpy(), table["measured"].to_numpy(), ax)


@figure("speedup-measured", "measured")
def speedup_measured(inputs: Sequence[str], ax: Axes | None = None) -> Axes:
    """Speed-up of a sparse kernel over dense against density, measured and predicted.

    Parameters
    ----------
    inputs : sequence of str
        One file named ``sparse_mlp_...``.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    """
    table = curve(_file(_only(inputs, "a file named sparse_mlp_*"), "sparse_mlp"))
    names = ("measured", "calibrated", "naive_roofline")
    return curve_against_density(table["density"].to_numpy(), {name: table[name].to_numpy() for name in names}, ax)


@figure("joules-density", "measured")
def joules_density(inputs: Sequence[str], ax: Axes | None = None) -> Axes:
    """Joules of one token's down-projection against density on a GPU, its fastest kernel beside dense.

    Parameters
    ----------
    inputs : sequence of str
        One GPU's arch.
    ax : Axes, optional
        Axes to draw into; a new figure by default.
    """
    name = _only(inputs, f"one of {', '.join(gpus())}")
    table = joules_curve(name, *WIDTHS, DENSITIES)
    curves = {"fastest kernel": 1e3 * table["joules"].to_numpy(), "dense": 1e3 * table["dense_joules"].to_numpy()}
    return curve_against_density(np.array(DENSITIES), curves, ax, quantity=f"mJ per token ({name})")


def _is_device(name: str) -> bool:
    return name == "cpu" or name in gpus()
