"""zeroskip: replay real activation traces on models of zero-skip hardware.

>>> import simkit as sk
>>> result = sk.replay("minilm_relu_small.zarr", ["cnvlutin", "h100_sxm"], ops="down")
>>> result.pivot("arch", "tuning", "energy_pj").shape
(2, 1)

Every verb takes a path, a name or an object, one or many. `__all__` is the public interface, with that of
`simkit.plots`; modules below are private by convention and may change without notice.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._owner import check_owner

check_owner()

from importlib import import_module  # noqa: E402  (the ownership check must come first)

__version__ = "0.1.0"

if TYPE_CHECKING:
    from traces import record, tune

    from . import plots
    from .engine.gap import gap
    from .engine.inputs import arch, archs, load_trace, tables
    from .engine.replay import replay
    from .engine.timeline import timeline
    from .engine.training_cost import TuningCost, tuning_cost
    from .errors import CorruptError, InputError, StorageError, UnavailableError, ZeroskipError
    from .explore.methods import compare, compare_methods
    from .explore.search import search
    from .explore.sweep import sweep
    from .measure.campaigns import measure
    from .plots.style import paper
    from .report.page import report
    from .results.citations import cite
    from .results.diff import diff
    from .results.result import Result, load_result
    from .results.tables import table
    from .validation.agreement import validate

# name -> module that defines it
_WHERE = {
    "CorruptError": "simkit.errors",
    "InputError": "simkit.errors",
    "Result": "simkit.results.result",
    "StorageError": "simkit.errors",
    "TuningCost": "simkit.engine.training_cost",
    "UnavailableError": "simkit.errors",
    "ZeroskipError": "simkit.errors",
    "arch": "simkit.engine.inputs",
    "archs": "simkit.engine.inputs",
    "cite": "simkit.results.citations",
    "compare": "simkit.explore.methods",
    "compare_methods": "simkit.explore.methods",
    "diff": "simkit.results.diff",
    "gap": "simkit.engine.gap",
    "load_result": "simkit.results.result",
    "load_trace": "simkit.engine.inputs",
    "measure": "simkit.measure.campaigns",
    "paper": "simkit.plots.style",
    "plots": "simkit.plots",
    "record": "traces",
    "replay": "simkit.engine.replay",
    "report": "simkit.report.page",
    "search": "simkit.explore.search",
    "sweep": "simkit.explore.sweep",
    "table": "simkit.results.tables",
    "tables": "simkit.engine.inputs",
    "timeline": "simkit.engine.timeline",
    "tune": "traces",
    "tuning_cost": "simkit.engine.training_cost",
    "validate": "simkit.validation.agreement",
}
# verbs whose name is a package's too
_ROOMS = ("measure", "report")

__all__ = [
    "CorruptError",
    "InputError",
    "Result",
    "StorageError",
    "TuningCost",
    "UnavailableError",
    "ZeroskipError",
    "__version__",
    "arch",
    "archs",
    "cite",
    "compare",
    "compare_methods",
    "diff",
    "gap",
    "load_result",
    "load_trace",
    "measure",
    "paper",
    "plots",
    "record",
    "replay",
    "report",
    "search",
    "sweep",
    "table",
    "tables",
    "timeline",
    "tune",
    "tuning_cost",
    "validate",
]


def __getattr__(name: str) -> Any:
    # pandas, zarr and matplotlib take seconds to import; `simkit --help` must not wait for them
    if name not in _WHERE:
        raise AttributeError(f"module 'simkit' has no attribute '{name}'")
    # first, so that errors of hwmodels and traces are of this package's classes
    import_module("simkit.errors")
    module = import_module(_WHERE[name])
    if name == "plots":
        return module
    value = getattr(module, name)
    if name in _ROOMS:
        # `import simkit.report.page as page` looks for `page` on the verb
        value.__dict__ = import_module(f"simkit.{name}").__dict__
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # importing the package simkit.report sets it here, where it would hide the verb of that name
        if not (isinstance(value, ModuleType) and name in _ROOMS):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
