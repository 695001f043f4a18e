"""A Result held against Measurements of the same ops: a join on their common keys."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..results.result import Result
from .scores import score

# A measurement's density is of one random mask, the result's of the recorded one: nearer than this is the same point.
DENSITY_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Agreement:
    """Predictions beside measurements.

    Parameters
    ----------
    frame : DataFrame
        One row for each op that was measured: the result's keys, ``predicted_s`` and ``measured_s`` of one launch,
        and ``ratio`` = predicted / measured.
    """

    frame: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Errors by arch and by set of measurements; the columns of `simkit.validation.scores.score`."""
        rows = [
            score(
                str(arch),
                "result",
                part["predicted_s"].to_numpy(dtype=float),
                part["measured_s"].to_numpy(dtype=float),
                rows_fit=0,
            )
            for arch, part in self.frame.groupby("arch", sort=False)
        ]
        return pd.DataFrame(rows)


def validate(result: Result, measurements: str | os.PathLike[str] | pd.DataFrame) -> Agreement:
    """Join a result with measured launches of the same shape, device and density.

    Parameters
    ----------
    result : Result
        Replays; ``batch`` is the rows of one launch.
    measurements : path or DataFrame
        A Parquet or CSV file, a folder of them, or a frame with the columns of `simkit.measure.formats.COLUMNS`.

    Returns
    -------
    Agreement
        Joined rows.

    Raises
    ------
    InputError
        If nothing was measured that the result predicts, naming what was.
    """
    table = measurements if isinstance(measurements, pd.DataFrame) else _read(Path(measurements))
    ops = result.ops[result.ops["kind"] == "gemm"].copy()
    ops["density"] = ops["effectual_macs"] / ops["macs"]
    ops["predicted_s"] = ops["latency_s"] / (np.ceil(ops["m"] / ops["batch"]) * ops["repeat"])
    # the arch's own name, since its label may say what differs from another
    ops["device"] = ops["run"].map(
        {run: meta["arch"]["name"].split("[")[0] for run, meta in result.meta["runs"].items()}
    )
    measured = table.rename(columns={"m": "batch", "density": "measured_density", "seconds": "measured_s"})
    keep = ["device", "batch", "k", "n", "measured_density", "measured_s"]
    joined = ops.merge(measured[keep], on=["device", "batch", "k", "n"])
    apart = (joined["density"] - joined["measured_density"].fillna(1.0)).abs()
    joined = joined[apart <= DENSITY_TOLERANCE].assign(ratio=lambda rows: rows["predicted_s"] / rows["measured_s"])
    if joined.empty:
        devices = ", ".join(sorted(set(table["device"].astype(str))))
        raise InputError(
            f"no measured launch matches the result's ops by device, batch, K, N and density; measured: {devices}, "
            f"{len(table)} rows; predicted: {', '.join(dict.fromkeys(ops['arch']))}"
        )
    return Agreement(joined.reset_index(drop=True))


def _read(path: Path) -> pd.DataFrame:
    from ..measure.formats import import_file

    files = sorted([*path.glob("*.parquet"), *path.glob("*.csv")]) if path.is_dir() else [path]
    if not files:
        raise InputError(f"no measurements in {path}; 'simkit measure --pending' says which campaigns to run")
    return pd.concat([import_file(file, device=path.stem) for file in files], ignore_index=True)
