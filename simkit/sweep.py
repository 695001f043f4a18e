"""Many replays, each kept as soon as it is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hwmodels
from hwmodels import Arch, EnergyTable

from .replay import DEFAULT_TABLE, arch, replay_one, run_key
from .result import Result, concat, load_result

if TYPE_CHECKING:
    from traces import Trace


def sweep(
    traces: Sequence[Trace],
    archs: Sequence[Arch | str],
    *,
    table: str | EnergyTable = DEFAULT_TABLE,
    ops: Iterable[str] | None = None,
    weights: str = "recorded",
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Result:
    """Replay every trace on every arch; a finished point is never computed again.

    Parameters
    ----------
    traces, archs : sequence
        The grid.
    table, ops, weights
        As in `simkit.replay`.
    out : path, optional
        Folder for the parts, one Parquet file a point, named by content key; the user's cache by default.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Result
        All points.
    """
    from tqdm.auto import tqdm

    prices = hwmodels.load_table(table) if isinstance(table, str) else table
    many = [arch(one) if isinstance(one, str) else one for one in archs]
    wanted = sorted(ops) if ops is not None else None
    folder = Path(out) if out is not None else cache_folder() / "runs"
    pairs = [(trace, one) for trace in traces for one in many]
    parts = []
    for trace, one in tqdm(pairs, desc="replay", unit="run", disable=not progress):
        part = folder / f"{run_key(trace, one, prices, wanted, weights)}.parquet"
        if not part.exists():
            replay_one(trace, one, prices, wanted, weights, None).save(part)
        parts.append(load_result(part))
    return concat(parts)


def cache_folder() -> Path:
    """Folder for what can be computed again: ``$XDG_CACHE_HOME/zeroskip`` or ``~/.cache/zeroskip``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroskip"
