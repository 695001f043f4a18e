"""Tune transformers, record which of their activations are zero, and keep that as a trace.

>>> import traces
>>> traces.tune(model="minilm-l6", data="vader-movie", tuning="relu-lora", out="runs/relu-lora")  # doctest: +SKIP
>>> trace = traces.record(model="minilm-l6", adapter="runs/relu-lora", data="vader-movie",
...                       limit=256, out="relu-lora.zarr")  # doctest: +SKIP
>>> trace.sites["layers.0.down"].density()  # doctest: +SKIP

`__all__` is public; so is `traces.tuning`, on which tuning methods of other packages build. Other modules are private
by convention.
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
    "OpSpec": "oplist.ops",
    "Site": "storage.masks",
    "Trace": "storage.trace",
    "Tuning": "tuning",
    "TuneResult": "tuning",
    "describe": "catalog",
    "export_trace": "transform.edit",
    "import_masks": "transform.import_masks",
    "list_datasets": "data.load",
    "list_models": "models.load",
    "list_tunings": "tuning",
    "load_data": "data.load",
    "load_model": "models.load",
    "load_tuning": "tuning",
    "merge_traces": "transform.edit",
    "open_trace": "storage.trace",
    "record": "recording.recorder",
    "slice_trace": "transform.edit",
    "synthesise": "transform.synthetic",
    "tune": "tuning",
    "tuning_step": "training_step.step",
}

if TYPE_CHECKING:
    from .catalog import describe as describe
    from .data.load import list_datasets as list_datasets
    from .data.load import load_data as load_data
    from .errors import CorruptError as CorruptError
    from .errors import FetchError as FetchError
    from .errors import InputError as InputError
    from .errors import NumericError as NumericError
    from .errors import StorageError as StorageError
    from .errors import TraceError as TraceError
    from .models.load import list_models as list_models
    from .models.load import load_model as load_model
    from .oplist.ops import OpSpec as OpSpec
    from .recording.recorder import record as record
    from .storage.masks import Site as Site
    from .storage.trace import Trace as Trace
    from .storage.trace import open_trace as open_trace
    from .training_step.step import tuning_step as tuning_step
    from .transform.edit import export_trace as export_trace
    from .transform.edit import merge_traces as merge_traces
    from .transform.edit import slice_trace as slice_trace
    from .transform.import_masks import import_masks as import_masks
    from .transform.synthetic import synthesise as synthesise
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
