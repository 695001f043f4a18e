"""Layout of a trace on disk: Zarr v3, schema ``zeroskip.trace/1``.

::

    T.zarr/zarr.json              attributes: everything but the arrays; self-checksummed
    T.zarr/tokens/{column}        one value for each recorded row
    T.zarr/sites/{site}/mask      uint64 (rows, words), sharded, compressed, a CRC32C for each chunk
    T.zarr/sites/{site}/mask@{v}  the same, of a variant
    T.zarr/sites/{site}/weight    uint64 (N, words), where weights were recorded
    T.zarr/sites/{site}/values    uint16 (rows, K), the bits of bfloat16, or int8 (rows, K); with values alone
    T.zarr/sites/{site}/scale     float32 (rows, 1), what one step of an int8 row is worth
    T.zarr/sites/{site}/choice    int16 (rows, chosen), the experts of each token; masks then stand side by side

Every array has its final shape from the start. A commit writes chunks first and the root's attributes last; they say
how many rows hold data, how many ones each chunk has, and the SHA-256 of every array's metadata. A writer killed
anywhere leaves the trace of its last commit, and no missing or altered chunk can pass for zeros.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorruptError, InputError, StorageError
from ..files import kind_of
from .arrays import COLUMNS, Layout, SiteMeta, array_name, count_ones, create_array
from .bits import Words, words_per_row
from .folder import Folder

SCHEMA = "zeroskip.trace/1"


@dataclass
class Root:
    """The root's attributes, checked on reading and sealed on writing."""

    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows committed."""
        return int(self.attrs["rows"])

    @property
    def sites(self) -> list[SiteMeta]:
        """Sites in execution order."""
        return [SiteMeta.from_dict(site) for site in self.attrs["sites"]]

    def seal(self) -> bytes:
        """Return the bytes of the root's ``zarr.json``, with a checksum of its own."""
        attrs = {k: v for k, v in self.attrs.items() if k != "checksum"}
        attrs["checksum"] = _digest(attrs)
        return _text({"attributes": attrs, "node_type": "group", "zarr_format": 3})


def read_root(folder: Folder) -> Root:
    """Read and check a trace's root.

    Raises
    ------
    InputError
        If there is no trace, or its schema is another version.
    CorruptError
        If the root was truncated or altered.
    """
    data = folder.read("zarr.json")
    if data is None and not folder.is_url and os.path.isfile(folder.root):
        kind = kind_of(Path(folder.root)) or "a file"
        raise InputError(
            f"'{folder.path}' is {kind}, not a trace, which is a folder; masks become one by 'simkit trace import'"
        )
    if data is None:
        raise InputError(f"no trace at '{folder.path}' (no zarr.json there); record one with 'simkit record'")
    try:
        document = json.loads(data)
        attrs = document["attributes"]
        schema = attrs.get("schema")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(
            f"{folder.path}/zarr.json is truncated or altered ({error}); record the trace anew"
        ) from error
    if schema != SCHEMA and isinstance(schema, str) and schema.rpartition("/")[0] == SCHEMA.rpartition("/")[0]:
        raise InputError(
            f"'{folder.path}' has schema '{schema}', this version reads '{SCHEMA}'; install the version that made it, "
            "or record it anew"
        )
    if schema is None and "checksum" not in attrs:
        raise InputError(f"'{folder.path}' is a Zarr group but not a trace (its attributes have no 'schema')")
    root = Root(attrs)
    if data != root.seal():
        raise CorruptError(f"{folder.path}/zarr.json: checksum does not fit its content; record the trace anew")
    return root


class Writer:
    """Appends rows to a trace and commits them.

    Parameters
    ----------
    path : str
        Local path or fsspec URL.
    capacity : int
        Rows the trace can hold.
    sites : list of SiteMeta
        What is recorded.
    attrs : dict
        Plain data kept with the trace.
    resume : bool
        Go on with a trace that is there already; its sites and capacity must be the same.
    options : dict, optional
        For fsspec.

    Raises
    ------
    StorageError
        If another process is writing, or the place cannot be written.
    """

    def __init__(
        self,
        path: str,
        capacity: int,
        sites: list[SiteMeta],
        attrs: dict[str, Any],
        resume: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Folder(path, options)
        self._lock = self._acquire()
        self.owner = secrets.token_hex(8)
        self._claimed = False
        try:
            self._store = self.folder.store(read_only=False)
            self._arrays: dict[str, Any] = {}
            if resume:
                self.root = read_root(self.folder)
                self._open(sites)
            else:
                self._create(capacity, sites, attrs)
            self._pending: dict[str, list[Any]] = {}
            self._rowwise = [name for name in self._arrays if not name.endswith("/weight")]
            self.root.attrs["owner"] = self.owner
            self._commit()
        except OSError as error:
            self.close()
            raise StorageError(
                f"cannot write trace {path}: {error}; {_remedy(error)} or choose another place"
            ) from error
        except BaseException:
            self.close()
            raise

    def _acquire(self) -> int | None:
        """Take the folder's lock; the kernel lets go of it when the process dies."""
        if self.folder.is_url:
            return None
        try:
            os.makedirs(self.folder.root, exist_ok=True)
            handle = os.open(self.folder.root, os.O_RDONLY)
        except OSError as error:
            raise StorageError(f"cannot write trace {self.folder.path}: {error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise StorageError(
                f"another process is writing {self.folder.path}; wait for it or choose another"
            ) from error
        return handle

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _create(self, capacity: int, sites: list[SiteMeta], attrs: dict[str, Any]) -> None:
        import zarr

        if self.folder.read("zarr.json") is not None:
            raise InputError(f"'{self.folder.path}' is there already; remove it or choose another place")
        # the root is written last of all, so a half-made trace is not a trace
        groups = ["tokens", "sites", *(f"sites/{site.name}" for site in sites)]
        for group in groups:
            zarr.create_group(self._store, path=group, overwrite=True)
        layouts = {f"tokens/{column}": Layout(capacity, 0, "int32", ("token", "")) for column in COLUMNS}
        for site in sites:
            layouts |= site.rows_arrays(capacity)
            if site.weight:
                rows, k = site.weight_shape
                layouts[f"sites/{site.name}/weight"] = Layout(rows, words_per_row(k), "uint64", ("output", "word"))
        for name, layout in layouts.items():
            self._arrays[name] = create_array(self._store, name, layout)
        self.root = Root(
            attrs
            | {
                "schema": SCHEMA,
                "status": "recording",
                "rows": 0,
                "capacity": capacity,
                "sites": [site.to_dict() for site in sites],
                "ones": {name: [] for name in self._arrays if name.startswith("sites/")},
                "files": {name: self._shrink(name) for name in sorted([*groups, *self._arrays])},
            }
        )

    def _shrink(self, name: str) -> str:
        """Take the blanks out of an array's or group's metadata, which a small trace would feel; return its SHA-256."""
        data = self.folder.read(f"{name}/zarr.json")
        if data is None:
            raise StorageError(f"{self.folder.path}/{name}/zarr.json is gone while being written")
        dense = json.dumps(json.loads(data), separators=(",", ":")).encode()
        self.folder.write(f"{name}/zarr.json", dense)
        return hashlib.sha256(dense).hexdigest()

    def _open(self, sites: list[SiteMeta]) -> None:
        import zarr

        if self.root.sites != sites:
            raise InputError(f"'{self.folder.path}' was recorded at other sites; choose another file")
        check_metadata(self.folder, self.root)
        for name in [f"tokens/{c}" for c in COLUMNS] + list(self.root.attrs["ones"]):
            self._arrays[name] = zarr.open_array(self._store, path=name, mode="r+")

    def append(self, columns: Mapping[str, NDArray[np.int32]], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Queue rows, all of as many: every token column, and what belongs to the sites.

        Keys are ``site`` for its mask, ``site@variant`` for that of a variant, and ``site/values``, ``site/scale``,
        ``site/choice`` for the rest.

        Raises
        ------
        InputError
            If an array is missing or has another number of rows: all of a trace's rows are one pass's tokens.
        """
        named = {f"tokens/{name}": values for name, values in columns.items()}
        named |= {array_name(key): rows for key, rows in arrays.items()}
        many = len(columns[COLUMNS[0]])
        for name in self._rowwise:
            if name not in named or len(named[name]) != many:
                what = f"{len(named[name])} rows" if name in named else "nothing"
                raise InputError(
                    f"'{name}' has {what} in a pass of {many} tokens; leave that site out, all sites see every token"
                )
        for name, rows in named.items():
            self._pending.setdefault(name, []).append(rows)

    def write_weight(self, site: str, words: Words) -> None:
        """Store a site's weight mask."""
        name = f"sites/{site}/weight"
        self._arrays[name][:] = words
        self.root.attrs["ones"][name] = _ones(words, 0, self._arrays[name].chunks[0], [])

    @property
    def pending_bytes(self) -> int:
        """Bytes queued and not yet committed."""
        return sum(part.nbytes for parts in self._pending.values() for part in parts)

    def commit(self, **attrs: Any) -> None:
        """Write what is queued, then make it count.

        Raises
        ------
        StorageError
            If the disk is full or the store refuses; the last commit still stands.
        """
        self.root.attrs |= attrs
        first, added = self.root.rows, 0
        try:
            for name, parts in self._pending.items():
                values = np.concatenate(parts)
                added = len(values)
                array = self._arrays[name]
                array[first : first + added] = values
                if name in self.root.attrs["ones"]:
                    counts = self.root.attrs["ones"][name]
                    self.root.attrs["ones"][name] = _ones(values, first, array.chunks[0], counts)
            self.root.attrs["rows"] = first + added
            self._commit()
        except OSError as error:
            raise StorageError(
                f"cannot write trace {self.folder.path} ({error}); {first} rows are kept: {_remedy(error)} and run the "
                "same command again to go on"
            ) from error
        self._pending = {}

    def _commit(self) -> None:
        if self.folder.is_url and self._claimed:
            data = self.folder.read("zarr.json")
            if data is None or json.loads(data)["attributes"].get("owner") != self.owner:
                raise StorageError(f"another process took over {self.folder.path}; wait for it or choose another place")
        self.folder.write("zarr.json", self.root.seal())
        self._claimed = True


def _remedy(error: OSError) -> str:
    return "get the rights to write there" if isinstance(error, PermissionError) else "free space"


def _ones(values: NDArray[Any], first: int, rows: int, counts: list[int]) -> list[int]:
    """Add the ones of rows from `first` on to the count of each chunk of `rows` rows."""
    last = first + len(values)
    total = np.zeros(-(-last // rows), dtype=np.int64)
    total[: len(counts)] = counts
    np.add.at(total, np.arange(first, last) // rows, count_ones(values))
    return [int(value) for value in total]


def check_metadata(folder: Folder, root: Root) -> None:
    """Compare every array's metadata with the digests in the root.

    Raises
    ------
    CorruptError
        Naming the file that is missing or altered.
    """
    for name, digest in root.attrs["files"].items():
        data = folder.read(f"{name}/zarr.json")
        if data is None:
            raise CorruptError(f"{folder.path}/{name}/zarr.json is missing; restore it or record the trace anew")
        if hashlib.sha256(data).hexdigest() != digest:
            raise CorruptError(f"{folder.path}/{name}/zarr.json was altered; restore it or record the trace anew")


def _digest(data: Any) -> str:
    return hashlib.sha256(_text(data)).hexdigest()


def _text(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":"), sort_keys=True, allow_nan=False).encode() + b"\n"


def squeeze(data: Any) -> str:
    """Return plain data as compressed text: a model's op list is longer than a sparse trace's masks."""
    return base64.b85encode(zlib.compress(_text(data), 9)).decode()


def unsqueeze(text: str) -> Any:
    """Return what `squeeze` was given."""
    return json.loads(zlib.decompress(base64.b85decode(text)))
