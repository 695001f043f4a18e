"""Sites of a stored trace and their lazy masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, did_you_mean
from .pack import Words, popcount, unpack
from .store import SiteMeta

if TYPE_CHECKING:
    from .trace import Trace

BLOCK_ROWS = 4096


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
        chosen = self.trace.chosen(real_only, phase)
        keep = None if chosen.all() else chosen
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


def _joined(parts: list[Words]) -> Words:
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))
