"""Counts remembered by what they depend on, so that a sweep of clocks and bandwidths reads each mask once.

A kernel gets an arch that notes which fields it reads. What it counted holds for every arch with the same kernel, the
same parameters and the same values in those fields: a bandwidth that the kernel never looked at costs no new count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .arch import Arch, Memory
from .counts import Compute, Counts
from .kernel import Kernel
from .mapping.residency import Residence
from .memory import Movement, combine, join, movement
from .op import Op
from .registry import kernel_of, params_of, seen_by

# a Compute holds one integer a token; this bounds an op of a million tokens to about half a gigabyte
ENTRIES = 64
# kernels name the arch in their errors only
UNSEEN = frozenset({"name"})


class _Watched:
    """An arch, or its memory, that notes which of its fields are read."""

    def __init__(self, target: Any, reads: dict[str, Any], prefix: str = ""):
        self._target = target
        self._reads = reads
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        # one that is watched already may be watched again: a memo over several ops asks the memo of each
        if isinstance(value, (Memory, _Watched)):
            return _Watched(value, self._reads, f"{name}.")
        if name not in UNSEEN:
            self._reads[self._prefix + name] = value
        return value


# what was read, and what came of it
Known = list[tuple[dict[str, Any], Any]]


class Moved(NamedTuple):
    """An op on an arch before bandwidth and clock; `movement` is None where the kernel's time holds the memory side."""

    op: Op
    compute: Compute
    movement: Movement | None


class Memo:
    """Simulates ops, counting masks only where a count is not known yet.

    Ops are known by identity and held weakly: drop the ops, and their counts go with them.
    """

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Op, dict[str, Op]] = WeakKeyDictionary()
        self._counted: WeakKeyDictionary[Op, dict[str, Known]] = WeakKeyDictionary()
        self._moved: WeakKeyDictionary[Compute, dict[str, Known]] = WeakKeyDictionary()

    def simulate(self, op: Op, arch: Arch) -> Counts:
        """Do as `hwmodels.simulate` does, with the same result."""
        return counts_of(self.move(op, arch), arch)

    def move(self, op: Op, arch: Arch, own: Residence | None = None, dense: Residence | None = None) -> Moved:
        """Return what an op does on an arch before bandwidth and clock; residences as in `memory.movement`."""
        kernel, params = kernel_of(arch), params_of(arch)
        seen = self._as_seen(kernel, op, arch)
        counted = self._counted.setdefault(seen, {})
        compute = remembered(counted, f"{kernel.name} {params}", arch, lambda view: kernel.count(seen, params, view))
        if compute.dram_bytes is not None:
            return Moved(seen, compute, None)
        moved = self._moved.setdefault(compute, {})
        where = f"{own} {dense}"
        found = remembered(moved, where, arch, lambda view: movement(seen, view, compute, own, dense))
        return Moved(seen, compute, found)

    def seen(self, op: Op, arch: Arch) -> Op:
        """Return the op as a design sees it, the same object each time."""
        return self._as_seen(kernel_of(arch), op, arch)

    def _as_seen(self, kernel: Kernel, op: Op, arch: Arch) -> Op:
        known = self._seen.get(op, {})
        if kernel.name in known:
            return known[kernel.name]
        seen = seen_by(kernel, op, arch)
        # an entry that held its own key would never go
        if seen is not op:
            self._seen.setdefault(op, {})[kernel.name] = seen
        return seen


def counts_of(moved: Moved, arch: Arch) -> Counts:
    """Add bandwidth and clock to what an op does."""
    if moved.movement is None:
        return combine(moved.op, arch, moved.compute)
    return join(moved.op, arch, moved.compute, moved.movement)


def remembered(store: dict[str, Known], key: str, arch: Arch, count: Callable[[Any], Any]) -> Any:
    """Return what `count` gave for an arch alike in every field it read, or let it count."""
    known = store.get(key, [])
    for fields, value in known:
        if all(_read(arch, path) == there for path, there in fields.items()):
            return value
    reads: dict[str, Any] = {}
    value = count(_Watched(arch, reads))
    if sum(map(len, store.values())) >= ENTRIES:
        store.clear()
    store.setdefault(key, []).append((reads, value))
    return value


def _read(arch: Arch, path: str) -> Any:
    value: Any = arch
    for part in path.split("."):
        value = getattr(value, part)
    return value
