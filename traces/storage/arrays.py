"""The arrays of a trace: which there are, how they are cut into chunks, and how those are compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bits import words_per_row

CHUNK_BYTES = 1 << 20
SHARD_CHUNKS = 16
# value of a row that no writer has filled: never a legal entry, so a missing chunk cannot go unnoticed
UNSET = -1
COLUMNS = ("sequence", "position", "batch", "real", "phase")


def chunk_rows(row_bytes: int, capacity: int | None = None) -> int:
    """Rows in a chunk: about 1 MiB, at most 4096; spread evenly, for padding costs bytes in a nearly dense mask."""
    most = CHUNK_BYTES // row_bytes
    rows = max(64, min(4096, 1 << max(0, most.bit_length() - 1)))
    if capacity is None:
        return rows
    count = -(-max(1, capacity) // rows)
    even = -(-max(1, capacity) // count)
    return min(rows, -(-even // 8) * 8)


class Layout(NamedTuple):
    """One array of a site: bytes of a row are what its chunks are cut by."""

    rows: int
    width: int
    dtype: str
    dims: tuple[str, str]


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
    values: str = ""  # "bf16" or "int8"
    experts: int = 0  # in a mixture of experts: how many there are,
    chosen: int = 0  # and how many a token goes through
    stack: str = ""  # "encoder" or "decoder" of a model with both: it sees that stack's rows alone

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; what is not there is left out, so that it changes no content hash."""
        optional = ("values", "experts", "chosen", "stack")
        extra = {name: getattr(self, name) for name in optional if getattr(self, name)}
        plain = {name: getattr(self, name) for name in ("name", "layer", "op", "k", "n", "weight")}
        return plain | {"variants": list(self.variants)} | extra

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SiteMeta:
        """Rebuild what `to_dict` returned."""
        return cls(**{**data, "variants": tuple(data["variants"])})

    def masks(self) -> list[str]:
        """Return the array of each of this site's masks: the exact one first."""
        return [f"sites/{self.name}/mask", *(f"sites/{self.name}/mask@{v}" for v in self.variants)]

    @property
    def side_by_side(self) -> int:
        """Masks in a row: one for each expert a token goes through."""
        return max(1, self.chosen)

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape (N, K) of the weight: a gate says which outputs of ``up`` are needed, so its K are those outputs.

        Of a mixture of experts (experts N, K): one below the other.
        """
        return (self.k, self.n) if self.op == "gate" else (max(1, self.experts) * self.n, self.k)

    def rows_arrays(self, rows: int) -> dict[str, Layout]:
        """Return every array that has a row for each token, masks first."""
        many = self.side_by_side
        words = Layout(rows, many * words_per_row(self.k), "uint64", ("token", "word"))
        found = dict.fromkeys(self.masks(), words)
        place = f"sites/{self.name}"
        if self.values:
            kind = "int8" if self.values == "int8" else "uint16"
            found[f"{place}/values"] = Layout(rows, many * self.k, kind, ("token", "neuron"))
        if self.values == "int8":
            found[f"{place}/scale"] = Layout(rows, many, "float32", ("token", "choice"))
        if self.chosen:
            found[f"{place}/choice"] = Layout(rows, self.chosen, "int16", ("token", "choice"))
        return found

    def blank(self, rows: int) -> dict[str, NDArray[Any]]:
        """Return rows of zeros of every array, by key: those of a pass that this site has no part in."""
        return {
            array_key(name): np.zeros((rows, layout.width), dtype=layout.dtype)
            for name, layout in self.rows_arrays(rows).items()
        }


def array_name(key: str) -> str:
    """Return the array that a key of `Writer.append` means."""
    site, slash, part = key.partition("/")
    if slash:
        return f"sites/{site}/{part}"
    site, at, variant = key.partition("@")
    return f"sites/{site}/mask{at}{variant}"


def array_key(name: str) -> str:
    """Return the key of `Writer.append` that means an array: the inverse of `array_name`."""
    site, _, part = name.removeprefix("sites/").rpartition("/")
    return site + part.removeprefix("mask") if part.startswith("mask") else f"{site}/{part}"


def create_array(store: Any, name: str, layout: Layout) -> Any:
    """Create one array. Without a second chunk there is no shard, for a shard's index would be most of it."""
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec

    tokens = not layout.width
    item = np.dtype(layout.dtype).itemsize
    capacity = max(1, layout.rows)
    rows = min(65536, capacity) if tokens else chunk_rows(item * layout.width, capacity)
    count = -(-capacity // rows)
    filters: tuple[Any, ...] = ()
    shuffle, level = "shuffle", 9 if tokens else 5  # bytes of like weight together: neighbours differ in the last
    if layout.dtype == "uint64":
        # word by word, then bit by bit: a neuron's bits over the tokens lie together, so its own density decides
        # how far they shrink
        filters = (TransposeCodec(order=(1, 0)),)
        shuffle = "bitshuffle"
    compressor = BloscCodec(cname="zstd", clevel=level, shuffle=shuffle, typesize=item, blocksize=CHUNK_BYTES)
    across = () if tokens else (layout.width,)
    return zarr.create_array(
        store,
        name=name,
        shape=(layout.rows if tokens else capacity, *across),
        dtype=layout.dtype,
        chunks=(rows, *across),
        shards=(rows * min(SHARD_CHUNKS, count), *across) if count > 1 else None,
        fill_value=UNSET if tokens else 0,
        filters=filters,
        compressors=(compressor, Crc32cCodec()),
        dimension_names=layout.dims[: 1 + len(across)],
        overwrite=True,
    )


def count_ones(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return ``int64[rows]``: the one bits of each row, whatever its numbers mean."""
    bits = np.ascontiguousarray(rows).view(f"u{rows.dtype.itemsize}")
    found: NDArray[np.int64] = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
    return found
