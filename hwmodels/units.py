"""Units at the edge: text such as ``"3.35 TB/s"`` in a YAML becomes a plain float in a fixed unit inside.

pint knows bytes and bits; GB is 1e9 bytes and GiB 2^30, never mixed.
"""

from __future__ import annotations

import re
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
        # to pint a bit is a pure number, and 1 GHz would pass for a bandwidth
        if _counts_bits(quantity) != (dimension in ("bandwidth", "size")):
            raise ValueError
        return float(quantity.to(unit).magnitude)
    except Exception:
        raise InputError(f"'{text}' is not a {dimension}; expected something convertible to {unit}") from None


def _counts_bits(quantity: Any) -> bool:
    return any(name.endswith(("bit", "byte", "bits", "bytes")) for name in quantity._units)


def plain(text: str) -> float:
    """Convert a quantity to the plain unit of whatever dimension it has.

    Raises
    ------
    InputError
        If it has none of the dimensions of `UNIT_OF`.
    """
    for dimension in UNIT_OF:
        try:
            return parse(text, dimension)
        except InputError:
            continue
    raise InputError(f"'{text}' is not a quantity of {', '.join(UNIT_OF)}")


def quantity(text: str, unit: str = "") -> tuple[float, str]:
    """Split a quantity into number and unit, converted to `unit` where one is given.

    Raises
    ------
    InputError
        If the text has no unit, an unknown one, or one that cannot be converted.
    """
    found = re.fullmatch(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(\S.*?)\s*", text)
    if found is None:
        raise InputError(f"'{text}' is not a number with a unit; write e.g. \"10 GB/s\"")
    unit = unit or found[2]
    try:
        return float(_registry().Quantity(float(found[1]), found[2]).to(unit).magnitude), unit
    except Exception:  # pint raises a dozen kinds, tokenizer errors among them
        raise InputError(f"'{text}' has no unit that can be converted to {unit}") from None
