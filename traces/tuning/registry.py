"""Ready-made tunings by name, each with its method."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from ..errors import InputError, did_you_mean
from .change import Method
from .methods.registry import list_methods
from .spec import Tuning, load_tuning_file, tuning_from_yaml


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
def presets() -> dict[str, Tuning]:
    """Return the ready-made tunings that ship with the package."""
    found = {}
    for file in sorted(resources.files(__package__).joinpath("presets").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            tuning = tuning_from_yaml(file.read_text(encoding="utf-8"), file.name)
            found[tuning.name] = tuning
    return found


def list_tunings() -> list[TuningEntry]:
    """Return the ready-made tunings, each with its method.

    Returns
    -------
    list of TuningEntry
        Each with name, title, source, its `Tuning` and its method.

    Examples
    --------
    >>> "relu-lora" in [entry.name for entry in traces.list_tunings()]
    True
    """
    entries = []
    for tuning in presets().values():
        method = list_methods()[tuning.method]
        entries.append(TuningEntry(tuning.name, tuning.title, method.source, "Apache-2.0", tuning, method))
    return entries


def load_tuning(tuning: str | Path | Tuning) -> Tuning:
    """Return a tuning from a name, a YAML file, or the object itself.

    Parameters
    ----------
    tuning : str, Path or Tuning
        A ready-made tuning's name, a YAML file, or the object.

    Returns
    -------
    Tuning
        The validated tuning.

    Raises
    ------
    InputError
        If the name is not known, or the file is not a valid tuning.

    Examples
    --------
    >>> traces.load_tuning("relu-lora").init_from
    'lora'
    """
    if not isinstance(tuning, Tuning):
        name = str(tuning)
        if name in presets():
            tuning = presets()[name]
        elif name.endswith((".yaml", ".yml")):
            tuning = load_tuning_file(Path(name))
        else:
            raise InputError(f"tuning '{name}' is not known{did_you_mean(name, presets())} (a file must end in .yaml)")
    if tuning.method not in list_methods():
        near = did_you_mean(tuning.method, list_methods())
        raise InputError(f"tuning '{tuning.name}': method '{tuning.method}' is not known{near}")
    return tuning
