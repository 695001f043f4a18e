"""Figures: ``f(result, ax=None) -> Axes``, never shown, never saved by the function itself.

A figure takes what it is drawn from as a path, an object, or a list of them. `__all__` is public; modules below are
private by convention.
"""

from .agreement import predicted_measured
from .density import density_by_layer, density_map
from .energy import energy_breakdown
from .gap import synchronisation_gap
from .methods import methods_front
from .patterns import coactivation, entropy, hot_neurons, tile_density, token_overlap, union_density, zero_runs
from .roofline import roofline
from .speedup import speedup_bars, speedup_density, stall_breakdown, utilisation_map
from .style import paper
from .tradeoff import accuracy_energy, pareto, tuning_cost

__all__ = [
    "accuracy_energy",
    "coactivation",
    "density_by_layer",
    "density_map",
    "energy_breakdown",
    "entropy",
    "hot_neurons",
    "methods_front",
    "paper",
    "pareto",
    "predicted_measured",
    "roofline",
    "speedup_bars",
    "speedup_density",
    "stall_breakdown",
    "synchronisation_gap",
    "tile_density",
    "token_overlap",
    "tuning_cost",
    "union_density",
    "utilisation_map",
    "zero_runs",
]
