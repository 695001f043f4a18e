"""Write the page of the Python interface from the packages' `__all__`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import ModuleType

import hwmodels
import simkit
import simkit.plots
import traces

# in the order of the work; other functions of simkit follow
VERBS = ("tune", "record", "replay", "sweep", "search", "measure", "validate", "report", "compare")
NOUNS = ("arch", "archs", "tables", "load_trace", "load_result", "paper")
INTRODUCTION = """# Python interface

Public are the names on this page: the `__all__` of `simkit`, `simkit.plots`, `hwmodels` and `traces`. Further ones are
stable because extensions need them: `traces.tuning` (`Method`, `Part`, `Change`: a tuning method), `hwmodels.registry`
and the loops of `hwmodels.counting` (a kernel), `simkit.measure` (a meter), and the entry-point groups
`hwmodels.archs`, `hwmodels.kernels`, `traces.tuning` and `simkit.meters`. All other modules, such as
`simkit.engine.replay`, are private by convention: what they hold may move or change in any version.

Every verb takes a path, a name or an object, one or many. Its errors are `simkit.InputError` where the input is wrong;
[the command line](commands.md) lists the kinds and their exit codes. Energies are in pJ, latencies in s, sizes in byte,
clocks in Hz, unless a name says otherwise.

The examples run in the tests, in a folder with the small trace `tests/data/minilm_relu_small.zarr`, after:

```python
import hwmodels
import numpy as np
import pandas as pd
import simkit as sk
import traces
```
"""


def api() -> str:
    """Return the page: verbs and nouns of simkit, figures, hwmodels, traces."""
    verbs, nouns = split()
    parts = [INTRODUCTION, section("Verbs", "simkit", verbs), section("Nouns", "simkit", nouns)]
    listed = {id(getattr(simkit, name)) for name in (*verbs, *nouns)}
    for title, package in (("Figures", simkit.plots), ("Hardware models", hwmodels), ("Traces", traces)):
        names = [name for name in public(package) if id(getattr(package, name)) not in listed]
        listed |= {id(getattr(package, name)) for name in names}
        parts.append(section(title, package.__name__, names))
    return "\n".join(parts)


def public(package: ModuleType) -> list[str]:
    """Names to list: classes and functions; of two names for one function, its own."""
    values = {name: getattr(package, name) for name in package.__all__}
    return [name for name, value in values.items() if callable(value) and value.__name__ == name]


def split() -> tuple[list[str], list[str]]:
    """Tell the verbs of simkit from its nouns, which are classes and what loads or lists them."""
    names = public(simkit)
    nouns = [name for name in names if name in NOUNS or inspect.isclass(getattr(simkit, name))]
    verbs = [name for name in names if name not in nouns]
    return sorted(verbs, key=lambda name: VERBS.index(name) if name in VERBS else len(VERBS)), nouns


def section(title: str, package: str, names: Iterable[str]) -> str:
    """Return a heading and a table of names, each with a page of its own."""
    listed = "\n".join(f"   {name}" for name in names)
    options = ".. autosummary::\n   :toctree: api\n   :nosignatures:\n"
    return f"## {title}\n\n```{{eval-rst}}\n.. currentmodule:: {package}\n\n{options}\n{listed}\n```\n"
