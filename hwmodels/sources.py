"""Identity of the code that counts: of this package's files, and of kernels that others bring.

A stored run is found again by its key, so the key must change whenever the counts may. This package is hashed file by
file. A kernel of a third party or a notebook is hashed by what it runs: the bytecode of its functions and of every
function, class and constant of its own that they reach through globals, closures and defaults. Bytecode, and not source
text, since a notebook's source is not always at hand; comments and layout then change nothing. Functions of installed
packages and of the standard library count by name and version of their package, those of the kernel's own package by
their bytecode. Open files, random generators and other objects of such packages count by their type alone.
"""

from __future__ import annotations

import dis
import hashlib
import sys
import sysconfig
from collections.abc import Mapping
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

ROOT = Path(__file__).parent
# slow twins, which decide no count
LEFT_OUT = frozenset({"reference", "__pycache__"})
# hashed as files, or deciding no count
PROJECT = frozenset({"hwmodels", "simkit", "traces"})


def source_files(*endings: str) -> list[Path]:
    """List this package's files with one of these endings in every folder, less the reference twins.

    Parameters
    ----------
    *endings : str
        ``".py"`` by default; ``".yaml"`` for data beside the code.
    """
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.suffix in (endings or (".py",)) and not LEFT_OUT & set(path.relative_to(ROOT).parts)
    ]


@lru_cache(maxsize=1)
def package_hash() -> str:
    """Hash of all code of this package that decides results, and of the data that it loads.

    The data are corrections of the GPU model, and points that costs are interpolated from; archs and energy tables have
    hashes of their own.
    """
    data = [path for path in source_files(".yaml") if {"gpu", "costs"} & set(path.relative_to(ROOT).parts)]
    data += source_files(".csv")
    digest = hashlib.sha256()
    for path in [*source_files(), *data]:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def code_hash(kernel: Any) -> str:
    """Hash of a kernel's own code and of the helpers it calls.

    Parameters
    ----------
    kernel : Kernel
        Any registered kernel.

    Returns
    -------
    str
        16 hex digits, the same in every process that has the same code and Python.
    """
    walk = _Walk(_home(kernel.count))
    # the twin decides no count
    for part in (kernel.count, kernel.overhead, kernel.params, kernel.baseline, kernel.dataflow):
        walk.add(part)
    walk.note(sorted(kernel.skips), kernel.two_sided, kernel.token_order_free, kernel.has_cycles, kernel.additive)
    return walk.digest.hexdigest()[:16]


def _home(thing: Any) -> str:
    return str(getattr(thing, "__module__", None) or "").partition(".")[0]


class _Walk:
    """Feeds everything that a function reaches into one hash, each object once."""

    def __init__(self, own: str) -> None:
        self.own = own
        self.digest = hashlib.sha256(sys.implementation.cache_tag.encode())
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []

    def _foreign(self, module: object) -> bool:
        """Whether code is another package's, which its version stands for."""
        return str(module).partition(".")[0] != self.own and _installed(str(module))

    def note(self, *values: Any) -> None:
        """Add values that have a text of their own."""
        for value in values:
            self.digest.update(f"{type(value).__name__} {value!r}\0".encode())

    def add(self, thing: Any) -> None:
        """Add an object and what it reaches."""
        if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes, np.generic)):
            return self.note(thing)
        if id(thing) in self._seen:
            return self.note(self._seen[id(thing)])
        self._seen[id(thing)] = len(self._seen)
        # kept, so that no other object takes its id during the walk
        self._kept.append(thing)
        # jitted functions and wrappers stand for what they wrap
        inner = getattr(thing, "py_func", None) or getattr(thing, "__wrapped__", None)
        if isinstance(inner, FunctionType):
            self.note("wrapped", type(thing).__name__)
            thing = inner
        if isinstance(thing, (FunctionType, type, ModuleType, BuiltinFunctionType)):
            self._add_definition(thing)
        else:
            self._add_value(thing)
        return None

    def _add_definition(self, thing: Any) -> None:
        module = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
        if isinstance(thing, (ModuleType, BuiltinFunctionType)) or self._foreign(module):
            package = str(module).partition(".")[0]
            self.note(str(module), getattr(thing, "__qualname__", ""), _version(package))
        elif isinstance(thing, FunctionType):
            self._add_function(thing)
        else:
            self.note("class", thing.__qualname__)
            for base in thing.__bases__:
                self.add(base)
            for name, value in sorted(vars(thing).items()):
                if not name.startswith("__") or isinstance(value, FunctionType):
                    self.note(name)
                    self.add(value)
            self.note(sorted(map(str, vars(thing).get("__annotations__", {}).items())))

    def _add_function(self, function: FunctionType) -> None:
        self.note("function", function.__qualname__)
        self.add(function.__defaults__)
        self.add(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # a name that is not bound yet
                self.note("empty")
        loaded, attributes = self._add_code(function.__code__)
        for name in sorted(loaded & function.__globals__.keys()):
            value = function.__globals__[name]
            self.note(name)
            self.add(value)
            if isinstance(value, ModuleType) and not self._foreign(value.__name__):
                for inner in sorted(attributes & vars(value).keys()):
                    self.note(inner)
                    self.add(vars(value)[inner])

    def _add_code(self, code: CodeType) -> tuple[set[str], set[str]]:
        """Add bytecode and constants; return the globals and the attributes it looks up, inner functions too."""
        self.note(code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        # an attribute may have the name of a global that has nothing to do with it
        loaded = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        attributes = set(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                inner = self._add_code(constant)
                loaded |= inner[0]
                attributes |= inner[1]
            else:
                self.add(constant)
        return loaded, attributes

    def _add_value(self, thing: Any) -> None:
        self.note(type(thing).__qualname__)
        if isinstance(thing, np.ndarray):
            self.note(thing.dtype.str, thing.shape, thing.tobytes() if thing.dtype != object else thing.tolist())
        elif isinstance(thing, Mapping):
            for key, value in thing.items():
                self.add(key)
                self.add(value)
        elif isinstance(thing, (tuple, list)):
            for value in thing:
                self.add(value)
        elif isinstance(thing, (set, frozenset)):
            # their order differs from process to process
            self.note(sorted(map(repr, thing)))
        elif isinstance(thing, (staticmethod, classmethod, MethodType)):
            self.add(thing.__func__)
        elif isinstance(thing, property):
            self.add((thing.fget, thing.fset))
        elif isinstance(thing, partial):
            self.add((thing.func, thing.args, thing.keywords))
        elif not self._foreign(type(thing).__module__):
            self.add(type(thing))
            for name, value in sorted(getattr(thing, "__dict__", {}).items()):
                self.note(name)
                self.add(value)


@lru_cache(maxsize=1024)
def _installed(module: str) -> bool:
    """Whether a module is of the standard library, an installed package or this project: named by its version."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names or top in PROJECT:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return False
    folders = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")}
    return any(folder in Path(file).resolve().parents for folder in folders)


@lru_cache(maxsize=256)
def _version(package: str) -> str:
    if package in sys.stdlib_module_names:
        return sys.version
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
