"""The kernels by name, and the one call that runs an op on an arch."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any, get_type_hints

from . import kernels as kernel_package
from .arch import Arch
from .counts import Counts
from .errors import InputError, nearest
from .kernel import Kernel
from .op import Op


@lru_cache(maxsize=1)
def kernels() -> dict[str, Kernel]:
    """All kernels: every module of ``hwmodels.kernels`` with a ``KERNELS`` list, and the entry-point group
    ``hwmodels.kernels``."""
    found: dict[str, Kernel] = {}
    for info in iter_modules(kernel_package.__path__):
        for kernel in getattr(import_module(f"{kernel_package.__name__}.{info.name}"), "KERNELS", []):
            found[kernel.name] = kernel
    for point in entry_points(group="hwmodels.kernels"):
        found[point.name] = point.load()
    return found


def register(kernel: Kernel) -> Kernel:
    """Add a kernel for this process (notebooks); packages use the entry-point group."""
    kernels()[kernel.name] = kernel
    return kernel


def kernel_of(arch: Arch) -> Kernel:
    """Find an arch's kernel.

    Raises
    ------
    InputError
        If the arch names an unknown kernel.
    """
    known = kernels()
    if arch.kernel not in known:
        raise InputError(
            f"arch '{arch.name}': field 'kernel': unknown kernel '{arch.kernel}'" + nearest(arch.kernel, known)
        )
    return known[arch.kernel]


def params_of(arch: Arch) -> Any:
    """Build the kernel's parameter tuple.

    Raises
    ------
    InputError
        If a parameter is missing, unknown or not a positive integer where one is needed.
    """
    kernel = kernel_of(arch)
    wanted: tuple[str, ...] = kernel.params._fields  # type: ignore[attr-defined]
    for name in arch.params:
        if name not in wanted:
            raise InputError(f"arch '{arch.name}': unknown parameter '{name}'" + nearest(name, wanted))
    values = {}
    hints = _hints(kernel.params)
    for name in wanted:
        if name not in arch.params:
            raise InputError(f"arch '{arch.name}': parameter '{name}' of kernel '{kernel.name}' is missing")
        value = arch.params[name].value
        if hints[name] is int and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(
                f"arch '{arch.name}': parameter '{name}' = {value!r}, must be a whole number of at least 1"
            )
        values[name] = value
    return kernel.params(**values)


@lru_cache(maxsize=256)
def _hints(params: type) -> dict[str, Any]:
    return get_type_hints(params)


def simulate(op: Op, arch: Arch) -> Counts:
    """Run one op on one arch: compute side by the arch's kernel, memory side by `memory.combine`.

    A weight or output mask that the design cannot use is dropped, so that its effectual MACs are what it really
    does. Activation masks stay: a design that saves no time with them may still gate its multipliers.

    Raises
    ------
    InputError
        If the arch or the op does not fit the kernel (a weight mask missing for a two-sided design ...).
    """
    from .memory import combine

    kernel, params = kernel_of(arch), params_of(arch)
    op = seen_by(kernel, op, arch)
    return combine(op, arch, kernel.count(op, params, arch))


def seen_by(kernel: Kernel, op: Op, arch: Arch) -> Op:
    """Return the op as a design sees it: without the weight or output mask that it cannot use.

    Raises
    ------
    InputError
        If a two-sided design gets no weight mask.
    """
    if kernel.two_sided and op.weight is None and op.has_weight:
        raise InputError(
            f"arch '{arch.name}' skips zero weights too, but op '{op.name}' of layer {op.layer} has no weight "
            "mask; record one, prune (weights='magnitude:0.5' or '2:4'), or say weights='dense'"
        )
    weight = op.weight if "weight" in kernel.skips else None
    output = op.output if "output" in kernel.skips else None
    if weight is op.weight and output is op.output:
        return op
    return replace(op, weight=weight, output=output)
