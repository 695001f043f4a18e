"""Units at the edge: text such as ``"3.35 TB/s"`` in a YAML becomes a plain float in a fixed unit inside.

pint knows bytes and bits; GB is 1e9 bytes and GiB 2^30, never mixed.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, NamedTuple

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
    "voltage": "volt",
    "rate": "1 / second",
}


class Span(NamedTuple):
    """Smallest and largest value of a dimension that a machine can have, in the unit of `UNIT_OF`."""

    least: float
    most: float


# Wide enough for any machine; a value outside is a slip of the unit (700 for 700 MHz) or of the exponent.
SPAN_OF = {
    "clock": Span(1e3, 1e13),
    "time": Span(0.0, 1e9),
    "node": Span(0.1, 1e5),
    "bandwidth": Span(1.0, 1e18),
    "size": Span(1.0, 1e18),
    "energy": Span(0.0, 1e15),
    "power": Span(0.0, 1e9),
    "area": Span(1e-9, 1e9),
    "voltage": Span(0.01, 100.0),
    "rate": Span(0.0, 1e18),
}
# How each dimension is usually written: a text that differs in capitals alone gets the right spelling as a hint.
_USUAL = {
    "clock": ("Hz", "kHz", "MHz", "GHz"),
    "time": ("s", "ms", "us", "ns"),
    "node": ("nm", "um"),
    "bandwidth": ("B/s", "kB/s", "MB/s", "GB/s", "TB/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s"),
    "size": ("byte", "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"),
    "energy": ("fJ", "pJ", "nJ", "uJ"),
    "power": ("W", "mW", "uW", "kW"),
    "area": ("mm^2", "um^2"),
    "voltage": ("V", "mV"),
    "rate": ("1/s",),
}
_EXAMPLE = {
    "clock": "1 GHz",
    "time": "1 us",
    "node": "28 nm",
    "bandwidth": "100 GB/s",
    "size": "64 KiB",
    "energy": "1 pJ",
    "power": "1 W",
    "area": "1 mm^2",
    "voltage": "1 V",
    "rate": "1 /s",
}
_NUMBER = r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
_WORD = r"(?:1|[A-Za-z\u00b5\u03bc%\u00b0\u03a9]+)(?:(?:\*\*|\^)-?[0-9]|[\u00b2\u00b3])?"
# A number and a product of units; pint itself would compute whatever stands there, 9**9**9 among it.
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*((?:/\s*)?{_WORD}(?:\s*(?:/|\*|\u00b7|\s)\s*{_WORD}){{0,4}})\s*")


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
        If the text has no unit, an unknown unit, or one of another dimension, or if no machine has such a value.
    """
    unit = UNIT_OF[dimension]
    if not isinstance(text, str):
        raise InputError(
            f'{text!r} has no unit; write it as text with a unit of {dimension}, e.g. "{_EXAMPLE[dimension]}"'
        )
    return check(_convert(text, dimension, unit), dimension, text)


def check(value: float, dimension: str, written: object = None) -> float:
    """Refuse a value that no machine has: not finite, or outside `SPAN_OF`.

    Parameters
    ----------
    value : float
        In ``UNIT_OF[dimension]``.
    dimension : str
        Key of `SPAN_OF`.
    written : object, optional
        What the user wrote, for the error.

    Returns
    -------
    float
        The value.

    Raises
    ------
    InputError
        Naming the range.
    """
    span, unit = SPAN_OF[dimension], UNIT_OF[dimension]
    if not (math.isfinite(value) and span.least <= value <= span.most):
        shown, hint = f"{value:g} {unit}", ""
        if isinstance(written, str):
            shown = f"'{written}' is {shown}"
            found = _QUANTITY.fullmatch(written)
            hint = _spelling(found[1], found[2], dimension) if found else ""
        remedy = hint or "; check number and unit"
        raise InputError(f"{shown}, must be from {span.least:g} to {span.most:g} {unit}{remedy}")
    return value


@lru_cache(maxsize=4096)
def _convert(text: str, dimension: str, unit: str) -> float:
    # pint takes a millisecond, and a sweep gives the same few texts thousands of times
    found = _QUANTITY.fullmatch(text[:100])
    hint = _spelling(found[1], found[2], dimension) if found else ""
    try:
        if found is None:
            raise ValueError
        quantity = _registry().Quantity(float(found[1]), _unit(found[2]))
    except Exception:  # pint raises a dozen kinds, tokenizer errors among them
        remedy = hint or f'; write e.g. "{_EXAMPLE[dimension]}"'
        raise InputError(f"'{text[:100]}' is not a quantity of {dimension}{remedy}") from None
    try:
        # to pint a bit is a pure number, and 1 GHz would pass for a bandwidth
        if _counts_bits(quantity) != (dimension in ("bandwidth", "size")):
            raise ValueError
        return float(quantity.to(unit).magnitude)
    except Exception:
        remedy = hint or f"; expected something convertible to {unit}"
        raise InputError(f"'{text}' is not a {dimension}{remedy}") from None


def _unit(text: str) -> str:
    return f"1 {text}" if text.startswith("/") else text


def _spelling(number: str, unit: str, dimension: str) -> str:
    """Hint at the usual unit that differs from what was written in capitals, or in the i of powers of 1,024."""

    def plain(name: str) -> str:
        return name.lower().replace(" ", "").replace("ib", "b")

    alike = [name for name in _USUAL[dimension] if plain(name) == plain(unit) and name != unit]
    return "; did you mean " + " or ".join(f"'{number} {name}'" for name in alike) + "?" if alike else ""


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
    found = _QUANTITY.fullmatch(text[:100])
    if found is None:
        raise InputError(f"'{text}' is not a number with a unit; write e.g. \"10 GB/s\"")
    unit = unit or found[2]
    try:
        return float(_registry().Quantity(float(found[1]), found[2]).to(unit).magnitude), unit
    except Exception:  # pint raises a dozen kinds, tokenizer errors among them
        raise InputError(f"'{text}' has no unit that can be converted to {unit}") from None
