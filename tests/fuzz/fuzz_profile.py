"""How many examples a property has, and from which seed.

``make test`` runs a few hundred that are the same each time; ``make fuzz`` runs ``EXAMPLES`` of them from a seed that
it prints, and ``make fuzz SEED=...`` repeats them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings

SHORT = 300
# share of a property in all examples, %
SHARES = {
    "archs": 16,
    "tables": 6,
    "sweeps": 8,
    "searches": 2,
    "tunings": 9,
    "masks": 14,
    "data": 12,
    "measurements": 7,
    "stores": 4,
    "commands": 22,
}


def count(name: str) -> int:
    """How many examples a property has."""
    return max(2, round(int(os.environ.get("EXAMPLES", SHORT)) * SHARES[name] / 100))


def examples(name: str) -> Callable[[Any], Any]:
    """Settings of one property: its share of the examples, no database."""
    short = "EXAMPLES" not in os.environ
    return settings(
        max_examples=count(name),
        derandomize=short,
        database=None,
        deadline=None,
        print_blob=not short,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
