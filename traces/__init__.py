"""Tune transformers, record which of their activations are zero, and keep that as a trace.

>>> import traces
>>> traces.tune(model="minilm-l6", data="vader-movie", tuning="relu-lora", out="runs/relu-lora")  # doctest: +SKIP
>>> trace = traces.record(model="minilm-l6", adapter="runs/relu-lora", data="vader-movie",
...                       limit=256, out="relu-lora.zarr")  # doctest: +SKIP
>>> trace.sites["layers.0.down"].density()  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

OWNER = "zeroskip"  # another project on PyPI is called `traces` too; simkit checks this before anything else

_HOME = {
    "CorruptError": "errors",
    "FetchError": "errors",
    "InputError": "errors",
    "NumericError": "errors",
    "StorageError": "errors",
    "TraceError": "errors",
    "OpSpec": "ops",
    "Site": "masks",
    "Trace": "trace",
    "Tuning": "tuning",
    "TuneResult": "tuning",
    "describe": "catalog",
    "export_trace": "edit",
    "import_masks": "convert",
    "list_datasets": "data",
    "list_models": "models",
    "list_tunings": "tuning",
    "load_data": "data",
    "load_model": "models",
    "load_tuning": "tuning",
    "merge_traces": "edit",
    "open_trace": "trace",
    "record": "recorder",
    "slice_trace": "edit",
    "synthesise": "synthetic",
    "tune": "tuning",
    "tuning_step": "step",
}

if TYPE_CHECKING:
    from .catalog import describe as describe
    from .convert import import_masks as import_masks
    from .data import list_datasets as list_datasets
    from .data import load_data as load_data
    from .edit import export_trace as export_trace
    from .edit import merge_traces as merge_traces
    from .edit import slice_trace as slice_trace
    from .errors import CorruptError as CorruptError
    from .errors import FetchError as FetchError
    from .errors import InputError as InputError
    from .errors import NumericError as NumericError
    from .errors import StorageError as StorageError
    from .errors import TraceError as TraceError
    from .masks import Site as Site
    from .models import list_models as list_models
    from .models import load_model as load_model
    from .ops import OpSpec as OpSpec
    from .recorder import record as record
    from .step import tuning_step as tuning_step
    from .synthetic import synthesise as synthesise
    from .trace import Trace as Trace
    from .trace import open_trace as open_trace
    from .tuning import TuneResult as TuneResult
    from .tuning import Tuning as Tuning
    from .tuning import list_tunings as list_tunings
    from .tuning import load_tuning as load_tuning
    from .tuning import tune as tune

__all__ = [*sorted(_HOME), "OWNER"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use, so that importing this package stays quick."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'traces' has no attribute '{name}'")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
