"""Verified reads of a store's arrays: token columns, masks chunk by chunk, and which rows count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import CorruptError, InputError, did_you_mean
from .arrays import COLUMNS, UNSET, count_ones
from .folder import Folder
from .store import Root, check_metadata, read_root, unsqueeze

PHASES = ("prefill", "decode")
ROW_PHASES = (*PHASES, "encode")  # an encoder's rows, beside those of the decoder that reads its output


class StoredArrays:
    """The arrays of a store, opened lazily; each chunk is held against its checksum and its count of ones.

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
        self._choices: dict[str, NDArray[np.int16]] = {}

    @property
    def path(self) -> str:
        """Where it lies."""
        return self.folder.path

    @property
    def name(self) -> str:
        """The last part of the path, without its ending."""
        return PurePosixPath(self.path).name.removesuffix(".zarr")

    @property
    def rows(self) -> int:
        """Rows recorded, padding among them."""
        return self.root.rows

    def choice(self, site: str) -> NDArray[np.int16]:
        """Return ``int16[rows, chosen]``: the experts each token went through, padding included.

        Raises
        ------
        InputError
            If no mixture of experts was recorded under that name.
        """
        known = [meta.name for meta in self.root.sites if meta.experts]
        if site not in known:
            raise InputError(f"trace '{self.name}' has no experts '{site}'{did_you_mean(site, known)}")
        if site not in self._choices:
            parts = [part for _, part in self.read_chunks(f"sites/{site}/choice", self.rows)]
            self._choices[site] = np.concatenate(parts)
        return self._choices[site]

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
        frame["phase"] = pd.Categorical.from_codes(frame["phase"].to_numpy(), categories=list(ROW_PHASES))
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

    def selected(self, real_only: bool, phase: str | None, stack: str = "") -> NDArray[np.bool_]:
        """Return ``bool[rows]``: the rows that are asked for; an encoder's belong to the phase ``prefill``.

        Raises
        ------
        InputError
            If the phase is not known.
        """
        if phase is not None and phase not in PHASES:
            raise InputError(f"phase '{phase}' is not known{did_you_mean(phase, PHASES)}")
        rows = self.real if real_only else np.ones(self.rows, dtype=bool)
        said = self.tokens["phase"]
        if stack:
            rows = rows & ((said == "encode") == (stack == "encoder")).to_numpy()
        return rows if phase is None else rows & ((said == "decode") == (phase == "decode")).to_numpy()

    def chunk_ones(self, name: str) -> list[int]:
        """Return the ones that each chunk of a mask must have."""
        return [int(v) for v in self.root.attrs["ones"][name]]

    def read_chunks(
        self, name: str, rows: int, selected: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first row, rows) of a site's array by chunks, each verified; chunks with no selected row are left out.

        Raises
        ------
        CorruptError
            Naming the chunk that is missing, truncated or altered.
        """
        size = self._array(name).chunks[0]
        for index, ones in enumerate(self.chunk_ones(name)):
            first = index * size
            if selected is not None and not selected[first : first + size].any():
                continue
            part = self._read(name, first, min(first + size, rows))
            found = int(count_ones(part).sum())
            if found != ones:
                raise CorruptError(
                    f"{self.path}/{name}: chunk {index} has {found} ones, {ones} were recorded; it is "
                    "missing or altered: restore the file or record the trace anew"
                )
            yield first, part

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


def content_hash(trace: StoredArrays) -> str:
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
    for meta in trace.root.sites:
        masks = meta.masks()
        rest = [name for name in meta.rows_arrays(trace.rows) if name not in masks]
        for name in (*masks, *([f"sites/{meta.name}/weight"] if meta.weight else []), *rest):
            rows = meta.weight_shape[0] if name.endswith("/weight") else trace.rows
            for _, block in trace.read_chunks(name, rows):
                digest.update(block.astype(block.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
