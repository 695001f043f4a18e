"""Figures: ``f(result, ax=None) -> Axes``, never shown, never saved by the function itself."""

from .density import density_by_layer
from .energy import energy_breakdown
from .speedup import speedup_bars
from .style import paper
from .tradeoff import accuracy_energy

__all__ = ["accuracy_energy", "density_by_layer", "energy_breakdown", "paper", "speedup_bars"]
