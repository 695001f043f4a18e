"""Discovery of tuning methods: this folder's modules, and the entry-point group ``traces.tuning``."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from ...errors import InputError
from ..change import Method, Part

ENTRY_POINT_GROUP = "traces.tuning"
# how a module says that it is a method's; read and not imported, since its neighbours may need torch
REGISTERS = re.compile(r"^METHODS?\b[^=\n]*=", re.MULTILINE)


def _modules_of_methods() -> list[str]:
    """Return the modules beside this one that set METHOD or METHODS."""
    package = __package__ or ""
    found = []
    for info in iter_modules(import_module(package).__path__):
        spec = find_spec(f"{package}.{info.name}")
        loader: Any = spec.loader if spec is not None and not info.ispkg else None
        if loader is not None and REGISTERS.search(loader.get_source(f"{package}.{info.name}") or ""):
            found.append(info.name)
    return found


@cache
def list_methods() -> dict[str, Method]:
    """Return every registered method by name; a third party's entry point names a `Method` object."""
    found: dict[str, Method] = {}
    for module in _modules_of_methods():
        home = import_module(f".{module}", __package__)
        found |= {method.name: method for method in getattr(home, "METHODS", None) or (home.METHOD,)}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        loaded: Any = point.load()
        if not isinstance(loaded, Method):
            raise InputError(
                f"entry point '{point.name}' of group '{ENTRY_POINT_GROUP}' is not a traces.tuning.Method; "
                f"correct or uninstall {point.value}"
            )
        found[loaded.name] = loaded
    return found


@cache
def modules() -> dict[str, type[Part]]:
    """Return what may stand under ``module`` in a tuning, by its ``type``."""
    parts = [m.module for m in list_methods().values() if m.module is not None]
    return {part.model_fields["type"].default: part for part in parts}
