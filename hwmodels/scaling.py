"""Energy between technology nodes."""

from __future__ import annotations


def energy_factor(from_nm: float, to_nm: float) -> float:
    """Energy of one operation at `to_nm` relative to `from_nm`."""
    if from_nm == to_nm:
        return 1.0
    raise NotImplementedError
