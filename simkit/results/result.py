"""The Result: one long table, every figure a pivot of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import CorruptError, InputError, VersionError
from ..files import whole
from .columns import derived, derived_names, require
from .runs import NAMES, Ops, measured, op_list, run_labels

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

    Raises
    ------
    InputError
        If the frame lacks a column.

    Examples
    --------
    >>> result = sk.replay("minilm_relu_small.zarr", "cnvlutin")
    >>> result
    Result(1 runs: minilm_relu_small on cnvlutin)
    >>> result.save("result.parquet").name
    'result.parquet'
    """

    def __init__(self, frame: pd.DataFrame, meta: dict[str, Any]):
        missing = [name for name in COLUMNS if name not in frame]
        if missing:
            raise InputError(f"a result needs the columns {missing}; it has {list(frame.columns)}")
        self.frame = frame
        self.meta = meta
        self._labels: tuple[pd.DataFrame, dict[str, Any], pd.DataFrame] | None = None

    def labels(self) -> pd.DataFrame:
        """Label every run: what figures and tables call it.

        Returns
        -------
        DataFrame
            By run: trace, tuning, arch; see `simkit.results.runs.run_labels`. No two runs have the same arch and
            tuning, nor
            the same arch and trace.
        """
        runs = self.meta["runs"]
        if self._labels is None or self._labels[0] is not self.frame or self._labels[1] is not runs:
            names = self.frame.drop_duplicates("run").set_index("run")[NAMES].astype(str)
            self._labels = (self.frame, runs, run_labels(names, runs))
        return self._labels[2]

    def op_names(self, ops: Ops) -> list[str] | None:
        """Check the names of wanted ops against the result's; None stays None.

        Raises
        ------
        InputError
            If the result lacks one of them, naming the nearest, or has no rows.
        """
        if self.frame.empty:
            raise InputError("the result has no rows; replay at least one trace on one arch")
        return None if ops is None else op_list(ops, self.frame["op"].unique(), "the result")

    def actions(self, ops: Ops = None) -> pd.DataFrame:
        """Rows of the long frame with the labels of their runs, of the wanted ops."""
        wanted = self.op_names(ops)
        frame = self.frame if wanted is None else self.frame[self.frame["op"].isin(wanted)]
        labels = self.labels()
        return self._with_fields(frame.assign(**{name: frame["run"].map(labels[name]) for name in NAMES}))

    @property
    def ops(self) -> pd.DataFrame:
        """One row for each op of each run: its figures, its energy over all actions, and the labels of its run."""
        return self.op_table()

    def op_table(self, ops: Ops = None) -> pd.DataFrame:
        """As `ops`, of the wanted ops."""
        wanted = self.op_names(ops) if ops is not None else None
        frame = self.frame if wanted is None else self.frame[self.frame["op"].isin(wanted)]
        key = ["run", "layer", "op"]
        sums = frame.groupby(key, sort=False, observed=True)[ENERGY].sum()
        figures = frame.drop_duplicates(key).set_index(key)[OP_COLUMNS]
        table = figures.join(sums).reset_index()
        labels = self.labels()
        table = table.assign(**{name: table["run"].map(labels[name]) for name in NAMES})
        return self._with_fields(table[[*KEY, *OP_COLUMNS, *ENERGY]])

    @property
    def fields(self) -> pd.DataFrame:
        """Swept fields, by run: plain numbers in base units (Hz, byte, byte/s ...); no column where none was swept.

        A field of the name of another column has ``arch.`` before it.
        """
        swept = {run: facts.get("point", {}).get("values", {}) for run, facts in self.meta["runs"].items()}
        table = pd.DataFrame.from_dict(swept, orient="index")
        taken = {*COLUMNS, *derived_names()}
        return table.rename(columns={name: f"arch.{name}" for name in table if name in taken})

    def _with_fields(self, table: pd.DataFrame) -> pd.DataFrame:
        fields = self.fields
        return table.join(fields, on="run") if len(fields.columns) else table

    def pivot(
        self, index: str | Sequence[str], columns: str | Sequence[str], values: str, ops: Ops = None
    ) -> pd.DataFrame:
        """Lay `values` out over keys, summed over the layers, ops and actions of each run; never over two runs.

        Parameters
        ----------
        index, columns : str or sequence of str
            Keys: ``run``, ``arch``, ``tuning``, ``trace``, ``layer``, ``op``, ``component``, ``action`` ..., or
            swept fields (``lanes`` ...); runs appear by their labels, see `labels`, and those without a key's field are
            left out.
        values : str
            ``energy_pj``, ``cycles``, ``latency_s``, ``count`` ...; where the keys are of runs alone, any column of
            `summary`.
        ops : str or list, optional
            Only these ops, e.g. ``"down"``.

        Returns
        -------
        DataFrame
            Sums, one row for each value of `index` and one column for each of `columns`.

        Raises
        ------
        InputError
            If there is no such column, naming the nearest, or the keys do not tell the runs apart.

        Examples
        --------
        >>> result = sk.replay("minilm_relu_small.zarr", "cnvlutin", ops="down")
        >>> result.pivot("layer", "arch", "cycles").shape
        (6, 1)
        """
        rows, heads = ([one] if isinstance(one, str) else list(one) for one in (index, columns))
        keys = [*rows, *heads]
        if set(keys) <= {"run", *NAMES, *self.fields} and values not in self.frame:
            frame = self.summary(ops)
            require(frame, [*keys, values], "the result")
        else:
            require(self._with_fields(self.frame.head(0)), [*keys, values], "the result")
            per_action = set(keys) & {"component", "action"}
            if per_action and values not in ACTION_COLUMNS:
                raise InputError(
                    f"'{values}' is of a whole op, not of its {sorted(per_action)[0]}s; leave that key out"
                )
            frame = self.actions(ops) if per_action or values in ACTION_COLUMNS else self.op_table(ops)
        self._refuse_sums(frame, keys)
        if isinstance(index, str) and isinstance(columns, str):
            return frame.pivot_table(index=index, columns=columns, values=values, aggfunc="sum", sort=False)
        return frame.pivot_table(index=rows, columns=heads, values=values, aggfunc="sum", sort=False)

    def _refuse_sums(self, frame: pd.DataFrame, keys: list[str]) -> None:
        """Refuse keys under which rows of two runs would be added."""
        # a pivot leaves out rows without a key: runs of an arch that has not the swept field
        found = frame[list(dict.fromkeys(["run", *keys]))].drop_duplicates().dropna()
        others = [key for key in keys if key != "run"]
        twice = found[found.duplicated(others, keep=False)] if "run" not in keys else found.iloc[:0]
        if len(twice):
            first = twice[(twice[others] == twice[others].iloc[0]).all(axis=1)]["run"].head(2)
            one, other = (" on ".join(self.labels().loc[run, ["tuning", "arch"]]) for run in first)
            missing = " or ".join(f"'{name}'" for name in ("arch", "tuning", "trace", "run") if name not in keys)
            raise InputError(
                f"pivot over {', '.join(keys)} would add up runs ({one}; {other}); take {missing} as a further key, "
                "e.g. index=['arch', 'tuning']"
            )

    def summary(self, ops: Ops = None, *, measured: bool = False) -> pd.DataFrame:
        """One row for each run: cycles, speed-up over dense, energy per token, average watts.

        The speed-up is of latencies, stalls included, against the same design's dense baseline; energy per token
        divides by the trace's real tokens. ``low``/``high`` carry the energy table's ranges. What cannot be derived,
        as the power of an estimate without time, is NaN. Swept fields are columns.

        Parameters
        ----------
        ops : str or list, optional
            Only these ops, e.g. ``"down"``.
        measured : bool
            Add what was measured of each run's tuning: accuracy, its standard error, tuning time ...

        Returns
        -------
        DataFrame
            run; trace, tuning and arch as `labels` has them; the sums; every column that `simkit.results.columns`
            derives.

        Raises
        ------
        InputError
            If the result has no rows, or lacks one of the ops.

        Examples
        --------
        >>> result = sk.replay("minilm_relu_small.zarr", "cnvlutin", ops="down")
        >>> result.summary()[["trace", "arch", "density"]].round(3).values.tolist()
        [['minilm_relu_small', 'cnvlutin', 0.181]]
        """
        self.op_names(ops)
        sums = [*OP_COLUMNS[len(SHAPE_COLUMNS) :], *ENERGY]
        table = self.op_table(ops).groupby("run", sort=False)[sums].sum()
        table = self.labels().loc[table.index].join(table).reset_index()
        tokens = table["run"].map(lambda run: self.meta["runs"][run]["trace"]["tokens"])
        table = derived(table.assign(tokens=tokens)).drop(columns="tokens")
        table = self._with_fields(table)
        return self._with_measured(table) if measured else table

    def _with_measured(self, table: pd.DataFrame) -> pd.DataFrame:
        found = measured({run: self.meta["runs"][run] for run in table["run"]})
        new = {name: found[name].to_numpy() for name in found if name not in table}
        return table.assign(**new)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one Parquet file, whole or not at all."""
        import pyarrow as pa

        return write_table(pa.Table.from_pandas(self.frame, preserve_index=False), self.meta, Path(path))

    def __repr__(self) -> str:
        runs = self.labels()[["trace", "arch"]]
        shown = [f"{trace} on {arch}" for trace, arch in runs.head(4).itertuples(index=False)]
        rest = f" and {len(runs) - len(shown):,} more" if len(runs) > len(shown) else ""
        return f"Result({len(runs):,} runs: {', '.join(shown)}{rest})"

    def _repr_html_(self) -> str:
        from .typeset import lay_out

        return lay_out(self.summary(measured=True))._repr_html_()


# what verbs and figures take as a result
Given = Result | str | os.PathLike[str] | Sequence[Result | str | os.PathLike[str]]


def write_table(table: pa.Table, meta: dict[str, Any], target: Path) -> Path:
    """Write rows and what is known of their runs as one Parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stamp = {b"zeroskip": json.dumps({"schema": SCHEMA, **_fold(meta)}, default=str).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **stamp})
    words = [field.name for field in table.schema if not pa.types.is_primitive(field.type)]
    # by a handle, since Arrow takes no name that is not UTF-8
    with whole(target) as partial, partial.open("wb") as file:
        # only words repeat enough for a dictionary to be worth its making
        pq.write_table(table, file, compression="zstd", use_dictionary=words, write_page_checksum=True)
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
        raise InputError("no result is given; give at least one")
    return Result(pd.concat(frames, ignore_index=True), {"runs": runs})


def load_result(path: str | os.PathLike[str]) -> Result:
    """Read a stored result, or all parts of a sweep in a folder.

    Parameters
    ----------
    path : str or path
        Parquet file that `Result.save` or ``simkit replay --out`` wrote, or a folder of them.

    Returns
    -------
    Result
        Runs of all files.

    Raises
    ------
    InputError
        If there is no such file.
    CorruptError
        If it is not a result of this schema, or damaged.

    Examples
    --------
    >>> path = sk.replay("minilm_relu_small.zarr", "cnvlutin").save("stored.parquet")
    >>> sk.load_result(path)
    Result(1 runs: minilm_relu_small on cnvlutin)
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
        with where.open("rb") as file:
            table = pq.read_table(file, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(where, error) from None
    meta = _meta_of(where, table.schema.metadata)
    if lost := [name for name in COLUMNS if name not in table.column_names]:
        raise CorruptError(f"{where} is damaged: it lacks the column '{lost[0]}' of a result; replay again")
    return Result(plain_words(table).to_pandas(), meta)


def as_result(given: Any) -> Result:
    """Open one result or join many, each a path or an object.

    Parameters
    ----------
    given : path, Result, or iterable of them
        What a verb or a figure was given as its result.

    Raises
    ------
    InputError
        If there is none, or one is neither a path nor a result.
    """
    if isinstance(given, Result):
        return given
    if isinstance(given, (str, os.PathLike)):
        return load_result(given)
    if isinstance(given, pd.DataFrame):
        raise InputError("a frame does not hold its runs' facts; give the Result, or sk.Result(frame, result.meta)")
    if isinstance(given, (list, tuple)):
        return concat(as_result(one) for one in given)
    raise InputError(
        f"{type(given).__name__} is not a result; give a path, or what replay, sweep or load_result returned"
    )


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


def _unreadable(where: Path, error: Exception) -> Exception:
    """Tell a file of another kind, which is the user's, from a result that is damaged."""
    from traces.files import kind_of

    kind = kind_of(where)
    if kind and kind not in ("Parquet", "empty"):
        return InputError(
            f"{where} is {kind}, not a result (a result is Parquet); give what 'simkit replay --out FILE' wrote"
        )
    return CorruptError(f"{where} is damaged or not Parquet ({str(error).splitlines()[0]}); replay again")


def _meta_of(where: Path, stored: dict[bytes, bytes] | None) -> dict[str, Any]:
    damaged = CorruptError(f"{where} is damaged: what it says of its runs cannot be read; replay again")
    try:
        meta: dict[str, Any] = json.loads((stored or {}).get(b"zeroskip", b"{}"))
        schema = meta.pop("schema", None)
    except (ValueError, TypeError, AttributeError):
        raise damaged from None
    if schema is None:
        raise CorruptError(f"{where} is a table but not a result (it names no runs); give what 'simkit replay' wrote")
    if schema != SCHEMA:
        raise VersionError(
            f"{where} was written by another version (schema {schema}, this one reads {SCHEMA}); "
            "replay the trace again, or write elsewhere"
        )
    try:
        shared = meta.pop("shared", {})
        for run in meta["runs"].values():
            run.update({name: shared[key] for name, key in run.pop("shared", {}).items()})
            if "base" in run["arch"]:
                run["arch"]["base"] = shared[run["arch"]["base"]]
    except (LookupError, TypeError, AttributeError):
        raise damaged from None
    return meta


def _fold(meta: dict[str, Any]) -> dict[str, Any]:
    """Metadata for storage, in which thousands of runs name the trace, the arch and the environment they share."""
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
        own = {name: value for name, value in facts.items() if name not in common}
        if "base" in own.get("arch", {}):
            own["arch"] = {**own["arch"], "base": key_of(own["arch"]["base"])}
        runs[run] = {**own, "shared": common}
    return {**meta, "shared": shared, "runs": runs}
