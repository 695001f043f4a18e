"""zeroskip: replay real activation traces on models of zero-skip hardware.

>>> import simkit as sk
>>> trace = sk.load_trace("out/demo/traces/relu-lora.zarr")
>>> result = sk.replay(trace, [sk.arch("cnvlutin"), sk.arch("h100_sxm")])
>>> result.pivot("arch", "tuning", "energy_pj")
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
    from . import plots
    from .engine.replay import arch, load_trace, replay
    from .engine.training_cost import TuningCost, tuning_cost
    from .errors import CorruptError, InputError, StorageError, UnavailableError, ZeroskipError
    from .explore.methods import compare_methods
    from .explore.sweep import sweep
    from .plots.style import paper
    from .results.citations import cite
    from .results.diff import diff
    from .results.result import Result, load_result
    from .results.tables import table
    from .validation.agreement import validate

_WHERE = {
    "arch": "engine.replay",
    "load_trace": "engine.replay",
    "replay": "engine.replay",
    "CorruptError": "errors",
    "InputError": "errors",
    "StorageError": "errors",
    "UnavailableError": "errors",
    "ZeroskipError": "errors",
    "Result": "results.result",
    "load_result": "results.result",
    "sweep": "explore.sweep",
    "validate": "validation.agreement",
    "cite": "results.citations",
    "compare_methods": "explore.methods",
    "diff": "results.diff",
    "TuningCost": "engine.training_cost",
    "tuning_cost": "engine.training_cost",
    "table": "results.tables",
    "paper": "plots.style",
    "plots": "plots",
}

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
    "cite",
    "compare_methods",
    "diff",
    "load_result",
    "load_trace",
    "paper",
    "plots",
    "replay",
    "sweep",
    "table",
    "tuning_cost",
    "validate",
]


def __getattr__(name: str) -> Any:
    # pandas, zarr and matplotlib take seconds to import; `simkit --help` must not wait for them
    if name not in _WHERE:
        raise AttributeError(f"module 'simkit' has no attribute '{name}'")
    # first, so that errors of hwmodels and traces are of this package's classes
    import_module("simkit.errors")
    module = import_module(f"simkit.{_WHERE[name]}")
    return module if name == "plots" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # importing the module simkit.replay sets it here, where it would hide the function of that name
        if not (isinstance(value, ModuleType) and _WHERE.get(name) == name != "plots"):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
