"""How a trace lies on disk: Zarr v3, schema ``zeroskip.trace/1``.

::

    T.zarr/zarr.json              attributes: everything but the arrays; self-checksummed
    T.zarr/tokens/{column}        one value for each recorded row
    T.zarr/sites/{site}/mask      uint64 (rows, words), sharded, compressed, a CRC32C for each chunk
    T.zarr/sites/{site}/weight    uint64 (N, words), where weights were recorded

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptError, InputError, StorageError
from .folder import Folder
from .pack import Words, words_per_row

SCHEMA = "zeroskip.trace/1"
CHUNK_BYTES = 1 << 20
SHARD_CHUNKS = 16
# value of a row that no writer has filled: never a legal entry, so a missing chunk cannot go unnoticed
UNSET = -1
COLUMNS = ("sequence", "position", "batch", "real", "phase")


def chunk_rows(k: int) -> int:
    """Rows in a chunk: about 1 MiB packed, a power of two between 64 and 4096."""
    rows = CHUNK_BYTES // (8 * words_per_row(k))
    return max(64, min(4096, 1 << max(0, rows.bit_length() - 1)))


@dataclass(frozen=True)
class SiteMeta:
    """What the root's attributes say of a site."""

    name: str
    layer: int
    op: str
    k: int
    n: int
    weight: bool = False
    variants: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return self.__dict__ | {"variants": list(self.variants)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SiteMeta:
        """Rebuild what `to_dict` returned."""
        return cls(**{**data, "variants": tuple(data["variants"])})

    def masks(self) -> list[str]:
        """Return the array of each of this site's masks: the exact one first."""
        return [f"sites/{self.name}/mask", *(f"sites/{self.name}/mask@{v}" for v in self.variants)]


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
            import zarr

            if resume:
                self.root = read_root(self.folder)
                self._open(sites)
            else:
                with zarr.config.set({"json_indent": None}):
                    self._create(capacity, sites, attrs)
            self._pending: dict[str, list[Any]] = {}
            self.root.attrs["owner"] = self.owner
            self._commit()
        except OSError as error:
            self.close()
            raise StorageError(f"cannot write trace {path}: {error}; free space or choose another place") from error
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
        zarr.create_group(self._store, path="tokens", overwrite=True)
        zarr.create_group(self._store, path="sites", overwrite=True)
        for column in COLUMNS:
            self._arrays[f"tokens/{column}"] = _array(
                self._store,
                f"tokens/{column}",
                (capacity,),
                "int32",
                (min(65536, max(1, capacity)),),
                UNSET,
                ("token",),
            )
        for site in sites:
            zarr.create_group(self._store, path=f"sites/{site.name}", overwrite=True)
            for name in site.masks():
                self._create_mask(name, capacity, site.k, ("token", "word"))
            if site.weight:
                self._create_mask(f"sites/{site.name}/weight", site.n, site.k, ("output", "word"))
        self.root = Root(
            attrs
            | {
                "schema": SCHEMA,
                "status": "recording",
                "rows": 0,
                "capacity": capacity,
                "sites": [site.to_dict() for site in sites],
                "ones": {name: [] for name in self._arrays if name.startswith("sites/")},
                "files": self._metadata_digests(),
            }
        )

    def _create_mask(self, name: str, rows: int, k: int, dims: tuple[str, str]) -> None:
        size = chunk_rows(k)
        shape = (max(1, rows), words_per_row(k))
        self._arrays[name] = _array(self._store, name, shape, "uint64", (size, shape[1]), 0, dims)

    def _open(self, sites: list[SiteMeta]) -> None:
        import zarr

        if self.root.sites != sites:
            raise InputError(f"'{self.folder.path}' was recorded at other sites; choose another file")
        check_metadata(self.folder, self.root)
        for name in [f"tokens/{c}" for c in COLUMNS] + list(self.root.attrs["ones"]):
            self._arrays[name] = zarr.open_array(self._store, path=name, mode="r+")

    def _metadata_digests(self) -> dict[str, str]:
        groups = ["tokens", "sites", *{name.rpartition("/")[0] for name in self._arrays if "sites/" in name}]
        found = {}
        for name in sorted([*groups, *self._arrays]):
            data = self.folder.read(f"{name}/zarr.json")
            if data is None:
                raise StorageError(f"{self.folder.path}/{name}/zarr.json is gone while being written")
            found[name] = hashlib.sha256(data).hexdigest()
        return found

    def append(self, columns: Mapping[str, NDArray[np.int32]], masks: Mapping[str, Words]) -> None:
        """Queue rows: every token column, and the masks of every ``site`` and ``site@variant``, all of as many rows."""
        for name, values in columns.items():
            self._pending.setdefault(f"tokens/{name}", []).append(values)
        for name, words in masks.items():
            site, _, variant = name.partition("@")
            self._pending.setdefault(f"sites/{site}/mask{'@' * bool(variant)}{variant}", []).append(words)

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
                f"cannot write trace {self.folder.path} ({error}); {first} rows are kept: free space and run the same "
                "command again to go on"
            ) from error
        self._pending = {}

    def _commit(self) -> None:
        if self.folder.is_url and self._claimed:
            data = self.folder.read("zarr.json")
            if data is None or json.loads(data)["attributes"].get("owner") != self.owner:
                raise StorageError(f"another process took over {self.folder.path}; wait for it or choose another place")
        self.folder.write("zarr.json", self.root.seal())
        self._claimed = True


def _array(store: Any, name: str, shape: Any, dtype: str, chunks: Any, fill: int, dims: tuple[str, ...]) -> Any:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec, ZstdCodec

    filters: tuple[Any, ...] = ()
    compressor: Any = ZstdCodec(level=9)
    if dtype == "uint64":
        # word by word, then bit by bit: a neuron's bits over the tokens lie together, so its own density decides
        # how far they shrink
        filters = (TransposeCodec(order=(1, 0)),)
        compressor = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=8, blocksize=CHUNK_BYTES)
    shards = (chunks[0] * SHARD_CHUNKS, *chunks[1:])
    return zarr.create_array(
        store,
        name=name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        fill_value=fill,
        filters=filters,
        compressors=(compressor, Crc32cCodec()),
        dimension_names=dims,
        overwrite=True,
    )


def _ones(words: Words, first: int, rows: int, counts: list[int]) -> list[int]:
    """Add the ones of rows from `first` on to the count of each chunk of `rows` rows."""
    per_row = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    last = first + len(words)
    total = np.zeros(-(-last // rows), dtype=np.int64)
    total[: len(counts)] = counts
    np.add.at(total, np.arange(first, last) // rows, per_row)
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
