"""Figures: ``f(result, ax=None) -> Axes``, never shown, never saved by the function itself."""

from .agreement import predicted_measured
from .density import density_by_layer, density_map
from .energy import energy_breakdown
from .roofline import roofline
from .speedup import speedup_bars, speedup_density, stall_breakdown, utilisation_map
from .style import paper
from .tradeoff import accuracy_energy, pareto, tuning_cost

__all__ = [
    "accuracy_energy",
    "density_by_layer",
    "density_map",
    "energy_breakdown",
    "paper",
    "pareto",
    "predicted_measured",
    "roofline",
    "speedup_bars",
    "speedup_density",
    "stall_breakdown",
    "tuning_cost",
    "utilisation_map",
]
