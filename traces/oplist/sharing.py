"""Operand sharing among copies of a batched GEMM, found from what is executed (query heads of one key head).

Grouped queries reach a GEMM in three ways: a fused kernel is given fewer key heads than query heads; a tensor is
expanded, which gives a dimension of stride 0; or what was expanded is written out copy by copy. Only the last leaves no
trace in the operand itself, so it is noted when it happens.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

# operators whose output has its input's values, or their multiple, element by element
ELEMENTWISE = ("clone", "_to_copy", "contiguous", "mul", "div", "neg", "alias")


class SharedCopies:
    """Notes tensors in which consecutive parts are copies of one another, while a model runs.

    Storages are told apart by address, so all that are noted are kept alive.
    """

    def __init__(self) -> None:
        self._runs: dict[int, dict[int, int]] = {}  # of a storage: length of the runs along a stride
        self._alive: list[Any] = []

    def note(self, name: str, args: Any, out: Any) -> None:
        """Take an executed operator: its name, arguments and output."""
        if name.endswith("_") and args and hasattr(args[0], "untyped_storage"):
            self._runs.pop(args[0].untyped_storage()._cdata, None)  # overwritten in part
            return
        if name not in ELEMENTWISE or not hasattr(out, "untyped_storage") or not _alike(args, out):
            return
        source = args[0]
        if out.untyped_storage()._cdata == source.untyped_storage()._cdata:
            return
        runs = {
            out.stride(dim): run for dim in range(out.dim()) if (run := self._run(source, dim)) > 1 and out.stride(dim)
        }
        if runs:
            self._runs[out.untyped_storage()._cdata] = runs
            self._alive.append(out)

    def copies(self, operand: Any) -> int:
        """Return how many consecutive matrices, over the leading dimensions of a batched operand, are the same."""
        total = 1
        for dim in reversed(range(operand.dim() - 2)):
            if operand.shape[dim] == 1:
                continue
            run = self._run(operand, dim)
            total *= run
            if run != operand.shape[dim]:
                break
        return total

    def _run(self, tensor: Any, dim: int) -> int:
        """Consecutive indices of a dimension at which the same values stand."""
        size, stride = int(tensor.shape[dim]), int(tensor.stride(dim))
        if stride == 0 or size == 1:
            return size
        run = self._runs.get(tensor.untyped_storage()._cdata, {}).get(stride, 1)
        aligned = size % run == 0 and tensor.storage_offset() // stride % run == 0
        return run if aligned and _nested(tensor, dim) else 1


def _nested(tensor: Any, dim: int) -> bool:
    """Whether a dimension's stride is not that of another too, as overlapping windows have it."""
    sides = [
        (tensor.stride(d), tensor.shape[d]) for d in range(tensor.dim()) if tensor.shape[d] > 1 and tensor.stride(d)
    ]
    inner = sorted(side for side in sides if side[0] <= tensor.stride(dim))
    return all(stride * size <= above for (stride, size), (above, _) in pairwise(inner))


def _alike(args: Any, out: Any) -> bool:
    """Whether the first argument has the output's shape and any other is a single number."""
    if not args or getattr(args[0], "shape", None) != out.shape:
        return False
    return all(not hasattr(other, "numel") or other.numel() == 1 for other in args[1:])
