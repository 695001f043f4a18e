"""The tuning methods: one module each, registered here or by the entry-point group ``traces.tuning``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean
from .change import Method, Part
from .spec import Tuning, load_tuning_file, tuning_from_yaml

ENTRY_POINT_GROUP = "traces.tuning"
BUILT_IN = (
    "plain",
    "lora",
    "ia3",
    "prompt",
    "dora",
    "adalora",
    "qlora",
    "adapter",
    "gated",
    "adamix",
    "relufy",
    "density",
    "ada_density",
    "conditional",
    "prune",
    "quantise",
    "soka",
    "spt",
    "salf",
)


@dataclass(frozen=True)
class TuningEntry:
    """A ready-made tuning, its method, and where both come from."""

    name: str
    title: str
    source: str
    licence: str
    tuning: Tuning
    method: Method


@cache
def methods() -> dict[str, Method]:
    """Return every registered method by name; a third party's entry point names a `Method` object."""
    found: dict[str, Method] = {}
    for module in BUILT_IN:
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
    parts = [m.module for m in methods().values() if m.module is not None]
    return {part.model_fields["type"].default: part for part in parts}


@cache
def presets() -> dict[str, Tuning]:
    """Return the ready-made tunings that ship with the package."""
    found = {}
    for file in sorted(resources.files(__package__).joinpath("presets").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            tuning = tuning_from_yaml(file.read_text(encoding="utf-8"), file.name)
            found[tuning.name] = tuning
    return found


def list_tunings() -> list[TuningEntry]:
    """Return the ready-made tunings, each with its method."""
    entries = []
    for tuning in presets().values():
        method = methods()[tuning.method]
        entries.append(TuningEntry(tuning.name, tuning.title, method.source, "Apache-2.0", tuning, method))
    return entries


def load_tuning(tuning: str | Path | Tuning) -> Tuning:
    """Return a tuning from a name, a YAML file, or the object itself.

    Raises
    ------
    InputError
        If the name is not known, or the file is not a valid tuning.
    """
    if not isinstance(tuning, Tuning):
        name = str(tuning)
        if name in presets():
            tuning = presets()[name]
        elif name.endswith((".yaml", ".yml")):
            tuning = load_tuning_file(Path(name))
        else:
            raise InputError(f"tuning '{name}' is not known{did_you_mean(name, presets())} (a file must end in .yaml)")
    if tuning.method not in methods():
        raise InputError(
            f"tuning '{tuning.name}': method '{tuning.method}' is not known{did_you_mean(tuning.method, methods())}"
        )
    return tuning
