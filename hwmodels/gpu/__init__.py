"""Timing and energy of GPUs: a calibrated GEMM model, sparse kernels, rooflines to compare with, energy.

Fits import scipy where they run: it takes a fifth of a second, which reading an arch must not wait for.
"""

from .calibrate import MOST_ROWS, DataSheet, carry, fit, spread
from .correction import Correction
from .model import GemmModel, load_correction
from .timing import TILE_FAMILIES, GemmTiming, predict

__all__ = [
    "MOST_ROWS",
    "TILE_FAMILIES",
    "Correction",
    "DataSheet",
    "GemmModel",
    "GemmTiming",
    "carry",
    "fit",
    "load_correction",
    "predict",
    "spread",
]
