"""Parts of a sweep on disk: atomic Parquet files, each with the runs of a batch and why others failed."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from ..engine.replay import Rows
from ..errors import CorruptError, VersionError
from ..provenance import key_of
from ..results.result import COLUMNS, Result, load_meta, plain_words, write_table

log = logging.getLogger(__name__)
Json = dict[str, Any]


def write_part(folder: Path, rows: Rows, runs: Json, failed: Json) -> Path:
    """Write one part, whole or not at all; the same points give the same name.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    keys = sorted([*runs, *failed])
    path = folder / f"{keys[0] if len(keys) == 1 else 'b' + key_of(keys)}.parquet"
    meta: Json = {"runs": runs, "failed": failed} if failed else {"runs": runs}
    return write_table(rows.table(), meta, path)


class Parts:
    """What a folder of parts holds, by run.

    Parameters
    ----------
    folder : Path
        Where the parts are.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.runs: Json = {}
        self.failed: Json = {}
        self._part: dict[str, Path] = {}
        self._read: set[Path] = set()

    def refresh(self) -> None:
        """Take in parts that came since.

        A damaged part (power lost, disk full) is removed, so that its points are computed again.

        Raises
        ------
        VersionError
            If a part was written by another version.
        """
        for path in sorted(set(self.folder.glob("*.parquet")) - self._read):
            try:
                meta = load_meta(path)
            except VersionError:
                raise
            except CorruptError as error:
                log.warning("%s; its points are computed again", error)
                path.unlink(missing_ok=True)
                continue
            self._read.add(path)
            self.runs.update(meta["runs"])
            self.failed.update(meta.get("failed", {}))
            self._part.update(dict.fromkeys(meta["runs"], path))
        self.failed = {run: facts for run, facts in self.failed.items() if run not in self.runs}

    def load(self, runs: Collection[str]) -> Result:
        """Read the rows of some runs, in their order."""
        import pyarrow.parquet as pq

        wanted = list(dict.fromkeys(runs))
        paths = dict.fromkeys(self._part[run] for run in wanted)
        frames = []
        for path in paths:
            frame = plain_words(pq.read_table(path)).to_pandas()
            # a point may stand in two parts: its worker died after writing one, and another worker did it again
            frames.append(frame[frame["run"].map(self._part) == path])
        frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
        place = pd.Categorical(frame["run"], categories=wanted).codes
        order = place.argsort(kind="stable")
        frame = frame.iloc[order[place[order] >= 0]].reset_index(drop=True)
        return Result(frame, {"runs": {run: self.runs[run] for run in wanted}})
