"""Tuning methods, ready-made tunings, and the trainer."""

from __future__ import annotations

from .ada_density import BlockGates
from .change import Change, Method, Part
from .density import DensityLoss
from .lora import LoRA
from .plain import FullTuning, NoModule
from .prune import Prune
from .quantise import Quantise
from .registry import TuningEntry, list_tunings, load_tuning, methods, presets
from .relufy import Activation
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
    "list_tunings",
    "load_tuned",
    "load_tuning",
    "methods",
    "open_result",
    "presets",
    "tune",
]
