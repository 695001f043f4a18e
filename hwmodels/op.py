"""One operation of a model, as an accelerator sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .counting.nonzeros import column_counts, needed_macs, row_counts
from .errors import InputError
from .mask import Mask, OnesMask, PackedMask, load


@dataclass(frozen=True, eq=False)
class Op:
    """A GEMM ``Y[M, N] = X[M, K] W[K, N]`` with the masks of its operands.

    Parameters
    ----------
    name : str
        Kind of projection, e.g. ``"down"``.
    layer : int
        Index of the block it belongs to, -1 outside the blocks.
    m, k, n : int
        Tokens, reduction, outputs.
    activation : Mask, optional
        Non-zeros of X, shape (M, K); None means dense.
    weight : Mask, optional
        Non-zeros of W by output, shape (N, K); None means dense.
    output : Mask, optional
        Outputs that are needed at all, shape (M, N): a gated MLP's zero gates make whole outputs of ``up``
        superfluous; None means all.
    batch : int
        Rows that run together in one launch (a batch of tokens; 1 in decoding); 0 means all M.
    repeat : int
        Independent copies of this GEMM, e.g. attention heads; counts are multiplied.
    phase : str
        ``"prefill"`` or ``"decode"``.
    has_weight : bool
        False for attention scores and values, whose second operand is an activation too.
    shared : int
        Consecutive copies, of `repeat`, that read the same second operand: the query heads of one key head; divides
        `repeat`.

    Raises
    ------
    InputError
        If a dimension is not positive, `shared` does not divide `repeat`, or a mask does not fit its dimensions.

    Examples
    --------
    >>> op = hwmodels.Op("down", 0, m=4, k=64, n=16, activation=hwmodels.PackedMask.ones(4, 64))
    >>> op.macs, op.effectual_macs
    (4096, 4096)
    """

    name: str
    layer: int
    m: int
    k: int
    n: int
    activation: Mask | None = None
    weight: Mask | None = None
    output: Mask | None = None
    batch: int = 0
    repeat: int = 1
    phase: str = "prefill"
    has_weight: bool = True
    shared: int = 1

    def __post_init__(self) -> None:
        for field in ("m", "k", "n", "repeat", "shared"):
            if getattr(self, field) < 1:
                raise InputError(f"op '{self.name}': {field} = {getattr(self, field)}, must be at least 1")
        if self.repeat % self.shared:
            raise InputError(
                f"op '{self.name}': {self.shared} copies share a second operand, but repeat = {self.repeat} is no "
                "multiple of it; give a divisor of repeat"
            )
        wanted = {"activation": (self.m, self.k), "weight": (self.n, self.k), "output": (self.m, self.n)}
        for field, shape in wanted.items():
            mask: Mask | None = getattr(self, field)
            if mask is not None and tuple(mask.shape) != shape:
                raise InputError(
                    f"op '{self.name}': {field} mask has shape {tuple(mask.shape)}, "
                    f"but M = {self.m}, K = {self.k}, N = {self.n} needs {shape}"
                )

    @property
    def groups(self) -> int:
        """Different second operands: ``repeat / shared``."""
        return self.repeat // self.shared

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense GEMM, M K N repeat."""
        return self.m * self.k * self.n * self.repeat

    @cached_property
    def effectual_macs(self) -> int:
        """MACs that a perfect skipper would do: both operands non-zero, and the output needed.

        With dense weights and all outputs needed this is ``popcount(X) N``; with a weight mask it is
        ``sum_k nnz(X[:, k]) nnz(W[:, k])``.
        """
        if self.output is not None and (self.activation is None or self.weight is None):
            if self.weight is None:
                return int((self.token_nonzeros * row_counts(self.output)).sum()) * self.repeat
            return int((column_counts(self.output) * row_counts(self.weight)).sum()) * self.repeat
        if self.output is not None:
            return needed_macs(self.activation_or_ones(), self.weight_or_ones(), self.output) * self.repeat
        if self.weight is None:
            return self.activation_nonzeros * self.n
        if self.activation is None:
            return self.m * self.weight_nonzeros
        return int((column_counts(self.activation) * column_counts(self.weight)).sum()) * self.repeat

    @cached_property
    def token_nonzeros(self) -> NDArray[np.int64]:
        """Non-zero elements of each row of X, ``int64[M]``; K where X is dense."""
        if self.activation is None:
            return np.full(self.m, self.k, dtype=np.int64)
        return row_counts(self.activation)

    def note_token_nonzeros(self, counts: NDArray[np.int64]) -> None:
        """Keep `token_nonzeros` that a kernel met on its way, which saves another pass over the mask."""
        self.__dict__.setdefault("token_nonzeros", counts)

    @cached_property
    def activation_nonzeros(self) -> int:
        """Non-zero elements of X over all copies."""
        return (self.m * self.k if self.activation is None else int(self.token_nonzeros.sum())) * self.repeat

    @cached_property
    def weight_nonzeros(self) -> int:
        """Non-zero elements of W over all copies."""
        return (self.n * self.k if self.weight is None else self.weight.popcount()) * self.repeat

    @property
    def launches(self) -> int:
        """How many times the operation is started: ``ceil(M / batch) repeat``."""
        return -(-self.m // (self.batch or self.m)) * self.repeat

    def dense(self) -> Op:
        """Return the same operation without any mask."""
        return replace(self, activation=None, weight=None, output=None)

    def activation_or_ones(self) -> Mask:
        """Return the activation mask, all ones where there is none."""
        return OnesMask(self.m, self.k) if self.activation is None else self.activation

    def weight_or_ones(self) -> PackedMask:
        """Return the weight mask in memory, all ones where there is none."""
        return PackedMask.ones(self.n, self.k) if self.weight is None else load(self.weight)
