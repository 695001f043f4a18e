"""Traces in memory, made of drawn masks: several tunings with accuracies, which no small stored trace has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from hwmodels import PackedMask
from traces import OpSpec

LAYERS, TOKENS, K, N = 3, 96, 256, 64


@dataclass
class DrawnSite:
    name: str
    layer: int
    held: PackedMask
    op: str = "down"
    k: int = K
    n: int = N

    def mask(self, real_only: bool = True, variant: str | None = None, phase: str | None = None) -> PackedMask:
        return self.held

    def density(self) -> float:
        return self.held.density

    def weight_mask(self) -> None:
        return None


@dataclass
class DrawnTrace:
    """What the figures, the report and the replay ask of a trace."""

    name: str
    density: float
    accuracy: float
    seed: int = 0
    attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.hash = f"{self.name}-{self.seed}"
        self.n_tokens = TOKENS
        self.sites = {
            f"layers.{layer}.down": DrawnSite(
                f"layers.{layer}.down",
                layer,
                PackedMask.from_bool(rng.random((TOKENS, K)) < self.density * (1 + layer) / LAYERS),
            )
            for layer in range(LAYERS)
        }
        position = np.tile(np.arange(TOKENS // 4), 4)
        self.tokens = pd.DataFrame({"real": True, "position": position})
        self.attrs = {
            "model": {"name": "drawn"},
            "data": {"name": "drawn", "sequences": 4},
            "tuning": {"name": self.name, "method": "density"},
            "measurements": {
                "accuracy": self.accuracy,
                "accuracy_se": 0.009,
                "density": self.density,
                "train_seconds": 100.0 * self.accuracy,
            },
            **self.attrs,
        }

    def ops(self, real_only: bool = True, phase: str | None = None) -> list[OpSpec]:
        found = []
        for layer in range(LAYERS):
            found.append(OpSpec("up", layer, "gemm", TOKENS, N, K, tokens_per_pass=TOKENS))
            site = f"layers.{layer}.down"
            found.append(OpSpec("down", layer, "gemm", TOKENS, K, N, input_site=site, tokens_per_pass=TOKENS))
        return found


def drawn_traces() -> list[DrawnTrace]:
    """Three tunings: dense, sparse, sparser and worse."""
    return [
        DrawnTrace("lora", 0.9, 0.845, 1),
        DrawnTrace("relu", 0.15, 0.843, 2),
        DrawnTrace("density", 0.02, 0.803, 3),
    ]
