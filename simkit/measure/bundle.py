"""Bundles: what one campaign measured on one device, as one Parquet file with its provenance.

While a campaign runs, each finished point is a line of a journal beside the bundle; a campaign that is stopped goes on
there. The finished bundle replaces it in one step.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import CorruptError, InputError
from ..files import whole

SCHEMA = 1
MOST_BYTES = 10_000_000
FOLDER = Path(__file__).with_name("bundles")
META_KEY = b"zeroskip.bundle"


def bundle_path(device: str, campaign: str, folder: Path | None = None) -> Path:
    """Where a bundle lies."""
    return (folder or FOLDER) / device / f"{campaign}.parquet"


class Journal:
    """Finished points of a running campaign, one JSON object a line."""

    def __init__(self, bundle: Path) -> None:
        self.path = bundle.with_suffix(".jsonl")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"bundles cannot be written to {bundle.parent}: {error.strerror}; give another folder"
            ) from None

    def rows(self) -> list[dict[str, Any]]:
        """Points done so far; a line cut off by a crash is dropped."""
        if not self.path.exists():
            return []
        out = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                out.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return out

    def add(self, row: dict[str, Any]) -> None:
        """Append a point and flush it to disk."""
        complete = self.rows_text_is_whole()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("" if complete else "\n") + json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rows_text_is_whole(self) -> bool:
        """Whether the last line was written to its end."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return True
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def write_bundle(path: Path, rows: list[dict[str, Any]], provenance: dict[str, Any]) -> Path:
    """Write a bundle in one step.

    Raises
    ------
    InputError
        If there is no row, or the file would be larger than a bundle may be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not rows:
        raise InputError(f"{path.stem}: nothing was measured, so there is no bundle to write")
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    meta = json.dumps({"schema": SCHEMA, "provenance": provenance}, default=str).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), META_KEY: meta})
    with whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")
        if (size := partial.stat().st_size) > MOST_BYTES:
            raise InputError(
                f"bundle {path.name} would take {size / 1e6:.1f} MB, more than 10 MB; measure fewer points or repeats"
            )
    return path


def read_bundle(device: str, campaign: str, folder: Path | None = None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a bundle: its rows, and its provenance.

    Raises
    ------
    InputError
        If there is none.
    CorruptError
        If it is damaged or of another schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = bundle_path(device, campaign, folder)
    if not path.exists():
        raise InputError(f"no bundle of '{campaign}' for {device}; run: simkit measure {campaign} on that device")
    try:
        table = pq.read_table(path)
        meta = json.loads((table.schema.metadata or {}).get(META_KEY, b"{}"))
    except (pa.ArrowInvalid, OSError, json.JSONDecodeError) as error:
        raise CorruptError(f"{path} cannot be read: {str(error).splitlines()[0]}; measure again") from None
    if meta.get("schema") != SCHEMA:
        raise CorruptError(f"{path} has bundle schema {meta.get('schema')}, this version reads {SCHEMA}; measure again")
    return table.to_pandas(), meta["provenance"]
