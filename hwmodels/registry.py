"""The kernels by name, and the one call that runs an op on an arch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from math import isfinite
from pkgutil import iter_modules
from typing import Any, get_args, get_origin, get_type_hints

from . import kernels as kernel_package
from .arch import MOST_WHOLE, Arch, use_rules
from .counts import Counts
from .errors import InputError, nearest
from .kernel import Kernel
from .mapping.space import Dataflow
from .memory import combine
from .op import Op
from .sources import code_hash


@lru_cache(maxsize=1)
def built_in() -> dict[str, Kernel]:
    """Kernels of this package, whatever was registered in their place."""
    found: dict[str, Kernel] = {}
    for info in iter_modules(kernel_package.__path__):
        for kernel in getattr(import_module(f"{kernel_package.__name__}.{info.name}"), "KERNELS", []):
            found[kernel.name] = kernel
    return found


@lru_cache(maxsize=1)
def kernels() -> dict[str, Kernel]:
    """All kernels: every module of ``hwmodels.kernels`` with a ``KERNELS`` list, and the entry-point group
    ``hwmodels.kernels``."""
    found = dict(built_in())
    for point in entry_points(group="hwmodels.kernels"):
        found[point.name] = point.load()
    return found


def kernel_hash(kernel: Kernel) -> str:
    """Hash of a kernel's own code and of the helpers it calls; empty for kernels of this package.

    Parameters
    ----------
    kernel : Kernel
        Any registered kernel.

    Returns
    -------
    str
        16 hex digits, the same in every process that has the same code and Python.
    """
    return "" if built_in().get(kernel.name) == kernel else code_hash(kernel)


def register(kernel: Kernel) -> Kernel:
    """Add a kernel for this process, as from a notebook; packages use the entry-point group ``hwmodels.kernels``.

    Parameters
    ----------
    kernel : Kernel
        The kernel; one of the same name is replaced.

    Returns
    -------
    Kernel
        The same kernel.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from hwmodels.registry import kernels
    >>> own = hwmodels.register(replace(kernels()["cnvlutin"], name="my_cnvlutin"))
    >>> kernels().pop("my_cnvlutin") is own
    True
    """
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
        If a parameter is missing, unknown or not of its type.
    """
    kernel = kernel_of(arch)
    for _, message in _param_faults(arch, kernel):
        raise InputError(f"arch '{arch.name}': {message}")
    hints = _hints(kernel.params)
    return kernel.params(**{name: _fit(name, arch.params[name].value, hints[name]) for name in _names(kernel)})


def dataflow_of(arch: Arch) -> Dataflow:
    """Return what an arch's kernel fixes about the loops around its array."""
    return kernel_of(arch).dataflow(params_of(arch))


def arch_faults(arch: Arch) -> Iterator[tuple[list[Any], str]]:
    """Yield what an arch and its kernel disagree about: place in the file, and message."""
    known = kernels()
    if arch.kernel not in known:
        yield ["kernel"], f"field 'kernel': unknown kernel '{arch.kernel}'" + nearest(arch.kernel, known)
        return
    kernel = known[arch.kernel]
    yield from _param_faults(arch, kernel)
    if arch.skips is not None and set(arch.skips) != kernel.skips:
        stated = ", ".join(sorted(kernel.skips)) or "none"
        yield ["skips"], f"{arch.skips}, but zeros of {stated} save cycles in kernel '{kernel.name}'"


def fitting(arch: Arch, name: str, value: Any) -> Any:
    """Return a parameter's value in the type that the arch's kernel declares; text is read as that type.

    Raises
    ------
    InputError
        If it does not fit. A parameter that an unknown kernel would take passes as it is.
    """
    kernel = kernels().get(arch.kernel)
    if kernel is None or name not in _names(kernel):
        return value
    try:
        return _fit(name, value, _hints(kernel.params)[name], text=True)
    except ValueError as error:
        raise InputError(f"arch '{arch.name}': {error}") from None


def _param_faults(arch: Arch, kernel: Kernel) -> Iterator[tuple[list[Any], str]]:
    wanted, hints = _names(kernel), _hints(kernel.params)
    # a mistyped parameter is both unknown and missing; the unknown one says more
    unknown = [name for name in arch.params if name not in wanted]
    missing = [name for name in wanted if name not in arch.params and not get_close_matches(name, unknown, cutoff=0.7)]
    for name, figure in arch.params.items():
        if name not in wanted:
            yield ["params", name], f"unknown parameter '{name}'" + nearest(name, wanted)
            continue
        try:
            _fit(name, figure.value, hints[name])
        except ValueError as error:
            yield ["params", name], str(error)
    for name in missing:
        yield ["params"], f"parameter '{name}' of kernel '{kernel.name}' is missing"


def _names(kernel: Kernel) -> tuple[str, ...]:
    names: tuple[str, ...] = kernel.params._fields  # type: ignore[attr-defined]
    return names


TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def _fit(name: str, value: Any, hint: Any, text: bool = False) -> Any:
    """Hold a value to the type of its parameter; `text` may stand for it on a command line."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    words = str(value).strip() if text and isinstance(value, str) else None
    if hint is bool:
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        if words is not None and words.lower() in TRUE + FALSE:
            return words.lower() in TRUE
        raise ValueError(f"parameter '{name}' = {value!r}, must be true or false")
    if hint is int:
        if words is not None and words.lstrip("+-").isdigit():
            value = int(words[:20])
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"parameter '{name}' = {value!r}, must be a whole number of at least 1")
        if value > MOST_WHOLE:
            raise ValueError(f"parameter '{name}' = {value!r}, must be at most {MOST_WHOLE:,}")
    elif hint is float:
        with suppress(ValueError):
            value = value if words is None else float(words)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"parameter '{name}' = {value!r}, must be a finite number")
    elif hint is str and not isinstance(value, str):
        raise ValueError(f"parameter '{name}' = {value!r}, must be text")
    elif get_origin(hint) is list and not _is_list_of(value, get_args(hint)[0]):
        raise ValueError(f"parameter '{name}' = {value!r}, must be a {_told(hint)}")
    return value


def _is_list_of(value: Any, inner: Any) -> bool:
    if not isinstance(value, list):
        return False
    if get_origin(inner) is list:
        return all(_is_list_of(one, get_args(inner)[0]) for one in value)
    if inner is int:
        return all(isinstance(one, int) and not isinstance(one, bool) and abs(one) <= MOST_WHOLE for one in value)
    return all(isinstance(one, inner) for one in value)


def _told(hint: Any) -> str:
    """Say what a list holds, in the plural where it is within another."""
    inner = get_args(hint)[0]
    if get_origin(inner) is list:
        return "list of " + _told(inner).replace("list", "lists", 1)
    return "list of whole numbers" if inner is int else "list"


@lru_cache(maxsize=256)
def _hints(params: type) -> dict[str, Any]:
    return get_type_hints(params)


def simulate(op: Op, arch: Arch) -> Counts:
    """Run one op on one arch: compute side by the arch's kernel, memory side by `memory.combine`.

    A weight or output mask that the design cannot use is dropped, so that its effectual MACs are what it really
    does. Activation masks stay: a design that saves no time with them may still gate its multipliers.

    Parameters
    ----------
    op : Op
        GEMM with its masks.
    arch : Arch
        Arch that runs it.

    Returns
    -------
    Counts
        Cycles, DRAM bytes and actions, all of them whole numbers.

    Raises
    ------
    InputError
        If the arch or the op does not fit the kernel (a weight mask missing for a two-sided design ...).

    Examples
    --------
    >>> op = hwmodels.Op("down", 0, m=4, k=64, n=16, activation=hwmodels.PackedMask.bernoulli(4, 64, 0.25, seed=0))
    >>> counts = hwmodels.simulate(op, hwmodels.load_arch("cnvlutin"))
    >>> counts.cycles, counts.dense_cycles
    (24, 64)
    """
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


use_rules(sys.modules[__name__])
