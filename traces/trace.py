"""A stored trace, read lazily: sites, masks, tokens, ops."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .errors import CorruptError, InputError, did_you_mean
from .ops import OpSpec, Template, expand
from .pack import Words, popcount, unpack
from .store import COLUMNS, UNSET, Folder, Root, SiteMeta, check_metadata, read_root, unsqueeze

BLOCK_ROWS = 4096
_BULKY = ("ones", "files", "sites", "ops", "checksum", "owner", "schema", "rows", "capacity", "hash", "plan")
PHASES = ("prefill", "decode")


class StoredMask:
    """A packed mask read from a store chunk by chunk, each against its checksum and its count of ones.

    Parameters
    ----------
    trace : Trace
        Where it lies.
    name : str
        The array, e.g. ``sites/layers.0.down/mask``.
    rows : int
        Rows that hold data.
    k : int
        Elements in a row.
    keep : bool[rows], optional
        Rows that count; the others (padding) are left out.
    """

    def __init__(self, trace: Trace, name: str, rows: int, k: int, keep: NDArray[np.bool_] | None = None) -> None:
        self._trace, self._name, self._rows, self._k, self._keep = trace, name, rows, k, keep

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return (self._rows if self._keep is None else int(np.count_nonzero(self._keep)), self._k)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Words]:
        """Yield consecutive ``uint64[rows, words]``; only the last may be shorter."""
        rest: list[Words] = []
        held = 0
        for chunk in self._chunks():
            while len(chunk):
                part = chunk[: rows - held]
                chunk = chunk[len(part) :]
                rest.append(part)
                held += len(part)
                if held == rows:
                    yield _joined(rest)
                    rest, held = [], 0
        if held:
            yield _joined(rest)

    def popcount(self) -> int:
        """Count the non-zero elements."""
        if self._keep is None or self._keep.all():
            return sum(self._trace.chunk_ones(self._name))
        return sum(popcount(chunk) for chunk in self._chunks())

    def words(self) -> Words:
        """Return the whole mask, packed."""
        return next(self.blocks(max(1, self.shape[0])), np.zeros((0, -(-self._k // 64)), dtype=np.uint64))

    def to_bool(self) -> NDArray[np.bool_]:
        """Return the whole mask as ``bool[M, K]``."""
        return unpack(self.words(), self._k)

    def _chunks(self) -> Iterator[Words]:
        for first, words in self._trace.read_chunks(self._name, self._rows):
            yield words if self._keep is None else words[self._keep[first : first + len(words)]]


@dataclass(frozen=True, eq=False)
class Site:
    """One recorded down-projection (or other place) of a model.

    Parameters
    ----------
    trace : Trace
        Where it was recorded.
    meta : SiteMeta
        Name, layer, op, K, N.
    """

    trace: Trace
    meta: SiteMeta

    @property
    def name(self) -> str:
        """Short and stable: ``layers.3.down``."""
        return self.meta.name

    @property
    def layer(self) -> int:
        """Index over the whole model, in execution order."""
        return self.meta.layer

    @property
    def op(self) -> str:
        """The operation whose input this is."""
        return self.meta.op

    @property
    def k(self) -> int:
        """Reduction: elements in a row."""
        return self.meta.k

    @property
    def n(self) -> int:
        """Outputs of the operation."""
        return self.meta.n

    @property
    def variants(self) -> tuple[str, ...]:
        """Further masks: ``"0.01"`` for a threshold, ``"int8"`` for what 8-bit quantisation leaves."""
        return self.meta.variants

    def mask(self, real_only: bool = True, variant: str | None = None) -> StoredMask:
        """Return a lazy mask, padding rows left out unless asked for.

        Parameters
        ----------
        real_only : bool
            Leave out padding.
        variant : str, optional
            One of `variants`; the exact non-zeros by default.

        Raises
        ------
        InputError
            If that variant was not recorded.
        """
        if variant is not None and variant not in self.variants:
            raise InputError(
                f"site '{self.name}' has no mask '{variant}'{did_you_mean(variant, self.variants)}; record with "
                "thresholds=... or int8=True"
            )
        keep = self.trace.real if real_only and not self.trace.real.all() else None
        array = f"sites/{self.name}/mask" + (f"@{variant}" if variant else "")
        return StoredMask(self.trace, array, self.trace.rows, self.k, keep)

    def density(self, real_only: bool = True, variant: str | None = None) -> float:
        """Share of non-zeros."""
        mask = self.mask(real_only, variant)
        elements = mask.shape[0] * self.k
        return mask.popcount() / elements if elements else 0.0

    def weight_mask(self) -> StoredMask | None:
        """Return the weight's mask (N, K), None where it was not recorded."""
        if not self.meta.weight:
            return None
        return StoredMask(self.trace, f"sites/{self.name}/weight", self.n, self.k)


class Trace:
    """A stored trace. Opening reads its attributes; masks are read when asked for.

    Parameters
    ----------
    path : str
        Local path or fsspec URL.
    options : dict, optional
        Passed to fsspec.

    Raises
    ------
    InputError
        If there is no trace, or its schema is another version.
    CorruptError
        If its attributes or an array's metadata were truncated or altered.
    """

    def __init__(self, path: str, options: Mapping[str, Any] | None = None) -> None:
        self.folder = Folder(str(path), options)
        self.root: Root = read_root(self.folder)
        check_metadata(self.folder, self.root)
        self._store = self.folder.store(read_only=True)
        self._arrays: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Trace({self.path!r}: {len(self.sites)} sites, {self.n_tokens} real tokens, {self.status})"

    def _repr_html_(self) -> str:
        """Origin and sites, for notebooks."""
        facts = [
            f"{named.get('name', '')}" if isinstance(named, dict) else str(named)
            for named in (self.attrs.get("model"), self.attrs.get("data"), self.attrs.get("tuning"))
            if named
        ]
        origin = ", ".join(facts) or "imported masks"
        rows = "".join(
            f"<tr><td>{escape(s.name)}</td><td>{s.op}</td><td>{s.k:,}</td><td>{s.n:,}</td><td>{s.density():.4f}</td></tr>"
            for s in self.sites.values()
        )
        heads = "".join(f"<th>{name}</th>" for name in ("site", "op", "K", "N", "density"))
        return (
            f"<p><b>{escape(self.name)}</b> {escape(origin)}: {self.n_tokens:,} real tokens, "
            f"{escape(self.status)}</p><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    @property
    def path(self) -> str:
        """Where it lies."""
        return self.folder.path

    @property
    def name(self) -> str:
        """The last part of the path, without its ending."""
        return PurePosixPath(self.path).name.removesuffix(".zarr")

    @property
    def status(self) -> str:
        """``complete``, or ``recording`` for what a stopped recorder left."""
        return str(self.root.attrs["status"])

    @property
    def attrs(self) -> dict[str, Any]:
        """Model, tuning, data, measurements, provenance, recorder, and ``synthetic`` where it is."""
        return {k: v for k, v in self.root.attrs.items() if k not in _BULKY}

    @property
    def rows(self) -> int:
        """Rows recorded, padding among them."""
        return self.root.rows

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Sites by name, in execution order."""
        return {meta.name: Site(self, meta) for meta in self.root.sites}

    def site(self, name: str) -> Site:
        """Return a site.

        Raises
        ------
        InputError
            If there is none of that name.
        """
        if name not in self.sites:
            raise InputError(f"trace '{self.name}' has no site '{name}'{did_you_mean(name, self.sites)}")
        return self.sites[name]

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row for each recorded row: sequence, position, real, phase, batch."""
        columns = {}
        for name in COLUMNS:
            values = self._read(f"tokens/{name}", 0, self.rows)
            if len(values) and int(values.min()) == UNSET:
                bad = int(np.flatnonzero(values == UNSET)[0])
                raise CorruptError(f"{self.path}/tokens/{name}: no data at row {bad}; a chunk is missing")
            columns[name] = values
        frame = pd.DataFrame(columns)
        frame["real"] = frame["real"].astype(bool)
        frame["phase"] = pd.Categorical.from_codes(frame["phase"].to_numpy(), categories=list(PHASES))
        return frame

    @cached_property
    def real(self) -> NDArray[np.bool_]:
        """``bool[rows]``: true where the token is not padding."""
        return self.tokens["real"].to_numpy(dtype=bool)

    @property
    def n_tokens(self) -> int:
        """Real tokens."""
        return int(np.count_nonzero(self.real))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content: sites, ops, tokens, masks. Not of how or when it was stored."""
        stored = self.root.attrs.get("hash")
        return str(stored) if stored else content_hash(self)

    def ops(self, real_only: bool = True) -> list[OpSpec]:
        """Return every operation of the model over this trace.

        Parameters
        ----------
        real_only : bool
            Each sequence at its own length; otherwise as executed, padding included.

        Returns
        -------
        list of OpSpec
        """
        templates = [Template.from_dict(data) for data in unsqueeze(self.root.attrs["ops"])]
        if not templates:
            return self._bare_ops(real_only)
        frame = self.tokens
        if real_only:
            lengths = frame[frame["real"]].groupby("sequence", sort=True).size()
            shapes = [(1, int(length)) for length in lengths]
        else:
            batches = frame.groupby("batch", sort=True)
            shapes = [(g["sequence"].nunique(), len(g) // g["sequence"].nunique()) for _, g in batches]
        return expand(templates, shapes, passes=frame["batch"].nunique())

    def _bare_ops(self, real_only: bool) -> list[OpSpec]:
        """Ops of imported masks: one GEMM a site."""
        rows = self.n_tokens if real_only else self.rows
        passes = max(1, self.tokens["batch"].nunique())
        return [
            OpSpec(s.op, s.layer, "gemm", rows, s.k, s.n, input_site=s.name, tokens_per_pass=max(1, rows // passes))
            for s in self.sites.values()
        ]

    def chunk_ones(self, name: str) -> list[int]:
        """Return the ones that each chunk of a mask must have."""
        return [int(v) for v in self.root.attrs["ones"][name]]

    def read_chunks(self, name: str, rows: int) -> Iterator[tuple[int, Words]]:
        """Yield (first row, words) of a mask chunk by chunk, each verified.

        Raises
        ------
        CorruptError
            Naming the chunk that is missing, truncated or altered.
        """
        size = self._array(name).chunks[0]
        for index, ones in enumerate(self.chunk_ones(name)):
            first = index * size
            words: Words = self._read(name, first, min(first + size, rows))
            if popcount(words) != ones:
                raise CorruptError(
                    f"{self.path}/{name}: chunk {index} has {popcount(words)} ones, {ones} were recorded; it is "
                    "missing or altered: restore the file or record the trace anew"
                )
            yield first, words

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            import zarr

            try:
                self._arrays[name] = zarr.open_array(self._store, path=name, mode="r")
            except (ValueError, KeyError, OSError) as error:
                raise CorruptError(f"{self.path}/{name}: cannot be opened ({error})") from error
        return self._arrays[name]

    def _read(self, name: str, first: int, last: int) -> NDArray[Any]:
        array = self._array(name)
        try:
            return np.asarray(array[first:last])
        except Exception as error:  # codecs raise whatever the library below them raises
            index = first // array.chunks[0]
            shard = first // array.shards[0] if array.shards else index
            raise CorruptError(
                f"{self.path}/{name}: chunk {index} (file c/{shard}) is truncated or altered "
                f"({type(error).__name__}: {error}); restore the file or record the trace anew"
            ) from error

    def verify(self) -> None:
        """Read everything and compare with checksums, counts of ones, and the content hash.

        Raises
        ------
        CorruptError
            Naming what is missing, truncated or altered.
        """
        found = content_hash(self)
        stored = self.root.attrs.get("hash")
        if stored and stored != found:
            raise CorruptError(f"{self.path}: content hash is {found}, {stored} was recorded; record the trace anew")

    def to_xarray(self, site: str | None = None) -> Any:
        """Return a site's packed mask (or all sites') as a lazily loaded xarray Dataset.

        Dimensions ``token`` and ``word_K``; the token columns are coordinates.
        """
        import xarray as xr

        names = list(self.sites) if site is None else [self.site(site).name]
        coords = {c: ("token", self.tokens[c].to_numpy()) for c in COLUMNS}
        data = {}
        for name in names:
            group = xr.open_zarr(self._store, group=f"sites/{name}", consolidated=False, chunks=None)
            mask = group["mask"].isel(token=slice(0, self.rows))
            data[name] = mask.rename(word=f"word_{self.sites[name].k}")
        return xr.Dataset(data, coords=coords, attrs={"hash": self.hash, "name": self.name})


def _joined(parts: list[Words]) -> Words:
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))


def content_hash(trace: Trace) -> str:
    """SHA-256 over what a trace says: sites, ops, token columns, masks row by row."""
    digest = hashlib.sha256()
    facts = {
        "sites": [s.to_dict() for s in trace.root.sites],
        "ops": unsqueeze(trace.root.attrs["ops"]),
        "rows": trace.rows,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    tokens = trace.tokens
    for column in COLUMNS:
        values = tokens[column].cat.codes if column == "phase" else tokens[column]
        digest.update(values.to_numpy().astype("<i4").tobytes())
    for site in trace.sites.values():
        exact_and_variants = [site.mask(False, variant) for variant in (None, *site.variants)]
        for mask in (*exact_and_variants, site.weight_mask()):
            if mask is not None:
                for block in mask.blocks():
                    digest.update(block.astype("<u8", copy=False).tobytes())
    return digest.hexdigest()


def open_trace(path: str, storage_options: Mapping[str, Any] | None = None) -> Trace:
    """Open a trace lazily.

    Parameters
    ----------
    path : str or Path
        Local path or any fsspec URL.
    storage_options : dict, optional
        Passed to fsspec.

    Returns
    -------
    Trace

    Raises
    ------
    InputError
        If there is none, or its schema is another version.
    CorruptError
        If it was truncated or altered.
    """
    return Trace(str(path), storage_options)
