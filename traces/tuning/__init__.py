"""Tuning methods, ready-made tunings, and the trainer."""

from __future__ import annotations

from .registry import Method, TuningEntry, list_tunings, load_tuning, methods, presets
from .result import TuneResult, load_tuned, open_result
from .spec import Activation, DensityLoss, LoRA, NoModule, Training, Tuning
from .train import tune

__all__ = [
    "Activation",
    "DensityLoss",
    "LoRA",
    "Method",
    "NoModule",
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
