"""Units at the edge: text such as ``"3.35 TB/s"`` in a YAML becomes a plain float in a fixed unit inside.

pint knows bytes and bits; GB is 1e9 bytes and GiB 2^30, never mixed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .errors import InputError

UNIT_OF = {
    "clock": "hertz",
    "time": "second",
    "node": "nanometer",
    "bandwidth": "byte / second",
    "size": "byte",
    "energy": "picojoule",
    "power": "watt",
    "area": "millimeter ** 2",
    "rate": "1 / second",
}


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry()
    registry.define("FLOP = 1")
    return registry


def parse(text: object, dimension: str) -> float:
    """Convert a quantity to the plain unit of its dimension.

    Parameters
    ----------
    text : str
        Number and unit, e.g. ``"606 MHz"``.
    dimension : str
        Key of `UNIT_OF`.

    Returns
    -------
    float
        The value in ``UNIT_OF[dimension]``.

    Raises
    ------
    InputError
        If the text has no unit, an unknown unit, or one of another dimension.
    """
    unit = UNIT_OF[dimension]
    if not isinstance(text, str):
        raise InputError(f'{text!r} has no unit; write it as text with a unit of {dimension}, e.g. "1 {unit}"')
    return _convert(text, dimension, unit)


@lru_cache(maxsize=4096)
def _convert(text: str, dimension: str, unit: str) -> float:
    # pint takes a millisecond, and a sweep gives the same few texts thousands of times
    registry = _registry()
    try:
        quantity = registry.Quantity(text)
    except Exception:  # pint raises a dozen kinds, tokenizer errors among them
        raise InputError(f"'{text}' is not a quantity of {dimension}; write e.g. \"1 {unit}\"") from None
    try:
        return float(quantity.to(unit).magnitude)
    except Exception:
        raise InputError(f"'{text}' is not a {dimension}; expected something convertible to {unit}") from None
