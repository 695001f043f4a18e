"""Tuning methods, ready-made tunings, and the trainer."""

from __future__ import annotations

from .change import Change, Method, Part
from .methods.ada_density import BlockGates
from .methods.density import DensityLoss
from .methods.lora import LoRA
from .methods.plain import FullTuning, NoModule
from .methods.prune import Prune
from .methods.quantise import Quantise
from .methods.registry import list_methods
from .methods.relufy import Activation
from .registry import TuningEntry, list_tunings, load_tuning, presets
from .result import TuneResult, load_tuned, open_result
from .spec import Distil, Training, Tuning
from .train import tune

__all__ = [
    "Activation",
    "BlockGates",
    "Change",
    "DensityLoss",
    "Distil",
    "FullTuning",
    "LoRA",
    "Method",
    "NoModule",
    "Part",
    "Prune",
    "Quantise",
    "Training",
    "TuneResult",
    "Tuning",
    "TuningEntry",
    "list_methods",
    "list_tunings",
    "load_tuned",
    "load_tuning",
    "open_result",
    "presets",
    "tune",
]
