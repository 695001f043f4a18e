"""Error statistics of predictions, printed by every validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BANDS = ((1, 1), (2, 16), (17, 128), (129, 512), (513, 2048), (2049, 1 << 62))


def band_label(low: int, high: int) -> str:
    """Name of a band of M."""
    if low == high:
        return f"M={low}"
    return f"M={low}-{high}" if high < 1 << 62 else f"M>={low}"


def score(
    name: str,
    model: str,
    predicted: Floats,
    measured: Floats,
    *,
    rows_fit: int,
    tokens: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Score predictions on rows that were not fitted.

    Parameters
    ----------
    name, model : str
        Set and model.
    predicted, measured : float64[rows]
        Same unit.
    rows_fit : int
        Rows the model was fitted on, none of them among the scored.
    tokens : int64[rows], optional
        M of each row, for the error by band.

    Returns
    -------
    dict
        set, model, rows_fit, rows_scored; mape_percent = mean |p/m - 1|, p90_percent = its 90th percentile,
        bias_percent = mean (p/m - 1); bands: band -> rows, mape_percent, bias_percent.
    """
    error = predicted / measured - 1.0
    row: dict[str, Any] = {
        "set": name,
        "model": model,
        "rows_fit": int(rows_fit),
        "rows_scored": len(error),
        "mape_percent": 100 * float(np.abs(error).mean()),
        "p90_percent": 100 * float(np.quantile(np.abs(error), 0.9)),
        "bias_percent": 100 * float(error.mean()),
    }
    if tokens is not None:
        row["bands"] = _by_band(error, tokens)
    return row


def _by_band(error: Floats, tokens: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    bands = {}
    for low, high in BANDS:
        here = error[(tokens >= low) & (tokens <= high)]
        if len(here):
            bands[band_label(low, high)] = {
                "rows": len(here),
                "mape_percent": 100 * float(np.abs(here).mean()),
                "bias_percent": 100 * float(here.mean()),
            }
    return bands


def break_even(density: Floats, speedup: Floats) -> float:
    """Return the highest density at which a sparse kernel is not slower, between points by a straight line.

    Parameters
    ----------
    density, speedup : float64[points]
        In any order; speed-up is over the dense kernel.

    Returns
    -------
    float
        1 where it wins at every density measured; 0 where it never wins.
    """
    order = np.argsort(density)
    x, y = density[order], speedup[order] - 1.0
    if (y >= 0).all():
        return 1.0
    last = np.flatnonzero(y >= 0)
    if not len(last):
        return 0.0
    i = int(last[-1])
    return float(x[i] + (x[i + 1] - x[i]) * y[i] / (y[i] - y[i + 1])) if i + 1 < len(x) else 1.0
