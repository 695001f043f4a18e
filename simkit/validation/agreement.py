"""A Result held against Measurements of the same ops: a join on their common keys."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..measure.formats import import_file
from ..results.result import Given, as_result
from .gemm import attempt, find_device
from .scores import score

NEEDED = ("device", "m", "k", "n", "density", "seconds")

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


def validate(result: Given, measurements: str | os.PathLike[str] | pd.DataFrame) -> Agreement:
    """Join a result with measured launches of the same shape, device and density.

    Parameters
    ----------
    result : path, Result, or list of them
        Replays; ``batch`` is the rows of one launch.
    measurements : path or DataFrame
        A Parquet or CSV file, a folder of them, or a frame with the columns of `simkit.measure.formats.COLUMNS`. Rows
        that name no device are of the one that the file's name says; files that cannot be read are left out aloud.

    Returns
    -------
    Agreement
        Joined rows.

    Raises
    ------
    InputError
        If nothing was measured that the result predicts, naming what was; or a column is missing.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", "h100_sxm", ops="down")
    >>> op = result.ops.iloc[0]
    >>> row = {"device": "h100_sxm", "m": op["batch"], "k": op["k"], "n": op["n"], "seconds": 2e-5}
    >>> table = pd.DataFrame([row | {"density": op["effectual_macs"] / op["macs"]}])
    >>> sk.validate(result, table).frame["measured_s"].iloc[0].item()
    2e-05
    """
    result = as_result(result)
    table = measurements if isinstance(measurements, pd.DataFrame) else _read(Path(measurements).expanduser())
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise InputError(f"the measurements have no column '{missing[0]}'; give {', '.join(NEEDED)}")
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
    if not path.is_dir():
        return _one(path)
    files = sorted(one for one in path.iterdir() if one.suffix.lower() in (".parquet", ".csv"))
    if not files:
        raise InputError(f"no measurements in {path}; 'simkit measure --pending' says which campaigns to run")
    frames = [frame for file in files for frame in attempt(file, lambda one: [_one(one)])]
    if not frames:
        raise InputError(f"none of the {len(files)} files in {path} could be read; the lines above say why")
    return pd.concat(frames, ignore_index=True)


def _one(path: Path) -> pd.DataFrame:
    """Read a file; a device is named as its arch is, where one is known."""
    table = import_file(path, device=path.stem)
    return table.assign(device=[_arch_of(str(name)) for name in table["device"]])


def _arch_of(name: str) -> str:
    try:
        return find_device(name)
    except InputError:
        return name
