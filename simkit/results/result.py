"""The Result: one long table, every figure a pivot of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import CorruptError, InputError, VersionError
from ..files import whole

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "zeroskip.result/1"
KEY = ["run", "trace", "tuning", "arch", "layer", "op"]
SHAPE_COLUMNS = ["kind", "m", "k", "n", "batch", "repeat"]
OP_COLUMNS = [
    *SHAPE_COLUMNS,
    "macs",
    "effectual_macs",
    "cycles",
    "dense_cycles",
    "stall_cycles",
    "dense_stall_cycles",
    "latency_s",
    "dense_latency_s",
    "dram_bytes",
]
ACTION_COLUMNS = ["component", "action", "count", "energy_pj", "energy_low_pj", "energy_high_pj"]
COLUMNS = [*KEY, *OP_COLUMNS, *ACTION_COLUMNS]
ENERGY = ["energy_pj", "energy_low_pj", "energy_high_pj"]


class Result:
    """Counts and energies of replays.

    Parameters
    ----------
    frame : DataFrame
        Long form, one row for each (run, trace, tuning, arch, layer, op, component, action), with the op's own
        figures (`OP_COLUMNS`) repeated on each of its rows. Energies in pJ, latencies in s.
    meta : dict
        ``runs``: for each run id its trace, arch and table with hashes and the environment.
    """

    def __init__(self, frame: pd.DataFrame, meta: dict[str, Any]):
        missing = [name for name in COLUMNS if name not in frame]
        if missing:
            raise InputError(f"a result needs the columns {missing}; it has {list(frame.columns)}")
        self.frame = frame
        self.meta = meta

    @property
    def ops(self) -> pd.DataFrame:
        """One row for each op: its figures and its energy over all actions."""
        sums = self.frame.groupby(KEY, sort=False, observed=True)[ENERGY].sum()
        figures = self.frame.drop_duplicates(KEY).set_index(KEY)[OP_COLUMNS]
        return figures.join(sums).reset_index()

    def pivot(self, index: str, columns: str, values: str, ops: str | Iterable[str] | None = None) -> pd.DataFrame:
        """Sum `values` over everything but two keys.

        Parameters
        ----------
        index, columns : str
            Key columns (``arch``, ``tuning``, ``layer``, ``op``, ``component`` ...).
        values : str
            ``energy_pj``, ``cycles``, ``latency_s``, ``count`` ...
        ops : str or list, optional
            Only these ops, e.g. ``"down"``.

        Raises
        ------
        InputError
            If there is no such column, naming the nearest.
        """
        from hwmodels.errors import nearest

        for name in (index, columns, values):
            if name not in self.frame:
                raise InputError(f"the result has no column '{name}'" + nearest(name, self.frame.columns))
        long = {"component", "action"} & {index, columns} or values in ACTION_COLUMNS
        frame = self.frame if long else self.ops
        if ops is not None:
            frame = frame[frame["op"].isin([ops] if isinstance(ops, str) else list(ops))]
        return frame.pivot_table(index=index, columns=columns, values=values, aggfunc="sum", sort=False)

    def summary(self, ops: str | Iterable[str] | None = None) -> pd.DataFrame:
        """One row for each trace and arch: cycles, speed-up over dense, energy per token, average watts.

        The speed-up is of latencies, stalls included, against the same design's dense baseline; energy per token
        divides by the trace's real tokens. ``low``/``high`` carry the energy table's ranges.
        """
        frame = self.ops
        if ops is not None:
            frame = frame[frame["op"].isin([ops] if isinstance(ops, str) else list(ops))]
        keys = ["run", "trace", "tuning", "arch"]
        table = (
            frame.groupby(keys, sort=False, observed=True)[[*OP_COLUMNS[len(SHAPE_COLUMNS) :], *ENERGY]]
            .sum()
            .reset_index()
        )
        tokens = table["run"].map(lambda run: self.meta["runs"][run]["trace"]["tokens"])
        table["density"] = table["effectual_macs"] / table["macs"]
        table["speedup"] = table["dense_latency_s"] / table["latency_s"]
        table["compute_speedup"] = table["dense_cycles"] / table["cycles"]
        for name in ENERGY:
            table[name.replace("_pj", "_per_token_pj")] = table[name] / tokens
        # an estimate without time has neither power nor speed-up
        table["power_w"] = table["energy_pj"] * 1e-12 / table["latency_s"].where(table["latency_s"] > 0)
        table["energy_delay_js"] = table["energy_pj"] * 1e-12 * table["latency_s"]
        return table

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one Parquet file, whole or not at all."""
        import pyarrow as pa

        return write_table(pa.Table.from_pandas(self.frame, preserve_index=False), self.meta, Path(path))

    def __repr__(self) -> str:
        runs = self.frame[["trace", "arch"]].drop_duplicates()
        shown = [f"{trace} on {arch}" for trace, arch in runs.head(4).itertuples(index=False)]
        rest = f" and {len(runs) - len(shown):,} more" if len(runs) > len(shown) else ""
        return f"Result({len(runs):,} runs: {', '.join(shown)}{rest})"

    def _repr_html_(self) -> str:
        from .tables import table

        return table(self)._repr_html_()


def write_table(table: pa.Table, meta: dict[str, Any], target: Path) -> Path:
    """Write rows and what is known of their runs as one Parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stamp = {b"zeroskip": json.dumps({"schema": SCHEMA, **_fold(meta)}, default=str).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **stamp})
    words = [field.name for field in table.schema if not pa.types.is_primitive(field.type)]
    with whole(target) as partial:
        # only words repeat enough for a dictionary to be worth its making
        pq.write_table(table, partial, compression="zstd", use_dictionary=words)
    return target


def plain_words(table: pa.Table) -> pa.Table:
    """Return a table whose dictionaries are plain strings."""
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def concat(results: Iterable[Result]) -> Result:
    """Join results; a run that occurs twice is kept once."""
    frames: list[pd.DataFrame] = []
    runs: dict[str, Any] = {}
    for result in results:
        fresh = [run for run in result.meta["runs"] if run not in runs]
        frames.append(result.frame[result.frame["run"].isin(fresh)])
        runs.update({run: result.meta["runs"][run] for run in fresh})
    if not frames:
        raise InputError("no results to join; give at least one trace and one arch")
    return Result(pd.concat(frames, ignore_index=True), {"runs": runs})


def load_result(path: str | os.PathLike[str]) -> Result:
    """Read a stored result, or all parts of a sweep in a folder.

    Raises
    ------
    InputError
        If there is no such file.
    CorruptError
        If it is not a result of this schema, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = Path(path)
    if where.is_dir() and (parts := sorted(where.glob("*.parquet"))):
        return concat(load_result(part) for part in parts)
    if (where / "zarr.json").is_file():
        raise InputError(f"{where} is a trace, not a result; replay it: simkit replay {where} --arch ARCH --out FILE")
    if not where.is_file():
        raise InputError(f"no result file at {where}; make one with: simkit replay TRACE --arch ARCH --out {where}")
    try:
        table = pq.read_table(where)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptError(f"{where} is damaged or not Parquet ({str(error).splitlines()[0]}); replay again") from None
    return Result(plain_words(table).to_pandas(), _meta_of(where, table.schema.metadata))


def load_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what is known of the runs in a stored result, without its rows.

    Raises
    ------
    CorruptError
        If the file is not a result of this schema, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _meta_of(Path(path), pq.read_metadata(path).metadata)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptError(f"{path} is damaged or not Parquet ({str(error).splitlines()[0]}); replay again") from None


def _meta_of(where: Path, stored: dict[bytes, bytes] | None) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((stored or {}).get(b"zeroskip", b"{}"))
    schema = meta.pop("schema", None)
    if schema is None:
        raise CorruptError(f"{where} is a table but not a result (it names no runs); give what 'simkit replay' wrote")
    if schema != SCHEMA:
        raise VersionError(
            f"{where} was written by another version (schema {schema}, this one reads {SCHEMA}); "
            "replay the trace again, or write elsewhere"
        )
    shared = meta.pop("shared", {})
    for run in meta["runs"].values():
        run.update({name: shared[key] for name, key in run.pop("shared", {}).items()})
    return meta


def _fold(meta: dict[str, Any]) -> dict[str, Any]:
    """Metadata for storage, in which thousands of runs name the trace and the environment that they share."""
    shared: dict[str, Any] = {}
    keys: dict[int, str] = {}

    def key_of(facts: Any) -> str:
        if id(facts) not in keys:
            text = json.dumps(facts, sort_keys=True, default=str)
            keys[id(facts)] = hashlib.sha256(text.encode()).hexdigest()[:16]
            shared[keys[id(facts)]] = facts
        return keys[id(facts)]

    runs = {}
    for run, facts in meta["runs"].items():
        common = {name: key_of(facts[name]) for name in ("trace", "environment") if name in facts}
        runs[run] = {**{name: value for name, value in facts.items() if name not in common}, "shared": common}
    return {**meta, "shared": shared, "runs": runs}
