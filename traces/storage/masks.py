"""Sites of a stored trace and their lazy masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, did_you_mean
from .arrays import SiteMeta
from .bits import Words, popcount, unpack
from .chunks import StoredArrays

BLOCK_ROWS = 4096


class StoredRows:
    """Rows of a site's array read from a store chunk by chunk, each against its checksum and its count of ones.

    Parameters
    ----------
    trace : StoredArrays
        Where it lies.
    name : str
        The array, e.g. ``sites/layers.0.down/mask``.
    rows : int
        Rows that hold data.
    selected : bool[rows], optional
        Rows that count; the others (padding) are left out.
    """

    def __init__(self, trace: StoredArrays, name: str, rows: int, selected: NDArray[np.bool_] | None = None) -> None:
        self._trace, self._name, self._rows, self._selected = trace, name, rows, selected

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[NDArray[Any]]:
        """Yield consecutive blocks of `rows` rows; only the last may be shorter."""
        rest: list[NDArray[Any]] = []
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

    def _chunks(self) -> Iterator[NDArray[Any]]:
        for first, rows in self._trace.read_chunks(self._name, self._rows, self._selected):
            yield rows if self._selected is None else rows[self._selected[first : first + len(rows)]]


class StoredMask(StoredRows):
    """A packed mask (M, K) read from a store: blocks are ``uint64[rows, words]``.

    Parameters
    ----------
    trace, name, rows, selected
        As of `StoredRows`.
    k : int
        Elements in a row.
    """

    def __init__(
        self, trace: StoredArrays, name: str, rows: int, k: int, selected: NDArray[np.bool_] | None = None
    ) -> None:
        super().__init__(trace, name, rows, selected)
        self._k = k

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return (self._rows if self._selected is None else int(np.count_nonzero(self._selected)), self._k)

    def popcount(self) -> int:
        """Count the non-zero elements."""
        if self._selected is None or self._selected.all():
            return sum(self._trace.chunk_ones(self._name))
        return sum(popcount(chunk) for chunk in self._chunks())

    def words(self) -> Words:
        """Return the whole mask, packed."""
        return next(self.blocks(max(1, self.shape[0])), np.zeros((0, -(-self._k // 64)), dtype=np.uint64))

    def to_bool(self) -> NDArray[np.bool_]:
        """Return the whole mask as ``bool[M, K]``."""
        return unpack(self.words(), self._k)


class PickedMask(StoredMask):
    """Some of the masks that stand side by side in a row: those of one expert.

    Parameters
    ----------
    trace, name, k
        As of `StoredMask`.
    picked : bool[rows, chosen]
        Which of each row's masks; they come row by row.
    """

    def __init__(self, trace: StoredArrays, name: str, picked: NDArray[np.bool_], k: int) -> None:
        super().__init__(trace, name, len(picked), k)
        self._picked = picked

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K), M the tokens routed to the expert."""
        return int(np.count_nonzero(self._picked)), self._k

    def popcount(self) -> int:
        """Count the non-zero elements."""
        return sum(popcount(chunk) for chunk in self._chunks())

    def _chunks(self) -> Iterator[Words]:
        many = self._picked.shape[1]
        for first, rows in self._trace.read_chunks(self._name, self._rows):
            yield rows.reshape(len(rows), many, -1)[self._picked[first : first + len(rows)]]


class OrderedMask:
    """A mask whose rows come in another order, a block at a time: what is launched together stands together.

    Parameters
    ----------
    mask : Mask
        Read once, and held packed.
    order : int64[M']
        Rows of `mask`.
    """

    def __init__(self, mask: StoredMask, order: NDArray[np.int64]) -> None:
        self._mask, self._order = mask, order

    @property
    def shape(self) -> tuple[int, int]:
        """(M', K)."""
        return len(self._order), self._mask.shape[1]

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Words]:
        """Yield consecutive ``uint64[rows, words]``; only the last may be shorter."""
        words = self._mask.words()
        for first in range(0, len(self._order), rows):
            yield words[self._order[first : first + rows]]

    def popcount(self) -> int:
        """Count the non-zero elements."""
        return sum(popcount(block) for block in self.blocks())


class StoredValues(StoredRows):
    """Recorded values as ``float32[rows, K]``: bfloat16 exactly, INT8 as step times integer.

    Parameters
    ----------
    trace : StoredArrays
        Where they lie.
    meta : SiteMeta
        Whose.
    selected : bool[rows], optional
        Rows that count.
    """

    def __init__(self, trace: StoredArrays, meta: SiteMeta, selected: NDArray[np.bool_] | None = None) -> None:
        super().__init__(trace, f"sites/{meta.name}/values", trace.rows, selected)
        self._meta = meta

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return (self._rows if self._selected is None else int(np.count_nonzero(self._selected)), self._meta.k)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[NDArray[np.float32]]:
        """Yield consecutive ``float32[rows, K]``; only the last may be shorter."""
        if self._meta.values == "bf16":
            for block in super().blocks(rows):
                yield (block.astype(np.uint32) << 16).view(np.float32)
            return
        scales = StoredRows(self._trace, f"sites/{self._meta.name}/scale", self._rows, self._selected)
        for block, scale in zip(super().blocks(rows), scales.blocks(rows), strict=True):
            yield block.astype(np.float32) * scale

    def to_array(self) -> NDArray[np.float32]:
        """Return all as ``float32[M, K]``."""
        return np.concatenate([np.zeros((0, self._meta.k), dtype=np.float32), *self.blocks()])


@dataclass(frozen=True, eq=False)
class Site:
    """One recorded down-projection (or other place) of a model.

    Parameters
    ----------
    trace : StoredArrays
        Where it was recorded.
    meta : SiteMeta
        Name, layer, op, K, N.
    source : SiteMeta, optional
        The stored site that holds this one, which is one of its experts.
    expert : int
        Which.

    Examples
    --------
    >>> trace = traces.open_trace("minilm_relu_small.zarr")
    >>> site = trace.sites["layers.0.down"]
    >>> site.mask().shape
    (289, 1536)
    >>> 0 < site.density() < 1
    True
    """

    trace: StoredArrays
    meta: SiteMeta
    source: SiteMeta | None = None
    expert: int = -1

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

    def mask(self, real_only: bool = True, variant: str | None = None, phase: str | None = None) -> StoredMask:
        """Return a lazy mask, padding rows left out unless asked for.

        Parameters
        ----------
        real_only : bool
            Leave out padding.
        variant : str, optional
            One of `variants`; the exact non-zeros by default.
        phase : {"prefill", "decode"}, optional
            Only the rows of prompts, or only those of generated tokens.

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
        selected = self.trace.selected(real_only, phase, self.meta.stack)
        array = f"sites/{(self.source or self.meta).name}/mask" + (f"@{variant}" if variant else "")
        if self.source is not None:
            picked = (self.trace.choice(self.source.name) == self.expert) & selected[:, None]
            return PickedMask(self.trace, array, picked, self.k)
        return StoredMask(self.trace, array, self.trace.rows, self.k, None if selected.all() else selected)

    def rows(self, real_only: bool = True, phase: str | None = None) -> NDArray[np.int64]:
        """Return ``int64[M]``: which of the trace's rows the mask's are."""
        selected = self.trace.selected(real_only, phase, self.meta.stack)
        if self.source is None:
            return np.flatnonzero(selected)
        return np.nonzero((self.trace.choice(self.source.name) == self.expert) & selected[:, None])[0]

    def density(self, real_only: bool = True, variant: str | None = None) -> float:
        """Share of non-zeros."""
        mask = self.mask(real_only, variant)
        elements = mask.shape[0] * self.k
        return mask.popcount() / elements if elements else 0.0

    def values(self, real_only: bool = True, phase: str | None = None) -> StoredValues:
        """Return the recorded values, lazily, as ``float32`` blocks.

        Raises
        ------
        InputError
            If values were not recorded.
        """
        if not self.meta.values:
            raise InputError(f"site '{self.name}' has no values; record with values='bf16' or 'int8'")
        selected = self.trace.selected(real_only, phase, self.meta.stack)
        return StoredValues(self.trace, self.meta, None if selected.all() else selected)

    def weight_mask(self) -> StoredMask | None:
        """Return the weight's mask, None where it was not recorded.

        It is (N, K); a gate's is that of ``up``, whose outputs are the gate's K elements: (K, N).
        """
        if not self.meta.weight:
            return None
        rows, k = (self.source or self.meta).weight_shape
        name = f"sites/{(self.source or self.meta).name}/weight"
        if self.source is None:
            return StoredMask(self.trace, name, rows, k)
        mine = np.arange(rows) // self.n == self.expert
        return StoredMask(self.trace, name, rows, k, mine)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))
